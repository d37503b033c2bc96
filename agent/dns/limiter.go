package dns

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// limiter bounds how much goes on at a time, in all and for each asker.
type limiter struct {
	most, each int

	mu  sync.Mutex
	sum int
	now map[netip.Addr]int
}

func newLimiter(most, each int) *limiter {
	return &limiter{most: most, each: each, now: map[netip.Addr]int{}}
}

// take tells whether one more may begin; if so, release ends it.
func (l *limiter) take(a netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sum >= l.most || l.now[a] >= l.each {
		return false
	}
	l.sum++
	l.now[a]++
	return true
}

func (l *limiter) release(a netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sum--
	if l.now[a]--; l.now[a] == 0 {
		delete(l.now, a)
	}
}

// limitedListener closes connections above the limit at once: who gets none of it
// asks again, or by UDP.
type limitedListener struct {
	*net.TCPListener
	limit *limiter
}

// Accept gives the next connection within the limit.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptTCP()
		if err != nil {
			return nil, err
		}
		from := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		if l.limit.take(from) {
			return &limitedConn{TCPConn: conn, end: sync.OnceFunc(func() { l.limit.release(from) })}, nil
		}
		_ = conn.Close()
	}
}

type limitedConn struct {
	*net.TCPConn
	end func()
}

// Close ends the connection and gives its place back.
func (c *limitedConn) Close() error {
	c.end()
	return c.TCPConn.Close()
}

// hostAddrs knows the addresses of the host's own interfaces.
type hostAddrs struct {
	mu    sync.Mutex
	at    time.Time
	known map[netip.Addr]bool
}

// has tells whether a is the host's. The kernel is asked once per recheck at most.
func (h *hostAddrs) has(a netip.Addr) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.known[a] {
		return true
	}
	if now := time.Now(); now.Sub(h.at) >= recheck {
		h.at, h.known = now, map[netip.Addr]bool{}
		// Where the kernel does not tell, nobody but those of the cluster is answered.
		list, _ := net.InterfaceAddrs()
		for _, x := range list {
			if p, err := netip.ParsePrefix(x.String()); err == nil {
				h.known[p.Addr().Unmap()] = true
			}
		}
	}
	return h.known[a]
}
