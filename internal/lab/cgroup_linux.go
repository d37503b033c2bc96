package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// cgroupWait is how long the kernel may take to empty, freeze or let go
	// of a cgroup; on an idle machine it takes milliseconds.
	cgroupWait = 10 * time.Second
	// pollEvery is the pause between two looks at something that the kernel
	// gives no notice of.
	pollEvery = 2 * time.Millisecond
	// daemonsWeight is the daemons' share of cpu compared with replicas':
	// what a node runs must not starve what runs it.
	daemonsWeight = 10
)

// hierarchy is one mounted cgroup tree. A v2 machine has one, a v1 machine
// one per controller, a hybrid one both kinds.
type hierarchy struct {
	dir         string
	v2          bool
	controllers []string // v1: those of this tree; v2: those that it offers
}

func hierarchies() ([]hierarchy, error) {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	all := parseHierarchies(string(info))
	if len(all) == 0 {
		return nil, errors.New("no cgroup tree is mounted under /sys/fs/cgroup")
	}
	for i, h := range all {
		if h.v2 {
			if offers, err := os.ReadFile(filepath.Join(h.dir, "cgroup.controllers")); err == nil {
				all[i].controllers = strings.Fields(string(offers))
			}
		}
	}
	return all, nil
}

// parseHierarchies finds the cgroup trees in the text of a mountinfo file. A
// v2 tree's controllers are not in it.
func parseHierarchies(info string) []hierarchy {
	var all []hierarchy
	for line := range strings.Lines(info) {
		mount, rest, ok := strings.Cut(line, " - ")
		m, r := strings.Fields(mount), strings.Fields(rest)
		if !ok || len(m) < 5 || len(r) < 3 || !strings.HasPrefix(m[4], "/sys/fs/cgroup") {
			continue
		}
		h := hierarchy{dir: m[4]}
		switch r[0] {
		case "cgroup2":
			h.v2 = true
		case "cgroup":
			h.controllers = strings.Split(r[2], ",")
		default:
			continue
		}
		all = append(all, h)
	}
	return all
}

func (h hierarchy) has(controller string) bool { return slices.Contains(h.controllers, controller) }

// make makes a cgroup and its parents, usable for processes.
func (h hierarchy) make(cgroup string) error {
	dir := h.dir
	for _, part := range strings.Split(strings.Trim(cgroup, "/"), "/") {
		if h.v2 {
			for _, c := range h.controllers {
				// One that cannot be handed down (root's busy processes, an
				// older kernel) is one that limits will not apply for; the
				// agent reports that when it sets them.
				os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0)
			}
		}
		parent := dir
		dir = filepath.Join(dir, part)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make cgroup: %w", err)
		}
		if !h.v2 && h.has("cpuset") {
			// A new v1 cpuset is empty and takes no process.
			for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
				value, err := os.ReadFile(filepath.Join(parent, f))
				if err != nil {
					return fmt.Errorf("make cgroup: %w", err)
				}
				if err := os.WriteFile(filepath.Join(dir, f), value, 0); err != nil {
					return fmt.Errorf("make cgroup: %w", err)
				}
			}
		}
	}
	return nil
}

// makeCgroups makes a host's cgroups in every tree and returns the folders
// that its PID 1 is to join.
func makeCgroups(h host) ([]string, error) {
	all, err := hierarchies()
	if err != nil {
		return nil, err
	}
	var join []string
	for _, tree := range all {
		for _, cgroup := range []string{h.daemonsCgroup(), h.replicasCgroup()} {
			err := tree.make(cgroup)
			if errors.Is(err, fs.ErrNotExist) {
				// Another lab's end removed the common parent meanwhile.
				err = tree.make(cgroup)
			}
			if err != nil {
				return nil, err
			}
		}
		dir := filepath.Join(tree.dir, h.daemonsCgroup())
		join = append(join, dir)
		// A weight is a preference: where it cannot be set the lab still works.
		if tree.v2 && tree.has("cpu") {
			os.WriteFile(filepath.Join(dir, "cpu.weight"), []byte(strconv.Itoa(100*daemonsWeight)), 0)
		} else if tree.has("cpu") {
			os.WriteFile(filepath.Join(dir, "cpu.shares"), []byte(strconv.Itoa(1024*daemonsWeight)), 0)
		}
	}
	return join, nil
}

// members lists the processes in a cgroup and below, in every tree.
func members(cgroup string) ([]int, error) {
	all, err := hierarchies()
	if err != nil {
		return nil, err
	}
	found := map[int]bool{}
	for _, tree := range all {
		for _, dir := range below(filepath.Join(tree.dir, cgroup)) {
			data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			if err != nil {
				continue // gone meanwhile
			}
			for word := range strings.FieldsSeq(string(data)) {
				if pid, err := strconv.Atoi(word); err == nil && pid > 0 {
					found[pid] = true
				}
			}
		}
	}
	pids := make([]int, 0, len(found))
	for pid := range found {
		pids = append(pids, pid)
	}
	slices.Sort(pids)
	return pids, nil
}

// below lists a cgroup's folder and those under it, children first.
func below(dir string) []string {
	var dirs []string
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil // what vanishes while we look is what we want gone
	})
	slices.Reverse(dirs)
	return dirs
}

// killMembers kills what runs in a cgroup and below, frozen or not, until
// nothing does.
func killMembers(ctx context.Context, cgroup string) error {
	if err := thawAll(cgroup); err != nil {
		return err
	}
	return poll(ctx, cgroupWait, "kill what runs in "+cgroup, func() (bool, error) {
		pids, err := members(cgroup)
		if err != nil {
			return false, err
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
				return false, fmt.Errorf("kill process %d: %w", pid, err)
			}
		}
		return len(pids) == 0, nil
	})
}

// removeCgroup removes a cgroup and those below from every tree. They must be
// empty; the kernel may need a moment to agree that they are.
func removeCgroup(ctx context.Context, cgroup string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	return poll(ctx, cgroupWait, "remove cgroup "+cgroup, func() (bool, error) {
		left := false
		for _, tree := range all {
			for _, dir := range below(filepath.Join(tree.dir, cgroup)) {
				switch err := unix.Rmdir(dir); err {
				case nil, unix.ENOENT:
				case unix.EBUSY, unix.ENOTEMPTY:
					left = true
				default:
					return false, fmt.Errorf("remove cgroup %s: %w", dir, err)
				}
			}
		}
		return !left, nil
	})
}

// removeEmptyCgroup removes a cgroup without children or members, and leaves
// any other alone: /orchlab belongs to all labs together.
func removeEmptyCgroup(cgroup string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, tree := range all {
		err := unix.Rmdir(filepath.Join(tree.dir, cgroup))
		if err != nil && err != unix.ENOENT && err != unix.EBUSY && err != unix.ENOTEMPTY {
			return fmt.Errorf("remove cgroup %s: %w", cgroup, err)
		}
	}
	return nil
}

// freezer finds the file that freezes a cgroup, and the words for it: v1's
// freezer where there is one, since on a hybrid machine containers may be in
// v2 only in part.
func freezer(cgroup string) (file, frozen, thawed string, err error) {
	all, err := hierarchies()
	if err != nil {
		return "", "", "", err
	}
	for _, tree := range all {
		if !tree.v2 && tree.has("freezer") {
			return filepath.Join(tree.dir, cgroup, "freezer.state"), "FROZEN", "THAWED", nil
		}
	}
	for _, tree := range all {
		if tree.v2 {
			return filepath.Join(tree.dir, cgroup, "cgroup.freeze"), "1", "0", nil
		}
	}
	return "", "", "", fmt.Errorf("freeze %s: no freezer: neither v1's controller nor v2", cgroup)
}

// freeze stops or resumes everything in a cgroup and waits until it is so. A
// cgroup that does not exist is thawed.
func freeze(ctx context.Context, cgroup string, on bool) error {
	file, frozen, thawed, err := freezer(cgroup)
	if err != nil {
		return err
	}
	want := thawed
	if on {
		want = frozen
	}
	if err := os.WriteFile(file, []byte(want), 0); err != nil {
		if !on && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV)) {
			return nil
		}
		return fmt.Errorf("freeze %s: %w", cgroup, err)
	}
	if !on {
		return nil
	}
	return poll(ctx, cgroupWait, "freeze "+cgroup, func() (bool, error) { return isFrozen(cgroup) })
}

// thawAll resumes everything in a cgroup and in each one below, for the sake of
// what was killed: in v1 a frozen process dies only when it thaws, and each
// cgroup has a freeze of its own.
func thawAll(cgroup string) error {
	file, _, thawed, err := freezer(cgroup)
	if err != nil {
		return err
	}
	for _, dir := range below(filepath.Dir(file)) {
		err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), []byte(thawed), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("thaw %s: %w", dir, err)
		}
	}
	return nil
}

// isFrozen says whether a cgroup has come to rest.
func isFrozen(cgroup string) (bool, error) {
	file, frozen, _, err := freezer(cgroup)
	if err != nil {
		return false, err
	}
	if filepath.Base(file) == "cgroup.freeze" { // which tells the wish, not the fact
		file, frozen = filepath.Join(filepath.Dir(file), "cgroup.events"), "frozen 1"
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return strings.Contains(string(data), frozen), nil
}

// poll looks until done says yes, fails, or time is up.
func poll(ctx context.Context, limit time.Duration, what string, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
}
