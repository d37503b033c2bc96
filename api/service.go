package api

import "time"

// Service is a set of identical replicas that orch keeps running.
type Service struct {
	TypeMeta `json:",inline"`
	Metadata Metadata      `json:"metadata"`
	Spec     ServiceSpec   `json:"spec"`
	Status   ServiceStatus `json:"status,omitzero"`
}

// ServiceSpec is what the user wants. The Template is the revision: a change there
// makes a new one. What stands beside it is not, and holds for all replicas at once.
type ServiceSpec struct {
	// Replicas is how many to run. Nil means 1; 0 is allowed.
	Replicas *int `json:"replicas,omitempty"`
	// Rollout bounds how a new revision replaces the old one.
	Rollout Rollout `json:"rollout,omitzero"`
	// Priority says whose spares come first when not all can be started at once;
	// higher is more important, 0 is usual. It is no part of the revision.
	Priority int `json:"priority,omitempty"`
	// Headless services have no virtual IP: their name leads to the addresses of
	// their ready replicas.
	Headless bool `json:"headless,omitempty"`
	// SessionAffinity says whether a client's connections go to one replica;
	// empty means none.
	SessionAffinity SessionAffinity `json:"sessionAffinity,omitempty"`
	// TrafficDistribution says which replicas are preferred; empty means none.
	TrafficDistribution TrafficDistribution `json:"trafficDistribution,omitempty"`
	Template            `json:",inline"`
}

// SessionAffinity binds clients to replicas.
type SessionAffinity string

// AffinityClientIP sends a client, told by its source address, to the replica that
// it had last, as long as that is ready and AffinityTimeout has not passed between.
const AffinityClientIP SessionAffinity = "clientIP"

// TrafficDistribution prefers some replicas over others.
type TrafficDistribution string

// PreferSameNode sends what comes from a node, or arrives there, to ready replicas
// on that node if there are any.
const PreferSameNode TrafficDistribution = "preferSameNode"

// Template is the part of a service that a revision freezes.
type Template struct {
	// Containers share the replica's network namespace. At least one.
	Containers []Container `json:"containers"`
	// NodeSelector: a node is fit only if it has all these labels.
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
	// Constraints: a node is fit only if it meets all of them.
	Constraints []Constraint `json:"constraints,omitempty"`
	// RestartPolicy says when a container that ended is started again in place.
	RestartPolicy RestartPolicy `json:"restartPolicy,omitzero"`
	// TerminationGracePeriod is the time between SIGTERM and SIGKILL.
	// Nil means 10 s; 0 kills at once.
	TerminationGracePeriod *Duration `json:"terminationGracePeriod,omitempty"`
	// Exclusive slots never have two running containers, even across a
	// partition: each runs only under a lease of the leader's. Implies
	// OnPartition stop.
	Exclusive bool `json:"exclusive,omitempty"`
	// OnPartition says what a node does with its replicas when it cannot reach
	// the leader; empty means keep.
	OnPartition OnPartition `json:"onPartition,omitempty"`
	// LeaseDuration is how long a lease lasts from its renewal: the time after
	// which a replica that cannot renew has surely stopped. Nil means
	// DefaultLease; only for leased replicas.
	LeaseDuration *Duration `json:"leaseDuration,omitempty"`
	// HostNetwork replicas have no network of their own: they use their node's, and
	// each of their ports is a port of the node.
	HostNetwork bool `json:"hostNetwork,omitempty"`
}

// Container is one process tree of a replica.
type Container struct {
	// Name is a DNS label, unique within the service.
	Name string `json:"name"`
	// Image is a reference, by tag or digest.
	Image string `json:"image"`
	// Command replaces the image's entrypoint, Args its arguments.
	Command []string `json:"command,omitempty"`
	Args    []string `json:"args,omitempty"`
	// Env is set in the container on top of the image's environment.
	Env []EnvVar `json:"env,omitempty"`
	// WorkingDir is absolute; empty means the image's.
	WorkingDir string    `json:"workingDir,omitempty"`
	Ports      []Port    `json:"ports,omitempty"`
	Resources  Resources `json:"resources,omitzero"`
	// ReadinessProbe decides whether the replica gets traffic; nil means that
	// it is ready as soon as it runs.
	ReadinessProbe *Probe `json:"readinessProbe,omitempty"`
	// LivenessProbe restarts the container when it fails; nil means never.
	LivenessProbe *Probe `json:"livenessProbe,omitempty"`
}

// EnvVar is one environment variable.
type EnvVar struct {
	Name  string `json:"name"`
	Value string `json:"value,omitempty"`
}

// Protocol is a transport protocol; empty means TCP.
type Protocol string

// The protocols.
const (
	TCP Protocol = "TCP"
	UDP Protocol = "UDP"
)

// PublishMode says where a published port is reachable.
type PublishMode string

// PublishHost publishes a port on the addresses of the replica's own node only;
// empty publishes it on those of every node.
const PublishHost PublishMode = "host"

// Port is a port on which a container listens.
type Port struct {
	// Name is a DNS label by which probes may refer to it; empty for none.
	Name string `json:"name,omitempty"`
	// Port is what the container listens on, 1-65535.
	Port int `json:"port"`
	// Protocol is TCP or UDP; empty means TCP.
	Protocol Protocol `json:"protocol,omitempty"`
	// Publish is the port on the node, 1-65535; 0 means not published.
	Publish int `json:"publish,omitempty"`
	// Mode says on which nodes; empty means on every node. Only with Publish.
	Mode PublishMode `json:"mode,omitempty"`
}

// Resources are what a container asks for and what it may use at most.
type Resources struct {
	// Requests are set aside on the node. A missing one is taken from Limits,
	// else it is zero.
	Requests ResourceList `json:"requests,omitempty"`
	// Limits are enforced by the kernel for cpu, memory and pids; extended
	// resources must have limit = request. A missing one means no limit,
	// but pids, which default to DefaultPidsLimit.
	Limits ResourceList `json:"limits,omitempty"`
}

// ResourceList maps a resource's name to an amount.
type ResourceList map[string]Quantity

// The resources that every node has; all other names are extended resources,
// counted but not enforced, such as "gpus".
const (
	CPU    = "cpu"    // cores
	Memory = "memory" // bytes
	Pids   = "pids"   // processes and threads; limit only
)

// Probe asks whether a container is well. Exactly one of HTTP, TCP, Exec is set.
type Probe struct {
	HTTP *HTTPProbe `json:"http,omitempty"`
	TCP  *TCPProbe  `json:"tcp,omitempty"`
	Exec *ExecProbe `json:"exec,omitempty"`
	// InitialDelay before the first try after the container's start; nil means 0.
	InitialDelay *Duration `json:"initialDelay,omitempty"`
	// Interval between tries; nil means 5 s, and until the first success of a
	// readiness probe 100 ms at most.
	Interval *Duration `json:"interval,omitempty"`
	// Timeout of one try; nil means 1 s.
	Timeout *Duration `json:"timeout,omitempty"`
	// FailureThreshold is how many failures in a row turn it; 0 means 3.
	FailureThreshold int `json:"failureThreshold,omitempty"`
	// SuccessThreshold is how many successes in a row turn it; 0 means 1.
	SuccessThreshold int `json:"successThreshold,omitempty"`
}

// PortRef is a port's number or the name of one of the container's ports.
type PortRef string

// HTTPProbe succeeds on a status from 200 to 399.
type HTTPProbe struct {
	// Path starts with "/"; empty means "/".
	Path string  `json:"path,omitempty"`
	Port PortRef `json:"port"`
}

// TCPProbe succeeds when a connection is accepted.
type TCPProbe struct {
	Port PortRef `json:"port"`
}

// ExecProbe succeeds when the command exits 0 inside the container.
type ExecProbe struct {
	Command []string `json:"command"`
}

// Operator compares a node's label with a constraint's values.
type Operator string

// The operators, as in Kubernetes.
const (
	OpIn           Operator = "In"
	OpNotIn        Operator = "NotIn"
	OpExists       Operator = "Exists"
	OpDoesNotExist Operator = "DoesNotExist"
)

// Constraint is a condition on a node's labels.
type Constraint struct {
	Key      string   `json:"key"`
	Operator Operator `json:"operator"`
	Values   []string `json:"values,omitempty"`
}

// RestartCondition says which ends of a container are followed by a restart.
type RestartCondition string

// The restart conditions; empty means always.
const (
	RestartAlways    RestartCondition = "always"
	RestartOnFailure RestartCondition = "onFailure"
	RestartNever     RestartCondition = "never"
)

// RestartPolicy restarts in place: the first restart comes at once, then the
// delay doubles from BackOff to MaxBackOff; after a run of ResetAfter it starts anew.
type RestartPolicy struct {
	Condition RestartCondition `json:"condition,omitempty"`
	// BackOff is the delay before the second restart in a row; nil means 1 s.
	BackOff *Duration `json:"backOff,omitempty"`
	// MaxBackOff caps the delay; nil means 1 min.
	MaxBackOff *Duration `json:"maxBackOff,omitempty"`
	// ResetAfter is how long a run must last to count as good; nil means 1 min.
	ResetAfter *Duration `json:"resetAfter,omitempty"`
}

// Rollout bounds a rolling replacement.
type Rollout struct {
	// MaxSurge is how many replicas above Replicas may exist; nil means 25 %,
	// rounded up.
	MaxSurge *IntOrPercent `json:"maxSurge,omitempty"`
	// MaxUnavailable is how many of Replicas may be unready; nil means 25 %,
	// rounded down. Both at zero is refused.
	MaxUnavailable *IntOrPercent `json:"maxUnavailable,omitempty"`
}

// ServiceStatus is what the leader knows; never in a manifest.
type ServiceStatus struct {
	// Revision is the newest revision's number, from 1.
	Revision int64 `json:"revision,omitempty"`
	// Replicas exist, Ready get traffic, Updated run the newest revision.
	Replicas int `json:"replicas"`
	Ready    int `json:"ready"`
	Updated  int `json:"updated"`
	// UpdatedReady run the newest revision and are ready.
	UpdatedReady int `json:"updatedReady"`
	// Reasons explain in words what is still missing; empty when all is well.
	Reasons []string `json:"reasons,omitempty"`
	// VIP is the service's virtual IP, kept for its whole life; empty if it is
	// headless.
	VIP string `json:"vip,omitempty"`
}

// Revision is an immutable version of a service's template.
type Revision struct {
	Service Key `json:"service"`
	// UID is the service's UID: a new service of the same name has new revisions.
	UID       string    `json:"uid"`
	Number    int64     `json:"number"`
	Template  Template  `json:"template"`
	CreatedAt time.Time `json:"createdAt,omitzero"`
}
