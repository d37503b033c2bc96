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
	for _, a := range set.Put {
		c.fillings[a.Key].sent = n.sequence
	}
	c.emit(SendAssignments{Node: name, Session: n.session, Set: set})
}

// endpoints is who gets traffic, and what changed of it since it was last sent.
type endpoints struct {
	version uint64
	live    map[api.ReplicaKey]wire.Endpoint
	changed map[api.ReplicaKey]bool
	// kept were left to agents as they know them, for their nodes had not
	// reported to this leader: they are changed as soon as anything is known.
	kept map[api.ReplicaKey]bool
}

func newEndpoints() endpoints {
	return endpoints{live: map[api.ReplicaKey]wire.Endpoint{}, changed: map[api.ReplicaKey]bool{}, kept: map[api.ReplicaKey]bool{}}
}

func (e *endpoints) withdraw(k api.ReplicaKey) {
	if _, ok := e.live[k]; ok || e.kept[k] {
		delete(e.live, k)
		delete(e.kept, k)
		e.changed[k] = true
	}
}

func (e *endpoints) put(want wire.Endpoint) {
	have, ok := e.live[want.Replica]
	if ok && have.IP == want.IP && have.NodeIP == want.NodeIP {
		return
	}
	delete(e.kept, want.Replica)
	e.live[want.Replica] = want
	e.changed[want.Replica] = true
}

// settleEndpoint puts a filling among the endpoints or takes it out, by what is
// known now. While its node has not reported in this session, what was known of
// it stays: unknown is not absent.
func (c *Core) settleEndpoint(f *filling) {
	n := c.nodes[f.node]
	switch {
	case n == nil || f.void || f.stopping || n.verdict == api.VerdictSuspect || n.verdict == api.VerdictDead:
		c.ends.withdraw(f.key)
	case !f.reported:
	case !f.status.Ready:
		c.ends.withdraw(f.key)
	default:
		c.ends.put(wire.Endpoint{Replica: f.key, Node: f.node, IP: f.status.IP, NodeIP: n.obj.Status.Address, Ports: f.ports})
	}
}

// sendEndpoints tells agents what changed, and new sessions everything.
func (c *Core) sendEndpoints() {
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
	var all wire.EndpointSet // made once, shared by all sessions that are new
	if len(c.fresh) > 0 {
		all = c.allEndpoints()
	}
	for _, n := range c.sortedSessions() {
		switch {
		case c.fresh[n.name]:
			c.emit(SendEndpoints{Node: n.name, Session: n.session, Set: all})
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
	for _, n := range c.sortedNodes() {
		if n.verdict == api.VerdictSuspect || n.verdict == api.VerdictDead {
			continue
		}
		for _, f := range n.sortedFillings() {
			if _, live := c.ends.live[f.key]; !live && !f.reported && !f.void && !f.stopping {
				c.ends.kept[f.key] = true
				set.Keep = append(set.Keep, f.key)
			}
		}
	}
	return set
}

func (c *Core) sortedSessions() []*node {
	return slices.DeleteFunc(c.sortedNodes(), func(n *node) bool { return n.session == 0 })
}
