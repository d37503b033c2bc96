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

// mounts are what the manifest lays over the container's files, parents first. The
// function returned must be called once the container's process is made: until
// then what is bound is held open.
//
// What is bound is opened first and then judged by where the kernel says that it
// lies; runc mounts that very file or folder by our descriptor of it. So nobody can
// put a symbolic link in the path's place between the look and the mount.
func (r *Runtime) mounts(c api.Container) (_ []specs.Mount, release func(), err error) {
	var held []*os.File
	release = func() {
		for _, f := range held {
			_ = f.Close() // opened by O_PATH: nothing can be lost
		}
	}
	var out []specs.Mount
	for _, m := range c.Mounts {
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
		f, real, err := r.openBind(m.Bind)
		if err != nil {
			release()
			return nil, nil, err
		}
		held = append(held, f)
		mount.Type, mount.Source = "bind", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
		if m.ReadOnly {
			below, err := mountsBelow(real)
			if err != nil {
				release()
				return nil, nil, err
			}
			if below { // each would stay writable; an old kernel refuses
				opts = append(opts, "rro")
			}
		}
		mount.Options = append(opts, "rbind", "rprivate")
		out = append(out, mount)
	}
	slices.SortStableFunc(out, func(a, b specs.Mount) int { return strings.Compare(a.Destination+"/", b.Destination+"/") })
	return out, release, nil
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
