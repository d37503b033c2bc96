package netcheck

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/wire"
)

const (
	// headers are those of IPv4 and UDP, in bytes.
	headers = 20 + 8
	// passesAlways is what every network carries (RFC 791), in bytes.
	passesAlways = 576
	// echoMax is how long an echo may take, echoTries how often it is asked for:
	// one lost packet says nothing of sizes.
	echoMax   = 250 * time.Millisecond
	echoTries = 3
	tokenSize = 16
)

// mtu sends packets as large as the kernel allows on the way to a node, and if
// they do not come back finds the largest that do.
func (c Checker) mtu(ctx context.Context, peer wire.Peer, gateway netip.Addr) (bool, string) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp4", netip.AddrPortFrom(gateway, network.CheckPort).String())
	if err != nil {
		return false, c.with(fmt.Sprintf("cannot send to %s: %s", gateway, reason(err)))
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	udp := conn.(*net.UDPConn)
	if err := neverFragment(udp); err != nil {
		return false, fmt.Sprintf("cannot send packets that are not cut to pieces: %v", err)
	}
	promised, err := promisedBy(udp)
	if err != nil {
		return false, fmt.Sprintf("cannot find out how large packets to %s may be: %v", gateway, err)
	}
	passes := func(size int) bool { return echoes(ctx, udp, size) }
	if passes(promised) {
		return true, fmt.Sprintf("packets of %d bytes pass", promised)
	}
	if now, err := promisedBy(udp); err == nil && now < promised && passes(now) { // a router on the way has said so
		return true, fmt.Sprintf("packets of %d bytes pass, after a router on the way asked for less than %d", now, promised)
	}
	low, high := passesAlways, promised // low passes, high does not
	if !passes(low) {
		return false, c.with(fmt.Sprintf("TCP gets through to %s, UDP does not, not even small packets: let UDP port %d of %s pass", peer.Node, network.CheckPort, gateway))
	}
	for high-low > 1 && ctx.Err() == nil {
		if mid := (low + high) / 2; passes(mid) {
			low = mid
		} else {
			high = mid
		}
	}
	return false, c.with(fmt.Sprintf("packets to %s may have %d bytes, but only those of up to %d come back: large transfers hang. The network between the nodes carries less than its interfaces' MTU promises: lower the MTU of the nodes' interfaces by %d, or raise the network's",
		peer.Node, promised, low, promised-low))
}

// promisedBy gives the largest packet in bytes that the kernel would send there.
func promisedBy(conn *net.UDPConn) (size int, err error) {
	err = control(conn, func(fd int) (err error) {
		size, err = unix.GetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU)
		return err
	})
	return min(size, packetMax-1), err
}

// echoes tells whether a packet of that size, headers included, comes back.
func echoes(ctx context.Context, conn *net.UDPConn, size int) bool {
	packet := make([]byte, size-headers)
	copy(packet, question)
	token := packet[len(question) : len(question)+tokenSize]
	rand.Read(token) // never fails
	buf := make([]byte, packetMax)
	for range echoTries {
		if ctx.Err() != nil {
			return false
		}
		if _, err := conn.Write(packet); errors.Is(err, syscall.EMSGSIZE) {
			return false
		}
		until := time.Now().Add(echoMax)
		_ = conn.SetReadDeadline(until)
		for time.Now().Before(until) {
			n, err := conn.Read(buf)
			if err != nil {
				var timeout net.Error
				if errors.As(err, &timeout) && timeout.Timeout() || ctx.Err() != nil {
					break
				}
				continue // refused, as of an earlier packet
			}
			if n == len(packet) && bytes.HasPrefix(buf[:n], answer) && bytes.Equal(buf[len(answer):len(answer)+tokenSize], token) {
				return true
			}
		}
	}
	return false
}
