package traffic

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/wire"
)

const (
	// answerMax is how long a server has to answer. One that is to be buried is asked
	// twice: a host that lost one packet is not dead. answerSoon is the first time: a
	// connection that is being made when its server dies says so again after a second,
	// and is led elsewhere if its first try is forgotten by then. It costs nobody
	// anything who would be answered yet: his next try is led to another server.
	answerMax  = 300 * time.Millisecond
	answerSoon = 150 * time.Millisecond
	// asksAtOnceMax bounds the servers that are asked at a time: they wait, mostly.
	asksAtOnceMax = 64
	// lookFirst is the wait between looks at endpoints that were dropped while they
	// had connections: they are stopped soon after, and what is left of a connection
	// then would catch a new one from the same port. After looksSoon of them, which
	// is longer than most take to stop, the wait doubles up to lookMax.
	lookFirst = time.Second
	looksSoon = 30
	lookMax   = 10 * time.Second
)

// cutter ends connections to endpoints that were dropped and are dead. Those that
// were dropped and live keep theirs: they end them in order.
type cutter struct {
	connections Connections
	dial        func(context.Context, netip.AddrPort) error
	logger      *slog.Logger
	notify      chan struct{}
	asking      sync.WaitGroup

	mu      sync.Mutex
	watched map[server]*look
	opened  []uint16
}

// server is where an endpoint answers: on all ports of its address, or, if that is
// its node's, on one.
type server struct {
	ip   netip.Addr
	port uint16 // 0: all
}

// look is when to look next at a server's connections.
type look struct {
	next time.Time
	wait time.Duration
	done int
}

func newCutter(cfg Config) *cutter {
	return &cutter{connections: cfg.Connections, dial: cfg.Dial, logger: cfg.Logger, notify: make(chan struct{}, 1), watched: map[server]*look{}}
}

func servers(e wire.Endpoint) []server {
	ip, err := netip.ParseAddr(e.IP)
	if err != nil {
		return nil
	}
	if e.IP != e.NodeIP {
		return []server{{ip, 0}}
	}
	var out []server
	for _, p := range e.Ports {
		out = append(out, server{ip, uint16(p.Port)})
	}
	return out
}

// cut is told where endpoints were to which no rule leads any more, and of UDP ports
// of the node that lead somewhere from now on: what went to the node itself would
// go on doing so.
func (c *cutter) cut(gone map[server]bool, opened []uint16) {
	if len(gone)+len(opened) == 0 {
		return
	}
	c.mu.Lock()
	for s := range gone {
		c.watched[s] = &look{next: time.Now(), wait: lookFirst}
	}
	c.opened = append(c.opened, opened...)
	c.mu.Unlock()
	select {
	case c.notify <- struct{}{}:
	default:
	}
}

// spare is told of endpoints: their addresses may have been others' before.
func (c *cutter) spare(put []wire.Endpoint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.watched) == 0 {
		return
	}
	for _, e := range put {
		for _, s := range servers(e) {
			delete(c.watched, s)
		}
	}
}

func (c *cutter) run(ctx context.Context) error {
	defer c.asking.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.notify:
		case <-timer.C:
		}
		c.say(ctx, c.pass(ctx))
		timer.Reset(c.next())
	}
}

// next is how long to wait for the next look.
func (c *cutter) next() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	wait := time.Hour // nothing to do: notify ends it
	for _, l := range c.watched {
		wait = min(wait, time.Until(l.next))
	}
	return max(wait, 0)
}

// due takes what is to be looked at now, and says when the next time is.
func (c *cutter) due() (map[server]bool, []uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	due := map[server]bool{}
	for s, l := range c.watched {
		if !l.next.After(now) {
			due[s] = true
			l.next = now.Add(l.wait)
			if l.done++; l.done > looksSoon {
				l.wait = min(2*l.wait, lookMax)
			}
		}
	}
	opened := c.opened
	c.opened = nil
	return due, opened
}

// still tells whether a server is watched yet: it may have been spared meanwhile.
func (c *cutter) still(s server) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.watched[s] != nil
}

// pass looks once at the connections of what is due.
func (c *cutter) pass(ctx context.Context) error {
	due, opened := c.due()
	if len(due)+len(opened) == 0 {
		return nil
	}
	all, err := c.connections.To(ctx, func(a netip.AddrPort) bool {
		return due[server{a.Addr(), 0}] || due[server{a.Addr(), a.Port()}] || slices.Contains(opened, a.Port())
	})
	if err != nil {
		return err
	}
	local := func(netip.Addr) bool { return false }
	if len(opened) > 0 {
		local = addresses()
	}
	var now []network.Connection    // to be cut at once
	tcp := map[netip.AddrPort]int{} // how many are to be cut if the server is dead
	used := map[server]bool{}       // has connections yet
	for _, one := range all {
		s := server{one.Server.Addr(), 0}
		if !due[s] {
			s.port = one.Server.Port()
		}
		switch {
		case due[s] && one.Protocol == api.TCP && !one.Ending && !one.Open && one.To == one.Server:
			// No rule led it there, and it is not made: a question of ours or of a
			// witness, which would keep a dead server watched.
		case due[s] && one.Protocol == api.TCP && !one.Ending:
			tcp[one.Server]++
			used[s] = true
		case due[s], one.Protocol == api.UDP && one.To == one.Server && local(one.To.Addr()): // not led away
			now = append(now, one)
		}
	}
	if len(tcp) > 0 {
		c.asking.Go(func() { c.bury(ctx, tcp) }) // who is dropped meanwhile does not wait for it
	}
	c.mu.Lock()
	for s := range due {
		if !used[s] {
			delete(c.watched, s)
		}
	}
	c.mu.Unlock()
	return c.connections.Cut(ctx, now)
}

// addresses tells which are this node's. Where the kernel does not say, none is: what
// is left of a talk over UDP goes when it falls silent, too.
func addresses() func(netip.Addr) bool {
	list, _ := net.InterfaceAddrs()
	own := make(map[netip.Addr]bool, len(list))
	for _, x := range list {
		if p, err := netip.ParsePrefix(x.String()); err == nil {
			own[p.Addr().Unmap()] = true
		}
	}
	return func(a netip.Addr) bool { return own[a] || a.IsLoopback() }
}

// bury ends the connections to those servers that are dead.
func (c *cutter) bury(ctx context.Context, tcp map[netip.AddrPort]int) {
	dead := c.dead(ctx, tcp)
	if len(dead) == 0 {
		return
	}
	// Listed anew: what has come since, and our own questions, go with them.
	all, err := c.connections.To(ctx, func(a netip.AddrPort) bool { return dead[a] })
	c.say(ctx, errors.Join(err, c.connections.Cut(ctx, all)))
}

func (c *cutter) say(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		c.logger.Warn("cannot end connections to endpoints that are gone; trying again", "err", err)
	}
}

// dead gives those servers that do not answer at all.
func (c *cutter) dead(ctx context.Context, tcp map[netip.AddrPort]int) map[netip.AddrPort]bool {
	doubtful := c.silent(ctx, tcp, answerSoon, answers)
	if len(doubtful) == 0 {
		return nil
	}
	unanswered := map[server]bool{}
	for at := range doubtful {
		unanswered[server{at.Addr(), at.Port()}] = true
	}
	c.say(ctx, c.forgetUnmade(ctx, unanswered))
	out := map[netip.AddrPort]bool{}
	for at, connections := range c.silent(ctx, doubtful, 2*answerMax-answerSoon, answersAnywhere) {
		c.logger.Info("an endpoint that is gone does not answer: its connections are ended", "endpoint", at, "connections", connections)
		out[at], out[quiet(at)] = true, true
	}
	return out
}

type asker func(context.Context, func(context.Context, netip.AddrPort) error, netip.AddrPort, time.Duration) (answer, error)

// silent asks servers, all at once, and gives those that were silent and are watched
// yet.
func (c *cutter) silent(ctx context.Context, tcp map[netip.AddrPort]int, within time.Duration, ask asker) map[netip.AddrPort]int {
	var mu sync.Mutex
	out := map[netip.AddrPort]int{}
	var g errgroup.Group
	g.SetLimit(asksAtOnceMax)
	for at, connections := range tcp {
		g.Go(func() error {
			if said, err := ask(ctx, c.dial, at, within); said != silent {
				c.logger.Debug("an endpoint that is gone answers, or could not be asked: its connections stay", "endpoint", at, "connections", connections, "err", err)
				return nil
			}
			if !c.still(server{at.Addr(), 0}) && !c.still(server{at.Addr(), at.Port()}) || ctx.Err() != nil {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			out[at] = connections
			return nil
		})
	}
	_ = g.Wait()
	return out
}

// quietPort is one at which nobody listens (tcpmux): a kernel that lives refuses it
// also where all that is listened at is full. Being full is silence.
const quietPort = 1

func quiet(at netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(at.Addr(), quietPort) }

// answer is what came of asking a server.
type answer int

const (
	accepts answer = iota
	refuses        // its host is there and says no
	silent         // nothing came, or a router says that there is no host
	unknown        // the question was not asked
)

// forgetUnmade has connections to servers that are not made yet led anew.
func (c *cutter) forgetUnmade(ctx context.Context, to map[server]bool) error {
	all, err := c.connections.To(ctx, func(a netip.AddrPort) bool { return to[server{a.Addr(), 0}] || to[server{a.Addr(), a.Port()}] })
	if err != nil {
		return err
	}
	return c.connections.Cut(ctx, slices.DeleteFunc(all, func(one network.Connection) bool {
		return one.Protocol != api.TCP || one.Open || one.Ending
	}))
}

// answers asks once.
func answers(ctx context.Context, dial func(context.Context, netip.AddrPort) error, at netip.AddrPort, within time.Duration) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	err := dial(ctx, at)
	var timeout net.Error
	switch {
	case err == nil:
		return accepts, nil
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ECONNRESET):
		return refuses, err
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTDOWN), errors.Is(err, unix.ETIMEDOUT),
		errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return silent, err
	}
	return unknown, err
}

// answersAnywhere asks once, at the quiet port as well: a server may only be too busy
// to take up connections.
func answersAnywhere(ctx context.Context, dial func(context.Context, netip.AddrPort) error, at netip.AddrPort, within time.Duration) (said answer, err error) {
	var quietly answer
	var wg sync.WaitGroup
	wg.Go(func() { quietly, _ = answers(ctx, dial, quiet(at), within) })
	said, err = answers(ctx, dial, at, within)
	wg.Wait()
	if said == silent && (quietly == accepts || quietly == refuses) {
		return quietly, nil
	}
	return said, err
}

// dial connects and hangs up.
func dial(ctx context.Context, to netip.AddrPort) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp4", to.String())
	if err != nil {
		return err
	}
	return c.Close()
}
