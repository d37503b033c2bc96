package reconciler

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
)

// t0 is any time: no rule depends on it.
var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// fleet is a small model of what is around the planner: it applies plans as the
// core does and reports as agents do.
type fleet struct {
	view    View
	nodes   []string // in order of preference
	verdict map[string]api.Verdict
	epoch   uint64
	refuse  bool // no Create finds a node
}

func newFleet(replicas, surge, unavailable int, nodes ...string) *fleet {
	w := &fleet{nodes: nodes, verdict: map[string]api.Verdict{}, view: View{
		Service: api.Key{Namespace: "default", Name: "web"}, Replicas: replicas, Revision: 1, MaxSurge: surge, MaxUnavailable: unavailable}}
	for _, n := range nodes {
		w.verdict[n] = api.VerdictHealthy
	}
	return w
}

// apply commits a plan.
func (w *fleet) apply(d Decision) {
	for _, a := range d.Actions {
		if a.Op == Create {
			w.place(a)
			continue
		}
		i := slices.IndexFunc(w.view.Fillings, func(f Filling) bool { return f.Key == a.Key })
		switch a.Op {
		case Void:
			w.view.Fillings = slices.Delete(w.view.Fillings, i, i+1)
		case Remove:
			w.view.Fillings[i].Stopping = true
		case Adopt:
			w.view.Fillings[i].Spare = false
		}
	}
	slices.SortFunc(w.view.Fillings, func(a, b Filling) int {
		if a.Key.Slot != b.Key.Slot {
			return a.Key.Slot - b.Key.Slot
		}
		return int(a.Key.Epoch) - int(b.Key.Epoch)
	})
}

// place puts a new filling on the healthy node that has the fewest.
func (w *fleet) place(a Action) {
	best, least := "", 0
	for _, n := range w.nodes {
		if w.verdict[n] != api.VerdictHealthy || slices.Contains(a.Avoid, n) {
			continue
		}
		count := 0
		for _, f := range w.view.Fillings {
			if f.Node == n {
				count++
			}
		}
		if best == "" || count < least {
			best, least = n, count
		}
	}
	if best == "" || w.refuse {
		return
	}
	w.epoch++
	a.Key.Epoch = w.epoch
	w.view.Fillings = append(w.view.Fillings, Filling{Key: a.Key, Revision: a.Revision, Node: best,
		Verdict: api.VerdictHealthy, Phase: api.PhaseAssigned, Spare: a.Spare})
}

// judge gives a node a verdict. What comes back has not reported its fillings yet.
func (w *fleet) judge(node string, v api.Verdict) {
	w.verdict[node] = v
	for i := range w.view.Fillings {
		if f := &w.view.Fillings[i]; f.Node == node {
			f.Verdict = v
			if v == api.VerdictBack && !f.Phase.Ended() {
				f.Phase = api.PhaseAssigned
			}
		}
	}
}

// report sets what an agent says of a filling; an agent that is not heard says nothing.
func (f *Filling) report(phase api.Phase, ready bool) {
	if !f.heard() || f.Phase.Ended() {
		return
	}
	f.Phase, f.Ready, f.ReadySince = phase, ready, time.Time{}
	if ready {
		f.ReadySince = t0
	}
}

// gone takes away what heard agents have stopped.
func (w *fleet) gone() {
	w.view.Fillings = slices.DeleteFunc(w.view.Fillings, func(f Filling) bool { return f.Stopping && f.heard() })
}

// allReady lets every agent that is heard bring up what it has.
func (w *fleet) allReady() {
	for i := range w.view.Fillings {
		w.view.Fillings[i].report(api.PhaseRunning, true)
	}
}

// text prints the fillings, one a line.
func (w *fleet) text() string {
	var b strings.Builder
	for _, f := range w.view.Fillings {
		fmt.Fprintf(&b, "%s revision %d on %s (%s) %s", f.name(), f.Revision, f.Node, f.Verdict, f.Phase)
		for _, x := range []struct {
			set  bool
			word string
		}{{f.Ready, "ready"}, {f.Spare, "spare"}, {f.Stopping, "stopping"}} {
			if x.set {
				b.WriteString(" " + x.word)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// checkPlan plans, checks every invariant that holds for a single plan, and
// returns the decision.
func (w *fleet) checkPlan(t checker) Decision {
	t.Helper()
	before := w.text()
	d := Plan(w.view, t0)
	if again := Plan(w.view, t0.Add(time.Hour)); fmt.Sprintf("%+v", d) != fmt.Sprintf("%+v", again) {
		t.Fatalf("same view, two plans:\n%+v\n%+v", d, again)
	}
	if w.text() != before {
		t.Fatalf("Plan changed its view:\n%s\nto\n%s", before, w.text())
	}
	w.checkTargets(t, d)

	after := w.applied(d)
	was, is, floor := serving(w.view), serving(after), w.view.Replicas-w.view.MaxUnavailable
	if is < was && is < floor && !w.view.Deleting {
		t.Fatalf("I4: from %d available slots to %d, floor %d\n%s%v", was, is, floor, before, d.Actions)
	}
	w.checkSurplus(t, d, after)
	return d
}

// checkSurplus checks that no Create takes more room than the surge gives, and
// that nothing at all makes more live fillings than it allows. Without Creates
// room can only pass from a spare to the incumbent that it becomes.
func (w *fleet) checkSurplus(t checker, d Decision, after View) {
	t.Helper()
	rest := d
	rest.Actions = slices.DeleteFunc(slices.Clone(d.Actions), func(a Action) bool { return a.Op == Create })
	all := func(Filling) bool { return true }
	live := func(f Filling) bool { return !f.Stopping }
	for _, x := range []struct {
		what  string
		view  View
		count func(Filling) bool
	}{{"fillings by Create", w.applied(rest), all}, {"live fillings", w.view, live}} {
		was, is := surplus(x.view, x.count), surplus(after, x.count)
		if is > was && is > w.view.MaxSurge {
			t.Fatalf("surplus of %s from %d to %d, surge %d\n%s%v", x.what, was, is, w.view.MaxSurge, w.text(), d.Actions)
		}
	}
}

// checkTargets looks at every action by itself.
func (w *fleet) checkTargets(t checker, d Decision) {
	t.Helper()
	seen := map[string]bool{}
	for _, a := range d.Actions {
		if a.Why == "" {
			t.Fatalf("%s has no reason", a)
		}
		if a.Op == Create {
			if a.Key.Epoch != 0 || a.Key.Slot >= w.view.Replicas || w.view.Deleting {
				t.Fatalf("%s: replicas %d, deleting %t", a, w.view.Replicas, w.view.Deleting)
			}
			continue
		}
		id := fmt.Sprint(a.Op, a.Key)
		i := slices.IndexFunc(w.view.Fillings, func(f Filling) bool { return f.Key == a.Key })
		if i < 0 || seen[id] {
			t.Fatalf("%s: unknown filling or twice", a)
		}
		seen[id] = true
		f := w.view.Fillings[i]
		unwanted := w.view.Deleting || f.Key.Slot >= w.view.Replicas
		switch {
		case (a.Op == Void) != (f.Verdict == api.VerdictDead):
			t.Fatalf("%s on a node that is %s", a, f.Verdict)
		case f.Stopping && a.Op != Void:
			t.Fatalf("%s acts on a stopping filling", a)
		case a.Op == Remove && !f.heard() && !unwanted:
			t.Fatalf("%s removes from a node that is %s", a, f.Verdict)
		}
	}
}

// applied gives the view after the plan, everything placed.
func (w *fleet) applied(d Decision) View {
	c := *w
	c.view.Fillings = slices.Clone(w.view.Fillings)
	c.nodes = append(slices.Clone(w.nodes), "room")
	c.verdict = map[string]api.Verdict{"room": api.VerdictHealthy}
	c.refuse = false
	c.apply(d)
	return c.view
}

// checkIdle checks I10 on a view to which a plan was applied.
func checkIdle(t checker, after View) {
	t.Helper()
	if d := Plan(after, t0); len(d.Actions) > 0 {
		w := fleet{view: after}
		t.Fatalf("I10: applied and planned again gives %v on\n%s", d.Actions, w.text())
	}
}

// serving and surplus are counted here anew, not with the planner's own code.

func serving(v View) int {
	slots := map[int]bool{}
	for _, f := range v.Fillings {
		ok := f.Verdict != api.VerdictSuspect && f.Verdict != api.VerdictDead
		if f.Key.Slot < v.Replicas && f.Ready && ok && !f.Stopping && f.Phase != api.PhaseFailed && f.Phase != api.PhaseStopped {
			slots[f.Key.Slot] = true
		}
	}
	return len(slots)
}

// surplus counts fillings beyond one a wanted slot, spares apart, and without
// what is stopping on suspect nodes.
func surplus(v View, which func(Filling) bool) int {
	n := 0
	count := map[int]int{}
	for _, f := range v.Fillings {
		void := f.Stopping && f.Verdict == api.VerdictSuspect || f.Verdict == api.VerdictDead
		if !f.Spare && !void && which(f) {
			count[f.Key.Slot]++
		}
	}
	for slot, c := range count {
		if slot >= v.Replicas {
			n += c
		} else {
			n += c - 1
		}
	}
	return n
}

// checker is what testing.T and rapid.T have in common.
type checker interface {
	Helper()
	Fatalf(format string, args ...any)
}
