package rig

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/typeurl/v2"
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

// Start is one start of a replica's container, as containerd told it.
type Start struct {
	At      time.Time // when we heard of it
	ID      string
	Service string
	Slot    int
	Epoch   uint64
	Err     error // the last one: nothing follows
}

// Starts tells of each container that a node starts from now on, until ctx ends.
func (f *Fleet) Starts(ctx context.Context, node string) (<-chan Start, error) {
	ctx = namespaces.WithNamespace(ctx, namespace)
	c, err := f.containerd(node)
	if err != nil {
		return nil, err
	}
	events, errs := c.Subscribe(ctx, `topic=="/tasks/start",namespace==`+namespace)
	// The subscription is in force once containerd has answered something that
	// was asked after it.
	if _, err := c.Version(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	out := make(chan Start)
	go func() {
		defer close(out)
		defer c.Close()
		for {
			var s Start
			select {
			case e := <-events:
				s = started(ctx, c, e)
			case err := <-errs:
				s.Err = fmt.Errorf("listen to containerd of %s: %w", node, err)
			case <-ctx.Done():
				return
			}
			select {
			case out <- s:
			case <-ctx.Done():
				return
			}
			if s.Err != nil {
				return
			}
		}
	}()
	return out, nil
}

// started reads a start event and the labels of its container.
func started(ctx context.Context, c *containerd.Client, e *events.Envelope) Start {
	s := Start{At: time.Now()}
	v, err := typeurl.UnmarshalAny(e.Event)
	if err != nil {
		s.Err = fmt.Errorf("read event %s: %w", e.Topic, err)
		return s
	}
	start, ok := v.(*eventsapi.TaskStart)
	if !ok {
		s.Err = fmt.Errorf("read event %s: it is a %T", e.Topic, v)
		return s
	}
	s.ID = start.ContainerID
	ct, err := c.LoadContainer(ctx, s.ID)
	if err != nil {
		return s // gone again already
	}
	labels, err := ct.Labels(ctx)
	if err != nil {
		return s
	}
	s.Service = labels["orch/service"]
	s.Slot, _ = strconv.Atoi(labels["orch/slot"])
	s.Epoch, _ = strconv.ParseUint(labels["orch/epoch"], 10, 64)
	return s
}
