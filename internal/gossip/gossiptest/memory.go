package gossiptest

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Network joins members in memory. The zero value is ready.
type Network struct {
	// Path tells how long a packet is under way from one address to another, and
	// whether it gets there; it is asked again when it arrives. nil: all do, at
	// once. Set it before the first member, and let it be quick.
	Path func(from, to netip.AddrPort) (delay time.Duration, ok bool)

	mu      sync.Mutex
	members map[string]*Transport // by "ip:port"
}

// Transport is one member's end of a Network.
type Transport struct {
	net     *Network
	at      netip.AddrPort
	addr    net.UDPAddr
	packets chan *memberlist.Packet
	streams chan net.Conn
	cut     bool
}

// Transport makes the next member's end, with an address of its own.
func (n *Network) Transport() *Transport {
	n.mu.Lock()
	i := len(n.members) + 1
	n.mu.Unlock()
	return n.TransportAt(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 99, byte(i >> 8), byte(i)}), 7946))
}

// TransportAt makes a member's end at an address, in the place of one that was
// there before.
func (n *Network) TransportAt(addr netip.AddrPort) *Transport {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.members == nil {
		n.members = map[string]*Transport{}
	}
	t := &Transport{net: n, at: addr, addr: net.UDPAddr{IP: addr.Addr().AsSlice(), Port: int(addr.Port())},
		packets: make(chan *memberlist.Packet, 1024), streams: make(chan net.Conn, 64)}
	n.members[t.addr.String()] = t
	return t
}

// Addr is what others join by.
func (t *Transport) Addr() string { return t.addr.String() }

// Cut pulls the member's plug (or puts it back): nothing reaches or leaves it.
func (t *Transport) Cut(cut bool) {
	t.net.mu.Lock()
	defer t.net.mu.Unlock()
	t.cut = cut
}

// peer is the member at addr, unless either end or the path is cut.
func (t *Transport) peer(addr string) (*Transport, time.Duration) {
	p := t.net.members[addr]
	if p == nil || p.cut || t.cut {
		return nil, 0
	}
	if t.net.Path == nil {
		return p, 0
	}
	if delay, ok := t.net.Path(t.at, p.at); ok {
		return p, delay
	}
	return nil, 0
}

// FinalAdvertiseAddr, WriteTo, PacketCh, DialTimeout, StreamCh and Shutdown make
// a memberlist.Transport.
func (t *Transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.addr.IP, t.addr.Port, nil
}

func (t *Transport) WriteTo(b []byte, addr string) (time.Time, error) {
	t.net.mu.Lock()
	defer t.net.mu.Unlock()
	now := time.Now()
	p, delay := t.peer(addr)
	if p == nil {
		return now, nil // lost
	}
	b = bytes.Clone(b)
	if delay <= 0 {
		t.deliver(p, b)
		return now, nil
	}
	time.AfterFunc(delay, func() {
		t.net.mu.Lock()
		defer t.net.mu.Unlock()
		if q, _ := t.peer(addr); q == p {
			t.deliver(p, b)
		}
	})
	return now, nil
}

func (t *Transport) deliver(p *Transport, b []byte) {
	select {
	case p.packets <- &memberlist.Packet{Buf: b, From: &t.addr, Timestamp: time.Now()}:
	default: // lost
	}
}

func (t *Transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

func (t *Transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	t.net.mu.Lock()
	p, _ := t.peer(addr)
	if p != nil {
		if back, _ := p.peer(t.addr.String()); back == nil {
			p = nil // a stream needs both ways
		}
	}
	if p != nil {
		defer t.net.mu.Unlock()
		near, far := net.Pipe()
		select {
		case p.streams <- streamConn{far, &t.addr}:
			return streamConn{near, &p.addr}, nil
		default:
			return nil, fmt.Errorf("dial %s: backlog full", addr)
		}
	}
	t.net.mu.Unlock()
	time.Sleep(timeout) // as a dial to a host without power
	return nil, fmt.Errorf("dial %s: %w", addr, os.ErrDeadlineExceeded)
}

func (t *Transport) StreamCh() <-chan net.Conn { return t.streams }

func (t *Transport) Shutdown() error {
	t.Cut(true)
	return nil
}

// streamConn gives a pipe an address; memberlist parses it.
type streamConn struct {
	net.Conn
	remote net.Addr
}

func (c streamConn) RemoteAddr() net.Addr { return c.remote }
