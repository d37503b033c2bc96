//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/internal/lab/initspec"
)

// replaced are the folders that a host has to itself.
var replaced = []string{"/run", "/tmp", "/dev/shm", "/var/lib"}

// furnish makes the mount namespace look like a machine of its own: fresh
// /proc and /sys, empty /run and /tmp, its own /var/lib. The cgroup trees are
// carried over: a fresh sysfs hides them, and without them no container
// starts. Trees are taken hold of first and put back by descriptor, since what
// they lie under may be hidden by then.
func furnish(spec *initspec.Spec) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := own(spec); err != nil {
		return err
	}
	cgroups, err := hold("/sys/fs/cgroup")
	if err != nil {
		return err
	}
	varLib, err := hold(spec.VarLib)
	if err != nil {
		return err
	}
	kept := map[string]int{}
	for _, dir := range spec.Keep {
		if !hidden(dir) {
			continue
		}
		if kept[dir], err = hold(dir); err != nil {
			return err
		}
	}
	if err := detachForeign(); err != nil {
		return err
	}
	for _, m := range []struct{ kind, dir, options string }{
		{"tmpfs", "/run", "mode=755"},
		{"tmpfs", "/tmp", "mode=1777"},
		{"tmpfs", "/dev/shm", "mode=1777"},
		{"proc", "/proc", ""},
		{"sysfs", "/sys", ""},
	} {
		if err := unix.Mount(m.kind, m.dir, m.kind, unix.MS_NOSUID|unix.MS_NODEV, m.options); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.kind, m.dir, err)
		}
	}
	if err := put(varLib, "/var/lib"); err != nil {
		return err
	}
	for _, dir := range spec.Keep {
		if fd, ok := kept[dir]; ok {
			if err := put(fd, dir); err != nil {
				return err
			}
		}
	}
	if err := put(cgroups, "/sys/fs/cgroup"); err != nil {
		return err
	}
	for at, file := range spec.Files {
		if err := cover(at, file); err != nil {
			return err
		}
	}
	return nil
}

// cover mounts a file on another. That may be missing, or lead to where a fresh /run hides
// it: then there is nothing to cover.
func cover(at, file string) error {
	if _, err := os.Stat(at); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := unix.Mount(file, at, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", file, at, err)
	}
	return nil
}

// settingsDir is where daemons look for settings unasked. Those of this machine's own
// are not for a lab's.
const settingsDir = "/etc/orch"

// own gives the host folders of its own that begin as the machine's, but without
// settingsDir.
func own(spec *initspec.Spec) error {
	_, err := os.Stat(settingsDir)
	foreign := err == nil
	for _, dir := range spec.Own {
		at := filepath.Join(spec.OwnDir, strings.ReplaceAll(strings.Trim(dir, "/"), "/", "-"))
		upper, work := filepath.Join(at, "upper"), filepath.Join(at, "work")
		_, err := os.Stat(upper)
		first := err != nil
		for _, d := range []string{upper, work} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				return err
			}
		}
		if err := unix.Mount("overlay", dir, "overlay", 0, "lowerdir="+dir+",upperdir="+upper+",workdir="+work); err != nil {
			return fmt.Errorf("make %s the host's own: %w", dir, err)
		}
		if within(settingsDir, dir) && foreign {
			foreign = false
			if first { // later it is what was put there
				if err := os.RemoveAll(settingsDir); err != nil {
					return err
				}
			}
		}
	}
	if !foreign {
		return nil
	}
	if err := unix.Mount("tmpfs", settingsDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("hide %s: %w", settingsDir, err)
	}
	return nil
}

func hidden(dir string) bool {
	for _, r := range replaced {
		if within(dir, r) {
			return true
		}
	}
	return false
}

func within(dir, parent string) bool {
	return dir == parent || strings.HasPrefix(dir, parent+"/")
}

// hold clones the mounts at and below a folder and returns a descriptor.
func hold(dir string) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return -1, fmt.Errorf("hold %s: %w", dir, err)
	}
	return fd, nil
}

// put attaches a held tree.
func put(fd int, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount on %s: %w", dir, err)
	}
	return unix.Close(fd)
}

// detachForeign lets go of mounts which this namespace has only because it was
// copied: those under folders about to be hidden, and every named namespace.
// A copy would keep another lab's network alive after that lab was taken down.
func detachForeign() error {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(info)), "\n")
	for i := len(lines) - 1; i >= 0; i-- { // the latest lies on top
		f := strings.Fields(lines[i])
		if len(f) < 10 {
			return fmt.Errorf("read mountinfo: line %q", lines[i])
		}
		dir, kind := unescape(f[4]), ""
		for j, word := range f[:len(f)-1] {
			if word == "-" {
				kind = f[j+1]
			}
		}
		if kind != "nsfs" && (!hidden(filepath.Dir(dir)) || dir == "/dev/shm") {
			continue
		}
		if err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && err != unix.EINVAL && err != unix.ENOENT {
			return fmt.Errorf("detach %s: %w", dir, err)
		}
	}
	return nil
}

// unescape undoes mountinfo's octal escapes (\040 is a space).
func unescape(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		out.WriteByte(s[i])
	}
	return out.String()
}
