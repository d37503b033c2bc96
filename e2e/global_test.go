package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/e2e/rig"
	"github.com/orchctl/orch/internal/follow"
)

// globalOn waits until a global service runs once on each of these nodes and nowhere
// else, ready and of its newest revision.
func globalOn(t *testing.T, name string, within time.Duration, want ...string) {
	t.Helper()
	must(t, rig.Until(t.Context(), within, fmt.Sprintf("%s to run on %v", name, want), func() error {
		all, err := fleet.Replicas(t.Context(), name)
		if err != nil {
			return err
		}
		s, err := fleet.Service(t.Context(), name)
		if err != nil {
			return err
		}
		on := map[string]int{}
		for _, r := range all {
			if !r.Status.Ready || r.Spec.Revision != s.Status.Revision {
				return fmt.Errorf("%s@%d on %s has revision %d of %d, ready %v", r.Metadata.Name, r.Spec.Epoch, r.Spec.Node, r.Spec.Revision, s.Status.Revision, r.Status.Ready)
			}
			on[r.Spec.Node]++
		}
		if got := slices.Sorted(maps.Keys(on)); !slices.Equal(got, want) || len(all) != len(want) {
			return fmt.Errorf("it runs on %v", on)
		}
		if s.Status.Ready != len(want) {
			return fmt.Errorf("the service says that %d are ready: %v", s.Status.Ready, s.Status.Reasons)
		}
		return nil
	}))
}

// TestGlobal: one replica on every node that is fit; on a new one, too; none on one
// that is drained or gone.
func TestGlobal(t *testing.T) {
	ctx := t.Context()
	yaml := func(args string) string {
		return strings.Replace(service("every", 0, "  terminationGracePeriod: 2s", httpProbe+"\n      args: ["+args+"]"), "  replicas: 0", "  mode: global", 1)
	}
	apply(t, "every", yaml(""))
	globalOn(t, "every", 5*time.Second, nodes...)
	contains(t, "get services", orchctl(t, "get", "services"), "global", "3/3")
	slots := map[string]int{}
	for _, r := range replicas(t, "every") {
		slots[r.Spec.Node] = r.Spec.Slot
	}

	added, err := fleet.Lab.AddNode(ctx)
	must(t, err)
	removed := false
	remove := func(ctx context.Context) error { // the fleet is everybody's
		if removed {
			return nil
		}
		removed = true
		if err := fleet.Lab.KillNode(ctx, added); err != nil {
			return err
		}
		if err := fleet.WaitNode(ctx, added, api.VerdictSuspect, 10*time.Second); err != nil {
			return err
		}
		if err := fleet.Must(ctx, "node", "dead", added); err != nil {
			return err
		}
		return fleet.Must(ctx, "node", "remove", added)
	}
	t.Cleanup(func() {
		if err := remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	must(t, fleet.WaitNode(ctx, added, api.VerdictHealthy, 20*time.Second))
	must(t, fleet.LoadImage(ctx, "web.tar"))
	four := append(slices.Clone(nodes), added)
	globalOn(t, "every", 15*time.Second, four...)

	// One at a time, each where it is.
	most := 0
	stop, err := fleet.Watch(ctx, func(v *follow.View) {
		s := v.Services[api.Key{Namespace: api.DefaultNamespace, Name: "every"}]
		most = max(most, len(four)-s.Status.Ready)
		for _, all := range v.Of("every") {
			live := 0
			for _, r := range all {
				if p := r.Status.Phase; !p.Ended() && p != api.PhaseStopping {
					live++
				}
			}
			if live > 1 {
				t.Errorf("%d replicas in one slot: %+v", live, all)
			}
		}
	})
	must(t, err)
	must(t, fleet.ApplyText(ctx, yaml("-quiet"), true))
	globalOn(t, "every", 15*time.Second, four...)
	must(t, stop())
	if most != 1 {
		t.Errorf("%d of 4 replicas were away at some time of the rollout, want 1", most)
	}

	draining, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	must(t, fleet.Must(draining, "drain", "n2"))
	globalOn(t, "every", 10*time.Second, "n1", "n3", added)
	must(t, fleet.Must(ctx, "uncordon", "n2"))
	globalOn(t, "every", 10*time.Second, four...)
	for _, r := range replicas(t, "every") {
		if want, ok := slots[r.Spec.Node]; ok && r.Spec.Node != "n2" && r.Spec.Slot != want {
			t.Errorf("%s on %s was in slot %d", r.Metadata.Name, r.Spec.Node, want)
		}
	}

	// A node that is cordoned keeps what it has, but gets nothing that starts anew.
	before := containers(t)
	must(t, fleet.Must(ctx, "cordon", "n3"))
	globalOn(t, "every", 5*time.Second, four...)
	sameContainers(t, before)
	must(t, fleet.Must(ctx, "uncordon", "n3"))
	must(t, remove(ctx))
	globalOn(t, "every", 10*time.Second, nodes...)
}
