package election

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/orchctl/orch/internal/store"
)

const (
	// resignTimeout bounds the farewell of a leader whose store may be gone.
	resignTimeout = time.Second
	// seizeTimeout bounds one try, so that a store without a quorum is noticed
	// here, where the back-off is.
	seizeTimeout = 10 * time.Second
	// goodTerm is how long a term must last for its end not to count as one more
	// failure in a row.
	goodTerm = 10 * time.Second
)

// Eligible says when a controller may try to lead.
type Eligible interface {
	// Wait returns nil as soon as it may, or the context's error.
	Wait(ctx context.Context) error
}

// EtcdMember is the embedded etcd, as far as leadership goes.
type EtcdMember interface {
	IsLeader() bool
	// LeaderChanged returns a channel that is closed when etcd elects next.
	LeaderChanged() <-chan struct{}
}

// WhenEtcdLeads makes a controller eligible while its embedded etcd leads etcd:
// then every other controller's etcd is a follower, and commits are one hop
// shorter.
func WhenEtcdLeads(m EtcdMember) Eligible { return etcdLeads{m} }

type etcdLeads struct{ member EtcdMember }

func (e etcdLeads) Wait(ctx context.Context) error {
	for {
		changed := e.member.LeaderChanged() // before asking, or a change slips through
		if e.member.IsLeader() {
			return ctx.Err()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Presence tells which controllers live.
type Presence interface {
	IsPresent(ctx context.Context, controller string) (bool, error)
}

// lookEvery is how often a controller that stands by looks for the one that leads.
const lookEvery = time.Second

// WhenVacant makes a controller eligible while no other one that lives holds the
// lead. For several on a store that is none of theirs: they would depose each other
// for ever, though they could spoil nothing. One stands by until the other has gone.
func WhenVacant(s store.Store, id string, p Presence, log *slog.Logger) Eligible {
	return vacant{s, id, p, log}
}

type vacant struct {
	store    store.Store
	id       string
	presence Presence
	log      *slog.Logger
}

func (v vacant) Wait(ctx context.Context) error {
	for told := ""; ; {
		h, _, err := Current(ctx, v.store)
		if err == nil {
			if h.ID == "" || h.ID == v.id {
				return ctx.Err()
			}
			var there bool
			if there, err = v.presence.IsPresent(ctx, h.ID); err == nil && !there {
				return ctx.Err()
			}
		}
		if err == nil && told != h.ID {
			told = h.ID
			v.log.Info("standing by: another controller leads", "id", v.id, "leader", h.ID, "term", h.Term)
		}
		if err := pause(ctx, lookEvery); err != nil {
			return err
		}
	}
}

// Sole makes a controller always eligible: for one without peers. Two of them
// would depose each other for ever.
func Sole() Eligible { return sole{} }

type sole struct{}

func (sole) Wait(ctx context.Context) error { return ctx.Err() }

// Config is what Run needs. All fields without "may" are required.
type Config struct {
	Store    store.Store
	ID       string // of this controller; unique among controllers
	Eligible Eligible
	// Backoff is how long to wait after the n-th failure in a row, from 1: a lost
	// race, an unreachable store, a term that ended soon. It brings the jitter.
	Backoff func(failures int) time.Duration
	// Failed may be nil; it is told why a try or a term ended, before the wait.
	Failed func(error)
	Log    *slog.Logger
}

// Run waits until this controller may lead, seizes leadership, and runs lead
// under a context that ends when the term does (its cause then wraps ErrDeposed).
// When lead returns, for whatever reason, it resigns, waits and begins again. It
// returns ctx's error once ctx has ended and lead has returned.
func Run(ctx context.Context, c Config, lead func(ctx context.Context, l Lease) error) error {
	if c.ID == "" {
		return fmt.Errorf("run election: %w", ErrNoID)
	}
	for failures := 0; ; {
		if err := c.Eligible.Wait(ctx); ctx.Err() != nil {
			return ctx.Err()
		} else if err != nil {
			return fmt.Errorf("run election: wait until eligible: %w", err)
		}
		began := time.Now()
		err := term(ctx, c, lead)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, store.ErrClosed) {
			return fmt.Errorf("run election: %w", err)
		}
		if time.Since(began) >= goodTerm {
			failures = 0
		}
		failures++
		wait := c.Backoff(failures)
		if c.Failed != nil {
			c.Failed(err)
		}
		c.Log.Warn("not leading", "id", c.ID, "why", err, "retry_in", wait)
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// term is one try: seize, lead, resign. It returns why it ended.
func term(ctx context.Context, c Config, lead func(ctx context.Context, l Lease) error) error {
	try, cancel := context.WithTimeout(ctx, seizeTimeout)
	l, err := Seize(try, c.Store, c.ID)
	cancel()
	if err != nil {
		return err
	}
	c.Log.Info("leading", "id", l.ID, "term", l.Term)

	leadCtx, end := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		end(l.Watch(leadCtx, c.Store))
	}()
	err = lead(leadCtx, l)
	if leadCtx.Err() != nil && ctx.Err() == nil {
		err = context.Cause(leadCtx) // says more than lead's "context canceled"
	}
	end(nil)
	<-watched

	bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), resignTimeout)
	defer cancel()
	if rerr := Resign(bye, c.Store, l); rerr != nil && !errors.Is(rerr, ErrDeposed) {
		c.Log.Warn("resign", "id", l.ID, "term", l.Term, "error", rerr)
	}
	if err == nil {
		err = errors.New("the term was given up")
	}
	return fmt.Errorf("term %d: %w", l.Term, err)
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}
