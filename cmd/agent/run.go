package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/orchctl/orch/agent"
	"github.com/orchctl/orch/agent/counts"
	"github.com/orchctl/orch/agent/ctrd"
	"github.com/orchctl/orch/agent/dns"
	"github.com/orchctl/orch/agent/images"
	"github.com/orchctl/orch/agent/netcheck"
	"github.com/orchctl/orch/agent/netdev"
	"github.com/orchctl/orch/agent/netdev/netfilter"
	"github.com/orchctl/orch/agent/session"
	"github.com/orchctl/orch/agent/traffic"
	"github.com/orchctl/orch/agent/usage"
	"github.com/orchctl/orch/internal/daemon"
	"github.com/orchctl/orch/internal/metrics"
	"github.com/orchctl/orch/internal/preflight"
	"github.com/orchctl/orch/internal/registry"
	"github.com/orchctl/orch/internal/tracing"
	"github.com/orchctl/orch/internal/version"
)

// gcPercent trades a little cpu, of which an idle agent needs next to none, for
// memory that replicas can use.
const gcPercent = 50

const (
	// netnsDir holds replicas' network namespaces.
	netnsDir = "/run/orch/netns"
	// localnetMarker says that it was us who let published ports answer on
	// 127.0.0.1. It is gone after a reboot, as that setting is.
	localnetMarker = "/run/orch/route_localnet"
)

func run(ctx context.Context, f flags) error {
	s, err := f.check()
	if err != nil {
		return err
	}
	debug.SetGCPercent(gcPercent)
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: s.level}))
	if err := agent.Prioritize(); err != nil {
		logger.Warn("replicas may starve the agent of cpu or memory: it cannot raise its own priority", "err", err)
	}
	if err := preflight.Agent(f.preflight(true), preflight.Look(ctx, preflight.Ask{Node: true, CNIBin: s.cniBin, Data: s.data, Quick: true})).Err(); err != nil {
		return err
	}
	bootID, err := daemon.BootID(s.bootIDFile)
	if err != nil {
		return err
	}
	host, err := agent.DetectHost(bootID)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.data, 0o700); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	logger.Info("starting", "node", s.name, "version", version.String(), "address", s.addr, "capacity", inWords(s.resources))
	tracer, err := tracing.New(ctx, tracing.Config{Service: "orch-agent", Instance: s.name, Version: version.String(), Flags: s.trace, Lookup: os.LookupEnv, Logger: logger})
	if err != nil {
		return daemon.Usagef("%w", err)
	}
	defer tracer.Close()
	identity, err := identify(ctx, s, logger)
	if err != nil {
		return err
	}
	cfg := agent.Config{Name: s.name, Data: s.data, LogDir: filepath.Join(s.data, "logs"), Address: s.addr, Controllers: s.join,
		Credentials: identity.Credentials, Trusted: identity.Trust, Host: host, Labels: s.nodeLabels, Capacity: s.resources, Version: version.String(),
		GossipPort: s.gossipPort, ImageMarks: images.Marks{High: s.imageGCHigh, Low: s.imageGCLow}, Tracer: tracer, Logger: logger}
	if s.metricsAddr != metrics.Off {
		cfg.Counts = counts.New()
	}
	registries := registry.New(registry.Config{HostsDir: s.registryConfig, AuthFile: s.registryAuth, Insecure: s.insecureRegistries, Logger: logger})
	runtime, err := ctrd.Dial(ctx, ctrd.Config{Address: s.containerd, ShimPath: s.shim, LogDir: cfg.LogDir, CgroupParent: s.cgroupParent,
		Registries: registries, MaxPulls: s.maxPulls, AllowBind: s.allowBind, Node: s.name, Counts: cfg.Counts, Logger: logger})
	if err != nil {
		return fmt.Errorf("%w; is containerd running? --containerd says where its socket is", err)
	}
	defer runtime.Close()
	if cfg.RuntimeVersion, err = runtime.Version(ctx); err != nil {
		return err
	}
	if err := preflight.Containerd(cfg.RuntimeVersion).Err(); err != nil {
		return err
	}
	cfg.Runtime = runtime
	cfg.Usage = usage.New(runtime)
	network, err := netdev.New(netdev.Config{CNIBin: s.cniBin, StateDir: filepath.Join(s.data, "net"), NetNSDir: netnsDir, Address: s.addr, Logger: logger})
	if err != nil {
		return err
	}
	cfg.Network = network
	names := dns.New(dns.Config{Answered: cfg.Counts.Answered, Logger: logger})
	cfg.Traffic = named{names: names, Balancer: traffic.New(traffic.Config{Path: filepath.Join(s.data, "traffic.json"), Rules: timed{netfilter.New(localnetMarker), cfg.Counts}, Names: names,
		Connections: netfilter.Connections{Spaces: netnsDir}, Logger: logger})}
	responder := netcheck.Responder{Node: s.name, Standing: network.Standing, Logger: logger}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return agent.Run(ctx, cfg) })
	g.Go(func() error { return responder.Run(ctx) })
	if cfg.Counts != nil {
		served := &metrics.Server{Address: s.metricsAddr, Gatherer: cfg.Counts.Book().Gatherer(), Live: cfg.Counts.Live(), Ready: cfg.Counts.Ready(), Logger: logger}
		g.Go(func() error { return served.Run(ctx) })
	}
	g.Go(func() error { return identity.Run(ctx, s.join) })
	g.Go(func() error { return daemon.Watchdog(ctx, metrics.Alive(ctx, cfg.Counts.Live())) })
	// Not when a session is open: what runs here is looked after without a controller too.
	g.Go(func() error { return daemon.Ready("runs node " + s.name) })
	err = g.Wait()
	logger.Info("ended; containers run on")
	return err
}

// identify gives the node's certificate, joining the cluster if it has none.
func identify(ctx context.Context, s settings, logger *slog.Logger) (*session.Identity, error) {
	identity, joined, err := session.OpenIdentity(filepath.Join(s.data, "pki"), s.name, logger)
	if err != nil {
		return nil, err
	}
	if !joined {
		token, err := s.joinToken()
		if err != nil {
			return nil, err
		}
		if err := identity.Join(ctx, s.join, token); err != nil {
			return nil, err
		}
		logger.Info("joined the cluster", "node", s.name)
		return identity, nil
	}
	if identity.Expired() {
		if err := identity.Renew(ctx, s.join); err != nil {
			logger.Warn("this node's certificate has expired and is not renewed: containers run on, but no session is possible; an empty pki folder and a fresh token join anew",
				"folder", filepath.Join(s.data, "pki"), "err", err)
		}
	}
	return identity, nil
}

func (s settings) joinToken() (string, error) {
	if s.token != "" {
		return s.token, nil
	}
	if s.tokenFile == "" {
		return "", daemon.Usagef("this node is not in a cluster yet: give a join token with --token-file; \"orchctl token create --role node\" prints one")
	}
	b, err := os.ReadFile(s.tokenFile)
	if err != nil {
		return "", fmt.Errorf("read join token: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
