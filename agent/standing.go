package agent

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/orchctl/orch/internal/wire"
)

// configureAgain is the wait after the node's place in the network could not be
// taken up: only its disk can refuse that.
const configureAgain = time.Second

// standing hands on where the node stands, in order, until it is taken up.
type standing struct {
	cfg    Config
	notify chan struct{}

	mu    sync.Mutex
	sets  []wire.NetworkSet    // not taken up yet
	known map[string]wire.Peer // by node; the sum of all sets
}

func newStanding(cfg Config) *standing {
	return &standing{cfg: cfg, notify: make(chan struct{}, 1), known: map[string]wire.Peer{}}
}

// take has a set taken up; it does not wait.
func (s *standing) take(set wire.NetworkSet) {
	s.mu.Lock()
	if set.Complete {
		s.sets = nil // it says all that they say
		clear(s.known)
	}
	s.sets = append(s.sets, set)
	for _, p := range set.Put {
		s.known[p.Node] = p
	}
	for _, node := range set.Drop {
		delete(s.known, node)
	}
	s.mu.Unlock()
	s.wake()
}

// peers are the other nodes as the leader last told.
func (s *standing) peers() map[string]wire.Peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.known)
}

func (s *standing) wake() {
	select {
	case s.notify <- struct{}{}:
	default:
	}
}

// run begins with what the agent's last life knew, and ends with ctx.
func (s *standing) run(ctx context.Context) error {
	s.tell()
	for ctx.Err() == nil {
		set, ok := s.next()
		if !ok {
			select {
			case <-ctx.Done():
			case <-s.notify:
			}
			continue
		}
		for ctx.Err() == nil && !s.superseded() {
			err := s.cfg.Network.Configure(ctx, set)
			if err == nil {
				s.tell()
				break
			}
			s.cfg.Logger.Error("cannot take up where this node stands in the network; trying again", "err", err)
			pause(ctx, configureAgain)
		}
	}
	return nil
}

func (s *standing) next() (set wire.NetworkSet, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.sets) == 0 {
		return set, false
	}
	set, s.sets = s.sets[0], s.sets[1:]
	return set, true
}

// superseded tells whether a complete set waits.
func (s *standing) superseded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sets) > 0 && s.sets[0].Complete
}

func (s *standing) tell() {
	if now, ok := s.cfg.Network.Standing(); ok {
		s.cfg.Traffic.Configure(now)
	}
}
