package ctrd

import (
	"context"
	"slices"
	"sync"
	"time"
)

// turns lets so many in at once, the others in the order of their coming.
type turns struct {
	mu   sync.Mutex
	room int
	line []chan struct{}
}

func newTurns(atOnce int) *turns { return &turns{room: atOnce} }

// take waits for a turn. waits is told, from the same goroutine, how many are before the
// caller, once and whenever tick comes; it is not called where there is room.
func (t *turns) take(ctx context.Context, tick <-chan time.Time, waits func(before int)) error {
	t.mu.Lock()
	if t.room > 0 {
		t.room--
		t.mu.Unlock()
		return nil
	}
	mine := make(chan struct{})
	t.line = append(t.line, mine)
	t.mu.Unlock()
	for {
		if n := t.before(mine); n > 0 {
			waits(n)
		}
		select {
		case <-mine:
			return nil
		case <-ctx.Done():
			t.mu.Lock()
			defer t.mu.Unlock()
			if i := slices.Index(t.line, mine); i >= 0 {
				t.line = slices.Delete(t.line, i, i+1)
				return ctx.Err()
			}
			t.handOn() // its turn came just now
			return ctx.Err()
		case <-tick:
		}
	}
}

// before counts those whose end lets this one in: 0: it is in.
func (t *turns) before(mine chan struct{}) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Index(t.line, mine) + 1
}

func (t *turns) give() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.handOn()
}

func (t *turns) handOn() {
	if len(t.line) == 0 {
		t.room++
		return
	}
	close(t.line[0])
	t.line = t.line[1:]
}
