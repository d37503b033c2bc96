package election

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/orchctl/orch/internal/store"
)

// The keys of this package. Everything of orch lies under /orch/, so that an
// external etcd may be shared.
const (
	LeaderKey      = "/orch/leader"
	IncarnationKey = "/orch/incarnation"
)

var (
	// ErrDeposed: another controller has taken over, or this term was resigned.
	ErrDeposed = errors.New("deposed")
	// ErrNoID: a controller without an id cannot lead.
	ErrNoID = errors.New("controller id is empty")
)

// Holder is the value of LeaderKey. ID is empty between terms.
type Holder struct {
	ID   string `json:"id"`
	Term uint64 `json:"term"`
}

// Lease is one term of one controller.
type Lease struct {
	ID   string // controller
	Term uint64 // from 1
	// LeaderKeyRev is the revision at which this term was written: as long as
	// LeaderKey has it, the term lasts.
	LeaderKeyRev int64
}

// Fence is the compare that every transaction of this term carries.
func (l Lease) Fence() store.Compare { return store.ModRevIs(LeaderKey, l.LeaderKeyRev) }

// Current reads who leads. Without a key the holder is zero and rev is 0.
func Current(ctx context.Context, s store.Store) (h Holder, rev int64, err error) {
	kv, err := get(ctx, s, LeaderKey)
	if err != nil || kv == nil {
		return Holder{}, 0, err
	}
	if err := json.Unmarshal(kv.Value, &h); err != nil {
		return Holder{}, 0, fmt.Errorf("read %s at revision %d: %w", LeaderKey, kv.ModRev, err)
	}
	return h, kv.ModRev, nil
}

// Seize starts a new term for the controller id. store.ErrConflict: another was
// quicker. After store.ErrUnknown the caller does not lead, even if the write
// should turn up: the next Seize goes beyond it.
func Seize(ctx context.Context, s store.Store, id string) (Lease, error) {
	if id == "" {
		return Lease{}, fmt.Errorf("seize leadership: %w", ErrNoID)
	}
	last, at, err := Current(ctx, s)
	if err != nil {
		return Lease{}, fmt.Errorf("seize leadership: %w", err)
	}
	l := Lease{ID: id, Term: last.Term + 1}
	l.LeaderKeyRev, err = write(ctx, s, at, Holder{ID: id, Term: l.Term})
	if err != nil {
		return Lease{}, fmt.Errorf("seize leadership as term %d: %w", l.Term, err)
	}
	return l, nil
}

// Resign ends the term. It also makes sure that a transaction of this term which
// is still on its way is refused. ErrDeposed: it had ended already.
func Resign(ctx context.Context, s store.Store, l Lease) error {
	_, err := write(ctx, s, l.LeaderKeyRev, Holder{Term: l.Term})
	if errors.Is(err, store.ErrConflict) {
		err = ErrDeposed
	}
	if err != nil {
		return fmt.Errorf("resign term %d: %w", l.Term, err)
	}
	return nil
}

// write replaces the holder that was written at revision at.
func write(ctx context.Context, s store.Store, at int64, h Holder) (int64, error) {
	value, err := json.Marshal(h)
	if err != nil {
		return 0, err
	}
	return s.Txn(ctx, store.Txn{
		If:   []store.Compare{store.ModRevIs(LeaderKey, at)},
		Then: []store.Op{store.Put(LeaderKey, value)},
	})
}

// Watch returns when the term is over: ErrDeposed, or the context's error, or
// the store's.
func (l Lease) Watch(ctx context.Context, s store.Store) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	err := l.watchFrom(ctx, s, l.LeaderKeyRev+1)
	for errors.Is(err, store.ErrCompacted) {
		// The history since the term began is gone. If the key is still ours,
		// nothing of it mattered; look from the present on.
		kvs, rev, rangeErr := s.Range(ctx, LeaderKey)
		if rangeErr != nil {
			return rangeErr
		}
		if !holds(l, kvs) {
			return ErrDeposed
		}
		err = l.watchFrom(ctx, s, rev+1)
	}
	return err
}

func (l Lease) watchFrom(ctx context.Context, s store.Store, from int64) error {
	w := s.Watch(ctx, LeaderKey, from)
	for c := range w.Changes() {
		for _, e := range c.Events {
			if e.Key == LeaderKey {
				return deposedBy(l, e)
			}
		}
	}
	return w.Err()
}

func holds(l Lease, kvs []store.KV) bool {
	for _, kv := range kvs {
		if kv.Key == LeaderKey {
			return kv.ModRev == l.LeaderKeyRev
		}
	}
	return false
}

// deposedBy says by whom, where the new value tells.
func deposedBy(l Lease, e store.Event) error {
	var h Holder
	if err := json.Unmarshal(e.Value, &h); e.Deleted || err != nil {
		return fmt.Errorf("%w: the leader key was removed or spoilt", ErrDeposed)
	}
	if h.ID == "" {
		return fmt.Errorf("%w: term %d was resigned", ErrDeposed, h.Term)
	}
	return fmt.Errorf("%w: %s leads term %d", ErrDeposed, h.ID, h.Term)
}

// Incarnation returns the id of this life of the store. The first caller of all
// makes it with newID, which must give a value never used before.
func Incarnation(ctx context.Context, s store.Store, newID func() string) (string, error) {
	for {
		kv, err := get(ctx, s, IncarnationKey)
		if err != nil {
			return "", fmt.Errorf("read incarnation: %w", err)
		}
		if kv != nil {
			return string(kv.Value), nil
		}
		id := newID()
		if id == "" {
			return "", errors.New("make incarnation: the new id is empty")
		}
		_, err = s.Txn(ctx, store.Txn{
			If:   []store.Compare{store.Absent(IncarnationKey)},
			Then: []store.Op{store.Put(IncarnationKey, []byte(id))},
		})
		if err != nil && !errors.Is(err, store.ErrConflict) {
			// Also when unknown: the next reader finds out what became of it.
			return "", fmt.Errorf("make incarnation: %w", err)
		}
		// Read again, won or lost: what the store holds is the truth.
	}
}

// get reads one key; nil when it is absent.
func get(ctx context.Context, s store.Store, key string) (*store.KV, error) {
	kvs, _, err := s.Range(ctx, key)
	if err != nil {
		return nil, err
	}
	for i := range kvs {
		if kvs[i].Key == key {
			return &kvs[i], nil
		}
	}
	return nil, nil
}
