package traffic

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/wire"
)

// Rules is our table in the kernel: agent/netdev/netfilter.Table.
type Rules interface {
	// List gives what is there now; nil: there is no table.
	List(ctx context.Context) (*network.Table, error)
	// Apply carries a change out as one transaction.
	Apply(ctx context.Context, c network.Change) error
	// Touched tells whether somebody else has changed rules of this machine since
	// it was last asked.
	Touched() (bool, error)
}

// Names answers DNS: agent/dns.
type Names interface {
	Update(put []wire.Endpoint, drop []api.ReplicaKey, services []wire.Service, dropServices []api.Key, complete bool)
}

// Connections are those that this node's kernel keeps: agent/netdev/netfilter.Connections.
type Connections interface {
	// To gives the connections that servers answer, TCP and UDP, but those that are
	// over.
	To(ctx context.Context, servers func(netip.AddrPort) bool) ([]network.Connection, error)
	// Cut forgets them; clients on this node that wait on one are told.
	Cut(ctx context.Context, c []network.Connection) error
}

// Config is a node's balancer. All fields but those for tests are required.
type Config struct {
	// Path is the file that keeps what the balancer knows over restarts.
	Path        string
	Rules       Rules
	Names       Names
	Connections Connections
	Logger      *slog.Logger

	// Dial tries whether anything answers at an address, over TCP; nil is the
	// network's. For tests.
	Dial func(ctx context.Context, to netip.AddrPort) error
}

// Balancer implements agent.Traffic.
type Balancer struct {
	cfg    Config
	known  network.Update // what lay on disk
	loaded bool
	wake   chan struct{} // one slot: level, not edge
	cutter *cutter
	saver  *saver

	mu        sync.Mutex
	pending   []plan.Balance
	standing  network.Standing
	stands    bool // and it is to be taken up
	connected bool
	since     time.Time         // when connected last changed
	verdicts  []verdict         // the ejector's
	wrong     map[string]string // by what was tried, what is wrong with it

	// picture is the loop's own; drawing guards it, for the ejector reads it.
	drawing sync.Mutex
	picture *network.Picture
}

// verdict is what the ejector found.
type verdict struct {
	replica api.ReplicaKey
	out     bool
}

// New reads what lies on disk. It does nothing before Run.
func New(cfg Config) *Balancer {
	if cfg.Dial == nil {
		cfg.Dial = dial
	}
	b := &Balancer{cfg: cfg, wake: make(chan struct{}, 1), picture: network.NewPicture(), wrong: map[string]string{}, since: time.Now()}
	b.cutter = newCutter(cfg)
	b.saver = &saver{path: cfg.Path, logger: cfg.Logger, all: b.all, notify: make(chan struct{}, 1)}
	var err error
	if b.known, b.saver.sequence, b.loaded, err = load(cfg.Path); err != nil {
		cfg.Logger.Warn("cannot read who got traffic before: waiting for the leader", "err", err)
	}
	return b
}

// Run does what it is told until ctx ends; what is in the kernel stays. programmed
// is called with the mark of the latest Balance that is in force, from one
// goroutine; settleFor later where an endpoint was taken out of use.
func (b *Balancer) Run(ctx context.Context, programmed func(mark uint64)) error {
	b.mu.Lock()
	b.since = time.Now()
	b.mu.Unlock()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return (&loop{Balancer: b, programmed: programmed}).run(ctx) })
	g.Go(func() error { return b.cutter.run(ctx) })
	g.Go(func() error { return (&ejector{Balancer: b}).run(ctx) })
	g.Go(func() error { return b.saver.run(ctx) })
	return g.Wait()
}

// Configure takes where the node stands. It does not wait.
func (b *Balancer) Configure(s network.Standing) {
	b.mu.Lock()
	b.standing, b.stands = s, true
	b.mu.Unlock()
	b.again()
}

// Balance takes the next change. It does not wait.
func (b *Balancer) Balance(c plan.Balance) {
	b.mu.Lock()
	b.pending = append(b.pending, c)
	b.mu.Unlock()
	b.again()
}

// Connected tells when a session with the leader begins and ends. It does not wait.
func (b *Balancer) Connected(up bool) {
	b.mu.Lock()
	if up != b.connected {
		b.connected, b.since = up, time.Now()
	}
	b.mu.Unlock()
}

// all is what the balancer knows now; also is done while nobody draws.
func (b *Balancer) all(also func()) network.Update {
	b.drawing.Lock()
	defer b.drawing.Unlock()
	also()
	return b.picture.All()
}

// alone tells for how long there has been no session.
func (b *Balancer) alone() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.connected {
		return 0
	}
	return time.Since(b.since)
}

// Known are the endpoints that lay on disk when the balancer was made: what the
// agent knew in its life before, which a complete set may ask to keep.
func (b *Balancer) Known() []wire.Endpoint { return b.known.Put }

// Health says in words what is wrong now and cannot be put right; empty: nothing.
func (b *Balancer) Health() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []string
	for _, what := range []string{tryRules, tryWatch, tryList} {
		if w := b.wrong[what]; w != "" {
			all = append(all, w)
		}
	}
	return strings.Join(all, "; ")
}

// note keeps what came of a try for Health, and logs what is news.
func (b *Balancer) note(what string, err error) {
	said := ""
	if err != nil {
		said = what + ": " + err.Error()
	}
	b.mu.Lock()
	news := b.wrong[what] != said
	b.wrong[what] = said
	b.mu.Unlock()
	switch {
	case news && err != nil:
		b.cfg.Logger.Error(what+"; trying again", "err", err)
	case news:
		b.cfg.Logger.Info("put right: " + what)
	}
}

// What can be wrong, as it is told.
const (
	tryRules = "traffic is not led as the leader wants"
	tryWatch = "rules of the kernel cannot be watched"
	tryList  = "rules of the kernel cannot be compared"
)

func (b *Balancer) again() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}
