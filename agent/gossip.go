package agent

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/orchctl/orch/agent/session"
	"github.com/orchctl/orch/internal/gossip"
	"github.com/orchctl/orch/internal/liveness"
)

// gossipAgain is the wait before a member that could not listen, or that met
// nobody, tries again.
const gossipAgain = 10 * time.Second

// gossiper takes part in gossip once a leader has given the key. What gossip
// says is for the leader: the agent only takes part, so that silence of a node
// is noticed by many.
type gossiper struct {
	cfg Config

	mu      sync.Mutex
	keys    [][]byte // the one to encrypt with first
	peers   []string
	quick   bool
	changed chan struct{} // closed at a change; nil: nobody waits
}

// welcome takes peers of a new session, and the key of a leader that knows of one only.
func (g *gossiper) welcome(w session.Welcome) {
	g.mu.Lock()
	defer g.mu.Unlock()
	keys := g.keys
	if w.GossipKeys != nil {
		keys = w.GossipKeys
	}
	if sameKeys(g.keys, keys) && slices.Equal(g.peers, w.GossipPeers) {
		return
	}
	g.keys, g.peers = keys, w.GossipPeers
	g.quick = w.Beat > liveness.DefaultLimits().BeatEvery // fixed while a membership lasts
	g.tell()
}

// trusted takes the keys that are understood from now on.
func (g *gossiper) trusted(keys [][]byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(keys) == 0 || sameKeys(g.keys, keys) {
		return
	}
	g.keys = keys
	g.tell()
}

func sameKeys(a, b [][]byte) bool { return slices.EqualFunc(a, b, bytes.Equal) }

// tell wakes who waits for a change; the caller holds mu.
func (g *gossiper) tell() {
	if g.changed != nil {
		close(g.changed)
		g.changed = nil
	}
}

// current gives keys and peers, and what is closed when they change.
func (g *gossiper) current() (keys [][]byte, peers []string, changed <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.changed == nil {
		g.changed = make(chan struct{})
	}
	return g.keys, g.peers, g.changed
}

func (g *gossiper) isQuick() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.quick
}

// run takes part until ctx ends.
func (g *gossiper) run(ctx context.Context) error {
	for ctx.Err() == nil {
		keys, _, changed := g.current()
		if len(keys) == 0 || g.cfg.GossipPort == 0 {
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		if err := g.member(ctx, keys); err != nil {
			g.cfg.Logger.Warn("cannot take part in gossip; the leader still hears the beats", "err", err)
			pause(ctx, gossipAgain)
		}
	}
	return nil
}

// member is one membership, which follows the keys as they change.
func (g *gossiper) member(ctx context.Context, keys [][]byte) error {
	cfg := gossip.Config{Name: g.cfg.Name, BindAddr: g.cfg.Address.String(), Port: g.cfg.GossipPort, SecretKey: keys[0], Quick: g.isQuick(), Logger: g.cfg.Logger}
	if g.cfg.GossipTransport != nil {
		cfg.Transport = g.cfg.GossipTransport()
	}
	m, err := gossip.New(cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var meeting sync.WaitGroup
	defer meeting.Wait()
	defer cancel() // before the wait: one that could not listen meets nobody
	meeting.Go(func() {
		defer cancel()
		g.meet(ctx, m)
	})
	return m.Run(ctx)
}

// meet joins the peers, again until one answers and whenever they or the keys change.
func (g *gossiper) meet(ctx context.Context, m *gossip.Gossip) {
	for ctx.Err() == nil {
		keys, peers, changed := g.current()
		if err := m.SetKeys(keys); err != nil {
			g.cfg.Logger.Warn("gossip's keys cannot be used", "err", err)
			return
		}
		var again <-chan time.Time
		if len(peers) > 0 {
			if n, err := m.Join(ctx, peers); n == 0 {
				g.cfg.Logger.Debug("gossip: no peer answers yet", "err", err)
				again = time.After(gossipAgain)
			}
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-again:
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
