package netcheck

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/internal/network"
)

const (
	// standingEvery is how often it is looked whether the node's subnet is another.
	standingEvery = time.Second
	// bindFirst is the first wait for the address, which doubles up to
	// standingEvery: a node that has just joined has it within a tenth of a second,
	// and is not to be told ill by who checks at once.
	bindFirst = 20 * time.Millisecond
	// greetMax bounds how long one connection may take to be told who is here.
	greetMax = time.Second
	// greetsAtOnceMax bounds what a flood of connections costs; beyond, they are
	// closed at once.
	greetsAtOnceMax = 64
	// packetMax is the largest UDP packet in bytes; jumbo frames have 9,000.
	packetMax = 1 << 16
)

// greeting is what a connection is told, followed by the node's name.
const greeting = "orch "

// Packets begin with who they are from: an answer is never answered, so two
// responders cannot be set upon each other.
var (
	question = []byte("orch-check?")
	answer   = []byte("orch-check!")
)

// Responder answers the checks of other nodes. All fields are required.
type Responder struct {
	// Node is this one's name.
	Node string
	// Standing tells where the node stands; it is asked again and again.
	Standing func() (network.Standing, bool)
	Logger   *slog.Logger
}

// Run answers at the node's gateway's address until ctx ends. It waits for a
// subnet, and for the address to be there.
func (r Responder) Run(ctx context.Context) error {
	var failed string
	wait := bindFirst
	for ctx.Err() == nil {
		if at, ok := r.gateway(); ok {
			err := r.serve(ctx, at)
			switch {
			case err == nil:
				failed, wait = "", bindFirst
			case errors.Is(err, unix.EADDRNOTAVAIL) && wait < standingEvery: // it is on its way
			case err.Error() != failed: // news
				failed = err.Error()
				r.Logger.Warn("other nodes' checks of the network are not answered; trying again", "err", err)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, standingEvery)
	}
	return nil
}

func (r Responder) gateway() (netip.Addr, bool) {
	s, ok := r.Standing()
	if !ok || !s.Subnet.IsValid() {
		return netip.Addr{}, false
	}
	return network.Gateway(s.Subnet), true
}

// serve answers at one address, until the node's subnet is another.
func (r Responder) serve(ctx context.Context, at netip.Addr) error {
	where := netip.AddrPortFrom(at, network.CheckPort).String()
	stream, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", where)
	if err != nil {
		return fmt.Errorf("answer checks at %s: %w", where, err)
	}
	defer stream.Close()
	packets, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp4", where)
	if err != nil {
		return fmt.Errorf("answer checks at %s: %w", where, err)
	}
	defer packets.Close()
	if err := neverFragment(packets.(*net.UDPConn)); err != nil {
		return fmt.Errorf("answer checks at %s: %w", where, err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.greet(stream) })
	g.Go(func() error { return echo(packets.(*net.UDPConn)) })
	g.Go(func() error {
		tick := time.NewTicker(standingEvery)
		defer tick.Stop()
		defer packets.Close()
		defer stream.Close()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
				if now, ok := r.gateway(); !ok || now != at {
					return errMoved
				}
			}
		}
	})
	if err := g.Wait(); err != nil && !errors.Is(err, errMoved) && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("answer checks at %s: %w", where, err)
	}
	return nil
}

var errMoved = errors.New("the node's subnet is another")

// greet tells connections who is here.
func (r Responder) greet(l net.Listener) error {
	room := make(chan struct{}, greetsAtOnceMax)
	var g errgroup.Group
	defer g.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		select {
		case room <- struct{}{}:
		default:
			_ = conn.Close()
			continue
		}
		g.Go(func() error {
			defer func() { <-room }()
			_ = conn.SetDeadline(time.Now().Add(greetMax))
			_, _ = conn.Write([]byte(greeting + r.Node + "\n")) // whoever is gone is not told
			return conn.Close()
		})
	}
}

// echo sends questions back as answers, of the same length.
func echo(conn *net.UDPConn) error {
	buf := make([]byte, packetMax)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil || !bytes.HasPrefix(buf[:n], question) {
			continue // an error is of an earlier packet's way
		}
		copy(buf, answer)
		_, _ = conn.WriteToUDPAddrPort(buf[:n], from) // too large for the way back: the asker finds out
	}
}

// neverFragment has packets sent whole or not at all.
func neverFragment(conn *net.UDPConn) error {
	return control(conn, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
	})
}

func control(conn *net.UDPConn, f func(fd int) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil {
		return err
	}
	return failed
}
