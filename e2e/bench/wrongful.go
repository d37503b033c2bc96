package main

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/bench/report"
	"github.com/orchctl/orch/internal/follow"
)

const (
	wrongfulReplicas = 12
	pauseFor         = 3 * time.Second
	// afterwards is how long to wait for a late effect of what was mended.
	afterwards = 3 * time.Second
)

// wrongful counts the containers that die although nothing was lost: while
// every core burns, and while an agent is paused.
func wrongful(ctx context.Context, b *bench) error {
	load, err := report.Load()
	if err != nil {
		return err
	}
	var killed, alarms []float64
	err = b.with(ctx, service("calm", wrongfulReplicas, true), func() error {
		faults := []func() error{func() error { return burn(ctx, time.Duration(b.runs(60, 5))*time.Second) }}
		for _, n := range b.nodes[:b.runs(nodeCount, 1)] {
			faults = append(faults, func() error { return b.Lab.Pause(ctx, n, "agent", pauseFor) })
		}
		for i, fault := range faults {
			k, a, err := b.bystanders(ctx, fault)
			if err != nil {
				return err
			}
			killed = append(killed, float64(k))
			if i == 0 { // a paused agent is rightly missed
				alarms = append(alarms, float64(a))
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := b.add("failover.false_alarms", "1", alarms, load, report.Aim{}); err != nil {
		return err
	}
	// One sample, the sum: a median over the faults would hide a single death.
	sum := 0.0
	for _, k := range killed {
		sum += k
	}
	return b.add("failover.wrongful", "1", []float64{sum}, load, report.AtMost(0, "in all faults together"))
}

// bystanders counts the containers that do not run on in the same process after
// a fault that kills none, and the nodes that were given up for a while.
func (b *bench) bystanders(ctx context.Context, fault func() error) (killed, alarms int, err error) {
	before, err := b.AllContainers(ctx, b.nodes...)
	if err != nil {
		return 0, 0, err
	}
	if len(before) != wrongfulReplicas {
		return 0, 0, fmt.Errorf("%d containers run before the fault, want %d", len(before), wrongfulReplicas)
	}
	w, err := b.Follow(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer w.Close()
	if err := fault(); err != nil {
		return 0, 0, err
	}
	if err := rest(ctx, afterwards); err != nil {
		return 0, 0, err
	}
	if err := b.WaitNodes(ctx, nodeCount); err != nil {
		return 0, 0, err
	}
	if err := b.WaitReady(ctx, "calm", wrongfulReplicas, settleMax); err != nil {
		return 0, 0, err
	}
	after, err := b.AllContainers(ctx, b.nodes...)
	if err != nil {
		return 0, 0, err
	}
	for id, r := range before {
		if after[id].Pid != r.Pid {
			killed++
			b.note("container %s on %s was killed though nothing was lost", id, r.Node)
		}
	}
	// Read through all that happened, to its present end.
	given := map[string]bool{}
	_, err = w.Until(ctx, settleMax, "the watch to show every node healthy", func(v *follow.View) error {
		for name, n := range v.Nodes {
			if n.Status.Verdict != api.VerdictHealthy && !given[name] {
				given[name] = true
				b.note("%s was %s: %s", name, n.Status.Verdict, n.Status.VerdictWhy)
			}
		}
		if waiting := w.Waiting(); waiting > 0 {
			return fmt.Errorf("%d changes wait", waiting)
		}
		return nil
	})
	return killed, len(given), err
}

// burn keeps every core busy.
func burn(ctx context.Context, d time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var group sync.WaitGroup
	for range runtime.NumCPU() {
		group.Go(func() {
			for x := uint64(1); ctx.Err() == nil; {
				for range 1 << 20 {
					x = x*6364136223846793005 + 1442695040888963407
				}
			}
		})
	}
	group.Wait()
	if ctx.Err() == context.Canceled {
		return ctx.Err()
	}
	return nil
}
