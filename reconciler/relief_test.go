package reconciler

import (
	"testing"

	"github.com/orchctl/orch/api"
)

func relieved(f *Filling) { f.Relieve = "it cannot work" }
func damped(f *Filling)   { f.Damped = true }
func overdue(f *Filling)  { f.Relieve, f.Overdue = "n1 is being drained", true }

func TestRelief(t *testing.T) {
	for _, c := range []row{
		{name: "agent lost: a spare beside it, whatever the surge", view: web(1, 1, 0, 1, at(0, 1, "n1", lost, relieved)),
			actions: []string{"Create default/web-0 revision 1 spare, not on n1: web-0@1 on n1 is to be relieved: it cannot work"},
			waiting: []string{"web-0@1 is to be relieved on n1: it cannot work"}},
		{name: "impaired: the same", view: web(1, 1, 0, 1, at(0, 1, "n1", relieved)),
			actions: []string{"Create default/web-0 revision 1 spare, not on n1: web-0@1 on n1 is to be relieved: it cannot work"},
			waiting: []string{"web-0@1 is to be relieved on n1: it cannot work"}},
		{name: "one spare is enough, and the incumbent's readiness does not end it",
			view:    web(2, 1, 0, 1, at(0, 1, "n1", relieved), at(0, 2, "n2", spare, unready), at(1, 3, "n1", lost, relieved), at(1, 4, "n2", spare, in(api.PhaseAssigned))),
			waiting: []string{"web-0@1 is to be relieved on n1: it cannot work", "web-0@2 is not ready on n2", "web-1@3 is to be relieved on n1: it cannot work", "web-1@4 is not ready on n2"}},
		{name: "the spare is ready: it is the replica, though the agent of the other is lost",
			view: web(1, 1, 0, 1, at(0, 1, "n1", lost, relieved), at(0, 2, "n2", spare)),
			actions: []string{"Adopt default/web-0@2 revision 1: it has relieved the incumbent",
				"Remove default/web-0@1 revision 1: web-0@2 on n2 is ready in its place: it cannot work"},
			waiting: []string{"web-0@1 is stopping on n1, whose agent is lost"}},
		{name: "well again before the spare is ready: the spare goes", view: web(1, 1, 0, 1, at(0, 1, "n1"), at(0, 2, "n2", spare, unready)),
			actions: []string{"Remove default/web-0@2 revision 1: incumbent on n1 is back and ready"},
			waiting: []string{"web-0@2 is stopping on n2"}},
		{name: "no longer relieved, but still lost: both stay until more is known", view: web(1, 1, 0, 1, at(0, 1, "n1", lost), at(0, 2, "n2", spare)),
			waiting: []string{"web-0@1 is left alone on n1, whose agent is lost"}},
		{name: "suspect as well: simply suspect", view: web(1, 1, 0, 1, at(0, 1, "n1", suspect, relieved), at(0, 2, "n2", spare)),
			waiting: []string{"web-0@1 cannot be reached: n1 is suspect"}},
		{name: "it is not ready: nobody waits for it", view: web(1, 1, 0, 1, at(0, 1, "n1", lost, relieved, unready), at(0, 2, "n2", spare)),
			actions: []string{"Adopt default/web-0@2 revision 1: it has relieved the incumbent",
				"Remove default/web-0@1 revision 1: web-0@2 on n2 is ready in its place: it cannot work"},
			waiting: []string{"web-0@1 is stopping on n1, whose agent is lost"}},
		{name: "it has ended: there is nothing to relieve", view: web(1, 1, 0, 1, at(0, 1, "n1", lost, relieved, in(api.PhaseFailed))),
			waiting: []string{"web-0@1 has ended (Failed) on n1, whose agent is lost"}},
		{name: "it has ended and another revision is wanted: its agent need not hear it", view: web(1, 2, 0, 1, at(0, 1, "n1", lost, relieved, in(api.PhaseFailed))),
			actions: []string{"Remove default/web-0@1 revision 1: revision 1 has ended and revision 2 is wanted",
				"Create default/web-0 revision 2: the slot is empty"},
			waiting: []string{"web-0@1 is stopping on n1, whose agent is lost"}},
		{name: "deleted and scaled away goes first", view: web(1, 1, 0, 1, at(0, 1, "n1"), at(1, 2, "n2", lost, relieved)),
			actions: []string{"Remove default/web-1@2 revision 1: the service is scaled to 1"},
			waiting: []string{"web-1@2 is stopping on n2, whose agent is lost"}},
		{name: "the spare's agent is to be relieved too: another, avoiding both", view: web(1, 1, 0, 1, at(0, 1, "n2", relieved), at(0, 2, "n1", spare, lost, relieved)),
			actions: []string{"Create default/web-0 revision 1 spare, not on n1, n2: web-0@1 on n2 is to be relieved: it cannot work"},
			waiting: []string{"web-0@1 is to be relieved on n2: it cannot work", "web-0@2 is to be relieved on n1: it cannot work"}},
		{name: "incumbent suspect, its spare to be relieved: another", view: web(1, 1, 0, 1, at(0, 1, "n1", suspect), at(0, 2, "n2", spare, relieved)),
			actions: []string{"Create default/web-0 revision 1 spare, not on n1, n2: web-0@2 on n2 is to be relieved: it cannot work"},
			waiting: []string{"web-0@1 cannot be reached: n1 is suspect", "web-0@2 is to be relieved on n2: it cannot work"}},
		{name: "incumbent suspect, the spare's relief is ready: the incumbent still stays", view: web(1, 1, 0, 1, at(0, 1, "n1", suspect), at(0, 2, "n2", spare, relieved), at(0, 3, "n3", spare)),
			actions: []string{"Remove default/web-0@2 revision 1: web-0@3 on n3 is ready in its place: it cannot work"},
			waiting: []string{"web-0@1 cannot be reached: n1 is suspect", "web-0@2 is stopping on n2"}},
		{name: "it has ended, and so has its spare: another revision gets the slot",
			view: web(1, 2, 0, 1, at(0, 1, "n1", lost, relieved, in(api.PhaseFailed)), at(0, 2, "n2", spare, in(api.PhaseFailed))),
			actions: []string{"Adopt default/web-0@2 revision 1: the slot has no other replica",
				"Remove default/web-0@1 revision 1: it has ended on n1, which may not come back, and a spare is in the slot",
				"Remove default/web-0@2 revision 1: revision 1 has ended and revision 2 is wanted"},
			waiting: []string{"web-0@1 is stopping on n1, whose agent is lost", "web-0@2 is stopping on n2"}},
		{name: "neither it nor its spare on a lost agent's node is ready: another revision gets the slot",
			view: web(1, 2, 0, 1, at(0, 1, "n1", unready), at(0, 2, "n2", spare, lost, relieved, unready)),
			actions: []string{"Remove default/web-0@1 revision 1: revision 1 is not ready and revision 2 is wanted",
				"Remove default/web-0@2 revision 1: neither it nor the incumbent on n1 is ready and revision 2 is wanted"},
			waiting: []string{"web-0@1 is stopping on n1", "web-0@2 is stopping on n2, whose agent is lost"}},
		{name: "the spare has ended: another would end as well", view: web(1, 1, 0, 1, at(0, 1, "n1", relieved), at(0, 2, "n2", spare, in(api.PhaseFailed))),
			waiting: []string{"web-0@1 is to be relieved on n1: it cannot work", "web-0@2 has ended (Failed) on n2"}},
		{name: "the spare has ended, but of a revision that is not wanted", view: web(2, 2, 0, 0, at(0, 1, "n1", relieved), at(0, 2, "n2", spare, in(api.PhaseFailed)), at(1, 3, "n3", unready)),
			actions: []string{"Remove default/web-0@2 revision 1: the spare of revision 1 is not ready, revision 2 takes its place",
				"Create default/web-0 revision 2 spare, not on n1: web-0@1 on n1 is to be relieved: it cannot work",
				"Remove default/web-1@3 revision 1: revision 1 is not ready and revision 2 is wanted"},
			waiting: []string{"web-0@1 is to be relieved on n1: it cannot work", "web-0@2 is stopping on n2", "web-1@3 is stopping on n3"}},

		// beside a rollout
		{name: "its successor is on its way: that relieves it", view: web(1, 2, 1, 0, at(0, 1, "n1", lost, relieved), at(0, 2, "n2", rev(2), unready)),
			waiting: []string{"web-0@1 is to be relieved on n1: it cannot work", "web-0@2 is not ready on n2"}},
		{name: "a spare that would be made otherwise today stays while a successor is on its way", view: web(2, 2, 1, 0,
			at(0, 1, "n1", relieved), at(0, 2, "n2", rev(2), unready), at(0, 3, "n3", spare, unready), at(1, 4, "n4", rev(2))),
			waiting: []string{"web-0@1 is to be relieved on n1: it cannot work", "web-0@2 is not ready on n2", "web-0@3 is not ready on n3"}},
		{name: "its successor is ready: it goes, heard or not", view: web(1, 2, 1, 0, at(0, 1, "n1", lost, relieved), at(0, 2, "n2", rev(2))),
			actions: []string{"Remove default/web-0@1 revision 1: web-0@2 on n2 is ready in its place: it cannot work"},
			waiting: []string{"web-0@1 is stopping on n1, whose agent is lost"}},
		{name: "its successor has failed: it is relieved all the same", view: web(2, 2, 1, 0, at(0, 1, "n1", relieved), at(0, 2, "n2", rev(2), in(api.PhaseFailed)), at(1, 3, "n3")),
			actions: []string{"Create default/web-0 revision 1 spare, not on n1: web-0@1 on n1 is to be relieved: it cannot work"},
			waiting: []string{"web-0@1 is to be relieved on n1: it cannot work", "web-0@2 has ended (Failed) on n2", "slots that wait for their turn: 1 (available 2, at least 2; surge 1, at most 1)"}},
		{name: "its turn has come: to roll it relieves it", view: web(1, 2, 1, 0, at(0, 1, "n1", relieved)),
			actions: []string{"Create default/web-0 revision 2: revision 2 is to replace web-0@1 of revision 1"},
			waiting: []string{"web-0@1 is to be relieved on n1: it cannot work"}},
		{name: "its turn has not come: a spare of its own revision while the wanted one is unproven",
			view:    web(2, 2, 1, 0, at(0, 1, "n1"), at(0, 3, "n3", rev(2), unready), at(1, 2, "n2", relieved)),
			actions: []string{"Create default/web-1 revision 1 spare, not on n2: web-1@2 on n2 is to be relieved: it cannot work"},
			waiting: []string{"web-0@3 is not ready on n3", "web-1@2 is to be relieved on n2: it cannot work"}},
		{name: "a slot with its spare is not rolled", view: web(1, 2, 1, 1, at(0, 1, "n1", relieved), at(0, 2, "n2", spare, rev(2), unready)),
			waiting: []string{"web-0@1 is to be relieved on n1: it cannot work", "web-0@2 is not ready on n2"}},
		{name: "agent lost, the only slot: the wanted revision, for nothing else could prove it", view: web(1, 2, 1, 1, at(0, 1, "n1", lost, relieved)),
			actions: []string{"Create default/web-0 revision 2 spare, not on n1: web-0@1 on n1 is to be relieved: it cannot work"},
			waiting: []string{"web-0@1 is to be relieved on n1: it cannot work"}},
		{name: "what stops on a node that cannot stop it holds no room",
			view:    web(3, 2, 1, 0, at(0, 1, "n1", lost, relieved, stopping), at(0, 3, "n3", rev(2)), at(1, 4, "n2", relieved, stopping), at(1, 5, "n3", rev(2)), at(2, 6, "n4")),
			actions: []string{"Create default/web-2 revision 2: revision 2 is to replace web-2@6 of revision 1"},
			waiting: []string{"web-0@1 is stopping on n1, whose agent is lost", "web-1@4 is stopping on n2"}},

		// damped
		{name: "damped: a spare that is ready stays", view: web(1, 1, 0, 1, at(0, 1, "n1", back, damped), at(0, 2, "n2", spare)),
			waiting: []string{"web-0@2 stays beside the incumbent, whose node comes and goes"}},
		{name: "damped: one that is not goes", view: web(1, 1, 0, 1, at(0, 1, "n1", damped), at(0, 2, "n2", spare, unready)),
			actions: []string{"Remove default/web-0@2 revision 1: incumbent on n1 is back and ready"},
			waiting: []string{"web-0@2 is stopping on n2"}},
		{name: "damped: no rollout waits for it", view: web(1, 2, 1, 0, at(0, 1, "n1", damped), at(0, 2, "n2", spare)),
			actions: []string{"Remove default/web-0@2 revision 1: incumbent on n1 is back and ready",
				"Create default/web-0 revision 2: revision 2 is to replace web-0@1 of revision 1"},
			waiting: []string{"web-0@2 is stopping on n2"}},
		{name: "damped: an incumbent that is not ready goes as ever", view: web(1, 1, 0, 1, at(0, 1, "n1", back, unready, damped), at(0, 2, "n2", spare)),
			actions: []string{"Adopt default/web-0@2 revision 1: the incumbent web-0@1 on n1 goes",
				"Remove default/web-0@1 revision 1: n1 is back, but the incumbent is not ready there and the spare web-0@2 on n2 is"},
			waiting: []string{"web-0@1 is stopping on n1"}},
		{name: "damped and to be relieved: relieved", view: web(1, 1, 0, 1, at(0, 1, "n1", relieved, damped), at(0, 2, "n2", spare)),
			actions: []string{"Adopt default/web-0@2 revision 1: it has relieved the incumbent",
				"Remove default/web-0@1 revision 1: web-0@2 on n2 is ready in its place: it cannot work"},
			waiting: []string{"web-0@1 is stopping on n1"}},
	} {
		t.Run(c.name, c.check)
	}
}

// TestReliefIsTold: the core counts reliefs apart from spares.
func TestReliefIsTold(t *testing.T) {
	d := Plan(web(3, 1, 0, 1, at(0, 1, "n1", relieved), at(1, 2, "n1", suspect), at(2, 3, "n1", lost, relieved), at(2, 4, "n2", spare)), t0)
	var got []string
	for _, a := range d.Actions {
		if a.Relief {
			got = append(got, string(a.Op)+" "+a.Key.Name())
		}
	}
	if len(got) != 2 || got[0] != "Create web-0" || got[1] != "Remove web-2" || len(d.Actions) != 4 {
		t.Errorf("relief: %q of %v", got, d.Actions)
	}
}

func TestOverdue(t *testing.T) {
	for _, c := range []row{
		{name: "within the floor it goes, though nothing has taken its place", view: web(3, 1, 0, 1, at(0, 1, "n1", overdue), at(1, 2, "n2"), at(2, 3, "n3")),
			actions: []string{"Remove default/web-0@1 revision 1: n1 was to be empty by now: 2 of 3 slots are available without it, 2 must stay"},
			waiting: []string{"web-0@1 is stopping on n1"}},
		{name: "as far down as the floor", view: web(3, 1, 1, 1, at(0, 1, "n1", overdue), at(1, 2, "n1", overdue), at(2, 3, "n3")),
			actions: []string{"Remove default/web-0@1 revision 1: n1 was to be empty by now: 2 of 3 slots are available without it, 2 must stay",
				"Create default/web-0 revision 1: the slot is empty",
				"Create default/web-1 revision 1 spare, not on n1: web-1@2 on n1 is to be relieved: n1 is being drained"},
			waiting: []string{"web-0@1 is stopping on n1", "web-1@2 is to be relieved on n1: n1 is being drained"}},
		{name: "what does not serve goes whatever the floor", view: web(1, 1, 1, 0, at(0, 1, "n1", overdue, unready)),
			actions: []string{"Remove default/web-0@1 revision 1: n1 was to be empty by now: 0 of 1 slots are available without it, 1 must stay",
				"Create default/web-0 revision 1: the slot is empty"},
			waiting: []string{"web-0@1 is stopping on n1"}},
		{name: "its spare that is not ready takes its place", view: web(2, 1, 0, 1, at(0, 1, "n1", overdue), at(0, 2, "n2", spare, unready), at(1, 3, "n3")),
			actions: []string{"Adopt default/web-0@2 revision 1: the slot has no other replica",
				"Remove default/web-0@1 revision 1: n1 was to be empty by now: 1 of 2 slots are available without it, 1 must stay"},
			waiting: []string{"web-0@1 is stopping on n1", "web-0@2 is not ready on n2"}},
		{name: "it has ended: it stays as a record", view: web(1, 1, 0, 1, at(0, 1, "n1", overdue, in(api.PhaseStopped))),
			waiting: []string{"web-0@1 has ended (Stopped) on n1"}},
		{name: "nobody can tell it now", view: web(2, 1, 0, 1, at(0, 1, "n1", suspect, overdue), at(0, 2, "n2", spare), at(1, 3, "n3")),
			waiting: []string{"web-0@1 cannot be reached: n1 is suspect"}},
	} {
		t.Run(c.name, c.check)
	}
}

func TestReliefOfWhatIsNotReady(t *testing.T) {
	for _, c := range []row{
		{name: "its spare runs: it goes, though that is not ready either", view: web(1, 1, 0, 1, at(0, 1, "n1", relieved, unready), at(0, 2, "n2", spare, unready)),
			actions: []string{"Adopt default/web-0@2 revision 1: it has relieved the incumbent",
				"Remove default/web-0@1 revision 1: it is not ready and web-0@2 runs on n2 in its place: it cannot work"},
			waiting: []string{"web-0@1 is stopping on n1", "web-0@2 is not ready on n2"}},
		{name: "its spare does not run yet: it stays", view: web(1, 1, 0, 1, at(0, 1, "n1", relieved, unready), at(0, 2, "n2", spare, in(api.PhasePreparing))),
			waiting: []string{"web-0@1 is to be relieved on n1: it cannot work", "web-0@2 is not ready on n2"}},
		{name: "its agent is lost, so nobody knows", view: web(1, 1, 0, 1, at(0, 1, "n1", lost, relieved, unready), at(0, 2, "n2", spare, unready)),
			waiting: []string{"web-0@1 is to be relieved on n1: it cannot work", "web-0@2 is not ready on n2"}},
	} {
		t.Run(c.name, c.check)
	}
}
