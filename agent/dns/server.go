package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/wire"
)

// Config is a name server. Logger is required.
type Config struct {
	// Port is where it listens, by UDP and TCP; 0 means 53.
	Port int
	// ResolvConf lists the host's own servers; empty means /etc/resolv.conf.
	ResolvConf string
	// Answered may be nil; it is told the rcode of each answer, and does not wait.
	Answered func(rcode int)
	Logger   *slog.Logger
}

// Server answers names on one node. Its methods may be called at any time, before
// Run and during it, by anybody.
type Server struct {
	cfg     Config
	names   *names
	forward *forwarder
	asks    *limiter // forwards under way
	streams *limiter
	hosts   hostAddrs

	place   atomic.Pointer[place]
	changed chan struct{}
	trouble atomic.Pointer[string]
}

// place is where the server stands.
type place struct {
	listen            netip.AddrPort // not valid: nowhere yet
	node              netip.Addr
	cluster, services netip.Prefix
	subnetBits        int
}

// New makes a server that knows no names and listens nowhere.
func New(cfg Config) *Server {
	if cfg.Port == 0 {
		cfg.Port = 53
	}
	if cfg.ResolvConf == "" {
		cfg.ResolvConf = "/etc/resolv.conf"
	}
	s := &Server{cfg: cfg, names: newNames(), asks: newLimiter(forwardsMax, forwardsEach), streams: newLimiter(streamsMax, streamsEach), changed: make(chan struct{}, 1)}
	s.place.Store(&place{})
	s.forward = newForwarder(cfg.ResolvConf, func(a netip.Addr) bool { return s.place.Load().isGateway(a) })
	return s
}

// Configure says where the node stands: the server listens on the gateway address of
// its subnet, and answers who is in the cluster's range or on the node. It does not
// wait.
func (s *Server) Configure(st network.Standing) {
	p := &place{node: st.Address.Unmap(), cluster: st.Cluster, services: st.Services}
	if st.Subnet.IsValid() {
		p.listen = netip.AddrPortFrom(network.Gateway(st.Subnet), uint16(s.cfg.Port))
		p.subnetBits = st.Subnet.Bits()
	}
	if *s.place.Swap(p) == *p {
		return
	}
	select {
	case s.changed <- struct{}{}:
	default: // it is told already
	}
}

// Update takes changes of endpoints and services; with complete, put and services are
// all that there are. Answers that begin after it returned know of it.
func (s *Server) Update(put []wire.Endpoint, drop []api.ReplicaKey, services []wire.Service, dropServices []api.Key, complete bool) {
	s.names.update(put, drop, services, dropServices, complete)
}

// Health says in words why names are not answered; empty: they are, or the node has
// no subnet yet, so that nobody could ask.
func (s *Server) Health() string {
	if t := s.trouble.Load(); t != nil {
		return *t
	}
	return ""
}

// Upstreams are the host's servers that questions are passed on to, none: outside
// names are answered with SERVFAIL.
func (s *Server) Upstreams() []netip.AddrPort { return s.forward.upstreams() }

// Run answers until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	defer s.forward.wait()
	told := ""
	for ctx.Err() == nil {
		at := s.place.Load().listen
		if !at.IsValid() {
			s.trouble.Store(nil)
			select {
			case <-s.changed:
			case <-ctx.Done():
			}
			continue
		}
		err := s.listen(ctx, at)
		if err == nil {
			told = ""
			continue // ctx ended, or the place changed
		}
		words := fmt.Sprintf("names are not answered: %v%s", err, remedy(err))
		s.trouble.Store(&words)
		if words != told {
			s.cfg.Logger.Warn("cannot answer names, trying again", "err", err)
			told = words
		}
		select {
		case <-time.After(bindRetry):
		case <-s.changed:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// remedy says what a failure means where the kernel's words do not.
func remedy(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return ": another program of this node has the port; let it listen on its own addresses only, not on all"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return ": the address is not on this node yet"
	}
	return ""
}

// listen answers at one address until ctx ends, the place changes, or a socket fails.
func (s *Server) listen(ctx context.Context, at netip.AddrPort) error {
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return fmt.Errorf("listen on %s: %w", at, err)
	}
	tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	if err != nil {
		return errors.Join(fmt.Errorf("listen on %s: %w", at, err), udp.Close())
	}
	// A burst of questions waits in the socket rather than being lost; the kernel
	// caps it.
	_ = udp.SetReadBuffer(1 << 20)
	s.trouble.Store(nil)
	s.cfg.Logger.Info("answering names", "address", at)

	g, inner := errgroup.WithContext(ctx)
	g.Go(func() error { return s.packets(inner, udp) })
	g.Go(func() error { return s.packets(inner, udp) })
	server := &dns.Server{Listener: &limitedListener{tcp, s.streams}, ReadTimeout: serverTime, WriteTimeout: serverTime, MaxTCPQueries: streamQueries,
		IdleTimeout: func() time.Duration { return streamIdle }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) { s.stream(inner, w, m) })}
	g.Go(server.ActivateAndServe)
	g.Go(func() error {
		why := s.stay(inner, at)
		// Idle connections end at once, and a writer that hangs after its timeout.
		_ = server.Shutdown()
		_ = tcp.Close() // where it had not begun yet
		return errors.Join(why, udp.Close())
	})
	if err := g.Wait(); err != nil && ctx.Err() == nil && !errors.Is(err, errMoved) {
		return fmt.Errorf("serve on %s: %w", at, err)
	}
	return nil
}

var errMoved = errors.New("the node's gateway address is another now")

// stay returns when ctx ends, or the place is no longer at this address.
func (s *Server) stay(ctx context.Context, at netip.AddrPort) error {
	for s.place.Load().listen == at {
		select {
		case <-s.changed:
		case <-ctx.Done():
			return nil
		}
	}
	return errMoved
}

// packets answers what comes by UDP. What the node knows itself is answered at once;
// what others must be asked for gets a goroutine, of which there are so many.
func (s *Server) packets(ctx context.Context, conn *net.UDPConn) error {
	var waiting sync.WaitGroup
	defer waiting.Wait()
	in, out := make([]byte, streamMax), make([]byte, packetMax)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(in)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		q := s.read(in[:n], from.Addr().Unmap())
		switch {
		case q == nil:
		case q.reply != nil:
			s.write(conn, from, q.reply, out)
		case !s.asks.take(q.from):
			s.write(conn, from, q.fail(dns.RcodeServerFailure), out)
		default:
			waiting.Go(func() {
				defer s.asks.release(q.from)
				if m := s.ask(ctx, q); m != nil {
					s.write(conn, from, m, nil)
				}
			})
		}
	}
}

func (s *Server) write(conn *net.UDPConn, to netip.AddrPort, m *dns.Msg, buffer []byte) {
	s.answered(m)
	packet, err := m.PackBuffer(buffer)
	if err != nil {
		// An upstream's oddity that we could read but not write.
		s.cfg.Logger.Debug("cannot write an answer", "err", err)
		return
	}
	// Whoever asked may be gone: nobody is there to be told.
	_, _ = conn.WriteToUDPAddrPort(packet, to)
}

func (s *Server) answered(m *dns.Msg) {
	if s.cfg.Answered != nil {
		s.cfg.Answered(m.Rcode)
	}
}

// stream answers one question of a TCP connection.
func (s *Server) stream(ctx context.Context, w dns.ResponseWriter, m *dns.Msg) {
	peer, err := netip.ParseAddrPort(w.RemoteAddr().String())
	if err != nil {
		return
	}
	q := s.take(m, peer.Addr().Unmap(), true)
	reply := q.reply
	if reply == nil && s.asks.take(q.from) {
		reply = s.ask(ctx, q)
		s.asks.release(q.from)
	} else if reply == nil {
		reply = q.fail(dns.RcodeServerFailure)
	}
	if reply != nil {
		s.answered(reply)
		_ = w.WriteMsg(reply) // the connection ends where that fails
	}
}
