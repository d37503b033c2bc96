package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"crypto/x509"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/counts"
	"github.com/orchctl/orch/internal/controller/election"
	"github.com/orchctl/orch/internal/controller/identity"
	"github.com/orchctl/orch/internal/controller/session"
	"github.com/orchctl/orch/internal/controller/view"
	"github.com/orchctl/orch/internal/evidence"
	"github.com/orchctl/orch/internal/gossip"
	"github.com/orchctl/orch/internal/liveness"
	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/secrets"
	"github.com/orchctl/orch/internal/store"
	"github.com/orchctl/orch/internal/tracing"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

const (
	// leaderWait is how long a call waits for a leader before it is told to try
	// again: a restart or a takeover takes less.
	leaderWait = 3 * time.Second
	// backoffFirst and backoffMax bound the wait before leading is tried again.
	backoffFirst, backoffMax = 50 * time.Millisecond, 2 * time.Second
	// gossipPrefix tells controllers from nodes in gossip; "/" stands in no
	// node's name.
	gossipPrefix = "controller/"
)

// GossipName is the name of a controller in gossip.
func GossipName(controller string) string { return gossipPrefix + controller }

// Prober looks at a host from here.
type Prober interface {
	Probe(ctx context.Context, t evidence.Target, timeout time.Duration) evidence.Result
}

// Config is what New needs. Fields without "may" are required.
type Config struct {
	// Name of this controller, unique among controllers.
	Name      string
	Store     store.Store
	Eligible  election.Eligible
	Authority *identity.Authority
	Prober    Prober
	// BootID names the present life of this host, as agents name theirs; empty: it
	// is not known which node is on it.
	BootID string
	// Liveness and Budgets may be zero: the defaults.
	Liveness liveness.Limits
	Budgets  core.Budgets
	// KeptPorts: see core.Config.
	KeptPorts map[api.HostPort]string
	// Network is the replicas' network, where the store does not say yet. Zero:
	// network.DefaultCluster.
	Network network.Cluster
	// Secrets decrypts what nodes are sent.
	Secrets *secrets.Keyring
	// Gossip may be nil: no hints. GossipPeers then may be too.
	Gossip interface{ Hints() <-chan gossip.Hint }
	// GossipPeers are where agents join gossip, as "host:port".
	GossipPeers func() []string
	// SessionOpened may be nil; see session.Config.Opened.
	SessionOpened func(ctx context.Context, node string, cert *x509.Certificate)
	// SinceBoot is the machine's time since boot, suspension counted, such as
	// boottime.Now. It may be nil: then a leader does not notice that it was suspended,
	// and may grant leases for as long as core.QuorumFresh after it.
	SinceBoot func() time.Duration
	// NewID makes ids that were never used before; for the store's incarnation.
	NewID func() string
	// Tracer may be nil: nothing is traced.
	Tracer *tracing.Tracer
	// Counts may be nil: nothing is counted.
	Counts *counts.Set
	Log    *slog.Logger
}

// Controller leads when it may. Make it with New.
type Controller struct {
	cfg      Config
	view     *view.View
	sessions *session.Server
	fleet    atomic.Int64 // nodes known
	working  atomic.Int64 // since when the loop is at work, in Unix nanoseconds; 0: it waits

	mu          sync.Mutex
	term        *term         // nil while not leading
	changed     chan struct{} // closed and replaced when term changes
	trouble     error         // why this controller does not lead; nil while it does
	incarnation string
}

// New makes a controller that does nothing before Run.
func New(cfg Config) *Controller {
	c := &Controller{cfg: cfg, view: view.New(), changed: make(chan struct{})}
	c.sessions = session.New(session.Config{
		Leadership: leadership{c}, Identities: cfg.Authority, Bundle: cfg.Authority.Bundle,
		Welcome: c.welcome, BeatInterval: c.beatInterval, Opened: cfg.SessionOpened, OpenConfig: c.openConfig, Tracer: cfg.Tracer, Counts: cfg.Counts, Log: cfg.Log,
	})
	return c
}

// View is what is published.
func (c *Controller) View() *view.View { return c.view }

// Sessions serve orch.v1.Agents.
func (c *Controller) Sessions() *session.Server { return c.sessions }

// Run leads whenever it may, until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	incarnation, err := election.Incarnation(ctx, c.cfg.Store, c.cfg.NewID)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.incarnation = incarnation
	c.mu.Unlock()

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return election.Run(ctx, election.Config{Store: c.cfg.Store, ID: c.cfg.Name, Eligible: c.cfg.Eligible, Backoff: backoff, Failed: c.failed, Log: c.cfg.Log}, c.lead)
	})
	g.Go(func() error {
		return c.cfg.Authority.Follow(ctx, func(identity.Trust) { c.sessions.Trust(c.trust()) })
	})
	if c.cfg.Gossip != nil {
		g.Go(func() error { return c.hear(ctx) })
	}
	return g.Wait()
}

// backoff doubles, with up to half of it left to chance: two controllers that
// lost to each other must not meet again.
func backoff(failures int) time.Duration {
	d := min(backoffFirst<<min(failures-1, 10), backoffMax)
	return d/2 + rand.N(d/2)
}

// hear hands gossip's hints on while this controller leads.
func (c *Controller) hear(ctx context.Context) error {
	for {
		select {
		case h := <-c.cfg.Gossip.Hints():
			t := c.current()
			if t == nil || strings.HasPrefix(h.Node, gossipPrefix) {
				continue
			}
			if err := t.Tell(ctx, core.Gossip{Node: h.Node, Alive: h.Alive}); err != nil {
				c.cfg.Log.Debug("gossip hint lost", "node", h.Node, "why", err)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *Controller) current() *term {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.term
}

func (c *Controller) setTerm(t *term) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.term = t
	if t != nil {
		c.trouble = nil
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

// await gives the term that leads, or waits a little for one.
func (c *Controller) await(ctx context.Context) (*term, error) {
	timer := time.NewTimer(leaderWait)
	defer timer.Stop()
	for {
		c.mu.Lock()
		t, changed := c.term, c.changed
		c.mu.Unlock()
		if t != nil {
			return t, nil
		}
		select {
		case <-changed:
		case <-timer.C:
			return nil, c.noLeader()
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
}

// failed is told why this controller stopped leading, or could not begin.
func (c *Controller) failed(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trouble = err
}

// Trouble says why this controller does not lead, where that is the store's doing, and
// what to do about it; empty: it leads, or another controller does.
func (c *Controller) Trouble() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.trouble == nil:
		return ""
	case errors.Is(c.trouble, store.ErrNoSpace):
		return "the store is full: etcd refuses writes (alarm NOSPACE): raise its --quota-backend-bytes, or compact and defragment it, then lift the alarm with \"etcdctl alarm disarm\"; replicas run on as they are meanwhile"
	case errors.Is(c.trouble, election.ErrDeposed):
		return ""
	case errors.Is(c.trouble, store.ErrUnknown), errors.Is(c.trouble, context.DeadlineExceeded):
		return "the store does not answer: is etcd up, has it a quorum, and can this controller reach it? Replicas run on as they are meanwhile"
	}
	return c.trouble.Error()
}

// noLeader is the answer where nobody leads.
func (c *Controller) noLeader() error {
	if why := c.Trouble(); why != "" {
		return status.Error(codes.Unavailable, "no leader: "+why)
	}
	return errNoLeader
}

// Lead waits until this controller leads and has published its first view.
func (c *Controller) Lead(ctx context.Context) error {
	for {
		c.mu.Lock()
		t, changed := c.term, c.changed
		c.mu.Unlock()
		if t != nil {
			select {
			case <-t.published:
				return nil
			case <-t.over:
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Ask hands an event to the leader's core and waits for its answer. Errors are
// the core's, or gRPC status errors.
func (c *Controller) Ask(ctx context.Context, event func(ticket uint64) core.Event) (Answer, error) {
	t, err := c.await(ctx)
	if err != nil {
		return Answer{}, err
	}
	wait, err := t.submit(ctx, event)
	if err != nil {
		return Answer{}, err
	}
	return wait(ctx)
}

// Status is who leads here, as far as this controller knows.
type Status struct {
	Controller  string
	Leading     bool
	Term        uint64
	Incarnation string
}

// Status tells whether this controller leads.
func (c *Controller) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Status{Controller: c.cfg.Name, Incarnation: c.incarnation}
	if c.term != nil {
		s.Leading, s.Term = true, c.term.Number()
	}
	return s
}

func (c *Controller) welcome() *orchv1.Welcome {
	w := &orchv1.Welcome{Leader: c.cfg.Name, Trust: c.trust()}
	if c.cfg.Gossip != nil {
		w.GossipKey, w.GossipPeers = c.cfg.Authority.GossipKey(), c.cfg.GossipPeers()
	}
	return w
}

func (c *Controller) trust() *orchv1.Trust {
	t, _ := c.cfg.Authority.Trust()
	pb := &orchv1.Trust{Ca: t.CA}
	if c.cfg.Gossip != nil {
		pb.GossipKeys = t.GossipKeys
	}
	return pb
}

func (c *Controller) beatInterval() time.Duration {
	return c.cfg.Liveness.BeatInterval(int(c.fleet.Load()))
}

// leadership is what sessions see of the controller.
type leadership struct{ c *Controller }

func (l leadership) Term() (session.Term, error) {
	if t := l.c.current(); t != nil {
		return t, nil
	}
	return nil, errNoLeader
}

// Doubt asks the store, which alone knows: an agent that errs must not be able
// to depose a leader over and over.
func (l leadership) Doubt(ctx context.Context, st session.Term, seen uint64) {
	h, _, err := election.Current(ctx, l.c.cfg.Store)
	if err != nil || h.Term == st.Number() {
		l.c.cfg.Log.Warn("an agent has seen a higher term than the store has", "seen", seen, "term", st.Number(), "error", err)
		return
	}
	if t := l.c.current(); t != nil && t.Number() == st.Number() {
		t.resign(fmt.Errorf("%w: an agent has seen term %d", election.ErrDeposed, seen))
	}
}

var (
	errNoLeader = status.Error(codes.Unavailable, "no leader at the moment; try again")
	errChanged  = status.Error(codes.Unavailable, "leader changed; try again")
	errEnded    = errors.New("commits ended")
)
