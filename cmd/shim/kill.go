//go:build linux

package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// killBatch is how many processes are held by descriptor at once.
const killBatch = 64

// populated tells whether a process lives in any of the cgroups, or below them
// where the kernel tells. What cannot be known counts as living.
func populated(dirs []string) bool {
	for _, dir := range dirs {
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.events")) // v2
		if err != nil {
			if b, err = os.ReadFile(filepath.Join(dir, "cgroup.procs")); err == nil && len(b) == 0 {
				continue
			}
		} else if strings.Contains(string(b), "populated 0") {
			continue
		}
		if err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
			return true
		}
	}
	return false
}

// killCgroups sends SIGKILL to everything in the cgroups once. Where the kernel
// has cgroup.kill (v2, since 5.14) it is thorough; else processes are frozen
// meanwhile, so that none forks ahead of the signals. Then everything is thawed,
// for what was frozen, by us or by anybody, does not die on v1: a process with a
// signal to die by runs no instruction of its own.
func killCgroups(dirs []string) {
	for _, dir := range dirs {
		if poke(dir, "cgroup.kill", "1") {
			continue
		}
		freeze(dir, true)
		signalCgroup(dir, unix.SIGKILL, false)
	}
	for _, dir := range dirs {
		freeze(dir, false)
	}
}

// freeze freezes or thaws a cgroup, in a hierarchy that can.
func freeze(dir string, on bool) {
	if on {
		_ = poke(dir, "freezer.state", "FROZEN") || poke(dir, "cgroup.freeze", "1")
	} else {
		_ = poke(dir, "freezer.state", "THAWED") || poke(dir, "cgroup.freeze", "0")
	}
}

// poke writes into a cgroup's file; false if it has none such.
func poke(dir, file, text string) bool {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0) // never made
	if err != nil {
		return false
	}
	defer f.Close()
	_, err = f.WriteString(text)
	return err == nil
}

// signalCgroup signals the processes in a cgroup, or only its roots: those whose
// parent is outside, of a container its first process and those of exec. It gives
// how many. A pid is never trusted: the process is held by a descriptor first and
// must then still be in the cgroup, so that one which took over the pid of a dead
// one elsewhere is not hit.
func signalCgroup(dir string, sig unix.Signal, rootsOnly bool) int {
	all := processes(dir)
	targets := all
	if rootsOnly {
		targets = nil
		for _, pid := range all {
			if _, inside := slices.BinarySearch(all, parent(pid)); !inside {
				targets = append(targets, pid)
			}
		}
	}
	n := 0
	for batch := range slices.Chunk(targets, killBatch) {
		n += signalBatch(dir, batch, sig)
	}
	return n
}

func signalBatch(dir string, pids []int, sig unix.Signal) (n int) {
	fds := make([]int, len(pids))
	for i, pid := range pids {
		var err error
		if fds[i], err = unix.PidfdOpen(pid, 0); err != nil {
			fds[i] = -1
			if err == unix.ENOSYS && unix.Kill(pid, sig) == nil { // before 5.3
				n++
			}
		}
	}
	still := processes(dir)
	for i, fd := range fds {
		if fd < 0 {
			continue
		}
		if _, in := slices.BinarySearch(still, pids[i]); in && unix.PidfdSendSignal(fd, sig, nil, 0) == nil {
			n++
		}
		unix.Close(fd)
	}
	return n
}

// processes lists a cgroup, in order. 0, which stands for a process of another
// pid namespace, and 1 are left out.
func processes(dir string) []int {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil
	}
	var pids []int
	for word := range strings.FieldsSeq(string(b)) {
		if pid, err := strconv.Atoi(word); err == nil && pid > 1 {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids
}

// parent gives a process's parent; 0 if it is gone.
func parent(pid int) int {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	// PID (NAME) STATE PARENT, where NAME may hold anything.
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(f[1])
	return n
}
