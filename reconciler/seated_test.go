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

// everywhere is a model of what is around a global service: nodes that are seated as
// the core seats them, and agents that start and stop what they are told.
type everywhere struct {
	view    View
	names   []string
	verdict map[string]api.Verdict
	closed  map[string]bool
	leave   map[string]string
	slots   map[string]int
	epoch   uint64
	now     time.Time
	broken  map[int64]bool // revisions that never get ready
}

func newEverywhere(unavailable int, nodes ...string) *everywhere {
	w := &everywhere{verdict: map[string]api.Verdict{}, closed: map[string]bool{}, leave: map[string]string{}, slots: map[string]int{}, now: t0, broken: map[int64]bool{},
		view: View{Service: api.Key{Namespace: "default", Name: "log"}, Revision: 1, MaxUnavailable: unavailable, Global: true}}
	for _, n := range nodes {
		w.join(n)
	}
	return w
}

func (w *everywhere) join(name string) {
	if !slices.Contains(w.names, name) {
		w.names = append(w.names, name)
		w.slots[name] = len(w.names) - 1
	}
	w.judge(name, api.VerdictHealthy)
}

func (w *everywhere) judge(name string, v api.Verdict) {
	w.verdict[name] = v
	for i := range w.view.Fillings {
		if f := &w.view.Fillings[i]; f.Node == name {
			f.Verdict = v
			if v == api.VerdictBack {
				f.Phase, f.Ready = api.PhaseAssigned, false
			}
		}
	}
}

// seat is what the core does, without its care for numbers.
func (w *everywhere) seat() {
	w.view.Seats = nil
	for _, n := range w.names {
		has := slices.ContainsFunc(w.view.Fillings, func(f Filling) bool { return f.Node == n && f.Verdict != api.VerdictDead })
		takes := w.verdict[n] == api.VerdictHealthy && !w.closed[n]
		switch {
		case w.leave[n] != "" && has:
			w.view.Seats = append(w.view.Seats, Seat{Slot: w.slots[n], Node: n, Leave: w.leave[n]})
		case w.leave[n] == "" && (has || takes):
			w.view.Seats = append(w.view.Seats, Seat{Slot: w.slots[n], Node: n, Closed: w.closed[n]})
		}
	}
}

// do carries a plan out; what the scheduler would refuse is not placed.
func (w *everywhere) do(d Decision) {
	for _, a := range d.Actions {
		i := slices.IndexFunc(w.view.Fillings, func(f Filling) bool { return f.Key == a.Key })
		switch a.Op {
		case Void:
			w.view.Fillings = slices.Delete(w.view.Fillings, i, i+1)
		case Remove:
			w.view.Fillings[i].Stopping = true
		case Adopt:
			w.view.Fillings[i].Spare = false
		case Create:
			if w.verdict[a.On] != api.VerdictHealthy {
				continue
			}
			w.epoch++
			a.Key.Epoch = w.epoch
			w.view.Fillings = append(w.view.Fillings, Filling{Key: a.Key, Revision: a.Revision, Node: a.On, Verdict: api.VerdictHealthy, Phase: api.PhaseAssigned})
		}
	}
}

// work lets the agents that are heard stop and start.
func (w *everywhere) work() {
	w.view.Fillings = slices.DeleteFunc(w.view.Fillings, func(f Filling) bool { return f.Stopping && f.heard() })
	for i := range w.view.Fillings {
		if f := &w.view.Fillings[i]; f.heard() {
			w.ready(f, !w.broken[f.Revision])
		}
	}
}

func (w *everywhere) ready(f *Filling, is bool) {
	if f.Phase = api.PhaseRunning; is && !f.Ready {
		f.ReadySince = w.now
	}
	if f.Ready = is; !is {
		f.ReadySince = time.Time{}
	}
}

// turn seats, plans, checks and carries out.
func (w *everywhere) turn(t checker) Decision {
	t.Helper()
	w.seat()
	d := w.check(t)
	w.do(d)
	return d
}

// serve counts the wanted seats that serve, and gives the fillings of the wanted revision.
func (w *everywhere) serve(v View) (serve, current int) {
	for _, n := range v.Seats {
		if n.Leave != "" {
			continue
		}
		for _, f := range v.Fillings {
			if f.Node != n.Node || f.Key.Slot != n.Slot || f.Stopping || f.Verdict == api.VerdictSuspect || f.Verdict == api.VerdictDead {
				continue
			}
			if f.Ready && !f.Phase.Ended() && (f.Revision != v.Revision || w.now.Sub(f.ReadySince) >= v.MinReady) {
				serve++
				break
			}
		}
	}
	for _, f := range v.Fillings {
		if f.Revision == v.Revision && !f.Stopping && f.Verdict != api.VerdictDead {
			current++
		}
	}
	return serve, current
}

func (w *everywhere) text() string { return (&fleet{view: w.view, now: w.now}).text() }

// check holds a plan against what is promised of global services.
func (w *everywhere) check(t checker) Decision {
	t.Helper()
	before := w.text()
	d := Plan(w.view, w.now)
	if w.text() != before {
		t.Fatalf("Plan changed its view")
	}
	seats := map[int]Seat{}
	wanted := 0
	for _, n := range w.view.Seats {
		seats[n.Slot] = n
		if n.Leave == "" {
			wanted++
		}
	}
	for _, a := range d.Actions {
		n := seats[a.Key.Slot]
		switch {
		case a.Why == "" || a.Spare || a.Relief:
			t.Fatalf("%s", a)
		case a.Op == Create && (a.On == "" || a.On != n.Node || n.Closed || n.Leave != "" || w.view.Deleting):
			t.Fatalf("%s on %q: the seat is %+v", a, a.On, n)
		}
		for _, f := range w.view.Fillings {
			if a.Op == Create && f.Key.Slot == a.Key.Slot && f.Verdict != api.VerdictDead {
				t.Fatalf("%s beside %s\n%s", a, f.name(), w.text())
			}
			if a.Op == Remove && f.Key == a.Key && n.Leave == "" && !w.view.Deleting && (!f.heard() || n.Closed || f.Revision == w.view.Revision) {
				t.Fatalf("%s on %s, which is %s, closed %t\n%s", a, f.Node, f.Verdict, n.Closed, w.text())
			}
		}
	}
	was, had := w.serve(w.view)
	after := *w
	after.view.Fillings = slices.Clone(w.view.Fillings)
	after.do(d)
	is, has := after.serve(after.view)
	floor := wanted - max(1, w.view.MaxUnavailable)
	if w.view.Recreate {
		floor = 0
	}
	if is < was && is < floor && !w.view.Deleting {
		t.Fatalf("I4: from %d to %d, floor %d\n%s%v", was, is, floor, before, d.Actions)
	}
	if w.view.Held && has > had && has > w.view.AtMost && w.view.Stable != 0 && w.view.Stable != w.view.Revision {
		t.Fatalf("held at %d, and the plan makes it %d\n%s%v", w.view.AtMost, has, before, d.Actions)
	}
	live := map[string]int{}
	for _, f := range after.view.Fillings {
		if live[f.Node]++; live[f.Node] > 1 && !f.Stopping {
			t.Fatalf("two on %s\n%s", f.Node, after.text())
		}
	}
	if again := Plan(after.view, w.now); len(again.Actions) > 0 {
		t.Fatalf("I10: applied and planned again gives %v on\n%s", again.Actions, after.text())
	}
	return d
}

func (w *everywhere) settle(t checker, turns int) {
	t.Helper()
	for range turns {
		w.turn(t)
		w.now = w.now.Add(time.Minute)
		w.work()
	}
}

// revisions gives "n1:2 n2:2" of what lives, in the order of slots.
func (w *everywhere) revisions() string {
	var out []string
	for _, f := range w.view.Fillings {
		if !f.Stopping {
			out = append(out, fmt.Sprintf("%s:%d", f.Node, f.Revision))
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func (w *everywhere) must(t *testing.T, want string) {
	t.Helper()
	if got := w.revisions(); got != want {
		t.Fatalf("there is %q, want %q\n%s", got, want, w.text())
	}
}

func TestGlobalRollsStopFirstWithinTheFloor(t *testing.T) {
	w := newEverywhere(2, "n1", "n2", "n3", "n4", "n5")
	w.settle(t, 3)
	w.must(t, "n1:1 n2:1 n3:1 n4:1 n5:1")
	w.view.Revision, w.view.Stable = 2, 1
	w.turn(t)
	w.must(t, "n3:1 n4:1 n5:1")
	w.work() // stopped
	w.turn(t)
	w.must(t, "n1:2 n2:2 n3:1 n4:1 n5:1")
	if d := w.turn(t); d.Counted != 0 || d.Slots != 5 || !strings.Contains(strings.Join(d.Waiting, "; "), "slots that wait for their turn: 3 (available 3, at least 3)") {
		t.Errorf("counted %d of %d: %q", d.Counted, d.Slots, d.Waiting)
	}
	w.settle(t, 10)
	w.must(t, "n1:2 n2:2 n3:2 n4:2 n5:2")
	if d := w.turn(t); d.Counted != 5 || len(d.Waiting) != 0 {
		t.Errorf("counted %d: %q", d.Counted, d.Waiting)
	}
}

func TestGlobalCountsAfterMinReady(t *testing.T) {
	w := newEverywhere(1, "n1", "n2")
	w.settle(t, 3)
	w.view.Revision, w.view.Stable, w.view.MinReady = 2, 1, 10*time.Second
	for range 2 {
		w.turn(t)
		w.work()
	}
	w.must(t, "n1:2 n2:1")
	d := w.turn(t)
	if d.Counted != 0 || !d.Wake.Equal(w.now.Add(10*time.Second)) || len(d.Actions) > 0 {
		t.Errorf("counted %d, wake in %s: %v", d.Counted, d.Wake.Sub(w.now), d.Actions)
	}
	w.now = d.Wake
	if d = w.turn(t); d.Counted != 1 || len(d.Actions) != 1 {
		t.Errorf("counted %d: %v", d.Counted, d.Actions)
	}
}

func TestGlobalHeld(t *testing.T) {
	w := newEverywhere(2, "n1", "n2", "n3")
	w.settle(t, 3)
	w.view.Revision, w.view.Stable, w.view.Held, w.view.AtMost = 2, 1, true, 1
	w.settle(t, 10)
	w.must(t, "n1:2 n2:1 n3:1")
	w.join("n4") // what the rollout has not come to gets what was rolled out well
	w.settle(t, 3)
	w.must(t, "n1:2 n2:1 n3:1 n4:1")
	w.view.Held = false
	w.settle(t, 10)
	w.must(t, "n1:2 n2:2 n3:2 n4:2")
}

// What nothing has proven takes no more than the floor leaves, and new nodes do not
// get it.
func TestGlobalUnproven(t *testing.T) {
	w := newEverywhere(1, "n1", "n2", "n3")
	w.settle(t, 3)
	w.view.Revision, w.view.Stable, w.broken[2] = 2, 1, true
	w.settle(t, 10)
	w.join("n4")
	w.settle(t, 5)
	w.must(t, "n1:2 n2:1 n3:1 n4:1")
	w.view.Revision = 3 // the rollback
	w.settle(t, 12)
	w.must(t, "n1:3 n2:3 n3:3 n4:3")
}

func TestGlobalRecreate(t *testing.T) {
	for leave, want := range map[string]string{"": "n1:2 n2:2 n3:2", "n2 is not fit": "n1:2 n3:2"} {
		w := newEverywhere(3, "n1", "n2", "n3")
		w.settle(t, 3)
		w.view.Revision, w.view.Stable, w.view.Recreate = 2, 1, true
		w.leave["n2"] = leave
		w.turn(t)
		w.must(t, "")
		i := slices.IndexFunc(w.view.Fillings, func(f Filling) bool { return f.Node == "n2" })
		slow := w.view.Fillings[i]
		w.work()
		w.view.Fillings = append(w.view.Fillings, slow) // it is not gone yet
		w.turn(t)
		w.must(t, "")
		w.settle(t, 3)
		w.must(t, want)
	}
}

// What a node is: one that is suspect keeps its seat and nothing stands in, one that
// is dead loses it, one that is closed keeps what it has, one that is left loses it.
func TestGlobalAndItsNodes(t *testing.T) {
	for _, c := range []struct {
		name      string
		do        func(*everywhere)
		then      string // at once
		back      func(*everywhere)
		afterward string
	}{
		{"suspect", func(w *everywhere) { w.judge("n2", api.VerdictSuspect) }, "n1:1 n2:1 n3:1",
			func(w *everywhere) { w.judge("n2", api.VerdictBack) }, "n1:1 n2:1 n3:1"},
		{"agent lost", func(w *everywhere) { w.judge("n2", api.VerdictAgentLost) }, "n1:1 n2:1 n3:1",
			func(w *everywhere) { w.judge("n2", api.VerdictHealthy) }, "n1:1 n2:1 n3:1"},
		{"dead", func(w *everywhere) { w.judge("n2", api.VerdictDead) }, "n1:1 n3:1",
			func(w *everywhere) { w.judge("n2", api.VerdictHealthy) }, "n1:1 n2:1 n3:1"},
		{"closed", func(w *everywhere) { w.closed["n2"], w.view.Revision = true, 2 }, "n1:2 n2:1 n3:2",
			func(w *everywhere) { w.closed["n2"] = false }, "n1:2 n2:2 n3:2"},
		{"closed and dead", func(w *everywhere) { w.closed["n2"] = true; w.judge("n2", api.VerdictDead) }, "n1:1 n3:1",
			func(w *everywhere) { w.judge("n2", api.VerdictHealthy) }, "n1:1 n3:1"},
		{"left", func(w *everywhere) { w.leave["n2"] = "n2 is being drained by root" }, "n1:1 n3:1",
			func(w *everywhere) { w.leave["n2"] = "" }, "n1:1 n2:1 n3:1"},
		{"left unheard", func(w *everywhere) {
			w.leave["n2"] = "n2 is being drained by root"
			w.judge("n2", api.VerdictAgentLost)
		}, "n1:1 n3:1",
			func(w *everywhere) { w.leave["n2"] = ""; w.judge("n2", api.VerdictHealthy) }, "n1:1 n2:1 n3:1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newEverywhere(1, "n1", "n2", "n3")
			w.settle(t, 3)
			c.do(w)
			w.settle(t, 8)
			w.must(t, c.then)
			if d := w.turn(t); d.Counted != len(w.view.Seats) && d.Counted != d.Slots && c.name != "suspect" {
				t.Errorf("counted %d of %d", d.Counted, d.Slots)
			}
			c.back(w)
			w.settle(t, 8)
			w.must(t, c.afterward)
		})
	}
}

// A service becomes global: one filling on each node stays, spares are adopted, and
// what is in another node's slot goes.
func TestBecomingGlobal(t *testing.T) {
	w := newEverywhere(1, "n1", "n2", "n3")
	put := func(slot int, node string, spare bool) {
		w.epoch++
		w.view.Fillings = append(w.view.Fillings, Filling{Key: api.ReplicaKey{Namespace: "default", Service: "log", Slot: slot, Epoch: w.epoch}, Revision: 1,
			Node: node, Verdict: api.VerdictHealthy, Phase: api.PhaseRunning, Ready: true, ReadySince: t0, Spare: spare})
	}
	put(0, "n1", false)
	put(0, "n2", true)
	put(1, "n2", true)
	put(5, "n1", false)
	put(2, "n4", false) // is no node of it
	w.seat()
	d := Plan(w.view, w.now)
	var got []string
	for _, a := range d.Actions {
		got = append(got, a.String())
	}
	want := []string{
		"Remove default/log-0@2 revision 1: the service is global: n2 has log-1",
		"Adopt default/log-1@3 revision 1: the service is global: the slot has no other replica",
		"Remove default/log-2@5 revision 1: the service is global and has no slot on n4",
		"Create default/log-2 revision 1: the service is global and n3 has none of it",
		"Remove default/log-5@4 revision 1: the service is global: n1 has log-0",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	w.view.Deleting = true
	for _, a := range Plan(w.view, w.now).Actions {
		if a.Op != Remove || a.Why != "the service is deleted" {
			t.Errorf("deleting: %s", a)
		}
	}
}

// TestGlobalProperties: whatever happens, each plan keeps what check promises; and
// when it has ended, each node that is fit has one filling of the wanted revision.
func TestGlobalProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newEverywhere(rapid.IntRange(0, 3).Draw(t, "unavailable"), "n1", "n2", "n3")
		node := func() string { return rapid.SampledFrom(w.names).Draw(t, "node") }
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"work", "work", "work", "join", "verdict", "verdict", "close", "leave", "revision", "hold", "break", "unready", "end", "recreate", "minReady", "time", "mend"}).Draw(t, "event") {
			case "work":
				w.work()
			case "join":
				w.join(fmt.Sprintf("n%d", rapid.IntRange(1, 6).Draw(t, "n")))
			case "verdict":
				w.judge(node(), rapid.SampledFrom([]api.Verdict{api.VerdictHealthy, api.VerdictHealthy, api.VerdictAgentLost, api.VerdictSuspect,
					api.VerdictDead, api.VerdictBack, api.VerdictUnknown}).Draw(t, "verdict"))
			case "close":
				n := node()
				w.closed[n] = !w.closed[n]
			case "leave":
				n := node()
				w.leave[n] = map[bool]string{true: "it is drained"}[w.leave[n] == ""]
			case "revision":
				w.view.Stable, w.view.Revision = rapid.Int64Range(0, 2).Draw(t, "stable"), rapid.Int64Range(1, 4).Draw(t, "revision")
			case "hold":
				w.view.Held, w.view.AtMost = rapid.Bool().Draw(t, "held"), rapid.IntRange(0, 4).Draw(t, "at most")
			case "break", "mend":
				w.broken[rapid.Int64Range(1, 4).Draw(t, "broken")] = rapid.Bool().Draw(t, "is")
			case "unready", "end":
				if n := len(w.view.Fillings); n > 0 {
					f := &w.view.Fillings[rapid.IntRange(0, n-1).Draw(t, "filling")]
					if f.heard() {
						w.ready(f, false)
						if rapid.Bool().Draw(t, "failed") {
							f.Phase = api.PhaseFailed
						}
					}
				}
			case "recreate":
				w.view.Recreate = !w.view.Recreate
			case "minReady":
				w.view.MinReady = time.Duration(rapid.IntRange(0, 20).Draw(t, "seconds")) * time.Second
			case "time":
				w.now = w.now.Add(time.Duration(rapid.IntRange(1, 20).Draw(t, "seconds")) * time.Second)
			}
			if rapid.IntRange(0, 3).Draw(t, "plan") > 0 {
				w.turn(t)
			}
		}
		w.view.Held, w.view.Revision, w.broken = false, 5, map[int64]bool{}
		gone := map[string]bool{}
		for _, n := range w.names {
			switch {
			case rapid.Bool().Draw(t, "dead"):
				gone[n] = true
				w.judge(n, api.VerdictDead)
			default:
				w.judge(n, api.VerdictHealthy)
			}
			w.closed[n] = false
		}
		w.settle(t, 4*len(w.names)+4)
		for _, n := range w.names {
			var have []string
			for _, f := range w.view.Fillings {
				if f.Node == n {
					have = append(have, fmt.Sprintf("revision %d ready %t", f.Revision, f.Ready))
				}
			}
			if fit := !gone[n] && w.leave[n] == ""; fit && !slices.Equal(have, []string{"revision 5 ready true"}) || !fit && len(have) > 0 {
				t.Fatalf("%s, fit %t, has %q\n%s", n, fit, have, w.text())
			}
		}
		if d := w.turn(t); d.Counted != d.Slots || len(d.Waiting)+len(d.Actions) > 0 {
			t.Fatalf("counted %d of %d, %v, %q", d.Counted, d.Slots, d.Actions, d.Waiting)
		}
	})
}
