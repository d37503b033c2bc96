package mem

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orchctl/orch/internal/store"
	"github.com/orchctl/orch/internal/store/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		s := New()
		t.Cleanup(func() { s.Close() })
		return s
	})
}

func TestConformanceSmallLimits(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		s := New()
		s.SetLimits(store.ExternalLimits)
		t.Cleanup(func() { s.Close() })
		return s
	})
}

func put(k string) store.Txn { return store.Txn{Then: []store.Op{store.Put(k, []byte("v"))}} }

func keys(t *testing.T, s *Store) string {
	t.Helper()
	kvs, _, err := s.Range(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	out := ""
	for _, kv := range kvs {
		out += kv.Key
	}
	return out
}

func TestFaultsHitInOrderAndOnce(t *testing.T) {
	s, ctx := New(), context.Background()
	s.FailNext(store.ErrNoSpace)
	s.UnknownNext(false)
	s.UnknownNext(true)
	for _, c := range []struct {
		key  string
		want error
		have string
	}{
		{"a", store.ErrNoSpace, ""},
		{"b", store.ErrUnknown, ""},
		{"c", store.ErrUnknown, "c"},
		{"d", nil, "cd"},
	} {
		if _, err := s.Txn(ctx, put(c.key)); !errors.Is(err, c.want) {
			t.Errorf("put %s: got %v, want %v", c.key, err, c.want)
		}
		if got := keys(t, s); got != c.have {
			t.Errorf("after put %s: keys %q, want %q", c.key, got, c.have)
		}
	}
}

func TestUnknownAppliedObeysCompares(t *testing.T) {
	s := New()
	s.UnknownNext(true)
	txn := put("a")
	txn.If = []store.Compare{store.ModRevIs("a", 7)}
	if _, err := s.Txn(context.Background(), txn); !errors.Is(err, store.ErrUnknown) {
		t.Fatalf("got %v", err)
	}
	if got := keys(t, s); got != "" {
		t.Fatalf("keys %q were written against a compare", got)
	}
}

func TestDelayInBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New()
		defer s.Close()
		s.SetDelay(func(c Call) time.Duration {
			if c == CallTxn {
				return 3 * time.Second
			}
			return 0
		})
		began := time.Now()
		if _, err := s.Txn(t.Context(), put("a")); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Fatalf("took %v, want 3s", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Txn(ctx, put("b")); !errors.Is(err, store.ErrUnknown) {
			t.Fatalf("got %v, want unknown", err)
		}
		if got := keys(t, s); got != "a" {
			t.Fatalf("keys %q, want a", got)
		}
	})
}

func TestWatchLetsBubbleAdvance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New()
		defer s.Close()
		w := s.Watch(t.Context(), "", 1)
		go func() {
			time.Sleep(time.Hour)
			s.Txn(t.Context(), put("a"))
		}()
		began := time.Now()
		c := <-w.Changes()
		if took := time.Since(began); took != time.Hour || c.Rev != 2 {
			t.Fatalf("change %v after %v, want revision 2 after an hour", c, took)
		}
	})
}
