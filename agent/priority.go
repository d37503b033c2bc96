package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// oomScore: after every container, before containerd.
	oomScore = -900
	// niceness gives the agent's threads nine times the cpu of others in the same
	// cgroup. It idles, but a beat that comes late costs spares.
	niceness = -10
	// cpuWeight is ten times the usual, against other cgroups beside it; cpuShares
	// says the same in cgroup v1.
	cpuWeight = 1000
	cpuShares = 10240
)

// Prioritize asks the kernel to let this process run before others, and to kill
// others first when memory is short, so that replicas cannot starve it. What is
// not permitted is an error; the rest is done all the same.
func Prioritize() error {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err == nil {
		err = raiseWeight("/sys/fs/cgroup", string(own), os.Getpid())
	}
	return errors.Join(protectFromOOM(), renice(), err)
}

// protectFromOOM asks the kernel to take others first when memory is short.
func protectFromOOM() error {
	const file = "/proc/self/oom_score_adj"
	if b, err := os.ReadFile(file); err == nil {
		if have, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && have <= oomScore {
			return nil // whoever started it knew better
		}
	}
	if err := os.WriteFile(file, []byte(strconv.Itoa(oomScore)), 0o644); err != nil {
		return fmt.Errorf("protect the agent from the kernel's out-of-memory killer: %w", err)
	}
	return nil
}

// renice changes every thread: the kernel counts it for each, and a thread to
// come has that of the one which makes it.
func renice() error {
	done := map[int]bool{}
	for {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("raise the agent's priority: %w", err)
		}
		again := false
		for _, t := range threads {
			id, err := strconv.Atoi(t.Name())
			if err != nil || done[id] {
				continue
			}
			done[id], again = true, true
			err = unix.Setpriority(unix.PRIO_PROCESS, id, niceness)
			if err != nil && !errors.Is(err, unix.ESRCH) { // it ended meanwhile
				return fmt.Errorf("raise the agent's priority: %w", err)
			}
		}
		if !again {
			return nil
		}
	}
}

// raiseWeight raises the cpu weight of the process's own cgroup, as a service
// manager gives one to each service. A cgroup that others share is left as it
// is: they would gain as much. own is the text of /proc/self/cgroup.
func raiseWeight(root, own string, pid int) error {
	for line := range strings.Lines(own) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 || f[2] == "/" {
			continue
		}
		var dir, file string
		want := cpuWeight
		switch {
		case f[1] == "":
			dir, file = filepath.Join(root, f[2]), "cpu.weight"
		case slices.Contains(strings.Split(f[1], ","), "cpu"):
			dir, file, want = filepath.Join(root, f[1], f[2]), "cpu.shares", cpuShares
		default:
			continue
		}
		if err := raise(dir, file, want, pid); err != nil {
			return fmt.Errorf("raise the cpu weight of the agent's cgroup: %w", err)
		}
	}
	return nil
}

func raise(dir, file string, want, pid int) error {
	procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err == nil && strings.TrimSpace(string(procs)) != strconv.Itoa(pid) {
		return nil
	}
	path := filepath.Join(dir, file)
	have, readErr := os.ReadFile(path)
	if err = errors.Join(err, readErr); errors.Is(err, fs.ErrNotExist) {
		return nil // no cpu controller here, or another tree
	}
	if err != nil {
		return err
	}
	if n, err := strconv.Atoi(strings.TrimSpace(string(have))); err == nil && n >= want {
		return nil
	}
	return os.WriteFile(path, []byte(strconv.Itoa(want)), 0o644)
}
