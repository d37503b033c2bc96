package ctrd

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/api"
)

// srv makes what the tests bind: /srv/data is allowed by itself, /srv/behind by a
// symbolic link to it, /srv/secret is not.
func srv(t *testing.T) string {
	t.Helper()
	dir := env.dir + "/srv"
	for path, text := range map[string]string{"data/file": "of the node", "data/sub/deep": "deep", "secret/key": "secret", "behind/file": "behind"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"link": "behind", "data/escape": "../secret", "data/inside": "sub", "alias": "data"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestTmpfs(t *testing.T) {
	s := spec("size=/a", "touch=/a/x", "cat=/a/x", "out=", "size=/a/b", "touch=/a/b/x", "mounted=/a", "cat=/etc/hostname")
	s.Container.SecurityContext = &api.SecurityContext{User: "1000", ReadOnlyRoot: true}
	s.Container.Resources.Limits = api.ResourceList{api.Memory: api.Whole(64 << 20)}
	size := api.Whole(1 << 20)
	s.Container.Mounts = []api.Mount{ // the order does not matter
		{Path: "/a/b", Tmpfs: &api.Tmpfs{Size: &size}, ReadOnly: true},
		{Path: "/a/", Tmpfs: &api.Tmpfs{}},
		{Path: "/etc", Tmpfs: &api.Tmpfs{}}, // ours come on top of it
	}
	ended(t, start(t, s).ID)
	prints(t, s, "stdout size 33554432", "stdout x", "stdout size 1048576", "stdout open /a/b/x: read-only file system",
		"stdout /a rw,nosuid,nodev,relatime", "stdout web-2")
}

func TestBind(t *testing.T) {
	dir := srv(t)
	s := spec("cat=/rw/file", "touch=/rw/new", "cat=/ro/file", "touch=/ro/new", "cat=/one", "cat=/behind/file", "cat=/sub/deep", "cat=/alias/file", "cat=/etc/hostname")
	s.Container.Mounts = []api.Mount{
		{Path: "/rw", Bind: dir + "/data"}, {Path: "/ro", Bind: dir + "/data/", ReadOnly: true}, {Path: "/one", Bind: dir + "/data/file"},
		{Path: "/behind", Bind: dir + "/behind"}, {Path: "/sub", Bind: dir + "/data/inside"}, {Path: "/alias", Bind: dir + "/alias"},
		{Path: "/etc/hostname", Bind: dir + "/data/file"},
	}
	ended(t, start(t, s).ID)
	prints(t, s, "stdout of the node", "stdout of the node", "stdout open /ro/new: read-only file system", "stdout of the node", "stdout behind", "stdout deep",
		"stdout of the node", "stdout of the node")
	if b, err := os.ReadFile(dir + "/data/new"); string(b) != "x" || err != nil {
		t.Errorf("the container wrote %q, %v", b, err)
	}
	for bind, want := range map[string]string{
		"/etc":                  "n1 does not allow bind mounts of /etc: start its agent with --allow-bind /etc",
		dir:                     "n1 does not allow bind mounts of " + dir + ": ",
		dir + "/data/../secret": "n1 does not allow bind mounts of " + dir + "/secret: ",
		dir + "/data/escape":    "n1 does not allow bind mounts of " + dir + "/secret, to which " + dir + "/data/escape leads: start its agent with --allow-bind " + dir + "/secret",
		dir + "/data/escape/no": "n1 has no " + dir + "/data/escape/no: a bind mount makes none",
		dir + "/database":       "n1 does not allow bind mounts of " + dir + "/database: ",
		"/no/such/path":         "n1 does not allow bind mounts of /no/such/path: ",
		dir + "/data/absent":    "n1 has no " + dir + "/data/absent: a bind mount makes none",
		dir + "/data/file/x":    "bind mount of " + dir + "/data/file/x on n1: not a directory",
		"data":                  `bind mount of "data": its path is not absolute`,
	} {
		s := spec("id")
		s.Container.Mounts = []api.Mount{{Path: "/rw", Bind: dir + "/data"}, {Path: "/m", Bind: bind}}
		_, err := env.r.Start(t.Context(), s)
		if !errors.Is(err, ErrBindRefused) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("bind of %s: %v, want %q", bind, err, want)
		}
		remove(t, s.ID())
	}
}

// TestBindIsWhatWasJudged: whoever may write beside a path cannot have something
// else mounted by putting a symbolic link in its place after the look.
func TestBindIsWhatWasJudged(t *testing.T) {
	dir := srv(t)
	here, link := dir+"/data/sub", dir+"/data/swap"
	if err := os.Symlink(dir+"/secret", link); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { // folder and link change places all the time
		for ctx.Err() == nil {
			if err := unix.Renameat2(unix.AT_FDCWD, here, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE); err != nil {
				done <- err
				return
			}
			time.Sleep(time.Millisecond)
		}
		done <- nil
	}()
	const wanted = "was changed while it was being mounted at /m"
	caught := false
	eventually(t, func() error {
		s := spec("cat=/m/deep", "cat=/m/key")
		s.Container.Mounts = []api.Mount{{Path: "/m", Bind: here}}
		t.Cleanup(func() { remove(t, s.ID()) })
		o, err := env.r.Start(t.Context(), s)
		switch {
		case err == nil:
			ended(t, o.ID)
			prints(t, s, "stdout deep", "stdout open /m/key: no such file or directory")
		case !errors.Is(err, ErrBindRefused):
			t.Error(err)
			return nil
		case strings.HasSuffix(err.Error(), wanted):
			caught = true
			return nil
		}
		return errors.New("nobody met the link")
	})
	if !caught {
		t.Errorf("never: %s", wanted)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestReadOnlyGoesDeep: a disk that is mounted inside what is bound is as
// read-only as the rest.
func TestReadOnlyGoesDeep(t *testing.T) {
	dir := srv(t)
	disk := dir + "/data/a disk"
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("disk", disk, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	if err := os.WriteFile(disk+"/file", []byte("of the disk\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := spec("cat=/ro/a disk/file", "touch=/ro/a disk/new", "touch=/rw/a disk/new")
	s.Container.Mounts = []api.Mount{{Path: "/ro", Bind: dir + "/data", ReadOnly: true}, {Path: "/rw", Bind: dir + "/data"}}
	ended(t, start(t, s).ID)
	prints(t, s, "stdout of the disk", "stdout open /ro/a disk/new: read-only file system")
	if _, err := os.Stat(disk + "/new"); err != nil {
		t.Error(err)
	}
}
