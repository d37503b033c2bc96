package ctrd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupRoot is where the kernel's cgroup trees are mounted.
const cgroupRoot = "/sys/fs/cgroup"

const (
	cgroupTimeout = 5 * time.Second       // for killed processes to be gone
	cgroupRetry   = 10 * time.Millisecond // between two tries; usually one is enough
)

// cgroupV2 tells whether this node has the unified hierarchy only. On hybrid
// nodes the controllers that matter here are on v1.
func cgroupV2() bool {
	_, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers"))
	return err == nil
}

// swapLimited tells whether the kernel can limit swap per cgroup. v2 takes the
// setting always; v1 only with swap accounting.
func swapLimited() bool {
	if cgroupV2() {
		return true
	}
	_, err := os.Stat(filepath.Join(cgroupRoot, "memory", "memory.memsw.limit_in_bytes"))
	return err == nil
}

// memoryEvidence is what a container's cgroup tells of memory, also after its
// processes have ended and until it is removed.
type memoryEvidence struct {
	oomKills int64 // processes killed by the kernel since the cgroup was made
	limit    int64 // bytes; 0 if unlimited or not known
}

// readMemory reads the evidence; a cgroup that is gone gives none.
func readMemory(cgroup string) (memoryEvidence, error) {
	dir, events, limit := filepath.Join(cgroupRoot, "memory", cgroup), "memory.oom_control", "memory.limit_in_bytes"
	if cgroupV2() {
		dir, events, limit = filepath.Join(cgroupRoot, cgroup), "memory.events", "memory.max"
	}
	var e memoryEvidence
	b, err := os.ReadFile(filepath.Join(dir, events))
	if errors.Is(err, fs.ErrNotExist) {
		return e, nil
	}
	if err != nil {
		return e, fmt.Errorf("read memory events of %s: %w", cgroup, err)
	}
	for line := range bytes.Lines(b) {
		if v, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("oom_kill ")); ok {
			e.oomKills, _ = strconv.ParseInt(string(v), 10, 64)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, limit)); err == nil {
		n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64) // "max" is no number
		if err == nil && n < 1<<60 {                                   // v1 says "none" by a huge one
			e.limit = n
		}
	}
	return e, nil
}

// removeCgroup removes what is left of a container's cgroup in every
// hierarchy, and kills what is left in it: usually runc did both; after a lost
// shim nobody else would. It waits for the dead to go as long as ctx allows,
// but no longer than cgroupTimeout.
func removeCgroup(ctx context.Context, cgroup string) error {
	dirs, err := filepath.Glob(filepath.Join(cgroupRoot, "*", cgroup)) // v1, and v2 beside it
	if err != nil {
		return fmt.Errorf("remove cgroup %s: %w", cgroup, err)
	}
	if cgroupV2() {
		dirs = []string{filepath.Join(cgroupRoot, cgroup)}
	}
	ctx, cancel := context.WithTimeout(ctx, cgroupTimeout)
	defer cancel()
	for _, dir := range dirs {
		for {
			err := os.Remove(dir)
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				break
			}
			if !errors.Is(err, unix.EBUSY) {
				return fmt.Errorf("remove cgroup: %w", err)
			}
			if b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs")); err == nil {
				for _, word := range bytes.Fields(b) {
					// 0 is a process outside of this pid namespace: not to be
					// killed, for 0 means oneself.
					if pid, err := strconv.Atoi(string(word)); err == nil && pid > 1 {
						unix.Kill(pid, unix.SIGKILL)
					}
				}
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("remove cgroup: %w", err)
			case <-time.After(cgroupRetry):
			}
		}
	}
	return nil
}
