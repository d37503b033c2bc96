package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/e2e/rig"
	"github.com/orchctl/orch/internal/lab"
)

const (
	// diskSize of the small node, and the size of each image's ballast on it, once as it
	// was fetched and once unpacked: three of them are beyond the high mark, six beyond
	// the disk.
	diskSize, ballast = 512 << 20, 56 << 20
	diskUpdates       = 7
)

// TestFullDisk: a node whose disk images fill is cleaned before its replicas suffer, and
// what a way back needs stays.
func TestFullDisk(t *testing.T) {
	ownLab(t)
	ctx := t.Context()
	f, err := rig.Up(ctx, lab.Config{Name: "e2e-disk", Capacity: "cpu=64,memory=32Gi", ControllerArgs: registryArgs(shared),
		AgentArgs: append(registryArgs(shared), "--image-gc-high", "70", "--image-gc-low", "50")})
	must(t, err)
	root := filepath.Join(f.Lab.Dir(), "nodes", "n1", "containerd")
	t.Cleanup(func() {
		ctx := context.Background()
		if t.Failed() {
			f.Dump(ctx, os.Stderr)
		}
		if err := f.Lab.KillNode(ctx, "n1"); err != nil {
			t.Error(err)
		}
		if err := unix.Unmount(root, 0); err != nil {
			t.Errorf("unmount the small disk: %v", err)
		}
		if err := f.Down(ctx); err != nil {
			t.Error(err)
		}
	})
	must(t, os.MkdirAll(root, 0o700))
	must(t, unix.Mount("disk", root, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", diskSize)))
	_, err = f.Lab.AddNode(ctx)
	must(t, err)
	must(t, f.WaitNodes(ctx, 1))
	r := newRegistryBeside(t, f, 5100)

	image := func(i int) string { return r.push(t, fmt.Sprintf("team/big:%d", i), fmt.Sprint(i), ballast, "amd64") }
	spec := "  rollout: {maxSurge: 1, maxUnavailable: 0}"
	must(t, f.ApplyText(ctx, pulled("big", 1, image(1), spec, ""), true))
	for i := 2; i <= diskUpdates; i++ {
		must(t, f.ApplyText(ctx, pulled("big", 1, image(i), spec, ""), true))
		if s, err := f.Service(ctx, "big"); err != nil || s.Status.Ready != 1 {
			t.Fatalf("update %d: %+v, %v", i, s.Status, err)
		}
	}
	list, errs, code := f.Orchctl(ctx, "image", "ls")
	if code != 0 {
		t.Fatalf("image ls: exit %d: %s", code, errs)
	}
	contains(t, "image ls", list, fmt.Sprintf("team/big:%d", diskUpdates), fmt.Sprintf("team/big:%d", diskUpdates-1))
	if strings.Contains(list, "team/big:1 ") {
		t.Errorf("the first image is still there:\n%s", list)
	}

	// The way back needs no registry.
	r.stop()
	must(t, f.Must(ctx, "rollout", "undo", "service/big"))
	must(t, f.WaitReady(ctx, "big", 1, 20*time.Second))
	out, errs, code := f.Orchctl(ctx, "exec", "big-0", "--", "/bin/web", "-cat", "/proc/self/environ")
	if code != 0 {
		t.Fatalf("exec: exit %d: %s", code, errs)
	}
	contains(t, "the environment after undo", out, fmt.Sprintf("VERSION=%d", diskUpdates-1))

	// An image that could never fit is refused in words, and what runs is left alone.
	r.start(t)
	before := ready(t, f, "big")
	huge := pulled("huge", 1, r.push(t, "team/huge:1", "1", diskSize, "amd64"), "", "")
	must(t, f.ApplyText(ctx, huge, false))
	must(t, rig.Until(ctx, 60*time.Second, "huge-0 to tell that it does not fit", func() error {
		out, errs, code := f.Orchctl(ctx, "describe", "replica", "huge-0")
		if code != 0 || !strings.Contains(out, "space") {
			return fmt.Errorf("exit %d:\n%s%s", code, out, errs)
		}
		return nil
	}))
	if after := ready(t, f, "big"); after.Spec.Epoch != before.Spec.Epoch || after.Status.Restarts != before.Status.Restarts {
		t.Errorf("a pull that did not fit touched what runs: before %+v, after %+v", before, after)
	}
}

// ready gives the replica of a service that is ready; one that is on its way out is not.
func ready(t *testing.T, f *rig.Fleet, service string) api.Replica {
	t.Helper()
	all, err := f.Replicas(t.Context(), service)
	must(t, err)
	all = slices.DeleteFunc(all, func(r api.Replica) bool { return !r.Status.Ready || r.Status.Phase != api.PhaseRunning })
	if len(all) != 1 {
		t.Fatalf("%d replicas of %s are ready, want 1: %+v", len(all), service, all)
	}
	return all[0]
}
