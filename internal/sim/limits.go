package sim

import (
	"time"

	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/liveness"
)

// drawLimits makes some of them shorter than users have them, so that what they
// bound happens within a run.
func (w *world) drawLimits() liveness.Limits {
	r := w.r.world
	l := liveness.DefaultLimits()
	l.DeadAfter = pick(r, []time.Duration{4 * time.Second, 15 * time.Second, 60 * time.Second})
	l.AgentLostGrace = pick(r, []time.Duration{3 * time.Second, 10 * time.Second, 30 * time.Second})
	w.pace = pick(r, []time.Duration{2 * time.Second, 4 * time.Second, 4 * time.Second, 12 * time.Second, 30 * time.Second})
	return l
}

// freezeConfirm is how long witnesses must agree before a freeze ends.
func (w *world) freezeConfirm() time.Duration { return 10 * time.Second }

func (w *world) coreConfig(term uint64) core.Config {
	return core.Config{Incarnation: incarnation, Term: term, Limits: w.store.Limits(), Liveness: w.limits, EventHistory: 100, RevisionHistory: 3}
}
