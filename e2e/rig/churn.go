package rig

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
)

// churnStep is how long one step of Churn may take.
const churnStep = time.Minute

// Churn does to a service of six replicas what must lose no request, again and again:
// a rolling update of all to version 2.0 of the web image, or back to 1.0, the drain
// of a node that runs some of it, scaling from six to two. yaml is its manifest, with
// 1.0. The node keep is not drained.
func (f *Fleet) Churn(ctx context.Context, rounds int, service, yaml, keep string) error {
	const many, few = 6, 2
	drained := ""
	for round := range rounds {
		version := []string{"web:2.0", "web:1.0"}[round%2]
		if err := f.ApplyText(ctx, strings.Replace(yaml, "web:1.0", version, 1), true); err != nil {
			return err
		}
		if err := f.WaitReady(ctx, service, many, churnStep); err != nil {
			return fmt.Errorf("update to %s: %w", version, err)
		}
		all, err := f.Replicas(ctx, service)
		if err != nil {
			return err
		}
		node := ""
		for _, r := range all {
			if r.Spec.Node != keep && r.Spec.Node != drained {
				node = r.Spec.Node
			}
		}
		if drained = node; node == "" {
			return fmt.Errorf("drain: no replica of %s runs on any node but %s", service, keep)
		}
		if err := f.drain(ctx, service, node, many); err != nil {
			return err
		}
		if err := f.Must(ctx, "scale", "service/"+service, "--replicas", fmt.Sprint(few)); err != nil {
			return err
		}
		if err := f.WaitReady(ctx, service, few, churnStep); err != nil {
			return fmt.Errorf("scale to %d: %w", few, err)
		}
	}
	return nil
}

// drain empties a node and gives it back.
func (f *Fleet) drain(ctx context.Context, service, node string, replicas int) error {
	ctx, cancel := context.WithTimeout(ctx, churnStep)
	defer cancel()
	if err := f.Must(ctx, "drain", node); err != nil {
		return err
	}
	all, err := f.Replicas(ctx, service)
	if err != nil {
		return err
	}
	for _, r := range all {
		if r.Spec.Node == node && r.Status.Phase == api.PhaseRunning {
			return fmt.Errorf("drain of %s ended, and %s runs there", node, r.Metadata.Name)
		}
	}
	if err := f.WaitReady(ctx, service, replicas, churnStep); err != nil {
		return fmt.Errorf("drain %s: %w", node, err)
	}
	return f.Must(ctx, "uncordon", node)
}
