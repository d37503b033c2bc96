package mem

import (
	"context"
	"sort"
	"strings"
	"sync"

	"github.com/orchctl/orch/internal/store"
)

// watchBatch is how many changes a watcher copies under the lock at once, so
// that a long history does not hold up the writer.
const watchBatch = 256

type watcher struct {
	store  *Store
	prefix string
	out    chan store.Change
	mu     sync.Mutex
	err    error
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, prefix string, from int64) store.Watcher {
	w := &watcher{store: s, prefix: prefix, out: make(chan store.Change)}
	go func() {
		err := w.run(ctx, max(from, 1))
		w.mu.Lock()
		w.err = err
		w.mu.Unlock()
		close(w.out)
	}()
	return w
}

func (w *watcher) Changes() <-chan store.Change { return w.out }

func (w *watcher) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// run delivers from the history until the watch must end; it returns why.
func (w *watcher) run(ctx context.Context, next int64) error {
	s := w.store
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.mu.Lock()
		if s.isClosed {
			s.mu.Unlock()
			return store.ErrClosed
		}
		if next < s.compacted {
			s.mu.Unlock()
			return store.ErrCompacted
		}
		i := sort.Search(len(s.history), func(i int) bool { return s.history[i].Rev >= next })
		batch := s.history[i:min(i+watchBatch, len(s.history))]
		changed := s.changed
		s.mu.Unlock()

		// Changes are never altered once in the history: no copy is needed.
		for _, c := range batch {
			if only := under(c, w.prefix); len(only.Events) > 0 {
				select {
				case w.out <- only:
				case <-ctx.Done():
					return ctx.Err()
				case <-s.closed:
					return store.ErrClosed
				}
			}
			next = c.Rev + 1
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.closed:
			return store.ErrClosed
		}
	}
}

// under returns the part of c below prefix.
func under(c store.Change, prefix string) store.Change {
	only := store.Change{Rev: c.Rev}
	for _, e := range c.Events {
		if strings.HasPrefix(e.Key, prefix) {
			only.Events = append(only.Events, e)
		}
	}
	return only
}
