package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/orchctl/orch/e2e/rig"
	"github.com/orchctl/orch/internal/bench/report"
	"github.com/orchctl/orch/internal/drill"
)

// slow are the drills of faults in which nothing is lost: whatever ends in them
// ended wrongfully.
var slow = []string{
	"agent-paused", "node-stunned", "cores-burning", "packets-lost",
	"controller-paused", "controller-killed", "agent-killed", "containerd-killed",
}

const partitions = 5

// drills runs drills of the suite, each as often as asked, in this lab.
func (b *bench) drills(ctx context.Context, times int, names ...string) ([]drill.Result, error) {
	var files []string
	for _, n := range names {
		files = append(files, filepath.Join(rig.Root(), "e2e", "drills", n+".yaml"))
	}
	all, err := drill.Load(files)
	if err != nil {
		return nil, err
	}
	runner, err := drill.NewRunner(ctx, drill.Config{Lab: b.Lab, Orchctl: filepath.Join(rig.Root(), "bin", "orchctl"), Out: os.Stderr})
	if err != nil {
		return nil, err
	}
	defer runner.Close()
	var results []drill.Result
	for _, d := range all {
		for range times {
			r, err := runner.Run(ctx, d)
			if err != nil {
				return nil, err
			}
			results = append(results, r)
		}
	}
	return results, nil
}

// wrongful counts the containers that end although nothing was lost, and the
// spares that were started to be safe.
func wrongful(ctx context.Context, b *bench) error {
	load, err := report.Load()
	if err != nil {
		return err
	}
	names := slow
	if b.quick {
		names = []string{"agent-paused", "containerd-killed"}
	}
	results, err := b.drills(ctx, 1, names...)
	if err != nil {
		return err
	}
	// One sample, the sum: a median over the faults would hide a single death.
	ended, spares, failed := 0, 0, 0
	for _, r := range results {
		b.note("%s: %d ended wrongfully, %d spares", r.Drill, r.Wrongful, r.Spares)
		ended, spares = ended+r.Wrongful, spares+r.Spares
		if !r.Passed {
			failed++
		}
	}
	if err := b.add("failover.wrongful", "1", []float64{float64(ended)}, load, report.AtMost(0, "in all faults together")); err != nil {
		return err
	}
	if err := b.add("failover.spares", "1", []float64{float64(spares)}, load, report.Aim{Beside: "started in the same faults, and gone"}); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d drills failed", failed, len(results))
	}
	return nil
}

// partition cuts a node off for thirty seconds: how often something ran twice,
// and how long it did after the cut was healed.
func partition(ctx context.Context, b *bench) error {
	load, err := report.Load()
	if err != nil {
		return err
	}
	const gone = "expect no duplicates of web within 5s"
	results, err := b.drills(ctx, b.runs(partitions, 1), "partition")
	if err != nil {
		return err
	}
	var after, most []float64
	for _, r := range results {
		took, ok := r.Took(gone)
		if !ok {
			return fmt.Errorf("drill %s: %s", r.Drill, r.Why)
		}
		after, most = append(after, took.Seconds()), append(most, float64(r.Duplicates["web"].Most))
	}
	if err := b.add("partition.duplicates", "1", most, load, report.Aim{Beside: "at once per slot, stateless: allowed"}); err != nil {
		return err
	}
	if err := b.add("partition.duplicates_s", "s", after, load, report.AtMost(1, "from healing until they are gone; Nomad 40")); err != nil {
		return err
	}
	results, err = b.drills(ctx, b.runs(partitions, 1), "partition-exclusive")
	if err != nil {
		return err
	}
	// Not a median: one duplicate in any run is one too many.
	exclusive := 0
	for _, r := range results {
		exclusive += r.Duplicates["singleton"].Most
		if !r.Passed {
			return fmt.Errorf("drill %s: %s", r.Drill, r.Why)
		}
	}
	return b.add("partition.exclusive", "1", []float64{float64(exclusive)}, load, report.AtMost(0, "duplicates of exclusive slots, ever"))
}
