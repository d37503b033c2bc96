package liveness

import (
	"fmt"
	"math"
	"time"
)

// flaps counts a node's returns as route flap damping does (RFC 2439): each adds 1
// to a penalty that halves with time; a high one damps the node until it has
// decayed to a much lower one.
type flaps struct {
	penalty float64
	at      time.Time // when penalty was so high
	until   time.Time // damped until then; zero: not damped
}

// returned counts a return to Back from agent lost or suspect. Where many vanished
// at once it was not the node that flapped, and a whole fleet that is damped could
// place nothing.
func (m *Machine) returned(n *node) {
	if m.freeze.on() {
		return
	}
	f, l := &n.flaps, &m.limits
	halvings := float64(m.now.Sub(f.at)) / float64(l.FlapHalfLife)
	f.penalty = min(f.penalty*math.Exp2(-halvings)+1, l.FlapMax)
	f.at = m.now
	if f.penalty < l.FlapDamp && f.until.IsZero() {
		return
	}
	steady := math.Log2(f.penalty/l.FlapReuse) * float64(l.FlapHalfLife)
	f.until = m.now.Add(time.Duration(steady)).Truncate(time.Millisecond)
	m.out = append(m.out, SetDamped{Node: n.name, Damped: true, Until: f.until,
		Why: fmt.Sprintf("it goes and comes back too often: penalty %.1f, damped from %.1f on and until below %.1f", f.penalty, l.FlapDamp, l.FlapReuse)})
}

// undamp ends a damping, if there is one.
func (m *Machine) undamp(n *node, why string) {
	if !n.flaps.until.IsZero() {
		n.flaps.until = time.Time{}
		m.out = append(m.out, SetDamped{Node: n.name, Why: why})
	}
}

// dampingOver says that a damping is due to end.
func (m *Machine) dampingOver(n *node) bool {
	return !n.flaps.until.IsZero() && !m.now.Before(n.flaps.until)
}
