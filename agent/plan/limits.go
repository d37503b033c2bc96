package plan

import "time"

// The limits of what happens at once and of when it is tried again.
const (
	// startsAtOnceMax: beyond 8, more starts only queue in containerd and on the
	// disk. A node with few cores does fewer; see atOnce.
	startsAtOnceMax = 8
	// networksAtOnceMax: CNI plugins are processes, and serialise on the kernel's
	// network lock.
	networksAtOnceMax = 8
	// pullsAtOnceMax bounds those that look for an image: most find it on the node at once.
	// Who fetches takes turns with others, and says so; see ctrd.Config.MaxPulls.
	pullsAtOnceMax = 64
	// stopsAtOnceMax: a stop mostly waits for its grace, so many may; the bound
	// is for memory.
	stopsAtOnceMax = 256
	// hooksAtOnceMax: a hook mostly waits, as a stop does. Those of preStop have room of
	// their own, that of stops: a postStart hook may take a day, and no stop waits for it.
	hooksAtOnceMax = 256
	// removesAtOnceMax: as for starts.
	removesAtOnceMax = 8

	// retryFirst and retryMax bound the doubling delay after something failed
	// that is not the container's own fault: long enough to burn nothing, short
	// enough that a repaired registry is noticed.
	retryFirst = 200 * time.Millisecond
	retryMax   = 30 * time.Second

	// configAgain is the pace at which a start is tried whose values are not on the node:
	// they come with a session, and a try costs nothing.
	configAgain = time.Second
	// removalsAtOnceMax: deleting many files at once only queues on the disk, where
	// replicas want to write.
	removalsAtOnceMax = 2

	// reportEvery is the least time between two reports: fifty replicas that
	// start together cost a few messages, and nobody sees 20 ms.
	reportEvery = 20 * time.Millisecond
	// answerEvery is the least time between two answers of a failing readiness probe
	// that are told: a command may say something else each time, and people read one.
	answerEvery = time.Second
	// graceLeast is what a container gets to end in whose replica's grace others have
	// used up: enough for one that ends when it is told to, as in Kubernetes.
	graceLeast = 2 * time.Second

	// adoptMax is how long the first report waits for the first answers of
	// adopted containers' readiness probes, so that a restart of the agent is no
	// dip of the service. The probes' own timeout is 1 s by default.
	adoptMax = 500 * time.Millisecond

	// observeEvery is the time between two full looks at the runtime: events can
	// be lost, so level follows edge. A listing costs milliseconds.
	observeEvery = time.Minute
	// observeAgain is when to look again after the runtime could not tell.
	observeAgain = time.Second

	// fastProbe is the interval of a readiness probe until its first success,
	// and slowProbe that of any probe afterwards, where the manifest has none.
	fastProbe = 100 * time.Millisecond
	slowProbe = 5 * time.Second
	// soonProbe is the first interval of one that costs little, a connection; it
	// doubles up to fastProbe. Most servers listen within some ten milliseconds,
	// and a failover waits for the last of them.
	soonProbe = 10 * time.Millisecond
	// healthProbe is how often an image's HEALTHCHECK is asked until its first success:
	// its own interval is half a minute mostly, and a command is no cheap question.
	healthProbe = time.Second
)
