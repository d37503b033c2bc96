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

	"golang.org/x/sync/errgroup"
)

// removeTimeout bounds a clean-up that runs after the caller's own context
// ended.
const removeTimeout = 30 * time.Second

// Remove leaves nothing of the named lab: processes, namespaces, links,
// cgroups, the folder dir (empty: the default one). It goes by what it finds
// on the machine, not by what was written down, so it works for labs that
// were half made, whose maker crashed, or that do not exist.
func Remove(ctx context.Context, name, dir string) error {
	if err := ValidName(name); err != nil {
		return err
	}
	if dir == "" {
		dir = DirFor(name)
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("remove lab %s: the lab needs root (try sudo)", name)
	}
	if err := ownFolder(dir, name); err != nil {
		return err
	}
	if err := killHosts(ctx, dir); err != nil {
		return fmt.Errorf("remove lab %s: %w", name, err)
	}
	if err := killMembers(ctx, labCgroup(name)); err != nil {
		return fmt.Errorf("remove lab %s: %w", name, err)
	}
	if err := removeNetwork(name); err != nil {
		return fmt.Errorf("remove lab %s: %w", name, err)
	}
	// Folders and cgroups need a moment each; together they need the longer.
	var group errgroup.Group
	group.Go(func() error {
		if err := removeCgroup(ctx, labCgroup(name)); err != nil {
			return err
		}
		return removeEmptyCgroup("/orchlab")
	})
	group.Go(func() error {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		if filepath.Dir(dir) == DefaultDir {
			// Ours as well, unless other labs or programs use them.
			os.Remove(DefaultDir)
			os.Remove(filepath.Dir(DefaultDir))
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return fmt.Errorf("remove lab %s: %w", name, err)
	}
	return nil
}

// ownFolder refuses to remove a folder that does not look like this lab's: a
// wrong path must not cost somebody's files.
func ownFolder(dir, name string) error {
	if !filepath.IsAbs(dir) || filepath.Clean(dir) == "/" {
		return fmt.Errorf("remove lab %s: folder %q: want an absolute path", name, dir)
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	s, err := readState(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// claim died between making lab.json.new and its renaming.
		if len(entries) == 1 && entries[0].Name() == stateFile+".new" {
			return nil
		}
		return fmt.Errorf("remove lab %s: %s has no %s: it is not a lab's folder", name, dir, stateFile)
	case err != nil:
		return err
	case s.Config.Name != name:
		return fmt.Errorf("remove lab %s: %s is the folder of lab %s", name, dir, s.Config.Name)
	}
	return nil
}

// killHosts kills every PID 1 whose spec lies in the lab's folder. This finds
// also one that has not yet joined its cgroup.
func killHosts(ctx context.Context, dir string) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	var found []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		p, err := identify(pid)
		if err != nil {
			continue // ended meanwhile
		}
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			continue
		}
		args := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
		if len(args) == 3 && filepath.Base(args[0]) == "shim" && args[1] == "init" &&
			strings.HasPrefix(args[2], dir+"/") && filepath.Base(args[2]) == "spec.json" {
			found = append(found, p)
		}
	}
	for _, p := range found {
		if err := p.kill(ctx); err != nil {
			return err
		}
	}
	return nil // killMembers waits: a frozen one dies only there
}

// List names the labs that are on the machine, whole or in part, in order.
func List() ([]string, error) {
	names := map[string]bool{}
	collect := func(dir, prefix string) error {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, e := range entries {
			if name, ok := strings.CutPrefix(e.Name(), prefix); ok && ValidName(name) == nil {
				names[name] = true
			}
		}
		return nil
	}
	if err := collect(netnsDir, netnsName("")); err != nil {
		return nil, err
	}
	if err := collect(filepath.Dir(DirFor("x")), ""); err != nil {
		return nil, err
	}
	out := make([]string, 0, len(names))
	for name := range names {
		out = append(out, name)
	}
	slices.Sort(out)
	return out, nil
}
