package rig

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
)

// Running is one container that really runs, as containerd says.
type Running struct {
	Node, ID string
	Pid      uint32
}

// namespace is where the agent keeps its containers.
const namespace = "orch"

func (f *Fleet) containerd(node string) (*containerd.Client, error) {
	sock, err := f.Lab.ContainerdSocket(node)
	if err != nil {
		return nil, err
	}
	return containerd.New(sock, containerd.WithDefaultNamespace(namespace))
}

// Containers gives what runs on a node, by container id.
func (f *Fleet) Containers(ctx context.Context, node string) (map[string]Running, error) {
	ctx = namespaces.WithNamespace(ctx, namespace)
	c, err := f.containerd(node)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	all, err := c.Containers(ctx)
	if err != nil {
		return nil, fmt.Errorf("list containers of %s: %w", node, err)
	}
	out := map[string]Running{}
	for _, ct := range all {
		task, err := ct.Task(ctx, nil)
		if err != nil {
			continue // made, not started, or already gone
		}
		if s, err := task.Status(ctx); err == nil && s.Status == containerd.Running {
			out[ct.ID()] = Running{Node: node, ID: ct.ID(), Pid: task.Pid()}
		}
	}
	return out, nil
}

// AllContainers gives what runs on all of these nodes.
func (f *Fleet) AllContainers(ctx context.Context, nodes ...string) (map[string]Running, error) {
	out := map[string]Running{}
	for _, n := range nodes {
		got, err := f.Containers(ctx, n)
		if err != nil {
			return nil, err
		}
		maps.Copy(out, got)
	}
	return out, nil
}

// KillContainer kills the first container whose id contains name.
func (f *Fleet) KillContainer(ctx context.Context, node, name string) error {
	ctx = namespaces.WithNamespace(ctx, namespace)
	running, err := f.Containers(ctx, node)
	if err != nil {
		return err
	}
	c, err := f.containerd(node)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, id := range slices.Sorted(maps.Keys(running)) {
		if !strings.Contains(id, name) {
			continue
		}
		ct, err := c.LoadContainer(ctx, id)
		if err != nil {
			return err
		}
		task, err := ct.Task(ctx, nil)
		if err != nil {
			return err
		}
		return task.Kill(ctx, syscall.SIGKILL)
	}
	return fmt.Errorf("no container like %s runs on %s: %v", name, node, slices.Collect(maps.Keys(running)))
}

// Leftovers lists what containerd of a node still holds of ours: containers and
// snapshots that belong to no image.
func (f *Fleet) Leftovers(ctx context.Context, node string) ([]string, error) {
	ctx = namespaces.WithNamespace(ctx, namespace)
	c, err := f.containerd(node)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	all, err := c.Containers(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, ct := range all {
		out = append(out, "container "+ct.ID())
	}
	err = c.SnapshotService("overlayfs").Walk(ctx, func(_ context.Context, i snapshots.Info) error {
		if i.Kind == snapshots.KindActive {
			out = append(out, "snapshot "+i.Name)
		}
		return nil
	})
	return out, err
}
