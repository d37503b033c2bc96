package runtimetest

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/wire"
)

// Traffic keeps by what a node leads traffic, in memory, over all lives of its
// agent. Make it with NewTraffic.
type Traffic struct {
	mu       sync.Mutex
	notify   chan struct{}
	held     bool
	told     []plan.Balance // not in force
	mark     uint64         // in force
	ends     map[api.ReplicaKey]wire.Endpoint
	services map[api.Key]wire.Service
	standing network.Standing
	up       bool
	health   string
}

// NewTraffic makes one that puts in force what it is told at once.
func NewTraffic() *Traffic {
	return &Traffic{notify: make(chan struct{}, 1), ends: map[api.ReplicaKey]wire.Endpoint{}, services: map[api.Key]wire.Service{}}
}

// Run implements agent.Traffic.
func (t *Traffic) Run(ctx context.Context, programmed func(uint64)) error {
	for {
		if mark := t.program(); mark > 0 {
			programmed(mark)
		}
		select {
		case <-ctx.Done():
			t.mu.Lock()
			t.told, t.mark, t.up = nil, 0, false // of an agent that is no more
			t.mu.Unlock()
			return nil
		case <-t.notify:
		}
	}
}

func (t *Traffic) wake() {
	select {
	case t.notify <- struct{}{}:
	default:
	}
}

// program puts in force what it was told; 0: nothing, or it is held.
func (t *Traffic) program() (mark uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.held || len(t.told) == 0 {
		return 0
	}
	for _, b := range t.told {
		if b.Complete {
			clear(t.ends)
			clear(t.services)
		}
		for _, e := range b.Put {
			t.ends[e.Replica] = e
		}
		for _, k := range b.Drop {
			delete(t.ends, k)
		}
		for _, s := range b.Services {
			t.services[s.Key] = s
		}
		for _, k := range b.DropServices {
			delete(t.services, k)
		}
		t.mark = b.Mark
	}
	t.told = nil
	return t.mark
}

// Hold leaves what it is told waiting, as a kernel that does not answer would,
// until it is called with false.
func (t *Traffic) Hold(on bool) {
	t.mu.Lock()
	t.held = on
	t.mu.Unlock()
	t.wake()
}

// Balance implements agent.Traffic.
func (t *Traffic) Balance(b plan.Balance) {
	t.mu.Lock()
	t.told = append(t.told, b)
	t.mu.Unlock()
	t.wake()
}

// Configure implements agent.Traffic.
func (t *Traffic) Configure(s network.Standing) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.standing = s
}

// Connected implements agent.Traffic.
func (t *Traffic) Connected(up bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.up = up
}

// Up is what Connected said last.
func (t *Traffic) Up() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.up
}

// Known implements agent.Traffic.
func (t *Traffic) Known() []wire.Endpoint { return t.Endpoints() }

// Endpoints are those in force, by replica.
func (t *Traffic) Endpoints() []wire.Endpoint {
	t.mu.Lock()
	defer t.mu.Unlock()
	keys := slices.SortedFunc(maps.Keys(t.ends), func(a, b api.ReplicaKey) int { return strings.Compare(a.String(), b.String()) })
	out := make([]wire.Endpoint, 0, len(keys))
	for _, k := range keys {
		out = append(out, t.ends[k])
	}
	return out
}

// Service gives one that is in force.
func (t *Traffic) Service(k api.Key) (wire.Service, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.services[k]
	return s, ok
}

// Standing is what it was configured with last.
func (t *Traffic) Standing() network.Standing {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.standing
}

// Ail is what Health says from now on.
func (t *Traffic) Ail(words string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.health = words
}

// Health implements agent.Traffic.
func (t *Traffic) Health() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.health
}
