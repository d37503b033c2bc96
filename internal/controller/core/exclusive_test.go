package core

import (
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
)

// A service becomes exclusive while one of its replicas runs where nobody can
// tell it to stop, without a lease: only the node itself, its boot or its removal
// end that.
func TestBecomingExclusiveWaitsForWhatHasNoLease(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(f *fleet, home string)
		runs bool
	}{
		{"nothing", func(*fleet, string) {}, false},
		{"dead", func(f *fleet, home string) { f.word(home, "dead") }, false},
		{"it comes back", func(f *fleet, home string) { f.dial(home) }, true},
		{"it is dead and comes back", func(f *fleet, home string) {
			f.word(home, "dead")
			f.dial(home)
		}, true},
		{"it boots", func(f *fleet, home string) { f.node(home, "boot2") }, true},
		{"it is removed", func(f *fleet, home string) {
			delete(f.agents, home) // so it is truly gone
			f.word(home, "dead")
			f.word(home, "remove")
		}, true},
		{"a new leader", func(f *fleet, home string) {
			f.elect()
			f.dial(f.but(home)...)
		}, false},
		{"dead, and a new leader", func(f *fleet, home string) {
			f.word(home, "dead")
			f.elect()
			f.dial(f.but(home)...)
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := threeNodes(t)
			f.apply("1", named("db", 1, "a:1"))
			home := f.home("db", 0)
			f.silentCut(home)
			f.pass(100 * time.Millisecond) // not yet suspect: no spare
			f.apply("2", only("db", 1, "a:2"))
			f.pass(70 * time.Second)
			f.mustReady("db", 0)
			c.end(f, home)
			f.pass(15 * time.Second)
			if ready := f.service("db").Status.Ready > 0; ready != c.runs {
				t.Errorf("runs %v, want %v; %q", ready, c.runs, f.service("db").Status.Reasons)
			}
			if !c.runs && len(f.service("db").Status.Reasons) == 0 {
				t.Error("nobody says why")
			}
		})
	}
}

// An exclusive revision is rolled stop-first, in both directions of the change.
func TestRolloutsFromAndToExclusive(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", named("db", 3, "a:1"))
	f.pass(time.Second)
	for i, s := range []*api.Service{only("db", 3, "a:2"), only("db", 3, "a:3"), named("db", 3, "a:4")} {
		f.apply(s.Spec.Containers[0].Image, s)
		f.pass(3 * time.Second)
		f.mustReady("db", 3)
		if st := f.service("db").Status; st.UpdatedReady != 3 || len(f.core.fillings) != 3 {
			t.Errorf("change %d: %+v, %d fillings", i, st, len(f.core.fillings))
		}
	}
}

// Whatever a planner wants, nothing is placed in a slot in which something may run.
func TestTakenSlots(t *testing.T) {
	f, home := exclusiveFleet(t)
	s := f.core.services[api.Key{Namespace: "default", Name: "db"}]
	if !f.core.taken(s, 0) || f.core.taken(s, 1) {
		t.Error("a living filling takes its slot, and no other")
	}
	f.silentCut(home)
	f.apply("down", only("db", 0, "a:1"))
	if !f.core.taken(s, 0) {
		t.Error("a stopping one takes its slot until its fence has passed")
	}
	f.pass(7 * time.Second)
	if f.core.taken(s, 0) {
		t.Error("it takes its slot although its fence has passed")
	}
}

// A removed service leaves nothing in the store or in memory, when its fences have
// passed.
func TestDeletedExclusiveIsGoneAfterItsFence(t *testing.T) {
	f, home := exclusiveFleet(t)
	f.silentCut(home)
	f.delete("db")
	f.word(home, "dead")
	f.pass(4 * time.Second)
	if f.seen[ViewKey{api.KindService, "default", "db"}] == nil {
		t.Error("it went before its fence had passed")
	}
	f.pass(4 * time.Second)
	for k := range f.kv {
		if strings.Contains(k, "/db") && !strings.HasPrefix(k, eventPrefix) {
			t.Errorf("%s is left in the store", k)
		}
	}
	if n := len(f.core.fillings) + len(f.core.services) + len(f.core.wakes); n != 0 {
		t.Errorf("%d things are left in memory", n)
	}
}
