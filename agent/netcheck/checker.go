package netcheck

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/wire"
)

// The checks.
const (
	Route = "route"
	MTU   = "mtu"
	DNS   = "dns"
	VIP   = "vip"
	// Replica is tried after the others, where there is a node that answers.
	Replica = "replica"
)

const (
	// connectMax is how long the other side may take to answer: a network that
	// needs longer is of no use to replicas.
	connectMax = 2 * time.Second
	// targetsAtOnceMax bounds the sockets of one check.
	targetsAtOnceMax = 16
)

// Result is one thing that was tried.
type Result struct {
	// Target is the node that was tried; for names and virtual IPs the node itself.
	Target string
	Check  string
	OK     bool
	// Detail says what was seen, and what to do if it is wrong.
	Detail string
	Took   time.Duration
}

// Checker tries the network from one node. All fields but Ailing, Look and AsReplica
// are required.
type Checker struct {
	Node     string
	Standing network.Standing
	// Address is the node's own.
	Address netip.Addr
	// Peers are the other nodes, by name.
	Peers map[string]wire.Peer
	// Resolvers is the path of the host's resolv.conf.
	Resolvers string
	// Ailing is what the node says of its own network; nil or empty: nothing.
	Ailing func() string
	// Look tells whether a host answers at all, and how; nil: nobody looks.
	Look func(ctx context.Context, at netip.Addr) (answers bool, how string)
	// AsReplica runs f on a thread whose network is as that of a replica of this
	// node; nil: that is not tried.
	AsReplica func(ctx context.Context, f func()) error
}

// Run tries the way to the targets, and names and virtual IPs on this node. It
// tells results as they come, one at a time, and returns after the last.
func (c Checker) Run(ctx context.Context, targets []string, tell func(Result)) {
	var mu sync.Mutex
	say := func(r Result) {
		mu.Lock()
		defer mu.Unlock()
		tell(r)
	}
	var g errgroup.Group
	g.SetLimit(targetsAtOnceMax)
	if !c.Standing.Subnet.IsValid() {
		say(Result{Target: c.Node, Check: Route, Detail: c.with("this node has no subnet: its replicas have no addresses; `orchctl describe node " + c.Node + "` says why")})
		return
	}
	g.Go(func() error { c.timed(ctx, c.Node, DNS, c.dns, say); return nil })
	g.Go(func() error { c.timed(ctx, c.Node, VIP, c.vip, say); return nil })
	var first *reached
	for _, t := range targets {
		if t == c.Node {
			continue
		}
		g.Go(func() error {
			if there := c.target(ctx, t, say); there != nil {
				mu.Lock()
				defer mu.Unlock()
				first = there
			}
			return nil
		})
	}
	_ = g.Wait() // nothing in it fails
	if first != nil && c.AsReplica != nil {
		c.timed(ctx, c.Node, Replica, func(ctx context.Context) (bool, string) { return c.replica(ctx, *first) }, say)
	}
}

// timed tries one thing.
func (c Checker) timed(ctx context.Context, target, check string, try func(context.Context) (ok bool, detail string), say func(Result)) bool {
	began := time.Now()
	ok, detail := try(ctx)
	if ctx.Err() != nil {
		return false // whoever asked is gone
	}
	say(Result{Target: target, Check: check, OK: ok, Detail: detail, Took: time.Since(began)})
	return ok
}

// target tries the way to one node, and gives it if there is one.
func (c Checker) target(ctx context.Context, name string, say func(Result)) *reached {
	peer, known := c.Peers[name]
	subnet, err := netip.ParsePrefix(peer.Subnet)
	switch {
	case !known:
		say(Result{Target: name, Check: Route, Detail: fmt.Sprintf("the leader has not told %s of this node: it has no subnet, or is new; `orchctl describe node %s` says more", c.Node, name)})
		return nil
	case err != nil:
		say(Result{Target: name, Check: Route, Detail: "the node has no subnet: its replicas have no addresses; `orchctl describe node " + name + "` says why"})
		return nil
	}
	gateway := network.Gateway(subnet)
	if !c.timed(ctx, name, Route, func(ctx context.Context) (bool, string) { return c.route(ctx, peer, gateway) }, say) {
		return nil
	}
	c.timed(ctx, name, MTU, func(ctx context.Context) (bool, string) { return c.mtu(ctx, peer, gateway) }, say)
	return &reached{peer, gateway}
}

// route asks at a node's gateway who is there.
func (c Checker) route(ctx context.Context, peer wire.Peer, gateway netip.Addr) (bool, string) {
	at := netip.AddrPortFrom(gateway, network.CheckPort)
	who, err := ask(ctx, at)
	switch {
	case err == nil && who == peer.Node:
		return true, fmt.Sprintf("%s answers at %s", who, gateway)
	case err == nil:
		return false, c.with(fmt.Sprintf("%s, which belongs to %s, leads to %s: two nodes use one subnet, or a route on %s is not orch's: look at `ip route get %s` there",
			gateway, peer.Node, who, c.Node, gateway))
	case errors.Is(err, syscall.ECONNREFUSED):
		return false, c.with(fmt.Sprintf("%s is reached, but refuses TCP port %d: does the agent on %s run, and does a firewall there reject the port?", gateway, network.CheckPort, peer.Node))
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EACCES):
		return false, c.with(fmt.Sprintf("%s cannot send to %s (%s): %s", c.Node, subnetOf(peer), reason(err), c.remedy(ctx, peer)))
	}
	return false, c.with(fmt.Sprintf("nothing comes back from %s (%s): %s", gateway, reason(err), c.remedy(ctx, peer)))
}

// remedy says what may be done where packets do not get to a node.
func (c Checker) remedy(ctx context.Context, peer wire.Peer) string {
	addr, err := netip.ParseAddr(peer.Address)
	if c.Look != nil && err == nil {
		if answers, how := c.Look(ctx, addr); !answers {
			return fmt.Sprintf("%s itself (%s) does not answer either: %s; is it on, and does the network between the nodes work?", peer.Node, peer.Address, how)
		}
	}
	vxlan := fmt.Sprintf("let UDP port %d pass between %s and %s", network.TunnelPort, c.Address, peer.Address)
	direct := fmt.Sprintf("let packets from and to %s pass between the nodes (a cloud's switch may need its source check off), or use --routes vxlan", c.Standing.Cluster)
	switch c.Standing.Routes {
	case wire.RoutesVXLAN:
		return vxlan
	case wire.RoutesDirect:
		return direct
	}
	return fmt.Sprintf("if both nodes are on one segment, %s; else %s", direct, vxlan)
}

// vip asks at the virtual IP that leads to agents who is there.
func (c Checker) vip(ctx context.Context) (bool, string) {
	at := netip.AddrPortFrom(network.CheckVIP(c.Standing.Services), network.CheckPort)
	who, err := ask(ctx, at)
	switch {
	case err == nil:
		return true, fmt.Sprintf("%s leads to %s", at.Addr(), who)
	case errors.Is(err, syscall.ECONNREFUSED):
		return false, c.with(fmt.Sprintf("%s is refused: this node's rules do not lead it on: look at `nft list table ip orch` and at the agent's log", at.Addr()))
	}
	return false, c.with(fmt.Sprintf("nothing comes back from %s (%s): virtual IPs lead nowhere on this node: look at `nft list table ip orch` and `ip route get %s`, and at other programs' firewall rules",
		at.Addr(), reason(err), at.Addr()))
}

// with adds what the node says of its own network.
func (c Checker) with(words string) string {
	if c.Ailing != nil {
		if ailing := c.Ailing(); ailing != "" {
			return words + "; " + c.Node + " says: " + ailing
		}
	}
	return words
}

func subnetOf(p wire.Peer) string { return p.Node + "'s subnet " + p.Subnet }

// ask gives the name of the node that answers.
func ask(ctx context.Context, at netip.AddrPort) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, connectMax)
	defer cancel()
	conn, err := (&net.Dialer{KeepAlive: -1}).DialContext(ctx, "tcp", at.String())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	until, _ := ctx.Deadline()
	if err := conn.SetDeadline(until); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return "", err
	}
	who, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), greeting)
	if !ok {
		return "a program that is not orch's", nil
	}
	return who, nil
}

// reason gives a word or two for an error of the network.
func reason(err error) string {
	var errno syscall.Errno
	var timeout net.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "no answer within " + connectMax.String()
	case errors.As(err, &errno):
		return errno.Error()
	}
	return err.Error()
}
