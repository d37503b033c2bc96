package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/internal/audit"
	"github.com/orchctl/orch/internal/boottime"
	"github.com/orchctl/orch/internal/controller"
	"github.com/orchctl/orch/internal/controller/api"
	"github.com/orchctl/orch/internal/controller/counts"
	"github.com/orchctl/orch/internal/controller/identity"
	"github.com/orchctl/orch/internal/controller/images"
	"github.com/orchctl/orch/internal/daemon"
	"github.com/orchctl/orch/internal/evidence"
	"github.com/orchctl/orch/internal/gossip"
	"github.com/orchctl/orch/internal/metrics"
	"github.com/orchctl/orch/internal/pki"
	"github.com/orchctl/orch/internal/preflight"
	"github.com/orchctl/orch/internal/registry"
	"github.com/orchctl/orch/internal/secrets"
	"github.com/orchctl/orch/internal/tracing"
	"github.com/orchctl/orch/internal/version"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

const (
	// handshakeTimeout ends connections that do not get through TLS.
	handshakeTimeout = 5 * time.Second
	// streamsMax per connection: an agent's session and its relays, or a user's
	// watches.
	streamsMax = 1000
	// headerMax is the size of a call's headers, in bytes; ours have some hundred.
	headerMax = 16 << 10
	// aliveEvery and aliveTimeout drop connections whose other end lost its power.
	aliveEvery, aliveTimeout = 10 * time.Second, 5 * time.Second
	// pingMin is the least time between a client's own pings.
	pingMin = time.Second
	// upkeepEvery is how often tokens and contexts in files are looked after;
	// they are replaced days before they end.
	upkeepEvery = time.Hour
	// retryFiles is the wait where the lead was lost before they were written.
	retryFiles = 100 * time.Millisecond
)

// run serves until ctx ends, which is no error.
func run(ctx context.Context, c *config, out io.Writer, log *slog.Logger) error {
	began := time.Now()
	if c.pprofAddr != "" && !isLoopback(c.pprofAddr) {
		return daemon.Usagef("--pprof-addr %s: profiles tell secrets: want a loopback address", c.pprofAddr)
	}
	if changed := c.limits.changed(); len(changed) > 0 {
		log.Info("limits are not the defaults", "limits", strings.Join(changed, " "))
	}
	found := preflight.Controller(c.preflight(), preflight.Look(ctx, preflight.Ask{Data: c.data, Quick: true}))
	if err := found.Err(); err != nil {
		return err
	}
	for _, f := range found {
		if f.Level == preflight.Warn {
			log.Warn(f.What, "check", f.Check, "remedy", f.Remedy)
		}
	}
	// Listening comes first: what is wrong there is known at once, and agents that
	// dial during a restart wait instead of being refused.
	listeners, err := c.listenAll()
	defer func() {
		for _, l := range listeners {
			l.Close()
		}
	}()
	if err != nil {
		return err
	}
	if err := awaitLeases(ctx, c.data, log); err != nil {
		return err
	}
	st, err := c.openStore(ctx, log)
	if err != nil {
		return err
	}
	defer st.close()
	authority, err := identity.Open(ctx, identity.Config{Store: st.Store, Dir: c.data, Cluster: c.cluster, Log: log})
	if err != nil {
		return err
	}
	if err := c.ofAnother(authority.CA().Cluster); err != nil {
		return err
	}
	ring, err := secrets.OpenFile(c.secretsKey, time.Now())
	if err != nil {
		return err
	}
	shelf, err := images.Open(filepath.Join(c.data, "images"))
	if err != nil {
		return err
	}
	talk, err := c.newGossip(authority.GossipKey(), log)
	if err != nil {
		return err
	}

	bootID, err := daemon.BootID(daemon.BootIDFile)
	if err != nil {
		// Only the agent on this host, if there is one, is taken for a better
		// witness than it is.
		log.Warn("cannot tell which node is on this host", "err", err)
	}

	tracer, err := tracing.New(ctx, tracing.Config{Service: "orch-controller", Instance: c.name, Version: version.String(), Flags: c.trace, Lookup: os.LookupEnv, Logger: log})
	if err != nil {
		return daemon.Usagef("%w", err)
	}
	defer tracer.Close()

	var ctl *controller.Controller
	sender := images.NewSender(shelf, func() images.Relays { return ctl.Sessions() }, log)
	conf := controller.Config{Name: c.name, Store: st.Store, Eligible: st.eligible, Authority: authority,
		BootID: bootID, Prober: &evidence.Prober{}, Liveness: c.limits.liveness, Budgets: c.limits.budgets, KeptPorts: c.keptPorts(), Network: c.network.cluster, SinceBoot: boottime.Now, NewID: rand.Text, Secrets: ring, Tracer: tracer, Log: log,
		SessionOpened: func(ctx context.Context, node string, cert *x509.Certificate) { sender.Offer(ctx, node, cert) }}
	if talk != nil {
		conf.Gossip, conf.GossipPeers = talk, func() []string { return peers(talk) }
	}
	var count *counts.Set // nil where nobody is to see it
	if c.metricsAddr != metrics.Off {
		count = counts.New()
	}
	conf.Counts = count
	ctl = controller.New(conf)
	sources := ctl.Sources()
	sources.Store = st.usage
	serving, err := authority.Serve(c.name, allHosts(c.advertise))
	if err != nil {
		return err
	}
	book, err := audit.Open(audit.Config{Path: c.auditLog, Required: c.auditRequired, Logger: log})
	if err != nil {
		return err
	}
	defer book.Close()
	sources.Audit = book.Counts
	count.From(sources)
	server := newServer(serving, authority, book, count, append(tracer.ServerOptions(), grpc.ChainUnaryInterceptor(st.room))...)
	orchv1.RegisterAgentsServer(server, ctl.Sessions())
	orchv1.RegisterOrchServer(server, api.New(api.Config{Leader: ctl, View: ctl.View(), Access: authority, Nodes: ctl.Sessions(), Images: sender, Secrets: ring, Registry: registry.New(registry.Config{HostsDir: c.registryConfig, AuthFile: c.registryAuth, Insecure: c.insecureRegistries, Logger: log}), Backup: st.backup, Tracer: tracer, Counts: count, Log: log}))

	g, ctx := errgroup.WithContext(ctx)
	for _, l := range listeners {
		g.Go(func() error { return server.Serve(l) })
	}
	g.Go(func() error {
		<-ctx.Done()
		server.Stop()
		ctl.Sessions().Wait()
		return nil
	})
	g.Go(func() error { return ctl.Run(ctx) })
	g.Go(func() error {
		return sender.Again(ctx, func() []images.Lack { return images.Lacking(ctl.View().Snapshot()) }, ctl.Sessions().Nodes)
	})
	if count != nil {
		g.Go(func() error { return count.Run(ctx) })
		served := &metrics.Server{Address: c.metricsAddr, Gatherer: count.Book().Gatherer(), Live: count.Live(), Ready: count.Ready(), Logger: log}
		g.Go(func() error { return served.Run(ctx) })
	}
	g.Go(func() error { return serving.Run(ctx) })
	g.Go(func() error { return authority.Run(ctx) })
	g.Go(func() error { return st.watch(ctx) })
	if st.present != nil {
		g.Go(func() error { return st.present(ctx) })
	}
	if talk != nil {
		g.Go(func() error { return talk.Run(ctx) })
		g.Go(func() error {
			return authority.Follow(ctx, func(t identity.Trust) {
				if err := talk.SetKeys(t.GossipKeys); err != nil {
					log.Error("gossip's keys cannot be used", "error", err)
				}
			})
		})
	}
	g.Go(func() error { return daemon.Watchdog(ctx, metrics.Alive(ctx, count.Live())) })
	// Not when it leads: one that stands by has started too.
	g.Go(func() error { return daemon.Ready("serves at " + c.advertise) })
	if c.pprofAddr != "" {
		g.Go(func() error { return servePprof(ctx, c.pprofAddr) })
	}
	g.Go(func() error {
		if err := c.firstFiles(ctx, ctl, authority); err != nil {
			return err
		}
		s := ctl.Status()
		fmt.Fprintf(out, "controller %s is ready: leading term %d, serving at %s%s (%s)\n", c.name, s.Term, c.advertise,
			cmp.Or(map[bool]string{true: " and " + c.socket}[c.socket != ""]), time.Since(began).Round(time.Millisecond))
		return c.upkeep(ctx, authority, log)
	})
	err = g.Wait()
	if errors.Is(err, context.Canceled) || errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

func (c *config) listenAll() ([]net.Listener, error) {
	l, err := listenTCP(c.listen)
	if err != nil {
		return nil, err
	}
	list := []net.Listener{l}
	if c.socket != "" {
		if l, err = listenUnix(c.socket); err != nil {
			return list, err
		}
		list = append(list, l)
	}
	return list, nil
}

func newServer(serving pki.CertSource, authority *identity.Authority, book *audit.Log, count *counts.Set, more ...grpc.ServerOption) *grpc.Server {
	gate := &api.Gate{Users: authority}
	return grpc.NewServer(append([]grpc.ServerOption{
		grpc.Creds(credentials.NewTLS(pki.ServerTLS(serving, authority.Pool, nil))),
		grpc.InTapHandle(count.Gate(book.Tap(gate.Admit))),
		grpc.ChainUnaryInterceptor(count.Unary, book.Unary),
		grpc.ChainStreamInterceptor(count.Stream, book.Stream, gate.Stream),
		grpc.MaxRecvMsgSize(api.MessageMax),
		grpc.MaxConcurrentStreams(streamsMax),
		grpc.MaxHeaderListSize(headerMax),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: aliveEvery, Timeout: aliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingMin, PermitWithoutStream: true}),
	}, more...)...)
}

func (c *config) newGossip(key []byte, log *slog.Logger) (*gossip.Gossip, error) {
	if c.gossipAddr == gossipOff {
		return nil, nil
	}
	host, port, err := splitPort(c.gossipAddr)
	if err != nil {
		return nil, err
	}
	return gossip.New(gossip.Config{Name: controller.GossipName(c.name), BindAddr: host, Port: port, SecretKey: key, Logger: log})
}

// peers is where agents join gossip: this member. Through it they meet the rest.
func peers(g *gossip.Gossip) []string {
	if a := g.Addr(); a.IsValid() {
		return []string{a.String()}
	}
	return nil // not listening yet; the next Welcome has it
}

// writeFiles gives the admin and the first nodes what they need to come in.
func (c *config) writeFiles(ctx context.Context, a *identity.Authority) error {
	if err := a.WriteAdminContext(ctx, c.adminContext, cmp.Or(c.contextName, a.CA().Cluster), c.controllers()); err != nil {
		return err
	}
	if err := a.WriteToken(ctx, filepath.Join(c.data, "controller-token"), pki.JoinController); err != nil {
		return err
	}
	return a.WriteToken(ctx, c.nodeTokenFile, pki.JoinNode)
}

// firstFiles writes them in the first term that lasts long enough: losing the
// lead meanwhile is no reason to end.
func (c *config) firstFiles(ctx context.Context, ctl *controller.Controller, a *identity.Authority) error {
	for {
		if err := ctl.Lead(ctx); err != nil {
			return err
		}
		err := c.writeFiles(ctx, a)
		if !errors.Is(err, identity.ErrNotLeading) && status.Code(err) != codes.Unavailable {
			return err
		}
		select {
		case <-time.After(retryFiles):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// upkeep renews what lies in files before it ends, and when the cluster's CAs change.
func (c *config) upkeep(ctx context.Context, a *identity.Authority, log *slog.Logger) error {
	t := time.NewTicker(upkeepEvery)
	defer t.Stop()
	_, changed := a.Trust()
	for {
		select {
		case <-t.C:
		case <-changed:
			_, changed = a.Trust()
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := c.writeFiles(ctx, a); err != nil && !errors.Is(err, identity.ErrNotLeading) && ctx.Err() == nil {
			log.Warn("renew files", "error", err, "retry_in", upkeepEvery)
		}
	}
}

func servePprof(ctx context.Context, address string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	s := &http.Server{Addr: address, Handler: mux, ReadHeaderTimeout: handshakeTimeout}
	context.AfterFunc(ctx, func() { s.Close() })
	if err := s.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve profiles: %w", err)
	}
	return nil
}
