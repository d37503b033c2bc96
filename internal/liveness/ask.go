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
	early     bool // begun before BeatMiss beats were missing
	done      bool
}

func (n *node) asking() bool { return n.ask != nil && !n.ask.done }

// alive is an answer that rules out suspicion: the host's, and of its replicas'
// ports, where it has any, at least one's. Single replicas that do not answer
// are their probes' business, not the node's.
func (r WitnessReport) alive() bool {
	return r.HostAnswers && (r.PortsAsked == 0 || r.PortsAnswered > 0)
}

// look has the node looked at now because of news about it. Where that is under
// way already, the news may be what a conclusion waited for.
func (m *Machine) look(n *node) {
	if n.asking() {
		m.concludeIfComplete(n)
	} else {
		m.startAsk(n)
	}
}

// startAsk has the node looked at now, unless that is under way or it is dead.
func (m *Machine) startAsk(n *node) {
	if n.verdict == Dead || n.asking() {
		return
	}
	if m.late(n) {
		m.noLongerWitness(n, false)
	}
	m.asks++
	witnesses := m.witnesses(n, m.asks)
	observers := append(witnesses, LeaderObserver)
	n.ask = &ask{id: m.asks, observers: observers, waiting: slices.Clone(observers),
		deadline: m.now.Add(m.limits.AskTimeout),
		early:    n.session && !n.hinted && m.now.Before(m.missedAt(n))}
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
// so that two nodes lost together are found as fast as one. One that is only late
// itself is no longer waited for by early looks: they can be had again.
func (m *Machine) noLongerWitness(w *node, lost bool) {
	targets := w.witnessOf
	w.witnessOf = nil
	for _, n := range targets {
		if !n.asking() {
			continue
		}
		if !lost && !n.ask.early {
			w.witnessOf = append(w.witnessOf, n)
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
		if w := m.nodes[m.names[(start+i)%len(m.names)]]; w != target && m.canWitness(w) {
			pool = append(pool, w.name)
		}
	}
	slices.SortFunc(pool, func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(target.name, a, id), rank(target.name, b, id)), cmp.Compare(a, b))
	})
	return pool[:min(len(pool), m.limits.Witnesses)]
}

func (m *Machine) canWitness(w *node) bool {
	return w.name != LeaderObserver && w.verdict == Healthy && !w.asking() && !m.late(w)
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
		a.reported(r.Observer) {
		return
	}
	a.reports = append(a.reports, r)
	if a.done {
		n.silentBy = m.silentBy(a)
		if r.alive() && n.verdict == Suspect {
			n.silentSince = time.Time{}
			m.setVerdict(n, AgentLost, cause{"host answers, reported late", []string{r.Observer}, append(m.silence(n), evidenceOf(a)...)})
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
// answer is enough, silence needs everybody, and the beats to be missing.
func (m *Machine) concludeIfComplete(n *node) {
	held := m.late(n) && m.now.Before(m.holdUntil(n))
	if slices.ContainsFunc(n.ask.reports, WitnessReport.alive) || len(n.ask.waiting) == 0 && !held {
		m.conclude(n)
	}
}

// concludeAt is when time concludes the node's open ask: when reports are no
// longer waited for and it is late enough for what they may say. One that ends
// before the node is late, begun by gossip, says nothing and need not wait.
func (m *Machine) concludeAt(n *node) time.Time {
	switch a := n.ask; {
	case len(a.waiting) == 0:
		return m.holdUntil(n)
	case n.session && a.deadline.Before(m.lateAt(n)):
		return a.deadline
	default:
		return later(a.deadline, m.holdUntil(n))
	}
}

// conclude closes the node's open ask and draws the verdict from its reports. It
// does not see observers that did not report: they are no evidence.
func (m *Machine) conclude(n *node) {
	a := n.ask
	m.releaseWitnesses(n)
	a.done = true
	n.silentBy = m.silentBy(a)
	switch {
	case len(a.reports) == 0:
		n.notBefore = m.now // the ask took its time; the next one may start
		return
	case !m.late(n):
		n.notBefore = m.lateAt(n) // it beats; if the next beat is missing, look again
		return
	}
	n.notBefore = m.now.Add(m.recheckEvery())
	switch {
	case slices.ContainsFunc(a.reports, WitnessReport.alive):
		m.concludeAlive(n)
	case m.thin(n):
		m.startAsk(n)
	case slices.ContainsFunc(a.reports, func(r WitnessReport) bool { return r.HostAnswers }):
		n.silentSince = time.Time{}
		m.setVerdict(n, Suspect, m.causeOf(n, "agent silent %s, host answers, its replicas' ports do not", told(m.now.Sub(n.heard))))
	default:
		m.concludeSilent(n)
	}
}

// concludeAlive: somebody got an answer from the host and its replicas.
func (m *Machine) concludeAlive(n *node) {
	a := n.ask
	n.silentSince = time.Time{}
	lost := n.heard.Add(m.limits.AgentLostAfter)
	if m.now.Before(lost) && (n.verdict == Healthy || n.verdict == Back) {
		// Busy, by all that is known; the host is looked at again.
		n.notBefore = earlier(n.notBefore, lost)
		if missed := m.missedAt(n); n.session && m.now.Before(missed) {
			n.notBefore = missed // it may have lost its power since
		}
		return
	}
	answers := 0
	var by []string
	for _, r := range a.reports {
		if r.HostAnswers {
			answers++
		}
		if r.alive() {
			by = append(by, r.Observer)
		}
	}
	c := m.causeOf(n, "agent silent %s, host answers %d of %d observers", told(m.now.Sub(n.heard)), answers, len(a.reports))
	c.by = by
	m.setVerdict(n, AgentLost, c)
}

// concludeSilent: nobody got any answer.
func (m *Machine) concludeSilent(n *node) {
	a := n.ask
	if n.silentSince.IsZero() {
		n.silentSince = m.now
	}
	c := m.causeOf(n, "silent %s, no answer to %d of %d observers", told(m.now.Sub(n.heard)), len(a.reports), len(a.reports))
	if n.verdict == Suspect && m.lasts(n.silentSince, m.limits.DeadAfter) && len(n.silentBy) > 0 && m.mayDie() {
		m.setVerdict(n, Dead, c)
		m.endAsk(n)
		return
	}
	m.setVerdict(n, Suspect, c)
}

// thin says that an early look rests on fewer witnesses than could be asked now,
// for some of them were lost with the node. Overlapping saves time, not evidence.
func (m *Machine) thin(n *node) bool {
	a := n.ask
	if !a.early {
		return false
	}
	able := 0
	for _, o := range a.observers {
		if w := m.nodes[o]; w != nil && (a.reported(o) || m.canWitness(w)) {
			able++
		}
	}
	return able < m.limits.Witnesses && able < len(m.witnesses(n, m.asks+1))
}

func (a *ask) reported(observer string) bool {
	return slices.ContainsFunc(a.reports, func(r WitnessReport) bool { return r.Observer == observer })
}

// silentBy names the witnesses off the leader's host that saw silence, if nobody
// saw the host answer. Without any, silence kills nobody: it may be the leader who
// is cut off, and where no witness is left there is no node to put spares on.
func (m *Machine) silentBy(a *ask) []string {
	var by []string
	for _, r := range a.reports {
		if r.HostAnswers {
			return nil
		}
		if !m.besideLeader(r.Observer) {
			by = append(by, r.Observer)
		}
	}
	return by
}

// besideLeader tells whether an observer looks from the leader's own host. The two
// are cut off together, so its word on silence adds nothing to the leader's.
func (m *Machine) besideLeader(observer string) bool {
	w := m.nodes[observer]
	return observer == LeaderObserver || w != nil && m.host != "" && w.boot == m.host
}

// causeOf gives the cause of a verdict that rests on all reports of the node's ask.
func (m *Machine) causeOf(n *node, why string, args ...any) cause {
	c := cause{why: fmt.Sprintf(why, args...), evidence: append(m.silence(n), evidenceOf(n.ask)...)}
	for _, r := range n.ask.reports {
		c.by = append(c.by, r.Observer)
	}
	return c
}

// evidenceOf gives a line per observer asked, in the order of asking.
func evidenceOf(a *ask) []string {
	lines := make([]string, 0, len(a.observers))
	for _, o := range a.observers {
		line := o + ": no report by then"
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
