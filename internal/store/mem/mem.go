package mem

import (
	"bytes"
	"context"
	"fmt"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/orchctl/orch/internal/store"
)

// Store is an in-memory store.Store. Make it with New.
type Store struct {
	mu        sync.Mutex
	limits    store.Limits
	rev       int64               // of the last change; an empty store has 1, as etcd
	compacted int64               // history below this revision is gone
	keys      map[string]store.KV //
	history   []store.Change      // every change with Rev >= compacted, in order
	changed   chan struct{}       // closed and replaced at each change: wakes watchers
	closed    chan struct{}
	isClosed  bool
	faults    []fault
	delay     func(Call) time.Duration
}

var _ store.Store = (*Store)(nil)

// New makes an empty store with store.EmbeddedLimits.
func New() *Store {
	return &Store{
		limits:  store.EmbeddedLimits,
		rev:     1,
		keys:    map[string]store.KV{},
		changed: make(chan struct{}),
		closed:  make(chan struct{}),
	}
}

// SetLimits replaces the limits.
func (s *Store) SetLimits(l store.Limits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limits = l
}

// Limits implements store.Store.
func (s *Store) Limits() store.Limits {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limits
}

// Txn implements store.Store.
func (s *Store) Txn(ctx context.Context, t store.Txn) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("write transaction: %w", err)
	}
	if err := t.Check(s.Limits()); err != nil {
		return 0, fmt.Errorf("write transaction: %w", err)
	}
	if err := s.wait(ctx, CallTxn); err != nil {
		// As with etcd: once it is on its way nobody can tell.
		return 0, fmt.Errorf("write transaction: %w: %w", store.ErrUnknown, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isClosed {
		return 0, fmt.Errorf("write transaction: %w", store.ErrClosed)
	}
	f, faulty := s.takeFault()
	if faulty && !f.apply {
		return 0, fmt.Errorf("write transaction: %w", f.err)
	}
	for _, c := range t.If {
		if !s.holds(c) {
			if faulty {
				return 0, fmt.Errorf("write transaction: %w", f.err)
			}
			return 0, fmt.Errorf("write transaction: %s: %w", c.Key, store.ErrConflict)
		}
	}
	s.apply(t.Then)
	if faulty {
		return 0, fmt.Errorf("write transaction: %w", f.err)
	}
	return s.rev, nil
}

func (s *Store) holds(c store.Compare) bool {
	kv, ok := s.keys[c.Key]
	switch c.Kind {
	case store.CompareAbsent:
		return !ok
	case store.CompareModRev:
		return kv.ModRev == c.Rev
	default: // CompareValue: Check let no other kind pass
		return ok && bytes.Equal(kv.Value, c.Value)
	}
}

// apply does the ops at the next revision; s.mu is held.
func (s *Store) apply(ops []store.Op) {
	next := s.rev + 1
	var events []store.Event
	remove := func(key string) {
		delete(s.keys, key)
		events = append(events, store.Event{KV: store.KV{Key: key, ModRev: next}, Deleted: true})
	}
	for _, o := range ops {
		switch o.Kind {
		case store.OpPut:
			kv := store.KV{Key: o.Key, Value: bytes.Clone(o.Value), CreateRev: next, ModRev: next}
			if old, ok := s.keys[o.Key]; ok {
				kv.CreateRev = old.CreateRev
			}
			s.keys[o.Key] = kv
			events = append(events, store.Event{KV: kv})
		case store.OpDelete:
			if _, ok := s.keys[o.Key]; ok {
				remove(o.Key)
			}
		case store.OpDeletePrefix:
			for _, kv := range s.sorted(o.Key) {
				remove(kv.Key)
			}
		}
	}
	if len(events) == 0 {
		return
	}
	s.rev = next
	s.history = append(s.history, store.Change{Rev: next, Events: events})
	close(s.changed)
	s.changed = make(chan struct{})
}

// sorted returns the keys under prefix in order; s.mu is held.
func (s *Store) sorted(prefix string) []store.KV {
	var kvs []store.KV
	for k, kv := range s.keys {
		if strings.HasPrefix(k, prefix) {
			kvs = append(kvs, kv)
		}
	}
	sort.Slice(kvs, func(i, j int) bool { return kvs[i].Key < kvs[j].Key })
	return kvs
}

// Range implements store.Store.
func (s *Store) Range(ctx context.Context, prefix string) ([]store.KV, int64, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, fmt.Errorf("read %q: %w", prefix, err)
	}
	if err := s.wait(ctx, CallRange); err != nil {
		return nil, 0, fmt.Errorf("read %q: %w", prefix, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isClosed {
		return nil, 0, fmt.Errorf("read %q: %w", prefix, store.ErrClosed)
	}
	return s.sorted(prefix), s.rev, nil
}

// Compact forgets the history below rev: watches from before it end with
// store.ErrCompacted. It refuses a revision that is not there yet.
func (s *Store) Compact(_ context.Context, rev int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if rev > s.rev {
		return fmt.Errorf("compact to revision %d: the store is at %d", rev, s.rev)
	}
	if rev <= s.compacted {
		return fmt.Errorf("compact to revision %d: %w", rev, store.ErrCompacted)
	}
	s.compacted = rev
	i := sort.Search(len(s.history), func(i int) bool { return s.history[i].Rev >= rev })
	s.history = append([]store.Change(nil), s.history[i:]...)
	return nil
}

// Close implements store.Store. Closing twice is harmless.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.isClosed {
		s.isClosed = true
		close(s.closed)
	}
	return nil
}
