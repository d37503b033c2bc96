package ctrd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/orchctl/orch/agent/images"
)

// smallDisk is a containerd of its own whose root lies on a file system of so many bytes.
func smallDisk(t *testing.T, size int64) *Runtime {
	t.Helper()
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", root, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "containerd.toml")
	text := fmt.Appendf(nil, `version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[grpc]
address = %q
`, root, dir+"/state", dir+"/ctrd.sock")
	if err := os.WriteFile(conf, text, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("containerd", "-c", conf)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		out.Close()
		if t.Failed() {
			b, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Logf("containerd's last words:\n%s", b[max(0, len(b)-2000):])
		}
		if err := syscall.Unmount(root, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	cfg := testConfig()
	cfg.Address, cfg.StateDir, cfg.MemoryDir = dir+"/ctrd.sock", dir+"/files", dir+"/memory"
	r, err := Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Close()
		if err := syscall.Unmount(dir+"/memory", syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return r
}

// TestSmallDisk: what no longer fits is told as such and leaves nothing half; once the
// longest unused image is gone, with all its bytes, it fits.
func TestSmallDisk(t *testing.T) {
	ctx := t.Context()
	r, h := smallDisk(t, 96<<20), newHub(t, false)
	disk := func() images.Disk {
		size, free, err := r.Disk(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return images.Disk{Size: size, Free: free}
	}
	ref := func(n int) string { return fmt.Sprintf("%s/web:%d", h.host, n) }
	pull := func(n int) error {
		_, err := r.EnsureImage(ctx, ImageWant{Ref: ref(n)}, nil)
		return err
	}
	var book images.Book
	began := time.Now()
	for n := 1; n <= 4; n++ { // each takes its bytes twice: as they came, and unpacked
		h.push(t, fmt.Sprintf("web:%d", n), bulk(t, 14<<20, 1, "amd64"))
		if n == 4 {
			break
		}
		if err := pull(n); err != nil {
			t.Fatal(err)
		}
	}
	list, err := r.Images(ctx)
	if err != nil || len(list) != 3 {
		t.Fatalf("images %+v, %v", list, err)
	}
	for _, i := range list { // web:1 was used last, and web:2 longest ago
		if i.Origin != images.Pulled || i.Size < 14<<20 {
			t.Errorf("image %+v", i)
		}
		at := map[string]time.Duration{ref(1): 3, ref(2): 1, ref(3): 2}[i.Refs[0]]
		book.Assigned(nil, []string{i.Digest}, began.Add(at*time.Second))
	}
	before := disk()
	if err := pull(4); !errors.Is(err, ErrNoSpace) || !errors.Is(err, ErrImageError) {
		t.Fatalf("on a disk %d%% full: %v", before.Used(), err)
	}
	if left, err := r.client.ContentStore().ListStatuses(r.in(ctx)); err != nil || len(left) > 0 {
		t.Errorf("left: %+v, %v", left, err)
	}
	eventually(t, func() error { // containerd collects in its own time
		if now := disk(); now.Free < before.Free-(1<<20) {
			return fmt.Errorf("the failed pull has left %d KiB", (before.Free-now.Free)>>10)
		}
		return nil
	})

	third, ok := images.Find(list, ref(3))
	if !ok {
		t.Fatal("web:3 is not listed")
	}
	st := images.State{Now: time.Now(), Disk: disk(), Marks: images.Marks{High: 85, Low: 65}, Images: list, Book: &book,
		Needs: []images.Need{{Ref: ref(3), Why: "runs web-0"}}}
	var gone []string
	for _, x := range images.Plan(st) {
		free := disk().Free
		if err := r.RemoveImage(ctx, x.Image.Digest, time.Now()); err != nil {
			t.Fatal(err)
		}
		if freed := disk().Free - free; freed < 2*14<<20 { // at once, and with its snapshots
			t.Errorf("%v: %d KiB were freed", x.Image.Refs, freed>>10)
		}
		gone = append(gone, x.Image.Refs...)
		if st.Done(disk()) {
			break
		}
	}
	if len(gone) != 1 || gone[0] != ref(2) {
		t.Errorf("gone are %v, want web:2", gone)
	}
	if err := pull(4); err != nil {
		t.Fatal(err)
	}
	// What was wanted since the decision stays, and so does what a container has.
	decided := time.Now()
	if _, err := r.EnsureImage(ctx, ImageWant{Ref: ref(3)}, nil); err != nil {
		t.Fatal(err)
	}
	if err := r.RemoveImage(ctx, third.Digest, decided); !errors.Is(err, ErrImageInUse) {
		t.Errorf("wanted just now: %v", err)
	}
}

// TestRemoveNames: a name goes alone, and names that only we gave go with the last one.
func TestRemoveNames(t *testing.T) {
	h := newHub(t, false)
	img := bulk(t, 1<<20, 1, "amd64")
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	refs := []string{h.host + "/web:1", h.host + "/web:2"}
	for n, ref := range refs {
		h.push(t, fmt.Sprintf("web:%d", n+1), img)
		if _, err := env.r.EnsureImage(ctx, ImageWant{Ref: ref}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := env.r.EnsureImage(ctx, ImageWant{Ref: refs[0] + "@" + d.String()}, nil); err != nil { // pins it
		t.Fatal(err)
	}
	names := func() int {
		list, err := env.r.Images(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		i, _ := images.Find(list, d.String())
		return len(i.Refs)
	}
	if n := names(); n != 3 {
		t.Fatalf("%d names", n)
	}
	for _, want := range []struct {
		ref  string
		left int
	}{{refs[0], 2}, {refs[1], 0}} {
		if err := env.r.Untag(ctx, d.String(), want.ref, time.Now()); err != nil {
			t.Fatal(err)
		}
		if n := names(); n != want.left {
			t.Errorf("without %s there are %d names, want %d", want.ref, n, want.left)
		}
	}
	if err := env.r.RemoveImage(ctx, d.String(), time.Now()); !errors.Is(err, ErrImageMissing) {
		t.Errorf("again: %v", err)
	}
	o := start(t, spec("wait=0"))
	if err := env.r.RemoveImage(ctx, o.ImageID, time.Now().Add(time.Hour)); !errors.Is(err, ErrImageInUse) {
		t.Errorf("a container's: %v", err)
	}
}

// TestPartsMakeRoom: what is kept of a pull that broke off goes where another needs the room.
func TestPartsMakeRoom(t *testing.T) {
	r, h := smallDisk(t, 96<<20), newHub(t, false)
	h.push(t, "half:1", bulk(t, 60<<20, 1, "amd64"))
	h.push(t, "web:1", bulk(t, 38<<20, 1, "amd64"))
	pull := func(name string) error {
		_, err := r.EnsureImage(t.Context(), ImageWant{Ref: h.host + "/" + name}, nil)
		return err
	}
	h.breakOff()
	if err := pull("half:1"); err == nil {
		t.Fatal("a layer that breaks off was taken")
	}
	h.fault.Store(nil)
	if err := pull("web:1"); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("beside half an image: %v", err)
	}
	if err := pull("web:1"); err != nil {
		t.Errorf("the next try: %v", err)
	}
}
