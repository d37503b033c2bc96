package controller

import (
	"context"
	"sync"

	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/election"
	"github.com/orchctl/orch/internal/store"
)

// inboxMax is how many events may wait for the core. Whoever brings more waits:
// agents and callers slow down, the core does not.
const inboxMax = 4096

// term is one time of leading. All but the inbox's other end is for everybody.
type term struct {
	incarnation string
	lease       election.Lease
	inbox       chan core.Event
	published   chan struct{} // closed when the view is this term's
	over        chan struct{} // closed when the term has ended
	resign      context.CancelCauseFunc

	mu      sync.Mutex
	last    uint64 // ticket
	waiting map[uint64]chan outcome

	traces *traces // set before anybody asks
}

// Answer is the core's answer to an event.
type Answer struct {
	Value any
	// Revision of the store at which it holds.
	Revision int64
}

type outcome struct {
	answer Answer
	err    error
}

func newTerm(incarnation string, l election.Lease, resign context.CancelCauseFunc) *term {
	return &term{incarnation: incarnation, lease: l, inbox: make(chan core.Event, inboxMax), published: make(chan struct{}),
		over: make(chan struct{}), resign: resign, waiting: map[uint64]chan outcome{}}
}

// Incarnation, Number, Tell and Over make a session.Term.
func (t *term) Incarnation() string { return t.incarnation }

// Number of the term.
func (t *term) Number() uint64 { return t.lease.Term }

// Over is closed when the term has ended.
func (t *term) Over() <-chan struct{} { return t.over }

// Tell hands an event to the core; it waits for room.
func (t *term) Tell(ctx context.Context, ev core.Event) error {
	select {
	case t.inbox <- ev:
		return nil
	case <-t.over:
		return errChanged
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

// submit queues an event; wait gives its answer, which may come after the caller
// has lost interest.
func (t *term) submit(ctx context.Context, event func(ticket uint64) core.Event) (wait func(context.Context) (Answer, error), err error) {
	ticket, answer := t.enter()
	ev := event(ticket)
	t.traces.ask(ctx, ev)
	if err := t.Tell(ctx, ev); err != nil {
		t.traces.leave(ticket)
		t.leave(ticket)
		return nil, err
	}
	return func(ctx context.Context) (Answer, error) {
		defer t.leave(ticket)
		select {
		case o := <-answer:
			return o.answer, o.err
		case <-t.over:
			select {
			case o := <-answer: // it came just before the end
				return o.answer, o.err
			default:
				return Answer{}, errChanged
			}
		case <-ctx.Done():
			return Answer{}, status.FromContextError(ctx.Err()).Err()
		}
	}, nil
}

func (t *term) enter() (uint64, chan outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last++
	answer := make(chan outcome, 1)
	t.waiting[t.last] = answer
	return t.last, answer
}

func (t *term) leave(ticket uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.waiting, ticket)
}

// reply never waits: a ticket is answered once, and its channel has room for that.
func (t *term) reply(r core.Reply, rev int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if answer, ok := t.waiting[r.Ticket]; ok {
		delete(t.waiting, r.Ticket)
		answer <- outcome{Answer{r.Value, rev}, r.Err}
	}
}

// Write implements identity.Writer.
func (t *term) Write(ctx context.Context, ops ...store.Op) (func(context.Context) error, error) {
	wait, err := t.submit(ctx, func(ticket uint64) core.Event { return core.Write{Ticket: ticket, Ops: ops} })
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		_, err := wait(ctx)
		return err
	}, nil
}
