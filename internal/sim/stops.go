package sim

import (
	"slices"

	"github.com/orchctl/orch/api"
)

// stopsRightly: I5. What is to stop has a reason in what is wanted, not in
// somebody's slowness; and if it serves, another one of its slot does so before.
func (g *ledger) stopsRightly(l *lead, after picture, k api.ReplicaKey, p placement) {
	s := after.services[k.ServiceKey()]
	if s == nil || !s.Metadata.DeletedAt.IsZero() || !g.wants(after, k, p) || !after.isNewest(k, p) {
		return
	}
	if g.turnedTwice(s) {
		return
	}
	var rivals []api.ReplicaKey
	for _, pic := range []picture{g.pic, after} {
		for _, other := range pic.of(k.ServiceKey()) {
			if o := pic.placements[other]; other != k && seat(s, other, o) == seat(s, k, p) && !o.stopping {
				rivals = append(rivals, other)
			}
		}
	}
	switch {
	case g.overdue(after, p.node): // the floor holds all the same: I4
	case len(rivals) == 0 && g.onTrial(l, after, k.ServiceKey()): // what was rolled out well takes its place
	case g.exclusive(k.ServiceKey()):
		g.leavesRightly(l, after, k, p)
	case len(rivals) == 0:
		g.w.violate("I5", "%s is told to stop, though it is the only one in a slot that is wanted and has the newest revision", k)
	default:
		was := g.pic.placements[k]
		events := l.eventsOf(g.pic.of(k.ServiceKey()))
		serves := !slices.ContainsFunc(events, func(e uint64) bool { return !l.know.available(after, k, was, e) })
		rival := slices.ContainsFunc(rivals, func(o api.ReplicaKey) bool {
			p, known := g.pic.placements[o] // that it goes too is another decision, with its own reason
			if !known {
				p = after.placements[o]
			}
			return slices.ContainsFunc(events, func(e uint64) bool { return l.know.available(after, o, p, e) })
		})
		if serves && !rival {
			g.w.violate("I5", "%s on %s is told to stop while it serves and none of %v does", k, p.node, rivals)
		}
		if serves && rival {
			g.givesWay(l, k, rivals)
		}
	}
}

// exclusive tells whether a service's slots are exclusive: while its newest
// revision is, or anything that is placed for it.
func (g *ledger) exclusive(key api.Key) bool {
	s := g.pic.services[key]
	if s == nil {
		return false
	}
	newest := g.pic.revisions[revisionKey{key, s.Status.Revision}]
	return newest != nil && newest.template.Exclusive ||
		slices.ContainsFunc(g.pic.of(key), func(k api.ReplicaKey) bool { return g.templates[k].Exclusive })
}

// leavesRightly: an exclusive replica stops first, but only if its node cannot
// work, or if it has stopped already for want of a lease.
func (g *ledger) leavesRightly(l *lead, after picture, k api.ReplicaKey, p placement) {
	switch v := l.know.verdict[p.node]; {
	case present(v):
		if l.know.wellSince(p.node, l.openSince) && !g.drained(after, p.node) && !g.drainedBetween(l, p.node) {
			g.w.violate("I5", "exclusive %s is told to stop, though %s is %s and works", k, p.node, v)
		}
	case present(l.know.verdictAt(p.node, l.openSince)): // it was decided while its agent could be told; its slot waits
	case v != api.VerdictDead: // else its slot waits, whatever its record says
		for _, x := range g.w.tenants.byName[slotOf(k)] {
			if x.c.Replica == k && x.c.Running && !x.h.frozen {
				g.w.violate("I6", "exclusive %s on %s, which is %s, is given up while %s still runs there", k, p.node, v, x.c.ID)
			}
		}
	}
}

// slotIsFree: I6. A slot of an exclusive service is filled again only when nothing
// can run there any more.
func (g *ledger) slotIsFree(after picture, k api.ReplicaKey, p placement) {
	r := after.revisions[revisionKey{k.ServiceKey(), p.revision}]
	if r == nil || !r.template.Exclusive {
		return
	}
	for _, x := range g.w.tenants.byName[slotOf(k)] {
		if x.c.Replica != k && x.c.exclusive && x.c.Running && !x.h.frozen {
			g.w.violate("I6", "exclusive slot %s is filled again on %s while %s still runs on %s", slotOf(k), p.node, x.c.ID, x.h.name)
		}
	}
}

// eventsOf are the events since the batch was begun at which something was said
// of these replicas or held of their nodes, and that of its beginning.
func (l *lead) eventsOf(keys []api.ReplicaKey) []uint64 {
	events := []uint64{l.openSince}
	for _, k := range keys {
		if s := l.know.status[k]; s != nil {
			for _, f := range s.flips {
				if f.event > l.openSince {
					events = append(events, f.event)
				}
			}
			for _, f := range s.heard {
				if f.event > l.openSince {
					events = append(events, f.event)
				}
			}
		}
		for _, t := range l.know.turns[l.w.ledger.placed[k]] {
			if t.event > l.openSince {
				events = append(events, t.event)
			}
		}
	}
	return events
}

// turnedTwice tells whether a service was changed twice within one transaction, such as
// scaled down and up again.
func (g *ledger) turnedTwice(s *api.Service) bool {
	old := g.pic.services[s.Metadata.Key()]
	return old != nil && old.Metadata.UID == s.Metadata.UID && s.Metadata.ResourceVersion > old.Metadata.ResourceVersion+1
}
