package reconciler

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
)

// t0 is any time: only its distance to fences matters.
var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// lease is how long the leader waits after the last grant that it sent.
const lease = 15 * time.Second

// fleet is a small model of what is around the planner: it applies plans as the
// core does and reports as agents do.
type fleet struct {
	view    View
	nodes   []string // in order of preference
	verdict map[string]api.Verdict
	epoch   uint64
	refuse  bool // no Create finds a node
	now     time.Time
	// leased revisions run only under leases.
	leased map[int64]bool
	// impaired, damped and overdue nodes get nothing new.
	impaired, damped, overdue map[string]bool
}

func newFleet(replicas, surge, unavailable int, nodes ...string) *fleet {
	w := &fleet{nodes: nodes, verdict: map[string]api.Verdict{}, now: t0, leased: map[int64]bool{}, impaired: map[string]bool{}, damped: map[string]bool{}, overdue: map[string]bool{}, view: View{
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
			w.keepFence(w.view.Fillings[i])
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

// keepFence remembers the lease of what is dropped unheard: to take a node for
// dead ends nothing on it.
func (w *fleet) keepFence(f Filling) {
	if f.Leased && f.FencedAt.After(w.view.Fenced[f.Key.Slot]) {
		w.view.Fenced = maps.Clone(w.view.Fenced)
		if w.view.Fenced == nil {
			w.view.Fenced = map[int]time.Time{}
		}
		w.view.Fenced[f.Key.Slot] = f.FencedAt
	}
}

// place puts a new filling on the healthy node that has the fewest.
func (w *fleet) place(a Action) {
	best, least := "", 0
	for _, n := range w.nodes {
		if w.verdict[n] != api.VerdictHealthy || w.impaired[n] || w.damped[n] || w.overdue[n] || slices.Contains(a.Avoid, n) {
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
		Verdict: api.VerdictHealthy, Phase: api.PhaseAssigned, Spare: a.Spare, Leased: w.leased[a.Revision]})
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

// damp has a node be damped, or no longer.
func (w *fleet) damp(node string, damped bool) {
	w.damped[node] = damped
	for i := range w.view.Fillings {
		if f := &w.view.Fillings[i]; f.Node == node {
			f.Damped = damped
		}
	}
}

// impair has a node that beats be unable to work: what is there is relieved.
func (w *fleet) impair(node string) {
	w.impaired[node] = true
	w.relieve(node, "its node cannot work")
}

// drain has a node be past the deadline of its drain, or undrained.
func (w *fleet) drain(node string, overdue bool) {
	w.overdue[node] = overdue
	for i := range w.view.Fillings {
		if f := &w.view.Fillings[i]; f.Node == node {
			f.Overdue = overdue
		}
	}
	if !overdue {
		w.relieve(node, "")
	}
}

// relieve wants what is on a node replaced, for a reason, or no longer.
func (w *fleet) relieve(node, why string) {
	for i := range w.view.Fillings {
		if f := &w.view.Fillings[i]; f.Node == node {
			f.Relieve = why
		}
	}
}

// report sets what an agent says of a filling; an agent that is not heard says nothing.
// What runs under a lease had one granted before.
func (w *fleet) report(f *Filling, phase api.Phase, ready bool) {
	if !f.heard() || f.Phase.Ended() {
		return
	}
	since := f.ReadySince
	f.Phase, f.Ready, f.ReadySince = phase, ready, time.Time{}
	switch {
	case !ready:
	case since.IsZero():
		f.ReadySince = w.now
	default:
		f.ReadySince = since
	}
	if phase == api.PhaseRunning && (f.FencedAt.IsZero() || !f.Stopping) {
		w.grant(f)
	}
}

func (w *fleet) grant(f *Filling) {
	if f.Leased {
		f.FencedAt = w.now.Add(lease)
	}
}

// renew grants leases to all that may have them.
func (w *fleet) renew() {
	for i := range w.view.Fillings {
		if f := &w.view.Fillings[i]; f.heard() && !f.Stopping && f.Phase == api.PhaseRunning {
			w.grant(f)
		}
	}
}

// gone takes away what heard agents have stopped.
func (w *fleet) gone() {
	w.view.Fillings = slices.DeleteFunc(w.view.Fillings, func(f Filling) bool { return f.Stopping && f.heard() })
}

// allReady lets every agent that is heard bring up what it has.
func (w *fleet) allReady() {
	for i := range w.view.Fillings {
		w.report(&w.view.Fillings[i], api.PhaseRunning, true)
	}
}

// text prints the fillings, one a line.
func (w *fleet) text() string {
	var b strings.Builder
	if v := w.view; v.Held || v.Recreate || v.Stable != 0 || v.MinReady > 0 {
		fmt.Fprintf(&b, "%d replicas of revision %d, surge %d, unavailable %d, stable %d, held %t at most %d, recreate %t, ready for %s\n", v.Replicas, v.Revision, v.MaxSurge, v.MaxUnavailable, v.Stable, v.Held, v.AtMost, v.Recreate, v.MinReady)
	}
	for _, f := range w.view.Fillings {
		fmt.Fprintf(&b, "%s revision %d on %s (%s) %s", f.name(), f.Revision, f.Node, f.Verdict, f.Phase)
		for _, x := range []struct {
			set  bool
			word string
		}{{f.Ready, "ready"}, {f.Spare, "spare"}, {f.Stopping, "stopping"}, {f.Damped, "damped"}, {f.Relieve != "", "relieved"}, {f.Overdue, "overdue"},
			{f.Leased && f.FencedAt.IsZero(), "never granted"}, {f.Leased && !f.FencedAt.IsZero(), fmt.Sprint("fenced in ", f.FencedAt.Sub(w.now))}} {
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
	d := Plan(w.view, w.now)
	later := w.now
	if !w.view.Exclusive && w.view.MinReady == 0 {
		later = w.now.Add(time.Hour) // only fences and MinReady depend on time
	}
	if again := Plan(w.view, later); fmt.Sprintf("%+v", d) != fmt.Sprintf("%+v", again) {
		t.Fatalf("same view, two plans:\n%+v\n%+v", d, again)
	}
	if w.text() != before {
		t.Fatalf("Plan changed its view:\n%s\nto\n%s", before, w.text())
	}
	w.checkTargets(t, d)
	w.checkFences(t, d)

	after := w.applied(d)
	w.checkWake(t, after, d.Wake)
	was, is, floor := w.serving(w.view), w.serving(after), w.view.Replicas-w.view.MaxUnavailable
	if w.view.Exclusive && w.view.MaxUnavailable == 0 {
		floor-- // there is no surge to do without
	}
	if w.recreates() { // what is recreated is away meanwhile
		floor = 0
	}
	if len(is) < len(was) && len(is) < floor && !w.view.Deleting {
		t.Fatalf("I4: from %d available slots to %d, floor %d\n%s%v", len(was), len(is), floor, before, d.Actions)
	}
	relief := d
	relief.Actions = slices.DeleteFunc(slices.Clone(d.Actions), func(a Action) bool { return !a.Relief })
	if is := w.serving(w.applied(relief)); len(is) < len(was) && !w.view.Exclusive {
		t.Fatalf("relief takes a slot's last available filling\n%s%v", before, d.Actions)
	}
	w.checkSurplus(t, d, after)
	w.checkReach(t, d, after)
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
		was, is, surge := w.surplus(x.view, x.count), w.surplus(after, x.count), w.view.MaxSurge
		if w.view.Exclusive {
			surge = 0
		}
		if is > was && is > surge {
			t.Fatalf("surplus of %s from %d to %d, surge %d\n%s%v", x.what, was, is, surge, w.text(), d.Actions)
		}
	}
}

// recreates tells whether something of another revision is to go first.
func (w *fleet) recreates() bool {
	return w.view.Recreate && slices.ContainsFunc(w.view.Fillings, func(f Filling) bool { return f.Revision != w.view.Revision })
}

// checkReach checks that a held rollout comes to no further slot, that what is
// recreated never runs beside what was before, and that Counted is right.
func (w *fleet) checkReach(t checker, d Decision, after View) {
	t.Helper()
	reached := func(v View) map[int]bool {
		slots := map[int]bool{}
		for _, f := range v.Fillings {
			if !f.Stopping && f.Revision == v.Revision && f.Key.Slot < v.Replicas {
				slots[f.Key.Slot] = true
			}
		}
		return slots
	}
	was, is := reached(w.view), reached(after)
	if v := w.view; v.Held && v.Stable != 0 && v.Stable != v.Revision && !v.Recreate && len(is) > len(was) && len(is) > v.AtMost {
		t.Fatalf("a rollout that is held at %d came from %d to %d slots\n%s%v", v.AtMost, len(was), len(is), w.text(), d.Actions)
	}
	if w.view.Recreate && !w.view.Held && !w.view.Exclusive && slices.ContainsFunc(d.Actions, func(a Action) bool { return a.Op == Create && a.Revision == w.view.Revision }) {
		for _, f := range after.Fillings {
			if f.Revision != w.view.Revision {
				t.Fatalf("something is created beside %s\n%s%v", f.name(), w.text(), d.Actions)
			}
		}
	}
	counted := map[int]bool{}
	for _, f := range after.Fillings {
		if f.Revision == w.view.Revision && w.serves(after, f) && !w.view.Deleting {
			counted[f.Key.Slot] = true
		}
	}
	if d.Counted != len(counted) {
		t.Fatalf("Counted %d, want %d\n%s%v", d.Counted, len(counted), w.text(), d.Actions)
	}
}

// checkFences checks I6 of an exclusive service as the leader can know it: where
// something is created nothing lives, and nothing that was there can still run.
func (w *fleet) checkFences(t checker, d Decision) {
	t.Helper()
	if !w.view.Exclusive {
		return
	}
	doing := map[string]bool{}
	created := map[int]bool{}
	for _, a := range d.Actions {
		doing[fmt.Sprint(a.Op, a.Key)] = true
	}
	for _, a := range d.Actions {
		if a.Op != Create {
			continue
		}
		if a.Spare || created[a.Key.Slot] || w.view.Fenced[a.Key.Slot].After(w.now) {
			t.Fatalf("I6: %s: a spare, twice, or fenced until %s\n%s%v", a, w.view.Fenced[a.Key.Slot], w.text(), d.Actions)
		}
		created[a.Key.Slot] = true
		for _, f := range w.view.Fillings {
			void, goes := doing[fmt.Sprint(Void, f.Key)], f.Stopping || doing[fmt.Sprint(Remove, f.Key)]
			if f.Key.Slot == a.Key.Slot && (!void && !goes || w.mayRun(f, void)) {
				t.Fatalf("I6: %s beside %s\n%s%v", a, f.name(), w.text(), d.Actions)
			}
		}
	}
}

// mayRun is what fences are for. The end of a node is taken for the end of what
// ran there without a lease.
func (w *fleet) mayRun(f Filling, void bool) bool {
	switch {
	case !f.Leased:
		return !void
	case f.FencedAt.IsZero():
		return !void && f.Phase == api.PhaseRunning
	}
	return f.FencedAt.After(w.now)
}

// checkWake checks that of an applied plan time alone creates nothing but at
// Wake, and then something.
func (w *fleet) checkWake(t checker, after View, wake time.Time) {
	t.Helper()
	loose := after.MinReady > 0 || after.Recreate
	creates := func(at time.Time) bool {
		plan := Plan(after, at)
		if loose { // what counts then, or is known to be gone, may change nothing, or make something go
			return len(plan.Actions) > 0
		}
		return slices.ContainsFunc(plan.Actions, func(a Action) bool { return a.Op == Create })
	}
	before := w.now.Add(time.Hour)
	if !wake.IsZero() {
		before = wake.Add(-1)
		if !wake.After(w.now) || !loose && !creates(wake) {
			t.Fatalf("%s later, at Wake, nothing is created\n%s", wake.Sub(w.now), (&fleet{view: after, now: w.now}).text())
		}
	}
	if creates(before) {
		t.Fatalf("%s later, before Wake, something is created: %v\n%s", before.Sub(w.now), Plan(after, before).Actions, (&fleet{view: after, now: w.now}).text())
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
		case a.Op == Remove && !f.heard() && !unwanted && !w.view.Exclusive && (f.Relieve == "" || f.Verdict == api.VerdictSuspect):
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
	c.impaired, c.damped, c.overdue = nil, nil, nil
	c.refuse = false
	c.apply(d)
	return c.view
}

// checkIdle checks I10 on a view to which a plan was applied.
func (w *fleet) checkIdle(t checker, d Decision) {
	t.Helper()
	after := w.applied(d)
	if d := Plan(after, w.now); len(d.Actions) > 0 {
		w := fleet{view: after, now: w.now}
		t.Fatalf("I10: applied and planned again gives %v on\n%s", d.Actions, w.text())
	}
}

// serving and surplus are counted here anew, not with the planner's own code.

func (w *fleet) serving(v View) map[int]bool {
	slots := map[int]bool{}
	for _, f := range v.Fillings {
		if w.serves(v, f) {
			slots[f.Key.Slot] = true
		}
	}
	return slots
}

func (w *fleet) serves(v View, f Filling) bool {
	ok := f.Verdict != api.VerdictSuspect && f.Verdict != api.VerdictDead
	if v.Exclusive && !f.heard() && !w.mayRun(f, false) {
		ok = false
	}
	if f.Revision == v.Revision && w.now.Sub(f.ReadySince) < v.MinReady {
		ok = false
	}
	return f.Key.Slot < v.Replicas && f.Ready && ok && !f.Stopping && f.Phase != api.PhaseFailed && f.Phase != api.PhaseStopped
}

// surplus counts fillings beyond one a wanted slot, spares apart, and without
// what is stopping where nobody can stop it, or is fenced.
func (w *fleet) surplus(v View, which func(Filling) bool) int {
	n := 0
	count := map[int]int{}
	for _, f := range v.Fillings {
		void := f.Stopping && (f.Verdict == api.VerdictSuspect || f.Relieve != "" && !(f.Overdue && f.heard())) || f.Verdict == api.VerdictDead ||
			v.Exclusive && !w.mayRun(f, false)
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
