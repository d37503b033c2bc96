package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/orchctl/orch/agent/ctrd"
)

// purgesAtOnceMax bounds how many containers end at the same time: a stop mostly
// waits for its grace.
const purgesAtOnceMax = 32

// purgeMax is the longest that the network may take to be cleared away.
const purgeMax = 2 * time.Minute

// Leaver gives back what it has taken of the kernel's network.
type Leaver interface {
	Leave(ctx context.Context) error
}

// Remover takes our rules out of the kernel.
type Remover interface {
	Remove(ctx context.Context) error
}

// MemoryLeaver gives back the memory in which values lay, once no container is left.
type MemoryLeaver interface {
	LeaveMemory() error
}

// Leftovers are what an agent leaves behind when it ends. All fields but Volumes are required.
type Leftovers struct {
	// Data is the agent's own folder.
	Data string
	// Volumes go, too, with what is in them.
	Volumes bool
	Runtime Runtime
	// Network opens what it takes back: never beside an agent, for to open it clears
	// away what is not finished.
	Network func() (Leaver, error)
	Rules   Remover
	// Memory holds what containers have of Configs and Secrets.
	Memory MemoryLeaver
	// Say tells what is done.
	Say func(format string, args ...any)
}

// Containers lists those that Purge would end.
func (l Leftovers) Containers(ctx context.Context) ([]ctrd.Observed, error) {
	return l.Runtime.List(ctx)
}

// Purge takes everything from the node that orch made on it, for a node that has
// left its cluster: containers (each is given its grace), networks, rules and the
// agent's folder, its identity among it; images stay, and volumes unless Volumes says
// otherwise. An agent that runs is an
// error. What it cannot do it says and goes on; it may be called again.
func (l Leftovers) Purge(ctx context.Context) error {
	unlock, err := lockFolder(l.Data)
	if err != nil {
		return err
	}
	defer unlock()
	list, err := l.Containers(ctx)
	if err != nil {
		return err // what runs in them could not go on without their network
	}
	var g errgroup.Group
	g.SetLimit(purgesAtOnceMax)
	failed := make([]error, len(list)+2)
	for i, o := range list {
		g.Go(func() error {
			failed[i] = l.end(ctx, o)
			return nil
		})
	}
	_ = g.Wait() // the errors are in failed
	if err := errors.Join(failed...); err != nil {
		return err
	}
	if err := l.Memory.LeaveMemory(); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, purgeMax)
	defer cancel()
	n, err := l.Network()
	if err != nil {
		return err
	}
	// Rules first: they lead to what is cleared away then.
	failed[0], failed[1] = l.Rules.Remove(limited), n.Leave(limited)
	if err := errors.Join(failed...); err != nil {
		return err
	}
	l.Say("rules, routes and devices are gone")
	return l.empty()
}

func (l Leftovers) end(ctx context.Context, o ctrd.Observed) error {
	ctx, cancel := context.WithTimeout(ctx, o.Grace+stopSlack+removeMax)
	defer cancel()
	if o.Running {
		if err := l.Runtime.Stop(ctx, o.ID, o.Grace, "the node is purged"); err != nil {
			return err
		}
	}
	if err := l.Runtime.Remove(ctx, o.ID); err != nil {
		return err
	}
	l.Say("container %s is gone", o.ID)
	return nil
}

// empty leaves nothing in the data folder, which may be a mount, but volumes that stay.
func (l Leftovers) empty() error {
	entries, err := os.ReadDir(l.Data)
	if err != nil {
		return fmt.Errorf("empty %s: %w", l.Data, err)
	}
	kept := false
	for _, e := range entries {
		if e.Name() == volumesFolder && !l.Volumes {
			if kept, err = hasVolumes(l.Data); err != nil {
				return err
			}
			if kept {
				continue
			}
		}
		if err := os.RemoveAll(filepath.Join(l.Data, e.Name())); err != nil {
			return fmt.Errorf("empty %s: %w", l.Data, err)
		}
	}
	if kept {
		l.Say("%s is empty but for volumes, which lie in %s: the next node that uses it finds them, --volumes deletes them", l.Data, filepath.Join(l.Data, volumesFolder))
		return nil
	}
	l.Say("%s is empty", l.Data)
	return nil
}
