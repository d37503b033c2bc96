package api

import (
	"fmt"
	"strings"
	"time"
)

// Node is a server with an agent.
type Node struct {
	TypeMeta `json:",inline"`
	Metadata Metadata   `json:"metadata"`
	Spec     NodeSpec   `json:"spec,omitzero"`
	Status   NodeStatus `json:"status,omitzero"`
}

// NodeSpec is what an operator decides about a node.
type NodeSpec struct {
	// Unschedulable nodes get no new replicas.
	Unschedulable bool `json:"unschedulable,omitempty"`
	// Drain is set while the node is being emptied, and after it was, until it is
	// uncordoned; nil otherwise. A node with it is Unschedulable.
	Drain *Drain `json:"drain,omitempty"`
}

// Drain is an operator's wish that nothing runs on a node.
type Drain struct {
	By    string    `json:"by,omitempty"`
	Since time.Time `json:"since"`
	// Deadline is when what is left is stopped although nothing has taken its
	// place, as far as each service's floor allows; zero means never.
	Deadline time.Time `json:"deadline,omitzero"`
	// Overdue is set once the deadline has passed and something was left.
	Overdue bool `json:"overdue,omitempty"`
	// Done is when nothing ran there any more; zero: something does.
	Done time.Time `json:"done,omitzero"`
}

// NodeStatus is what is known of a node.
type NodeStatus struct {
	Verdict Verdict `json:"verdict,omitempty"`
	// VerdictWhy says in words what the verdict rests on.
	VerdictWhy   string    `json:"verdictWhy,omitempty"`
	VerdictSince time.Time `json:"verdictSince,omitzero"`
	// Address is the node's own IP, Capacity what replicas may use of it.
	Address string `json:"address,omitempty"`
	// Subnet holds the addresses of its replicas, as "10.64.3.0/24". Empty: it has
	// none, and NetworkWhy says why.
	Subnet     string       `json:"subnet,omitempty"`
	NetworkWhy string       `json:"networkWhy,omitempty"`
	Capacity   ResourceList `json:"capacity,omitempty"`
	// Impaired says in words why a node that beats cannot work; empty: it can.
	Impaired      string    `json:"impaired,omitempty"`
	ImpairedSince time.Time `json:"impairedSince,omitzero"`
	// DampedUntil is set while the node, which went and came back too often, gets
	// no new replicas.
	DampedUntil time.Time `json:"dampedUntil,omitzero"`
	// Requested is the sum of requests placed there.
	Requested ResourceList `json:"requested,omitempty"`
	BootID    string       `json:"bootID,omitempty"`
	Version   string       `json:"version,omitempty"`
	OS        string       `json:"os,omitempty"`
	Kernel    string       `json:"kernel,omitempty"`
	Runtime   string       `json:"runtime,omitempty"`
	Replicas  int          `json:"replicas"`
	// DrainWaits says in words what keeps replicas there while the node is being
	// drained, a line for each ("web-1 waits: 3 nodes: 3 unschedulable"); bounded.
	DrainWaits []string `json:"drainWaits,omitempty"`
	// Orphans are containers of ours that belong to another incarnation.
	Orphans []string `json:"orphans,omitempty"`
}

// Verdict is what the leader holds of a node's life.
type Verdict string

// The verdicts; see the liveness package for when each is given.
const (
	VerdictUnknown   Verdict = "Unknown" // not yet heard of in this term
	VerdictHealthy   Verdict = "Healthy"
	VerdictAgentLost Verdict = "AgentLost"
	VerdictSuspect   Verdict = "Suspect"
	VerdictDead      Verdict = "Dead"
	VerdictBack      Verdict = "Back"
)

// VerdictRecord is one change of what the leader holds of a node, kept with its
// evidence and with what followed.
type VerdictRecord struct {
	// Seq orders records; it rises over the cluster's life.
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"`
	Node string    `json:"node"`
	// From and To are verdicts, or both empty where something beside the verdict
	// changed; What says what: "Impaired", "Works", "Damped", "Undamped".
	From Verdict `json:"from,omitempty"`
	To   Verdict `json:"to,omitempty"`
	What string  `json:"what,omitempty"`
	// Why in a sentence; By names whose word it rests on: observers ("n1",
	// "leader"), "operator alice", or "agent" for what the node itself said.
	Why string   `json:"why"`
	By  []string `json:"by,omitempty"`
	// Evidence has a line for the silence and one per observer.
	Evidence []string `json:"evidence,omitempty"`
	// Done is what orch did about it, by kind.
	Done Done `json:"done,omitzero"`
}

// Done counts what orch did because of a verdict. All zero: nothing (yet).
type Done struct {
	// EndpointsWithdrawn lost their traffic; EndpointsDegraded kept it, as the
	// last known ones of their services.
	EndpointsWithdrawn int `json:"endpointsWithdrawn,omitempty"`
	EndpointsDegraded  int `json:"endpointsDegraded,omitempty"`
	// SparesPlaced, and how many still wait for a budget or a node.
	SparesPlaced  int `json:"sparesPlaced,omitempty"`
	SparesWaiting int `json:"sparesWaiting,omitempty"`
	// Relieved replicas were started elsewhere and then stopped here.
	Relieved int `json:"relieved,omitempty"`
	// SparesRemoved because the incumbent was back; IncumbentsRemoved because
	// the spare had taken its place; Voided with the node's life.
	SparesRemoved     int `json:"sparesRemoved,omitempty"`
	IncumbentsRemoved int `json:"incumbentsRemoved,omitempty"`
	Voided            int `json:"voided,omitempty"`
}

// FleetName is the name of the one Fleet.
const FleetName = "fleet"

// Fleet is what the leader holds of the fleet as a whole. There is one.
type Fleet struct {
	TypeMeta `json:",inline"`
	Metadata Metadata    `json:"metadata"`
	Status   FleetStatus `json:"status"`
}

// FleetStatus is soft: it is made anew by each leader.
type FleetStatus struct {
	// Nodes by verdict.
	Nodes map[Verdict]int `json:"nodes,omitempty"`
	// Impaired nodes beat but cannot work, Damped ones came and went too often,
	// Drained ones are being emptied, or were; whatever their verdict.
	Impaired int `json:"impaired,omitempty"`
	Damped   int `json:"damped,omitempty"`
	Drained  int `json:"drained,omitempty"`
	// Frozen: so many nodes vanished at once that none is taken for dead; Why in
	// words, Since when.
	Frozen      bool      `json:"frozen,omitempty"`
	FrozenWhy   string    `json:"frozenWhy,omitempty"`
	FrozenSince time.Time `json:"frozenSince,omitzero"`
	// Spares that stand in now, those that wait for a budget, and replicas that
	// are being relieved now.
	Spares        int `json:"spares"`
	SparesWaiting int `json:"sparesWaiting"`
	Reliefs       int `json:"reliefs"`
}

// ReplicaKey names one filling of one slot.
type ReplicaKey struct {
	Namespace string `json:"namespace"`
	Service   string `json:"service"`
	Slot      int    `json:"slot"`
	// Epoch rises over the whole cluster's life, so no two fillings share one.
	Epoch uint64 `json:"epoch"`
}

// Name gives "web-0": the slot's name, which a move keeps.
func (k ReplicaKey) Name() string { return fmt.Sprintf("%s-%d", k.Service, k.Slot) }

// String gives "default/web-0@17".
func (k ReplicaKey) String() string {
	return fmt.Sprintf("%s/%s-%d@%d", k.Namespace, k.Service, k.Slot, k.Epoch)
}

// ServiceKey returns the key of the replica's service.
func (k ReplicaKey) ServiceKey() Key { return Key{k.Namespace, k.Service} }

// Phase is how far a replica is. It only advances.
type Phase string

// The phases in their order. Stopped and Failed are both ends.
const (
	PhasePending   Phase = "Pending"   // no node yet; Reason says why
	PhaseAssigned  Phase = "Assigned"  // committed to a node, which has not taken it up
	PhasePreparing Phase = "Preparing" // image, network, first start
	PhaseRunning   Phase = "Running"   // every container was started; see Containers
	PhaseStopping  Phase = "Stopping"
	PhaseStopped   Phase = "Stopped" // gone from its node, or all its containers ended well, for good
	PhaseFailed    Phase = "Failed"  // ended, not all of it well, and not to be restarted
)

var phaseRank = map[Phase]int{PhasePending: 1, PhaseAssigned: 2, PhasePreparing: 3, PhaseRunning: 4, PhaseStopping: 5, PhaseStopped: 6, PhaseFailed: 6}

// Before tells whether p comes before q; an unknown phase comes before all.
func (p Phase) Before(q Phase) bool { return phaseRank[p] < phaseRank[q] }

// Ended tells whether nothing of the replica runs any more.
func (p Phase) Ended() bool { return p == PhaseStopped || p == PhaseFailed }

// Replica is the scheduled unit as users see it: one filling of a slot.
type Replica struct {
	TypeMeta `json:",inline"`
	Metadata Metadata      `json:"metadata"`
	Spec     ReplicaSpec   `json:"spec"`
	Status   ReplicaStatus `json:"status"`
}

// ReplicaSpec is the placement: decided by the leader, durable.
type ReplicaSpec struct {
	Service  string `json:"service"`
	Slot     int    `json:"slot"`
	Epoch    uint64 `json:"epoch"`
	Revision int64  `json:"revision"`
	Node     string `json:"node,omitempty"`
	// Spare is set while the slot's incumbent cannot be reached, or is being relieved.
	Spare bool `json:"spare,omitempty"`
	// Job: Service names a job, and Slot is an index of it.
	Job bool `json:"job,omitempty"`
	// Why it was placed or, once it is to stop, why; Chosen is by what its node was, when
	// it was placed: "0 of web here, load 12.3%". Both are clauses in words.
	Why    string `json:"why,omitempty"`
	Chosen string `json:"chosen,omitempty"`
}

// ReplicaStatus is what the node's agent last reported.
type ReplicaStatus struct {
	Phase Phase `json:"phase"`
	// Ready replicas get traffic.
	Ready bool `json:"ready"`
	// Reason is a CamelCase word, Message a sentence; both empty when all is well.
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
	IP      string `json:"ip,omitempty"`
	// Restarts is the sum over containers.
	Restarts   int               `json:"restarts"`
	StartedAt  time.Time         `json:"startedAt,omitzero"`
	Containers []ContainerStatus `json:"containers,omitempty"`
	// LastKnown is set while the node cannot be heard: the rest is what it last said.
	LastKnown bool `json:"lastKnown,omitempty"`
	// Degraded is set where it gets traffic though its node cannot be reached,
	// because its service has nothing better. It is not ready then.
	Degraded bool `json:"degraded,omitempty"`
}

// OwnReason is the replica's Reason where none of its containers has it, such as a
// network that cannot be set up; "" otherwise.
func (s ReplicaStatus) OwnReason() string {
	for _, c := range s.Containers {
		if c.Reason == s.Reason {
			return ""
		}
	}
	return s.Reason
}

// ContainerState is what a container is doing now.
type ContainerState string

// The container states.
const (
	ContainerWaiting ContainerState = "Waiting" // Reason: Pulling, ImageMissing, BackOff, ...
	ContainerRunning ContainerState = "Running"
	ContainerExited  ContainerState = "Exited"
)

// ContainerStatus is one container of a replica.
type ContainerStatus struct {
	Name string `json:"name"`
	// ID is the runtime's id of the container; a restart in place gives a new one.
	ID      string         `json:"id,omitempty"`
	State   ContainerState `json:"state"`
	Reason  string         `json:"reason,omitempty"`
	Message string         `json:"message,omitempty"`
	// Ready is the readiness probe's answer, or State == Running without a probe.
	Ready     bool      `json:"ready"`
	Restarts  int       `json:"restarts"`
	StartedAt time.Time `json:"startedAt,omitzero"`
	ImageID   string    `json:"imageID,omitempty"`
	// LastExit is how the run before this one ended; nil before the first end.
	LastExit *Exit `json:"lastExit,omitempty"`
}

// Exit is how one run of a container ended.
type Exit struct {
	Code int `json:"code"`
	// Signal is the number of the signal that ended it, 0 if none did.
	Signal int `json:"signal,omitempty"`
	// OOM is set when the kernel killed it for want of memory.
	OOM bool `json:"oom,omitempty"`
	// Reason: Completed, Error, Signaled, OutOfMemory, LivenessFailed, Killed, StartFailed.
	Reason     string    `json:"reason"`
	Message    string    `json:"message,omitempty"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	// Output is the last that it wrote, on both streams, at most MaxLastOutput bytes
	// of whole lines; empty: nothing, or it is not known.
	Output string `json:"output,omitempty"`
}

// Words tells how the run ended: "exit code 1", "exit code 137, killed for want of
// memory (limit 64Mi, peak 64Mi)".
func (e Exit) Words() string {
	how := fmt.Sprintf("exit code %d", e.Code)
	switch {
	case e.Message == "":
		return how
	case strings.Contains(e.Message, how):
		return e.Message
	}
	return how + ", " + e.Message
}

// Reasons that orch gives for a waiting container or replica.
const (
	ReasonPulling      = "Pulling"
	ReasonImageMissing = "ImageMissing"
	// ReasonRegistryUnreachable: the image is not there, and its registry cannot be asked.
	ReasonRegistryUnreachable = "RegistryUnreachable"
	ReasonImageError          = "ImageError"
	ReasonNetworkError        = "NetworkError"
	ReasonCreateError         = "CreateError"
	ReasonBackOff             = "BackOff"
	// ReasonInitializing: an init container, or a sidecar's start, is waited for.
	ReasonInitializing = "Initializing"
	// ReasonHookFailed: a postStart hook failed.
	ReasonHookFailed = "HookFailed"
	// ReasonBindRefused: the node's agent does not allow a bind mount.
	ReasonBindRefused = "BindRefused"
	// ReasonConfigMissing: a version of a Config or Secret that it takes is not on its node:
	// secrets are not kept on disk and come with the next session.
	ReasonConfigMissing = "ConfigMissing"
	// ReasonConfigError: what it takes of a Config or Secret cannot be used as it is.
	ReasonConfigError = "ConfigError"
	// ReasonVolumeError: a volume cannot be made or mounted on its node.
	ReasonVolumeError = "VolumeError"
	ReasonNoNode      = "NoNode"
	// ReasonHandingOver: it is to stop as soon as nobody sends it traffic any more.
	ReasonHandingOver = "HandingOver"
	// ReasonNoLease: it runs only under a lease and was not given one yet.
	ReasonNoLease = "NoLease"
	// ReasonLeaseLost: its node could not renew the lease that it runs under; it
	// starts again when a lease is granted.
	ReasonLeaseLost = "LeaseLost"

	ExitCompleted      = "Completed"
	ExitError          = "Error"
	ExitSignaled       = "Signaled"
	ExitOutOfMemory    = "OutOfMemory"
	ExitLivenessFailed = "LivenessFailed"
	ExitStartupFailed  = "StartupFailed"
	ExitHookFailed     = "HookFailed"
	ExitStartFailed    = "StartFailed"
)

// Event is something that happened, told once and counted.
type Event struct {
	// Seq orders events; it rises over the cluster's life.
	Seq       uint64    `json:"seq"`
	Time      time.Time `json:"time"`
	Namespace string    `json:"namespace,omitempty"`
	// Kind and Name say what it happened to: Service web, Replica web-0, Node n1.
	Kind string `json:"kind"`
	Name string `json:"name"`
	// UID of the object, of a replica that of its service: one of that name that was
	// deleted had another. Empty: it has none.
	UID string `json:"uid,omitempty"`
	// Type is "Normal" or "Warning".
	Type string `json:"type"`
	// Reason is a CamelCase word, Message a sentence.
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Count   int    `json:"count"`
}

// The event types.
const (
	EventNormal  = "Normal"
	EventWarning = "Warning"
)

// Endpoint is one address that gets a service's traffic. Its name is the
// replica's, with the epoch: "web-0@17".
type Endpoint struct {
	TypeMeta `json:",inline"`
	Metadata Metadata       `json:"metadata"`
	Status   EndpointStatus `json:"status"`
}

// EndpointStatus is soft: it is made anew by each leader.
type EndpointStatus struct {
	Service string `json:"service"`
	Replica string `json:"replica"` // "web-0"
	Epoch   uint64 `json:"epoch"`
	Node    string `json:"node"`
	IP      string `json:"ip"`
	Ports   []Port `json:"ports,omitempty"`
	// Verdict is what is held of its node.
	Verdict Verdict `json:"verdict"`
	// Degraded: its node cannot be reached, but the service has nothing better.
	Degraded bool `json:"degraded,omitempty"`
	// Kept: its node has not reported to this leader yet; agents keep what they know.
	Kept bool `json:"kept,omitempty"`
}
