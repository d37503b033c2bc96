package commit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/orchctl/orch/internal/controller/election"
	"github.com/orchctl/orch/internal/store"
)

var (
	// ErrDeposed: the fence did not hold; this leader's term is over. It is
	// election's, so that one errors.Is serves both.
	ErrDeposed = election.ErrDeposed
	// ErrBusy: a batch is waiting already.
	ErrBusy = errors.New("a batch is waiting already")
)

const (
	// timeoutDefault is how long a commit may take until the leader gives up: an
	// etcd that needs longer has no quorum, and another may have it.
	timeoutDefault = 5 * time.Second
	// drainDefault is how long the commit under way may still take when the
	// driver is told to end, so that an orderly end tells clients what became of
	// their request.
	drainDefault = time.Second
	// slowCommit is what a commit never takes where etcd's disk and network are
	// well; half of the leases' patience goes by in a few of these.
	slowCommit = time.Second
)

// Batch is written whole or not at all. Seq is the caller's, to know the result
// by. Without ops it only proves that the term lasts and a quorum answers.
type Batch struct {
	Seq uint64
	Ops []store.Op
}

// Result of one batch. With an Err it is the last one.
type Result struct {
	Seq uint64
	Rev int64 // revision of the write; 0 with an Err
	Err error // ErrDeposed, store.ErrUnknown, store.ErrTooLarge, ...
}

// Config has useful zero values, but for Log.
type Config struct {
	Timeout time.Duration // of one commit; 0 for 5 s
	Drain   time.Duration // for the commit under way at the end; 0 for 1 s
	// Observe may be nil; it is told of each transaction that ended, and does not wait.
	Observe func(ops int, took time.Duration, err error)
	Log     *slog.Logger
}

// Driver commits for one term. Make it with New.
type Driver struct {
	store   store.Store
	fence   store.Compare
	conf    Config
	batches chan Batch
	results chan Result
}

// New makes the driver of the term whose fence is given.
func New(s store.Store, fence store.Compare, c Config) *Driver {
	if c.Timeout == 0 {
		c.Timeout = timeoutDefault
	}
	if c.Drain == 0 {
		c.Drain = drainDefault
	}
	return &Driver{
		store: s, fence: fence, conf: c,
		batches: make(chan Batch, 1),
		results: make(chan Result, 1),
	}
}

// Limits bound the ops of one batch; the fence is accounted for.
func (d *Driver) Limits() store.Limits {
	l := d.store.Limits()
	l.MaxBytes -= d.fence.Size()
	return l
}

// Submit hands over a batch without waiting. At most one may wait beside the one
// on its way; ErrBusy if there is one. A caller with a single batch outstanding
// never meets it.
func (d *Driver) Submit(b Batch) error {
	select {
	case d.batches <- b:
		return nil
	default:
		return fmt.Errorf("submit batch %d: %w", b.Seq, ErrBusy)
	}
}

// Results are in the order of the batches. The channel is closed when Run ends;
// a batch without a result then was never sent.
func (d *Driver) Results() <-chan Result { return d.results }

// Run commits until ctx ends or a batch fails, and returns why. Call it once.
func (d *Driver) Run(ctx context.Context) error {
	defer close(d.results)
	for {
		// An ended context wins over a waiting batch: nothing new is begun.
		if err := ctx.Err(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case b := <-d.batches:
			r := d.commit(ctx, b)
			if err := d.report(ctx, r); err != nil {
				return err
			}
			if r.Err != nil {
				return r.Err
			}
		}
	}
}

// report delivers a result. When ctx has ended it still leaves it in the buffer,
// if there is room, for a reader that drains the channel.
func (d *Driver) report(ctx context.Context, r Result) error {
	select {
	case d.results <- r:
		return nil
	default:
	}
	select {
	case d.results <- r:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *Driver) commit(ctx context.Context, b Batch) Result {
	txnCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.conf.Timeout)
	defer cancel()
	// When told to end, allow what is under way the drain time, no more.
	ended := make(chan struct{})
	defer func() { <-ended }()
	finished := make(chan struct{})
	defer close(finished)
	go func() {
		defer close(ended)
		d.drain(ctx, finished, cancel)
	}()

	began := time.Now()
	rev, err := d.store.Txn(txnCtx, store.Txn{If: []store.Compare{d.fence}, Then: b.Ops})
	if errors.Is(err, store.ErrConflict) {
		err = ErrDeposed // the fence is the only compare
	}
	if d.conf.Observe != nil {
		d.conf.Observe(len(b.Ops), time.Since(began), err)
	}
	if err != nil {
		err = fmt.Errorf("commit batch %d of %d ops: %w", b.Seq, len(b.Ops), err)
		d.conf.Log.Warn("commit failed", "batch", b.Seq, "ops", len(b.Ops), "took", time.Since(began), "error", err)
		return Result{Seq: b.Seq, Err: err}
	}
	if took := time.Since(began); took > slowCommit {
		d.conf.Log.Warn("the store is slow: changes and failovers wait for it: look at the disk of etcd, what else uses it, and the network to it",
			"took", took, "want_below", slowCommit, "batch", b.Seq, "ops", len(b.Ops))
	}
	d.conf.Log.Debug("committed", "batch", b.Seq, "ops", len(b.Ops), "rev", rev, "took", time.Since(began))
	return Result{Seq: b.Seq, Rev: rev}
}

// drain cancels the commit once ctx has ended for the drain time.
func (d *Driver) drain(ctx context.Context, finished <-chan struct{}, cancel context.CancelFunc) {
	select {
	case <-finished:
		return
	case <-ctx.Done():
	}
	t := time.NewTimer(d.conf.Drain)
	defer t.Stop()
	select {
	case <-finished:
	case <-t.C:
		cancel()
	}
}
