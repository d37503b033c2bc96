package liveness

import (
	"strings"
	"testing"
	"time"
)

func TestBeatInterval(t *testing.T) {
	for nodes, want := range map[int]time.Duration{
		0: 100 * time.Millisecond, 1: 100 * time.Millisecond, 200: 100 * time.Millisecond,
		201: 200 * time.Millisecond, 400: 200 * time.Millisecond, 401: 300 * time.Millisecond,
		10_000: 5 * time.Second,
	} {
		if got := (Limits{}).BeatInterval(nodes); got != want {
			t.Errorf("%d nodes: %s, want %s", nodes, got, want)
		}
	}
}

// TestShrinkingFleet: when most of a large fleet is removed, the nodes that are
// left still beat at the old, longer interval until they hear of the new one; it
// counts against nobody, and afterwards silence is found at the new pace.
func TestShrinkingFleet(t *testing.T) {
	m := New(Limits{BeatFleet: 1}) // 4 nodes: 400 ms
	now := epoch
	step := func(ev Event) (asked int) {
		for _, e := range m.Step(ev, now) {
			if _, ok := e.(AskWitnesses); ok {
				asked++
			}
		}
		return asked
	}
	for _, n := range []string{"n1", "n2", "n3", "n4"} {
		step(NodeAdded{Node: n})
		step(SessionOpened{Node: n, BootID: "a"})
	}
	for _, n := range []string{"n2", "n3", "n4"} {
		step(NodeRemoved{n})
	}
	for seq := range uint64(3) { // n1 has not heard yet
		now = now.Add(400 * time.Millisecond)
		if step(Tick{})+step(Beat{Node: "n1", Seq: seq + 1}) > 0 {
			t.Fatalf("asked at %s", now.Sub(epoch))
		}
	}
	now = now.Add(50 * time.Millisecond)
	step(Beat{Node: "n1", Seq: 4}) // at the new pace
	now = now.Add(149 * time.Millisecond)
	if step(Tick{}) > 0 {
		t.Error("asked too early")
	}
	now = now.Add(time.Millisecond)
	if step(Tick{}) != 1 {
		t.Error("not asked when a beat of the new interval is late")
	}
}

// TestLimitsTable: every field of Limits has a name by which it can be set, and the
// table shows the defaults of what is not set.
func TestLimitsTable(t *testing.T) {
	if err := DefaultLimits().Validate(); err != nil {
		t.Fatal(err)
	}
	defaults := Limits{}.Table()
	for i, row := range defaults {
		var l Limits
		if err := l.Set(row.Name, row.Value()); err != nil || l == (Limits{}) {
			t.Errorf("%s=%s: %v, set %v", row.Name, row.Value(), err, l)
		}
		if got := l.Table()[i]; got.Name != row.Name || got.Value() != row.Value() {
			t.Errorf("%s: default %s, set to that is %s", row.Name, row.Value(), got.Value())
		}
		if len(row.What) < 40 {
			t.Errorf("%s: does not say why: %q", row.Name, row.What)
		}
	}
	var all Limits
	for _, row := range defaults {
		if err := all.Set(row.Name, row.Value()); err != nil {
			t.Error(err)
		}
	}
	if all != DefaultLimits() {
		t.Errorf("every limit set to its default gives %+v", all)
	}
	if err := all.Set("beat-colour", "red"); err == nil {
		t.Error("an unknown limit was set")
	}
}

func TestLimitsValidate(t *testing.T) {
	for _, x := range []struct{ set, want string }{
		{"dead-after=20s", ""},
		{"beat-every=50ms", ""},
		{"beat-jitter=250ms", ""},
		{"jitter-max=20ms", "jitter-max"},
		{"ask-timeout=100ms", "no report would come in time"},
		{"recheck-every=50ms", "recheck-every"},
		{"agent-lost-after=200ms", "agent-lost-after"},
		{"beat-miss=10", "agent-lost-after"},
		{"dead-after=900ms", "dead-after"},
		{"agent-lost-after=2m", "dead-after"},
		{"flap-reuse=3", "flap-reuse"},
		{"flap-max=2", "nothing would ever be damped"},
		{"freeze-max=5s", "freeze-max"},
	} {
		var l Limits
		name, value, _ := strings.Cut(x.set, "=")
		if err := l.Set(name, value); err != nil {
			t.Error(err)
		}
		switch err := l.Validate(); {
		case err == nil && x.want != "":
			t.Errorf("%s: no error, want %q", x.set, x.want)
		case err != nil && (x.want == "" || !strings.Contains(err.Error(), x.want)):
			t.Errorf("%s: %v, want %q", x.set, err, x.want)
		}
	}
	if err := (Limits{DeadAfter: -time.Second, MassShare: 2}).Validate(); err == nil ||
		!strings.Contains(err.Error(), "dead-after is -1s") || !strings.Contains(err.Error(), "mass-share is 200%") {
		t.Errorf("negative and above one: %v", err)
	}
}
