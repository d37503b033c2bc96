package bubble

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/orchctl/orch/internal/controller"
	"github.com/orchctl/orch/internal/controller/api"
	"github.com/orchctl/orch/internal/controller/election"
	"github.com/orchctl/orch/internal/controller/identity"
	"github.com/orchctl/orch/internal/controller/images"
	"github.com/orchctl/orch/internal/gossip"
	"github.com/orchctl/orch/internal/pki"
	"github.com/orchctl/orch/internal/secrets"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// endsWithin is how long a process that was told to end, or was killed, may have
// goroutines: longer means that one of them is stuck.
const endsWithin = time.Minute

// ctlMachine is a machine with a controller and a member of etcd.
type ctlMachine struct {
	*machine
	w *world
	i int

	// Guarded by the network's lock.
	storeCut  int
	storeSlow time.Duration
	faults    []storeFault
	life      *ctlLife // nil: it does not run
}

// storeFault is what becomes of one transaction.
type storeFault int

const (
	storeFine storeFault = iota
	// storeForgets: not written, and nobody knows; storeSilent: written, and
	// nobody knows.
	storeForgets
	storeSilent
)

// ctlLife is one life of a controller's process.
type ctlLife struct {
	p      *proc
	cancel context.CancelFunc
	done   chan struct{}

	mu        sync.Mutex
	authority *identity.Authority    // nil until it was read
	ctl       *controller.Controller // likewise
}

// votes tells whether its member of etcd has a quorum; the network's lock is held.
func (c *ctlMachine) votes() bool {
	return c.life != nil && c.runs() && c.held == 0 && c.storeCut == 0
}

func (c *ctlMachine) storeDelay() time.Duration {
	c.net.mu.Lock()
	slow := c.storeSlow
	c.net.mu.Unlock()
	if slow == 0 {
		return 0
	}
	return c.w.disk.between(0, slow)
}

func (c *ctlMachine) takeStoreFault() storeFault {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if len(c.faults) == 0 {
		return storeFine
	}
	f := c.faults[0]
	c.faults = c.faults[1:]
	return f
}

func (c *ctlMachine) current() *ctlLife {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	return c.life
}

// start begins a life, unless there is one.
func (c *ctlMachine) start() {
	if c.current() != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &ctlLife{p: c.proc(), cancel: cancel, done: make(chan struct{})}
	c.net.change(func() { c.life = l })
	c.w.say("%s starts", c.name)
	go func() {
		defer close(l.done)
		if err := c.run(ctx, l); err != nil && ctx.Err() == nil && !l.p.isGone() {
			c.w.violate("ends", "%s ended by itself: %v", c.name, err)
		}
	}()
}

// stop ends a life, orderly or as kill -9 does.
func (c *ctlMachine) stop(kill bool) {
	l := c.current()
	if l == nil {
		return
	}
	if kill {
		c.w.say("%s is killed", c.name)
		c.net.change(func() { c.life = nil })
		l.p.kill()
		l.cancel()
		c.w.ended(c.name, l.done)
		return
	}
	c.w.say("%s is told to end", c.name)
	l.cancel()
	c.w.ended(c.name, l.done)
	c.net.change(func() { c.life = nil })
	l.p.kill() // closes what is left of its connections
}

// run is what cmd/controller does, with the bubble's store and network.
func (c *ctlMachine) run(ctx context.Context, l *ctlLife) error {
	log := c.w.logger(c.name)
	st := &member{etcd: c.w.etcd, c: c, p: l.p}
	authority, err := identity.Open(ctx, identity.Config{Store: st, Dir: c.w.sharedDir, Log: log})
	if err != nil {
		return err
	}
	shelf, err := images.Open(filepath.Join(c.w.dir, c.name, "images"))
	if err != nil {
		return err
	}
	ring, err := secrets.OpenFile(filepath.Join(c.w.sharedDir, "secrets.key"), time.Now())
	if err != nil {
		return err
	}
	talk, err := gossip.New(gossip.Config{Name: controller.GossipName(c.name), SecretKey: authority.GossipKey(), Transport: c.net.transport(l.p), Logger: log})
	if err != nil {
		return err
	}
	var ctl *controller.Controller
	sender := images.NewSender(shelf, func() images.Relays { return ctl.Sessions() }, log)
	ctl = controller.New(controller.Config{Name: c.name, Store: st, Eligible: election.WhenEtcdLeads(st), Authority: authority,
		Prober: prober{l.p, c.w.listens}, NewID: rand.Text, SessionOpened: sender.Offer, Secrets: ring, Log: log,
		Gossip: talk, GossipPeers: func() []string { return []string{netip.AddrPortFrom(c.addr, gossipPort).String()} }})
	serving, err := authority.Serve(c.name, nil)
	if err != nil {
		return err
	}
	gate := &api.Gate{Users: authority}
	server := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(pki.ServerTLS(serving, authority.Pool, nil))),
		grpc.InTapHandle(gate.Admit),
		grpc.ChainStreamInterceptor(gate.Stream),
		grpc.MaxRecvMsgSize(api.MessageMax),
		grpc.ConnectionTimeout(5*time.Second),
		// As cmd/controller has them: they end connections whose other end is gone.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
	)
	orchv1.RegisterAgentsServer(server, ctl.Sessions())
	orchv1.RegisterOrchServer(server, api.New(api.Config{Leader: ctl, View: ctl.View(), Access: authority, Nodes: ctl.Sessions(), Images: sender, Secrets: ring, Log: log}))
	l.mu.Lock()
	l.authority, l.ctl = authority, ctl
	l.mu.Unlock()

	listener := c.net.listen(l.p)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return server.Serve(listener) })
	g.Go(func() error {
		<-ctx.Done()
		server.Stop()
		ctl.Sessions().Wait()
		return nil
	})
	g.Go(func() error { return ctl.Run(ctx) })
	g.Go(func() error { return serving.Run(ctx) })
	g.Go(func() error { return authority.Run(ctx) })
	g.Go(func() error { return talk.Run(ctx) })
	g.Go(func() error {
		return authority.Follow(ctx, func(t identity.Trust) {
			if err := talk.SetKeys(t.GossipKeys); err != nil {
				c.w.violate("gossip", "set keys: %v", err)
			}
		})
	})
	err = g.Wait()
	if errors.Is(err, context.Canceled) || errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return cmp.Or(err, errors.New("it returned without being told to"))
}

// leads gives the controller if it leads, as far as it knows.
func (c *ctlMachine) leads() *controller.Controller {
	l := c.current()
	if l == nil {
		return nil
	}
	l.mu.Lock()
	ctl := l.ctl
	l.mu.Unlock()
	if ctl == nil || !ctl.Status().Leading {
		return nil
	}
	return ctl
}
