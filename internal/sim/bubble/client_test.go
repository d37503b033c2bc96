package bubble

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/orchctl/orch/agent/ctrd"
	"github.com/orchctl/orch/agent/netdev"
	"github.com/orchctl/orch/agent/runtimetest"
	"github.com/orchctl/orch/api"
)

// client is containerd as one life of an agent calls it: an agent.Runtime.
type client struct {
	*runtime
	l *agentLife
}

// call waits as long as a call needs; done tells whether it is carried out and
// answered whether the agent hears of it.
func (c client) call(ctx context.Context, least, most time.Duration) error {
	ready := func() bool { return c.n.runs() && c.hung == 0 }
	if !c.n.net.until(ready, ctx.Done()) {
		return ctx.Err()
	}
	sleep(ctx, c.n.w.disk.between(least, most))
	if !c.n.net.until(ready, ctx.Done()) {
		return ctx.Err()
	}
	if ctx.Err() != nil && c.n.w.disk.hits(0.5) && c.n.net.see(c.n.runs) {
		return nil // its agent is gone, and it is done nevertheless
	}
	return ctx.Err()
}

// Ping implements agent.Runtime, as do the methods below.
func (c client) Ping(ctx context.Context) error {
	if err := c.call(ctx, time.Millisecond, 3*time.Millisecond); err != nil {
		return err
	}
	return c.Runtime.Ping(ctx)
}

// List may be a moment old.
func (c client) List(ctx context.Context) ([]ctrd.Observed, error) {
	if err := c.call(ctx, time.Millisecond, 20*time.Millisecond); err != nil {
		return nil, err
	}
	return c.Runtime.List(ctx)
}

// EnsureImage pulls what is not there yet.
func (c client) EnsureImage(ctx context.Context, w ctrd.ImageWant, progress func(ctrd.Progress)) (ctrd.ImageInfo, error) {
	if err := c.call(ctx, time.Millisecond, 5*time.Millisecond); err != nil {
		return ctrd.ImageInfo{}, err
	}
	if info, err := c.Runtime.EnsureImage(ctx, w, progress); err == nil {
		return info, nil
	}
	if err := c.call(ctx, 20*time.Millisecond, 1500*time.Millisecond); err != nil {
		return ctrd.ImageInfo{}, err
	}
	if !behaviorOf(w.Ref).missing {
		c.AddImage(w.Ref)
	}
	return c.Runtime.EnsureImage(ctx, w, progress)
}

// Resolve asks a registry.
func (c client) Resolve(ctx context.Context, w ctrd.ImageWant) (string, error) {
	if err := c.call(ctx, 5*time.Millisecond, 200*time.Millisecond); err != nil {
		return "", err
	}
	if behaviorOf(w.Ref).missing {
		return "", fmt.Errorf("%w: %s is nowhere", ctrd.ErrImageMissing, w.Ref)
	}
	return runtimetest.DigestOf(w.Ref), nil
}

// ImportImage is not used here.
func (c client) ImportImage(ctx context.Context, r io.Reader) ([]string, error) {
	if err := c.call(ctx, 10*time.Millisecond, 100*time.Millisecond); err != nil {
		return nil, err
	}
	return c.Runtime.ImportImage(ctx, r)
}

// Start starts a process.
func (c client) Start(ctx context.Context, s ctrd.ContainerSpec) (ctrd.Observed, error) {
	if err := c.call(ctx, 15*time.Millisecond, 250*time.Millisecond); err != nil {
		return ctrd.Observed{}, err
	}
	id := s.ID()
	if o, there := c.Get(id); there {
		return o, nil
	}
	c.n.w.starting(c.n, s)
	b := behaviorOf(s.Container.Image)
	p := &process{spec: s, behavior: b, readyAt: time.Now().Add(c.n.w.random.between(b.readyAfter/2, b.readyAfter))}
	o, err := c.Runtime.Start(ctx, s)
	if err != nil {
		return o, err // its lease is over
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.process[id] = p
	delete(c.alone, p.spec.Replica)
	if s.Lease != nil {
		c.guard(id, p, s.Lease.Term)
	}
	if b.endsAfter > 0 {
		p.crashes = c.later(c.n.w.random.between(b.endsAfter/4, b.endsAfter), func() {
			exit := api.Exit{Code: b.code, Reason: api.ExitError}
			if b.code == 0 {
				exit.Reason = api.ExitCompleted
			}
			c.end(id, p, exit)
		})
	}
	c.n.w.say("%s: %s runs, revision %d", c.n.name, id, s.Revision)
	return o, nil
}

// SetLease goes past containerd.
func (c client) SetLease(ctx context.Context, id string, l ctrd.Lease) error {
	if !c.n.net.until(c.n.runs, ctx.Done()) {
		return ctx.Err()
	}
	if err := c.Runtime.SetLease(ctx, id, l); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.process[id]; p != nil {
		c.guard(id, p, c.LeaseOf(id).Term)
	}
	return nil
}

// Stop returns when the process has ended.
func (c client) Stop(ctx context.Context, id string, grace time.Duration, why string) error {
	if err := c.call(ctx, time.Millisecond, 10*time.Millisecond); err != nil {
		return err
	}
	c.mu.Lock()
	p := c.process[id]
	c.mu.Unlock()
	if p == nil {
		return nil
	}
	c.n.w.stopping(c.n, id, p, why)
	c.terminate(id, p, grace, why)
	for {
		if o, there := c.Get(id); !there || !o.Running {
			return nil
		}
		if !sleep(ctx, 5*time.Millisecond) {
			return ctx.Err()
		}
	}
}

// Remove is for what has ended.
func (c client) Remove(ctx context.Context, id string) error {
	if err := c.call(ctx, time.Millisecond, 60*time.Millisecond); err != nil {
		return err
	}
	if o, there := c.Get(id); there && o.Running {
		c.n.w.violate("I5", "%s removes %s, which runs", c.n.name, id)
	}
	return c.Runtime.Remove(ctx, id)
}

// Exec runs a probe's command.
func (c client) Exec(ctx context.Context, id string, e ctrd.ExecSpec) (int, error) {
	if err := c.call(ctx, time.Millisecond, 10*time.Millisecond); err != nil {
		return -1, fmt.Errorf("exec in %s: %w: %w", id, ctrd.ErrAway, err)
	}
	return c.Runtime.Exec(ctx, id, e)
}

// wires is the kernel's network as one life of an agent calls it.
type wires struct {
	*runtimetest.Network
	c client
}

// Setup implements agent.Network, as do the methods below.
func (x wires) Setup(ctx context.Context, key api.ReplicaKey, hostNetwork bool) (netdev.Attachment, error) {
	if err := x.take(ctx); err != nil {
		return netdev.Attachment{}, err
	}
	return x.Network.Setup(ctx, key, hostNetwork)
}

// Teardown removes one.
func (x wires) Teardown(ctx context.Context, key api.ReplicaKey) error {
	if err := x.take(ctx); err != nil {
		return err
	}
	return x.Network.Teardown(ctx, key)
}

// Prune removes the others.
func (x wires) Prune(ctx context.Context, keep func(api.ReplicaKey) bool) error {
	if err := x.take(ctx); err != nil {
		return err
	}
	return x.Network.Prune(ctx, keep)
}

func (x wires) take(ctx context.Context) error {
	if !x.c.n.net.until(x.c.n.runs, ctx.Done()) || !sleep(ctx, x.c.n.w.disk.between(2*time.Millisecond, 60*time.Millisecond)) {
		return ctx.Err()
	}
	return nil
}
