package storetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/internal/store"
)

// patience is how long a case waits for what must come. It is spent only when
// the case fails.
const patience = 20 * time.Second

// Compactor is what the suite needs beside store.Store.
type Compactor interface {
	Compact(ctx context.Context, rev int64) error
}

// Run runs the suite. open returns a new, empty store, whose cleanup it
// registers with t.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for _, c := range []struct {
		name string
		test func(*testing.T, *fixture)
	}{
		{"PutGetDelete", putGetDelete},
		{"Compares", compares},
		{"Atomic", atomic},
		{"NoChangeKeepsRevision", noChange},
		{"Malformed", malformed},
		{"Limits", limits},
		{"DeletePrefix", deletePrefix},
		{"RangePrefix", rangePrefix},
		{"RangeLarge", rangeLarge},
		{"RangeIsOneSnapshot", rangeSnapshot},
		{"OneWinner", oneWinner},
		{"Context", contexts},
		{"Closed", closed},
		{"WatchGroups", watchGroups},
		{"WatchFromPast", watchFromPast},
		{"WatchFromFuture", watchFromFuture},
		{"WatchPrefix", watchPrefix},
		{"WatchNoGap", watchNoGap},
		{"WatchCompacted", watchCompacted},
		{"WatchEnds", watchEnds},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
			defer cancel()
			c.test(t, &fixture{T: t, Store: open(t), ctx: ctx})
		})
	}
}

// fixture is a store with the short words that the cases are written in.
type fixture struct {
	*testing.T
	store.Store
	ctx context.Context
}

// do runs a transaction that must succeed.
func (f *fixture) do(ops ...store.Op) int64 {
	f.Helper()
	rev, err := f.Txn(f.ctx, store.Txn{Then: ops})
	if err != nil {
		f.Fatalf("txn: %v", err)
	}
	return rev
}

// refuse runs a transaction that must fail with want.
func (f *fixture) refuse(want error, t store.Txn) {
	f.Helper()
	if rev, err := f.Txn(f.ctx, t); !errors.Is(err, want) || rev != 0 {
		f.Fatalf("txn %v: got rev %d, error %v; want error %v", t, rev, err, want)
	}
}

// read ranges over prefix.
func (f *fixture) read(prefix string) ([]store.KV, int64) {
	f.Helper()
	kvs, rev, err := f.Range(f.ctx, prefix)
	if err != nil {
		f.Fatalf("range %q: %v", prefix, err)
	}
	return kvs, rev
}

// want compares what is under prefix, written "key=value key=value".
func (f *fixture) want(prefix, want string) {
	f.Helper()
	kvs, _ := f.read(prefix)
	if got := text(kvs); got != want {
		f.Fatalf("range %q: got %q, want %q", prefix, got, want)
	}
}

func text(kvs []store.KV) string {
	parts := make([]string, 0, len(kvs))
	for _, kv := range kvs {
		parts = append(parts, kv.Key+"="+string(kv.Value))
	}
	return strings.Join(parts, " ")
}

// next is the watcher's next change.
func (f *fixture) next(w store.Watcher) store.Change {
	f.Helper()
	select {
	case c, ok := <-w.Changes():
		if !ok {
			f.Fatalf("watch ended: %v", w.Err())
		}
		return c
	case <-time.After(patience):
		f.Fatalf("no change within %v", patience)
	}
	panic("unreachable")
}

// wantNext compares the next change, written "rev: +key=value -key".
func (f *fixture) wantNext(w store.Watcher, rev int64, want string) {
	f.Helper()
	c := f.next(w)
	if got := changeText(c); c.Rev != rev || got != want {
		f.Fatalf("change: got %d %q, want %d %q", c.Rev, got, rev, want)
	}
	for _, e := range c.Events {
		if e.ModRev != c.Rev {
			f.Fatalf("change %d holds an event of revision %d", c.Rev, e.ModRev)
		}
	}
}

func changeText(c store.Change) string {
	parts := make([]string, 0, len(c.Events))
	for _, e := range c.Events {
		if e.Deleted {
			parts = append(parts, "-"+e.Key)
		} else {
			parts = append(parts, "+"+e.Key+"="+string(e.Value))
		}
	}
	return strings.Join(parts, " ")
}

// wantEnd waits until the watch ends with the error.
func (f *fixture) wantEnd(w store.Watcher, want error) {
	f.Helper()
	deadline := time.After(patience)
	for {
		select {
		case _, ok := <-w.Changes():
			if ok {
				continue
			}
			if err := w.Err(); !errors.Is(err, want) {
				f.Fatalf("watch ended with %v, want %v", err, want)
			}
			return
		case <-deadline:
			f.Fatalf("watch still runs after %v, want its end with %v", patience, want)
		}
	}
}

func (f *fixture) compact(rev int64) {
	f.Helper()
	c, ok := f.Store.(Compactor)
	if !ok {
		f.Fatalf("%T has no Compact", f.Store)
	}
	if err := c.Compact(f.ctx, rev); err != nil {
		f.Fatalf("compact to %d: %v", rev, err)
	}
}

func put(key, value string) store.Op { return store.Put(key, []byte(value)) }

// numbered makes n puts of prefix/00000 and so on.
func numbered(prefix string, from, n int) []store.Op {
	ops := make([]store.Op, n)
	for i := range ops {
		ops[i] = put(fmt.Sprintf("%s/%05d", prefix, from+i), "v")
	}
	return ops
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}
