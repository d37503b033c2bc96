package reconciler

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"pgregory.net/rapid"
)

// bounded is a model of what is around a service with volumes: each slot is bound to the
// node on which something was first placed in it, and agents do what they are told.
type bounded struct {
	view    View
	homes   map[int]string
	verdict map[string]api.Verdict
	closed  map[string]bool
	epoch   uint64
	now     time.Time
	broken  map[int64]bool
}

func newBounded(replicas, unavailable int) *bounded {
	w := &bounded{homes: map[int]string{}, verdict: map[string]api.Verdict{}, closed: map[string]bool{}, broken: map[int64]bool{}, now: t0,
		view: View{Service: api.Key{Namespace: "default", Name: "web"}, Revision: 1, MaxUnavailable: unavailable, Bound: true}}
	for _, n := range []string{"n1", "n2", "n3"} {
		w.verdict[n] = api.VerdictHealthy
	}
	w.scale(replicas)
	return w
}

func (w *bounded) scale(n int) {
	w.view.Seats = nil
	for slot := range n {
		w.view.Seats = append(w.view.Seats, Seat{Slot: slot})
	}
	w.seat()
}

func (w *bounded) seat() {
	for i := range w.view.Seats {
		s := &w.view.Seats[i]
		s.Node = w.homes[s.Slot]
		s.Closed = s.Node != "" && (w.verdict[s.Node] != api.VerdictHealthy || w.closed[s.Node])
	}
	for i := range w.view.Fillings {
		f := &w.view.Fillings[i]
		f.Verdict = w.verdict[f.Node]
		f.Overdue = w.closed[f.Node] && f.heard()
	}
}

// do carries a plan out: what is bound nowhere yet is placed anywhere, and bound there.
func (w *bounded) do(d Decision) {
	for _, a := range d.Actions {
		i := slices.IndexFunc(w.view.Fillings, func(f Filling) bool { return f.Key == a.Key })
		switch a.Op {
		case Void:
			w.view.Fillings = slices.Delete(w.view.Fillings, i, i+1)
		case Remove:
			w.view.Fillings[i].Stopping = true
		case Create:
			node := a.On
			if node == "" {
				node = fmt.Sprintf("n%d", a.Key.Slot%3+1)
				if w.verdict[node] != api.VerdictHealthy || slices.Contains(a.Avoid, node) {
					continue
				}
				w.homes[a.Key.Slot] = node
			}
			w.epoch++
			a.Key.Epoch = w.epoch
			w.view.Fillings = append(w.view.Fillings, Filling{Key: a.Key, Revision: a.Revision, Node: node, Verdict: w.verdict[node], Phase: api.PhaseAssigned})
		}
	}
	w.seat()
}

func (w *bounded) work() {
	w.view.Fillings = slices.DeleteFunc(w.view.Fillings, func(f Filling) bool { return f.Stopping && f.heard() })
	for i := range w.view.Fillings {
		if f := &w.view.Fillings[i]; f.heard() {
			f.Phase, f.Ready = api.PhaseRunning, !w.broken[f.Revision]
			if f.ReadySince = w.now; !f.Ready {
				f.ReadySince = time.Time{}
			}
		}
	}
}

func (w *bounded) available() int {
	n := 0
	for _, s := range w.view.Seats {
		if slices.ContainsFunc(w.view.Fillings, func(f Filling) bool { return f.Key.Slot == s.Slot && f.available() }) {
			n++
		}
	}
	return n
}

func (w *bounded) text() string { return (&fleet{view: w.view, now: w.now}).text() }

// turn plans, holds the plan against what is promised of bound slots, and carries it out.
func (w *bounded) turn(t checker) Decision {
	t.Helper()
	before, was := w.text(), w.available()
	d := Plan(w.view, w.now)
	for _, a := range d.Actions {
		i := slices.IndexFunc(w.view.Seats, func(s Seat) bool { return s.Slot == a.Key.Slot })
		if a.Why == "" || a.Spare || a.Relief || a.Op == Adopt {
			t.Fatalf("%s", a)
		}
		if a.Op != Create {
			continue
		}
		if i < 0 || w.view.Seats[i].Closed || a.On != w.view.Seats[i].Node {
			t.Fatalf("%s on %q\n%s", a, a.On, before)
		}
		for _, f := range w.view.Fillings {
			if f.Key.Slot == a.Key.Slot && f.Verdict != api.VerdictDead {
				t.Fatalf("%s beside %s, which may have what it is bound to\n%s", a, f.name(), before)
			}
		}
	}
	seats := len(w.view.Seats)
	w.do(d)
	floor := seats - max(1, w.view.MaxUnavailable)
	if w.view.Recreate || w.view.Deleting {
		floor = 0
	}
	if is := w.available(); is < was && is < floor {
		t.Fatalf("I4: from %d to %d, floor %d\n%s%v", was, is, floor, before, d.Actions)
	}
	if again := Plan(w.view, w.now); !slices.ContainsFunc(d.Actions, func(a Action) bool { return a.Op == Create && a.On == "" }) && len(again.Actions) > 0 {
		t.Fatalf("I10: applied and planned again gives %v on\n%s", again.Actions, w.text())
	}
	return d
}

func (w *bounded) settle(t checker, turns int) {
	t.Helper()
	for range turns {
		w.turn(t)
		w.now = w.now.Add(time.Minute)
		w.work()
	}
}

func (w *bounded) must(t *testing.T, want string) {
	t.Helper()
	var out []string
	for _, f := range w.view.Fillings {
		if !f.Stopping {
			out = append(out, fmt.Sprintf("%s:%s:%d", f.Key.Name(), f.Node, f.Revision))
		}
	}
	slices.Sort(out)
	if got := strings.Join(out, " "); got != want {
		t.Fatalf("there is %q, want %q\n%s", got, want, w.text())
	}
}

func TestBoundSlots(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(*bounded)
		want string
	}{
		{"placed", func(*bounded) {}, "web-0:n1:1 web-1:n2:1 web-2:n3:1 web-3:n1:1"},
		{"rolled where they are", func(w *bounded) { w.view.Revision, w.view.Stable = 2, 1 }, "web-0:n1:2 web-1:n2:2 web-2:n3:2 web-3:n1:2"},
		{"recreated", func(w *bounded) { w.view.Revision, w.view.Recreate = 2, true }, "web-0:n1:2 web-1:n2:2 web-2:n3:2 web-3:n1:2"},
		{"scaled down", func(w *bounded) { w.scale(2) }, "web-0:n1:1 web-1:n2:1"},
		{"node suspect", func(w *bounded) { w.verdict["n2"] = api.VerdictSuspect; w.seat() }, "web-0:n1:1 web-1:n2:1 web-2:n3:1 web-3:n1:1"},
		{"node agent lost", func(w *bounded) { w.verdict["n2"] = api.VerdictAgentLost; w.seat() }, "web-0:n1:1 web-1:n2:1 web-2:n3:1 web-3:n1:1"},
		{"node dead", func(w *bounded) { w.verdict["n1"] = api.VerdictDead; w.seat() }, "web-1:n2:1 web-2:n3:1"},
		{"node overdue", func(w *bounded) { w.closed["n2"] = true; w.seat() }, "web-0:n1:1 web-2:n3:1 web-3:n1:1"},
		{"floor keeps what is overdue", func(w *bounded) { w.closed["n1"] = true; w.seat() }, "web-1:n2:1 web-2:n3:1 web-3:n1:1"},
		{"bound elsewhere by now", func(w *bounded) { w.homes[3] = "n3"; w.seat() }, "web-0:n1:1 web-1:n2:1 web-2:n3:1 web-3:n3:1"},
		{"held", func(w *bounded) { w.view.Revision, w.view.Stable, w.view.Held, w.view.AtMost = 2, 1, true, 1 }, "web-0:n1:2 web-1:n2:1 web-2:n3:1 web-3:n1:1"},
		{"unproven", func(w *bounded) { w.view.Revision, w.view.Stable, w.broken[2] = 2, 1, true }, "web-0:n1:2 web-1:n2:1 web-2:n3:1 web-3:n1:1"},
		{"deleted", func(w *bounded) { w.view.Deleting = true }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newBounded(4, 1)
			w.settle(t, 4)
			c.do(w)
			w.settle(t, 12)
			w.must(t, c.want)
		})
	}
}

func TestBoundWords(t *testing.T) {
	w := newBounded(2, 1)
	w.settle(t, 3)
	w.homes[1] = "n3"
	w.seat()
	got := w.turn(t).Actions
	if len(got) != 1 || got[0].String() != "Remove default/web-1@2 revision 1: its slot is bound to n3" {
		t.Errorf("got %v", got)
	}
	w.scale(1)
	w.view.Fillings[1].Stopping = false
	if got := w.turn(t).Actions; len(got) != 1 || got[0].String() != "Remove default/web-1@2 revision 1: the service is scaled to 1" {
		t.Errorf("got %v", got)
	}
}

// TestBoundProperties: whatever happens, each plan keeps what turn checks, and in the end
// each slot has one filling of the wanted revision where it is bound.
func TestBoundProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newBounded(rapid.IntRange(0, 5).Draw(t, "replicas"), rapid.IntRange(0, 3).Draw(t, "unavailable"))
		node := func() string { return rapid.SampledFrom([]string{"n1", "n2", "n3"}).Draw(t, "node") }
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"work", "work", "work", "verdict", "verdict", "close", "revision", "hold", "break", "unready", "recreate", "scale", "unbind", "time"}).Draw(t, "event") {
			case "work":
				w.work()
			case "verdict":
				w.verdict[node()] = rapid.SampledFrom([]api.Verdict{api.VerdictHealthy, api.VerdictHealthy, api.VerdictAgentLost, api.VerdictSuspect,
					api.VerdictDead, api.VerdictUnknown}).Draw(t, "verdict")
			case "close":
				n := node()
				w.closed[n] = !w.closed[n]
			case "revision":
				w.view.Stable, w.view.Revision = rapid.Int64Range(0, 2).Draw(t, "stable"), rapid.Int64Range(1, 4).Draw(t, "revision")
			case "hold":
				w.view.Held, w.view.AtMost = rapid.Bool().Draw(t, "held"), rapid.IntRange(0, 4).Draw(t, "at most")
			case "break":
				w.broken[rapid.Int64Range(1, 4).Draw(t, "broken")] = rapid.Bool().Draw(t, "is")
			case "unready":
				if n := len(w.view.Fillings); n > 0 {
					if f := &w.view.Fillings[rapid.IntRange(0, n-1).Draw(t, "filling")]; f.heard() {
						f.Ready, f.ReadySince = false, time.Time{}
					}
				}
			case "recreate":
				w.view.Recreate = !w.view.Recreate
			case "scale":
				w.scale(rapid.IntRange(0, 5).Draw(t, "to"))
			case "unbind":
				slot := rapid.IntRange(0, 4).Draw(t, "slot")
				if !slices.ContainsFunc(w.view.Fillings, func(f Filling) bool { return f.Key.Slot == slot }) {
					delete(w.homes, slot)
				}
			case "time":
				w.now = w.now.Add(time.Second)
			}
			w.seat()
			if rapid.IntRange(0, 3).Draw(t, "plan") > 0 {
				w.turn(t)
			}
		}
		w.view.Held, w.view.Revision, w.broken = false, 5, map[int64]bool{}
		for _, n := range []string{"n1", "n2", "n3"} {
			w.verdict[n], w.closed[n] = api.VerdictHealthy, false
		}
		w.seat()
		w.settle(t, 4*len(w.view.Seats)+6)
		for _, s := range w.view.Seats {
			var have []string
			for _, f := range w.view.Fillings {
				if f.Key.Slot == s.Slot {
					have = append(have, fmt.Sprintf("revision %d on %s ready %t", f.Revision, f.Node, f.Ready))
				}
			}
			if want := fmt.Sprintf("revision 5 on %s ready true", s.Node); len(have) != 1 || have[0] != want {
				t.Fatalf("slot %d has %q, want %s\n%s", s.Slot, have, want, w.text())
			}
		}
		if d := w.turn(t); d.Counted != d.Slots || len(d.Waiting)+len(d.Actions) > 0 || len(w.view.Fillings) != len(w.view.Seats) {
			t.Fatalf("counted %d of %d, %v, %q", d.Counted, d.Slots, d.Actions, d.Waiting)
		}
	})
}
