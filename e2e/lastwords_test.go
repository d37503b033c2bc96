package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/e2e/rig"
)

// TestLastWords: what a replica said before its last end can be read from its node, and,
// when that is off, from the leader; and logs of a service fail for no node that is away.
func TestLastWords(t *testing.T) {
	ctx := t.Context()
	apply(t, "web", service("web", 2, "", hostPort(8086)+"\n      resources: {limits: {memory: 64Mi}}"))
	var r, other api.Replica
	for _, x := range replicas(t, "web") {
		if x.Spec.Slot == 0 {
			r = x
		} else {
			other = x
		}
	}
	read := func(what string, cond func(out, errs string, code int) bool, args ...string) {
		t.Helper()
		must(t, rig.Until(ctx, 15*time.Second, what, func() error {
			out, errs, code := fleet.Orchctl(ctx, append([]string{"logs"}, args...)...)
			if !cond(out, errs, code) {
				return fmt.Errorf("orchctl logs %v: exit %d\n%s--- stderr\n%s", args, code, out, errs)
			}
			return nil
		}))
	}
	read("that nothing has ended yet", func(out, errs string, code int) bool {
		return code == 1 && out == "" && strings.Contains(errs, `previous run of container "main" in replica web-0 not found`)
	}, "web-0", "--previous")

	_, _ = fleet.Get(ctx, r.Spec.Node, 8086, "/oom") // it ends instead of answering
	const killed, lastWord = "killed for want of memory (limit 64Mi, peak 64Mi)", "taking all memory"
	must(t, rig.Until(ctx, 15*time.Second, "web-0 to be killed and restarted", func() error {
		for _, x := range replicas(t, "web") {
			if x.Spec.Slot != 0 || !x.Status.Ready || x.Status.Restarts != 1 {
				continue
			}
			if e := x.Status.Containers[0].LastExit; e == nil || !e.OOM || e.Message != killed || !strings.Contains(e.Output, lastWord) {
				return fmt.Errorf("last exit %+v", e)
			}
			return nil
		}
		return fmt.Errorf("not yet")
	}))
	read("the run before, from its node", func(out, errs string, code int) bool {
		return code == 0 && strings.Contains(out, lastWord) && errs == ""
	}, "web-0", "-p")

	must(t, fleet.Lab.KillNode(ctx, r.Spec.Node))
	told := r.Spec.Node + " cannot be reached"
	ofLeader := func(out, errs string, code int) bool {
		return code == 0 && strings.Contains(out, lastWord) && strings.Contains(errs, told+": the last 1 KiB that it told the leader; exit code 137, "+killed)
	}
	read("the run before, from the leader", ofLeader, "web-0", "--previous")
	read("the logs of the one that is left, and a gap", func(out, errs string, code int) bool {
		return code == 0 && strings.Contains(errs, "-- "+told) && strings.Contains(errs, "logs of web-0 are missing --")
	}, "service/web")
	must(t, fleet.WaitNode(ctx, r.Spec.Node, api.VerdictSuspect, 10*time.Second))
	must(t, rig.Until(ctx, 15*time.Second, "web-0 to be ready elsewhere", func() error {
		for _, x := range replicas(t, "web") {
			if x.Spec.Slot == 0 && x.Spec.Node != r.Spec.Node && x.Status.Ready {
				return nil
			}
		}
		return fmt.Errorf("not yet")
	}))
	read("the run before, though another replica is in its slot", ofLeader, "web-0", "--previous")

	// A replica that is gone is read by its name, from its node.
	must(t, fleet.Must(ctx, "scale", "service/web", "--replicas", "1"))
	gone := fmt.Sprintf("web-1@%d", other.Spec.Epoch)
	read("what a replica that is gone wrote", func(out, errs string, code int) bool {
		return code == 0 && strings.Contains(errs, "web-1 is gone from "+other.Spec.Node+": container main ended")
	}, gone)
	must(t, fleet.Lab.StartNode(ctx, r.Spec.Node))
	must(t, fleet.WaitNode(ctx, r.Spec.Node, api.VerdictHealthy, 20*time.Second))
	must(t, fleet.WaitReady(ctx, "web", 1, 20*time.Second))
}
