package liveness

import (
	"container/heap"
	"time"
)

// NextWake gives the time at which the next Tick is due, and whether one is.
func (m *Machine) NextWake() (time.Time, bool) {
	at, ok := m.nodeWake()
	if fleet, frozen := m.freezeWake(); frozen && (!ok || fleet.Before(at)) {
		return fleet, true
	}
	return at, ok
}

// nodeWake is when time next acts on a node: on the first in wakes.
func (m *Machine) nodeWake() (time.Time, bool) {
	for len(m.wakes) > 0 {
		n := m.wakes[0]
		due, ok := m.due(n)
		switch {
		case !ok:
			heap.Remove(&m.wakes, n.index)
		case due.After(n.wakeAt):
			n.wakeAt = due
			heap.Fix(&m.wakes, n.index)
		default:
			return n.wakeAt, true
		}
	}
	return time.Time{}, false
}

// due is when time next acts on a node.
func (m *Machine) due(n *node) (time.Time, bool) {
	look, ok := m.lookDue(n)
	if damped := n.flaps.until; !damped.IsZero() && (!ok || damped.Before(look)) {
		return damped, true
	}
	return look, ok
}

// lookDue is when a look at the node begins or ends.
func (m *Machine) lookDue(n *node) (time.Time, bool) {
	switch {
	case n.verdict == Dead:
		return time.Time{}, false
	case n.asking():
		return m.concludeAt(n), true
	case n.session && (n.verdict == Healthy || n.verdict == Back):
		return later(n.notBefore, m.lookAt(n)), true
	}
	return n.notBefore, true
}

// tick lets every wait that is over act.
func (m *Machine) tick() {
	for {
		at, ok := m.nodeWake()
		if !ok || at.After(m.now) {
			return
		}
		n := m.wakes[0]
		switch {
		case m.dampingOver(n):
			m.undamp(n, "it was steady for long enough")
		case n.asking():
			m.conclude(n)
		default:
			m.startAsk(n)
		}
		m.schedule(n)
	}
}

// schedule sees to it that the node's wake is not too late. A wake that is too
// early is left alone: a beat, the commonest event, costs nothing here. Everything
// that changes a node ends here, so that its standing is counted here, too.
func (m *Machine) schedule(n *node) {
	m.stand(n)
	due, ok := m.due(n)
	switch {
	case !ok:
		if n.index >= 0 {
			heap.Remove(&m.wakes, n.index)
		}
	case n.index < 0:
		n.wakeAt = due
		heap.Push(&m.wakes, n)
	case due.Before(n.wakeAt):
		n.wakeAt = due
		heap.Fix(&m.wakes, n.index)
	}
}

func (m *Machine) rescheduleAll() {
	for _, name := range m.names {
		m.schedule(m.nodes[name])
	}
}

func (m *Machine) announceWake() {
	at, ok := m.NextWake()
	if !ok {
		return
	}
	if m.woken.IsZero() || at.Before(m.woken) || !m.woken.After(m.now) {
		m.woken = at
		m.out = append(m.out, Wake{At: at})
	}
}

// fleetChanged follows the fleet's size with the interval that beats are held
// to. A longer one counts at once. A shorter one counts after the agents had time
// to hear of it and to beat: BeatMiss of the old intervals.
func (m *Machine) fleetChanged() {
	want := m.limits.BeatInterval(len(m.names))
	switch {
	case want >= m.beat:
		m.beat, m.beatLowerAt = want, time.Time{}
	case m.beatLowerAt.IsZero():
		m.beatLowerAt = m.now.Add(time.Duration(m.limits.BeatMiss)*m.beat + m.limits.BeatJitter)
	}
}

func (m *Machine) settleBeat() {
	if m.beatLowerAt.IsZero() || m.now.Before(m.beatLowerAt) {
		return
	}
	m.beat, m.beatLowerAt = m.limits.BeatInterval(len(m.names)), time.Time{}
	m.rescheduleAll()
}

// recheckEvery stretches with the beats.
func (m *Machine) recheckEvery() time.Duration {
	return m.limits.RecheckEvery * (m.beat / m.limits.BeatEvery)
}

// wakes is a heap of nodes by wakeAt, ties by name.
type wakes []*node

func (w wakes) Len() int { return len(w) }
func (w wakes) Less(i, j int) bool {
	if !w[i].wakeAt.Equal(w[j].wakeAt) {
		return w[i].wakeAt.Before(w[j].wakeAt)
	}
	return w[i].name < w[j].name
}
func (w wakes) Swap(i, j int) {
	w[i], w[j] = w[j], w[i]
	w[i].index, w[j].index = i, j
}
func (w *wakes) Push(x any) {
	n := x.(*node)
	n.index = len(*w)
	*w = append(*w, n)
}
func (w *wakes) Pop() any {
	last := len(*w) - 1
	n := (*w)[last]
	n.index = -1
	(*w)[last] = nil
	*w = (*w)[:last]
	return n
}
