package ctrd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/orchctl/orch/internal/boottime"
	"github.com/orchctl/orch/internal/leasefile"
)

// Lease is how long a container may run, in time since boot (CLOCK_BOOTTIME): it
// is told to end at Term, and nothing of it is left alive from Kill on. The
// watchdog beside it sees to that, whatever becomes of agent and containerd.
type Lease struct{ Term, Kill time.Duration }

// over tells whether a container must not be started under it any more.
func (l Lease) over() bool { return boottime.Now() >= l.Term }

// SetLease gives the watchdog of a container a later end; an earlier one than it
// has changes nothing. containerd is not asked, so that leases are renewed while
// it is away. A container that was started without a lease, or that is gone, is
// ErrNotFound. ErrUnguarded says that its watchdog is dead: nobody would end it
// if this process died, too, so it should be stopped.
func (r *Runtime) SetLease(ctx context.Context, id string, l Lease) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("set lease of %s: %w", id, err)
	}
	defer r.leases.lock(id)()
	dir := r.filesOf(id)
	f, err := leasefile.Read(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("set lease of %s: %w: there is no lease file", id, ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("set lease of %s: %w", id, err)
	}
	if l.Kill > f.Kill {
		f.Term, f.Kill = l.Term, l.Kill
		if err := leasefile.Write(dir, f); err != nil {
			return fmt.Errorf("set lease of %s: %w", id, err)
		}
	}
	return r.guarded(id)
}

// guarded makes sure that a container has a living watchdog.
func (r *Runtime) guarded(id string) error {
	on, err := leasefile.Guarded(r.filesOf(id))
	if err == nil && !on {
		err = ErrUnguarded
	}
	if err != nil {
		return fmt.Errorf("container %s: %w", id, err)
	}
	return nil
}

// writeLease writes a new container's lease into its folder.
func (r *Runtime) writeLease(id string, l Lease, logFile, cgroup, signal string) error {
	dirs, err := guardDirs(cgroup)
	if err != nil {
		return fmt.Errorf("start %s: %w", id, err)
	}
	err = leasefile.Write(r.filesOf(id), leasefile.File{ID: id, Log: logFile, Signal: int(stopSignal(map[string]string{labelStopSignal: signal})),
		Cgroups: dirs, Term: l.Term, Kill: l.Kill})
	if err != nil {
		return fmt.Errorf("start %s: %w", id, err)
	}
	return nil
}

// guardDirs gives the folders of a cgroup by which a watchdog finds and kills
// what is in it. On v1 several, as a hierarchy may be missing.
func guardDirs(cgroup string) ([]string, error) {
	if cgroupV2() {
		return []string{filepath.Join(cgroupRoot, cgroup)}, nil
	}
	var dirs []string
	for _, hierarchy := range []string{"unified", "freezer", "pids"} {
		if _, err := os.Stat(filepath.Join(cgroupRoot, hierarchy, "cgroup.procs")); err == nil {
			dirs = append(dirs, filepath.Join(cgroupRoot, hierarchy, cgroup))
		}
	}
	if len(dirs) == 0 {
		return nil, fmt.Errorf("no watchdog is possible: none of the cgroup hierarchies unified, freezer, pids under %s", cgroupRoot)
	}
	return dirs, nil
}
