package wire

import (
	"fmt"
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
	// Images are the digests that the template's references mean, by reference; one
	// that is missing means what the node finds.
	Images map[string]string
	// Labels are the service's, for variables that are taken from them.
	Labels map[string]string
	// Configs are the versions of the Configs and Secrets that the template takes values of.
	Configs map[api.ConfigRef]int64
	// Stopping asks for an ordered stop with the template's grace.
	Stopping bool
	Spare    bool
	// Job: it is a try of a job, which comes to its end by itself: its images' HEALTHCHECKs
	// are not asked. omitempty: what agents keep of services is as it was.
	Job bool `json:",omitempty"`
	// Logins are the newest versions of the template's PullSecrets: their values come with
	// the set's Configs. A new one changes no replica that runs.
	Logins map[api.ConfigRef]int64 `json:",omitempty"`
	// Trace is a W3C traceparent: what is done for the replica belongs to that trace. Empty:
	// none. It is no part of what the replica is, and not kept.
	Trace string `json:"-"`
}

// MessageMax is the largest message that an agent takes from a controller, in bytes: a
// complete set of a node's assignments with the Configs and Secrets that they take values
// of. ConfigsMax is how much of it their values may be; each has api.MaxConfigBytes at
// most.
const MessageMax, ConfigsMax = 64 << 20, 48 << 20

// ConfigKey names one version of a Config or Secret.
type ConfigKey struct {
	Namespace string
	Ref       api.ConfigRef
	Version   int64
}

// Of gives the object that it is a version of.
func (k ConfigKey) Of() api.Ref {
	return api.Ref{Kind: k.Ref.Kind(), Key: api.Key{Namespace: k.Namespace, Name: k.Ref.Name()}}
}

// String gives "secret default/db version 3".
func (k ConfigKey) String() string { return fmt.Sprintf("%s version %d", k.Of(), k.Version) }

// ConfigVersion is one version of a Config or Secret on its way to a node.
type ConfigVersion struct {
	ConfigKey
	// Payload is what the store holds of it, sealed where it is a Secret: the leader's
	// core knows no more. The session opens it into Values.
	Payload []byte
	// Values by key.
	Values map[string][]byte
}

// GoString is String, which is ConfigKey's: whatever prints a version prints no values.
func (v ConfigVersion) GoString() string { return v.String() }

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
	// Configs are all versions that the assignments in Put take values of, sorted.
	Configs []ConfigVersion
	// RemoveVolumes are to be deleted with what is in them; told again with each complete
	// set until the agent says that they are gone.
	RemoveVolumes []api.VolumeKey
	// RemoveOrphans: an operator wants to be rid of containers of other incarnations. Told
	// once.
	RemoveOrphans bool
}

// Endpoint is a ready replica as other nodes need to know it.
type Endpoint struct {
	Replica api.ReplicaKey
	Node    string
	// IP is the replica's, NodeIP its node's: where ports in mode host are.
	IP, NodeIP string
	Ports      []api.Port
	// Degraded: its node cannot be reached, but the service has nothing better.
	Degraded bool
}

// Service is what agents need to know of a service to lead traffic to it.
type Service struct {
	Key api.Key
	// VIP is empty for a headless service.
	VIP                 string
	SessionAffinity     api.SessionAffinity
	TrafficDistribution api.TrafficDistribution
	// Ports of its newest revision: what is refused where no endpoint has them.
	Ports []api.Port
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
	// Services are put and dropped like endpoints; none is ever kept.
	Services     []Service
	DropServices []api.Key
}

// RouteMode says how packets for replicas get from node to node.
type RouteMode string

// The route modes.
const (
	// RoutesAuto uses a direct route to each node on the same layer-2 segment, and
	// VXLAN to all others.
	RoutesAuto RouteMode = "auto"
	// RoutesDirect sends to the node's own address, unwrapped; the segment, or who
	// routes between segments, must let replicas' addresses pass.
	RoutesDirect RouteMode = "direct"
	// RoutesVXLAN wraps everything.
	RoutesVXLAN RouteMode = "vxlan"
)

// Peer is another node in the replicas' network.
type Peer struct {
	Node string
	// Address is the node's own.
	Address string
	// Subnet holds its replicas.
	Subnet string
}

// NetworkSet tells an agent where its node stands in the replicas' network: first
// with a complete set, then with increments, which change Peers alone.
type NetworkSet struct {
	Complete bool
	// Cluster holds all nodes' subnets, Services all virtual IPs.
	Cluster, Services string
	// Subnet is the node's own share of Cluster; empty: it has none, and Why says why.
	Subnet, Why string
	Routes      RouteMode
	Put         []Peer
	Drop        []string // nodes
}

// Report is what an agent says of one replica.
type Report struct {
	Key      api.ReplicaKey
	Revision int64
	Status   api.ReplicaStatus
	// Images are the digests that the node found for references which the assignment has
	// none for.
	Images map[string]string
}

// StatusReport is what an agent says of its node: all of it, or what changed.
type StatusReport struct {
	// Complete: these are all replicas of this incarnation on the node.
	Complete bool
	Replicas []Report
	// Gone: nothing of them is left on the node.
	Gone []api.ReplicaKey
	// VolumesGone were to be removed, and are.
	VolumesGone []api.VolumeKey
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

// SelfCheck is what an agent knows of its own node's health; it goes with beats.
type SelfCheck struct {
	// Age of the last good check: a round trip to containerd and an fsync.
	Age time.Duration
	// Failing says what is wrong with the latest check; empty: nothing.
	Failing string
	// IOPressure and MemoryPressure are the shares of the last ten seconds, from 0
	// to 1, in which every task waited (the kernel's PSI, full avg10); 0 where the
	// kernel does not tell.
	IOPressure, MemoryPressure float64
}

// Renewal asks for leases, one for each replica that runs only under one. The
// agent counts them from when it sent this.
type Renewal struct {
	// ID is the agent's, to know the answer by.
	ID   uint64
	Keys []api.ReplicaKey
}

// Grant answers a Renewal. What it does not name was refused: the replica is to
// stop when the lease that it has ends.
type Grant struct {
	ID     uint64
	Leases []Lease
}

// Lease allows a replica to run for so long, counted from when the renewal was sent.
type Lease struct {
	Key api.ReplicaKey
	For time.Duration
}
