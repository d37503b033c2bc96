package session

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Every session that opens costs the leader a complete set of assignments and
// endpoints, and often a commit. An agent on a bad link redials a few times a
// second; one that does no more harm than that is let in.
const (
	opensEvery = 500 * time.Millisecond
	opensBurst = 10
)

// opens limits how often each node opens sessions. Names are bound to keys, so
// there are no more of them than nodes that ever joined.
type opens struct {
	mu sync.Mutex
	of map[string]*rate.Limiter
}

func (o *opens) allow(node string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.of == nil {
		o.of = map[string]*rate.Limiter{}
	}
	l := o.of[node]
	if l == nil {
		l = rate.NewLimiter(rate.Every(opensEvery), opensBurst)
		o.of[node] = l
	}
	return l.Allow()
}
