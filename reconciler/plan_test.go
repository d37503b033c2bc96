package reconciler

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
)

type option func(*Filling)

// at makes a filling of web that runs revision 1 and is ready on a healthy node.
func at(slot int, epoch uint64, node string, opts ...option) Filling {
	f := Filling{Key: api.ReplicaKey{Namespace: "default", Service: "web", Slot: slot, Epoch: epoch}, Revision: 1, Node: node,
		Verdict: api.VerdictHealthy, Phase: api.PhaseRunning, Ready: true, ReadySince: t0}
	for _, o := range opts {
		o(&f)
	}
	return f
}

func rev(n int64) option { return func(f *Filling) { f.Revision = n } }
func unready(f *Filling) { f.Ready, f.ReadySince = false, time.Time{} }
func in(p api.Phase) option {
	return func(f *Filling) { unready(f); f.Phase = p }
}
func on(v api.Verdict) option { return func(f *Filling) { f.Verdict = v } }
func final(f *Filling)        { f.Final = true }
func stopping(f *Filling)     { f.Stopping = true }
func spare(f *Filling)        { f.Spare = true }

var (
	suspect = on(api.VerdictSuspect)
	dead    = on(api.VerdictDead)
	back    = on(api.VerdictBack)
	lost    = on(api.VerdictAgentLost)
	unknown = on(api.VerdictUnknown)
)

// web makes a view: replicas, wanted revision, surge, unavailable.
func web(replicas int, revision int64, surge, unavailable int, fs ...Filling) View {
	return View{Service: api.Key{Namespace: "default", Name: "web"}, Replicas: replicas, Revision: revision,
		MaxSurge: surge, MaxUnavailable: unavailable, Fillings: fs}
}

func stable(revision int64, v View) View {
	v.Stable = revision
	return v
}

func heldAt(slots int, v View) View {
	v.Held, v.AtMost = true, slots
	return v
}

func deleting(v View) View {
	v.Deleting = true
	return v
}

// row is a view and all that is to be decided of it.
type row struct {
	name    string
	view    View
	actions []string
	waiting []string
	wake    time.Duration // after t0; 0 for not at all
}

func TestPlan(t *testing.T) {
	for _, c := range []row{
		{name: "nothing wanted, nothing there", view: web(0, 1, 0, 0)},
		{name: "new service: all slots, whatever the surge", view: web(2, 1, 0, 1), actions: []string{
			"Create default/web-0 revision 1: the slot is empty",
			"Create default/web-1 revision 1: the slot is empty"}},
		{name: "all is well", view: web(2, 1, 1, 0, at(0, 1, "n1"), at(1, 2, "n2"))},
		{name: "a start is waited for", view: web(2, 1, 1, 0, at(0, 1, "n1"), at(1, 2, "n2", in(api.PhasePreparing))),
			waiting: []string{"web-1@2 is not ready on n2"}},

		// 1: deleted, scaled down
		{name: "delete takes everything, wherever it is", view: deleting(web(3, 1, 1, 0, at(0, 1, "n1", suspect), at(0, 2, "n2", spare),
			at(1, 3, "n3", dead), at(2, 4, "n4", stopping), at(3, 5, "n5", lost))),
			actions: []string{
				"Remove default/web-0@1 revision 1: the service is deleted",
				"Remove default/web-0@2 revision 1: the service is deleted",
				"Void default/web-1@3 revision 1: n3 is dead",
				"Remove default/web-3@5 revision 1: the service is deleted"},
			waiting: []string{
				"web-0@1 is stopping on n1, which is suspect", "web-0@2 is stopping on n2",
				"web-2@4 is stopping on n4", "web-3@5 is stopping on n5, whose agent is lost"}},
		{name: "scale down takes the highest slots, though others are not ready",
			view:    web(1, 1, 1, 0, at(0, 1, "n1", unready), at(1, 2, "n2"), at(2, 3, "n3", unknown)),
			actions: []string{"Remove default/web-1@2 revision 1: the service is scaled to 1", "Remove default/web-2@3 revision 1: the service is scaled to 1"},
			waiting: []string{"web-0@1 is not ready on n1", "web-1@2 is stopping on n2", "web-2@3 is stopping on n3, which has not been heard yet"}},
		{name: "scale up fills the new slots", view: web(3, 2, 0, 1, at(0, 1, "n1", rev(2))), actions: []string{
			"Create default/web-1 revision 2: the slot is empty", "Create default/web-2 revision 2: the slot is empty"}},
		{name: "up again while the old is stopping waits without surge", view: web(2, 1, 0, 1, at(0, 1, "n1"), at(1, 2, "n2", stopping)),
			waiting: []string{"web-1@2 is stopping on n2"}},
		{name: "up again while the old is stopping is surge", view: web(3, 1, 1, 1, at(0, 1, "n1"), at(1, 2, "n2", stopping), at(2, 3, "n3", stopping)),
			actions: []string{"Create default/web-1 revision 1: the slot is empty"},
			waiting: []string{"web-1@2 is stopping on n2", "web-2@3 is stopping on n3"}},

		// 2: dead
		{name: "dead: void and fill, at once and of the wanted revision", view: web(2, 2, 0, 1, at(0, 1, "n1", dead), at(1, 2, "n2", rev(2))),
			actions: []string{"Void default/web-0@1 revision 1: n1 is dead", "Create default/web-0 revision 2: web-0@1 is void: n1 is dead"}},
		{name: "dead: the spare is adopted", view: web(1, 1, 0, 1, at(0, 1, "n1", dead), at(0, 2, "n2", spare, unready)),
			actions: []string{"Void default/web-0@1 revision 1: n1 is dead", "Adopt default/web-0@2 revision 1: web-0@1 is void: n1 is dead"},
			waiting: []string{"web-0@2 is not ready on n2"}},
		{name: "dead: of two spares the one that serves", view: web(1, 1, 0, 1, at(0, 1, "n1", dead), at(0, 2, "n2", spare, suspect), at(0, 3, "n3", spare)),
			actions: []string{"Void default/web-0@1 revision 1: n1 is dead", "Adopt default/web-0@3 revision 1: web-0@1 is void: n1 is dead"},
			waiting: []string{"web-0@2 cannot be reached: n2 is suspect"}},
		{name: "dead: a suspect spare is adopted and gets a spare of its own", view: web(1, 1, 0, 1, at(0, 1, "n1", dead), at(0, 2, "n2", spare, suspect)),
			actions: []string{"Void default/web-0@1 revision 1: n1 is dead", "Adopt default/web-0@2 revision 1: web-0@1 is void: n1 is dead",
				"Create default/web-0 revision 1 spare, not on n2: n2 suspect: web-0@2 cannot be reached"},
			waiting: []string{"web-0@2 cannot be reached: n2 is suspect"}},

		// 2b: on trial, held
		{name: "on trial: what is lost is filled with what is well", view: stable(1, web(2, 2, 1, 0, at(0, 1, "n1"), at(0, 3, "n3", rev(2), unready), at(1, 2, "n2", dead))),
			actions: []string{"Void default/web-1@2 revision 1: n2 is dead", "Create default/web-1 revision 1: web-1@2 is void: n2 is dead"},
			waiting: []string{"web-0@3 is not ready on n3", "slots that wait for their turn: 1 (available 1, at least 2; surge 1, at most 1)"}},
		{name: "on trial: within what may be down it gets the slot", view: stable(1, web(2, 2, 0, 1, at(0, 1, "n1"), at(1, 2, "n2", dead))),
			actions: []string{"Void default/web-1@2 revision 1: n2 is dead", "Create default/web-1 revision 2: web-1@2 is void: n2 is dead"},
			waiting: []string{"slots that wait for their turn: 1 (available 1, at least 1; surge 0, at most 0)"}},
		{name: "on trial: what started in place of what was lost stays", view: stable(1, web(2, 2, 1, 0, at(0, 1, "n1"), at(0, 3, "n3", rev(2), unready), at(1, 4, "n3", in(api.PhasePreparing)))),
			waiting: []string{"web-0@3 is not ready on n3", "web-1@4 is not ready on n3", "slots that wait for their turn: 1 (available 1, at least 2; surge 1, at most 1)"}},
		{name: "on trial: what served beside it is lost", view: stable(1, web(2, 2, 1, 0, at(0, 1, "n1", dead), at(0, 3, "n3", rev(2), unready), at(1, 2, "n2"))),
			actions: []string{"Void default/web-0@1 revision 1: n1 is dead",
				"Remove default/web-0@3 revision 2: revision 2 was never ready, and nothing else serves in the slot: revision 1 takes its place",
				"Create default/web-0 revision 1: web-0@1 is void: n1 is dead"},
			waiting: []string{"web-0@3 is stopping on n3", "slots that wait for their turn: 2 (available 1, at least 2; surge 1, at most 1)"}},
		{name: "on trial, and the stable one does not serve either: the wanted one may be the cure", view: stable(1, web(2, 2, 0, 1, at(0, 1, "n1", unready), at(1, 2, "n2", unready))),
			actions: []string{"Remove default/web-0@1 revision 1: revision 1 is not ready and revision 2 is wanted"},
			waiting: []string{"web-0@1 is stopping on n1", "web-1@2 is not ready on n2", "slots that wait for their turn: 1 (available 0, at least 1; surge 0, at most 0)"}},
		{name: "on trial: what is of neither goes at once", view: stable(1, web(2, 3, 0, 1, at(0, 1, "n1", rev(2), unready), at(1, 2, "n2", rev(2), unready))),
			actions: []string{"Remove default/web-0@1 revision 2: revision 2 is not ready and revision 3 is wanted", "Remove default/web-1@2 revision 2: revision 2 is not ready and revision 3 is wanted"},
			waiting: []string{"web-0@1 is stopping on n1", "web-1@2 is stopping on n2"}},
		{name: "held: a ready revision goes no further", view: heldAt(1, stable(1, web(3, 2, 1, 1, at(0, 4, "n1", rev(2)), at(1, 2, "n2"), at(2, 3, "n3", dead)))),
			actions: []string{"Void default/web-2@3 revision 1: n3 is dead", "Create default/web-2 revision 1: web-2@3 is void: n3 is dead"},
			waiting: []string{"slots that keep their revision for now: 2 (revision 2 is in 1, at most 1)"}},
		{name: "held: no slot is emptied that it may not come to", view: heldAt(1, stable(1, web(3, 2, 0, 2, at(0, 1, "n1"), at(1, 2, "n2"), at(2, 3, "n3")))),
			actions: []string{"Remove default/web-0@1 revision 1: revision 1 makes room for revision 2: 3 of 3 slots are available, 1 must stay"},
			waiting: []string{"web-0@1 is stopping on n1", "slots that keep their revision for now: 2 (revision 2 is in 0, at most 1)"}},
		{name: "held: the spare of what it has not come to is as that was", view: heldAt(1, stable(1, web(2, 2, 1, 1, at(0, 4, "n1", rev(2)), at(1, 2, "n2", suspect)))),
			actions: []string{"Create default/web-1 revision 1 spare, not on n2: n2 suspect: web-1@2 cannot be reached"},
			waiting: []string{"web-1@2 cannot be reached: n2 is suspect"}},
		{name: "held, and nothing else is known to be well: the wanted one", view: heldAt(0, web(1, 2, 1, 1)),
			actions: []string{"Create default/web-0 revision 2: the slot is empty"}},

		// 3: suspect, agent lost, unknown
		{name: "suspect: a spare, whatever the surge", view: web(1, 1, 0, 1, at(0, 1, "n1", suspect)),
			actions: []string{"Create default/web-0 revision 1 spare, not on n1: n1 suspect: web-0@1 cannot be reached"},
			waiting: []string{"web-0@1 cannot be reached: n1 is suspect"}},
		{name: "suspect: the spare is suspect too", view: web(1, 1, 0, 1, at(0, 1, "n2", suspect), at(0, 2, "n1", suspect, spare)),
			actions: []string{"Create default/web-0 revision 1 spare, not on n1, n2: n2 suspect: web-0@1 cannot be reached"},
			waiting: []string{"web-0@1 cannot be reached: n2 is suspect", "web-0@2 cannot be reached: n1 is suspect"}},
		{name: "suspect: one spare is enough, ready or not, heard or not",
			view:    web(2, 1, 0, 1, at(0, 1, "n1", suspect), at(0, 2, "n2", spare, unready), at(1, 3, "n1", suspect), at(1, 4, "n4", spare, lost)),
			waiting: []string{"web-0@1 cannot be reached: n1 is suspect", "web-0@2 is not ready on n2", "web-1@3 cannot be reached: n1 is suspect", "web-1@4 is left alone on n4, whose agent is lost"}},
		{name: "suspect mid-rollout: the incumbent's revision while the new one is unproven",
			view: web(2, 2, 1, 0, at(0, 1, "n1"), at(0, 3, "n3", rev(2), unready), at(1, 2, "n2", suspect)),
			actions: []string{
				"Create default/web-1 revision 1 spare, not on n2: n2 suspect: web-1@2 cannot be reached"},
			waiting: []string{"web-0@3 is not ready on n3", "web-1@2 cannot be reached: n2 is suspect"}},
		{name: "suspect mid-rollout: the wanted revision once proven", view: web(2, 2, 1, 0, at(0, 3, "n3", rev(2)), at(1, 2, "n2", suspect)),
			actions: []string{"Create default/web-1 revision 2 spare, not on n2: n2 suspect: web-1@2 cannot be reached"},
			waiting: []string{"web-1@2 cannot be reached: n2 is suspect"}},
		{name: "suspect mid-rollout: a spare of a revision that nobody wants any more", view: web(1, 3, 1, 0, at(0, 1, "n1", suspect), at(0, 2, "n2", spare, rev(2), unready)),
			actions: []string{"Remove default/web-0@2 revision 2: the spare of revision 2 is not ready, revision 1 takes its place",
				"Create default/web-0 revision 1 spare, not on n1: n1 suspect: web-0@1 cannot be reached"},
			waiting: []string{"web-0@1 cannot be reached: n1 is suspect", "web-0@2 is stopping on n2"}},
		{name: "suspect: the incumbent stays though its successor is ready", view: web(1, 2, 1, 0, at(0, 1, "n1", suspect), at(0, 2, "n2", rev(2))),
			waiting: []string{"web-0@1 cannot be reached: n1 is suspect"}},
		{name: "suspect: what had ended needs no spare", view: web(1, 1, 0, 1, at(0, 1, "n1", suspect, in(api.PhaseFailed))),
			waiting: []string{"web-0@1 cannot be reached: n1 is suspect"}},
		{name: "suspect: what is stopping there holds no room", view: web(1, 1, 0, 1, at(0, 1, "n1", suspect, stopping)),
			actions: []string{"Create default/web-0 revision 1: the slot is empty"},
			waiting: []string{"web-0@1 is stopping on n1, which is suspect"}},
		{name: "agent lost and unknown: left alone, counted as last known",
			view:    web(3, 2, 1, 1, at(0, 1, "n1", lost), at(1, 2, "n2", unknown, in("")), at(2, 3, "n3")),
			waiting: []string{"web-0@1 is left alone on n1, whose agent is lost", "web-1@2 is not ready on n2, which has not been heard yet"},
			actions: []string{"Create default/web-2 revision 2: revision 2 is to replace web-2@3 of revision 1"}},

		// 4: back
		{name: "back and ready: the spare goes", view: web(1, 1, 0, 1, at(0, 1, "n1", back), at(0, 2, "n2", spare)),
			actions: []string{"Remove default/web-0@2 revision 1: incumbent on n1 is back and ready"},
			waiting: []string{"web-0@2 is stopping on n2"}},
		{name: "healthy and ready: the same", view: web(1, 1, 0, 1, at(0, 1, "n1"), at(0, 2, "n2", spare, unready)),
			actions: []string{"Remove default/web-0@2 revision 1: incumbent on n1 is back and ready"},
			waiting: []string{"web-0@2 is stopping on n2"}},
		{name: "back, not yet reported: wait, though it was ready", view: web(1, 1, 0, 1, at(0, 1, "n1", back, func(f *Filling) { f.Phase = api.PhaseAssigned }), at(0, 2, "n2", spare)),
			waiting: []string{"web-0@1 is not yet reported by n1"}},
		{name: "back, not ready, the spare is", view: web(1, 1, 0, 1, at(0, 1, "n1", back, in(api.PhasePreparing)), at(0, 2, "n2", spare)),
			actions: []string{"Adopt default/web-0@2 revision 1: the incumbent web-0@1 on n1 goes",
				"Remove default/web-0@1 revision 1: n1 is back, but the incumbent is not ready there and the spare web-0@2 on n2 is"},
			waiting: []string{"web-0@1 is stopping on n1"}},
		{name: "back, absent, the spare is ready", view: web(1, 1, 0, 1, at(0, 1, "n1", back, in(api.PhaseStopped)), at(0, 2, "n2", spare)),
			actions: []string{"Adopt default/web-0@2 revision 1: the incumbent web-0@1 on n1 goes",
				"Remove default/web-0@1 revision 1: n1 is back, but the incumbent is not ready there and the spare web-0@2 on n2 is"},
			waiting: []string{"web-0@1 is stopping on n1"}},
		{name: "back, neither ready: wait for the first", view: web(1, 1, 0, 1, at(0, 1, "n1", back, unready), at(0, 2, "n2", spare, unready)),
			waiting: []string{"web-0@1 is not ready on n1", "web-0@2 is not ready on n2"}},
		{name: "back, neither ready, another revision is wanted", view: web(1, 2, 0, 1, at(0, 1, "n1", back, unready), at(0, 2, "n2", spare, unready)),
			actions: []string{"Remove default/web-0@1 revision 1: revision 1 is not ready and revision 2 is wanted",
				"Remove default/web-0@2 revision 1: neither it nor the incumbent on n1 is ready and revision 2 is wanted"},
			waiting: []string{"web-0@1 is stopping on n1", "web-0@2 is stopping on n2"}},
		{name: "back, the spare has ended", view: web(1, 1, 0, 1, at(0, 1, "n1", back, unready), at(0, 2, "n2", spare, in(api.PhaseFailed))),
			actions: []string{"Remove default/web-0@2 revision 1: the spare has ended and the incumbent on n1 is back"},
			waiting: []string{"web-0@1 is not ready on n1", "web-0@2 is stopping on n2"}},
		{name: "back, a container of the spare has ended for good", view: web(1, 1, 0, 1, at(0, 1, "n1", back, unready), at(0, 2, "n2", spare, unready, final)),
			actions: []string{"Remove default/web-0@2 revision 1: the spare has ended and the incumbent on n1 is back"},
			waiting: []string{"web-0@1 is not ready on n1", "web-0@2 is stopping on n2"}},
		{name: "back with the old revision, the spare has the wanted one", view: web(1, 2, 0, 1, at(0, 1, "n1", back), at(0, 2, "n2", spare, rev(2))),
			actions: []string{"Adopt default/web-0@2 revision 2: the incumbent web-0@1 on n1 goes",
				"Remove default/web-0@1 revision 1: the spare web-0@2 on n2 is ready and has revision 2"},
			waiting: []string{"web-0@1 is stopping on n1"}},

		// 5: a new revision
		{name: "start-first: as many as the surge", view: web(3, 2, 2, 0, at(0, 1, "n1"), at(1, 2, "n2"), at(2, 3, "n3")),
			actions: []string{"Create default/web-0 revision 2: revision 2 is to replace web-0@1 of revision 1",
				"Create default/web-1 revision 2: revision 2 is to replace web-1@2 of revision 1"},
			waiting: []string{"slots that wait for their turn: 1 (available 3, at least 3; surge 2, at most 2)"}},
		{name: "start-first: the successor is ready; its old one is surge until it is gone", view: web(2, 2, 1, 0, at(0, 1, "n1"), at(0, 3, "n3", rev(2)), at(1, 2, "n2")),
			actions: []string{"Remove default/web-0@1 revision 1: revision 2 is ready as web-0@3 on n3"},
			waiting: []string{"web-0@1 is stopping on n1", "slots that wait for their turn: 1 (available 2, at least 2; surge 1, at most 1)"}},
		{name: "a successor whose agent is lost proves nothing now", view: web(1, 2, 1, 0, at(0, 1, "n1"), at(0, 3, "n3", rev(2), lost)),
			waiting: []string{"web-0@3 is left alone on n3, whose agent is lost"}},
		{name: "stop-first: down to the floor", view: web(3, 2, 0, 2, at(0, 1, "n1"), at(1, 2, "n2"), at(2, 3, "n3")),
			actions: []string{
				"Remove default/web-0@1 revision 1: revision 1 makes room for revision 2: 3 of 3 slots are available, 1 must stay",
				"Remove default/web-1@2 revision 1: revision 1 makes room for revision 2: 2 of 3 slots are available, 1 must stay"},
			waiting: []string{"web-0@1 is stopping on n1", "web-1@2 is stopping on n2", "slots that wait for their turn: 1 (available 1, at least 1; surge 0, at most 0)"}},
		{name: "stop-first: what is not ready goes first, and costs the floor nothing", view: web(3, 2, 0, 1, at(0, 1, "n1"), at(1, 2, "n2"), at(2, 3, "n3", unready)),
			actions: []string{"Remove default/web-2@3 revision 1: revision 1 is not ready and revision 2 is wanted"},
			waiting: []string{"web-2@3 is stopping on n3", "slots that wait for their turn: 2 (available 2, at least 2; surge 0, at most 0)"}},
		{name: "both at once: stop-first one, start-first none while the stopping one has the surge's room", view: web(2, 2, 1, 1, at(0, 1, "n1"), at(1, 2, "n2")),
			actions: []string{
				"Remove default/web-0@1 revision 1: revision 1 makes room for revision 2: 2 of 2 slots are available, 1 must stay",
				"Create default/web-0 revision 2: the slot is empty"},
			waiting: []string{"web-0@1 is stopping on n1", "slots that wait for their turn: 1 (available 1, at least 1; surge 1, at most 1)"}},
		{name: "both budgets zero: one may be unavailable", view: web(1, 2, 0, 0, at(0, 1, "n1")),
			actions: []string{"Remove default/web-0@1 revision 1: revision 1 makes room for revision 2: 1 of 1 slots are available, 0 must stay"},
			waiting: []string{"web-0@1 is stopping on n1"}},
		{name: "suspect does not count for the floor", view: web(2, 2, 0, 1, at(0, 1, "n1"), at(1, 2, "n2", suspect), at(1, 3, "n3", spare, unready)),
			waiting: []string{"web-1@2 cannot be reached: n2 is suspect", "web-1@3 is not ready on n3", "slots that wait for their turn: 1 (available 1, at least 1; surge 0, at most 0)"}},
		{name: "changed midway: the unready successor of neither goes first", view: web(2, 3, 1, 0, at(0, 1, "n1"), at(0, 3, "n3", rev(2), unready), at(1, 2, "n2")),
			actions: []string{"Remove default/web-0@3 revision 2: revision 2 is not ready and revision 3 is wanted"},
			waiting: []string{"web-0@3 is stopping on n3", "slots that wait for their turn: 2 (available 2, at least 2; surge 1, at most 1)"}},
		{name: "changed midway: two old ones that serve are one too many", view: web(1, 3, 1, 0, at(0, 1, "n1"), at(0, 3, "n3", rev(2))),
			actions: []string{"Remove default/web-0@3 revision 2: web-0@1 on n1 is ready in the same slot and revision 3 is wanted"},
			waiting: []string{"web-0@3 is stopping on n3", "slots that wait for their turn: 1 (available 1, at least 1; surge 1, at most 1)"}},
		{name: "changed back: what has the wanted revision is kept", view: web(2, 1, 1, 0, at(0, 1, "n1"), at(0, 3, "n3", rev(2)), at(1, 2, "n2")),
			actions: []string{"Remove default/web-0@3 revision 2: revision 1 is ready as web-0@1 on n1"},
			waiting: []string{"web-0@3 is stopping on n3"}},

		// 6: stopping
		{name: "stopping: only its node's death is acted on", view: web(0, 1, 0, 1, at(0, 1, "n1", stopping), at(1, 2, "n2", stopping, dead)),
			actions: []string{"Void default/web-1@2 revision 1: n2 is dead"},
			waiting: []string{"web-0@1 is stopping on n1"}},

		// 7: ended
		{name: "ended: it fills its slot", view: web(2, 1, 1, 0, at(0, 1, "n1", in(api.PhaseFailed)), at(1, 2, "n2", in(api.PhaseStopped))),
			waiting: []string{"web-0@1 has ended (Failed) on n1", "web-1@2 has ended (Stopped) on n2"}},
		{name: "ended: a new revision replaces it, floor or not", view: web(2, 2, 1, 0, at(0, 1, "n1", in(api.PhaseFailed)), at(1, 2, "n2", unready)),
			actions: []string{"Remove default/web-0@1 revision 1: revision 1 has ended and revision 2 is wanted",
				"Create default/web-0 revision 2: the slot is empty",
				"Remove default/web-1@2 revision 1: revision 1 is not ready and revision 2 is wanted"},
			waiting: []string{"web-0@1 is stopping on n1", "web-1@2 is stopping on n2"}},

		// 8: doubles
		{name: "doubles: the oldest that is ready stays", view: web(1, 1, 0, 1, at(0, 1, "n1", unready), at(0, 2, "n2"), at(0, 3, "n3")),
			actions: []string{"Remove default/web-0@1 revision 1: web-0@2 on n2 is ready in the same slot",
				"Remove default/web-0@3 revision 1: web-0@2 on n2 is ready in the same slot"},
			waiting: []string{"web-0@1 is stopping on n1", "web-0@3 is stopping on n3"}},
		{name: "doubles: one that has ended beside one that may come", view: web(1, 1, 0, 1, at(0, 1, "n1", in(api.PhaseFailed)), at(0, 2, "n2", unready)),
			actions: []string{"Remove default/web-0@1 revision 1: it has ended and web-0@2 is in the same slot"},
			waiting: []string{"web-0@1 is stopping on n1", "web-0@2 is not ready on n2"}},
	} {
		t.Run(c.name, c.check)
	}
}

func (c row) check(t *testing.T) {
	w := fleet{view: c.view, now: t0}
	w.bound()
	d := w.checkPlan(t)
	w.checkIdle(t, d)
	if raw := Plan(c.view, t0); !reflect.DeepEqual(raw, d) {
		t.Errorf("with both budgets zero %+v, with one unavailable %+v", raw, d)
	}
	var got []string
	for _, a := range d.Actions {
		got = append(got, a.String())
	}
	if !slices.Equal(got, c.actions) {
		t.Errorf("actions\n%q, want\n%q", got, c.actions)
	}
	if !slices.Equal(d.Waiting, c.waiting) {
		t.Errorf("waiting\n%q, want\n%q", d.Waiting, c.waiting)
	}
	var wake time.Time
	if c.wake > 0 {
		wake = t0.Add(c.wake)
	}
	if !d.Wake.Equal(wake) {
		t.Errorf("wake %s, want %s", d.Wake, wake)
	}
}

// TestPlanValues looks at the values whole, as the core gets them.
func TestPlanValues(t *testing.T) {
	got := Plan(web(2, 1, 1, 0, at(1, 9, "n2", dead), at(0, 3, "n1", suspect)), t0) // not sorted, on purpose
	want := Decision{
		Actions: []Action{
			{Op: Create, Key: api.ReplicaKey{Namespace: "default", Service: "web", Slot: 0}, Revision: 1, Spare: true, Avoid: []string{"n1"},
				Why: "n1 suspect: web-0@3 cannot be reached"},
			{Op: Void, Key: api.ReplicaKey{Namespace: "default", Service: "web", Slot: 1, Epoch: 9}, Revision: 1, Why: "n2 is dead"},
			{Op: Create, Key: api.ReplicaKey{Namespace: "default", Service: "web", Slot: 1}, Revision: 1, Why: "web-1@9 is void: n2 is dead"},
		},
		Slots:   2,
		Waiting: []string{"web-0@3 cannot be reached: n1 is suspect"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v, want\n%+v", got, want)
	}
}

// TestAppliedPlansNothing: what is adopted in the place of what goes is looked at in the
// same plan (I10), and so is what is left when all of another revision is gone.
func TestAppliedPlansNothing(t *testing.T) {
	gone := func(f *Filling) { f.Phase, f.Ready, f.Relieve = api.PhaseFailed, false, "its agent is lost" }
	recreate := web(1, 2, 0, 1, at(0, 1, "n1", rev(2), spare), at(0, 2, "n2", unknown, gone, spare), at(0, 3, "n1", rev(2), spare))
	recreate.Recreate, recreate.Exclusive = true, true
	for name, v := range map[string]View{
		"several spares have ended":             web(1, 1, 0, 1, at(0, 1, "n1", unknown, gone, spare), at(0, 2, "n2", suspect, unready, spare), at(0, 3, "n1", unknown, gone, spare)),
		"an exclusive one that is recreated":    recreate,
		"an incumbent and a spare have ended":   web(1, 1, 0, 1, at(0, 1, "n1", unknown, gone), at(0, 2, "n1", unknown, gone, spare), at(0, 3, "n2", spare)),
		"all have ended, and none is any other": web(1, 1, 0, 1, at(0, 1, "n1", unknown, gone), at(0, 2, "n1", unknown, gone, spare)),
	} {
		w := &fleet{view: v, now: t0}
		w.checkIdle(t, Plan(v, t0))
		if t.Failed() {
			t.Fatal(name)
		}
	}
}

// TestWaitingIsBounded: a large service that starts says so in few lines.
func TestWaitingIsBounded(t *testing.T) {
	v := web(waitingMax+5, 1, 1, 0)
	for i := range v.Replicas {
		v.Fillings = append(v.Fillings, at(i, uint64(i+1), "n1", unready))
	}
	got := Plan(v, t0).Waiting
	if len(got) != waitingMax+1 || got[0] != "web-0@1 is not ready on n1" || got[waitingMax] != "and 5 more" {
		t.Errorf("got %q", got)
	}
}

func BenchmarkPlanSettled(b *testing.B) {
	v := web(10_000, 1, 1, 0)
	for i := range v.Replicas {
		v.Fillings = append(v.Fillings, at(i, uint64(i+1), "n1"))
	}
	for b.Loop() {
		Plan(v, t0)
	}
}
