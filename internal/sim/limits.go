package sim

import (
	"time"

	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/liveness"
	"github.com/orchctl/orch/internal/network"
)

// drawBudgets likewise.
func (w *world) drawBudgets() core.Budgets {
	r := w.r.world
	return core.Budgets{
		SparesMin: pick(r, []int{1, 2, 5}), SparesFleetMin: pick(r, []int{2, 5, 100}), SparesFree: pick(r, []float64{0.4, 0.8}),
		ReliefsMin: pick(r, []int{1, 3}), ReliefPatience: pick(r, []time.Duration{5 * time.Second, 20 * time.Second}),
		RebalanceMoves: pick(r, []int{1, 3, 50}), HandoverMax: pick(r, []time.Duration{300 * time.Millisecond, 2 * time.Second}),
		FailingEnds: pick(r, []int{3, 5}), FailingMoves: pick(r, []int{1, 2}),
		RolloutEnds: pick(r, []int{2, 3}), RolloutImage: pick(r, []time.Duration{2 * time.Second, 10 * time.Second}),
	}
}

// drawLimits makes some of them shorter than users have them, so that what they
// bound happens within a run.
func (w *world) drawLimits() liveness.Limits {
	r := w.r.world
	l := liveness.DefaultLimits()
	l.DeadAfter = pick(r, []time.Duration{4 * time.Second, 15 * time.Second, 60 * time.Second})
	l.AgentLostGrace = pick(r, []time.Duration{3 * time.Second, 10 * time.Second, 30 * time.Second})
	l.ImpairedGrace = pick(r, []time.Duration{3 * time.Second, 10 * time.Second, 30 * time.Second})
	l.SelfCheckStale = pick(r, []time.Duration{5 * time.Second, 10 * time.Second})
	l.SelfCheckGood = pick(r, []time.Duration{3 * time.Second, 10 * time.Second})
	l.PressureFor = pick(r, []time.Duration{5 * time.Second, 30 * time.Second})
	l.FlapHalfLife = pick(r, []time.Duration{5 * time.Second, 20 * time.Second})
	l.FreezeConfirm = pick(r, []time.Duration{2 * time.Second, 10 * time.Second})
	l.FreezeMax = pick(r, []time.Duration{10 * time.Second, 30 * time.Second})
	l.FreezeDeadEvery = pick(r, []time.Duration{time.Second, 10 * time.Second})
	if err := l.Validate(); err != nil {
		w.violate("sim", "limits are drawn that make no sense: %v", err)
	}
	w.pace = pick(r, []time.Duration{2 * time.Second, 4 * time.Second, 4 * time.Second, 12 * time.Second, 30 * time.Second})
	return l
}

func (w *world) coreConfig(term uint64) core.Config {
	flags := w.drawn
	if term%2 == 0 { // another controller was told otherwise: what is stored holds
		flags = network.DefaultCluster()
	}
	return core.Config{Incarnation: incarnation, Term: term, Limits: w.store.Limits(), Liveness: w.limits, Budgets: w.budgets, Network: flags, EventHistory: 100, RevisionHistory: 3}
}
