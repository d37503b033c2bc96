package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/orchctl/orch/internal/store"
)

func putGetDelete(t *testing.T, f *fixture) {
	r1 := f.do(put("a", "1"))
	r2 := f.do(put("a", "2"), put("b", ""))
	equal(t, "second revision", r2, r1+1)
	kvs, rev := f.read("")
	equal(t, "snapshot revision", rev, r2)
	for i := range kvs {
		if len(kvs[i].Value) == 0 {
			kvs[i].Value = nil // empty and nil are the same value
		}
	}
	equal(t, "keys", kvs, []store.KV{
		{Key: "a", Value: []byte("2"), CreateRev: r1, ModRev: r2},
		{Key: "b", CreateRev: r2, ModRev: r2},
	})
	r3 := f.do(store.Delete("a"))
	equal(t, "revision of the deletion", r3, r2+1)
	f.want("", "b=")
	r4 := f.do(put("a", "3"))
	kvs, _ = f.read("a")
	equal(t, "key made anew", kvs, []store.KV{{Key: "a", Value: []byte("3"), CreateRev: r4, ModRev: r4}})
}

func compares(t *testing.T, f *fixture) {
	rev := f.do(put("k", "v"), put("empty", ""))
	for _, c := range []struct {
		name  string
		cmp   store.Compare
		holds bool
	}{
		{"absent of a present key", store.Absent("k"), false},
		{"absent of an absent key", store.Absent("none"), true},
		{"absent of a prefix of a key", store.Absent("emp"), true},
		{"right revision", store.ModRevIs("k", rev), true},
		{"older revision", store.ModRevIs("k", rev-1), false},
		{"later revision", store.ModRevIs("k", rev+1), false},
		{"revision 0 of an absent key", store.ModRevIs("none", 0), true},
		{"revision 0 of a present key", store.ModRevIs("k", 0), false},
		{"revision of an absent key", store.ModRevIs("none", rev), false},
		{"right value", store.ValueIs("k", []byte("v")), true},
		{"other value", store.ValueIs("k", []byte("w")), false},
		{"empty value", store.ValueIs("empty", nil), true},
		{"value of an absent key", store.ValueIs("none", []byte("v")), false},
		{"empty value of an absent key", store.ValueIs("none", nil), false},
	} {
		_, err := f.Txn(f.ctx, store.Txn{If: []store.Compare{c.cmp}})
		if c.holds && err != nil || !c.holds && !errors.Is(err, store.ErrConflict) {
			t.Errorf("%s: got error %v, want holds=%v", c.name, err, c.holds)
		}
	}
	// A key that is deleted and made anew is another key to a revision compare.
	f.do(store.Delete("k"))
	f.refuse(store.ErrConflict, store.Txn{If: []store.Compare{store.ModRevIs("k", rev)}})
	f.do(put("k", "v"))
	f.refuse(store.ErrConflict, store.Txn{If: []store.Compare{store.ModRevIs("k", rev)}})
}

func atomic(t *testing.T, f *fixture) {
	rev := f.do(put("a", "1"), put("b", "1"))
	// One compare that holds and one that does not: nothing may happen.
	f.refuse(store.ErrConflict, store.Txn{
		If:   []store.Compare{store.ModRevIs("a", rev), store.ModRevIs("b", rev+7)},
		Then: []store.Op{put("a", "2"), store.Delete("b"), put("c", "2")},
	})
	f.want("", "a=1 b=1")
	_, after := f.read("")
	equal(t, "revision after a refusal", after, rev)
	got, err := f.Txn(f.ctx, store.Txn{
		If:   []store.Compare{store.ModRevIs("a", rev), store.ValueIs("b", []byte("1")), store.Absent("c")},
		Then: []store.Op{put("a", "2"), store.Delete("b"), put("c", "2")},
	})
	if err != nil || got != rev+1 {
		t.Fatalf("got %d, %v; want %d", got, err, rev+1)
	}
	f.want("", "a=2 c=2")
}

func noChange(t *testing.T, f *fixture) {
	rev := f.do(put("a", "1"))
	equal(t, "revision of an empty transaction", f.do(), rev)
	equal(t, "revision of an absent key's deletion", f.do(store.Delete("x"), store.DeletePrefix("y/")), rev)
	equal(t, "revision of the same put again", f.do(put("a", "1")), rev+1)
}

func malformed(t *testing.T, f *fixture) {
	f.do(put("p/1", "v"))
	for _, txn := range []store.Txn{
		{Then: []store.Op{put("", "v")}},
		{Then: []store.Op{store.Delete("")}},
		{Then: []store.Op{store.DeletePrefix("")}},
		{Then: []store.Op{{Key: "a"}}},
		{Then: []store.Op{put("a", "1"), put("a", "2")}},
		{Then: []store.Op{put("a", "1"), store.Delete("a")}},
		{Then: []store.Op{store.Delete("a"), put("a", "1")}},
		{Then: []store.Op{store.DeletePrefix("p/"), put("p/2", "1")}},
		{Then: []store.Op{put("p/", "1"), store.DeletePrefix("p/")}},
		{If: []store.Compare{store.Absent("")}},
		{If: []store.Compare{{Key: "a"}}},
	} {
		f.refuse(store.ErrInvalid, txn)
	}
	f.want("", "p/1=v")
	// Not malformed: deletions may overlap, and a put may lie beside a prefix.
	f.do(store.DeletePrefix("p/"), store.Delete("p/1"), put("p", "1"), put("p0", "2"))
	f.want("", "p=1 p0=2")
}

func limits(t *testing.T, f *fixture) {
	l := f.Limits()
	if l.MaxOps < 2 || l.MaxBytes < 1024 {
		t.Fatalf("limits %+v are unusable", l)
	}
	// Exactly at the limits must be possible, one more must not.
	f.do(numbered("n", 0, l.MaxOps)...)
	f.refuse(store.ErrTooLarge, store.Txn{Then: numbered("m", 0, l.MaxOps+1)})
	big := store.Put("big", bytes.Repeat([]byte{0xff}, l.MaxBytes-store.Put("big", nil).Size()))
	f.do(big)
	big.Value = append(big.Value, 0)
	f.refuse(store.ErrTooLarge, store.Txn{Then: []store.Op{big}})
	kvs, _ := f.read("big")
	equal(t, "size of the big value", len(kvs[0].Value), len(big.Value)-1)
	f.want("m", "")
}

func deletePrefix(t *testing.T, f *fixture) {
	f.do(put("a", "0"), put("a/1", "1"), put("a/2", "2"), put("a0", "3"), put("b/1", "4"))
	f.do(store.DeletePrefix("a/"), store.Delete("b/1"))
	f.want("", "a=0 a0=3")
	// A prefix that ends in 0xff has no simple successor.
	f.do(put("z\xff", "1"), put("z\xff\xff", "2"), put("{", "3"))
	f.do(store.DeletePrefix("z\xff"))
	f.want("", "a=0 a0=3 {=3")
}

func oneWinner(t *testing.T, f *fixture) {
	const writers, rounds = 8, 10
	for round := range rounds {
		key := fmt.Sprintf("round/%d", round)
		var won, lost []string
		var mu sync.Mutex
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				name := fmt.Sprint(w)
				_, err := f.Txn(f.ctx, store.Txn{
					If:   []store.Compare{store.Absent(key)},
					Then: []store.Op{put(key, name), put("mark/"+key+"/"+name, "x")},
				})
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					won = append(won, name)
				case errors.Is(err, store.ErrConflict):
					lost = append(lost, name)
				default:
					t.Errorf("writer %s: %v", name, err)
				}
			})
		}
		wg.Wait()
		if len(won) != 1 || len(lost) != writers-1 {
			t.Fatalf("round %d: winners %v, losers %v; want one winner", round, won, lost)
		}
		f.want(key, key+"="+won[0])
		f.want("mark/"+key+"/", "mark/"+key+"/"+won[0]+"=x")
	}
}

func contexts(t *testing.T, f *fixture) {
	ctx, cancel := context.WithCancel(f.ctx)
	cancel()
	_, err := f.Txn(ctx, store.Txn{Then: []store.Op{put("a", "1")}})
	if !errors.Is(err, context.Canceled) || errors.Is(err, store.ErrUnknown) {
		t.Errorf("txn under an ended context: %v, want cancelled, and known", err)
	}
	if _, _, err := f.Range(ctx, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("range under an ended context: %v", err)
	}
	f.wantEnd(f.Watch(ctx, "", 1), context.Canceled)
	f.want("", "")
}

func closed(t *testing.T, f *fixture) {
	f.do(put("a", "1"))
	w := f.Watch(f.ctx, "", 1)
	f.next(w)
	if err := f.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	f.wantEnd(w, store.ErrClosed)
	f.refuse(store.ErrClosed, store.Txn{Then: []store.Op{put("a", "2")}})
	if _, _, err := f.Range(f.ctx, ""); !errors.Is(err, store.ErrClosed) {
		t.Errorf("range of a closed store: %v", err)
	}
	f.wantEnd(f.Watch(f.ctx, "", 1), store.ErrClosed)
	if err := f.Close(); err != nil {
		t.Errorf("close again: %v", err)
	}
}
