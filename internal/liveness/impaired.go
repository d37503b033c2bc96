package liveness

import (
	"fmt"
	"strings"
	"time"
)

// health is what a node's beats say of its ability to work. The stamps tell since
// when a thing is so in every beat; zero: it is not so.
type health struct {
	check    SelfCheck
	impaired bool
	beats    time.Time // since when beats come without a break
	failing  time.Time // the check fails
	pressed  time.Time // every task waits
	good     time.Time // nothing is wrong
}

// interrupted begins anew after a break in the beats: nobody knows what was in
// between, and an agent that was frozen has an old self-check to tell of although
// its next one may be good.
func (h *health) interrupted(now time.Time) {
	h.beats, h.failing, h.pressed, h.good = now, time.Time{}, time.Time{}, time.Time{}
}

func (h *health) discount(move func(*time.Time)) {
	move(&h.beats)
	move(&h.failing)
	move(&h.pressed)
	move(&h.good)
}

// examine takes the self-check that came with a beat. A node is impaired that
// beats but cannot work; the processor's load is no sign of it, for cpu is shared
// by weight and the agent has its share.
func (m *Machine) examine(n *node, check SelfCheck) {
	h, l := &n.health, &m.limits
	stale := check.Age > l.SelfCheckStale
	pressed := max(check.IOPressure, check.MemoryPressure) >= l.PressureMax
	h.check = check
	since(&h.failing, check.Failing != "", m.now)
	since(&h.pressed, pressed, m.now)
	since(&h.good, !stale && check.Failing == "" && !pressed, m.now)

	if h.impaired {
		if m.lasts(h.good, l.SelfCheckGood) {
			h.impaired = false
			m.out = append(m.out, SetImpaired{Node: n.name,
				Why: fmt.Sprintf("its self-checks have been good for %s", told(m.now.Sub(h.good)))})
		}
		return
	}
	// A check that is stuck stops all later ones, so that its age alone must do;
	// a failing or a slow one gets a second try first.
	stale = stale && m.lasts(h.beats, l.SelfCheckStale/2)
	failing := m.lasts(h.failing, l.SelfCheckStale/2)
	pressed = m.lasts(h.pressed, l.PressureFor)
	if stale || failing || pressed {
		h.impaired = true
		why := m.ailment(h, stale, failing)
		m.out = append(m.out, SetImpaired{Node: n.name, Impaired: true,
			Why: why, Evidence: m.symptoms(h, why)})
	}
}

// ailment says in one line what is wrong.
func (m *Machine) ailment(h *health, stale, failing bool) string {
	switch {
	case stale && h.check.Failing != "":
		return fmt.Sprintf("%s; last good self-check %s ago", h.check.Failing, told(h.check.Age))
	case stale:
		return fmt.Sprintf("no good self-check for %s", told(h.check.Age))
	case failing:
		return h.check.Failing
	}
	what := "disk"
	if h.check.MemoryPressure > h.check.IOPressure {
		what = "memory"
	}
	return fmt.Sprintf("every task waits for %s, for %s", what, told(m.now.Sub(h.pressed)))
}

func (m *Machine) symptoms(h *health, why string) []string {
	lines := []string{fmt.Sprintf("last good self-check %s ago", told(h.check.Age))}
	if !h.failing.IsZero() {
		line := fmt.Sprintf("its self-check has failed for %s", told(m.now.Sub(h.failing)))
		if !strings.Contains(why, h.check.Failing) { // once is enough, it may be long
			line += ": " + h.check.Failing
		}
		lines = append(lines, line)
	}
	if !h.pressed.IsZero() {
		lines = append(lines, fmt.Sprintf("disk pressure %.0f%%, memory pressure %.0f%%, for %s",
			100*h.check.IOPressure, 100*h.check.MemoryPressure, told(m.now.Sub(h.pressed))))
	}
	return lines
}

// lasts says that something has been so for at least that long.
func (m *Machine) lasts(from time.Time, d time.Duration) bool {
	return !from.IsZero() && m.now.Sub(from) >= d
}

// since keeps a stamp of when something began to be so.
func since(at *time.Time, so bool, now time.Time) {
	switch {
	case !so:
		*at = time.Time{}
	case at.IsZero():
		*at = now
	}
}
