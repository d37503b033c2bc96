package etcd

import (
	"context"
	"sync"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/orchctl/orch/internal/store"
)

type watcher struct {
	out chan store.Change
	mu  sync.Mutex
	err error
}

func (w *watcher) Changes() <-chan store.Change { return w.out }

func (w *watcher) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

func (w *watcher) end(err error) {
	w.mu.Lock()
	w.err = err
	w.mu.Unlock()
	close(w.out)
}

// Watch implements store.Store. It outlives elections and lost connections by
// watching again from where it was. A reader that lags costs memory here: etcd's
// client buffers what was not taken yet.
func (s *Store) Watch(ctx context.Context, prefix string, from int64) store.Watcher {
	w := &watcher{out: make(chan store.Change)}
	s.closing.Lock()
	defer s.closing.Unlock()
	if s.closed.Err() != nil {
		w.end(store.ErrClosed)
		return w
	}
	s.watches.Go(func() { w.end(s.watch(ctx, prefix, max(from, 1), w.out)) })
	return w
}

// watch delivers until the watch must end; it returns why.
func (s *Store) watch(ctx context.Context, prefix string, next int64, out chan<- store.Change) error {
	for wait := retryFirst; ; wait = min(2*wait, retryMax) {
		before := next
		err := s.watchOnce(ctx, prefix, &next, out)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if s.closed.Err() != nil {
			return store.ErrClosed
		}
		if err != nil {
			return err
		}
		if next > before {
			wait = retryFirst
		}
		s.pause(ctx, wait)
	}
}

// watchOnce runs one etcd watch from *next, which it moves on. Nil means that
// etcd ended it and it may be taken up again.
func (s *Store) watchOnce(ctx context.Context, prefix string, next *int64, out chan<- store.Change) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.closed, cancel)()
	if s.requireLeader {
		ctx = clientv3.WithRequireLeader(ctx)
	}
	// Progress notices move *next on while the prefix is quiet, so that taking
	// the watch up again does not ask for a revision long compacted.
	responses := s.client.Watch(ctx, prefix,
		clientv3.WithPrefix(), clientv3.WithRev(*next), clientv3.WithProgressNotify())
	for resp := range responses {
		if resp.CompactRevision != 0 {
			return store.ErrCompacted
		}
		if resp.Err() != nil {
			return nil
		}
		if resp.IsProgressNotify() {
			*next = max(*next, resp.Header.Revision+1)
			continue
		}
		for _, c := range changes(resp.Events) {
			if c.Rev < *next {
				continue
			}
			select {
			case out <- c:
				*next = c.Rev + 1
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// changes groups events by revision: etcd sends whole revisions, but may send
// several at once.
func changes(events []*clientv3.Event) []store.Change {
	var out []store.Change
	for _, e := range events {
		if n := len(out); n == 0 || out[n-1].Rev != e.Kv.ModRevision {
			out = append(out, store.Change{Rev: e.Kv.ModRevision})
		}
		c := &out[len(out)-1]
		c.Events = append(c.Events, event(e))
	}
	return out
}

func event(e *clientv3.Event) store.Event {
	if e.Type == mvccpb.Event_DELETE {
		return store.Event{KV: store.KV{Key: string(e.Kv.Key), ModRev: e.Kv.ModRevision}, Deleted: true}
	}
	return store.Event{KV: store.KV{
		Key: string(e.Kv.Key), Value: e.Kv.Value, CreateRev: e.Kv.CreateRevision, ModRev: e.Kv.ModRevision,
	}}
}
