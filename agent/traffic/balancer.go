package traffic

import (
	"context"
	"log/slog"
	"net/netip"

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
	// it was last asked, or since Apply.
	Touched() (bool, error)
}

// Names answers DNS: agent/dns.
type Names interface {
	Update(put []wire.Endpoint, drop []api.ReplicaKey, services []wire.Service, dropServices []api.Key, complete bool)
}

// Connections are those that this node's kernel keeps: agent/netdev/netfilter.Connections.
type Connections interface {
	// To gives the connections that lead to one of these, TCP and UDP.
	To(ctx context.Context, servers func(netip.AddrPort) bool) ([]network.Connection, error)
	// Cut forgets them. TCP sockets of this node and its replicas that are in the
	// midst of one are told.
	Cut(ctx context.Context, c []network.Connection) error
}

// Config is a node's balancer. All fields are required.
type Config struct {
	// Path is the file that keeps what the balancer knows over restarts.
	Path        string
	Rules       Rules
	Names       Names
	Connections Connections
	Logger      *slog.Logger
}

// Balancer implements agent.Traffic.
type Balancer struct{ cfg Config }

// New gives one that does nothing before Run.
func New(cfg Config) *Balancer { return &Balancer{cfg: cfg} }

// Run does what it is told until ctx ends; what is in the kernel stays.
func (b *Balancer) Run(ctx context.Context, programmed func(mark uint64)) error { return nil }

// Configure takes where the node stands. It does not wait.
func (b *Balancer) Configure(s network.Standing) {}

// Balance takes the next change. It does not wait.
func (b *Balancer) Balance(c plan.Balance) {}

// Connected tells when a session with the leader begins and ends.
func (b *Balancer) Connected(up bool) {}

// Known are the endpoints that the balancer knew when it last ran: what a
// complete set may ask to keep.
func (b *Balancer) Known() []wire.Endpoint { return nil }

// Health says in words what is wrong now; empty: nothing.
func (b *Balancer) Health() string { return "" }
