package main

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/orchctl/orch/agent/counts"
	"github.com/orchctl/orch/agent/dns"
	"github.com/orchctl/orch/agent/traffic"
	"github.com/orchctl/orch/internal/network"
)

// named is a balancer with the name server that it keeps up to date.
type named struct {
	*traffic.Balancer
	names *dns.Server
}

func (n named) Run(ctx context.Context, programmed func(mark uint64)) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.Balancer.Run(ctx, programmed) })
	g.Go(func() error { return n.names.Run(ctx) })
	return g.Wait()
}

func (n named) Configure(s network.Standing) {
	n.names.Configure(s)
	n.Balancer.Configure(s)
}

func (n named) Health() string {
	rules, names := n.Balancer.Health(), n.names.Health()
	if rules == "" || names == "" {
		return rules + names
	}
	return rules + "; " + names
}

// timed counts how long changes of the kernel's rules take.
type timed struct {
	traffic.Rules
	count *counts.Set
}

func (t timed) Apply(ctx context.Context, c network.Change) error {
	began := time.Now()
	err := t.Rules.Apply(ctx, c)
	if ctx.Err() == nil {
		t.count.Ruled(time.Since(began), err)
	}
	return err
}
