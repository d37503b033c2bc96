package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/orchctl/orch/agent/ctrd"
	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/agent/probes"
)

const (
	// probeOutputMax is how much of a command's output is kept, in bytes.
	probeOutputMax = 1 << 10
	// turnsPerCore is how many commands of probes may run at once for each core: they
	// wait a little, for containerd and for what they ask. All of a node's at once, as
	// after a restart of the agent, would be late together, and restart its containers.
	turnsPerCore = 4
	// turnMax is how long a command keeps its turn: one that hangs holds up no others.
	turnMax = time.Second
)

// turns are given in the order in which they were asked for.
type turns chan struct{}

func newTurns(cores int) turns { return make(turns, turnsPerCore*max(1, cores)) }

// take waits for a turn; see probes.Target.Turn.
func (t turns) take(ctx context.Context) (done func(), ok bool) {
	select {
	case t <- struct{}{}:
	case <-ctx.Done():
		return nil, false
	}
	give := sync.OnceFunc(func() { <-t })
	late := time.AfterFunc(turnMax, give)
	return func() { late.Stop(); give() }, true
}

func (d *driver) startProbe(ctx context.Context, e plan.StartProbe) {
	key := probeKey{e.ContainerID, e.Kind}
	if cancel := d.probes[key]; cancel != nil {
		cancel()
	}
	ctx, cancel := context.WithCancel(ctx)
	d.probes[key] = cancel
	target := probes.Target{Probe: e.Probe, IP: e.IP, Port: e.Port, First: e.First, Soon: e.Soon, Until: e.Until, Interval: e.Interval, Timeout: e.Timeout,
		Turn: d.turns.take, Exec: d.execIn(e.ContainerID), Tried: func(took time.Duration, ok bool) { d.cfg.Counts.Probed(e.Kind, took, ok) }}
	d.work.Go(func() {
		defer cancel()
		probes.Run(ctx, target, func(ok bool, message string) {
			d.tell(ctx, plan.Probed{ContainerID: e.ContainerID, Kind: e.Kind, OK: ok, Message: message})
		})
	})
}

// execIn runs commands in a container.
func (d *driver) execIn(id string) probes.Exec {
	return func(ctx context.Context, command []string) (int, string, error) {
		var out head
		code, err := d.cfg.Runtime.Exec(ctx, id, ctrd.ExecSpec{Args: command, Stdout: &out, Stderr: &out})
		if errors.Is(err, ctrd.ErrAway) {
			err = fmt.Errorf("%w: %w", probes.ErrUnasked, err)
		}
		return code, out.String(), err
	}
}

// head keeps the beginning of what is written to it. Standard output and error
// are copied by two goroutines, hence the lock.
type head struct {
	mu sync.Mutex
	b  []byte
}

func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.b = append(h.b, p[:min(len(p), probeOutputMax-len(h.b))]...)
	return len(p), nil
}

func (h *head) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return string(h.b)
}
