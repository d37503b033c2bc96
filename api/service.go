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
	// Mode says how many replicas there are: global runs one on every node that is
	// fit, and on each that comes later. Nothing stands in for it elsewhere. Not with
	// Exclusive. Empty means Replicas of them.
	Mode Mode `json:"mode,omitempty"`
	// Replicas is how many to run, 0 to 100,000. Nil means 1. Not with mode global.
	Replicas *int `json:"replicas,omitempty"`
	// Rollout says how a new revision takes the place of the one before.
	Rollout Rollout `json:"rollout,omitzero"`
	// Priority says whose spares and reliefs come first when not all can be started at
	// once: higher is more important. From -1000 to 1000, 0 is usual.
	Priority int `json:"priority,omitempty"`
	// Headless services have no virtual IP: their name leads to the addresses of
	// their ready replicas. See [below](#names-and-addresses).
	Headless bool `json:"headless,omitempty"`
	// SessionAffinity clientIP leads a client, told by its source address, to the
	// replica that it had last, as long as that is ready and the client was heard of
	// within 3 h. Each node remembers for itself. Not with Headless. Empty means none.
	SessionAffinity SessionAffinity `json:"sessionAffinity,omitempty"`
	// TrafficDistribution preferSameNode leads what comes from a node, or arrives there,
	// to ready replicas on that node if there are any. Not with Headless. Empty means none.
	TrafficDistribution TrafficDistribution `json:"trafficDistribution,omitempty"`
	Template            `json:",inline"`
}

// Mode says how many replicas a service has.
type Mode string

// ModeGlobal runs one replica on every node that is fit, and on new ones too. A slot
// belongs to its node, and so nothing stands in for it elsewhere.
const ModeGlobal Mode = "global"

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
	// InitContainers run one after the other, each to its end with code 0, before
	// anything else of the replica starts. One that fails is started again by
	// RestartPolicy; with its condition never the replica fails. They have no ports,
	// probes and hooks, and their requests count where they exceed those of all that
	// run later.
	InitContainers []Container `json:"initContainers,omitempty"`
	// Sidecars start after the init containers, in their order, each when the one
	// before it has passed its startup probe (or runs, without one), and before
	// Containers; they are stopped after all of Containers have ended, last one first.
	// They do not keep a replica alive whose Containers have all ended. Their probes
	// count as those of Containers do.
	Sidecars []Container `json:"sidecars,omitempty"`
	// Sysctls are set in the replica's own namespaces: kernel.shm*, kernel.msg*,
	// kernel.sem, fs.mqueue.* and net.*; the last not with HostNetwork. Others would
	// change the node and are refused.
	Sysctls map[string]string `json:"sysctls,omitempty"`
	// PullSecrets are Secrets of type registry, in the service's namespace: what the
	// images' registries want to know. A node's own logins count where none of them fits.
	PullSecrets []string `json:"pullSecrets,omitempty"`
	// Containers share the replica's network namespace and address. At least one, and
	// with InitContainers and Sidecars at most 20.
	Containers []Container `json:"containers"`
	// NodeSelector: a node is fit only if it has all these labels.
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
	// Constraints: a node is fit only if it meets all of them.
	Constraints []Constraint `json:"constraints,omitempty"`
	// RestartPolicy says when a container that ended is started again in place; it holds
	// for all of them.
	RestartPolicy RestartPolicy `json:"restartPolicy,omitzero"`
	// TerminationGracePeriod is the time between the stop signal and SIGKILL, preStop
	// hooks included; 0 kills at once. At most 24 h; of leased replicas, what the lease
	// has room for. Nil means 10 s.
	TerminationGracePeriod *Duration `json:"terminationGracePeriod,omitempty"`
	// Exclusive slots never have two running replicas, even across a partition: each
	// runs only under a lease of the leader's. Implies OnPartition stop. See
	// [below](#specexclusive).
	Exclusive bool `json:"exclusive,omitempty"`
	// OnPartition says what a node does with its replicas when it cannot reach the
	// leader: keep lets them run, stop ends them when their lease ends. Keep with
	// Exclusive is refused. Empty means keep, with Exclusive stop.
	OnPartition OnPartition `json:"onPartition,omitempty"`
	// LeaseDuration is how long a lease lasts from its renewal: the time after
	// which a replica that cannot renew has surely stopped. At most 10 min. Only with
	// Exclusive or OnPartition stop. Nil means 15 s.
	LeaseDuration *Duration `json:"leaseDuration,omitempty"`
	// HostNetwork replicas have no network of their own: they use their node's, and
	// each of their ports is a port of the node.
	HostNetwork bool `json:"hostNetwork,omitempty"`
}

// Container is one process tree of a replica.
type Container struct {
	// Name is a DNS label of at most 40 characters, unique within the service.
	Name string `json:"name"`
	// Image is a reference, by tag or digest. What a tag means is told when the revision
	// is made, and holds for all its replicas. Pulled where a node does not have it;
	// `orchctl image load` brings an OCI archive to every node.
	Image string `json:"image"`
	// PullPolicy says who is asked for the image: ifNotPresent takes what was loaded or a
	// node has, and asks the registry for what is missing; always asks the registry what the
	// tag means whenever a revision is made or restarted; never asks no registry. Empty
	// means ifNotPresent.
	PullPolicy PullPolicy `json:"pullPolicy,omitempty"`
	// Command replaces the image's entrypoint, and the image's arguments too. Nil means
	// the image's entrypoint.
	Command []string `json:"command,omitempty"`
	// Args replaces the image's arguments. Nil means the image's arguments.
	Args []string `json:"args,omitempty"`
	// EnvFrom sets a variable for each key of these, on top of the image's environment; of
	// keys that are in several the last one counts.
	EnvFrom []EnvFrom `json:"envFrom,omitempty"`
	// Env is set in the container on top of EnvFrom. Names are unique.
	Env []EnvVar `json:"env,omitempty"`
	// Stdin: the command is started when somebody attaches to it (orchctl run -i, orchctl
	// attach), and reads what they type. Only in Containers of a job, and of one of them.
	Stdin bool `json:"stdin,omitempty"`
	// WorkingDir is absolute; empty means the image's.
	WorkingDir string `json:"workingDir,omitempty"`
	// Ports are what the container listens on.
	Ports []Port `json:"ports,omitempty"`
	// Resources are what the container asks for and what it may use at most.
	Resources Resources `json:"resources,omitzero"`
	// ReadinessProbe decides whether the replica gets traffic; nil means that
	// it is ready as soon as it runs.
	ReadinessProbe *Probe `json:"readinessProbe,omitempty"`
	// LivenessProbe restarts the container when it fails; nil means never.
	LivenessProbe *Probe `json:"livenessProbe,omitempty"`
	// StartupProbe holds the other two back until it has succeeded once, and restarts
	// the container when it fails before; nil means that it has started when it runs.
	// A container with none of the three probes is asked by its image's HEALTHCHECK, if
	// that has one: as readiness and liveness probe, its start period as startup probe. One
	// of a job is not.
	StartupProbe *Probe `json:"startupProbe,omitempty"`
	// Lifecycle has hooks beside the container's own process; nil means none.
	Lifecycle *Lifecycle `json:"lifecycle,omitempty"`
	// StopSignal asks the container to end: a name of signal(7), such as SIGQUIT or
	// SIGRTMIN+3, but SIGSTOP. Empty means the image's, and SIGTERM where that names none.
	StopSignal string `json:"stopSignal,omitempty"`
	// SecurityContext narrows or widens what the container may do.
	SecurityContext *SecurityContext `json:"securityContext,omitempty"`
	// Ulimits by name: core, cpu, data, fsize, locks, memlock, msgqueue, nice, nofile,
	// nproc, rss, rtprio, rttime, sigpending, stack. Missing ones are the runtime's.
	Ulimits map[string]Ulimit `json:"ulimits,omitempty"`
	// Mounts are laid over the image's files.
	Mounts []Mount `json:"mounts,omitempty"`
}

// PullPolicy says who is asked for an image.
type PullPolicy string

// The pull policies.
const (
	PullIfNotPresent PullPolicy = "ifNotPresent"
	PullAlways       PullPolicy = "always"
	PullNever        PullPolicy = "never"
)

// Lifecycle has hooks beside the container's own process.
type Lifecycle struct {
	// PostStart runs right after the start; until it has ended well the container is
	// not ready, and where it fails the container is restarted.
	PostStart *Hook `json:"postStart,omitempty"`
	// PreStop runs before the stop signal, within the termination grace; what comes of
	// it changes nothing.
	PreStop *Hook `json:"preStop,omitempty"`
}

// Hook is one action. Exactly one of Exec, HTTP, Sleep is set.
type Hook struct {
	// Exec runs a command in the container; good is exit code 0.
	Exec *ExecProbe `json:"exec,omitempty"`
	// HTTP gets a URL of the container; good are the status codes 200 to 399.
	HTTP *HTTPProbe `json:"http,omitempty"`
	// Sleep waits: for a server that drains badly. As PreStop shorter than
	// TerminationGracePeriod.
	Sleep *Duration `json:"sleep,omitempty"`
	// Timeout of the action, 50 ms to 24 h; nil means 30 s. Not with Sleep.
	Timeout *Duration `json:"timeout,omitempty"`
}

// SecurityContext is what a container may do. The zero value is the default: the
// image's user, a writable root, a small set of capabilities, the runtime's seccomp
// profile and no new privileges.
type SecurityContext struct {
	// User is a number or a name in the image's /etc/passwd; empty means the image's.
	User string `json:"user,omitempty"`
	// Group is a number or a name in /etc/group; empty means the user's. Only with User.
	Group string `json:"group,omitempty"`
	// ReadOnlyRoot leaves only mounts writable.
	ReadOnlyRoot bool `json:"readOnlyRoot,omitempty"`
	// Capabilities changes the set that containers get by default: CHOWN, DAC_OVERRIDE,
	// FOWNER, FSETID, KILL, NET_BIND_SERVICE, SETGID, SETUID, SETPCAP, SETFCAP, SYS_CHROOT.
	Capabilities Capabilities `json:"capabilities,omitzero"`
	// Seccomp filters system calls: default is the runtime's own profile, unconfined
	// none, which only an admin may apply. Empty means default.
	Seccomp Seccomp `json:"seccomp,omitempty"`
	// AllowPrivilegeEscalation lets setuid programs and file capabilities give a
	// process more than its parent has.
	AllowPrivilegeEscalation bool `json:"allowPrivilegeEscalation,omitempty"`
	// Privileged containers have every capability and device, and no seccomp filter:
	// they own their node. Only an admin may apply one. Not with Capabilities or a
	// Seccomp profile.
	Privileged bool `json:"privileged,omitempty"`
}

// Capabilities changes the set that containers get by default. Names are as in
// capabilities(7), with or without "CAP_", or "ALL"; Drop comes before Add.
type Capabilities struct {
	// Add gives these beside what Drop left: a name of capabilities(7), with or without
	// CAP_, or ALL. Only an admin may apply others than the default ones and AUDIT_WRITE,
	// IPC_LOCK, IPC_OWNER, NET_ADMIN, NET_BROADCAST, NET_RAW, SYS_NICE, SYS_PTRACE and
	// SYS_RESOURCE: they lead out of the container, as those of the network do with
	// HostNetwork.
	Add []string `json:"add,omitempty"`
	// Drop takes these from the usual ones, ALL all of them.
	Drop []string `json:"drop,omitempty"`
}

// Seccomp names a filter of system calls.
type Seccomp string

// The filters.
const (
	// SeccompDefault is the runtime's own profile.
	SeccompDefault Seccomp = "default"
	// SeccompUnconfined is none.
	SeccompUnconfined Seccomp = "unconfined"
)

// Ulimit is a limit of setrlimit(2); below 0 means none. Hard 0 means that it is Soft.
type Ulimit struct {
	// Soft is the limit that the process begins with; below 0: none. 0 is refused where
	// no program would run within it.
	Soft int64 `json:"soft"`
	// Hard is what the process may raise it to; below 0: without bound. 0 means Soft.
	Hard int64 `json:"hard,omitempty"`
}

// EnvFrom takes all values of a Config or a Secret as variables. Exactly one of Config
// and Secret is set.
type EnvFrom struct {
	// Config is the name of a Config of the same namespace. All its keys have to be names
	// of variables, with Prefix before them.
	Config string `json:"config,omitempty"`
	// Secret is the name of a Secret of the same namespace; otherwise as Config.
	Secret string `json:"secret,omitempty"`
	// Prefix is put before each key, such as APP_. Empty means none.
	Prefix string `json:"prefix,omitempty"`
}

// Mount lays something over the container's files. Exactly one of Tmpfs, Bind, Config,
// Secret and Volume is set.
type Mount struct {
	// Path in the container: absolute, in its plain form, once per container, and neither
	// / nor below /proc, /sys, /dev or /.orch, but for /dev/shm.
	Path string `json:"path"`
	// ReadOnly: the container cannot write there. Not with Tmpfs; Config and Secret always
	// are, and need not say so.
	ReadOnly bool `json:"readOnly,omitempty"`
	// Tmpfs is memory that counts against the container's limit, empty at each start.
	Tmpfs *Tmpfs `json:"tmpfs,omitempty"`
	// Bind is a path of the node, absolute and in its plain form, which its agent must
	// allow (agent --allow-bind).
	Bind string `json:"bind,omitempty"`
	// Config is the name of a Config of the same namespace. Path is a folder with a file for
	// each key then, or with Key that one file. The files lie in memory; nothing else is
	// mounted within that folder.
	Config string `json:"config,omitempty"`
	// Secret is the name of a Secret of the same namespace; otherwise as Config.
	Secret string `json:"secret,omitempty"`
	// Key takes one value alone, as the file Path. Empty means all. Only with Config or
	// Secret.
	Key string `json:"key,omitempty"`
	// Mode of the files in octal digits, such as "0400"; they belong to the container's
	// user. Only with Config or Secret. Empty means 0444.
	Mode string `json:"mode,omitempty"`
	// Volume is the name of a folder on the node that outlives the replica and pins its
	// slot to the node: each slot has its own. Containers of a replica that name the same
	// one share it. A DNS label of at most 40 characters.
	Volume string `json:"volume,omitempty"`
}

// Tmpfs is a filesystem in memory.
type Tmpfs struct {
	// Size in bytes, at least 1. Nil means half of the container's memory limit, and of
	// the node's memory without one.
	Size *Quantity `json:"size,omitempty"`
}

// EnvVar is one environment variable. At most one of Value and ValueFrom is set.
type EnvVar struct {
	// Name of the variable: letters, digits, "_", "-" and ".", not starting with a digit.
	Name string `json:"name"`
	// Value is its text. Empty means "".
	Value string `json:"value,omitempty"`
	// ValueFrom takes the value from the replica, or from a Config or a Secret; nil means
	// Value. What comes of the replica is no part of the revision.
	ValueFrom *EnvSource `json:"valueFrom,omitempty"`
}

// EnvSource is where a variable's value comes from. Exactly one of Field, Config and
// Secret is set.
type EnvSource struct {
	// Field of the replica: name (web-0), slot, epoch, revision, service, namespace, node,
	// ip, or "labels." with the key of a label of the service behind it, as labels.app;
	// empty where the service has no such label.
	Field string `json:"field,omitempty"`
	// Config takes one value of a Config of the same namespace.
	Config *KeyRef `json:"config,omitempty"`
	// Secret takes one value of a Secret of the same namespace.
	Secret *KeyRef `json:"secret,omitempty"`
}

// KeyRef names one value of a Config or a Secret.
type KeyRef struct {
	// Name of the Config or Secret.
	Name string `json:"name"`
	// Key of the value.
	Key string `json:"key"`
}

// What a variable can be taken from.
const (
	FieldName      = "name" // web-0
	FieldSlot      = "slot"
	FieldEpoch     = "epoch"
	FieldRevision  = "revision"
	FieldService   = "service"
	FieldNamespace = "namespace"
	FieldNode      = "node"
	FieldIP        = "ip"
	FieldLabels    = "labels." // with a label's key behind it; empty where there is none
)

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
	// Name is a DNS label by which probes and SRV records refer to it: at most 15
	// characters, at least one letter, unique within the service. Empty means none.
	Name string `json:"name,omitempty"`
	// Port is what the container listens on, 1 to 65535. Unique with its protocol within
	// the service: the containers of a replica share one address.
	Port int `json:"port"`
	// Protocol of the port; empty means TCP.
	Protocol Protocol `json:"protocol,omitempty"`
	// Publish is the port on the nodes that leads here, 1 to 65535; 0 means not published.
	// With HostNetwork the same as Port, or left out.
	Publish int `json:"publish,omitempty"`
	// Mode host opens it on the replica's own node alone; empty means on every node. Only
	// with Publish.
	Mode PublishMode `json:"mode,omitempty"`
}

// Resources are what a container asks for and what it may use at most.
type Resources struct {
	// Requests are set aside on the node: the scheduler never places above a node's
	// capacity. None is above its limit. A missing one is taken from Limits, else it is
	// zero.
	Requests ResourceList `json:"requests,omitempty"`
	// Limits are enforced by the kernel for cpu (throttled), memory (killed) and pids;
	// extended resources must have limit = request. A missing one is no limit, but pids,
	// which are 2000 then.
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

// Probe asks whether a container is well. Exactly one of HTTP, TCP, GRPC, Exec is set.
type Probe struct {
	// HTTP gets a URL of the container; good are the status codes 200 to 399.
	HTTP *HTTPProbe `json:"http,omitempty"`
	// TCP connects; good is a connection.
	TCP *TCPProbe `json:"tcp,omitempty"`
	// GRPC calls grpc.health.v1.Health/Check, without TLS; good is SERVING.
	GRPC *GRPCProbe `json:"grpc,omitempty"`
	// Exec runs a command in the container; good is exit code 0.
	Exec *ExecProbe `json:"exec,omitempty"`
	// InitialDelay before the first try after the container's start, at most 24 h. Nil
	// means 0, for a liveness probe one interval.
	InitialDelay *Duration `json:"initialDelay,omitempty"`
	// Interval between tries, 50 ms to 24 h. Nil means 5 s; until the first success 100 ms
	// at most, but for liveness probes and for a startup probe that runs a command.
	Interval *Duration `json:"interval,omitempty"`
	// Timeout of one try, 50 ms to 24 h; nil means 1 s.
	Timeout *Duration `json:"timeout,omitempty"`
	// FailureThreshold is how many failures in a row turn it, 1 to 1,000; 0 means 3.
	FailureThreshold int `json:"failureThreshold,omitempty"`
	// SuccessThreshold is how many successes in a row turn it, 1 to 1,000, of a startup
	// probe 1; 0 means 1.
	SuccessThreshold int `json:"successThreshold,omitempty"`
}

// PortRef is a port's number or the name of one of the container's ports.
type PortRef string

// HTTPProbe succeeds on a status from 200 to 399.
type HTTPProbe struct {
	// Path of the URL; starts with "/". Empty means "/".
	Path string `json:"path,omitempty"`
	// Port of the replica's own address, as a number or the name of one of the
	// container's ports.
	Port PortRef `json:"port"`
}

// TCPProbe succeeds when a connection is accepted.
type TCPProbe struct {
	// Port of the replica's own address, as a number or the name of one of the
	// container's ports.
	Port PortRef `json:"port"`
}

// GRPCProbe succeeds when grpc.health.v1.Health/Check, without TLS, answers SERVING.
type GRPCProbe struct {
	// Port of the replica's own address, as a number or the name of one of the
	// container's ports.
	Port PortRef `json:"port"`
	// Service that is asked for. Empty means the server as a whole.
	Service string `json:"service,omitempty"`
}

// ExecProbe succeeds when the command exits 0 inside the container.
type ExecProbe struct {
	// Command is the program and its arguments; no shell is between.
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
	// Key of the node's label.
	Key string `json:"key"`
	// Operator: In and NotIn compare with Values, Exists and DoesNotExist ask for the key.
	// NotIn is met by a node without the label.
	Operator Operator `json:"operator"`
	// Values are required with In and NotIn, and refused with the others.
	Values []string `json:"values,omitempty"`
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
	// Condition onFailure restarts after an exit code other than 0, a signal, out of
	// memory, a failed probe or hook.
	Condition RestartCondition `json:"condition,omitempty"`
	// BackOff is the delay before the second restart in a row, 10 ms to 24 h; nil means 1 s.
	BackOff *Duration `json:"backOff,omitempty"`
	// MaxBackOff caps the delay, 10 ms to 24 h, not below BackOff; nil means 1 min, or
	// BackOff if that is more.
	MaxBackOff *Duration `json:"maxBackOff,omitempty"`
	// ResetAfter is how long a run must last to start the count anew, 10 ms to 24 h; nil
	// means 1 min.
	ResetAfter *Duration `json:"resetAfter,omitempty"`
}

// Rollout says how a new revision takes the place of the one before.
type Rollout struct {
	// Strategy rolling goes slot by slot, gated by readiness; recreate stops all of the
	// old revision before any of the new one starts, and bounds, Order and Canary have no
	// meaning then. Empty means rolling.
	Strategy Strategy `json:"strategy,omitempty"`
	// Order startFirst is MaxUnavailable 0, stopFirst MaxSurge 0. Empty means both, as the
	// bounds allow.
	Order Order `json:"order,omitempty"`
	// MaxSurge is how many replicas above Replicas may exist; a share is rounded up. None
	// with stopFirst, Exclusive and mode global. Nil means 25 %, or what Order says.
	MaxSurge *IntOrPercent `json:"maxSurge,omitempty"`
	// MaxUnavailable is how many of Replicas, or of a global service's nodes, may be
	// unready. A share is rounded down; if that and the surge come to 0, it is 1. Both
	// written as 0 is refused. Nil means 25 %, or what Order says; with Exclusive 1.
	MaxUnavailable *IntOrPercent `json:"maxUnavailable,omitempty"`
	// MinReady is how long a replica of the new revision has to be ready without a
	// break before it counts; shorter than ProgressDeadline. Without a readiness probe it
	// is ready as soon as it runs. Nil means 1 s, at most half of ProgressDeadline, and 0
	// where a container has such a probe.
	MinReady *Duration `json:"minReady,omitempty"`
	// ProgressDeadline is how long a rollout may go without one more replica of the
	// new revision counting until it has failed, 1 s to 24 h. Pauses do not count. Nil
	// means 10 min.
	ProgressDeadline *Duration `json:"progressDeadline,omitempty"`
	// Canary takes the rollout in steps, at most 20; after the last all follow. Empty
	// means in one. Not with recreate.
	Canary []CanaryStep `json:"canary,omitempty"`
	// AutoRollback goes back to the last revision that was rolled out well when a
	// rollout fails; nil means true.
	AutoRollback *bool `json:"autoRollback,omitempty"`
}

// Strategy says whether old and new replicas may run beside each other.
type Strategy string

// The strategies; empty means rolling.
const (
	StrategyRolling Strategy = "rolling"
	// StrategyRecreate stops all of the old revision before any of the new one
	// starts. The service is away meanwhile.
	StrategyRecreate Strategy = "recreate"
)

// Order says what comes first in a slot that is replaced.
type Order string

// The orders. StartFirst: maxUnavailable is 0; StopFirst: maxSurge is 0.
const (
	OrderStartFirst Order = "startFirst"
	OrderStopFirst  Order = "stopFirst"
)

// CanaryStep is reached when so many replicas have the new revision and count.
type CanaryStep struct {
	// Replicas is how many are to have the new revision; a share is rounded up. They rise
	// from step to step.
	Replicas IntOrPercent `json:"replicas"`
	// Pause before the next step, at most 24 h; nil means until `orchctl rollout resume`.
	Pause *Duration `json:"pause,omitempty"`
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
	// Rollout is that of the newest revision.
	Rollout RolloutStatus `json:"rollout,omitzero"`
}

// RolloutState is how far a rollout is.
type RolloutState string

// The states.
const (
	RolloutProgressing RolloutState = "Progressing"
	// RolloutPaused waits for a canary step's pause to end, or for an operator.
	RolloutPaused RolloutState = "Paused"
	// RolloutComplete: every replica has the revision and counted once all did.
	RolloutComplete RolloutState = "Complete"
	// RolloutFailed: it was given up. The newest revision is still what is wanted:
	// there was nothing to go back to, or autoRollback is false.
	RolloutFailed RolloutState = "Failed"
	// RolloutRolledBack is a revision's only: another took its place before it was
	// complete, for Why.
	RolloutRolledBack RolloutState = "RolledBack"
	// RolloutSuperseded is a revision's only: a newer one was applied before it was complete.
	RolloutSuperseded RolloutState = "Superseded"
)

// RolloutStatus is how a revision is being rolled out, or how that went. It is
// durable but for Waiting and ProgressAt.
type RolloutStatus struct {
	State RolloutState `json:"state,omitempty"`
	// From is the last revision that was rolled out well before it; 0: there is none.
	From      int64     `json:"from,omitempty"`
	StartedAt time.Time `json:"startedAt,omitzero"`
	// EndedAt is zero while it goes on.
	EndedAt time.Time `json:"endedAt,omitzero"`
	// ProgressAt is when one more replica was ready last, as this leader saw it.
	ProgressAt time.Time `json:"progressAt,omitzero"`
	// Step of the canary that is under way, from 1; 0: none, or all are behind it.
	// StepAt is when its replicas counted; zero: they do not yet.
	Step   int       `json:"step,omitempty"`
	StepAt time.Time `json:"stepAt,omitzero"`
	// PausedBy is who paused it by hand; empty: nobody.
	PausedBy string `json:"pausedBy,omitempty"`
	// Why says in words what it waits for, or why it ended as it did, with the last
	// output of what failed.
	Why string `json:"why,omitempty"`
}

// Revision is an immutable version of a service's template, with how it came about
// and how it went.
type Revision struct {
	Service Key `json:"service"`
	// UID is the service's UID: a new service of the same name has new revisions.
	UID       string    `json:"uid"`
	Number    int64     `json:"number"`
	Template  Template  `json:"template"`
	CreatedAt time.Time `json:"createdAt,omitzero"`
	// By is who made it, Cause by what: "apply", "restart", "undo to revision 3",
	// "rollback from revision 4: ...".
	By    string `json:"by,omitempty"`
	Cause string `json:"cause,omitempty"`
	// SameAs is the revision whose template and images this one repeats; what runs with
	// that need not be replaced, and is said to have this one. 0: it repeats none.
	SameAs int64 `json:"sameAs,omitempty"`
	// Images are the digests that the template's references meant when it was made,
	// by reference as it stands there ("sha256:..."). One that is missing could not be
	// told then: what its first replica finds is put here.
	Images map[string]string `json:"images,omitempty"`
	// Configs are the versions of the Configs and Secrets that it takes values of.
	Configs map[ConfigRef]int64 `json:"configs,omitempty"`
	// Rollout is how it went.
	Rollout RolloutStatus `json:"rollout,omitzero"`
}
