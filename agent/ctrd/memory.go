package ctrd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// What containers get from memory lies in one folder each, in a file system of ours that
// is on no disk, and never comes to be on one: no page of it is swapped out. It outlives
// the agent, as containers do, and nothing but the node's end takes it away.
//
//	MemoryDir/ID/env      the secret variables, name=value, each ended by a NUL
//	            /files/0  the first FileMount's files, and so on
//
// What is in a container's folder belongs to its user; the folders above are closed to all
// but root, so that nothing on the node sees into them but through the container's mounts.
const (
	envName   = "env"
	filesName = "files"
)

// openMemory makes the file system, unless it is there from before.
//
// tmpfs can be told not to swap since Linux 6.4. ramfs, its forebear, never does; it has no
// limit of size, which is no danger as only we write there, and what the api allows.
func openMemory(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make memory folder: %w", err)
	}
	on, err := isMount(dir)
	if err != nil {
		return fmt.Errorf("look at memory folder: %w", err)
	}
	if on {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			return fmt.Errorf("look at memory folder %s: %w", dir, err)
		}
		if st.Type != unix.TMPFS_MAGIC && st.Type != unix.RAMFS_MAGIC {
			return fmt.Errorf("memory folder %s is on a disk: something else is mounted there", dir)
		}
		return nil
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err = unix.Mount("orch", dir, "tmpfs", flags, "mode=0700,noswap"); err != nil {
		err = mountRAM(dir, flags)
	}
	if err != nil {
		return fmt.Errorf("mount memory on %s: %w", dir, err)
	}
	return nil
}

func mountRAM(dir string, flags uintptr) error {
	return unix.Mount("orch", dir, "ramfs", flags, "mode=0700")
}

// isMount tells whether something is mounted on a folder itself.
func isMount(dir string) (bool, error) {
	var here, above unix.Stat_t
	if err := unix.Stat(dir, &here); err != nil {
		return false, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	if err := unix.Stat(filepath.Dir(dir), &above); err != nil {
		return false, &os.PathError{Op: "stat", Path: filepath.Dir(dir), Err: err}
	}
	return here.Dev != above.Dev, nil
}

// sweepMemory removes what is left there of containers that are gone.
func (r *Runtime) sweepMemory(ctx context.Context) error {
	have, err := os.ReadDir(r.cfg.MemoryDir)
	if err != nil || len(have) == 0 {
		return err
	}
	list, err := r.client.ContainerService().List(r.in(ctx))
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	for _, f := range have {
		if !slices.ContainsFunc(list, func(c containers.Container) bool { return c.ID == f.Name() }) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(r.cfg.MemoryDir, f.Name())))
		}
	}
	return err
}

// LeaveMemory unmounts the memory of a node that is taken out of service, once no
// container is left that has something there.
func (r *Runtime) LeaveMemory() error {
	left, err := os.ReadDir(r.cfg.MemoryDir)
	if err == nil && len(left) > 0 {
		return fmt.Errorf("unmount %s: containers have files there, such as %s", r.cfg.MemoryDir, left[0].Name())
	}
	if err == nil {
		err = unix.Unmount(r.cfg.MemoryDir, 0)
	}
	if err == nil {
		err = os.Remove(r.cfg.MemoryDir)
	}
	if err != nil {
		return fmt.Errorf("unmount memory %s: %w", r.cfg.MemoryDir, err)
	}
	return nil
}

// memoryOf gives the folder of what a container has in memory.
func (r *Runtime) memoryOf(id string) string { return filepath.Join(r.cfg.MemoryDir, id) }

func (r *Runtime) filesIn(id string, i int) string {
	return filepath.Join(r.memoryOf(id), filesName, strconv.Itoa(i))
}

// memoryMounts are what a container gets from memory, and what its shim needs.
func (r *Runtime) memoryMounts(id string, s ContainerSpec) ([]specs.Mount, error) {
	var out []specs.Mount
	bind := func(at, source string, opts ...string) {
		out = append(out, specs.Mount{Destination: at, Type: "bind", Source: source, Options: append([]string{"bind", "rprivate", "ro", "nosuid", "nodev"}, opts...)})
	}
	for i, f := range s.Files {
		for name := range f.Files {
			if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
				return nil, fmt.Errorf("files of %s at %s: %q is no name of a file", id, f.Path, name)
			}
		}
		source := r.filesIn(id, i)
		if f.Single {
			if len(f.Files) != 1 {
				return nil, fmt.Errorf("files of %s: %d files for the one at %s", id, len(f.Files), f.Path)
			}
			for name := range f.Files {
				source = filepath.Join(source, name)
			}
		}
		var opts []string
		if f.Mode&0o111 == 0 {
			opts = []string{"noexec"}
		}
		bind(filepath.Clean(f.Path), source, opts...)
	}
	if len(s.SecretEnv) > 0 {
		bind(insideEnv, filepath.Join(r.memoryOf(id), envName), "noexec")
	}
	if len(s.SecretEnv) > 0 || s.Container.Stdin {
		bind(insideShim, r.cfg.ShimPath)
	}
	if s.Container.Stdin { // owned by the container's user: layMemory
		out = append(out, specs.Mount{Destination: insideCalls, Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "noexec", "mode=0700", "size=4k"}})
	}
	return out, nil
}

// layMemory writes what memoryMounts mounts, as the container's user's own. It comes
// when that is known, after all else.
func (r *Runtime) layMemory(id string, s ContainerSpec) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, spec *oci.Spec) error {
		uid, gid := spec.Process.User.UID, spec.Process.User.GID
		for i := range spec.Mounts {
			if m := &spec.Mounts[i]; m.Destination == insideCalls {
				m.Options = append(m.Options, fmt.Sprintf("uid=%d", uid), fmt.Sprintf("gid=%d", gid))
			}
		}
		if err := r.writeMemory(id, s, int(uid), int(gid)); err != nil {
			return fmt.Errorf("write what %s gets from memory: %w", id, err)
		}
		return nil
	}
}

func (r *Runtime) writeMemory(id string, s ContainerSpec, uid, gid int) error {
	if len(s.Files) == 0 && len(s.SecretEnv) == 0 {
		return nil
	}
	write := func(path string, b []byte, mode os.FileMode) error {
		// Closed until it has its owner.
		if err := os.WriteFile(path, b, 0o600); err != nil {
			return err
		}
		if err := os.Chown(path, uid, gid); err != nil {
			return err
		}
		return os.Chmod(path, mode)
	}
	if err := os.MkdirAll(r.memoryOf(id), 0o700); err != nil {
		return err
	}
	if len(s.SecretEnv) > 0 {
		var b []byte
		for _, v := range s.SecretEnv {
			if v.Name == "" || strings.ContainsAny(v.Name, "=\x00") || strings.Contains(v.Value, "\x00") {
				return fmt.Errorf("variable %q cannot be set: its name or its value is none", v.Name)
			}
			b = append(b, v.Name+"="+v.Value+"\x00"...)
		}
		if err := write(filepath.Join(r.memoryOf(id), envName), b, 0o400); err != nil {
			return err
		}
	}
	for i, f := range s.Files {
		dir := r.filesIn(id, i)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		for _, name := range slices.Sorted(maps.Keys(f.Files)) {
			if err := write(filepath.Join(dir, name), f.Files[name], f.Mode.Perm()); err != nil {
				return err
			}
		}
		if err := os.Chmod(dir, 0o755); err != nil { // whatever our umask is
			return err
		}
	}
	return nil
}

// secretEnvOf reads back the secret variables of a container that runs; none if it
// has none.
func (r *Runtime) secretEnvOf(id string) []string {
	b, err := os.ReadFile(filepath.Join(r.memoryOf(id), envName))
	if err != nil || len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
}

// ownedVolume makes a volume's folder when it is not there yet, as its first user's
// own, and in one step: a folder that is there is never given to anybody else.
func ownedVolume(dir string, uid, gid uint32) error {
	if _, err := os.Lstat(dir); err == nil || !errors.Is(err, os.ErrNotExist) {
		return err
	}
	above := filepath.Dir(dir)
	if err := os.MkdirAll(above, 0o755); err != nil {
		return err
	}
	fresh, err := os.MkdirTemp(above, ".new-")
	if err != nil {
		return err
	}
	if err = os.Chown(fresh, int(uid), int(gid)); err == nil {
		err = os.Chmod(fresh, 0o755)
	}
	if err == nil {
		err = unix.Renameat2(unix.AT_FDCWD, fresh, unix.AT_FDCWD, dir, unix.RENAME_NOREPLACE)
	}
	if err == nil {
		return nil
	}
	e := os.Remove(fresh)
	if errors.Is(err, unix.EEXIST) { // another container of the replica was first
		return e
	}
	return errors.Join(err, e)
}

// makeVolumes makes the folders of the volumes that the manifest mounts.
func makeVolumes(s ContainerSpec) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, spec *oci.Spec) error {
		for _, m := range s.Container.Mounts {
			if m.Volume == "" {
				continue
			}
			if err := ownedVolume(s.Volumes[m.Volume], spec.Process.User.UID, spec.Process.User.GID); err != nil {
				return fmt.Errorf("%w: make %s: %w", ErrVolume, m.Volume, err)
			}
		}
		return nil
	}
}

// coreNone is the longest core file, in bytes, of which the kernel makes none. It is not
// 0: with that the kernel still hands the memory to the program that /proc/sys/kernel/core_pattern
// pipes it to, as most distributions have it.
const coreNone = 1

// noCores keeps the memory of a process that holds secrets from being written to disk
// when it crashes, unless the manifest says how long a core file may be.
func noCores(s ContainerSpec) []oci.SpecOpts {
	for name := range s.Container.Ulimits {
		if strings.EqualFold(name, "core") {
			return nil
		}
	}
	if len(s.SecretEnv) == 0 {
		return nil
	}
	return []oci.SpecOpts{oci.WithRlimit(&specs.POSIXRlimit{Type: "RLIMIT_CORE", Soft: coreNone, Hard: coreNone})}
}
