package api

import "time"

// The limits of what can be declared, each with its reason.
const (
	// MaxServiceName in characters: "<service>-<slot>" must stay a DNS label
	// (63) with room for a revision or a purpose to be added later.
	MaxServiceName = 40
	// MaxContainerName in characters, as for services: it ends container ids.
	MaxContainerName = 40
	// MaxNamespaceName in characters: a DNS label.
	MaxNamespaceName = 63
	// MaxPortName in characters: RFC 6335's limit for service names, which SRV
	// records keep to.
	MaxPortName = 15
	// MaxPort is the last port of TCP and UDP.
	MaxPort = 65535
	// MaxReplicas of one service: the fleet's own limit is a million.
	MaxReplicas = 100_000
	// MaxContainers of one replica: each costs the node a shim and a log.
	MaxContainers = 20
	// MaxServiceBytes of a service as JSON: etcd takes 1.5 MiB per transaction,
	// which the documents of one apply and their revisions share.
	MaxServiceBytes = 256 << 10
	// MaxConfigBytes of the values of a Config or Secret: Docker's limit. Each version is
	// stored whole, in the transaction of its apply, and lies in nodes' memory.
	MaxConfigBytes = 500_000
	// maxConfigJSON of a Config or Secret as JSON, which is how it is stored: there base64
	// takes four thirds of what it stands for, but a control character six times.
	maxConfigJSON = 1_000_000
	// MaxConfigName in characters, and of a key: a DNS label, and a file's name.
	MaxConfigName, MaxConfigKey = 63, 253
	// MaxPullSecrets of one template: more registries than its containers can come from
	// is a slip, and each travels with every replica.
	MaxPullSecrets = 10
	// MaxVolumeName in characters: as for services.
	MaxVolumeName = 40
	// MaxCompletions of a job: each has an outcome in the store. MaxParallelism of it.
	MaxCompletions, MaxParallelism = 10_000, 1_000
	// DefaultBackoffLimit is how many tries of a job may fail, as in Kubernetes;
	// MaxBackoffLimit is the most: beyond it nobody waits for the answer.
	DefaultBackoffLimit, MaxBackoffLimit = 6, 1_000
	// MaxJobDeadline is the longest deadline of a job, and the longest that it is kept
	// after its end: longer ones are slips.
	MaxJobDeadline = 365 * 24 * time.Hour
	// MinJobDeadline keeps a slip from failing every job before a container could start.
	MinJobDeadline = time.Second
	// MaxGrace is the longest termination grace: a drain waits for it.
	MaxGrace = 24 * time.Hour
	// MaxLease is the longest lease. A slot whose node fell silent stays empty for
	// so long, and longer ones are slips.
	MaxLease = 10 * time.Minute
	// MaxPriority of a service, and its negative the least: room for every order
	// that a person can keep in mind.
	MaxPriority = 1000
	// AffinityTimeout is how long a node remembers which replica a client had after the
	// client was last heard of: Kubernetes' three hours, so that manifests that come
	// from there keep their meaning.
	AffinityTimeout = 3 * time.Hour
	// MaxDelay is the longest probe or restart duration; longer ones are slips.
	MaxDelay = 24 * time.Hour
	// MinProbeInterval and MinBackOff keep a slip from burning a node.
	MinProbeInterval = 50 * time.Millisecond
	MinBackOff       = 10 * time.Millisecond
	// MaxCanarySteps of a rollout: more than anybody watches.
	MaxCanarySteps = 20
	// MinProgressDeadline keeps a slip from failing every rollout before a container
	// could start.
	MinProgressDeadline = time.Second
	// MaxLastOutput in bytes of what a container wrote last: it travels with its
	// status to the leader, and some of it into events.
	MaxLastOutput = 1 << 10
	// MaxThreshold of a probe: beyond it the answer never turns.
	MaxThreshold = 1000
	// MinMemoryLimit: with less, the runtime cannot even start a process.
	MinMemoryLimit = Quantity(6 << 20 * 1000)
	// MinCPULimit is the smallest share that the kernel's quota can express
	// (1 ms in 100 ms).
	MinCPULimit = Quantity(10)
)
