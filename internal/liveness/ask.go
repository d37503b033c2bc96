package liveness

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
	"time"
)

// witnessPool is how many eligible nodes compete to be a target's witnesses. In a
// larger fleet the contest is held among this many neighbours of a place that the
// hash chooses, so that an ask costs the same in a fleet of ten thousand.
const witnessPool = 32

// witnessScan bounds the search for them. Where so many neighbours in a row are
// no use the fleet is in such trouble that the leader looks for itself, and its
// loop may not be spent on walking all names for every node.
const witnessScan = 512

// ask is one look at a target. It is open until it is concluded; a concluded one
// is kept, because an answer that comes late is still an answer.
type ask struct {
	id        uint64
	observers []string
	waiting   []string // observers whose report may still come
	reports   []WitnessReport
	deadline  time.Time
	done      bool
}

func (n *node) asking() bool { return n.ask != nil && !n.ask.done }

// alive is an answer that rules out suspicion: the host's, and of its replicas'
// ports, where it has any, at least one's. Single replicas that do not answer
// are their probes' business, not the node's.
func (r WitnessReport) alive() bool {
	return r.HostAnswers && (r.PortsAsked == 0 || r.PortsAnswered > 0)
}

// startAsk has the node looked at now, unless that is under way or it is dead.
func (m *Machine) startAsk(n *node) {
	if n.verdict == Dead || n.asking() {
		return
	}
	m.asks++
	witnesses := m.witnesses(n, m.asks)
	observers := append(witnesses, LeaderObserver)
	n.ask = &ask{id: m.asks, observers: observers, waiting: slices.Clone(observers),
		deadline: m.now.Add(m.limits.AskTimeout)}
	for _, w := range witnesses {
		m.nodes[w].witnessOf = append(m.nodes[w].witnessOf, n)
	}
	m.out = append(m.out, AskWitnesses{Target: n.name, AskID: m.asks,
		Observers: slices.Clone(observers), Timeout: m.limits.ProbeTimeout})
}

// endAsk forgets a node's ask without a conclusion.
func (m *Machine) endAsk(n *node) {
	if n.ask != nil {
		m.releaseWitnesses(n)
		n.ask = nil
	}
}

func (m *Machine) releaseWitnesses(n *node) {
	for _, name := range n.ask.waiting {
		if w, ok := m.nodes[name]; ok {
			w.witnessOf = slices.DeleteFunc(w.witnessOf, func(t *node) bool { return t == n })
		}
	}
	n.ask.waiting = nil
}

// noLongerWitness stops waiting for a node that lost its session or its health,
// so that two nodes lost together are found as fast as one.
func (m *Machine) noLongerWitness(w *node) {
	targets := w.witnessOf
	w.witnessOf = nil
	for _, n := range targets {
		if !n.asking() {
			continue
		}
		n.ask.waiting = slices.DeleteFunc(n.ask.waiting, func(o string) bool { return o == w.name })
		m.concludeIfComplete(n)
		m.schedule(n)
	}
}

// witnesses chooses by hash(target, observer, ask) among healthy nodes that have
// a session and beat on time.
func (m *Machine) witnesses(target *node, id uint64) []string {
	var pool []string
	start := int(rank(target.name, "", id) % uint64(len(m.names)))
	for i := 0; i < min(len(m.names), witnessScan) && len(pool) < witnessPool; i++ {
		w := m.nodes[m.names[(start+i)%len(m.names)]]
		if w != target && w.name != LeaderObserver && w.verdict == Healthy && !w.asking() && !m.late(w) {
			pool = append(pool, w.name)
		}
	}
	slices.SortFunc(pool, func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(target.name, a, id), rank(target.name, b, id)), cmp.Compare(a, b))
	})
	return pool[:min(len(pool), m.limits.Witnesses)]
}

func rank(target, observer string, id uint64) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s\x00%s\x00%d", target, observer, id)
	// FNV leaves names that differ in their last byte close together; the
	// finisher of splitmix64 spreads them.
	x := h.Sum64()
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// report takes what one observer saw. Reports of older asks, of strangers and
// second ones are no evidence.
func (m *Machine) report(n *node, r WitnessReport) {
	a := n.ask
	if a == nil || a.id != r.AskID || !slices.Contains(a.observers, r.Observer) ||
		slices.ContainsFunc(a.reports, func(o WitnessReport) bool { return o.Observer == r.Observer }) {
		return
	}
	a.reports = append(a.reports, r)
	if a.done {
		if r.alive() && n.verdict == Suspect {
			n.silentSince = time.Time{}
			m.setVerdict(n, AgentLost, "host answers, reported late", append(m.silence(n), evidenceOf(a)...))
		}
		return
	}
	a.waiting = slices.DeleteFunc(a.waiting, func(o string) bool { return o == r.Observer })
	if w, ok := m.nodes[r.Observer]; ok {
		w.witnessOf = slices.DeleteFunc(w.witnessOf, func(t *node) bool { return t == n })
	}
	m.concludeIfComplete(n)
}

// concludeIfComplete concludes as soon as more reports could change nothing: one
// answer is enough, silence needs everybody.
func (m *Machine) concludeIfComplete(n *node) {
	if len(n.ask.waiting) == 0 || slices.ContainsFunc(n.ask.reports, WitnessReport.alive) {
		m.conclude(n)
	}
}

// conclude closes the node's open ask and draws the verdict from its reports. It
// does not see observers that did not report: they are no evidence.
func (m *Machine) conclude(n *node) {
	a := n.ask
	m.releaseWitnesses(n)
	a.done = true
	switch {
	case len(a.reports) == 0:
		n.notBefore = m.now // the ask took its time; the next one may start
		return
	case !m.late(n):
		n.notBefore = m.lateAt(n) // it beats; if the next beat is missing, look again
		return
	}
	n.notBefore = m.now.Add(m.recheckEvery())

	answers := 0
	alive := false
	for _, r := range a.reports {
		alive = alive || r.alive()
		if r.HostAnswers {
			answers++
		}
	}
	quiet := told(m.now.Sub(n.heard))
	evidence := append(m.silence(n), evidenceOf(a)...)
	if answers > 0 {
		n.silentSince = time.Time{}
		if lost := n.heard.Add(m.limits.AgentLostAfter); alive && m.now.Before(lost) && (n.verdict == Healthy || n.verdict == Back) {
			n.notBefore = earlier(n.notBefore, lost) // busy, by all that is known; the host is looked at again
			return
		}
		if alive {
			m.setVerdict(n, AgentLost, fmt.Sprintf("agent silent %s, host answers %d of %d observers", quiet, answers, len(a.reports)), evidence)
		} else {
			m.setVerdict(n, Suspect, fmt.Sprintf("agent silent %s, host answers, its replicas' ports do not", quiet), evidence)
		}
		return
	}
	if n.silentSince.IsZero() {
		n.silentSince = m.now
	}
	why := fmt.Sprintf("silent %s, no answer to %d of %d observers", quiet, len(a.reports), len(a.reports))
	if n.verdict == Suspect && m.now.Sub(n.silentSince) >= m.limits.DeadAfter && confirmed(a) {
		m.setVerdict(n, Dead, why, evidence)
		m.endAsk(n)
		return
	}
	m.setVerdict(n, Suspect, why, evidence)
}

// confirmed says that silence was seen by a witness, or that there was none to
// ask, so that the leader's word must do. The leader alone may be the one who is
// cut off.
func confirmed(a *ask) bool {
	return len(a.observers) == 1 ||
		slices.ContainsFunc(a.reports, func(r WitnessReport) bool { return r.Observer != LeaderObserver })
}

// evidenceOf gives a line per observer asked, in the order of asking.
func evidenceOf(a *ask) []string {
	lines := make([]string, 0, len(a.observers))
	for _, o := range a.observers {
		line := o + ": did not report"
		for _, r := range a.reports {
			if r.Observer != o {
				continue
			}
			line = o + ": no answer"
			if r.HostAnswers {
				line = o + ": host answers"
			}
			if r.PortsAsked > 0 {
				line += fmt.Sprintf(", %d of %d ports", r.PortsAnswered, r.PortsAsked)
			}
			if r.How != "" {
				line += " (" + r.How + ")"
			}
		}
		lines = append(lines, line)
	}
	return lines
}
