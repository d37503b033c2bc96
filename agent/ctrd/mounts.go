package ctrd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/api"
)

// tmpfsMode lets any user of the container write, and delete what is its own.
const tmpfsMode = "mode=1777"

// mounts are what is laid over the container's files for its manifest, parents first.
//
// What is bound is opened and then judged by where the kernel says that it lies, and
// the place that was found there is mounted. runc does that a moment later and by its
// path: whoever may write beside it could put a symbolic link there meanwhile. So it
// is held open, and binds.check compares before anything of the container runs.
func (r *Runtime) mounts(id string, s ContainerSpec) (_ []specs.Mount, held binds, err error) {
	defer func() {
		if err != nil {
			held.release()
			held = nil
		}
	}()
	out, err := r.memoryMounts(id, s)
	if err != nil {
		return nil, held, err
	}
	c := s.Container
	for _, m := range c.Mounts {
		if m.Config != "" || m.Secret != "" {
			continue // among the files
		}
		var opts []string
		if m.ReadOnly {
			opts = append(opts, "ro")
		}
		mount := specs.Mount{Destination: path.Clean(m.Path)}
		if m.Tmpfs != nil {
			mount.Type, mount.Source = "tmpfs", "tmpfs"
			mount.Options = append(opts, "nosuid", "nodev", tmpfsMode)
			if size := tmpfsSize(m.Tmpfs, c.Resources); size > 0 {
				mount.Options = append(mount.Options, fmt.Sprintf("size=%d", size))
			}
			out = append(out, mount)
			continue
		}
		if m.Volume != "" { // nobody but root writes where it lies
			dir := s.Volumes[m.Volume]
			if !filepath.IsAbs(dir) {
				return nil, held, fmt.Errorf("%w: %s at %s has no folder on this node", ErrVolume, m.Volume, m.Path)
			}
			mount.Type, mount.Source, mount.Options = "bind", dir, append(opts, "rbind", "rprivate")
			out = append(out, mount)
			continue
		}
		f, real, err := r.openBind(m.Bind)
		if err != nil {
			return nil, held, err
		}
		held = append(held, bound{f, mount.Destination})
		mount.Type, mount.Source = "bind", real
		if m.ReadOnly {
			below, err := mountsBelow(real)
			if err != nil {
				return nil, held, err
			}
			if below { // each would stay writable; an old kernel refuses
				opts = append(opts, "rro")
			}
		}
		mount.Options = append(opts, "rbind", "rprivate")
		out = append(out, mount)
	}
	slices.SortStableFunc(out, func(a, b specs.Mount) int { return strings.Compare(a.Destination+"/", b.Destination+"/") })
	return out, held, nil
}

// binds are what is mounted from the node, held open.
type binds []bound

type bound struct {
	file *os.File
	at   string // in the container
}

// release lets go of it.
func (b binds) release() {
	for _, m := range b {
		_ = m.file.Close() // opened by O_PATH: nothing can be lost
	}
}

// check makes sure that a container whose process is made, and does not run yet,
// has the very files and folders that were judged.
func (b binds) check(pid uint32) error {
	if len(b) == 0 {
		return nil
	}
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("look at what is mounted: %w", err)
	}
	defer unix.Close(root)
	for _, m := range b {
		var want, got unix.Stat_t
		if err := unix.Fstat(int(m.file.Fd()), &want); err != nil {
			return fmt.Errorf("look at %s: %w", m.file.Name(), err)
		}
		// As the container sees it: symbolic links on the way are its image's.
		fd, err := unix.Openat2(root, m.at, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
		if errors.Is(err, unix.ENOSYS) {
			return &BindError{"bind mounts need Linux 5.6 or later"}
		}
		if err != nil {
			return fmt.Errorf("look at what is mounted at %s: %w", m.at, err)
		}
		err = unix.Fstat(fd, &got)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("look at what is mounted at %s: %w", m.at, err)
		}
		if got.Dev != want.Dev || got.Ino != want.Ino {
			return &BindError{fmt.Sprintf("%s was changed while it was being mounted at %s", m.file.Name(), m.at)}
		}
	}
	return nil
}

// tmpfsSize in bytes; 0 leaves it to the kernel, which takes half of the node's memory.
func tmpfsSize(t *api.Tmpfs, res api.Resources) int64 {
	if t.Size != nil {
		return t.Size.Value()
	}
	limit := res.Limits[api.Memory]
	return limit.Value() / 2
}

// openBind opens what is to be bound, if it lies in a folder of which that is
// allowed, and tells where that is without symbolic links.
func (r *Runtime) openBind(bind string) (*os.File, string, error) {
	name := orDefault(r.cfg.Node, "this node")
	refuse := func(what, lies string) error {
		return &BindError{fmt.Sprintf("%s does not allow bind mounts of %s: start its agent with --allow-bind %s", name, what, lies)}
	}
	clean := filepath.Clean(bind)
	if !filepath.IsAbs(clean) {
		return nil, "", &BindError{fmt.Sprintf("bind mount of %q: its path is not absolute", bind)}
	}
	fd, err := unix.Open(clean, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		switch {
		case !r.allowsBind(clean): // whether it exists is nobody's business
			return nil, "", refuse(clean, clean)
		case errors.Is(err, fs.ErrNotExist):
			return nil, "", &BindError{fmt.Sprintf("%s has no %s: a bind mount makes none", name, clean)}
		}
		return nil, "", &BindError{fmt.Sprintf("bind mount of %s on %s: %v", clean, name, err)}
	}
	f := os.NewFile(uintptr(fd), clean)
	real, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err == nil && r.allowsBind(real) {
		return f, real, nil
	}
	_ = f.Close()
	if err != nil {
		return nil, "", fmt.Errorf("find out where %s lies: %w", clean, err)
	}
	if real != clean {
		return nil, "", refuse(fmt.Sprintf("%s, to which %s leads", real, clean), real)
	}
	return nil, "", refuse(clean, clean)
}

// allowsBind tells whether a path lies in what may be bound; a folder that is
// allowed may itself be behind symbolic links.
func (r *Runtime) allowsBind(real string) bool {
	for _, dir := range r.cfg.AllowBind {
		resolved, err := filepath.EvalSymlinks(dir)
		if err != nil { // it is not there now
			resolved = filepath.Clean(dir)
		}
		if real == resolved || strings.HasPrefix(real, strings.TrimSuffix(resolved, "/")+"/") {
			return true
		}
	}
	return false
}

// mountsBelow tells whether other file systems are mounted inside a folder.
func mountsBelow(dir string) (bool, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false, fmt.Errorf("look for mounts in %s: %w", dir, err)
	}
	inside := strings.NewReplacer(`\`, `\134`, " ", `\040`, "\t", `\011`, "\n", `\012`).Replace(strings.TrimSuffix(dir, "/")) + "/"
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], inside) && f[4] != "/" {
			return true, nil
		}
	}
	return false, nil
}

// besides leaves out those of our own files on which the manifest mounts something.
func besides(files, mounts []specs.Mount) []specs.Mount {
	return slices.DeleteFunc(files, func(f specs.Mount) bool {
		return slices.ContainsFunc(mounts, func(m specs.Mount) bool { return m.Destination == f.Destination })
	})
}
