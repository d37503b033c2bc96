package core

import (
	"maps"
	"slices"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

func (c *Core) assignment(f *filling) wire.Assignment {
	s := c.services[f.key.ServiceKey()]
	r := s.revisions[f.revision]
	return wire.Assignment{Key: f.key, ServiceUID: f.serviceUID, Revision: f.revision, Template: &r.Template, Images: r.Images, Configs: r.Configs, Labels: s.obj.Metadata.Labels, Stopping: f.stopping && !f.handing, Spare: f.spare, Job: f.job,
		Logins: c.loginsOf(f.key.Namespace, &r.Template), Trace: c.traceTold(f)}
}

func (c *Core) assignmentOf(f *filling) wire.AssignmentSet {
	return wire.AssignmentSet{Put: []wire.Assignment{c.assignment(f)}}
}

func (c *Core) assignmentsOf(n *node) []wire.Assignment {
	var out []wire.Assignment
	for _, f := range n.sortedFillings() {
		if !f.void {
			out = append(out, c.assignment(f))
		}
	}
	return out
}

func dropOf(k api.ReplicaKey) wire.AssignmentSet {
	return wire.AssignmentSet{Drop: []api.ReplicaKey{k}}
}

// sendToNode queues a set for the node's session; without one, the next session's
// complete set tells it.
func (c *Core) sendToNode(name string, set wire.AssignmentSet) {
	n := c.nodes[name]
	if n == nil || n.session == 0 {
		return
	}
	n.sequence++
	set.Sequence = n.sequence
	set.Configs = c.configsFor(set.Put)
	for _, a := range set.Put {
		c.fillings[a.Key].sent = n.sequence
	}
	c.emit(SendAssignments{Node: name, Session: n.session, Set: set})
}

// endpoints is who gets traffic, and what changed of it since it was last sent.
type endpoints struct {
	version uint64 // begins at 1: no agent has acknowledged anything at 0
	live    map[api.ReplicaKey]wire.Endpoint
	changed map[api.ReplicaKey]bool
	// kept were left to agents as they know them, for their nodes had not
	// reported to this leader: they are changed as soon as anything is known.
	kept map[api.ReplicaKey]bool
	// services are what agents know of them.
	services        map[api.Key]wire.Service
	changedServices map[api.Key]bool
	// unsettled are services of whose replicas something changed.
	unsettled map[api.Key]bool
}

func newEndpoints() endpoints {
	return endpoints{version: 1, live: map[api.ReplicaKey]wire.Endpoint{}, changed: map[api.ReplicaKey]bool{}, kept: map[api.ReplicaKey]bool{},
		services: map[api.Key]wire.Service{}, changedServices: map[api.Key]bool{}, unsettled: map[api.Key]bool{}}
}

// withdraw tells whether there was anything to withdraw.
func (e *endpoints) withdraw(k api.ReplicaKey) bool {
	_, live := e.live[k]
	if !live && !e.kept[k] {
		return false
	}
	delete(e.live, k)
	delete(e.kept, k)
	e.changed[k] = true
	return true
}

// put tells whether anything changed.
func (e *endpoints) put(want wire.Endpoint) bool {
	have, ok := e.live[want.Replica]
	if ok && have.IP == want.IP && have.NodeIP == want.NodeIP && have.Degraded == want.Degraded {
		return false
	}
	delete(e.kept, want.Replica)
	e.live[want.Replica] = want
	e.changed[want.Replica] = true
	return true
}

func (e *endpoints) putService(want wire.Service) {
	if have, ok := e.services[want.Key]; !ok || !sameService(have, want) {
		e.services[want.Key] = want
		e.changedServices[want.Key] = true
	}
}

func sameService(a, b wire.Service) bool {
	return a.VIP == b.VIP && a.SessionAffinity == b.SessionAffinity && a.TrafficDistribution == b.TrafficDistribution && slices.Equal(a.Ports, b.Ports)
}

func (e *endpoints) dropService(k api.Key) {
	if _, ok := e.services[k]; ok {
		delete(e.services, k)
		e.changedServices[k] = true
	}
}

// unsettle has the service's endpoints looked at before they are next sent.
func (c *Core) unsettle(s api.Key) { c.ends.unsettled[s] = true }

// settleEndpoints brings the endpoints of services in line with what is known of
// their replicas now.
func (c *Core) settleEndpoints() {
	for _, key := range slices.SortedFunc(maps.Keys(c.ends.unsettled), compareKeys) {
		if s := c.services[key]; s != nil {
			c.settleService(s)
		}
	}
	clear(c.ends.unsettled)
}

// standing is what a filling is to its service's endpoints.
type standing int

const (
	out       standing = iota
	live               // it is ready
	kept               // its node has not reported to this leader: agents keep what they know
	lastKnown          // it was ready, and cannot be reached
	lastKept           // agents may know it, and it cannot be reached
)

// standingOf is a pure function of what is known. Unknown is not absent: what is
// on a node that has not reported (in this session, to this leader) stays.
func (c *Core) standingOf(f *filling) standing {
	v := c.verdictOf(f)
	switch {
	case f.job || f.void || f.stopping || v == api.VerdictDead || c.spent(f):
		return out
	case f.loaded && v != api.VerdictSuspect:
		return kept
	case f.loaded && !f.exclusive:
		return lastKept
	case f.loaded || !f.status.Ready:
		return out
	case v != api.VerdictSuspect && !c.unsure(f):
		return live
	case f.exclusive: // its lease ends, and with it its container
		return out
	}
	return lastKnown
}

// unsure tells whether a filling may be gone though its host answers: the node was
// suspect, and its agent has not spoken since.
func (c *Core) unsure(f *filling) bool {
	return f.doubted && (!f.reported || c.verdictOf(f) == api.VerdictAgentLost)
}

// keeps tells whether agents keep what they know of a filling.
func (c *Core) keeps(f *filling) bool {
	x := c.standingOf(f)
	return x == kept || x == lastKept && c.services[f.key.ServiceKey()].bare
}

// settleService gives traffic to what is ready. If nothing is, what was ready when
// last heard of keeps it, degraded: it may well answer, and no endpoint surely
// does not. It costs the service's replicas.
func (c *Core) settleService(s *service) {
	bare := s.bare
	s.bare = !slices.ContainsFunc(s.fillings, func(f *filling) bool {
		x := c.standingOf(f)
		return x == live || x == kept
	})
	for _, f := range s.fillings {
		if s.bare != bare { // users see which are kept
			c.view.touchFilling(f)
		}
		switch x := c.standingOf(f); {
		case x == kept || x == lastKept && s.bare:
		case x == live || x == lastKnown && s.bare:
			c.give(s, f, x == lastKnown)
		default:
			if c.withdraw(f); f.loaded { // nobody may have asked for it yet
				c.view.touchFilling(f)
			}
		}
	}
}

// give puts a filling among the endpoints.
func (c *Core) give(s *service, f *filling, degraded bool) {
	n := c.nodes[f.node]
	before := c.ends.live[f.key].Degraded
	if c.ends.put(wire.Endpoint{Replica: f.key, Node: f.node, IP: f.status.IP, NodeIP: n.obj.Status.Address, Ports: f.ports, Degraded: degraded}) {
		c.view.touchFilling(f)
	}
	if degraded != before {
		c.view.touch(s)
	}
	if degraded && !before {
		c.did(f.node, func(d *api.Done) { d.EndpointsDegraded++ })
	}
}

// withdraw takes a filling out of the endpoints.
func (c *Core) withdraw(f *filling) {
	degraded := c.ends.live[f.key].Degraded
	if !c.ends.withdraw(f.key) {
		return
	}
	c.withdrawn(f)
	c.view.touchFilling(f)
	if v := c.verdictOf(f); v != api.VerdictSuspect && v != api.VerdictDead {
		return
	}
	c.did(f.node, func(d *api.Done) {
		d.EndpointsWithdrawn++
		if degraded && d.EndpointsDegraded > 0 {
			d.EndpointsDegraded--
		}
	})
}

// sendEndpoints tells agents what changed, and new sessions everything.
func (c *Core) sendEndpoints() {
	changed := len(c.ends.changed)+len(c.ends.changedServices) > 0
	if !changed && len(c.fresh) == 0 {
		return
	}
	keys := slices.SortedFunc(maps.Keys(c.ends.changed), compareReplicas)
	if changed {
		c.ends.version++
	}
	delta := wire.EndpointSet{Version: c.ends.version}
	for _, k := range keys {
		if e, ok := c.ends.live[k]; ok {
			delta.Put = append(delta.Put, e)
		} else {
			delta.Drop = append(delta.Drop, k)
		}
	}
	for _, k := range sortedKeys(c.ends.changedServices) {
		if s, ok := c.ends.services[k]; ok {
			delta.Services = append(delta.Services, s)
		} else {
			delta.DropServices = append(delta.DropServices, k)
		}
	}
	clear(c.ends.changed)
	clear(c.ends.changedServices)
	var all wire.EndpointSet // made once, shared by all sessions that are new
	if len(c.fresh) > 0 {
		all = c.allEndpoints()
	}
	for _, n := range c.sortedSessions() {
		switch {
		case c.fresh[n.name]:
			c.emit(SendEndpoints{Node: n.name, Session: n.session, Set: all})
		case changed:
			c.emit(SendEndpoints{Node: n.name, Session: n.session, Set: delta})
		}
	}
	clear(c.fresh)
}

func (c *Core) allEndpoints() wire.EndpointSet {
	set := wire.EndpointSet{Complete: true, Version: c.ends.version}
	for _, k := range slices.SortedFunc(maps.Keys(c.ends.live), compareReplicas) {
		set.Put = append(set.Put, c.ends.live[k])
	}
	for _, k := range slices.SortedFunc(maps.Keys(c.ends.services), compareKeys) {
		set.Services = append(set.Services, c.ends.services[k])
	}
	for k, f := range c.fillings {
		if f.loaded && c.keeps(f) { // what was heard of is never kept
			c.ends.kept[k] = true
			set.Keep = append(set.Keep, k)
		}
	}
	slices.SortFunc(set.Keep, compareReplicas)
	return set
}

func (c *Core) sortedSessions() []*node {
	var out []*node
	for _, n := range c.sortedNodes() {
		if n.session != 0 {
			out = append(out, n)
		}
	}
	return out
}
