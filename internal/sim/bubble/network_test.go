package bubble

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"google.golang.org/grpc/test/bufconn"

	"github.com/orchctl/orch/internal/gossip/gossiptest"
)

const (
	// delayMin and delayMax are what a packet needs in a healthy LAN.
	delayMin, delayMax = 50 * time.Microsecond, 400 * time.Microsecond
	// window is what a connection holds on its way, in bytes.
	window = 64 << 10
	// retransmitMax bounds how long after a cut healed what was held up arrives:
	// TCP's next try backs off with the length of the silence.
	retransmitMax = 3 * time.Second
	// gossipPort is that of gossip on every machine, controllerPort a controller's.
	gossipPort, controllerPort = 7946, 7070
	// lull between two faults is too short for a node to be heard of.
	lull = 10 * time.Second
)

// network joins machines. Its state changes under the lock; whoever waits for a
// change waits on a channel, for a mutex would stop the bubble's clock.
type network struct {
	random *chance
	gossip gossiptest.Network
	closed chan struct{}

	mu        sync.Mutex
	machines  map[netip.Addr]*machine
	cuts      map[[2]*machine]int // from, to; how many faults cut it
	lossy     float64             // share of gossip's packets that is lost
	listeners map[string]*listener
	conns     map[*connection]bool
	changed   chan struct{} // closed and replaced at every change
}

// machine is one with an address: a node's, a controller's or a user's.
type machine struct {
	net  *network
	name string
	addr netip.Addr

	// Guarded by the network's lock.
	off, frozen int           // how many faults keep it so
	slow        time.Duration // the most that is added to its delays
	bootedAt    time.Time
	troubles    int // faults that are at work on it
	wellSince   time.Time
	illSince    time.Time // without a pause of more than lull
	reachedFrom time.Time // when last something changed that keeps packets from it
	held        int       // its process does not run, though the kernel does
}

// proc is one life of the process on a machine.
type proc struct {
	m    *machine
	gone chan struct{} // closed when it is killed
}

type listener struct {
	p *proc
	*bufconn.Listener
}

func newNetwork(random *chance) *network {
	n := &network{random: random, closed: make(chan struct{}), machines: map[netip.Addr]*machine{}, cuts: map[[2]*machine]int{},
		listeners: map[string]*listener{}, conns: map[*connection]bool{}, changed: make(chan struct{})}
	n.gossip.Path = n.packet
	return n
}

func (n *network) machine(name string, addr netip.Addr) *machine {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := &machine{net: n, name: name, addr: addr, bootedAt: time.Now(), wellSince: time.Now()}
	n.machines[addr] = m
	return m
}

// change alters the state and wakes who waits for it.
func (n *network) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	close(n.changed)
	n.changed = make(chan struct{})
}

// see reads the state.
func (n *network) see(f func() bool) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return f()
}

// until waits for a state. False: one of the others came first, or the end.
func (n *network) until(state func() bool, done ...<-chan struct{}) bool {
	var a, b <-chan struct{}
	if len(done) > 0 {
		a = done[0]
	}
	if len(done) > 1 {
		b = done[1]
	}
	for {
		n.mu.Lock()
		ok, changed := state(), n.changed
		n.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-changed:
		case <-a:
			return false
		case <-b:
			return false
		case <-n.closed:
			return false
		}
	}
}

func (m *machine) runs() bool { return m.off == 0 && m.frozen == 0 }

// reaches tells whether a packet gets from one kernel to the other now.
func (n *network) reaches(from, to *machine) bool {
	return from.runs() && to.runs() && n.cuts[[2]*machine{from, to}] == 0
}

func (n *network) delay(a, b *machine) time.Duration {
	n.mu.Lock()
	slow := max(a.slow, b.slow)
	n.mu.Unlock()
	return n.random.between(delayMin, delayMax+slow)
}

// sinceBoot is the machine's CLOCK_BOOTTIME.
func (m *machine) sinceBoot() time.Duration {
	m.net.mu.Lock()
	defer m.net.mu.Unlock()
	return time.Since(m.bootedAt)
}

// well tells whether nothing was done to the machine for so long.
func (m *machine) well(for_ time.Duration) bool {
	m.net.mu.Lock()
	defer m.net.mu.Unlock()
	return m.troubles == 0 && time.Since(m.wellSince) >= for_
}

// trouble marks that a fault is at work on machines until the returned func is
// called.
func (n *network) trouble(ms ...*machine) (over func()) {
	n.change(func() {
		for _, m := range ms {
			if m.troubles == 0 && time.Since(m.wellSince) > lull {
				m.illSince = time.Now()
			}
			m.troubles++
		}
	})
	return func() {
		n.change(func() {
			for _, m := range ms {
				if m.troubles--; m.troubles == 0 {
					m.wellSince = time.Now()
				}
			}
		})
	}
}

func (m *machine) proc() *proc { return &proc{m: m, gone: make(chan struct{})} }

func (p *proc) isGone() bool {
	select {
	case <-p.gone:
		return true
	default:
		return false
	}
}

// kill ends the process as kill -9 does: what it had sent is under way, what it
// would send now is not sent, and its kernel closes its connections.
func (p *proc) kill() {
	n := p.m.net
	var conns []*connection
	n.change(func() {
		close(p.gone)
		for a, l := range n.listeners {
			if l.p == p {
				delete(n.listeners, a)
			}
		}
		for c := range n.conns {
			if c.client == p || c.server == p {
				conns = append(conns, c)
			}
		}
	})
	for _, c := range conns {
		c.dropEnd(p)
	}
}

// connection is a TCP connection: near is the client's end and far the network's
// beside it; inner is the network's end at the server.
type connection struct {
	net            *network
	client, server *proc
	near, far      net.Conn
	inner          net.Conn
	clientOver     chan struct{} // closed when that side sends no more
	serverOver     chan struct{}
}

var errRefused = errors.New("connection refused")

func (n *network) listen(p *proc) net.Listener {
	l := &listener{p, bufconn.Listen(window)}
	n.change(func() { n.listeners[netip.AddrPortFrom(p.m.addr, controllerPort).String()] = l })
	return l
}

// dial connects a process to "ip:port".
func (n *network) dial(ctx context.Context, p *proc, address string) (net.Conn, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (net.Conn, error) { return nil, fmt.Errorf("dial %s: %w", address, err) }
	n.mu.Lock()
	to := n.machines[at.Addr()]
	n.mu.Unlock()
	if to == nil {
		return fail(errors.New("no route to host"))
	}
	both := func() bool { return n.reaches(p.m, to) && n.reaches(to, p.m) && p.m.held == 0 }
	if !n.until(both, ctx.Done(), p.gone) {
		return fail(context.DeadlineExceeded)
	}
	time.Sleep(n.delay(p.m, to) + n.delay(to, p.m))
	n.mu.Lock()
	l := n.listeners[address]
	n.mu.Unlock()
	if l == nil || p.isGone() {
		return fail(errRefused)
	}
	inner, err := l.DialContext(ctx)
	if err != nil {
		return fail(errRefused)
	}
	c := &connection{net: n, client: p, server: l.p, inner: inner, clientOver: make(chan struct{}), serverOver: make(chan struct{})}
	c.near, c.far = pair()
	n.change(func() { n.conns[c] = true })
	if p.isGone() || l.p.isGone() { // killed meanwhile, without having been seen
		c.drop()
	}
	go c.carry(c.far, c.inner, c.client, c.server, c.clientOver, c.serverOver)
	go c.carry(c.inner, c.far, c.server, c.client, c.serverOver, c.clientOver)
	return c.near, nil
}

// pair is a connection within one machine.
func pair() (a, b net.Conn) {
	l := bufconn.Listen(window)
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			panic(err) // nobody closes it
		}
		accepted <- c
	}()
	a, err := l.Dial()
	if err != nil {
		panic(err)
	}
	return a, <-accepted
}

// carry takes bytes from one end to the other in their time. After the sender's
// end, the receiver learns of it as soon as a packet gets through.
func (c *connection) carry(src, dst net.Conn, from, to *proc, fromOver, toOver chan struct{}) {
	buf := make([]byte, window)
	lost := false // nobody takes it any more
	for {
		k, err := src.Read(buf)
		if err != nil {
			break
		}
		if lost = lost || !c.arrives(from, to, toOver); lost {
			continue
		}
		if _, err := dst.Write(buf[:k]); err != nil {
			lost = true
		}
	}
	close(fromOver)
	c.net.until(func() bool { return c.net.reaches(from.m, to.m) }, toOver)
	dst.Close()
	src.Close()
	c.net.change(func() { delete(c.net.conns, c) })
}

// arrives waits as long as a packet needs; false: there is nobody to take it.
func (c *connection) arrives(from, to *proc, toOver <-chan struct{}) bool {
	time.Sleep(c.net.delay(from.m, to.m))
	began := time.Now()
	free := func() bool { return c.net.reaches(from.m, to.m) && from.m.held == 0 && to.m.held == 0 }
	if !c.net.until(free, toOver, from.gone) {
		return false
	}
	if silence := time.Since(began); silence > 0 {
		time.Sleep(c.net.random.between(0, min(silence, retransmitMax)))
	}
	return true
}

// dropEnd closes the end of a process that is gone.
func (c *connection) dropEnd(p *proc) {
	if c.client == p {
		c.near.Close()
	} else {
		c.inner.Close()
	}
}

func (c *connection) drop() {
	c.near.Close()
	c.inner.Close()
}

// dropAll breaks the connections of a machine off, as a firewall that was
// restarted does.
func (n *network) dropAll(m *machine) {
	var conns []*connection
	n.mu.Lock()
	for c := range n.conns {
		if c.client.m == m || c.server.m == m {
			conns = append(conns, c)
		}
	}
	n.mu.Unlock()
	for _, c := range conns {
		c.drop()
	}
}

// sleep ends early with ctx.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
