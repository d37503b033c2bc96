package wire

import (
	"time"

	"github.com/orchctl/orch/api"
)

// Assignment is one replica that a node is to run, or to stop.
type Assignment struct {
	Key        api.ReplicaKey
	ServiceUID string
	Revision   int64
	// Template is the revision's; both sides treat it as read-only.
	Template *api.Template
	// Stopping asks for an ordered stop with the template's grace.
	Stopping bool
	Spare    bool
}

// AssignmentSet is what a session sends down: first a complete set, then increments.
type AssignmentSet struct {
	Complete bool
	// StoreRevision at which the set holds; an agent prunes only on a complete
	// set whose revision is not below the last that it kept.
	StoreRevision int64
	// Sequence rises by one with each set of a session, from 1.
	Sequence uint64
	Put      []Assignment
	// Drop names replicas without a placement: whatever is left of them goes.
	Drop []api.ReplicaKey
}

// Endpoint is a ready replica as other nodes need to know it.
type Endpoint struct {
	Replica api.ReplicaKey
	Node    string
	// IP is the replica's, NodeIP its node's: where ports in mode host are.
	IP, NodeIP string
	Ports      []api.Port
}

// EndpointSet tells agents who gets traffic.
type EndpointSet struct {
	Complete bool
	// Version rises with each change over a term.
	Version uint64
	Put     []Endpoint
	Drop    []api.ReplicaKey
	// Keep, in a complete set: what the agent knows of these stays, for their
	// node has not reported to this leader yet.
	Keep []api.ReplicaKey
}

// Report is what an agent says of one replica.
type Report struct {
	Key      api.ReplicaKey
	Revision int64
	Status   api.ReplicaStatus
}

// StatusReport is what an agent says of its node: all of it, or what changed.
type StatusReport struct {
	// Complete: these are all replicas of this incarnation on the node.
	Complete bool
	Replicas []Report
	// Gone: nothing of them is left on the node.
	Gone []api.ReplicaKey
	// Taken is the sequence of the last assignment set that the agent had taken
	// up: absence says nothing of what was sent later.
	Taken uint64
	// Orphans are containers of another incarnation, left alone. Told with
	// complete reports only.
	Orphans []string
}

// Hello opens a session.
type Hello struct {
	BootID   string
	Address  string
	Labels   map[string]string
	Capacity api.ResourceList
	Version  string
	OS       string
	Kernel   string
	Runtime  string
	// StoreRevision of the last complete set that the agent kept, 0 if none.
	StoreRevision int64
}

// Ask wants an observer to look at a target.
type Ask struct {
	ID      uint64
	Target  string
	Address string
	// Ports of replicas on the target, as "ip:port".
	Ports   []string
	Timeout time.Duration
}
