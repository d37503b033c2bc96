package gossiptest

import (
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Network joins members in memory. The zero value is ready.
type Network struct {
	mu      sync.Mutex
	members map[string]*Transport // by "ip:port"
}

// Transport is one member's end of a Network.
type Transport struct {
	net     *Network
	addr    net.UDPAddr
	packets chan *memberlist.Packet
	streams chan net.Conn
	cut     bool
}

// Transport makes the next member's end, with an address of its own.
func (n *Network) Transport() *Transport {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.members == nil {
		n.members = map[string]*Transport{}
	}
	i := len(n.members) + 1
	t := &Transport{net: n, addr: net.UDPAddr{IP: net.IPv4(10, 99, byte(i>>8), byte(i)), Port: 7946},
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

// peer is the member at addr, unless either end is cut.
func (t *Transport) peer(addr string) *Transport {
	if p := t.net.members[addr]; p != nil && !p.cut && !t.cut {
		return p
	}
	return nil
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
	if p := t.peer(addr); p != nil {
		select {
		case p.packets <- &memberlist.Packet{Buf: append([]byte(nil), b...), From: &t.addr, Timestamp: now}:
		default: // lost
		}
	}
	return now, nil
}

func (t *Transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

func (t *Transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	t.net.mu.Lock()
	if p := t.peer(addr); p != nil {
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
