package main

import (
	"context"
	"fmt"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/bench/report"
)

// crashReplicas is also the number of runs: each kills another replica for its
// first time, since a second death in a row is answered with back-off.
const crashReplicas = 12

// crash kills containers and waits for containerd to say that one of the same
// replica was started.
func crash(ctx context.Context, b *bench) error {
	load, err := report.Load()
	if err != nil {
		return err
	}
	var took []float64
	n := b.runs(crashReplicas, 3)
	err = b.with(ctx, service("crash", n, true), func() error {
		replicas, err := b.Replicas(ctx, "crash")
		if err != nil {
			return err
		}
		for _, r := range replicas {
			d, err := b.killOnce(ctx, r)
			if err != nil {
				return fmt.Errorf("kill %s: %w", r.Metadata.Name, err)
			}
			took = append(took, d.Seconds())
			if err := b.WaitReady(ctx, "crash", n, settleMax); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return b.add("crash.restarted", "s", took, load, report.AtMost(0.3, "Swarm 5.5"))
}

func (b *bench) killOnce(ctx context.Context, r api.Replica) (time.Duration, error) {
	if len(r.Status.Containers) != 1 {
		return 0, fmt.Errorf("it has %d containers, want 1", len(r.Status.Containers))
	}
	ctx, cancel := context.WithTimeout(ctx, settleMax)
	defer cancel()
	starts, err := b.Starts(ctx, r.Spec.Node)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := b.KillContainer(ctx, r.Spec.Node, r.Status.Containers[0].ID); err != nil {
		return 0, err
	}
	for s := range starts {
		if s.Err != nil {
			return 0, s.Err
		}
		if s.Service == r.Spec.Service && s.Slot == r.Spec.Slot && s.Epoch == r.Spec.Epoch {
			return s.At.Sub(began), nil
		}
	}
	return 0, fmt.Errorf("it was not started again on %s: %w", r.Spec.Node, ctx.Err())
}
