package liveness

import "time"

// Limits are the machine's numbers. A zero field means its value in
// DefaultLimits.
type Limits struct {
	// BeatEvery is the time between two beats of a node in a fleet of up to
	// BeatFleet nodes; a larger fleet stretches it (see BeatInterval).
	BeatEvery time.Duration
	// BeatFleet is the number of nodes that beat every BeatEvery. Together they
	// are the leader's budget: BeatFleet/BeatEvery beats per second.
	BeatFleet int
	// BeatMiss is the number of beats in a row that must be missing before
	// observers are asked. Two are lost to one hiccup of a switch.
	BeatMiss int
	// BeatJitter is added to every wait for a beat: scheduling on a loaded node
	// delays a beat by tens of milliseconds.
	BeatJitter time.Duration
	// ReconnectGrace is how long a node may be without a session before anybody
	// looks: after a takeover, after it was added, and after a graceful close
	// (an agent being upgraded returns within a second or so).
	ReconnectGrace time.Duration
	// Witnesses is how many other agents are asked about a quiet node. Three see
	// around one broken path and cost little.
	Witnesses int
	// ProbeTimeout is how long an observer waits for the host's answer. A LAN
	// answers in under 1 ms; the rest is room for one lost packet, sent again.
	ProbeTimeout time.Duration
	// AskTimeout is how long the machine waits for observers' reports. Longer
	// than ProbeTimeout by the way there and back.
	AskTimeout time.Duration
	// RecheckEvery is the time between two looks at a node that is agent lost or
	// suspect, in a fleet of up to BeatFleet; it stretches as beats do.
	RecheckEvery time.Duration
	// AgentLostAfter is how long an agent must be silent on a host that answers
	// before it is lost. Nothing hurries, for its replicas run on, and on a node
	// without a free core an agent may be kept waiting for half a second.
	AgentLostAfter time.Duration
	// DeadAfter is how long a suspect node's silence must be confirmed before it
	// is dead. Its replicas have spares by then, so nothing hurries.
	DeadAfter time.Duration
	// AgentLostGrace is how long a node may be agent lost before its replicas
	// are relieved. The machine does not use it: whoever acts on verdicts does,
	// and finds the promise beside the others.
	AgentLostGrace time.Duration
}

// DefaultLimits gives the limits for production: a power cut is suspected 0.4 to
// 0.5 s after it (BeatMiss beats and jitter since the last beat, then one
// ProbeTimeout).
func DefaultLimits() Limits {
	return Limits{
		BeatEvery:      100 * time.Millisecond,
		BeatFleet:      200,
		BeatMiss:       3,
		BeatJitter:     50 * time.Millisecond,
		ReconnectGrace: 2 * time.Second,
		Witnesses:      3,
		ProbeTimeout:   150 * time.Millisecond,
		AskTimeout:     250 * time.Millisecond,
		RecheckEvery:   500 * time.Millisecond,
		AgentLostAfter: time.Second,
		DeadAfter:      60 * time.Second,
		AgentLostGrace: 30 * time.Second,
	}
}

// BeatInterval is the time between two beats of each node in a fleet of so many
// nodes: BeatEvery for up to BeatFleet, then one BeatEvery more for every further
// BeatFleet, so that the leader's beats per second stay within its budget and
// the interval changes seldom.
func (l Limits) BeatInterval(nodes int) time.Duration {
	l = l.withDefaults()
	return time.Duration(max(1, (nodes+l.BeatFleet-1)/l.BeatFleet)) * l.BeatEvery
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	orDefault(&l.BeatEvery, d.BeatEvery)
	orDefault(&l.BeatFleet, d.BeatFleet)
	orDefault(&l.BeatMiss, d.BeatMiss)
	orDefault(&l.BeatJitter, d.BeatJitter)
	orDefault(&l.ReconnectGrace, d.ReconnectGrace)
	orDefault(&l.Witnesses, d.Witnesses)
	orDefault(&l.ProbeTimeout, d.ProbeTimeout)
	orDefault(&l.AskTimeout, d.AskTimeout)
	orDefault(&l.RecheckEvery, d.RecheckEvery)
	orDefault(&l.AgentLostAfter, d.AgentLostAfter)
	orDefault(&l.DeadAfter, d.DeadAfter)
	orDefault(&l.AgentLostGrace, d.AgentLostGrace)
	return l
}

func orDefault[T int | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}
