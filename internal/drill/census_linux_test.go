package drill

import (
	"testing"
	"time"

	"github.com/orchctl/orch/internal/lab"
)

func at(s float64) time.Time { return time.Unix(0, int64(s*1e9)) }

func TestWrongful(t *testing.T) {
	c := newCensus(nil)
	web0 := lab.Container{Node: "n1", ID: "default.web-0.1.main"}
	web1 := lab.Container{Node: "n2", ID: "default.web-1.2.main"}
	spare := lab.Container{Node: "n1", ID: "default.web-1.3.main"}
	other := lab.Container{Node: "n1", ID: "default.db-0.4.main"}
	c.take([]lab.Container{web0, web1, spare, other}, nil, at(0))
	c.hold("web", func(id string) bool { return id == spare.ID })
	ended := func() int {
		all, err := c.wrongful()
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	c.take([]lab.Container{web0, web1}, nil, at(1))
	if n := ended(); n != 0 {
		t.Errorf("a spare and another service ended: counted %d", n)
	}
	c.power("n2", false)
	c.take([]lab.Container{web0}, nil, at(2))
	if n := ended(); n != 0 {
		t.Errorf("a node lost its power: counted %d", n)
	}
	// Restarted in place is ended, too: the id is another.
	c.take([]lab.Container{{Node: "n1", ID: "default.web-0.1.main_1"}}, nil, at(3))
	if n := ended(); n != 1 {
		t.Errorf("a container was restarted: counted %d, want 1", n)
	}
	c.take(nil, nil, at(4))
	if n := ended(); n != 1 {
		t.Errorf("it is counted once: counted %d", n)
	}
}

func TestDuplicates(t *testing.T) {
	c := newCensus(nil)
	a := lab.Container{Node: "n1", ID: "default.web-0.1.main"}
	b := lab.Container{Node: "n2", ID: "default.web-0.2.main"}
	side := lab.Container{Node: "n1", ID: "default.web-0.1.side"}
	c.take([]lab.Container{a, side}, nil, at(0))
	if most, now, _ := c.duplicates("web", at(0)); most != 0 || now != 0 {
		t.Errorf("two containers of one replica are no duplicates: %d, %d", most, now)
	}
	frozen := a
	frozen.Frozen = true
	c.take([]lab.Container{frozen, b}, nil, at(1))
	if most, _, _ := c.duplicates("web", at(1)); most != 0 {
		t.Errorf("what is frozen does not run: %d", most)
	}
	c.take([]lab.Container{a, b}, nil, at(2))
	c.take([]lab.Container{a, b}, nil, at(3))
	if most, now, long := c.duplicates("web", at(3)); most != 1 || now != 1 || long != time.Second {
		t.Errorf("got %d, %d, %s", most, now, long)
	}
	c.take([]lab.Container{b}, nil, at(5))
	if most, now, long := c.duplicates("web", at(9)); most != 1 || now != 0 || long != 3*time.Second {
		t.Errorf("after its end: got %d, %d, %s", most, now, long)
	}
	if got := c.doubled(); len(got) != 1 || got[0] != "web" {
		t.Errorf("got %v", got)
	}
}
