package liveness

import "time"

// tolerance is by how much a node's beats may be late before anybody looks. It
// follows the lateness that is seen, as a TCP sender's timeout follows round trips
// (RFC 6298): mean plus four times the mean deviation. It grows at once, for a
// single late beat shows what the node or its path can do, and shrinks slowly,
// for such beats come in bunches.
type tolerance struct {
	mean, deviation time.Duration
	now             time.Duration
}

// toleranceKeeps is how slowly it shrinks: by 1/64 of the way with each beat, half
// of it in 44 beats, 4.4 s in a fleet of up to Limits.BeatFleet.
const toleranceKeeps = 64

// sample takes by how much a beat was late; a beat before its time counts as 0.
func (t *tolerance) sample(late, floor, most time.Duration) {
	late = min(max(late, 0), most)
	off := late - t.mean
	t.mean += off / 8
	t.deviation += (max(off, -off) - t.deviation) / 4
	if want := t.mean + 4*t.deviation; want > t.now {
		t.now = want
	} else {
		t.now -= (t.now - want) / toleranceKeeps
	}
	t.now = min(max(t.now, floor), most)
}

// gauge samples the beat that has just arrived, while heard still tells of the
// one before. The end of a silence that was already judged is no sample (as Karn
// leaves out segments sent again): an agent that was paused for 3 s is not
// jittery, and its next silence is to be found as fast as anybody's.
func (m *Machine) gauge(n *node) {
	if n.seq > 0 && (n.verdict == Healthy || n.verdict == Back) {
		n.tolerance.sample(m.now.Sub(n.heard)-m.beat, m.limits.BeatJitter, m.limits.JitterMax)
	}
}

// late says that the node is not heard as it should be: without a session, or
// with one beat overdue. Observers' word counts only then; a hint about a node
// that beats leads nowhere.
func (m *Machine) late(n *node) bool {
	return !n.session || !m.now.Before(m.lateAt(n))
}

func (m *Machine) lateAt(n *node) time.Time {
	return n.heard.Add(m.beat + n.tolerance.now)
}

// missedAt is when BeatMiss beats are missing.
func (m *Machine) missedAt(n *node) time.Time {
	return n.heard.Add(time.Duration(m.limits.BeatMiss)*m.beat + n.tolerance.now)
}

// lookAt is when observers are first asked about a node with a session: as soon
// as one beat is late, so that asking and waiting for the others overlap; but not
// so early that their reports would be old when the beats are missed, where beats
// are stretched. Gossip's hint saves that wait.
func (m *Machine) lookAt(n *node) time.Time {
	if n.hinted {
		return m.lateAt(n)
	}
	return later(m.lateAt(n), m.missedAt(n).Add(-m.limits.AskTimeout))
}

// holdUntil is the time before which no silence is concluded of a node that is
// late: with a session, BeatMiss beats must be missing, or one and gossip's hint.
func (m *Machine) holdUntil(n *node) time.Time {
	switch {
	case !n.session:
		return time.Time{}
	case n.hinted:
		return m.lateAt(n)
	}
	return m.missedAt(n)
}
