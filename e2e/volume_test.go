package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/e2e/rig"
)

// TestVolumes: a slot's files outlive its replicas, and hold the slot on their node.
func TestVolumes(t *testing.T) {
	ctx := t.Context()
	removeLater(t, "service/db")
	manifest := func(replicas int, version string) string {
		return service("db", replicas, "  rollout: {minReady: 100ms}", httpProbe+`
      args: [-note, /data/log=`+version+`]
      securityContext: {user: "1000"}
      mounts: [{path: /data, volume: data}]`)
	}
	log := func(replica string) []string {
		t.Helper()
		return strings.Fields(inside(t, replica, "-cat", "/data/log"))
	}
	same := func(what string, got []string, want ...string) {
		t.Helper()
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%s: the volume holds %q, want %q", what, got, want)
		}
	}
	on := func() map[int]string {
		t.Helper()
		at := map[int]string{}
		for _, r := range replicas(t, "db") {
			at[r.Spec.Slot] = r.Spec.Node
		}
		return at
	}
	must(t, fleet.ApplyText(ctx, manifest(2, "one"), true))
	t.Cleanup(func() {
		for _, v := range []string{"data.db-0", "data.db-1"} {
			_, _, _ = fleet.Orchctl(context.Background(), "volume", "rm", v)
		}
	})
	home := on()
	same("the first start", log("db-0"), "one")
	contains(t, "volume ls", orchctl(t, "volume", "ls"), "data.db-0", "data.db-1", home[0], home[1])

	check := lowest(t, "db", 1)
	must(t, fleet.ApplyText(ctx, manifest(2, "two"), true))
	check()
	if now := on(); now[0] != home[0] || now[1] != home[1] {
		t.Errorf("the slots are on %v, and were on %v", now, home)
	}
	same("a rollout", log("db-0"), "one", "two")

	_, errs, code := fleet.Orchctl(ctx, "volume", "rm", "data.db-0")
	if code != 1 {
		t.Errorf("rm of a volume that is used: exit %d, want 1", code)
	}
	contains(t, "rm of a volume that is used", errs, "data.db-0", "db-0", home[0])

	// Its node dies: the slot waits and says for what, rather than lose its files.
	must(t, fleet.Lab.KillNode(ctx, home[0]))
	must(t, fleet.WaitNode(ctx, home[0], api.VerdictSuspect, 10*time.Second))
	must(t, fleet.Must(ctx, "node", "dead", home[0], "--force"))
	must(t, rig.Until(ctx, 20*time.Second, "the service to say what it waits for", func() error {
		s, err := fleet.Service(ctx, "db")
		if err != nil {
			return err
		}
		if words := strings.Join(s.Status.Reasons, "; "); !strings.Contains(words, "data") || !strings.Contains(words, home[0]) {
			return fmt.Errorf("it says %q", words)
		}
		return nil
	}))
	for _, r := range replicas(t, "db") {
		if r.Spec.Slot == 0 && r.Spec.Node != "" && r.Spec.Node != home[0] {
			t.Errorf("db-0 is on %s, its volume on %s", r.Spec.Node, home[0])
		}
	}
	must(t, fleet.Lab.StartNode(ctx, home[0]))
	must(t, fleet.WaitNode(ctx, home[0], api.VerdictHealthy, 20*time.Second))
	must(t, fleet.WaitReady(ctx, "db", 2, 30*time.Second))
	same("a return of its node", log("db-0"), "one", "two", "two")

	// A drain waits for what only its node can have.
	must(t, fleet.Must(ctx, "drain", home[1], "--wait=false"))
	must(t, rig.Until(ctx, 10*time.Second, "the drain to say what it waits for", func() error {
		if out := orchctl(t, "describe", "node", home[1]); !strings.Contains(out, "db-1 stays: it is bound to "+home[1]) {
			return fmt.Errorf("it says:\n%s", out)
		}
		return nil
	}))
	if now := on(); now[1] != home[1] {
		t.Errorf("db-1 was moved from %s to %s", home[1], now[1])
	}
	must(t, fleet.Must(ctx, "uncordon", home[1]))
	must(t, fleet.WaitReady(ctx, "db", 2, 20*time.Second))

	// Scaled down and up, deleted and made anew: the files are there.
	must(t, fleet.Must(ctx, "scale", "service/db", "--replicas", "1"))
	must(t, fleet.Must(ctx, "scale", "service/db", "--replicas", "2"))
	same("a scale", log("db-1")[:2], "one", "two")
	must(t, fleet.Must(ctx, "delete", "service/db"))
	contains(t, "volume ls", orchctl(t, "volume", "ls"), "data.db-0", "data.db-1")
	must(t, fleet.ApplyText(ctx, manifest(2, "three"), true))
	if now := on(); now[0] != home[0] || now[1] != home[1] {
		t.Errorf("the slots are on %v, their volumes on %v", now, home)
	}
	same("a delete", log("db-0"), "one", "two", "two", "three")

	// What is removed is gone from the disk.
	must(t, fleet.Must(ctx, "delete", "service/db"))
	must(t, fleet.Must(ctx, "volume", "rm", "data.db-0", "data.db-1"))
	for _, node := range home {
		must(t, rig.Until(ctx, 20*time.Second, "the files to be gone from "+node, func() error {
			out, err := fleet.Shell(ctx, node, "find / -xdev -path '*volumes*' -name log 2>/dev/null; true")
			if err == nil && out != "" {
				err = fmt.Errorf("left: %s", out)
			}
			return err
		}))
	}
	must(t, rig.Until(ctx, 20*time.Second, "the volumes to be gone", func() error {
		if out := orchctl(t, "volume", "ls"); strings.Contains(out, "data.db") {
			return fmt.Errorf("left:\n%s", out)
		}
		return nil
	}))
	must(t, fleet.ApplyText(ctx, manifest(1, "four"), true))
	same("a new volume", log("db-0"), "four")
}
