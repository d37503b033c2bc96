package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/bench/report"
	"github.com/orchctl/orch/internal/drill"
	"github.com/orchctl/orch/internal/follow"
)

const (
	failoverReplicas = 12
	powerCuts        = 20
	// replacedMax is when a run has failed: orders above the aim.
	replacedMax = 30 * time.Second
)

// powerCut cuts the power of the node that runs most, again and again.
func powerCut(ctx context.Context, b *bench) error {
	return cutAgain(ctx, b, "", report.AtMost(0.5, ""), report.AtMost(0.8, "Swarm 21, Nomad 17").AndMax(2))
}

// powerCutBusy does the same while every core burns.
func powerCutBusy(ctx context.Context, b *bench) error {
	busy, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	group.Go(func() { _ = drill.Burn(busy, replacedMax*time.Duration(2*b.runs(powerCuts, 2))) }) // it ends with the runs
	return cutAgain(ctx, b, ".busy", report.Aim{}, report.AtMost(2, "every core burning"))
}

func cutAgain(ctx context.Context, b *bench, suffix string, awayAim, replacedAim report.Aim) error {
	load, err := report.Load()
	if err != nil {
		return err
	}
	var away, replaced []float64
	err = b.with(ctx, service("failover", failoverReplicas, true), func() error {
		for i := range b.runs(powerCuts, 2) {
			a, r, err := b.cutOnce(ctx)
			if err != nil {
				return fmt.Errorf("run %d: %w", i+1, err)
			}
			b.note("power cut %d%s: traffic away %.2f s, replaced %.2f s", i+1, suffix, a.Seconds(), r.Seconds())
			away, replaced = append(away, a.Seconds()), append(replaced, r.Seconds())
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := b.add("failover.traffic_away"+suffix, "s", away, load, awayAim); err != nil {
		return err
	}
	return b.add("failover.replaced"+suffix, "s", replaced, load, replacedAim)
}

// cutOnce gives the times until no replica of the lost node counts as ready,
// and until every slot is running and ready on another; then it brings the node
// back.
func (b *bench) cutOnce(ctx context.Context) (away, replaced time.Duration, err error) {
	w, err := b.Follow(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer w.Close()
	victim, lost := fullest(&w.View)
	if lost == 0 {
		return 0, 0, fmt.Errorf("no node runs anything")
	}
	elsewhere := func(v *follow.View) map[int]api.Replica {
		out := v.Running("failover")
		maps.DeleteFunc(out, func(_ int, r api.Replica) bool { return r.Spec.Node == victim })
		return out
	}

	began := time.Now()
	if err := b.Lab.KillNode(ctx, victim); err != nil {
		return 0, 0, err
	}
	awayAt, err := w.Until(ctx, replacedMax, "traffic to leave "+victim, func(v *follow.View) error {
		for key, r := range v.Replicas {
			if r.Spec.Node == victim && r.Status.Ready {
				return fmt.Errorf("%s counts as ready", key)
			}
		}
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	replacedAt, err := w.Until(ctx, replacedMax, fmt.Sprintf("%d lost replicas of %s to run elsewhere", lost, victim), func(v *follow.View) error {
		if n := len(elsewhere(v)); n != failoverReplicas {
			return fmt.Errorf("%d of %d slots run", n, failoverReplicas)
		}
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	if err := b.truly(ctx, elsewhere(&w.View)); err != nil {
		return 0, 0, err
	}
	if err := b.Lab.StartNode(ctx, victim); err != nil {
		return 0, 0, err
	}
	if err := b.WaitNodes(ctx, nodeCount); err != nil {
		return 0, 0, err
	}
	return awayAt.Sub(began), replacedAt.Sub(began), b.WaitReady(ctx, "failover", failoverReplicas, settleMax)
}

// fullest gives the node that runs most replicas, the first by name if several do.
func fullest(v *follow.View) (node string, replicas int) {
	on := map[string]int{}
	for _, r := range v.Running("failover") {
		on[r.Spec.Node]++
	}
	if len(on) == 0 {
		return "", 0
	}
	names := slices.SortedFunc(maps.Keys(on), func(x, y string) int {
		return cmp.Or(cmp.Compare(on[y], on[x]), cmp.Compare(x, y))
	})
	return names[0], on[names[0]]
}
