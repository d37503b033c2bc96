package liveness

import (
	"errors"
	"fmt"
	"time"

	"github.com/orchctl/orch/internal/settings"
)

// Limits are the machine's numbers; Table says of each what it is and why. A zero
// field means its value in DefaultLimits; none may be negative.
type Limits struct {
	// Beats and looks.
	BeatEvery      time.Duration
	BeatFleet      int
	BeatMiss       int
	BeatJitter     time.Duration // the least tolerance of a late beat
	JitterMax      time.Duration // the most
	ReconnectGrace time.Duration
	Witnesses      int
	ProbeTimeout   time.Duration
	AskTimeout     time.Duration
	RecheckEvery   time.Duration

	// Verdicts.
	AgentLostAfter time.Duration
	AgentLostGrace time.Duration // for whoever relieves; the machine does not use it
	DeadAfter      time.Duration

	// Nodes that beat but cannot work.
	SelfCheckStale time.Duration
	SelfCheckGood  time.Duration
	PressureMax    float64 // a share
	PressureFor    time.Duration
	ImpairedGrace  time.Duration // for whoever relieves; the machine does not use it

	// Nodes that go and come back.
	FlapDamp     float64 // penalties; a return is 1
	FlapReuse    float64
	FlapMax      float64
	FlapHalfLife time.Duration

	// Many that vanish at once.
	MassMin         int
	MassShare       float64
	MassWindow      time.Duration
	FreezeConfirm   time.Duration
	FreezeMax       time.Duration
	FreezeDeadEvery time.Duration
	FreezeDeadShare float64
}

// DefaultLimits gives the limits for production. A power cut is suspected 0.35 s
// after the last beat, so 0.25 to 0.35 s after it: at 150 ms one beat is late and
// observers look (150 ms), at 350 ms three beats are missing.
func DefaultLimits() Limits {
	return Limits{
		BeatEvery:      100 * time.Millisecond,
		BeatFleet:      200,
		BeatMiss:       3,
		BeatJitter:     50 * time.Millisecond,
		JitterMax:      300 * time.Millisecond,
		ReconnectGrace: 2 * time.Second,
		Witnesses:      3,
		ProbeTimeout:   150 * time.Millisecond,
		AskTimeout:     250 * time.Millisecond,
		RecheckEvery:   500 * time.Millisecond,

		AgentLostAfter: time.Second,
		AgentLostGrace: 30 * time.Second,
		DeadAfter:      60 * time.Second,

		SelfCheckStale: 10 * time.Second,
		SelfCheckGood:  10 * time.Second,
		PressureMax:    0.9,
		PressureFor:    30 * time.Second,
		ImpairedGrace:  30 * time.Second,

		FlapDamp:     3,
		FlapReuse:    1.5,
		FlapMax:      12,
		FlapHalfLife: 2 * time.Minute,

		MassMin:         2,
		MassShare:       0.2,
		MassWindow:      5 * time.Second,
		FreezeConfirm:   10 * time.Second,
		FreezeMax:       60 * time.Second,
		FreezeDeadEvery: 10 * time.Second,
		FreezeDeadShare: 0.01,
	}
}

// settings binds every field to its name. It is the one list of them.
func (l *Limits) settings() []settings.Setting {
	return []settings.Setting{
		settings.Duration("beat-every", &l.BeatEvery, "time between two beats of a node, in a fleet of up to beat-fleet nodes; a larger fleet stretches it"),
		settings.Count("beat-fleet", &l.BeatFleet, "nodes that beat every beat-every; together they are the leader's budget of beats per second"),
		settings.Count("beat-miss", &l.BeatMiss, "beats in a row that must be missing before a node is suspected; two are lost to one hiccup of a switch"),
		settings.Duration("beat-jitter", &l.BeatJitter, "the least by which a beat may be late; scheduling on a loaded node delays one by tens of milliseconds"),
		settings.Duration("jitter-max", &l.JitterMax, "the most to which a node's tolerance grows with the jitter of its beats; each node has its own"),
		settings.Duration("reconnect-grace", &l.ReconnectGrace, "how long a node may be without a session before anybody looks: after a takeover, after it joined, after its agent said goodbye to be upgraded"),
		settings.Count("witnesses", &l.Witnesses, "other agents that are asked about a quiet node; three see around one broken path and cost little"),
		settings.Duration("probe-timeout", &l.ProbeTimeout, "how long an observer waits for the host's answer; a LAN takes under 1 ms, the rest is room for one lost packet, sent again"),
		settings.Duration("ask-timeout", &l.AskTimeout, "how long observers' reports are waited for: probe-timeout and the way there and back"),
		settings.Duration("recheck-every", &l.RecheckEvery, "time between two looks at a node that is agent lost or suspect; it stretches as beats do"),

		settings.Duration("agent-lost-after", &l.AgentLostAfter, "how long an agent must be silent on a host that answers before it is lost; without a free core it may be kept waiting for half a second, and its replicas run on"),
		settings.Duration("agent-lost-grace", &l.AgentLostGrace, "how long a node may be agent lost before its replicas are relieved; longer than any upgrade of an agent takes"),
		settings.Duration("dead-after", &l.DeadAfter, "how long a suspect node's silence must be confirmed before it is dead; its replicas have spares by then, so nothing hurries"),

		settings.Duration("self-check-stale", &l.SelfCheckStale, "age of the last good self-check above which a node that beats is impaired; agents check every 3 s"),
		settings.Duration("self-check-good", &l.SelfCheckGood, "how long an impaired node's checks must be good without a break before it works again"),
		settings.Share("pressure-max", &l.PressureMax, "share of time in which every task waits for disk or memory from which a node cannot work; the processor never counts, for it is shared by weight"),
		settings.Duration("pressure-for", &l.PressureFor, "how long that pressure must last without a break; a large image unpacks in less"),
		settings.Duration("impaired-grace", &l.ImpairedGrace, "how long a node may be impaired before its replicas are relieved; containerd restarts in seconds"),

		settings.Number("flap-damp", &l.FlapDamp, "penalty from which a node that goes and comes back is damped; each return adds 1"),
		settings.Number("flap-reuse", &l.FlapReuse, "penalty below which it is no longer damped; below flap-damp, so that one return more or less does not toggle it"),
		settings.Number("flap-max", &l.FlapMax, "penalty that is never exceeded, so that a node which is steady again is used again within minutes"),
		settings.Duration("flap-half-life", &l.FlapHalfLife, "time in which a penalty halves; a node that goes every quarter of an hour is not flapping"),

		settings.Count("mass-min", &l.MassMin, "nodes that may vanish within mass-window before verdicts freeze, however small the fleet is"),
		settings.Share("mass-share", &l.MassShare, "share of the fleet that may; more at once is the network's fault or the leader's rather than theirs"),
		settings.Duration("mass-window", &l.MassWindow, "the time within which they vanish; a switch that fails is found by all behind it within a second or two"),
		settings.Duration("freeze-confirm", &l.FreezeConfirm, "how long witnesses off the leader's host must agree that every suspect node is silent before a freeze is lifted; a network that converges anew takes less"),
		settings.Duration("freeze-max", &l.FreezeMax, "after which nodes die again during a freeze that nobody could confirm, a few at a time"),
		settings.Duration("freeze-dead-every", &l.FreezeDeadEvery, "time between two such deaths, so that an operator can see what is going on and step in"),
		settings.Share("freeze-dead-share", &l.FreezeDeadShare, "share of the fleet that may die at once then, at least one node; one by one would take a day in a fleet of thousands"),
	}
}

// Table gives every limit with its value and what it is for; a zero field shows
// its default.
func (l Limits) Table() []settings.Setting {
	l = l.withDefaults()
	return l.settings()
}

// Set gives one limit a value by its name, as Table shows them. Validate tells
// afterwards whether all of them make sense together.
func (l *Limits) Set(name, value string) error {
	return settings.Set(l.settings(), name, value)
}

// Validate tells what is wrong with the limits, all of it.
func (l Limits) Validate() error {
	l = l.withDefaults()
	problems := []error{settings.Check(l.settings())}
	want := func(holds bool, format string, args ...any) {
		if !holds {
			problems = append(problems, fmt.Errorf(format, args...))
		}
	}
	missed := time.Duration(l.BeatMiss)*l.BeatEvery + l.BeatJitter
	want(l.JitterMax >= l.BeatJitter, "jitter-max %s is below beat-jitter %s", l.JitterMax, l.BeatJitter)
	want(l.AskTimeout >= l.ProbeTimeout, "ask-timeout %s is below probe-timeout %s: no report would come in time", l.AskTimeout, l.ProbeTimeout)
	want(l.RecheckEvery >= l.BeatEvery, "recheck-every %s is below beat-every %s", l.RecheckEvery, l.BeatEvery)
	want(l.AgentLostAfter >= missed, "agent-lost-after %s is below %s, the time in which beat-miss beats are missed", l.AgentLostAfter, missed)
	want(l.DeadAfter >= l.AgentLostAfter, "dead-after %s is below agent-lost-after %s", l.DeadAfter, l.AgentLostAfter)
	want(l.DeadAfter >= 2*l.RecheckEvery, "dead-after %s leaves no room for two looks, recheck-every %s", l.DeadAfter, l.RecheckEvery)
	want(l.FlapReuse < l.FlapDamp, "flap-reuse %g is not below flap-damp %g", l.FlapReuse, l.FlapDamp)
	want(l.FlapMax >= l.FlapDamp, "flap-max %g is below flap-damp %g: nothing would ever be damped", l.FlapMax, l.FlapDamp)
	want(l.FreezeMax >= l.FreezeConfirm, "freeze-max %s is below freeze-confirm %s", l.FreezeMax, l.FreezeConfirm)
	return errors.Join(problems...)
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
	orDefault(&l.JitterMax, max(d.JitterMax, l.BeatJitter))
	orDefault(&l.ReconnectGrace, d.ReconnectGrace)
	orDefault(&l.Witnesses, d.Witnesses)
	orDefault(&l.ProbeTimeout, d.ProbeTimeout)
	orDefault(&l.AskTimeout, d.AskTimeout)
	orDefault(&l.RecheckEvery, d.RecheckEvery)
	orDefault(&l.AgentLostAfter, d.AgentLostAfter)
	orDefault(&l.AgentLostGrace, d.AgentLostGrace)
	orDefault(&l.DeadAfter, d.DeadAfter)
	orDefault(&l.SelfCheckStale, d.SelfCheckStale)
	orDefault(&l.SelfCheckGood, d.SelfCheckGood)
	orDefault(&l.PressureMax, d.PressureMax)
	orDefault(&l.PressureFor, d.PressureFor)
	orDefault(&l.ImpairedGrace, d.ImpairedGrace)
	orDefault(&l.FlapDamp, d.FlapDamp)
	orDefault(&l.FlapReuse, d.FlapReuse)
	orDefault(&l.FlapMax, d.FlapMax)
	orDefault(&l.FlapHalfLife, d.FlapHalfLife)
	orDefault(&l.MassMin, d.MassMin)
	orDefault(&l.MassShare, d.MassShare)
	orDefault(&l.MassWindow, d.MassWindow)
	orDefault(&l.FreezeConfirm, d.FreezeConfirm)
	orDefault(&l.FreezeMax, d.FreezeMax)
	orDefault(&l.FreezeDeadEvery, d.FreezeDeadEvery)
	orDefault(&l.FreezeDeadShare, d.FreezeDeadShare)
	return l
}

func orDefault[T int | float64 | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}
