package ctrd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/log"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/internal/registry"
)

// The limits of talking to containerd.
const (
	dialTimeout = 10 * time.Second // until Dial gives up; containerd starts in 0.3 s
	// A socket on the same machine may be tried often: a restarted containerd
	// is to be found at once.
	reconnectMin = 20 * time.Millisecond
	reconnectMax = 250 * time.Millisecond
	// cleanupTimeout bounds the clearing away after a failure, which must
	// also happen when the caller's context is over.
	cleanupTimeout = 15 * time.Second
	// attachWithin is time enough to come back after a broken connection, and not so long
	// that a run which was given up holds what it reserved for hours.
	attachWithin = 5 * time.Minute
)

// Runtime runs containers. Its methods may be called concurrently.
type Runtime struct {
	cfg    Config
	log    *slog.Logger
	client *client.Client
	// turns are those that pulls wait for.
	turns      *turns
	registries *registry.Client
	// removing is held by who removes an image, and shared by who decides to use one.
	removing sync.RWMutex
	locks    keyedMutex
	// leases makes writers of one lease file take turns. It is apart from locks,
	// for a renewal must not wait for containerd.
	leases keyedMutex

	mu sync.Mutex
	// metas remembers what images hold; digests never change their meaning.
	metas map[string]imageMeta
	// pullsNow are the pulls under way, by reference.
	pullsNow map[string]*pulling
	// used is when images were found last for somebody who wants to run them, by digest.
	used map[string]time.Time
	// owners are whose the containers are that Usage found last, by id.
	owners map[string]Observed
	// snapshots is the snapshotter's folder; empty: not asked for yet.
	snapshots string
}

// Dial connects to containerd and waits until it answers. From then on the
// Runtime reconnects by itself; calls made while containerd is away fail.
func Dial(ctx context.Context, cfg Config) (*Runtime, error) {
	for _, p := range []struct{ name, path string }{{"shim", cfg.ShimPath}, {"log folder", cfg.LogDir}, {"memory folder", orDefault(cfg.MemoryDir, "/")}} {
		if !filepath.IsAbs(p.path) {
			return nil, fmt.Errorf("dial containerd: path of the %s is not absolute: %q", p.name, p.path)
		}
	}
	cfg.Namespace = orDefault(cfg.Namespace, "orch")
	cfg.StateDir = orDefault(cfg.StateDir, "/run/orch/containers")
	cfg.MemoryDir = filepath.Clean(orDefault(cfg.MemoryDir, "/run/orch/memory"))
	if cfg.AttachWithin <= 0 {
		cfg.AttachWithin = attachWithin
	}
	cfg.CgroupParent = orDefault(cfg.CgroupParent, "/orch")
	cfg.Snapshotter = orDefault(cfg.Snapshotter, "overlayfs")
	if cfg.Registries == nil {
		cfg.Registries = registry.New(registry.Config{Logger: cfg.Logger})
	}
	if cfg.MaxPulls <= 0 {
		cfg.MaxPulls = maxPulls
	}
	if !filepath.IsAbs(cfg.CgroupParent) {
		return nil, fmt.Errorf("dial containerd: cgroup parent is not absolute: %q", cfg.CgroupParent)
	}
	for _, dir := range cfg.AllowBind {
		if !filepath.IsAbs(dir) {
			return nil, fmt.Errorf("dial containerd: folder for bind mounts is not absolute: %q", dir)
		}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	c, err := client.New(cfg.Address, client.WithDefaultNamespace(cfg.Namespace),
		client.WithExtraDialOpts([]grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: reconnectMin, Multiplier: 1.6, Jitter: 0.2, MaxDelay: reconnectMax},
			MinConnectTimeout: time.Second,
		})}))
	if err != nil {
		return nil, fmt.Errorf("dial containerd at %s: %w", cfg.Address, err)
	}
	if cfg.Counts == nil {
		cfg.Counts = uncounted{}
	}
	r := &Runtime{cfg: cfg, log: cfg.Logger, client: c, registries: cfg.Registries, turns: newTurns(cfg.MaxPulls), metas: map[string]imageMeta{}, used: map[string]time.Time{}}
	wait, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	for {
		err := r.Ping(wait)
		if err == nil {
			if err := openMemory(cfg.MemoryDir); err != nil {
				return nil, errors.Join(err, c.Close())
			}
			if err := r.sweepMemory(wait); err != nil {
				r.log.Warn("values of Configs and Secrets may be left in memory of containers that are gone", "err", err)
			}
			return r, nil
		}
		select {
		case <-wait.Done():
			return nil, errors.Join(fmt.Errorf("dial containerd at %s: %w", cfg.Address, err), c.Close())
		case <-time.After(reconnectMin):
		}
	}
}

// Close ends the connection. No container is touched.
func (r *Runtime) Close() error { return r.client.Close() }

// Ping asks containerd for a sign of life.
func (r *Runtime) Ping(ctx context.Context) error {
	_, err := r.client.Version(r.in(ctx))
	if err != nil {
		return fmt.Errorf("ask for its version: %s", plainly(err))
	}
	return nil
}

// plainly gives what a call's error says without the layers that gRPC and its
// transport put around it: operators read it in tables.
func plainly(err error) string {
	text := status.Convert(err).Message()
	const dialing = `desc = "transport: Error while dialing: `
	if _, inner, ok := strings.Cut(text, dialing); ok {
		return strings.TrimSuffix(inner, `"`)
	}
	return text
}

// Version gives "containerd 1.6.20".
func (r *Runtime) Version(ctx context.Context) (string, error) {
	v, err := r.client.Version(r.in(ctx))
	if err != nil {
		return "", fmt.Errorf("ask containerd for its version: %w", err)
	}
	return "containerd " + v.Version, nil
}

// in puts the call into our namespace of containerd, and silences the client
// library's own log: what it says there comes back as errors, too.
func (r *Runtime) in(ctx context.Context) context.Context {
	return log.WithLogger(namespaces.WithNamespace(ctx, r.cfg.Namespace), silent)
}

var silent = logrus.NewEntry(&logrus.Logger{Out: io.Discard, Formatter: &logrus.TextFormatter{}, Hooks: logrus.LevelHooks{}, Level: logrus.PanicLevel})

// cleanup gives a context that outlives the caller's.
func (r *Runtime) cleanup(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.in(context.WithoutCancel(ctx)), cleanupTimeout)
}

func orDefault(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// keyedMutex is one mutex per container id.
type keyedMutex struct {
	mu   sync.Mutex
	held map[string]*heldMutex
}

type heldMutex struct {
	sync.Mutex
	users int
}

// lock takes the key's mutex and returns its unlock.
func (k *keyedMutex) lock(key string) func() {
	k.mu.Lock()
	if k.held == nil {
		k.held = map[string]*heldMutex{}
	}
	m := k.held[key]
	if m == nil {
		m = &heldMutex{}
		k.held[key] = m
	}
	m.users++
	k.mu.Unlock()
	m.Lock()
	return func() {
		m.Unlock()
		k.mu.Lock()
		if m.users--; m.users == 0 {
			delete(k.held, key)
		}
		k.mu.Unlock()
	}
}
