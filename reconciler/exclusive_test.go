package reconciler

import (
	"testing"
	"time"

	"github.com/orchctl/orch/api"
)

// exclusively makes the view of an exclusive service; its fillings have leases,
// those that run until 5s from now unless an option says otherwise.
func exclusively(v View) View {
	v.Exclusive = true
	for i := range v.Fillings {
		f := &v.Fillings[i]
		f.Leased = f.Revision > 0
		f.Revision = max(f.Revision, -f.Revision)
		if f.Phase == api.PhaseRunning && f.FencedAt.IsZero() {
			f.FencedAt = t0.Add(5 * time.Second)
		}
	}
	return v
}

// free is a filling that runs without a lease; exclusively takes the sign away.
func free(f *Filling) { f.Revision = -1 }

func fenced(in time.Duration) option { return func(f *Filling) { f.FencedAt = t0.Add(in) } }

// after keeps a slot fenced by something that is no longer there.
func after(v View, slot int, in time.Duration) View {
	v.Fenced = map[int]time.Time{slot: t0.Add(in)}
	return v
}

func TestExclusive(t *testing.T) {
	const s = time.Second
	fresh := in(api.PhaseAssigned)
	for _, c := range []row{
		{name: "new: all slots", view: exclusively(web(2, 1, 1, 0)), actions: []string{
			"Create default/web-0 revision 1: the slot is empty", "Create default/web-1 revision 1: the slot is empty"}},
		{name: "all is well", view: exclusively(web(1, 1, 1, 0, at(0, 1, "n1")))},
		{name: "new, but something of before may run", view: after(exclusively(web(2, 1, 1, 0)), 0, 3*s+1), wake: 3*s + 1,
			actions: []string{"Create default/web-1 revision 1: the slot is empty"},
			waiting: []string{"web-0 waits until 03:04:09Z: what was in it may run on until its lease has ended"}},
		{name: "its fence has just passed", view: after(exclusively(web(1, 1, 1, 0)), 0, 0), actions: []string{"Create default/web-0 revision 1: the slot is empty"}},

		{name: "suspect: no spare, its lease is waited for", view: exclusively(web(1, 1, 1, 0, at(0, 1, "n1", suspect))), wake: 5 * s,
			waiting: []string{"web-0@1 cannot be reached: n1 is suspect", "web-0 waits until 03:04:10Z: web-0@1 may run on n1 until its lease has ended"}},
		{name: "suspect, its lease has ended", view: exclusively(web(1, 1, 1, 0, at(0, 1, "n1", suspect, fenced(0)))), actions: []string{
			"Remove default/web-0@1 revision 1: web-0@1 on n1 cannot be reached and its lease has ended",
			"Create default/web-0 revision 1: web-0@1 on n1 cannot be reached and its lease has ended"},
			waiting: []string{"web-0@1 is stopping on n1, which is suspect"}},
		{name: "agent lost: the same", view: exclusively(web(1, 1, 1, 0, at(0, 1, "n1", lost, fenced(-s)))), actions: []string{
			"Remove default/web-0@1 revision 1: web-0@1 on n1 cannot be reached and its lease has ended",
			"Create default/web-0 revision 1: web-0@1 on n1 cannot be reached and its lease has ended"},
			waiting: []string{"web-0@1 is stopping on n1, whose agent is lost"}},
		{name: "agent lost before it had a lease", view: exclusively(web(1, 1, 1, 0, at(0, 1, "n1", lost, fresh))), actions: []string{
			"Remove default/web-0@1 revision 1: web-0@1 on n1 cannot be reached and never had a lease",
			"Create default/web-0 revision 1: web-0@1 on n1 cannot be reached and never had a lease"},
			waiting: []string{"web-0@1 is stopping on n1, whose agent is lost"}},
		{name: "unknown: its verdict is waited for, lease or not", view: exclusively(web(1, 1, 1, 0, at(0, 1, "n1", unknown, fenced(-s)))),
			waiting: []string{"web-0@1 is not ready on n1, which has not been heard yet"}},
		{name: "what had ended fills its slot", view: exclusively(web(1, 1, 1, 0, at(0, 1, "n1", suspect, in(api.PhaseFailed)))),
			waiting: []string{"web-0@1 cannot be reached: n1 is suspect"}},
		{name: "dead: its lease is waited for", view: exclusively(web(1, 1, 1, 0, at(0, 1, "n1", dead))), wake: 5 * s,
			actions: []string{"Void default/web-0@1 revision 1: n1 is dead"},
			waiting: []string{"web-0 waits until 03:04:10Z: what was in it may run on until its lease has ended"}},
		{name: "dead, its lease has ended", view: exclusively(web(1, 1, 1, 0, at(0, 1, "n1", dead, fenced(0)))), actions: []string{
			"Void default/web-0@1 revision 1: n1 is dead", "Create default/web-0 revision 1: web-0@1 is void: n1 is dead"}},
		{name: "of several fences the last counts in a slot, the first of all slots",
			view: exclusively(web(2, 1, 1, 0, at(0, 1, "n1", stopping, suspect, fenced(2*s)), at(0, 2, "n2", stopping, suspect, fenced(7*s)), at(1, 3, "n3", suspect, fenced(6*s)))), wake: 6 * s,
			waiting: []string{"web-0@1 is stopping on n1, which is suspect", "web-0@2 is stopping on n2, which is suspect",
				"web-0 waits until 03:04:12Z: web-0@2 may run on n2 until its lease has ended",
				"web-1@3 cannot be reached: n3 is suspect", "web-1 waits until 03:04:11Z: web-1@3 may run on n3 until its lease has ended"}},
		{name: "stopping where it is heard: waited for, at most until its lease has ended", view: exclusively(web(1, 1, 1, 0, at(0, 1, "n1", stopping))), wake: 5 * s,
			waiting: []string{"web-0@1 is stopping on n1"}},
		{name: "scaled away and back: its fence holds", view: after(exclusively(web(2, 1, 1, 0, at(0, 1, "n1"))), 1, 4*s), wake: 4 * s,
			waiting: []string{"web-1 waits until 03:04:09Z: what was in it may run on until its lease has ended"}},
		{name: "deleting waits for nothing here", view: deleting(exclusively(web(1, 1, 1, 0, at(0, 1, "n1", suspect)))),
			actions: []string{"Remove default/web-0@1 revision 1: the service is deleted"},
			waiting: []string{"web-0@1 is stopping on n1, which is suspect"}},

		// rollout and relief
		{name: "rolled stop-first, though surge is allowed and nothing may be unavailable", view: exclusively(web(2, 2, 1, 0, at(0, 1, "n1"), at(1, 2, "n2"))), wake: 5 * s,
			actions: []string{"Remove default/web-0@1 revision 1: revision 1 makes room for revision 2: 2 of 2 slots are available, 1 must stay"},
			waiting: []string{"web-0@1 is stopping on n1", "slots that wait for their turn: 1 (available 1, at least 1)"}},
		{name: "rolled when one slot is down: at the floor", view: exclusively(web(2, 2, 1, 1, at(0, 1, "n1"), at(1, 2, "n2", suspect))), wake: 5 * s,
			waiting: []string{"web-1@2 cannot be reached: n2 is suspect", "web-1 waits until 03:04:10Z: web-1@2 may run on n2 until its lease has ended",
				"slots that wait for their turn: 1 (available 1, at least 1)"}},
		{name: "an agent lost whose lease has ended does not count for the floor", view: exclusively(web(2, 2, 1, 1, at(0, 1, "n1"), at(1, 2, "n2", lost, fenced(0)))),
			actions: []string{"Remove default/web-1@2 revision 1: web-1@2 on n2 cannot be reached and its lease has ended",
				"Create default/web-1 revision 2: web-1@2 on n2 cannot be reached and its lease has ended"},
			waiting: []string{"web-1@2 is stopping on n2, whose agent is lost", "slots that wait for their turn: 1 (available 1, at least 1)"}},
		{name: "impaired: stop-first, within the floor", view: exclusively(web(2, 1, 1, 1, at(0, 1, "n1", relieved), at(1, 2, "n1", relieved))), wake: 5 * s,
			actions: []string{"Remove default/web-0@1 revision 1: it is relieved stop-first: it cannot work"},
			waiting: []string{"web-0@1 is stopping on n1", "web-1@2 is to be relieved on n1: it cannot work"}},
		{name: "impaired and not ready: it costs the floor nothing, and what never ran is replaced at once",
			view:    exclusively(web(2, 1, 1, 1, at(0, 1, "n1", relieved, fresh), at(1, 2, "n2", unready))),
			actions: []string{"Remove default/web-0@1 revision 1: it is relieved stop-first: it cannot work", "Create default/web-0 revision 1: the slot is empty"},
			waiting: []string{"web-0@1 is stopping on n1", "web-1@2 is not ready on n2"}},
		{name: "to be relieved where it cannot be told: its lease ends by itself", view: exclusively(web(1, 1, 1, 1, at(0, 1, "n1", relieved, lost))), wake: 5 * s,
			waiting: []string{"web-0@1 is to be relieved on n1: it cannot work", "web-0 waits until 03:04:10Z: web-0@1 may run on n1 until its lease has ended"}},

		// becoming exclusive
		{name: "a spare beside what serves: the spare goes", view: exclusively(web(1, 1, 1, 0, at(0, 1, "n1"), at(0, 2, "n2", spare))),
			actions: []string{"Remove default/web-0@2 revision 1: the service is exclusive and web-0@1 is in the same slot"},
			waiting: []string{"web-0@2 is stopping on n2"}},
		{name: "a spare beside what is suspect: the spare is the replica", view: exclusively(web(1, 1, 1, 0, at(0, 1, "n1", suspect), at(0, 2, "n2", spare))),
			actions: []string{"Adopt default/web-0@2 revision 1: the service is exclusive: the slot has no other replica",
				"Remove default/web-0@1 revision 1: the service is exclusive and web-0@2 is in the same slot"},
			waiting: []string{"web-0@1 is stopping on n1, which is suspect"}},
		{name: "a successor that is not ready: it goes", view: exclusively(web(1, 2, 1, 0, at(0, 1, "n1"), at(0, 2, "n2", rev(2), unready))), wake: 5 * s,
			actions: []string{"Remove default/web-0@1 revision 1: revision 1 makes room for revision 2: 1 of 1 slots are available, 0 must stay",
				"Remove default/web-0@2 revision 2: the service is exclusive and web-0@1 is in the same slot"},
			waiting: []string{"web-0@1 is stopping on n1", "web-0@2 is stopping on n2"}},
		{name: "one of two is about to be heard: wait", view: exclusively(web(1, 1, 1, 0, at(0, 1, "n1", back, fresh), at(0, 2, "n2", spare))),
			waiting: []string{"web-0@1 is not yet reported by n1"}},
		{name: "one of two is about to be heard: the other is not pruned either", view: exclusively(web(1, 2, 1, 0, at(0, 1, "n1", unready), at(0, 2, "n2", rev(2), unknown))),
			waiting: []string{"web-0@1 is not ready on n1", "web-0@2 is left alone on n2, which has not been heard yet"}},
		{name: "what has no lease has no fence", view: exclusively(web(1, 2, 1, 0, at(0, 1, "n1", free, suspect, fenced(-s)))),
			waiting: []string{"web-0@1 cannot be reached: n1 is suspect", "web-0 waits for n1: web-0@1 may run there without a lease"}},
		{name: "what serves stays while nothing could follow it", view: exclusively(web(1, 2, 1, 0, at(0, 1, "n1", free, suspect, stopping), at(0, 2, "n2", relieved))),
			waiting: []string{"web-0@1 is stopping on n1, which is suspect", "web-0@2 is to be relieved on n2: it cannot work",
				"web-0 waits for n1: web-0@1 may run there without a lease", "slots that wait for their turn: 1 (available 1, at least 0)"}},
		{name: "what has no lease is stopped where it is heard", view: exclusively(web(1, 2, 1, 0, at(0, 1, "n1", free))),
			actions: []string{"Remove default/web-0@1 revision 1: revision 1 makes room for revision 2: 1 of 1 slots are available, 0 must stay"},
			waiting: []string{"web-0@1 is stopping on n1"}},
	} {
		t.Run(c.name, c.check)
	}
}

// TestFenceOfTheUnremembered: that it was seen running belies that it never had a lease.
func TestFenceOfTheUnremembered(t *testing.T) {
	v := exclusively(web(1, 1, 0, 1, at(0, 1, "n1", suspect)))
	v.Fillings[0].FencedAt = time.Time{}
	if d := Plan(v, t0); len(d.Actions) > 0 || !d.Wake.IsZero() {
		t.Errorf("got %v, wake %s", d.Actions, d.Wake)
	}
}
