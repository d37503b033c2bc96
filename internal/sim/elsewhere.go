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

// failsHere tells whether a replica beside k in its slot has ended again and again by
// itself, so that its node may be at fault.
func (g *ledger) failsHere(l *lead, after picture, k api.ReplicaKey) bool {
	if after.services[k.ServiceKey()] == nil {
		return false
	}
	spare := func(o api.ReplicaKey) bool { // what the same batch adopts is a replica that fails
		return g.pic.placements[o].spare && after.placements[o].spare
	}
	if slices.ContainsFunc(g.pic.of(k.ServiceKey()), func(o api.ReplicaKey) bool { // it is the spare there that is moved
		return o.Slot == k.Slot && spare(o) && !g.pic.placements[o].stopping
	}) {
		return false
	}
	for _, o := range after.of(k.ServiceKey()) {
		p, known := g.pic.placements[o]
		if !known || o == k || o.Slot != k.Slot || spare(o) || p.stopping || g.moves(l, after, p.node) || l.know.ailsFrom(p.node, l.openSince) != 0 {
			continue
		}
		if g.endsOf(o) > 0 && g.endsInSlot(o) >= g.w.budgets.FailingEnds {
			return true
		}
	}
	return false
}

// triesRightly: such a replica is tried elsewhere only where another of its revision
// does well, not too often, and never where a slot may not have two.
func (g *ledger) triesRightly(l *lead, after picture, k api.ReplicaKey) {
	p, key := after.placements[k], k.ServiceKey()
	s := after.services[key]
	g.tried[k] = true
	g.w.res.Tried++
	of := tryOf{key, k.Slot, p.revision}
	if l.know.tries[of]++; l.know.tries[of] > g.w.budgets.FailingMoves {
		g.w.violate("budget", "%s is tried on %s, the %dth try of its slot and revision: at most %d may be", k, p.node, l.know.tries[of], g.w.budgets.FailingMoves)
	}
	stays := slices.ContainsFunc(after.of(key), func(o api.ReplicaKey) bool { return g.templates[o] != nil && g.templates[o].Exclusive })
	if s.Spec.Exclusive || g.exclusive(key) && stays || s.Spec.Mode == api.ModeGlobal {
		g.w.violate("I6", "%s is tried on %s, beside what fails in its slot", k, p.node)
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
