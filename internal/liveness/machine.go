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
	selfCheck time.Duration

	hinted    bool      // gossip calls it silent, and nothing has contradicted that
	notBefore time.Time // no ask before this
	ask       *ask      // the latest; nil when it no longer matters
	witnessOf []*node   // targets whose open ask waits for this node's report

	silentSince time.Time // start of the unbroken run of asks without any answer; zero: none

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
	case Reconciled:
		m.of(ev.Node, func(n *node) {
			if n.verdict == Back {
				m.setVerdict(n, Healthy, "incumbents settled", nil)
			}
		})
	}
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

// setVerdict is the one way by which a verdict changes. Whatever is to damp,
// limit or freeze verdicts belongs here.
func (m *Machine) setVerdict(n *node, to Verdict, why string, evidence []string) {
	if n.verdict == to {
		return
	}
	m.out = append(m.out, SetVerdict{Node: n.name, From: n.verdict, To: to, Why: why, Evidence: evidence})
	n.verdict = to
	if to != Healthy {
		m.noLongerWitness(n)
	}
}

func (m *Machine) add(ev NodeAdded) {
	if _, known := m.nodes[ev.Node]; known {
		return
	}
	n := &node{name: ev.Node, last: ev.Verdict, boot: ev.BootID, heard: m.now, index: -1,
		notBefore: m.now.Add(m.limits.ReconnectGrace)}
	if ev.Verdict == Dead {
		n.verdict = Dead
	}
	m.nodes[n.name] = n
	at, _ := slices.BinarySearch(m.names, n.name)
	m.names = slices.Insert(m.names, at, n.name)
	m.fleetChanged()
	m.schedule(n)
}

func (m *Machine) remove(n *node) {
	m.endAsk(n)
	m.noLongerWitness(n)
	delete(m.nodes, n.name)
	at, _ := slices.BinarySearch(m.names, n.name)
	m.names = slices.Delete(m.names, at, at+1)
	n.verdict = Dead // so that it is never due again
	m.fleetChanged()
}

func (m *Machine) opened(n *node, ev SessionOpened) {
	oldBoot := n.boot
	n.boot = ev.BootID
	n.session, n.reported, n.hinted = true, true, false
	n.heard, n.seq, n.selfCheck = m.now, 0, 0
	n.notBefore, n.silentSince = time.Time{}, time.Time{}
	m.endAsk(n)

	if oldBoot != "" && oldBoot != ev.BootID {
		m.setVerdict(n, Dead, "booted again: its old life is over",
			[]string{fmt.Sprintf("boot id was %s, is %s", oldBoot, ev.BootID)})
		m.out = append(m.out, NewLife{Node: n.name, OldBoot: oldBoot, NewBoot: ev.BootID})
		m.setVerdict(n, Healthy, "session opened in a new life", nil)
		return
	}
	if ev.WasDead && n.verdict != Healthy && n.verdict != Back {
		m.setVerdict(n, Dead, "recorded dead in this life", nil)
	}
	was := n.verdict
	if was == Unknown {
		was = n.last
	}
	switch was {
	case Unknown, Healthy:
		m.setVerdict(n, Healthy, "session opened", nil)
	default:
		m.setVerdict(n, Back, fmt.Sprintf("session opened in the same life, was %s", was), nil)
	}
}

func (m *Machine) closed(n *node, graceful bool) {
	if !n.session {
		return
	}
	n.session = false
	m.noLongerWitness(n)
	if graceful {
		n.notBefore = m.now.Add(m.limits.ReconnectGrace)
		return
	}
	m.startAsk(n)
}

func (m *Machine) beaten(n *node, ev Beat) {
	if !n.session || n.verdict == Dead || ev.Seq <= n.seq {
		return
	}
	n.heard, n.seq, n.selfCheck = m.now, ev.Seq, ev.Check.Age
	n.hinted = false
	n.notBefore, n.silentSince = time.Time{}, time.Time{}
	m.endAsk(n)
	if n.verdict == AgentLost || n.verdict == Suspect {
		m.setVerdict(n, Back, fmt.Sprintf("beats resumed, was %s", n.verdict), nil)
	}
}

func (m *Machine) hint(n *node, alive bool) {
	n.hinted = !alive
	// Good news about a node that beats needs no look.
	if alive && n.verdict != AgentLost && n.verdict != Suspect {
		return
	}
	m.startAsk(n)
}

func (m *Machine) operatorDead(n *node, by string) {
	n.session, n.silentSince = false, time.Time{}
	m.endAsk(n)
	m.setVerdict(n, Dead, "declared dead by "+by, m.silence(n))
}

func (m *Machine) startTerm() {
	for _, name := range m.names {
		n := m.nodes[name]
		m.endAsk(n)
		n.session, n.reported = false, false
		n.witnessOf = nil
		n.heard, n.seq, n.selfCheck = m.now, 0, 0
		n.silentSince = time.Time{}
		n.notBefore = m.now.Add(m.limits.ReconnectGrace)
		if n.verdict != Dead && n.verdict != Unknown {
			n.last = n.verdict
			m.setVerdict(n, Unknown, "a new term began", nil)
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
	for _, name := range m.names {
		n := m.nodes[name]
		n.heard = earlier(m.now, n.heard.Add(by))
		if !n.notBefore.IsZero() {
			n.notBefore = n.notBefore.Add(by)
		}
		if !n.silentSince.IsZero() {
			n.silentSince = earlier(m.now, n.silentSince.Add(by))
		}
		if n.asking() {
			n.ask.deadline = n.ask.deadline.Add(by)
		}
	}
	m.rescheduleAll()
}

// late says that the node is not heard as it should be: without a session, or
// with one beat overdue. Observers' word counts only then; a hint about a node
// that beats leads nowhere.
func (m *Machine) late(n *node) bool {
	return !n.session || !m.now.Before(m.lateAt(n))
}

func (m *Machine) lateAt(n *node) time.Time {
	return n.heard.Add(m.beat + m.limits.BeatJitter)
}

// missedAt is when BeatMiss beats are missing.
func (m *Machine) missedAt(n *node) time.Time {
	return n.heard.Add(time.Duration(m.limits.BeatMiss)*m.beat + m.limits.BeatJitter)
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
		fmt.Fprintf(&line, "last beat %s ago (seq %d, self-check %s old)", quiet, n.seq, told(n.selfCheck))
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
