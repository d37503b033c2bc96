package plan

import (
	"fmt"
	"maps"
	"slices"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// assigned takes a set of the leader's.
func (c *Core) assigned(ev Assigned) {
	set := ev.Set
	if !c.connected {
		return // of a session that has ended
	}
	if !set.Complete && (!c.whole || ev.Incarnation != c.incarnation || set.Sequence != c.sequence+1) {
		c.emit(Resync{Why: fmt.Sprintf("set %d came after set %d", set.Sequence, c.sequence)})
		c.whole = false
		return
	}
	if ev.Incarnation != c.incarnation {
		c.newIncarnation(ev.Incarnation)
	}
	c.sequence = set.Sequence
	c.ack.AssignmentSequence, c.ackDue, c.saveDue = set.Sequence, true, true
	for _, a := range set.Put {
		c.volumesAnew(a)
		c.put(a)
	}
	for _, k := range set.Drop {
		c.drop(k)
	}
	c.valuesCame()
	if set.Complete {
		c.whole, c.taken, c.allDue = true, true, true
		c.keepOnly(set)
	} else if c.mayPrune { // the whole as it is at this revision
		c.storeRevision = max(c.storeRevision, set.StoreRevision)
	}
	c.askVolumes(set)
	c.orphansGo = c.orphansGo || set.RemoveOrphans
	c.prune()
}

// keepOnly ends what a complete set does not name, if the set may say so.
func (c *Core) keepOnly(set wire.AssignmentSet) {
	c.mayPrune = set.StoreRevision >= c.storeRevision
	if !c.mayPrune {
		return
	}
	c.storeRevision = set.StoreRevision
	named := make(map[api.ReplicaKey]bool, len(set.Put))
	for _, a := range set.Put {
		named[a.Key] = true
	}
	for _, k := range c.sortedKeys() {
		if !named[k] {
			c.drop(k)
		}
	}
	c.pruneNetsDue = true
}

func (c *Core) put(a wire.Assignment) {
	r := c.replicas[a.Key]
	if r != nil && r.gone && !a.Stopping && !r.stopOrdered {
		r = nil // assigned anew after it was gone
	}
	if r == nil {
		r = newReplica(a)
		c.replicas[a.Key] = r
		for _, id := range slices.Sorted(maps.Keys(c.strays)) {
			if o := c.strays[id]; o.Replica == a.Key {
				delete(c.strays, id)
				c.place(o)
			}
		}
	} else {
		r.take(a, c.now)
		if a.Revision != r.revision { // no leader does so; if one did, all of it is made anew
			r.next = &a
			c.leave(r, fmt.Sprintf("it is assigned as revision %d, no longer %d", a.Revision, r.revision))
		} else {
			c.repin(r, a.Images)
		}
	}
	c.mark(r)
	r.stopOrdered = r.stopOrdered || a.Stopping
	switch {
	case r.gone: // a leader that is new does not know how far the one before came with its stop
		c.gone[a.Key] = true
	case a.Stopping:
		c.leave(r, stopOrderedWhy)
	}
}

// stopOrderedWhy is why a replica goes that the leader wants stopped.
const stopOrderedWhy = "the leader wants it stopped"

// valuesCame has starts and pulls tried again that waited for values: a set brings all that its
// assignments take.
func (c *Core) valuesCame() {
	for _, k := range c.sortedKeys() {
		for _, x := range c.replicas[k].runs {
			if f := x.failing.failure; f != nil && f.Reason == api.ReasonConfigMissing {
				x.failing.at = c.now
				c.mark(x.r)
			}
			if im := x.image; im != nil && im.retry.failure != nil && im.retry.failure.Reason == api.ReasonConfigMissing {
				im.retry.at = c.now
				c.mark(x.r)
			}
		}
	}
}

// drop: there is no placement any more.
func (c *Core) drop(k api.ReplicaKey) {
	r := c.replicas[k]
	if r == nil {
		return
	}
	if r.gone {
		delete(c.replicas, k)
		return
	}
	r.assigned = false
	c.leave(r, "it is no longer assigned to this node")
}

// newIncarnation: the store that speaks now is not the one that spoke before.
// What is known is forgotten and looked at again, so that containers which the
// new one names are adopted and the others are nobody's.
func (c *Core) newIncarnation(id string) {
	if c.incarnation != "" {
		for _, k := range c.sortedKeys() {
			for _, x := range c.replicas[k].runs {
				c.stopProbes(x)
			}
		}
		clear(c.replicas)
		clear(c.images)
		c.storeRevision, c.mayPrune = 0, false
		c.forgetVolumes()
		c.forget()
		c.observe("the store has a new incarnation")
	}
	c.incarnation = id
}

// prune takes up containers of this incarnation that nobody wants, and those of others
// where an operator said so. It needs a complete set: unknown is not unwanted.
func (c *Core) prune() {
	if !c.mayPrune || !c.observed {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(c.strays)) {
		o := c.strays[id]
		if o.Incarnation != c.incarnation && !c.orphansGo {
			continue
		}
		delete(c.strays, id)
		r := c.replicas[o.Replica]
		if r == nil || r.gone {
			r = &replica{key: o.Replica, revision: o.Revision, template: &api.Template{}, phase: api.PhaseAssigned}
			r.net.Network = Network{NetNS: o.NetNS, IP: o.IP}
			c.replicas[o.Replica] = r
		}
		r.leftovers = append(r.leftovers, &leftover{Container: o})
		if c.mark(r); !r.assigned { // else what is left is in the way of a replica that is wanted
			c.leave(r, "nobody wants it")
		}
	}
	c.allDue = c.allDue || c.orphansGo // orphans are told with complete reports only
	c.orphansGo = false
	c.pruneNetworks()
}

// pruneNetworks clears away networks of nobody, once per complete set. No
// network is set up meanwhile: it would not be among those to keep.
func (c *Core) pruneNetworks() {
	if !c.pruneNetsDue || c.pruning != 0 {
		return
	}
	c.pruneNetsDue = false
	keep := map[api.ReplicaKey]bool{}
	for k, r := range c.replicas {
		keep[k] = !r.gone
	}
	for _, o := range c.strays {
		keep[o.Replica] = true
	}
	maps.DeleteFunc(keep, func(_ api.ReplicaKey, k bool) bool { return !k })
	c.pruning = c.id()
	c.emit(PruneNetworks{ID: c.pruning, Keep: slices.SortedFunc(maps.Keys(keep), compareKeys), Why: "a complete set was taken up"})
}
