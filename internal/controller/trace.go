package controller

import (
	"context"
	"sync"
	"time"

	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/tracing"
)

// traces tell how long changes wait, are decided and committed. It goes by what passes the
// loop; the core knows nothing of it. Nil: nobody traces.
type traces struct {
	tracer *tracing.Tracer

	mu    sync.Mutex
	asked map[uint64]asked // by ticket, until the loop takes them

	// The loop's own: changes that were taken and not answered yet, by ticket.
	open map[uint64]*change
}

// asked is a change in the inbox.
type asked struct {
	ctx context.Context // of the caller, for its span alone
	at  time.Time
}

// change is one that the core has taken.
type change struct {
	ctx        context.Context
	now        *tracing.Span // deciding, or committing
	committing bool
}

func newTraces(t *tracing.Tracer) *traces {
	if t == nil {
		return nil
	}
	return &traces{tracer: t, asked: map[uint64]asked{}, open: map[uint64]*change{}}
}

// ask notes that somebody asks for a change.
func (x *traces) ask(ctx context.Context, ev core.Event) {
	if x == nil || ticketOf(ev) == 0 || tracing.Carried(ctx) == "" {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.asked[ticketOf(ev)] = asked{ctx, time.Now()}
}

// leave forgets who has lost interest before the loop took the event.
func (x *traces) leave(ticket uint64) {
	if x == nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.asked, ticket)
}

// took notes that the loop takes an event.
func (x *traces) took(ev core.Event) {
	if x == nil {
		return
	}
	ticket := ticketOf(ev)
	x.mu.Lock()
	a, ok := x.asked[ticket]
	delete(x.asked, ticket)
	x.mu.Unlock()
	if !ok {
		return
	}
	_, wait := x.tracer.BeginAt(a.ctx, "inbox", a.at)
	wait.End()
	c := &change{ctx: a.ctx}
	_, c.now = x.tracer.Begin(a.ctx, "decide")
	x.open[ticket] = c
}

// ticketOf is that of a change; 0: it is none.
func ticketOf(ev core.Event) uint64 {
	switch ev := ev.(type) {
	case core.Apply:
		return ev.Ticket
	case core.Scale:
		return ev.Ticket
	case core.Rollout:
		return ev.Ticket
	case core.Delete:
		return ev.Ticket
	case core.Rebalance:
		return ev.Ticket
	case core.NodeWord:
		return ev.Ticket
	}
	return 0
}

// commits notes that all that was decided so far is on its way to the store.
func (x *traces) commits(ops int) {
	if x == nil {
		return
	}
	for _, c := range x.open {
		if c.committing {
			continue
		}
		c.now.End()
		c.committing = true
		_, c.now = x.tracer.Begin(c.ctx, "commit")
		c.now.SetInt("orch.operations", int64(ops))
	}
}

// answered notes that the core has answered.
func (x *traces) answered(r core.Reply) {
	if x == nil {
		return
	}
	c := x.open[r.Ticket]
	if c == nil {
		return
	}
	delete(x.open, r.Ticket)
	c.now.Fail(r.Err)
	c.now.End()
}

// end ends what the term leaves unanswered.
func (x *traces) end() {
	if x == nil {
		return
	}
	for ticket, c := range x.open {
		c.now.FailFor("the term ended")
		c.now.End()
		delete(x.open, ticket)
	}
}
