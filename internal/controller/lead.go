package controller

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/orchctl/orch/internal/controller/commit"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/election"
	"github.com/orchctl/orch/internal/controller/identity"
	"github.com/orchctl/orch/internal/network"
)

// lead is one term, from reading the store to closing the last session.
func (c *Controller) lead(ctx context.Context, lease election.Lease) error {
	began := time.Now()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	commits := commit.New(c.cfg.Store, lease.Fence(), commit.Config{Observe: c.cfg.Counts.Commit, Log: c.cfg.Log})

	// Both are read after the leader key was seized: what an older leader may
	// still have on its way is refused from then on.
	kvs, rev, err := c.cfg.Store.Range(ctx, core.Prefix)
	if err != nil {
		return fmt.Errorf("read the state: %w", err)
	}
	book, _, err := c.cfg.Store.Range(ctx, identity.Prefix)
	if err != nil {
		return fmt.Errorf("read tokens and names: %w", err)
	}
	k := core.New(core.Config{Incarnation: c.incarnation, Term: lease.Term, BootID: c.cfg.BootID, Limits: commits.Limits(), Liveness: c.cfg.Liveness, Budgets: c.cfg.Budgets, KeptPorts: c.cfg.KeptPorts, Network: c.cfg.Network})
	if err := k.Load(kvs, rev); err != nil {
		return err
	}
	c.warnOfNetwork(k.Network())
	t := newTerm(c.incarnation, lease, end)
	t.traces = newTraces(c.cfg.Tracer)
	if err := c.cfg.Authority.Begin(book, t); err != nil {
		return err
	}
	c.view.Begin()
	l := &loop{c: c, sleep: newSleep(c.cfg.SinceBoot), term: t, core: k, commits: commits, rev: rev, nodes: map[string]bool{}, looks: make(chan struct{}, looksMax)}

	// The driver of commits outlives the loop's context a little: what is under
	// way at an orderly end is still answered.
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return commits.Run(gctx) })
	g.Go(func() error { return l.run(gctx) })
	g.Go(func() error {
		c.cfg.Authority.Tend(gctx)
		return nil
	})
	g.Go(func() error {
		c.warnOfKeys(gctx, t)
		return nil
	})
	c.setTerm(t)
	c.cfg.Counts.Term()
	c.cfg.Log.Info("term began", "term", lease.Term, "entries", len(kvs), "revision", rev, "took", time.Since(began))
	err = g.Wait()

	c.retire(t)
	l.looking.Wait()
	if cause := context.Cause(ctx); cause != nil && cause != context.Canceled {
		return cause
	}
	return err
}

// warnOfNetwork tells where the store's network is not what the flags say. It is no
// reason not to lead: agents have their subnets, services their virtual IPs.
func (c *Controller) warnOfNetwork(stored network.Cluster) {
	said := c.cfg.Network
	if said == (network.Cluster{}) || stored == (network.Cluster{}) {
		return
	}
	for _, x := range said.Differences(stored) {
		c.cfg.Log.Warn("the network was decided when the cluster was made: the flag changes nothing", "flag", x.Flag, "says", x.This, "holds", x.Other)
	}
}

// retire takes the term away from everybody. It is over before the book of
// tokens and names is closed: who writes into that holds it until the term takes
// the writes, which it never will if its inbox is full.
func (c *Controller) retire(t *term) {
	c.setTerm(nil)
	c.view.End(time.Now())
	close(t.over) // closes sessions and answers who waits
	c.cfg.Authority.End()
}

const (
	// turnMax is how many events are taken in before the core plans, so that a
	// flood of them cannot put off placements for ever.
	turnMax = 512
	// stallMin: a timer that fires later than this means that the process itself
	// did not run. Shorter delays are what a busy machine does.
	stallMin = 200 * time.Millisecond
	// looksMax bounds the leader's own probes at a time; a look that is not made
	// is a witness less, not a verdict.
	looksMax = 64
)

// loop drives the core of one term. Its fields belong to run's goroutine.
type loop struct {
	c       *Controller
	term    *term
	core    *core.Core
	commits *commit.Driver

	rev        int64 // of the last commit
	committing bool
	begun      bool // the view was published
	nodes      map[string]bool
	interval   time.Duration // between beats, as sessions were told
	wake       time.Time     // when the core wants a Tick; zero: never
	err        error         // why the term must end
	sleep      *sleep

	looks   chan struct{} // one element per probe under way
	looking sync.WaitGroup
}

func (l *loop) run(ctx context.Context) error {
	defer l.term.traces.end()
	l.interval = l.c.beatInterval()
	began := l.work()
	defer l.c.working.Store(0)
	l.carry(ctx, l.core.Begin(time.Now()))
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		l.turn(ctx)
		if l.err != nil {
			return l.err
		}
		if l.wake.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(l.wake))
		}
		l.c.working.Store(0)
		l.c.cfg.Counts.Worked(time.Since(began))
		select {
		case ev := <-l.term.inbox:
			began = l.work()
			l.step(ctx, ev)
		case r, ok := <-l.commits.Results():
			began = l.work()
			l.committed(ctx, r, ok)
		case <-timer.C:
			began = l.work()
		case <-ctx.Done():
			l.drain(ctx)
			return context.Cause(ctx)
		}
		// What has arrived is heard before time acts: after a hiccup of ours the
		// beats that wait in the inbox speak for their nodes.
		for n := 1; n < turnMax && l.err == nil && l.more(ctx); n++ {
		}
		l.tick(ctx)
	}
}

// work notes that the loop has something to do, for who asks whether it is stuck.
func (l *loop) work() time.Time {
	now := time.Now()
	l.c.working.Store(now.UnixNano())
	return now
}

// more takes one more event if one is there.
func (l *loop) more(ctx context.Context) bool {
	select {
	case ev := <-l.term.inbox:
		l.step(ctx, ev)
		return true
	case r, ok := <-l.commits.Results():
		l.committed(ctx, r, ok)
		return true
	default:
		return false
	}
}

// drain answers what was under way when the term was told to end; nothing new
// begins.
func (l *loop) drain(ctx context.Context) {
	for r := range l.commits.Results() {
		l.committed(ctx, r, true)
	}
}

func (l *loop) step(ctx context.Context, ev core.Event) {
	l.noticeStall(ctx)
	l.term.traces.took(ev)
	l.tell(ctx, ev, time.Now())
}

// tell hands an event to the core and carries out what follows.
func (l *loop) tell(ctx context.Context, ev core.Event, now time.Time) {
	l.c.cfg.Counts.Event(ev)
	l.carry(ctx, l.core.Step(ev, now))
}

// noticeStall: a leader that did not run itself must not hold the silence
// against others, nor judge by it what it hears first.
func (l *loop) noticeStall(ctx context.Context) {
	now := time.Now()
	if slept := l.sleep.slept(); slept > 0 {
		l.c.cfg.Log.Warn("the leader's machine was suspended", "for", slept)
		l.tell(ctx, core.Stalled{For: slept}, now)
	}
	if late := now.Sub(l.wake); !l.wake.IsZero() && late > stallMin {
		l.c.cfg.Log.Warn("the leader did not run", "for", late)
		l.tell(ctx, core.Stalled{For: late}, now)
		l.wake = now // what is overdue is due now, and the stall told once
	}
}

// tick lets time act where it is due.
func (l *loop) tick(ctx context.Context) {
	l.noticeStall(ctx)
	now := time.Now()
	if l.wake.IsZero() || now.Before(l.wake) {
		return
	}
	l.tell(ctx, core.Tick{}, now)
	l.wake, _ = l.core.NextWake()
}

func (l *loop) turn(ctx context.Context) {
	began := time.Now()
	l.carry(ctx, l.core.Turn(began))
	l.c.cfg.Counts.Turn(time.Since(began))
	l.wake, _ = l.core.NextWake()
	if !l.begun && !l.committing {
		// All that the term begins with is published by now; if that is nothing,
		// say so.
		if !l.c.view.Begun() {
			l.c.view.Publish(core.Publish{})
		}
		l.begun = true
		close(l.term.published)
	}
}

func (l *loop) committed(ctx context.Context, r commit.Result, ok bool) {
	if !ok {
		l.err = errEnded
		return
	}
	l.noticeStall(ctx)
	l.committing = false
	l.rev = max(l.rev, r.Rev)
	l.tell(ctx, core.Committed{Seq: r.Seq, Rev: r.Rev, Err: r.Err}, time.Now())
	if l.core.Failed() {
		l.err = fmt.Errorf("resign: %w", r.Err)
	}
}
