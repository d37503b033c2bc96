package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/orchctl/orch/internal/store"
)

const (
	// rangePageDefault is the number of keys per read: some MB of the usual
	// records, and few enough pages that etcd's counting of the whole range for
	// each page does not weigh.
	rangePageDefault = 10_000
	// txnTimeout ends a transaction whose fate etcd does not tell. etcd itself
	// gives up after 7 s; beyond that only a dead connection is left.
	txnTimeout = 8 * time.Second
	// readRetryFor is how long a read goes on trying while etcd has no leader or
	// cannot be reached: several elections.
	readRetryFor = 15 * time.Second
	// readAttemptTimeout ends one attempt of a read.
	readAttemptTimeout = 8 * time.Second
	// rangeRestarts bounds how often a read of several pages starts again
	// because its snapshot was compacted under it.
	rangeRestarts = 3

	retryFirst = 50 * time.Millisecond
	retryMax   = time.Second
)

// Store is a store.Store in etcd. Embedded.Store and Dial make it.
type Store struct {
	client *clientv3.Client
	limits store.Limits
	page   int64
	// requireLeader makes watches fail, and so move to another member, when
	// theirs is cut off from the quorum; of no use with a single server.
	requireLeader bool
	quota         int64 // where etcd does not tell it; 0: it is not known
	closed        context.Context
	close         context.CancelFunc
	// watches run until the store is closed. closing orders their beginnings
	// before the wait for their ends: etcd's client with a prefix must not be
	// closed while a watch begins.
	closing sync.Mutex
	watches sync.WaitGroup
}

var _ store.Store = (*Store)(nil)

func newStore(c *clientv3.Client, l store.Limits, page int) *Store {
	if page <= 0 {
		page = rangePageDefault
	}
	s := &Store{client: c, limits: l, page: int64(page)}
	s.closed, s.close = context.WithCancel(context.Background())
	return s
}

// Limits implements store.Store.
func (s *Store) Limits() store.Limits { return s.limits }

// Close implements store.Store. Closing twice is harmless.
func (s *Store) Close() error {
	s.closing.Lock()
	defer s.closing.Unlock()
	if s.closed.Err() != nil {
		return nil
	}
	s.close()
	s.watches.Wait()
	if err := s.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("close etcd client: %w", err)
	}
	return nil
}

// Txn implements store.Store. It is never retried: a retry could write twice.
func (s *Store) Txn(ctx context.Context, t store.Txn) (int64, error) {
	if s.closed.Err() != nil {
		return 0, fmt.Errorf("write transaction: %w", store.ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("write transaction: %w", err)
	}
	if err := t.Check(s.limits); err != nil {
		return 0, fmt.Errorf("write transaction: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, txnTimeout)
	defer cancel()
	then := ops(t.Then)
	if len(then) == 0 {
		// Without this etcd answers from what the member itself knows, which may
		// be cut off from the others and long deposed.
		then = []clientv3.Op{linearizable(t.If)}
	}
	resp, err := s.client.Txn(ctx).If(compares(t.If)...).Then(then...).Commit()
	if err != nil {
		return 0, fmt.Errorf("write transaction: %w", txnError(err))
	}
	if !resp.Succeeded {
		return 0, fmt.Errorf("write transaction: %w", store.ErrConflict)
	}
	return resp.Header.Revision, nil
}

// linearizable is a read that needs a quorum and gives nothing, of a key that the
// transaction may read anyway.
func linearizable(in []store.Compare) clientv3.Op {
	key := "\x00"
	if len(in) > 0 {
		key = in[0].Key
	}
	return clientv3.OpGet(key, clientv3.WithCountOnly())
}

func compares(in []store.Compare) []clientv3.Cmp {
	out := make([]clientv3.Cmp, len(in))
	for i, c := range in {
		switch c.Kind {
		case store.CompareAbsent:
			out[i] = clientv3.Compare(clientv3.CreateRevision(c.Key), "=", 0)
		case store.CompareModRev:
			out[i] = clientv3.Compare(clientv3.ModRevision(c.Key), "=", c.Rev)
		case store.CompareValue:
			out[i] = clientv3.Compare(clientv3.Value(c.Key), "=", string(c.Value))
		}
	}
	return out
}

func ops(in []store.Op) []clientv3.Op {
	out := make([]clientv3.Op, len(in))
	for i, o := range in {
		switch o.Kind {
		case store.OpPut:
			out[i] = clientv3.OpPut(o.Key, string(o.Value))
		case store.OpDelete:
			out[i] = clientv3.OpDelete(o.Key)
		case store.OpDeletePrefix:
			out[i] = clientv3.OpDelete(o.Key, clientv3.WithPrefix())
		}
	}
	return out
}

// Range implements store.Store.
func (s *Store) Range(ctx context.Context, prefix string) ([]store.KV, int64, error) {
	for restart := 0; ; restart++ {
		kvs, rev, err := s.snapshot(ctx, prefix)
		if err == nil {
			return kvs, rev, nil
		}
		if errors.Is(err, store.ErrCompacted) && restart < rangeRestarts {
			continue
		}
		return nil, 0, fmt.Errorf("read %q: %w", prefix, err)
	}
}

// snapshot reads all pages of a prefix at the revision of the first.
func (s *Store) snapshot(ctx context.Context, prefix string) ([]store.KV, int64, error) {
	key, end := prefix, clientv3.GetPrefixRangeEnd(prefix)
	if prefix == "" {
		key, end = "\x00", "\x00"
	}
	var kvs []store.KV
	var rev int64
	for {
		resp, err := s.get(ctx, key,
			clientv3.WithRange(end), clientv3.WithLimit(s.page), clientv3.WithRev(rev))
		if err != nil {
			return nil, 0, err
		}
		if rev == 0 {
			rev = resp.Header.Revision
			kvs = make([]store.KV, 0, resp.Count)
		}
		for _, kv := range resp.Kvs {
			kvs = append(kvs, store.KV{
				Key: string(kv.Key), Value: kv.Value, CreateRev: kv.CreateRevision, ModRev: kv.ModRevision,
			})
		}
		if !resp.More || len(resp.Kvs) == 0 {
			return kvs, rev, nil
		}
		key = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}

// get is one read, tried again while etcd is without a leader or out of reach.
func (s *Store) get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, readRetryFor)
	defer cancel()
	for wait := retryFirst; ; wait = min(2*wait, retryMax) {
		if s.closed.Err() != nil {
			return nil, store.ErrClosed
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		attempt, done := context.WithTimeout(ctx, readAttemptTimeout)
		resp, err := s.client.Get(attempt, key, opts...)
		done()
		if err == nil {
			return resp, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%w: %w", ctx.Err(), err)
		}
		if !retryable(err) {
			return nil, readError(err)
		}
		if !s.pause(ctx, wait) {
			return nil, err
		}
	}
}

// pause waits; it reports false when ctx or the store ended first.
func (s *Store) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	case <-s.closed.Done():
		return false
	}
}

// Compact forgets the history below rev. An embedded etcd does so by itself
// (EmbeddedConfig.KeepHistory), an external one by its own settings.
func (s *Store) Compact(ctx context.Context, rev int64) error {
	if _, err := s.client.Compact(ctx, rev); err != nil {
		return fmt.Errorf("compact to revision %d: %w", rev, readError(err))
	}
	return nil
}
