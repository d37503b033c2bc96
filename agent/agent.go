package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/orchctl/orch/agent/counts"
	"github.com/orchctl/orch/agent/ctrd"
	"github.com/orchctl/orch/agent/images"
	"github.com/orchctl/orch/agent/netdev"
	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/agent/session"
	"github.com/orchctl/orch/agent/usage"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/boottime"
	"github.com/orchctl/orch/internal/evidence"
	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/tracing"
	"github.com/orchctl/orch/internal/wire"
)

// Runtime is what the agent needs of containerd.
type Runtime interface {
	Ping(ctx context.Context) error
	List(ctx context.Context) ([]ctrd.Observed, error)
	Events(ctx context.Context) <-chan ctrd.Event
	// Resolve gives the digest that an image reference means now.
	Resolve(ctx context.Context, w ctrd.ImageWant) (digest string, err error)
	EnsureImage(ctx context.Context, w ctrd.ImageWant, progress func(ctrd.Progress)) (ctrd.ImageInfo, error)
	ImportImage(ctx context.Context, r io.Reader) ([]string, error)
	Images(ctx context.Context) ([]images.Image, error)
	// Pulling are the references of images that are being pulled.
	Pulling() []string
	// RemoveImage and Untag refuse what somebody has wanted since decided.
	RemoveImage(ctx context.Context, digest string, decided time.Time) error
	Untag(ctx context.Context, digest, name string, decided time.Time) error
	// SweepPulls clears away what crashes have left of pulls.
	SweepPulls(ctx context.Context, now time.Time) error
	// Disk is the one on which images lie, in bytes.
	Disk(ctx context.Context) (size, free int64, err error)
	Start(ctx context.Context, s ctrd.ContainerSpec) (ctrd.Observed, error)
	SetLease(ctx context.Context, id string, l ctrd.Lease) error
	Stop(ctx context.Context, id string, grace time.Duration, why string) error
	Remove(ctx context.Context, id string) error
	Exec(ctx context.Context, id string, e ctrd.ExecSpec) (int, error)
}

// Network is what the agent needs of the kernel's network.
type Network interface {
	// Run keeps routes in place until ctx ends.
	Run(ctx context.Context) error
	// Configure takes where the node stands, a set at a time, in order; it keeps
	// the sum on disk. Routes follow soon after.
	Configure(ctx context.Context, set wire.NetworkSet) error
	// Standing is what it was last told; false: nothing yet.
	Standing() (network.Standing, bool)
	// Setup waits for a subnet as long as ctx lets it.
	Setup(ctx context.Context, key api.ReplicaKey, hostNetwork bool) (netdev.Attachment, error)
	Teardown(ctx context.Context, key api.ReplicaKey) error
	Prune(ctx context.Context, keep func(api.ReplicaKey) bool) error
	// Files are what a replica's containers get mounted; they exist from Setup to
	// Teardown.
	Files(key api.ReplicaKey) netdev.Files
	// Health says in words what is wrong now and cannot be put right; empty: nothing.
	Health() string
}

// Traffic leads traffic to endpoints and answers names, on this node.
type Traffic interface {
	// Run does what it is told until ctx ends. programmed is called with the mark of
	// the latest Balance that is in force, in the kernel and in DNS.
	Run(ctx context.Context, programmed func(mark uint64)) error
	// Known are the endpoints by which traffic was led in the agent's last life: a
	// complete set may ask to keep some.
	Known() []wire.Endpoint
	// Configure takes where the node stands. It does not wait.
	Configure(s network.Standing)
	// Balance takes the next change. It does not wait.
	Balance(b plan.Balance)
	// Connected tells when a session with the leader begins and ends; until it is
	// called there is none.
	Connected(up bool)
	// Health: see Network.
	Health() string
}

// Prober looks at another host from here.
type Prober interface {
	Probe(ctx context.Context, t evidence.Target, timeout time.Duration) evidence.Result
}

// Usage measures what the node and its containers use.
type Usage interface {
	Now(ctx context.Context) (usage.Usage, error)
	// Read takes one reading, without rates.
	Read(ctx context.Context) (usage.Usage, error)
}

// Config is a node's agent. All fields but GossipPort, Tracer, Counts and those for tests are
// required.
type Config struct {
	Name string
	// Data is the agent's own folder; it must exist.
	Data string
	// LogDir holds the containers' output.
	LogDir string
	// Address is the node's own IP.
	Address netip.Addr
	// Controllers are where the leader may be found, as "host:port".
	Controllers []string
	Credentials func() (credentials.TransportCredentials, error)
	// Trusted takes the cluster's CAs, in PEM, whenever the leader tells them; it must not
	// wait for anything slow. It may be nil.
	Trusted func(caPEM []byte)
	Runtime Runtime
	Network Network
	Traffic Traffic
	Usage   Usage
	Host    Host
	Labels  map[string]string
	// Capacity is what replicas may use of the node.
	Capacity api.ResourceList
	// ImageMarks are when images are cleaned away; the zero value: never.
	ImageMarks images.Marks
	// Version is orch's, RuntimeVersion containerd's.
	Version, RuntimeVersion string
	// GossipPort is the port of UDP and TCP on Address; 0 means no gossip.
	GossipPort int
	// Tracer may be nil: nothing is traced.
	Tracer *tracing.Tracer
	// Counts may be nil: nothing is counted.
	Counts *counts.Set
	Logger *slog.Logger

	// The rest is for tests, which replace the machine's network and clock.

	DialOptions []grpc.DialOption
	// Prober is what the node looks at others with; nil is evidence's.
	Prober Prober
	// GossipTransport gives each membership its own; nil is UDP and TCP.
	GossipTransport func() memberlist.Transport
	// BootTime is the time since boot; nil is CLOCK_BOOTTIME.
	BootTime func() time.Duration
}

// Run drives the node until ctx ends; then it says goodbye to the leader and
// leaves every container running. Errors are of the start only.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Prober == nil {
		cfg.Prober = &evidence.Prober{}
	}
	if cfg.BootTime == nil {
		cfg.BootTime = boottime.Now
	}
	unlock, err := lockFolder(cfg.Data)
	if err != nil {
		return err
	}
	defer unlock()
	terms, err := session.OpenTerms(cfg.Data)
	if err != nil {
		return err
	}
	saved, err := loadSaved(cfg.Data)
	if err != nil {
		// Containers are found by their labels; what is lost is only the right
		// to start them without a session.
		cfg.Logger.Warn("cannot read the last assignment: nothing is started before a session", "err", err)
	}
	values, err := loadConfigs(cfg.Data)
	if err != nil {
		cfg.Logger.Warn("cannot read the values of Configs: what takes some is not started before a session", "err", err)
	}
	d := newDriver(cfg, plan.New(plan.Config{BootID: cfg.Host.BootID, Node: cfg.Name, Cores: runtime.NumCPU(), Saved: saved, Endpoints: cfg.Traffic.Known()}), values)
	d.gossip = &gossiper{cfg: cfg}
	d.session = session.New(session.Config{
		Controllers: cfg.Controllers, Credentials: cfg.Credentials, Hello: d.hello, SelfCheck: d.check.state,
		Terms: terms, Handler: d, Trusted: d.trusted, Heard: cfg.Counts.Heard, Logger: cfg.Logger, DialOptions: cfg.DialOptions,
	})
	if cfg.Counts != nil {
		cfg.Counts.From(counts.Sources{Tally: d.tally, Check: d.check.state, Runtime: d.check.runtimeFailing, Usage: cfg.Usage.Read})
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.run(ctx) })
	g.Go(func() error { return d.session.Run(ctx) })
	g.Go(func() error { return d.check.run(ctx) })
	g.Go(func() error { return cfg.Network.Run(ctx) })
	g.Go(func() error { return d.standing.run(ctx) })
	g.Go(func() error {
		return cfg.Traffic.Run(ctx, func(mark uint64) { d.fromSession(plan.Programmed{Mark: mark}) })
	})
	g.Go(func() error { return d.saver.run(ctx) })
	g.Go(func() error { return d.shelf.run(ctx) })
	g.Go(func() error { return d.gossip.run(ctx) })
	g.Go(func() error { return d.watchRuntime(ctx) })
	g.Go(func() error { return sweepVolumes(ctx, cfg) })
	g.Go(func() error { return sweepLogs(ctx, cfg.LogDir, cfg.Logger) })
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// hello is how the node introduces itself.
func (d *driver) hello() wire.Hello {
	c := d.cfg
	return wire.Hello{BootID: c.Host.BootID, Address: c.Address.String(), Labels: c.Labels, Capacity: c.Capacity, Version: c.Version,
		OS: c.Host.OS, Kernel: c.Host.Kernel, Runtime: c.RuntimeVersion, StoreRevision: d.storeRevision.Load()}
}

// lockFolder keeps two agents from driving one node.
func lockFolder(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data folder: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock data folder %s: another agent uses it: %w", dir, err), f.Close())
	}
	var once sync.Once
	return func() { once.Do(func() { _ = f.Close() }) }, nil // the lock goes with the file
}
