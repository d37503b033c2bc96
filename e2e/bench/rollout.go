package main

import (
	"context"
	"fmt"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/bench/report"
	"github.com/orchctl/orch/internal/follow"
)

const (
	rolloutReplicas = 20
	rolloutRuns     = 5
	// rolloutMax is when a rollout has failed to be measured.
	rolloutMax = 3 * time.Minute
	// unusedNode has no replicas where a rollout is measured: they are on three nodes.
	unusedNode = "n4"
	// probedReplicas are asked over HTTP, each once in probeEvery.
	probedReplicas = 200
	probeEvery     = time.Second
)

// rolled makes a service of which so many replicas are replaced at a time, start-first.
func rolled(replicas, atOnce int, args ...string) *api.Service {
	s := service("rolled", replicas, true)
	soon := api.Duration(100 * time.Millisecond)
	s.Spec.Rollout = api.Rollout{MaxSurge: api.Count(atOnce), MaxUnavailable: api.Count(0)}
	s.Spec.RestartPolicy.BackOff = &soon
	s.Spec.Template.Containers[0].Args = append([]string{"-quiet"}, args...)
	s.Spec.Template.Constraints = []api.Constraint{{Key: nodeLabel, Operator: api.OpNotIn, Values: []string{unusedNode}}}
	return s
}

// rolls takes the time of rolling updates, one replica at a time and ten, and how few
// replicas were ready meanwhile.
func rolls(ctx context.Context, b *bench) error {
	load, err := report.Load()
	if err != nil {
		return err
	}
	fewest := rolloutReplicas
	for _, atOnce := range []int{1, 10} {
		var took []float64
		err := b.with(ctx, rolled(rolloutReplicas, atOnce), func() error {
			for i := range b.runs(rolloutRuns, 1) {
				next := rolled(rolloutReplicas, atOnce)
				next.Spec.Template.Containers[0].Env = []api.EnvVar{{Name: "RUN", Value: fmt.Sprint(i + 1)}} // anything that differs makes a revision
				d, ready, err := b.roll(ctx, next)
				if err != nil {
					return fmt.Errorf("run %d: %w", i+1, err)
				}
				b.note("rollout of %d, %d at a time, run %d: %.2f s, never below %d ready", rolloutReplicas, atOnce, i+1, d.Seconds(), ready)
				took, fewest = append(took, d.Seconds()), min(fewest, ready)
			}
			return nil
		})
		if err != nil {
			return err
		}
		beside := fmt.Sprintf("%d replicas on three nodes, start-first", rolloutReplicas)
		if err := b.add(fmt.Sprintf("rollout.%d", atOnce), "s", took, load, report.Aim{Beside: beside}); err != nil {
			return err
		}
	}
	return b.add("rollout.floor", "1", []float64{float64(fewest) / rolloutReplicas}, load, report.AtLeast(1, "the fewest that were ever ready, of those that must be"))
}

// roll applies a new revision and gives the time until it is rolled out, and the
// fewest replicas that were ready meanwhile.
func (b *bench) roll(ctx context.Context, s *api.Service) (took time.Duration, fewest int, err error) {
	w, err := b.Follow(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer w.Close()
	key := s.Metadata.Key()
	before := w.View.Services[key].Status.Revision
	fewest = w.View.Services[key].Status.Ready
	began := time.Now()
	if err := b.apply(ctx, s); err != nil {
		return 0, 0, err
	}
	at, err := w.Until(ctx, rolloutMax, "the rollout to be complete", func(v *follow.View) error {
		st := v.Services[key].Status
		fewest = min(fewest, st.Ready)
		switch {
		case st.Revision == before || st.Rollout.State != api.RolloutComplete || st.UpdatedReady != *s.Spec.Replicas:
			return fmt.Errorf("revision %d is %s, %d are ready: %s", st.Revision, st.Rollout.State, st.UpdatedReady, st.Rollout.Why)
		case st.Revision != before+1:
			return fmt.Errorf("revision %d came after %d: it was taken back", st.Revision, before)
		}
		return nil
	})
	return at.Sub(began), fewest, err
}

// rollsBack takes the time from the apply of a revision that crashes until what was
// before it is rolled out again.
func rollsBack(ctx context.Context, b *bench) error {
	load, err := report.Load()
	if err != nil {
		return err
	}
	good := rolled(rolloutReplicas, 1)
	key := good.Metadata.Key()
	var took []float64
	for i := range b.runs(rolloutRuns, 1) {
		err := b.with(ctx, good, func() error {
			w, err := b.Follow(ctx)
			if err != nil {
				return err
			}
			defer w.Close()
			began := time.Now()
			if err := b.apply(ctx, rolled(rolloutReplicas, 1, "-crash-after", "0s")); err != nil {
				return err
			}
			at, err := w.Until(ctx, rolloutMax, "the rollback", func(v *follow.View) error {
				st := v.Services[key].Status
				if st.Ready < rolloutReplicas {
					return fmt.Errorf("only %d are ready", st.Ready)
				}
				if st.Revision != 3 || st.Rollout.State != api.RolloutComplete {
					return fmt.Errorf("revision %d is %s: %s", st.Revision, st.Rollout.State, st.Rollout.Why)
				}
				return nil
			})
			if err != nil {
				return err
			}
			b.note("rollback %d: %.2f s", i+1, at.Sub(began).Seconds())
			took = append(took, at.Sub(began).Seconds())
			return nil
		})
		if err != nil {
			return err
		}
	}
	return b.add("rollout.rollback", "s", took, load, report.Aim{Beside: "from the apply of what crashes at once; a crash is known by its third end"})
}

// probed takes what agents need to ask many replicas once a second.
func probed(ctx context.Context, b *bench) error {
	load, err := report.Load()
	if err != nil {
		return err
	}
	s := service("probed", probedReplicas, true)
	every := api.Duration(probeEvery)
	c := &s.Spec.Template.Containers[0]
	c.Args = []string{"-quiet"}
	c.ReadinessProbe.Interval = &every
	during := time.Duration(b.runs(60, 5)) * time.Second
	var cpu []float64
	err = b.with(ctx, s, func() error {
		pids, err := b.daemons(ctx)
		if err != nil {
			return err
		}
		used, err := cpuOver(ctx, pids, during)
		for pid, share := range used {
			if pids[pid] == "agent" {
				cpu = append(cpu, share)
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	return b.add("rollout.probes.cpu", "%", cpu, load, report.Aim{Beside: fmt.Sprintf("of a core, one agent of %d: %d replicas on them, asked over HTTP each second", nodeCount, probedReplicas)})
}
