package storetest

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/orchctl/orch/internal/store"
)

func rangePrefix(t *testing.T, f *fixture) {
	f.want("", "")
	f.do(put("b/2", "2"), put("a", "0"), put("b/1", "1"), put("b", "x"), put("b0", "y"), put("c\xff", "z"))
	f.want("b/", "b/1=1 b/2=2")
	f.want("b", "b=x b/1=1 b/2=2 b0=y")
	f.want("c\xff", "c\xff=z")
	f.want("d", "")
	f.want("", "a=0 b=x b/1=1 b/2=2 b0=y c\xff=z")
}

// largeRange is more keys than one page of any store under test.
const largeRange = 2500

func fill(f *fixture, prefix string, n int) {
	step := min(f.Limits().MaxOps, 500)
	for i := 0; i < n; i += step {
		f.do(numbered(prefix, i, min(step, n-i))...)
	}
}

func rangeLarge(t *testing.T, f *fixture) {
	f.do(put("l", "before"), put("l0", "after"))
	fill(f, "l", largeRange)
	kvs, _ := f.read("l/")
	equal(t, "number of keys", len(kvs), largeRange)
	for i, kv := range kvs {
		if want := fmt.Sprintf("l/%05d", i); kv.Key != want {
			t.Fatalf("key %d is %q, want %q", i, kv.Key, want)
		}
	}
}

// rangeSnapshot reads while a writer moves a mark over all keys at once: every
// snapshot must show one mark only, and its revision must be that mark's.
func rangeSnapshot(t *testing.T, f *fixture) {
	n := min(f.Limits().MaxOps, 1200)
	mark := func(i int) []store.Op {
		ops := make([]store.Op, n)
		for k := range ops {
			ops[k] = put(fmt.Sprintf("s/%05d", k), fmt.Sprint(i))
		}
		return ops
	}
	f.do(mark(0)...)
	ctx, stop := context.WithCancel(f.ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 1; ctx.Err() == nil; i++ {
			if _, err := f.Txn(f.ctx, store.Txn{Then: mark(i)}); err != nil {
				t.Errorf("write mark %d: %v", i, err)
				return
			}
		}
	})
	defer wg.Wait()
	defer stop()
	for range 10 {
		kvs, rev := f.read("s/")
		equal(t, "number of keys", len(kvs), n)
		for _, kv := range kvs {
			if string(kv.Value) != string(kvs[0].Value) || kv.ModRev != rev {
				t.Fatalf("snapshot %d holds %s=%s of %d and %s=%s", rev, kvs[0].Key, kvs[0].Value, kvs[0].ModRev, kv.Key, kv.Value)
			}
		}
	}
}

func watchGroups(t *testing.T, f *fixture) {
	r0 := f.do(put("w/0", "0"), put("w/1", "1"))
	w := f.Watch(f.ctx, "w/", r0+1)
	r1 := f.do(put("w/b", "1"), put("w/a", "1"), store.Delete("w/0"))
	r2 := f.do(put("w/b", "2"))
	r3 := f.do(store.DeletePrefix("w/"), put("v", "x"))
	f.wantNext(w, r1, "+w/b=1 +w/a=1 -w/0")
	f.wantNext(w, r2, "+w/b=2")
	f.wantNext(w, r3, "-w/1 -w/a -w/b")
	r4 := f.do(put("w/b", "3"))
	c := f.next(w)
	equal(t, "change", c, store.Change{Rev: r4, Events: []store.Event{
		{KV: store.KV{Key: "w/b", Value: []byte("3"), CreateRev: r4, ModRev: r4}},
	}})
	if w.Err() != nil {
		t.Fatalf("a running watch has the error %v", w.Err())
	}
}

func watchFromPast(t *testing.T, f *fixture) {
	r1 := f.do(put("w", "1"))
	r2 := f.do(put("w", "2"))
	r3 := f.do(store.Delete("w"))
	for _, from := range []int64{-1, 0, 1, r1} {
		w := f.Watch(f.ctx, "w", from)
		f.wantNext(w, r1, "+w=1")
		f.wantNext(w, r2, "+w=2")
		f.wantNext(w, r3, "-w")
	}
	f.wantNext(f.Watch(f.ctx, "w", r3), r3, "-w")
}

func watchFromFuture(t *testing.T, f *fixture) {
	r := f.do(put("w", "0"))
	w := f.Watch(f.ctx, "w", r+3)
	f.do(put("w", "1"))
	f.do(put("w", "2"))
	f.do(put("w", "3"))
	f.wantNext(w, r+3, "+w=3")
}

func watchPrefix(t *testing.T, f *fixture) {
	r := f.do(put("seed", "0"))
	all, some := f.Watch(f.ctx, "", r+1), f.Watch(f.ctx, "p/", r+1)
	f.do(put("q", "1"))
	f.do(put("p/1", "1"), put("p", "2"), put("p0", "3"))
	f.wantNext(all, r+1, "+q=1")
	f.wantNext(all, r+2, "+p/1=1 +p=2 +p0=3")
	f.wantNext(some, r+2, "+p/1=1")
}

// watchNoGap starts watches from a snapshot while a writer runs: snapshot and
// changes together must be every write, once.
func watchNoGap(t *testing.T, f *fixture) {
	const writes = 300
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for i := range writes {
			if _, err := f.Txn(f.ctx, store.Txn{Then: []store.Op{put("g/n", fmt.Sprint(i)), put(fmt.Sprintf("g/%05d", i), "x")}}); err != nil {
				t.Errorf("write %d: %v", i, err)
				return
			}
		}
	})
	for range 5 {
		kvs, rev := f.read("g/")
		have := max(len(kvs)-1, 0) // less g/n
		w := f.Watch(f.ctx, "g/", rev+1)
		for ; have < writes; have++ {
			rev++
			f.wantNext(w, rev, fmt.Sprintf("+g/n=%d +g/%05d=x", have, have))
		}
	}
}

func watchCompacted(t *testing.T, f *fixture) {
	r1 := f.do(put("w", "1"))
	f.do(put("w", "2"))
	r3 := f.do(put("w", "3"))
	f.compact(r3)
	f.wantEnd(f.Watch(f.ctx, "w", r1), store.ErrCompacted)
	f.wantEnd(f.Watch(f.ctx, "w", 1), store.ErrCompacted)
	w := f.Watch(f.ctx, "w", r3+1)
	r4 := f.do(put("w", "4"))
	f.wantNext(w, r4, "+w=4")
	f.want("w", "w=4")
}

func watchEnds(t *testing.T, f *fixture) {
	ctx, cancel := context.WithCancel(f.ctx)
	r := f.do(put("w", "1"))
	idle, lagging := f.Watch(ctx, "w", r+1), f.Watch(ctx, "w", r)
	other := f.Watch(f.ctx, "w", r+1)
	cancel()
	f.wantEnd(idle, context.Canceled)
	f.wantEnd(lagging, context.Canceled)
	f.wantNext(other, f.do(put("w", "2")), "+w=2")
}
