package sim

import (
	"fmt"
	"maps"
	"slices"

	"github.com/orchctl/orch/api"
)

// decided holds a leader's decisions against what it knew when it made them. A
// batch may gather over several events: what changed since it was begun excuses.
func (g *ledger) decided(l *lead, changes []change) {
	if l.lease.Term != g.term || len(changes) == 0 {
		return // deposed without knowing it: the fence will see to that
	}
	after := g.pic.with(changes)
	touched := map[api.Key]bool{}
	g.rollsRightly(l, after, changes)
	g.decidedJobs(l, after, changes)
	for _, c := range changes {
		if c.kind == kindVolume {
			g.volumeWritten(l, after, c)
		}
		if c.kind == kindRemoval {
			g.removalWritten(after, c)
		}
		if c.kind == kindNode && c.object != nil {
			g.drainedRightly(l, after, c.node)
		}
		if c.kind != kindPlacement {
			continue
		}
		old, known := g.pic.placements[c.replica]
		if c.placement == nil || c.placement.stopping && !old.stopping {
			if _, before := l.know.left[c.replica]; !before { // its record may go much later
				l.know.left[c.replica] = l.openAt
			}
		}
		switch {
		case c.placement == nil && known:
			g.released(l, after, c.replica, old)
		case c.placement != nil && !known:
			if s := after.services[c.replica.ServiceKey()]; s != nil {
				g.revisions[c.replica] = ofRevision{s.Metadata.UID, c.placement.revision}
			} else if j := after.jobs[c.replica.ServiceKey()]; j != nil {
				g.revisions[c.replica] = ofRevision{j.Metadata.UID, c.placement.revision}
			}
			g.placedByVolume(after, c.replica, *c.placement)
			g.placedWell(l, after, c.replica, *c.placement)
			g.held(l, after, c.replica, *c.placement)
			g.oncePerNode(after, c.replica, *c.placement)
		case c.placement != nil && c.placement.stopping && !old.stopping:
			touched[c.replica.ServiceKey()] = true
			g.stopsRightly(l, after, c.replica, *c.placement)
			g.stopsUnheard(l, after, c.replica, *c.placement)
		}
	}
	for _, key := range g.pic.sortedServices() {
		if touched[key] {
			g.staysAvailable(l, after, key)
		}
	}
}

// placedWell: I3. The node has room for everything on it, and may take it.
func (g *ledger) placedWell(l *lead, after picture, k api.ReplicaKey, p placement) {
	h := g.w.host(p.node)
	sum, ports := api.ResourceList{}, map[api.HostPort]api.ReplicaKey{}
	for _, other := range after.sortedPlacements() {
		o := after.placements[other]
		if o.node != p.node {
			continue
		}
		r := after.revisions[revisionKey{other.ServiceKey(), o.revision}]
		if r == nil {
			continue
		}
		for name, q := range r.requests {
			sum[name] += q
		}
		for _, port := range r.ports {
			if taken, ok := ports[port]; ok {
				g.w.violate("I3", "%s and %s are both placed on %s with host port %s", taken, other, p.node, port)
			}
			ports[port] = other
		}
	}
	for _, name := range []string{api.CPU, api.Memory} {
		if sum[name] > h.capacity[name] {
			g.w.violate("I3", "%s is placed on %s: %s of %s %s are requested there", k, p.node, sum[name], h.capacity[name], name)
		}
	}
	if r := after.revisions[revisionKey{k.ServiceKey(), p.revision}]; r != nil && r.addresses > 0 {
		taken := 0
		for other, o := range after.placements {
			if x := after.revisions[revisionKey{other.ServiceKey(), o.revision}]; x != nil && o.node == p.node {
				taken += x.addresses
			}
		}
		if n := after.nodes[p.node]; n != nil && n.Status.Subnet == "" {
			g.w.violate("I3", "%s is placed on %s, which has no subnet", k, p.node)
		} else if taken > 1<<(32-g.cluster.NodeBits)-notReplicas {
			g.w.violate("I3", "%s is placed on %s: %d addresses of its subnet are wanted there", k, p.node, taken)
		}
	}
	if since := l.know.unfit[p.node]; since != 0 && since <= l.openSince {
		g.w.violate("I3", "%s is placed on %s, which is %s", k, p.node, l.know.verdict[p.node])
	}
	g.slotIsFree(after, k, p)
	if p.spare && !p.stopping {
		g.hasRoom(l, after, k)
	}
	before, now := g.pic.nodes[p.node], after.nodes[p.node]
	if before != nil && now != nil && before.Spec.Unschedulable && now.Spec.Unschedulable {
		g.w.violate("I3", "%s is placed on %s, which is cordoned", k, p.node)
	}
	if r := after.revisions[revisionKey{k.ServiceKey(), p.revision}]; r != nil {
		if !h.takes(r.template) {
			g.w.violate("I3", "%s wants %v, but is placed on %s", k, r.template.NodeSelector, p.node)
		}
	}
}

// released: a placement's record goes. Either nothing of it is left, or the life
// of its node is over.
func (g *ledger) released(l *lead, after picture, k api.ReplicaKey, p placement) {
	n := after.nodes[p.node]
	void := n == nil || n.Status.BootID != p.boot || n.Status.Verdict == api.VerdictDead || l.know.dead[p.node]
	if void {
		return
	}
	if !p.stopping {
		g.w.violate("I5", "the placement of %s goes, though %s lives on and it was not told to stop", k, p.node)
	}
	h := g.w.host(p.node)
	for _, c := range h.runtime.sorted() {
		if c.Replica == k && c.Running && h.bootID() == p.boot {
			g.w.violate("I3", "the room of %s on %s is given away while %s still runs", k, p.node, c.ID)
		}
	}
}

// hasLeft tells whether a leased replica has stopped already, for want of a
// lease: its leader may know so by the clock alone.
func (g *ledger) hasLeft(k api.ReplicaKey) bool {
	t := g.templates[k]
	return t != nil && t.Leased() && !slices.ContainsFunc(g.w.tenants.byName[slotOf(k)], func(x tenant) bool {
		return x.c.Replica == k && x.c.Running && !x.h.frozen
	})
}

// staysAvailable: I4. What the leader stops never takes a service below its
// floor, by what it knew at some event since the batch was begun.
func (g *ledger) staysAvailable(l *lead, after picture, key api.Key) {
	s := after.services[key]
	if s == nil || !s.Metadata.DeletedAt.IsZero() {
		return
	}
	events, broken := l.eventsOf(g.pic.of(key)), ""
	// What was not ready at some event, or not alone in its slot, may have been
	// stopped then, at no cost.
	cost, before := g.pic, g.pic
	cost.placements, before.placements = maps.Clone(g.pic.placements), maps.Clone(g.pic.placements)
	for _, k := range g.pic.of(key) {
		p := g.pic.placements[k]
		free := func(e uint64) bool {
			return !l.know.counts(l, after, k, p, e) || slices.ContainsFunc(g.pic.of(key), func(o api.ReplicaKey) bool {
				if _, still := after.placements[o]; !still { // its node's life ended since
					return o != k && seat(s, o, g.pic.placements[o]) == seat(s, k, p) && l.know.counts(l, g.pic, o, g.pic.placements[o], e)
				}
				return o != k && seat(s, o, after.placements[o]) == seat(s, k, p) && l.know.counts(l, after, o, after.placements[o], e)
			})
		}
		if g.hasLeft(k) || !g.wants(after, k, p) || s.Spec.Mode == api.ModeGlobal && g.drainedBetween(l, p.node) { // what is not wanted any more goes at no cost
			continue
		}
		if after.placements[k].stopping && !slices.ContainsFunc(events, free) {
			p.stopping = true
			cost.placements[k] = p
			// Clocks differ: what was hardly ready for long enough may not have counted. Then
			// its stop took nothing; but nor is it there for the floor when others stop.
			if !l.know.ripe(l, after, k, p) {
				before.placements[k] = p
			}
		}
	}
	// What the batch began with may have been what it was decided by; or the spec that it
	// brings, before a word on a node that it brings too.
	between := after
	between.nodes, between.placements = g.pic.nodes, g.pic.placements
	for _, pic := range []picture{g.pic, after, between} {
		s := pic.services[key]
		if s == nil {
			continue
		}
		floor := func(event uint64) int {
			n := g.seats(l, pic, key, event)
			least := n - s.Spec.Unavailable(n)
			if g.exclusive(key) || g.seated(pic, key) {
				least = min(least, n-1) // there is no surge, whatever the newest revision says
			}
			return least
		}
		count := func(p picture, event uint64) int {
			seats := map[string]bool{}
			for _, k := range p.of(key) {
				if g.wants(pic, k, p.placements[k]) && l.know.counts(l, after, k, p.placements[k], event) {
					seats[seat(s, k, p.placements[k])] = true
				}
			}
			return len(seats)
		}
		for _, event := range events {
			if now := count(cost, event); now >= floor(event) || now >= count(before, event) {
				return
			}
		}
		broken = fmt.Sprintf("from %d to %d ready slots, at least %d must stay", count(before, l.openSince), count(cost, l.openSince), floor(l.openSince))
	}
	for _, k := range cost.of(key) {
		if cost.placements[k].stopping && !g.pic.placements[k].stopping {
			broken += fmt.Sprintf("; %s on %s of revision %d is to stop", k, cost.placements[k].node, cost.placements[k].revision)
		}
	}
	g.w.violate("I4", "service %s: the leader's own actions take it %s", key, broken)
}
