package main

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// unread are the connections whose first request is yet to be read. Shutdown ends
// them unanswered, also when the request comes right after it began; a client takes
// that for a failure, as nothing says that it may ask again elsewhere. So a server
// that drains answers them first. The zero value has none.
type unread struct {
	mu  sync.Mutex
	all map[net.Conn]bool
}

// note is an http.Server's ConnState.
func (u *unread) note(c net.Conn, s http.ConnState) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if s != http.StateNew {
		delete(u.all, c)
		return
	}
	if u.all == nil {
		u.all = map[net.Conn]bool{}
	}
	u.all[c] = true
}

func (u *unread) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.all)
}

const (
	// unreadMax is how long a client may take to say what it wants: what Shutdown
	// grants, too.
	unreadMax = 5 * time.Second
	// unreadEvery is how often it is looked whether all have.
	unreadEvery = 5 * time.Millisecond
)

// wait returns when there are none, after unreadMax, or when ctx ends.
func (u *unread) wait(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, unreadMax)
	defer cancel()
	look := time.NewTicker(unreadEvery)
	defer look.Stop()
	for u.count() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
	}
}
