package view

import (
	"context"
	"sync"

	"github.com/orchctl/orch/internal/controller/core"
)

// Watcher gets the changes after its snapshot. Make it with Watch, end it with
// Close.
type Watcher struct {
	view            *View
	kind, namespace string

	mu     sync.Mutex
	unread []Change
	cut    bool
	some   chan struct{} // has an element when unread or cut changed
}

// Watch gives a snapshot and a watcher of everything that changes after it, of
// one kind ("" is all) and namespace ("" is all). The snapshot is nil before
// anything was published.
func (v *View) Watch(kind, namespace string) (*Snapshot, *Watcher) {
	w := &Watcher{view: v, kind: kind, namespace: namespace, some: make(chan struct{}, 1)}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.watchers[w] = true
	return v.current.Load(), w
}

// Close ends the watcher.
func (w *Watcher) Close() {
	w.view.mu.Lock()
	defer w.view.mu.Unlock()
	delete(w.view.watchers, w)
}

// Next waits for changes and gives all that came, in order. The error is
// ErrTooSlow or the context's.
func (w *Watcher) Next(ctx context.Context) ([]Change, error) {
	for {
		if changes, err := w.take(); err != nil || len(changes) > 0 {
			return changes, err
		}
		select {
		case <-w.some:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (w *Watcher) take() ([]Change, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		return nil, ErrTooSlow
	}
	changes := w.unread
	w.unread = nil
	return changes, nil
}

// offer queues what the watcher wants to see; false means that it was cut.
func (w *Watcher) offer(changes []Change) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range changes {
		if w.wants(c.Key) {
			w.unread = append(w.unread, c)
		}
	}
	if len(w.unread) > unreadMax {
		w.cut, w.unread = true, nil
	}
	select {
	case w.some <- struct{}{}:
	default:
	}
	return !w.cut
}

func (w *Watcher) wants(k core.ViewKey) bool {
	return (w.kind == "" || w.kind == k.Kind) && (w.namespace == "" || w.namespace == k.Namespace)
}

// Watchers is how many there are.
func (v *View) Watchers() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.watchers)
}
