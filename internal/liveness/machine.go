package liveness

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Machine holds the verdicts of one leader's term. It is not safe for concurrent
// use: it has one writer.
type Machine struct {
	limits Limits
	nodes  map[string]*node
	names  []string // of nodes, sorted: the order of everything that walks the fleet
	wakes  wakes
	now    time.Time
	woken  time.Time // what the last Wake said; zero: none is out
	asks   uint64    // ids given so far
	out    []Effect

	beat        time.Duration // the interval that beats are held to
	beatLowerAt time.Time     // when a shorter interval counts; zero: none is pending

	host   string        // boot id of the leader's own host; empty: not known
	count  [Back + 1]int // nodes by verdict
	freeze freeze
}

type node struct {
	name    string
	verdict Verdict
	last    Verdict // behind Unknown: what was last known
	boot    string
	session bool

	heard     time.Time // last sign of life, or when the wait for one began
	reported  bool      // in this term
	seq       uint64
	tolerance tolerance
	health    health
	flaps     flaps

	hinted    bool      // gossip calls it silent, and nothing has contradicted that
	notBefore time.Time // no ask before this
	ask       *ask      // the latest; nil when it no longer matters
	witnessOf []*node   // targets whose open ask waits for this node's report

	silentSince time.Time // start of the unbroken run of asks without any answer; zero: none
	silentBy    []string  // witnesses who saw that in the latest one concluded
	standing    standing  // as counted in freeze

	wakeAt time.Time // key in wakes: never later than due
	index  int       // in wakes; -1: not there
}

// New makes a machine that knows no node.
func New(limits Limits) *Machine {
	limits = limits.withDefaults()
	return &Machine{limits: limits, nodes: map[string]*node{}, beat: limits.BeatInterval(0)}
}

// Verdict gives what is held of a node, and whether it is known at all.
func (m *Machine) Verdict(name string) (Verdict, bool) {
	n, ok := m.nodes[name]
	if !ok {
		return Unknown, false
	}
	return n.verdict, true
}

// Step takes one event at a time (which must not go back; if it does, the latest
// counts) and returns what is to be done, in order.
func (m *Machine) Step(ev Event, now time.Time) []Effect {
	if now.After(m.now) {
		m.now = now
	}
	m.out = nil
	m.settleBeat()
	switch ev := ev.(type) {
	case NodeAdded:
		m.add(ev)
	case LeaderStarted:
		m.host = ev.BootID
		m.startTerm()
	case LeaderStalled:
		m.stalled(ev.For)
	case Tick:
		m.tick()
	case NodeRemoved:
		m.of(ev.Node, m.remove)
	case SessionOpened:
		m.of(ev.Node, func(n *node) { m.opened(n, ev) })
	case SessionClosed:
		m.of(ev.Node, func(n *node) { m.closed(n, ev.Graceful) })
	case Beat:
		m.of(ev.Node, func(n *node) { m.beaten(n, ev) })
	case GossipHint:
		m.of(ev.Node, func(n *node) { m.hint(n, ev.Alive) })
	case WitnessReport:
		m.of(ev.Target, func(n *node) { m.report(n, ev) })
	case OperatorDead:
		m.of(ev.Node, func(n *node) { m.operatorDead(n, ev.By) })
	case OperatorThaw:
		m.thaw("thawed by "+operator(ev.By), m.agreement())
	case Reconciled:
		m.of(ev.Node, func(n *node) {
			if n.verdict == Back {
				m.setVerdict(n, Healthy, cause{why: "what ran on it before is settled: kept or stopped", by: []string{LeaderObserver}})
			}
		})
	}
	m.settleFreeze()
	m.announceWake()
	return m.out
}

// of runs f on a known node and sees to its wake afterwards.
func (m *Machine) of(name string, f func(*node)) {
	if n, ok := m.nodes[name]; ok {
		f(n)
		m.schedule(n)
	}
}

// cause is what a change of verdict rests on.
type cause struct {
	why      string
	by       []string // see SetVerdict.By
	evidence []string
}

// agentsWord is the name under which what a node itself says is told.
const agentsWord = "agent"

// setVerdict is the one way by which a verdict changes; what follows from that for
// the node's penalty, its health and the fleet's freeze is counted here.
func (m *Machine) setVerdict(n *node, to Verdict, c cause) {
	from := n.verdict
	if from == to {
		return
	}
	m.out = append(m.out, SetVerdict{Node: n.name, From: from, To: to, Why: c.why, By: c.by, Evidence: c.evidence})
	n.verdict = to
	m.count[from]--
	m.count[to]++
	wasMissing := from == AgentLost || from == Suspect
	switch missing := to == AgentLost || to == Suspect; {
	case missing && !wasMissing:
		m.fell(n)
	case to == Back && wasMissing:
		m.returned(n)
	case to == Dead:
		n.health = health{} // the verdict says more
	}
	if to != Healthy {
		m.noLongerWitness(n, true)
	}
}

func (m *Machine) add(ev NodeAdded) {
	if _, known := m.nodes[ev.Node]; known {
		return
	}
	n := &node{name: ev.Node, last: ev.Verdict, boot: ev.BootID, heard: m.now, index: -1,
		notBefore: m.now.Add(m.limits.ReconnectGrace)}
	n.tolerance.now = m.limits.BeatJitter
	if ev.Verdict == Dead {
		n.verdict = Dead
	}
	m.count[n.verdict]++
	m.nodes[n.name] = n
	at, _ := slices.BinarySearch(m.names, n.name)
	m.names = slices.Insert(m.names, at, n.name)
	m.fleetChanged()
	m.schedule(n)
}

func (m *Machine) remove(n *node) {
	m.endAsk(n)
	m.noLongerWitness(n, true)
	delete(m.nodes, n.name)
	m.count[n.verdict]--
	m.freeze.falls = slices.DeleteFunc(m.freeze.falls, func(x fall) bool { return x.node == n })
	at, _ := slices.BinarySearch(m.names, n.name)
	m.names = slices.Delete(m.names, at, at+1)
	n.verdict, n.flaps = Dead, flaps{} // so that it is never due again
	m.fleetChanged()
}

func (m *Machine) opened(n *node, ev SessionOpened) {
	oldBoot := n.boot
	n.boot = ev.BootID
	n.session, n.reported, n.hinted = true, true, false
	n.heard, n.seq = m.now, 0
	n.notBefore, n.silentSince = time.Time{}, time.Time{}
	n.health.interrupted(m.now)
	m.endAsk(n)
	said := []string{agentsWord}

	if oldBoot != "" && oldBoot != ev.BootID {
		m.setVerdict(n, Dead, cause{"booted again: its old life is over", said,
			[]string{fmt.Sprintf("boot id was %s, is %s", oldBoot, ev.BootID)}})
		m.out = append(m.out, NewLife{Node: n.name, OldBoot: oldBoot, NewBoot: ev.BootID})
		m.undamp(n, "booted again: a new life")
		n.flaps, n.health.beats = flaps{}, m.now
		m.setVerdict(n, Healthy, cause{why: "session opened in a new life", by: said})
		return
	}
	if ev.WasDead && n.verdict != Healthy && n.verdict != Back {
		m.setVerdict(n, Dead, cause{why: "recorded dead in this life"})
		n.health.beats = m.now
	}
	was := n.verdict
	if was == Unknown {
		was = n.last
	}
	switch was {
	case Unknown, Healthy:
		m.setVerdict(n, Healthy, cause{why: "session opened", by: said})
	default:
		m.setVerdict(n, Back, cause{why: fmt.Sprintf("session opened in the same life, was %s", was), by: said})
	}
}

func (m *Machine) closed(n *node, graceful bool) {
	if !n.session {
		return
	}
	n.session = false
	m.noLongerWitness(n, true)
	if graceful {
		m.endAsk(n)
		n.notBefore = m.now.Add(m.limits.ReconnectGrace)
		return
	}
	m.look(n)
}

func (m *Machine) beaten(n *node, ev Beat) {
	if !n.session || n.verdict == Dead || ev.Seq <= n.seq {
		return
	}
	missing := n.verdict == AgentLost || n.verdict == Suspect
	if missing || !m.now.Before(m.missedAt(n)) {
		n.health.interrupted(m.now)
	}
	m.gauge(n)
	n.heard, n.seq = m.now, ev.Seq
	n.hinted = false
	n.notBefore, n.silentSince = time.Time{}, time.Time{}
	m.endAsk(n)
	if missing {
		m.setVerdict(n, Back, cause{why: fmt.Sprintf("beats resumed, was %s", n.verdict), by: []string{agentsWord}})
	}
	m.examine(n, ev.Check)
}

func (m *Machine) hint(n *node, alive bool) {
	n.hinted = !alive
	// Good news about a node that beats needs no look.
	if alive && n.verdict != AgentLost && n.verdict != Suspect {
		return
	}
	m.look(n)
}

func (m *Machine) operatorDead(n *node, by string) {
	n.session, n.silentSince = false, time.Time{}
	m.endAsk(n)
	m.setVerdict(n, Dead, cause{"declared dead by " + by, []string{operator(by)}, m.silence(n)})
}

// operator is how a person's word is told.
func operator(by string) string { return strings.TrimSpace("operator " + by) }

func (m *Machine) startTerm() {
	const why = "a new term began"
	m.thaw(why, nil)
	m.freeze.falls = nil
	for _, name := range m.names {
		n := m.nodes[name]
		m.endAsk(n)
		n.session, n.reported = false, false
		n.witnessOf = nil
		n.heard, n.seq = m.now, 0
		n.silentSince = time.Time{}
		m.undamp(n, why)
		if n.health.impaired {
			m.out = append(m.out, SetImpaired{Node: n.name, Why: why})
		}
		n.flaps, n.health = flaps{}, health{}
		n.notBefore = m.now.Add(m.limits.ReconnectGrace)
		if n.verdict != Dead && n.verdict != Unknown {
			n.last = n.verdict
			m.setVerdict(n, Unknown, cause{why: why})
		}
	}
	// Only now: nobody can be a witness before the whole fleet was reset.
	for _, name := range m.names {
		n := m.nodes[name]
		if n.hinted {
			m.startAsk(n)
		}
	}
	m.rescheduleAll()
}

// stalled moves every wait on by the time in which the leader heard nothing.
func (m *Machine) stalled(by time.Duration) {
	if by <= 0 {
		return
	}
	past := func(at *time.Time) {
		if !at.IsZero() {
			*at = earlier(m.now, at.Add(by))
		}
	}
	for _, name := range m.names {
		n := m.nodes[name]
		past(&n.heard)
		past(&n.silentSince)
		n.health.discount(past)
		if !n.notBefore.IsZero() {
			n.notBefore = n.notBefore.Add(by)
		}
		switch {
		case !n.asking():
		case n.ask.early:
			m.endAsk(n) // what was seen before the stall says nothing of now
		default:
			n.ask.deadline = n.ask.deadline.Add(by)
		}
	}
	f := &m.freeze
	past(&f.since)
	past(&f.agreed)
	past(&f.burial)
	for i := range f.falls {
		past(&f.falls[i].at)
	}
	m.rescheduleAll()
}

// silence tells, for people, what is not heard.
func (m *Machine) silence(n *node) []string {
	var line strings.Builder
	switch quiet := told(m.now.Sub(n.heard)); {
	case !n.reported:
		fmt.Fprintf(&line, "no session in this term for %s", quiet)
	case n.seq == 0:
		fmt.Fprintf(&line, "no beat since its session opened %s ago", quiet)
	default:
		fmt.Fprintf(&line, "last beat %s ago (seq %d, self-check %s old)", quiet, n.seq, told(n.health.check.Age))
	}
	if t := n.tolerance.now; t > m.limits.BeatJitter {
		fmt.Fprintf(&line, ", its beats may be %s late", told(t))
	}
	if n.reported && !n.session {
		line.WriteString(", session closed")
	}
	if n.hinted {
		line.WriteString(", gossip calls it silent")
	}
	return []string{line.String()}
}

// told is a duration as people want to read it.
func told(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
