package commit

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orchctl/orch/internal/store"
	"github.com/orchctl/orch/internal/store/mem"
)

var fence = store.Absent("other") // holds until somebody writes "other"

func conf() Config { return Config{Log: slog.New(slog.DiscardHandler)} }

// run starts a driver; the returned function waits for its end.
func run(ctx context.Context, s store.Store, c Config) (*Driver, func() error) {
	d, done := New(s, fence, c), make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	return d, func() error { return <-done }
}

func batch(seq uint64, keys ...string) Batch {
	b := Batch{Seq: seq}
	for _, k := range keys {
		b.Ops = append(b.Ops, store.Put(k, []byte("v")))
	}
	return b
}

func submit(t *testing.T, d *Driver, b Batch) {
	t.Helper()
	if err := d.Submit(b); err != nil {
		t.Fatal(err)
	}
}

func keys(t *testing.T, s store.Store) (out string) {
	t.Helper()
	kvs, _, err := s.Range(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range kvs {
		out += kv.Key
	}
	return out
}

// counting sees how many transactions are in flight at once.
type counting struct {
	store.Store
	now, most, txns atomic.Int32
}

func (c *counting) Txn(ctx context.Context, t store.Txn) (int64, error) {
	c.txns.Add(1)
	if n := c.now.Add(1); n > c.most.Load() {
		c.most.Store(n)
	}
	defer c.now.Add(-1)
	return c.Store.Txn(ctx, t)
}

func TestOneInFlightInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		twin := mem.New()
		twin.SetDelay(func(mem.Call) time.Duration { return 10 * time.Millisecond })
		s := &counting{Store: twin}
		ctx, cancel := context.WithCancel(t.Context())
		d, wait := run(ctx, s, conf())
		submit(t, d, batch(1, "a"))
		synctest.Wait() // 1 is on its way
		submit(t, d, batch(2, "b"))
		if err := d.Submit(batch(3, "c")); !errors.Is(err, ErrBusy) {
			t.Errorf("a third batch: %v, want busy", err)
		}
		for seq := uint64(1); seq <= 2; seq++ {
			r := <-d.Results()
			if want := int64(seq) + 1; r.Seq != seq || r.Err != nil || r.Rev != want {
				t.Errorf("result %+v, want seq %d at revision %d", r, seq, want)
			}
		}
		submit(t, d, Batch{Seq: 3}) // no ops: proves the term, writes nothing
		if r := <-d.Results(); r.Seq != 3 || r.Err != nil || r.Rev != 3 {
			t.Errorf("empty batch: %+v", r)
		}
		cancel()
		if err := wait(); !errors.Is(err, context.Canceled) {
			t.Errorf("run: %v", err)
		}
		if _, ok := <-d.Results(); ok {
			t.Error("results go on after the end")
		}
		if got := keys(t, s); got != "ab" {
			t.Errorf("keys %q, want ab", got)
		}
		if s.most.Load() != 1 || s.txns.Load() != 3 {
			t.Errorf("%d transactions, %d at once; want 3, one by one", s.txns.Load(), s.most.Load())
		}
	})
}

func TestFailureIsFinal(t *testing.T) {
	small := store.Limits{MaxOps: 2, MaxBytes: 1000}
	for _, c := range []struct {
		name  string
		fault func(*mem.Store)
		batch Batch
		want  error
		keys  string
	}{
		{"deposed", func(s *mem.Store) { s.Txn(context.Background(), store.Txn{Then: batch(0, "other").Ops}) }, batch(7, "a"), ErrDeposed, "other"},
		{"unknown, written", func(s *mem.Store) { s.UnknownNext(true) }, batch(7, "a"), store.ErrUnknown, "a"},
		{"unknown, not written", func(s *mem.Store) { s.UnknownNext(false) }, batch(7, "a"), store.ErrUnknown, ""},
		{"full", func(s *mem.Store) { s.FailNext(store.ErrNoSpace) }, batch(7, "a"), store.ErrNoSpace, ""},
		{"too large", func(s *mem.Store) { s.SetLimits(small) }, batch(7, "a", "b", "c"), store.ErrTooLarge, ""},
		{"malformed", func(s *mem.Store) {}, batch(7, "a", "a"), store.ErrInvalid, ""},
		{"hangs", func(s *mem.Store) {
			s.SetDelay(func(c mem.Call) time.Duration {
				if c == mem.CallTxn {
					return time.Hour
				}
				return 0
			})
		}, batch(7, "a"), store.ErrUnknown, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := mem.New()
				c.fault(s)
				d, wait := run(t.Context(), s, conf())
				submit(t, d, c.batch)
				synctest.Wait()
				d.Submit(batch(8, "never")) // must not follow a failure
				began := time.Now()
				r := <-d.Results()
				if r.Seq != 7 || r.Rev != 0 || !errors.Is(r.Err, c.want) {
					t.Errorf("result %+v, want %v", r, c.want)
				}
				if took := time.Since(began); took > timeoutDefault {
					t.Errorf("took %v", took)
				}
				if err := wait(); !errors.Is(err, c.want) {
					t.Errorf("run: %v, want %v", err, c.want)
				}
				if r, ok := <-d.Results(); ok {
					t.Errorf("a result after the last: %+v", r)
				}
				s.SetDelay(nil)
				if got := keys(t, s); got != c.keys {
					t.Errorf("keys %q, want %q", got, c.keys)
				}
			})
		})
	}
}

func TestEndDrainsWhatIsUnderWay(t *testing.T) {
	for _, c := range []struct {
		name    string
		delay   time.Duration
		want    error
		took    time.Duration
		written string
	}{
		{"soon done", drainDefault / 2, nil, drainDefault / 2, "a"},
		{"too slow", time.Minute, store.ErrUnknown, drainDefault, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := mem.New()
				s.SetDelay(func(mem.Call) time.Duration { return c.delay })
				ctx, cancel := context.WithCancel(t.Context())
				d, wait := run(ctx, s, conf())
				submit(t, d, batch(1, "a"))
				synctest.Wait()
				submit(t, d, batch(2, "b"))
				cancel()
				began := time.Now()
				err := wait()
				if took := time.Since(began); took != c.took {
					t.Errorf("ended after %v, want %v", took, c.took)
				}
				if c.want == nil && !errors.Is(err, context.Canceled) || c.want != nil && !errors.Is(err, c.want) {
					t.Errorf("run: %v", err)
				}
				if r := <-d.Results(); r.Seq != 1 || !errors.Is(r.Err, c.want) {
					t.Errorf("result %+v, want %v", r, c.want)
				}
				s.SetDelay(nil)
				if got := keys(t, s); got != c.written {
					t.Errorf("keys %q, want %q", got, c.written)
				}
			})
		})
	}
}

func TestLimitsLeaveRoomForFence(t *testing.T) {
	s := mem.New()
	s.SetLimits(store.Limits{MaxOps: 3, MaxBytes: 500})
	d, _ := run(t.Context(), s, conf())
	l := d.Limits()
	big := store.Put("k", nil)
	big.Value = bytes.Repeat([]byte("x"), l.MaxBytes-big.Size())
	submit(t, d, Batch{Seq: 1, Ops: []store.Op{big}})
	if r := <-d.Results(); r.Err != nil {
		t.Errorf("a batch at the byte limit: %v", r.Err)
	}
	submit(t, d, batch(2, "a", "b", "c"))
	if r := <-d.Results(); r.Err != nil || l.MaxOps != 3 {
		t.Errorf("a batch at the limit of %d ops: %v", l.MaxOps, r.Err)
	}
	big.Value = append(big.Value, 'x')
	submit(t, d, Batch{Seq: 3, Ops: []store.Op{big}})
	if r := <-d.Results(); !errors.Is(r.Err, store.ErrTooLarge) {
		t.Errorf("one byte more: %v, want too large", r.Err)
	}
}
