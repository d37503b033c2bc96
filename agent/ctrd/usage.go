package ctrd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/api"
)

// ContainerUsage is what the kernel counts for one container at one moment.
type ContainerUsage struct {
	ID        string
	Replica   api.ReplicaKey
	Container string
	// CPU is the time that all its processes together have had since it started.
	CPU time.Duration
	// Memory in bytes, without files that the kernel drops at need.
	Memory int64
	// MemoryLimit in bytes and CPULimit in thousandths of a core; 0: none.
	MemoryLimit int64
	CPULimit    int64
	// Pids are its processes and threads; 0: not known.
	Pids int64
}

// Usage gives what each container that runs uses, by id. It reads cgroups: containerd is
// asked only who a container is that was not seen before, so that a containerd that is
// slow, or many containers, cost nothing more.
func (r *Runtime) Usage(ctx context.Context) ([]ContainerUsage, error) {
	ids, err := cgroupsUnder(r.cfg.CgroupParent)
	if err != nil {
		return nil, fmt.Errorf("read what containers use: %w", err)
	}
	owners, err := r.ownersOf(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("read what containers use: %w", err)
	}
	var out []ContainerUsage
	for _, id := range ids {
		o, ours := owners[id]
		if !ours {
			continue
		}
		u, runs := readUsage(cgroupRoot, cgroupV2(), path.Join(r.cfg.CgroupParent, id))
		if runs {
			u.ID, u.Replica, u.Container = id, o.Replica, o.Container
			out = append(out, u)
		}
	}
	return out, nil
}

// ownersOf says whose containers these are; those that are not ours are left out. Ids are
// never used twice, so what was learned of one holds.
func (r *Runtime) ownersOf(ctx context.Context, ids []string) (map[string]Observed, error) {
	r.mu.Lock()
	known := r.owners
	r.mu.Unlock()
	next := make(map[string]Observed, len(ids)) // without those that are gone
	for _, id := range ids {
		o, ok := known[id]
		if !ok {
			c, err := r.client.ContainerService().Get(r.in(ctx), id)
			if errdefs.IsNotFound(err) || c.Labels[labelService] == "" && err == nil {
				continue // it is gone, or another's
			}
			if err != nil {
				return nil, fmt.Errorf("look at container %s: %w", id, err)
			}
			if o, err = ownerIn(c); err != nil {
				r.log.Warn("container with our label cannot be read", "id", id, "err", err)
				continue
			}
		}
		next[id] = o
	}
	r.mu.Lock()
	r.owners = next
	r.mu.Unlock()
	return next, nil
}

func ownerIn(c containers.Container) (Observed, error) {
	o, err := observedOf(c.ID, "", c.Labels)
	return Observed{Replica: o.Replica, Container: o.Container}, err
}

// cgroupsUnder gives the names of a cgroup's children, sorted.
func cgroupsUnder(parent string) ([]string, error) {
	dir := filepath.Join(cgroupRoot, "memory", parent)
	if cgroupV2() {
		dir = filepath.Join(cgroupRoot, parent)
	}
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // nothing was ever started
	}
	var out []string
	for _, f := range list {
		if f.IsDir() {
			out = append(out, f.Name())
		}
	}
	return out, err
}

// readUsage reads a container's cgroup; false: no process runs in it.
func readUsage(root string, v2 bool, cgroup string) (ContainerUsage, bool) {
	if v2 {
		return readUsageV2(filepath.Join(root, cgroup))
	}
	in := func(hierarchy, file string) string { return filepath.Join(root, hierarchy, cgroup, file) }
	if !inhabited(in("memory", "cgroup.procs")) {
		return ContainerUsage{}, false
	}
	u := ContainerUsage{
		CPU:         time.Duration(readBytes(in("cpuacct", "cpuacct.usage"))),
		MemoryLimit: readBytes(in("memory", "memory.limit_in_bytes")),
		Pids:        readBytes(in("pids", "pids.current")),
	}
	u.Memory = max(0, readBytes(in("memory", "memory.usage_in_bytes"))-readField(in("memory", "memory.stat"), "total_inactive_file"))
	if quota, period := readBytes(in("cpu", "cpu.cfs_quota_us")), readBytes(in("cpu", "cpu.cfs_period_us")); quota > 0 && period > 0 {
		u.CPULimit = quota * 1000 / period
	}
	return u, true
}

func readUsageV2(dir string) (ContainerUsage, bool) {
	in := func(file string) string { return filepath.Join(dir, file) }
	// A container that mounts cgroups writable may have made children, which its
	// processes are in.
	if readField(in("cgroup.events"), "populated") == 0 {
		return ContainerUsage{}, false
	}
	u := ContainerUsage{
		CPU:         time.Duration(readField(in("cpu.stat"), "usage_usec")) * time.Microsecond,
		MemoryLimit: readBytes(in("memory.max")),
		Pids:        readBytes(in("pids.current")),
	}
	u.Memory = max(0, readBytes(in("memory.current"))-readField(in("memory.stat"), "inactive_file"))
	if b, err := os.ReadFile(in("cpu.max")); err == nil { // "max 100000", "50000 100000"
		if f := bytes.Fields(b); len(f) == 2 {
			quota, period := number(f[0]), number(f[1])
			if quota > 0 && period > 0 {
				u.CPULimit = quota * 1000 / period
			}
		}
	}
	return u, true
}

// inhabited tells whether a cgroup has processes.
func inhabited(procs string) bool {
	b, err := os.ReadFile(procs)
	return err == nil && len(bytes.TrimSpace(b)) > 0
}

// readField gives the number behind a name in a file of names and numbers; 0: there is
// none.
func readField(file, name string) int64 {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(b) {
		if v, ok := bytes.CutPrefix(line, []byte(name+" ")); ok {
			return number(bytes.TrimSpace(v))
		}
	}
	return 0
}

func number(b []byte) int64 {
	n, err := strconv.ParseInt(string(b), 10, 64) // "max" is none
	if err != nil {
		return 0
	}
	return n
}

// Disk gives size and free space, in bytes, of the disk that images and what containers
// write lie on.
func (r *Runtime) Disk(ctx context.Context) (size, free int64, err error) {
	dir, err := r.root(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("find the disk of images: %w", err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, fmt.Errorf("look at the disk of images: %w", &os.PathError{Op: "statfs", Path: dir, Err: err})
	}
	return int64(st.Blocks) * st.Bsize, int64(st.Bavail) * st.Bsize, nil
}

// root is the folder of our snapshotter. It stays where it is while containerd runs, and
// with another containerd's configuration all that we know of containers is void.
func (r *Runtime) root(ctx context.Context) (string, error) {
	r.mu.Lock()
	dir := r.snapshots
	r.mu.Unlock()
	if dir != "" {
		return dir, nil
	}
	list, err := r.client.IntrospectionService().Plugins(r.in(ctx), "type==io.containerd.snapshotter.v1,id=="+r.cfg.Snapshotter)
	if err != nil {
		return "", fmt.Errorf("ask containerd for its snapshotter: %w", err)
	}
	for _, p := range list.GetPlugins() {
		dir = p.GetExports()["root"]
	}
	if dir == "" {
		return "", fmt.Errorf("containerd does not say where its snapshotter %s has its folder", r.cfg.Snapshotter)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.snapshots = dir
	return dir, nil
}
