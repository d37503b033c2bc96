package agent

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

var data0 = api.VolumeKey{Namespace: "default", Service: "web", Slot: 0, Volume: "data"}

// fill makes a volume with files, folders and a link that leads out of it.
func fill(t *testing.T, data string, k api.VolumeKey) (outside string) {
	t.Helper()
	outside = filepath.Join(data, "outside")
	path := VolumePath(data, k)
	if err := errors.Join(os.MkdirAll(filepath.Join(path, "a", "b"), 0o755), os.WriteFile(filepath.Join(path, "a", "b", "f"), []byte("x"), 0o400),
		os.MkdirAll(outside, 0o755), os.WriteFile(filepath.Join(outside, "kept"), nil, 0o600), os.Symlink(outside, filepath.Join(path, "link"))); err != nil {
		t.Fatal(err)
	}
	return outside
}

func absent(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// meanwhile is a context that does something when it is asked the nth time.
type meanwhile struct {
	context.Context
	n  *int
	do func()
}

func (m meanwhile) Err() error {
	if *m.n--; *m.n == 0 {
		m.do()
	}
	return m.Context.Err()
}

// TestALinkPutMeanwhile: a folder that becomes a link while it is being deleted leads nowhere.
func TestALinkPutMeanwhile(t *testing.T) {
	for n := 1; n < 12; n++ {
		dir := t.TempDir()
		outside := fill(t, dir, data0)
		aside := VolumePath(dir, data0)
		if err := os.Rename(outside, filepath.Join(dir, "b")); err != nil { // a/b will be this b
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "b", "f"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		left := n
		ctx := meanwhile{t.Context(), &left, func() {
			if err := os.Rename(filepath.Join(aside, "a"), filepath.Join(aside, "z")); err == nil {
				_ = os.Symlink(dir, filepath.Join(aside, "a"))
			}
		}}
		_ = deleteAll(ctx, aside) // it may fail, and is tried again then
		if absent(filepath.Join(dir, "b", "f")) || absent(filepath.Join(dir, "b", "kept")) {
			t.Fatalf("what lies outside was deleted when the link came at look %d", n)
		}
		if err := deleteAll(t.Context(), aside); err != nil || !absent(aside) {
			t.Errorf("again: %v", err)
		}
	}
}

func TestRemoveVolume(t *testing.T) {
	dir := t.TempDir()
	if got := VolumePath("/d", data0); got != "/d/volumes/default/web-0/data" {
		t.Errorf("it lies in %s", got)
	}
	if err := removeVolume(t.Context(), dir, data0); err != nil {
		t.Errorf("one that was never made: %v", err)
	}
	outside := fill(t, dir, data0)
	other := data0
	other.Volume = "logs"
	fill2 := VolumePath(dir, other)
	if err := os.MkdirAll(fill2, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := removeVolume(t.Context(), dir, data0); err != nil {
		t.Error(err)
	}
	if !absent(VolumePath(dir, data0)) || absent(filepath.Join(outside, "kept")) || absent(fill2) {
		t.Error("too little is gone, or too much")
	}
	if err := removeVolume(t.Context(), dir, other); err != nil || !absent(filepath.Dir(fill2)) {
		t.Errorf("the slot's folder is left, or %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, volumesFolder, removedFolder, "*")); err != nil || len(left) != 0 {
		t.Errorf("left are %v, %v", left, err)
	}
	for _, k := range []api.VolumeKey{{Namespace: "..", Service: "web", Volume: "data"}, {Namespace: "default", Service: "a/b", Volume: "data"}, {Namespace: "default", Service: "web"}, {Namespace: ".removed", Service: "web", Volume: "d"}} {
		if err := removeVolume(t.Context(), dir, k); err == nil || !strings.Contains(err.Error(), "no name") {
			t.Errorf("%q: %v", k, err)
		}
	}
}

// An agent that ends in the middle of it leaves no half volume, and goes on in its next life.
func TestRemoveVolumeIsCut(t *testing.T) {
	dir := t.TempDir()
	outside := fill(t, dir, data0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := removeVolume(ctx, dir, data0); !errors.Is(err, context.Canceled) {
		t.Errorf("cut: %v", err)
	}
	if !absent(VolumePath(dir, data0)) {
		t.Error("half of it is still a volume")
	}
	if err := sweepVolumes(t.Context(), Config{Data: dir}); err != nil || !absent(filepath.Join(dir, volumesFolder, removedFolder)) || absent(filepath.Join(outside, "kept")) {
		t.Errorf("swept: %v", err)
	}
}

// A replica gets its slot's folder; the volume goes when the leader says so and nothing
// has it any more.
func TestVolumeLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		fill(t, r.dir, data0)
		r.start()
		l := r.next(10)
		a := web(web0)
		a.Template.Containers[0].Mounts = []api.Mount{{Path: "/data", Volume: "data"}, {Path: "/tmp", Tmpfs: &api.Tmpfs{}}}
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{a}})
		l.hear(ready)
		path := VolumePath(r.dir, data0)
		if s := r.runtime.SpecOf("default.web-0.1.main"); len(s.Volumes) != 1 || s.Volumes["data"] != path || len(s.Container.Mounts) != 2 {
			t.Errorf("it gets %v for %v", s.Volumes, s.Container.Mounts)
		}
		l.assign(t, wire.AssignmentSet{Drop: []api.ReplicaKey{web0}})
		l.hear(func(s wire.StatusReport) bool { return slices.Contains(s.Gone, web0) })
		if absent(path) {
			t.Error("it went with its replica")
		}
		l.assign(t, wire.AssignmentSet{RemoveVolumes: []api.VolumeKey{data0}})
		l.hear(func(s wire.StatusReport) bool { return slices.Contains(s.VolumesGone, data0) })
		if !absent(path) {
			t.Error("it is still there")
		}
		// Who has not heard it asks again, and hears it again.
		r.restart()
		l = r.next(11)
		l.assign(t, wire.AssignmentSet{Complete: true, RemoveVolumes: []api.VolumeKey{data0}})
		l.hear(func(s wire.StatusReport) bool { return slices.Contains(s.VolumesGone, data0) })
		r.stop()
	})
}

func TestPurgeKeepsVolumes(t *testing.T) {
	for _, volumes := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.start()
			r.next(10)
			time.Sleep(time.Second)
			r.stop()
			fill(t, r.dir, data0)
			var k kernel
			said := ""
			left := Leftovers{Data: r.dir, Volumes: volumes, Runtime: r.runtime, Network: k.open, Rules: &k, Memory: &k, Say: func(format string, args ...any) { said += format }}
			if err := left.Purge(t.Context()); err != nil {
				t.Fatal(err)
			}
			entries, err := os.ReadDir(r.dir)
			if kept := len(entries) == 1 && entries[0].Name() == volumesFolder; err != nil || kept == volumes || !volumes && absent(filepath.Join(VolumePath(r.dir, data0), "a", "b", "f")) {
				t.Errorf("volumes too: %t; left %v, %v", volumes, entries, err)
			}
			if strings.Contains(said, "--volumes") == volumes {
				t.Errorf("volumes too: %t; said %q", volumes, said)
			}
		})
	}
}
