package sim

import (
	"fmt"
	"time"

	"github.com/orchctl/orch/api"
)

// mass counts, beside the machine that does so for orch, how many nodes vanish at
// once in the eyes of one leader.
type mass struct {
	fell   map[string]int64 // when each node was last found missing
	frozen bool             // nobody may be taken for dead for silence
	since  int64            // the earliest time from which on that may have been so; 0: it is not so
	worded int64            // the last operator's word on it
	// stalled: the leader did not run for a while, and counts differently since.
	stalled bool
}

const (
	// massMin and massWindow: more than so many nodes missing within so long are
	// many. The share of the fleet is less in fleets as small as these.
	massMin    = 2
	massWindow = 5 * time.Second
	// massMargin is what the leader's clock and ours differ by.
	massMargin = 100 * time.Millisecond
)

func missing(v api.Verdict) bool { return v == api.VerdictSuspect || v == api.VerdictAgentLost }

func present(v api.Verdict) bool { return v == api.VerdictHealthy || v == api.VerdictBack }

// judge holds a change of verdict against what the leader may know: I5.
func (n *knowledge) judge(l *lead, h *host, was, v api.Verdict) {
	w := l.w
	if !present(v) && !missing(was) {
		n.awayAt[h.name] = w.clock
	}
	if v == api.VerdictSuspect {
		n.suspectAt[h.name] = w.clock
	}
	if n.mass.since == 0 && (present(was) || was == api.VerdictUnknown) && missing(v) {
		n.mass.fell[h.name] = w.clock
	}
	if v != api.VerdictDead {
		return
	}
	w.res.Dead++
	if w.clock < h.calledDead || l.rebooted(h) {
		return
	}
	// A little less: clocks drift, and the look that finds it dead may end before
	// it is a full time.
	if early := w.limits.DeadAfter * 9 / 10; was == api.VerdictSuspect && w.clock-n.suspectAt[h.name] < int64(early) {
		w.violate("I5", "%s is held for dead after %s as suspect, and nobody said so", h.name, time.Duration(w.clock-n.suspectAt[h.name]))
	}
	if m := &n.mass; m.frozen && !m.stalled && m.worded < m.since && w.clock-m.since < int64(w.limits.FreezeConfirm*98/100) {
		w.violate("I5", "%s is held for dead %s after many nodes vanished at once, and nobody said so", h.name, time.Duration(w.clock-m.since))
	}
}

// rebooted tells whether the leader knows that the life of the node which it had
// on record is over: that is a hard fact.
func (l *lead) rebooted(h *host) bool {
	n := l.w.ledger.pic.nodes[h.name]
	for _, s := range l.sessions {
		if s.host == h && n != nil && n.Status.BootID != fmt.Sprintf("%s-boot%d", h.name, s.boot) {
			return true
		}
	}
	return false
}

// look finds out whether verdicts must be frozen now.
func (m *mass) look(l *lead, n *knowledge) {
	away, surely, perhaps := 0, 0, 0
	for _, h := range l.w.hosts {
		if missing(n.verdict[h.name]) {
			away++
		}
		if at, ok := m.fell[h.name]; ok && l.w.clock-at < int64(massWindow+massMargin) {
			if perhaps++; l.w.clock-at < int64(massWindow-massMargin) {
				surely++
			}
		}
	}
	switch {
	case away == 0:
		m.frozen, m.since = false, 0
	case perhaps > massMin && m.since == 0:
		m.since, m.frozen = l.w.clock, surely > massMin
		clear(m.fell)
		if m.frozen {
			l.w.res.Freezes++
		}
	}
}
