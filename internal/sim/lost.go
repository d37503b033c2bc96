package sim

import (
	"slices"

	"github.com/orchctl/orch/api"
)

// living are the nodes that came back, with their agents.
func (w *world) living() []*host {
	return slices.DeleteFunc(slices.Clone(w.hosts), func(h *host) bool { return h == w.lost || h == w.mute })
}

// unheard tells whether a placement is on a node whose agent will never say that
// it has stopped.
func (w *world) unheard(p placement) bool { return w.mute != nil && p.node == w.mute.name }

// waitsForMute tells whether a service cannot be gone, for the same reason; nor
// can an exclusive one be settled while it waits for what has no lease there.
func (w *world) waitsForMute(key api.Key) bool {
	return slices.ContainsFunc(w.ledger.pic.of(key), func(k api.ReplicaKey) bool {
		return w.unheard(w.ledger.pic.placements[k]) && (w.ledger.deleting(key) || w.ledger.pic.jobs[key] != nil || w.ledger.exclusive(key) && !w.ledger.templates[k].Leased())
	})
}

// standsIn tells whether a spare's incumbent is on that node: as long as its host
// answers and its ports do not it stays suspect, and the spare a spare.
func (w *world) standsIn(spare api.ReplicaKey) bool {
	return slices.ContainsFunc(w.ledger.pic.of(spare.ServiceKey()), func(o api.ReplicaKey) bool {
		p := w.ledger.pic.placements[o]
		return o.Slot == spare.Slot && !p.spare && w.unheard(p)
	})
}

// heldUp tells whether an old replica or a spare is on that node while it is suspect,
// as it stays for ever where its host answers and its ports do not: nobody knows
// whether it serves, so the one counts as surge, the other holds its slot, and a
// rollout may wait until somebody says that the node is dead. Its service says so.
func (w *world) heldUp(l *lead, key api.Key) bool {
	return slices.ContainsFunc(w.ledger.pic.of(key), func(k api.ReplicaKey) bool {
		p := w.ledger.pic.placements[k]
		return w.unheard(p) && (p.spare || !w.ledger.pic.isNewest(k, p)) && l.core.Verdict(p.node) == api.VerdictSuspect
	})
}

// stoodInFor tells whether something else is in the slot of what is on that node.
func (w *world) stoodInFor(k api.ReplicaKey) bool {
	return slices.ContainsFunc(w.ledger.pic.of(k.ServiceKey()), func(o api.ReplicaKey) bool {
		p := w.ledger.pic.placements[o]
		return o.Slot == k.Slot && !p.stopping && !w.unheard(p)
	})
}

func (g *ledger) deleting(key api.Key) bool {
	s := g.pic.services[key]
	return s != nil && !s.Metadata.DeletedAt.IsZero()
}

// bury has an operator remove the node that never comes back where an exclusive
// service waits for what may run there without a lease: no clock tells when that
// ends, only somebody who looks.
func (w *world) bury() {
	l := w.leader()
	if w.lost == nil || l == nil || w.ledger.pic.nodes[w.lost.name] == nil || l.core.Verdict(w.lost.name) != api.VerdictDead {
		return
	}
	for _, k := range w.ledger.pic.sortedPlacements() {
		if w.ledger.pic.placements[k].node == w.lost.name && !w.ledger.templates[k].Leased() {
			w.order(w.users[0], w.lost, "remove")
			return
		}
	}
}
