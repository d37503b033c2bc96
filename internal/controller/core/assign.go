package core

import (
	"maps"
	"slices"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

func (c *Core) assignment(f *filling) wire.Assignment {
	r := c.services[f.key.ServiceKey()].revisions[f.revision]
	return wire.Assignment{Key: f.key, ServiceUID: f.serviceUID, Revision: f.revision, Template: &r.Template, Stopping: f.stopping, Spare: f.spare}
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
	c.emit(SendAssignments{Node: name, Session: n.session, Set: set})
}

// endpoints is who gets traffic, and what changed of it since it was last sent.
type endpoints struct {
	version uint64
	live    map[api.ReplicaKey]wire.Endpoint
	changed map[api.ReplicaKey]bool
}

func newEndpoints() endpoints {
	return endpoints{live: map[api.ReplicaKey]wire.Endpoint{}, changed: map[api.ReplicaKey]bool{}}
}

func (e *endpoints) withdraw(k api.ReplicaKey) {
	if _, ok := e.live[k]; ok {
		delete(e.live, k)
		e.changed[k] = true
	}
}

// settleEndpoint puts a filling among the endpoints or takes it out, by what is
// known now.
func (c *Core) settleEndpoint(f *filling) {
	n := c.nodes[f.node]
	if n == nil || f.void || f.stopping || !f.reported || !f.status.Ready || n.verdict == api.VerdictSuspect || n.verdict == api.VerdictDead {
		c.ends.withdraw(f.key)
		return
	}
	want := wire.Endpoint{Replica: f.key, Node: f.node, IP: f.status.IP, NodeIP: n.obj.Status.Address, Ports: f.ports}
	if have, ok := c.ends.live[f.key]; ok && have.IP == want.IP && have.NodeIP == want.NodeIP {
		return
	}
	c.ends.live[f.key] = want
	c.ends.changed[f.key] = true
}

// sendEndpoints tells agents what changed. Until every node that holds replicas
// was heard or given a verdict in this term, agents keep the set that they have:
// an empty one would take traffic from replicas that are well.
func (c *Core) sendEndpoints() {
	if !c.settled() {
		return
	}
	if len(c.ends.changed) == 0 && len(c.fresh) == 0 {
		return
	}
	keys := slices.SortedFunc(maps.Keys(c.ends.changed), compareReplicas)
	if len(keys) > 0 {
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
	clear(c.ends.changed)
	for _, n := range c.sortedSessions() {
		switch {
		case c.fresh[n.name]:
			c.emit(SendEndpoints{Node: n.name, Session: n.session, Set: c.allEndpoints()})
		case len(keys) > 0:
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
	return set
}

// settled tells whether the picture of this term is whole. It stays so.
func (c *Core) settled() bool {
	if c.whole {
		return true
	}
	for _, n := range c.nodes {
		if len(n.fillings) > 0 && (n.verdict == api.VerdictUnknown || n.session != 0 && !n.reported) {
			return false
		}
	}
	c.whole = true
	return true
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
