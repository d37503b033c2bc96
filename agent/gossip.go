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
	key     []byte
	peers   []string
	quick   bool
	changed chan struct{} // closed at a change; nil: nobody waits
}

// welcome takes key and peers of a new session.
func (g *gossiper) welcome(w session.Welcome) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if bytes.Equal(g.key, w.GossipKey) && slices.Equal(g.peers, w.GossipPeers) {
		return
	}
	g.key, g.peers = w.GossipKey, w.GossipPeers
	g.quick = w.Beat > liveness.DefaultLimits().BeatEvery // fixed while the key holds
	if g.changed != nil {
		close(g.changed)
		g.changed = nil
	}
}

// current gives key and peers, and what is closed when they change.
func (g *gossiper) current() (key []byte, peers []string, changed <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.changed == nil {
		g.changed = make(chan struct{})
	}
	return g.key, g.peers, g.changed
}

func (g *gossiper) isQuick() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.quick
}

// run takes part until ctx ends.
func (g *gossiper) run(ctx context.Context) error {
	for ctx.Err() == nil {
		key, _, changed := g.current()
		if len(key) == 0 || g.cfg.GossipPort == 0 {
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		if err := g.member(ctx, key); err != nil {
			g.cfg.Logger.Warn("cannot take part in gossip; the leader still hears the beats", "err", err)
			pause(ctx, gossipAgain)
		}
	}
	return nil
}

// member is one membership: as long as the key holds.
func (g *gossiper) member(ctx context.Context, key []byte) error {
	cfg := gossip.Config{Name: g.cfg.Name, BindAddr: g.cfg.Address.String(), Port: g.cfg.GossipPort, SecretKey: key, Quick: g.isQuick(), Logger: g.cfg.Logger}
	if g.cfg.GossipTransport != nil {
		cfg.Transport = g.cfg.GossipTransport()
	}
	m, err := gossip.New(cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var meeting sync.WaitGroup
	defer meeting.Wait()
	meeting.Go(func() {
		defer cancel()
		g.meet(ctx, m, key)
	})
	return m.Run(ctx)
}

// meet joins the peers, again until one answers, until the key changes.
func (g *gossiper) meet(ctx context.Context, m *gossip.Gossip, key []byte) {
	for ctx.Err() == nil {
		now, peers, changed := g.current()
		if !bytes.Equal(now, key) {
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
