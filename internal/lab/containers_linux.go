package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Container is one container in which processes live, as the kernel sees it.
type Container struct {
	Node string
	// ID is containerd's: each run of a container has another.
	ID string
	// Frozen: its node is stunned.
	Frozen bool
}

// Containers lists what really runs in the lab, by node and id. It asks nobody:
// the kernel's cgroups hold it, also where containerd or the agent is gone.
func (l *Lab) Containers() ([]Container, error) {
	s, err := l.read()
	if err != nil {
		return nil, err
	}
	all, err := hierarchies()
	if err != nil {
		return nil, err
	}
	// Every tree with a controller has the same containers; one tells.
	i := slices.IndexFunc(all, func(t hierarchy) bool { return t.has("cpu") })
	if i < 0 {
		return nil, errors.New("list containers: no cgroup tree has the cpu controller")
	}
	tree := all[i]
	var out []Container
	for _, n := range s.Nodes {
		h := hostOf(&s.Config, n.Name)
		frozen, err := isFrozen(h.cgroup())
		if err != nil {
			return nil, err
		}
		dir := filepath.Join(tree.dir, h.replicasCgroup())
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // without power it has none
		}
		for _, e := range entries {
			if !e.IsDir() {
				continue
			}
			procs, err := os.ReadFile(filepath.Join(dir, e.Name(), "cgroup.procs"))
			if err == nil && strings.TrimSpace(string(procs)) != "" {
				out = append(out, Container{Node: n.Name, ID: e.Name(), Frozen: frozen})
			}
		}
	}
	return out, nil
}

// String gives "n1 default.web-0.17.main".
func (c Container) String() string { return fmt.Sprintf("%s %s", c.Node, c.ID) }

// KillContainer kills every process of a container at once, as the kernel's
// killer for want of memory would.
func (l *Lab) KillContainer(ctx context.Context, c Container) error {
	h, err := l.running(c.Node)
	if err != nil {
		return err
	}
	if c.ID == "" || filepath.Base(c.ID) != c.ID {
		return fmt.Errorf("kill a container of %s: %q is no container's id", c.Node, c.ID)
	}
	return killMembers(ctx, filepath.Join(h.replicasCgroup(), c.ID))
}
