package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/e2e/rig"
	"github.com/orchctl/orch/internal/lab"
)

// TestBackup: the controller's disk is lost and made anew from a backup. What the backup
// knows goes on in place; what it does not know is left alone, and said; nothing that the
// new life of the store gives out was given out before.
func TestBackup(t *testing.T) {
	ownLab(t)
	ctx := t.Context()
	f, err := rig.Up(ctx, lab.Config{Name: "e2e-backup", Nodes: 2, Capacity: "cpu=64,memory=32Gi"})
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			f.Dump(context.Background(), os.Stderr)
		}
		if err := f.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	must(t, f.LoadImage(ctx, "web.tar"))
	short := "  exclusive: true\n  leaseDuration: 5s\n  terminationGracePeriod: 1s"
	must(t, f.ApplyText(ctx, values("Secret", "kept", `WORD: "hush"`)+"---\n"+service("kept", 3, "", httpProbe+
		"\n      env: [{name: WORD, valueFrom: {secret: {name: kept, key: WORD}}}]")+"---\n"+service("alone", 1, short, ""), true))

	file := filepath.Join(t.TempDir(), "orch.db")
	out, errs, code := f.Orchctl(ctx, "backup", file)
	if code != 0 {
		t.Fatalf("backup: exit %d\n%s%s", code, out, errs)
	}
	must(t, f.ApplyText(ctx, service("later", 2, "", httpProbe), true))
	before, err := f.AllContainers(ctx, "n1", "n2")
	must(t, err)

	must(t, f.Lab.StopController(ctx, syscall.SIGKILL))
	data := controllerData(t, f)
	restore := func() (string, error) {
		out, err := exec.CommandContext(ctx, filepath.Join(rig.Root(), "bin", "controller"), "restore", "--data", data, file).CombinedOutput()
		return string(out), err
	}
	if out, err := restore(); err == nil || !strings.Contains(out, "move") {
		t.Errorf("a restore over a store that is there: %v\n%s", err, out)
	}
	must(t, os.RemoveAll(filepath.Join(data, "etcd")))
	must(t, os.Rename(filepath.Join(data, "seal.key"), filepath.Join(data, "away")))
	if out, err := restore(); err == nil || !strings.Contains(out, "seal.key") {
		t.Errorf("a restore without the sealing key: %v\n%s", err, out)
	}
	must(t, os.Rename(filepath.Join(data, "away"), filepath.Join(data, "seal.key")))
	said, err := restore()
	if err != nil {
		t.Fatalf("restore: %v\n%s", err, said)
	}
	contains(t, "restore", said, "will wait until")
	must(t, f.Lab.StartController(ctx))
	must(t, f.WaitNodes(ctx, 2))
	must(t, f.WaitReady(ctx, "kept", 3, 30*time.Second))
	must(t, f.WaitReady(ctx, "alone", 1, 30*time.Second))

	after, err := f.AllContainers(ctx, "n1", "n2")
	must(t, err)
	for id, b := range before {
		if strings.Contains(id, "alone") {
			continue // its lease may have ended: it has to be started once more then
		}
		if a, ok := after[id]; !ok || a.Pid != b.Pid {
			t.Errorf("container %s on %s: was pid %d, is now %+v", id, b.Node, b.Pid, a)
		}
	}
	if _, err := f.Service(ctx, "later"); err == nil {
		t.Error("a service of after the backup is known")
	}
	orphans := 0
	all, err := rig.List[api.Node](ctx, f, api.KindNode, "")
	must(t, err)
	for _, n := range all {
		orphans += len(n.Status.Orphans)
	}
	if orphans != 2 {
		t.Errorf("%d orphans are told, want the 2 replicas of later", orphans)
	}
	// A new filling has an epoch that nothing had before.
	must(t, f.Must(ctx, "scale", "service/kept", "--replicas", "4"))
	must(t, f.WaitReady(ctx, "kept", 4, 20*time.Second))
	replicas, err := f.Replicas(ctx, "kept")
	must(t, err)
	if e := replicas[3].Spec.Epoch; e < 10_000_000 {
		t.Errorf("kept-3 has epoch %d, which may have been given out after the backup", e)
	}
	out, errs, code = f.Orchctl(ctx, "exec", "kept-3", "--", "/bin/web", "-cat", "/proc/self/environ")
	if code != 0 || !strings.Contains(out, "WORD=hush") {
		t.Errorf("the Secret in a new replica: exit %d\n%s%s", code, out, errs)
	}
}

// controllerData is the data folder of a lab's controller.
func controllerData(t *testing.T, f *rig.Fleet) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(f.Lab.Dir(), "*", "data", "seal.key"))
	if err != nil || len(found) != 1 {
		t.Fatal(fmt.Errorf("find the controller's data folder: %v, %w", found, err))
	}
	return filepath.Dir(found[0])
}
