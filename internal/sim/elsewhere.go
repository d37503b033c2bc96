package sim

import (
	"slices"

	"github.com/orchctl/orch/api"
)

// tryOf is what may be tried elsewhere a few times.
type tryOf struct {
	service  api.Key
	slot     int
	revision int64
}

// failsHere gives a replica beside k in its slot that has ended again and again by
// itself, so that its node may be at fault; false: there is none.
func (g *ledger) failsHere(l *lead, after picture, k api.ReplicaKey) (api.ReplicaKey, bool) {
	if after.services[k.ServiceKey()] == nil {
		return api.ReplicaKey{}, false
	}
	spare := func(o api.ReplicaKey) bool { // what the same batch adopts is a replica that fails
		return g.pic.placements[o].spare && after.placements[o].spare
	}
	// It is the spare there that is moved; one that goes with the same batch is not.
	if slices.ContainsFunc(g.pic.of(k.ServiceKey()), func(o api.ReplicaKey) bool {
		return o.Slot == k.Slot && spare(o) && !g.pic.placements[o].stopping && !after.placements[o].stopping
	}) {
		return api.ReplicaKey{}, false
	}
	for _, o := range after.of(k.ServiceKey()) {
		p, known := g.pic.placements[o]
		if !known || o == k || o.Slot != k.Slot || spare(o) || p.stopping || g.moves(l, after, p.node) || l.know.ailsFrom(p.node, l.openSince) != 0 {
			continue
		}
		if g.endsOf(o) > 0 && g.endsInSlot(o) >= g.w.budgets.FailingEnds {
			return o, true
		}
	}
	return api.ReplicaKey{}, false
}

// triesRightly: such a replica is tried elsewhere only where another of its revision
// does well, not too often, and never where a slot may not have two.
func (g *ledger) triesRightly(l *lead, after picture, k, failing api.ReplicaKey) {
	p, key := after.placements[k], k.ServiceKey()
	s := after.services[key]
	g.tried[k] = true
	g.w.res.Tried++
	stays := slices.ContainsFunc(after.of(key), func(o api.ReplicaKey) bool { return g.templates[o] != nil && g.templates[o].Exclusive })
	if s.Spec.Exclusive || g.exclusive(key) && stays || s.Spec.Mode == api.ModeGlobal {
		g.w.violate("I6", "%s is tried on %s, beside what fails in its slot", k, p.node)
	}
	// A slot that is being relieved is rolled by its spare: that of a newer revision takes
	// the place of the one with which the try began, and is no try of its own. None begins
	// beside what a rollout is to replace.
	began, known := l.know.trying[failing]
	l.know.trying[failing] = p.revision
	if known && !after.runs(key, began, p.revision) && !after.isNewest(failing, g.pic.placements[failing]) {
		return
	}
	of := tryOf{key, k.Slot, p.revision}
	if l.know.tries[of]++; l.know.tries[of] > g.w.budgets.FailingMoves {
		g.w.violate("budget", "%s is tried on %s, the %dth try of its slot and revision: at most %d may be", k, p.node, l.know.tries[of], g.w.budgets.FailingMoves)
	}
	all := g.pic.of(key)
	if !slices.ContainsFunc(all, func(o api.ReplicaKey) bool {
		x := g.pic.placements[o]
		return o.Slot != k.Slot && after.runs(key, x.revision, s.Status.Revision) == after.runs(key, p.revision, s.Status.Revision) &&
			slices.ContainsFunc(l.eventsOf(all), func(e uint64) bool { return l.know.available(after, o, x, e) })
	}) {
		g.w.violate("I5", "%s is tried on %s, though no other of its revision does well anywhere", k, p.node)
	}
}
