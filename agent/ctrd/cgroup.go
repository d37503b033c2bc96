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
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/api"
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
	peak     int64 // bytes, the most that it ever had; 0: not known, as before Linux 5.19 on v2
}

// String says it in words: " (limit 64Mi, peak 64Mi)", or nothing.
func (e memoryEvidence) String() string {
	var words []string
	if e.limit > 0 {
		words = append(words, "limit "+api.Whole(e.limit).String())
	}
	if e.peak > 0 {
		peak := e.peak
		if peak > 1<<20 { // to the nearest Mi: nobody counts pages
			peak = (peak + 1<<19) >> 20 << 20
		}
		words = append(words, "peak "+api.Whole(peak).String())
	}
	if len(words) == 0 {
		return ""
	}
	return " (" + strings.Join(words, ", ") + ")"
}

// readMemory reads the evidence; a cgroup that is gone gives none.
func readMemory(cgroup string) (memoryEvidence, error) {
	dir, events, limit, peak := filepath.Join(cgroupRoot, "memory", cgroup), "memory.oom_control", "memory.limit_in_bytes", "memory.max_usage_in_bytes"
	if cgroupV2() {
		dir, events, limit, peak = filepath.Join(cgroupRoot, cgroup), "memory.events", "memory.max", "memory.peak"
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
	e.limit, e.peak = readBytes(filepath.Join(dir, limit)), readBytes(filepath.Join(dir, peak))
	return e, nil
}

// readBytes gives the number in a cgroup's file; 0: there is none.
func readBytes(file string) int64 {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64) // "max" is no number
	if err != nil || n >= 1<<60 {                                  // v1 says "none" by a huge one
		return 0
	}
	return n
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
