package evidence

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

const (
	// echoes are sent at equal distances within a probe, so that one lost packet
	// is not taken for a silent host.
	echoes = 3
	// lastLook is how long the socket is read after the deadline. The runtime
	// refuses to read past it even what has arrived, and on a starved machine
	// this process may wake after the deadline with the reply in its socket.
	lastLook = 5 * time.Millisecond
	// readFailuresMax ends a wait on a socket that only fails. Each packet sent
	// causes at most one failure; the rest is room.
	readFailuresMax = 2 * echoes
)

// family is what differs between IPv4 and IPv6.
type family struct {
	raw, datagram, any string
	protocol           int
	request, reply     icmp.Type
}

var (
	family4 = family{"ip4:icmp", "udp4", "0.0.0.0", 1, ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply}
	family6 = family{"ip6:ipv6-icmp", "udp6", "::", 58, ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply}
)

// echo sends echo requests and waits for the first reply; it gives the time since
// the first request. Without the right to a raw socket it uses the kernel's own
// ping socket, where the group may (net.ipv4.ping_group_range).
func echo(ctx context.Context, addr netip.Addr, timeout time.Duration) (time.Duration, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	fam := family4
	if addr.Is6() {
		fam = family6
	}
	conn, to, err := fam.listen(addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	// A read knows no context: cancelling ends it by its deadline. Time that runs
	// out must not, or it would spoil the last look.
	stop := context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.Canceled) {
			conn.SetReadDeadline(time.Unix(1, 0))
		}
	})
	defer stop()

	token := make([]byte, 16) // by which a reply is known as ours; the id may be the kernel's
	rand.Read(token)
	start := time.Now()
	var sendErr error
	for i := range echoes {
		request, err := (&icmp.Message{Type: fam.request, Body: &icmp.Echo{ID: os.Getpid() & 0xffff, Seq: i + 1, Data: token}}).Marshal(nil)
		if err != nil {
			return 0, fmt.Errorf("marshal echo request: %w", err)
		}
		if _, err := conn.WriteTo(request, to); err != nil {
			sendErr = err // the next one may find a way
		}
		until := start.Add(timeout * time.Duration(i+1) / echoes)
		if fam.await(ctx, conn, addr, token, until) {
			return time.Since(start), nil
		}
	}
	if !errors.Is(ctx.Err(), context.Canceled) &&
		fam.await(context.WithoutCancel(ctx), conn, addr, token, time.Now().Add(lastLook)) {
		return time.Since(start), nil
	}
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return 0, ctx.Err()
	case sendErr != nil:
		return 0, sendErr
	}
	return 0, context.DeadlineExceeded
}

func (f family) listen(addr netip.Addr) (*icmp.PacketConn, net.Addr, error) {
	conn, err := icmp.ListenPacket(f.raw, f.any)
	if err == nil {
		return conn, &net.IPAddr{IP: addr.AsSlice(), Zone: addr.Zone()}, nil
	}
	if !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.EACCES) {
		return nil, nil, fmt.Errorf("open raw icmp socket: %w", err)
	}
	if conn, err = icmp.ListenPacket(f.datagram, f.any); err != nil {
		return nil, nil, fmt.Errorf("open icmp socket: %w", err)
	}
	return conn, &net.UDPAddr{IP: addr.AsSlice(), Zone: addr.Zone()}, nil
}

// await reads until a reply to our token from addr, or until the time.
func (f family) await(ctx context.Context, conn *icmp.PacketConn, addr netip.Addr, token []byte, until time.Time) bool {
	buf := make([]byte, 512) // longer than any reply to us
	conn.SetReadDeadline(until)
	failures := 0
	for ctx.Err() == nil && failures < readFailuresMax { // looked at after the deadline was set, or it might undo the cancellation's
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				return false
			}
			failures++
			continue // an ICMP error about an earlier packet: not the host's reply
		}
		reply, err := icmp.ParseMessage(f.protocol, buf[:n])
		if err != nil || reply.Type != f.reply || !sameHost(from, addr) {
			continue // a raw socket hears everybody's
		}
		if body, ok := reply.Body.(*icmp.Echo); ok && bytes.Equal(body.Data, token) {
			return true
		}
	}
	return false
}

func sameHost(from net.Addr, addr netip.Addr) bool {
	var ip net.IP
	switch from := from.(type) {
	case *net.IPAddr:
		ip = from.IP
	case *net.UDPAddr:
		ip = from.IP
	}
	got, ok := netip.AddrFromSlice(ip)
	return ok && got.Unmap() == addr.WithZone("")
}
