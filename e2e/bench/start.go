package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/bench/report"
	"github.com/orchctl/orch/internal/follow"
)

// startedMax is when a run has failed.
const startedMax = 2 * time.Minute

// start applies many replicas at once, and starts as many containers through
// containerd alone, in turns.
func start(ctx context.Context, b *bench) error {
	load, err := report.Load()
	if err != nil {
		return err
	}
	if err := b.loadBare(ctx); err != nil {
		return err
	}
	sizes := []struct {
		replicas int
		swarm    string
	}{{50, "Swarm 6.5"}, {100, "Swarm 13"}}
	if b.quick {
		sizes = sizes[:1]
	}
	for _, size := range sizes {
		var orch, bare, share []float64
		for i := range b.runs(3, 1) {
			o, err := b.startOrch(ctx, size.replicas)
			if err != nil {
				return err
			}
			c, err := b.startBare(ctx, size.replicas)
			if err != nil {
				return err
			}
			b.note("start %d, run %d: orch %.2f s, containerd alone %.2f s", size.replicas, i+1, o.Seconds(), c.Seconds())
			orch, bare = append(orch, o.Seconds()), append(bare, c.Seconds())
			share = append(share, 100*c.Seconds()/o.Seconds())
		}
		name := fmt.Sprintf("start.%d", size.replicas)
		err := errors.Join(
			b.add(name, "s", orch, load, report.Aim{Beside: size.swarm}),
			b.add(name+".bare", "s", bare, load, report.Aim{Beside: "containerd alone"}),
			b.add(name+".rate", "%", share, load, report.AtLeast(80, "of containerd alone")))
		if err != nil {
			return err
		}
	}
	return nil
}

// startOrch gives the time from before an apply until all its replicas run.
func (b *bench) startOrch(ctx context.Context, replicas int) (took time.Duration, err error) {
	w, err := b.Follow(ctx)
	if err != nil {
		return 0, err
	}
	defer w.Close()
	defer func() { err = errors.Join(err, b.remove(context.WithoutCancel(ctx), "many")) }()
	began := time.Now()
	if err := b.apply(ctx, service("many", replicas, false)); err != nil {
		return 0, err
	}
	running := map[int]api.Replica{}
	at, err := w.Until(ctx, startedMax, fmt.Sprintf("%d replicas to run", replicas), func(v *follow.View) error {
		if running = v.Running("many"); len(running) != replicas {
			return fmt.Errorf("%d run", len(running))
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return at.Sub(began), b.truly(ctx, running)
}
