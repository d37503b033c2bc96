package bubble

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/orchctl/orch/agent"
	"github.com/orchctl/orch/agent/runtimetest"
	"github.com/orchctl/orch/agent/session"
	"github.com/orchctl/orch/api"
)

// node is a machine with an agent and what that drives.
type node struct {
	*machine
	w        *world
	i        int
	labels   map[string]string
	capacity api.ResourceList
	runtime  *runtime
	network  *runtimetest.Network
	traffic  *runtimetest.Traffic
	routes   *routes

	// Guarded by the network's lock.
	boots int
	life  *agentLife // nil: it does not run
	lives int
	dir   string // the disk, as the present life has it
	// calledDead: an operator said so, of this boot.
	calledDead int
	offSince   time.Time
	slowKernel bool
	drains     int // how many drains of it are under way
}

// agentLife is one life of an agent's process.
type agentLife struct {
	p      *proc
	dir    string
	boot   string
	cancel context.CancelFunc
	done   chan struct{}
}

func newNode(w *world, i int) *node {
	n := &node{machine: w.net.machine(fmt.Sprintf("n%d", i+1), netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})), w: w, i: i, boots: 1,
		labels:   map[string]string{"orch/hostname": fmt.Sprintf("n%d", i+1)},
		capacity: api.ResourceList{api.CPU: api.Whole(8), api.Memory: api.Whole(16 << 30)}, dir: filepath.Join(w.dir, fmt.Sprintf("n%d", i+1))}
	var mu sync.Mutex
	last := 1
	n.network = runtimetest.NewNetwork(func() netip.Addr {
		mu.Lock()
		defer mu.Unlock()
		last++
		return netip.AddrFrom4([4]byte{10, 64 + byte(last>>16), byte(i+1)<<4 | byte(last>>8)&15, byte(last)})
	})
	n.traffic = runtimetest.NewTraffic()
	n.runtime = newRuntime(n)
	n.routes = newRoutes(n)
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		w.t.Fatal(err)
	}
	return n
}

// bootID of the machine's present life.
func (n *node) bootID() string {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	return n.boot()
}

func (n *node) boot() string { return fmt.Sprintf("%s-boot%d", n.name, n.boots) }

// start begins a life of the agent, if the machine is on and has none.
func (n *node) start() {
	var l *agentLife
	ctx, cancel := context.WithCancel(context.Background())
	n.net.change(func() {
		if n.life == nil && n.off == 0 {
			l = &agentLife{p: n.proc(), dir: n.dir, boot: n.boot(), cancel: cancel, done: make(chan struct{})}
			n.life = l
		}
	})
	if l == nil {
		cancel()
		return
	}
	n.w.say("%s: the agent starts", n.name)
	go func() {
		defer close(l.done)
		if err := n.run(ctx, l); err != nil && ctx.Err() == nil && !l.p.isGone() {
			n.w.violate("ends", "the agent of %s ended by itself: %v", n.name, err)
		}
	}()
}

// stop ends a life: orderly, as kill -9 does, or with the machine's power.
func (n *node) stop(kill bool) {
	l := n.take()
	if l == nil {
		return
	}
	if !kill {
		n.w.say("%s: the agent is told to end", n.name)
		l.cancel()
		n.w.ended("the agent of "+n.name, l.done)
		l.p.kill() // closes what is left of its connections
		return
	}
	n.w.say("%s: the agent is killed", n.name)
	n.abandon(l)
}

func (n *node) take() (l *agentLife) {
	n.net.change(func() { l, n.life = n.life, nil })
	return l
}

// abandon ends the goroutines of a life that is dead already. What they still
// write goes to a disk that nobody reads any more.
func (n *node) abandon(l *agentLife) {
	l.p.kill()
	next := n.nextDisk()
	if err := copyDisk(next, l.dir); err != nil {
		n.w.violate("sim", "copy the disk of %s: %v", n.name, err)
	}
	n.net.change(func() { n.dir = next })
	l.cancel()
	n.w.ended("the agent of "+n.name, l.done)
	if err := os.RemoveAll(l.dir); err != nil {
		n.w.say("remove an old disk: %v", err)
	}
}

func (n *node) nextDisk() (dir string) {
	n.net.change(func() {
		n.lives++
		dir = filepath.Join(n.w.dir, fmt.Sprintf("%s-%d", n.name, n.lives))
	})
	return dir
}

// copyDisk copies what lies there but output, locks and files half written.
func copyDisk(to, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if os.IsNotExist(err) {
				return nil // renamed meanwhile
			}
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		if d.Name() == "lock" || strings.Contains(d.Name(), ".tmp") {
			return nil
		}
		b, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o600)
	})
}

// powerOff takes everything away at once.
func (n *node) powerOff() {
	n.w.say("%s loses its power", n.name)
	n.net.change(func() {
		if n.off++; n.off == 1 {
			n.offSince = time.Now()
		}
	})
	n.runtime.powerLost()
	if l := n.take(); l != nil {
		n.abandon(l)
	}
}

// powerOn ends one fault that keeps it off.
func (n *node) powerOn() {
	on := false
	n.net.change(func() {
		if n.off--; n.off == 0 {
			on = true
			n.boots++
			n.bootedAt, n.reachedFrom = time.Now(), time.Now()
			n.calledDead = 0
		}
	})
	if on {
		n.w.say("%s boots, life %d", n.name, n.boots)
		n.start()
	}
}

// freeze stops the machine as a whole, as a virtual machine's pause does; the
// func that it returns ends that.
func (n *node) freeze() (over func()) {
	n.w.say("%s freezes", n.name)
	n.net.change(func() { n.frozen++ })
	return func() {
		n.runtime.thaw(func() { n.net.change(func() { n.frozen, n.reachedFrom = n.frozen-1, time.Now() }) })
		n.w.say("%s runs again", n.name)
	}
}

// run is what cmd/agent does, with the bubble's machine.
func (n *node) run(ctx context.Context, l *agentLife) error {
	log := n.w.logger(n.name)
	dial := grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return n.net.dial(ctx, l.p, addr) })
	controllers := n.w.controllerAddresses()
	id, joined, err := session.OpenIdentity(filepath.Join(l.dir, "pki"), n.name, log, dial)
	if err != nil {
		return err
	}
	if !joined {
		if err := id.Join(ctx, controllers, n.w.token); err != nil {
			return err
		}
		n.w.say("%s joined", n.name)
	}
	c := client{n.runtime, l}
	cfg := agent.Config{Name: n.name, Data: l.dir, LogDir: filepath.Join(l.dir, "logs"), Address: n.addr, Controllers: controllers,
		Credentials: id.Credentials, Runtime: c, Network: wires{n.network, c}, Traffic: n.traffic, Host: agent.Host{BootID: l.boot, Kernel: "6.1", OS: "bubble"},
		Labels: n.labels, Capacity: n.capacity, Version: "bubble", RuntimeVersion: "1", GossipPort: gossipPort, Logger: log,
		DialOptions:     []grpc.DialOption{dial, grpc.WithStreamInterceptor(n.routes.intercept(l))},
		Prober:          prober{l.p, n.w.listens},
		GossipTransport: func() memberlist.Transport { return n.net.transport(l.p) },
		BootTime:        n.sinceBoot,
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return agent.Run(ctx, cfg) })
	g.Go(func() error { return id.Run(ctx, controllers) })
	return g.Wait()
}
