package liveness

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// freeze is the fleet's, not a node's. When many nodes vanish at once it is more
// likely the network's fault, or the leader's own, than theirs: then silence kills
// nobody, until others than the leader have confirmed it or somebody says so.
type freeze struct {
	since time.Time // zero: not frozen
	falls []fall    // within MassWindow, while not frozen

	suspects [standings]int // suspect nodes by what their latest look says
	agreed   time.Time      // since when witnesses agree about all of them; zero: they do not

	burial  time.Time // when the latest deaths were allowed in spite of the freeze
	burials int
}

func (f *freeze) on() bool { return !f.since.IsZero() }

// fall is a node that vanished: it was or should have been there, and became
// suspect or agent lost.
type fall struct {
	node *node
	at   time.Time
}

// standing is what the latest look at a suspect node says.
type standing uint8

const (
	notSuspect  standing = iota
	answering            // its host answers, its replicas do not: it cannot die by silence
	unconfirmed          // silent, by the leader's word alone
	confirmed            // silent, by a witness's word, and nobody says otherwise
	standings
)

// fleetLines bounds the evidence of a freeze, which may be about thousands.
const fleetLines = 20

// fell counts a node that vanished, and freezes when it is one too many. A node
// that was never heard in this term counts too: the term may have begun because
// of what took them.
func (m *Machine) fell(n *node) {
	f := &m.freeze
	if f.on() {
		return
	}
	f.falls = slices.DeleteFunc(f.falls, func(x fall) bool {
		return x.node == n || m.now.Sub(x.at) > m.limits.MassWindow
	})
	f.falls = append(f.falls, fall{n, m.now})
	fleet := m.living()
	most := max(m.limits.MassMin, int(m.limits.MassShare*float64(fleet)))
	if len(f.falls) <= most {
		return
	}
	var lines []string
	for _, x := range f.falls {
		lines = append(lines, fmt.Sprintf("%s: %s, %s ago", x.node.name, x.node.verdict, told(m.now.Sub(x.at))))
	}
	f.since, f.agreed, f.burial, f.burials = m.now, time.Time{}, time.Time{}, 0
	m.out = append(m.out, SetFrozen{Frozen: true,
		Why:      fmt.Sprintf("%d of %d nodes vanished within %s, more than %d", len(f.falls), fleet, m.limits.MassWindow, most),
		Evidence: bounded(lines)})
	f.falls = nil
}

// living counts the nodes that are not dead.
func (m *Machine) living() int { return len(m.names) - m.count[Dead] }

// stand keeps the count of suspect nodes by standing. A node that becomes suspect
// anew must be agreed about for as long as the others.
func (m *Machine) stand(n *node) {
	now := notSuspect
	if n.verdict == Suspect {
		switch {
		case n.silentSince.IsZero():
			now = answering
		case len(n.silentBy) == 0:
			now = unconfirmed
		default:
			now = confirmed
		}
	}
	if now == n.standing {
		return
	}
	f := &m.freeze
	f.suspects[n.standing]--
	f.suspects[now]++
	n.standing = now
	if now != notSuspect {
		f.agreed = time.Time{}
	}
}

// mayDie says whether silence may kill a node now. After FreezeMax it may again,
// but only so few at a time that somebody can still step in.
func (m *Machine) mayDie() bool {
	f, l := &m.freeze, &m.limits
	switch {
	case !f.on():
		return true
	case m.now.Before(f.since.Add(l.FreezeMax)):
		return false
	case f.burial.IsZero() || m.now.Sub(f.burial) >= l.FreezeDeadEvery:
		f.burial, f.burials = m.now, 0
	}
	if f.burials >= max(1, int(l.FreezeDeadShare*float64(m.living()))) {
		return false
	}
	f.burials++
	return true
}

// settleFreeze lifts a freeze whose reason is gone. It looks at what a step has
// led to, not at what happened within.
func (m *Machine) settleFreeze() {
	f, l := &m.freeze, &m.limits
	if !f.on() {
		return
	}
	switch {
	case f.suspects[confirmed] == 0 || f.suspects[unconfirmed]+f.suspects[answering] > 0:
		f.agreed = time.Time{}
	case f.agreed.IsZero():
		f.agreed = m.now
	}
	silent := f.suspects[confirmed] + f.suspects[unconfirmed]
	switch {
	case m.count[Suspect]+m.count[AgentLost] == 0:
		m.thaw("no node is suspect or agent lost any more", nil)
	case m.lasts(f.agreed, l.FreezeConfirm):
		m.thaw(fmt.Sprintf("witnesses agree for %s that all suspect nodes (%d) are silent", told(m.now.Sub(f.agreed)), silent), m.agreement())
	case silent == 0 && m.lasts(f.since, l.FreezeMax):
		m.thaw(fmt.Sprintf("after %s no node is left that could die by its silence", told(m.now.Sub(f.since))), nil)
	}
}

func (m *Machine) thaw(why string, evidence []string) {
	if m.freeze.on() {
		m.freeze.since, m.freeze.agreed = time.Time{}, time.Time{}
		m.out = append(m.out, SetFrozen{Why: why, Evidence: evidence})
	}
}

// agreement says who agreed about whom.
func (m *Machine) agreement() []string {
	var lines []string
	for _, name := range m.names {
		if n := m.nodes[name]; n.standing == confirmed {
			lines = append(lines, fmt.Sprintf("%s: silent for %s by the word of %s", name, told(m.now.Sub(n.heard)), strings.Join(n.silentBy, ", ")))
		}
	}
	return bounded(lines)
}

func bounded(lines []string) []string {
	if more := len(lines) - fleetLines; more > 0 {
		return append(slices.Clone(lines[:fleetLines]), fmt.Sprintf("and %d more", more))
	}
	return lines
}

// freezeWake is when time next acts on a freeze.
func (m *Machine) freezeWake() (time.Time, bool) {
	f := &m.freeze
	switch most := f.since.Add(m.limits.FreezeMax); {
	case !f.on():
		return time.Time{}, false
	case !f.agreed.IsZero() && m.now.Before(most):
		return earlier(most, f.agreed.Add(m.limits.FreezeConfirm)), true
	case !f.agreed.IsZero():
		return f.agreed.Add(m.limits.FreezeConfirm), true
	default:
		return most, m.now.Before(most)
	}
}
