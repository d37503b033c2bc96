package gossip

import (
	"context"
	"sync"

	"github.com/hashicorp/memberlist"
)

// latest keeps one opinion per node until somebody reads it. memberlist calls
// back under its own lock, so writing must never wait.
type latest struct {
	mu    sync.Mutex
	alive map[string]bool
	order []string      // nodes with an unread opinion, oldest first
	some  chan struct{} // has an element when something was put
}

func newLatest() *latest {
	return &latest{alive: map[string]bool{}, some: make(chan struct{}, 1)}
}

func (l *latest) put(h Hint) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, unread := l.alive[h.Node]; !unread {
		l.order = append(l.order, h.Node)
	}
	l.alive[h.Node] = h.Alive
	select {
	case l.some <- struct{}{}:
	default:
	}
}

// head is the hint to hand on next.
func (l *latest) head() (Hint, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.order) == 0 {
		return Hint{}, false
	}
	return Hint{Node: l.order[0], Alive: l.alive[l.order[0]]}, true
}

// read takes the head away, unless the opinion changed while it was handed on.
func (l *latest) read(h Hint) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.alive[h.Node] == h.Alive {
		l.order = l.order[1:]
		delete(l.alive, h.Node)
	}
}

// pump hands hints on until ctx ends. It holds none in its hand: what is offered
// follows every change.
func (l *latest) pump(ctx context.Context, out chan<- Hint) {
	for {
		h, ok := l.head()
		offer := out
		if !ok {
			offer = nil
		}
		select {
		case offer <- h:
			l.read(h)
		case <-l.some:
		case <-ctx.Done():
			return
		}
	}
}

// events turns memberlist's callbacks into hints about others.
type events struct {
	self   string
	latest *latest
}

func (e events) NotifyJoin(n *memberlist.Node)  { e.put(n, true) }
func (e events) NotifyLeave(n *memberlist.Node) { e.put(n, false) }
func (e events) NotifyUpdate(*memberlist.Node)  {}

func (e events) put(n *memberlist.Node, alive bool) {
	if n.Name != e.self {
		e.latest.put(Hint{Node: n.Name, Alive: alive})
	}
}
