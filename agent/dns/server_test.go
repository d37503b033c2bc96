package dns

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/wire"
)

// running is a server on an address of 127/8, which needs no set-up, and a port that
// is free there.
func running(t testing.TB, s *Server, subnet string) string {
	t.Helper()
	p := netip.MustParsePrefix(subnet)
	gateway := network.Gateway(p)
	probe, err := net.Listen("tcp", net.JoinHostPort(gateway.String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	s.cfg.Port = probe.Addr().(*net.TCPAddr).Port
	_ = probe.Close()
	st := standing
	st.Subnet = p
	s.Configure(st)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Error("Run does not end")
		}
	})
	at := fmt.Sprintf("%s:%d", gateway, s.cfg.Port)
	until(t, "it answers at "+at, func() bool {
		_, err := dns.Exchange(new(dns.Msg).SetQuestion(zone, dns.TypeSOA), at)
		return err == nil
	})
	return at
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10s: %s", what)
		}
	}
}

func TestServes(t *testing.T) {
	s := fleet()
	at := running(t, s, "127.53.1.0/24")
	for _, transport := range []string{"udp", "tcp"} {
		c := dns.Client{Net: transport}
		m := new(dns.Msg).SetQuestion("web.default.orch.internal.", dns.TypeA)
		r, _, err := c.Exchange(m, at)
		if err != nil {
			t.Fatal(err)
		}
		if got := words(t, m, r); got != "NOERROR; 5 A 10.128.0.10" {
			t.Errorf("by %s: %s", transport, got)
		}
		m = new(dns.Msg).SetQuestion("example.com.", dns.TypeA)
		start := time.Now()
		r, _, err = c.Exchange(m, at)
		if err != nil || r.Rcode != dns.RcodeServerFailure {
			t.Errorf("by %s, without servers: %v, %v; want SERVFAIL", transport, r, err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("by %s, without servers: took %s", transport, took)
		}
	}
	// A change is in every answer after Update returned.
	for i := range 200 {
		vip := fmt.Sprintf("10.128.1.%d", i+1)
		s.Update(nil, nil, []wire.Service{svc("default", "web", vip)}, nil, false)
		r, err := dns.Exchange(new(dns.Msg).SetQuestion("web.default.orch.internal.", dns.TypeA), at)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Answer[0].(*dns.A).A.String(); got != vip {
			t.Fatalf("got %s after Update with %s", got, vip)
		}
	}
	if h := s.Health(); h != "" {
		t.Errorf("health: %s", h)
	}
}

// TestMoves: the server follows the node's subnet, and says so when it cannot.
func TestMoves(t *testing.T) {
	s := fleet()
	at := running(t, s, "127.53.2.0/24")
	st := standing
	st.Subnet = netip.MustParsePrefix("198.51.100.0/24") // nobody's here
	s.Configure(st)
	until(t, "the trouble is told", func() bool {
		return strings.HasPrefix(s.Health(), "names are not answered: listen on 198.51.100.1:") && strings.HasSuffix(s.Health(), ": the address is not on this node yet")
	})
	if _, err := dns.Exchange(new(dns.Msg).SetQuestion(zone, dns.TypeSOA), at); err == nil {
		t.Errorf("it still answers at %s", at)
	}
	st.Subnet = netip.MustParsePrefix("127.53.3.0/24")
	s.Configure(st)
	at = strings.Replace(at, "127.53.2.", "127.53.3.", 1)
	until(t, "it answers at "+at, func() bool {
		_, err := dns.Exchange(new(dns.Msg).SetQuestion(zone, dns.TypeSOA), at)
		return err == nil && s.Health() == ""
	})
	// Somebody else has the port, for a while.
	taken, err := net.ListenPacket("udp", strings.Replace(at, "127.53.3.", "127.53.7.", 1))
	if err != nil {
		t.Fatal(err)
	}
	st.Subnet = netip.MustParsePrefix("127.53.7.0/24")
	s.Configure(st)
	until(t, "it is told that the port is taken", func() bool { return strings.Contains(s.Health(), "another program of this node has the port") })
	_ = taken.Close()
	at = taken.LocalAddr().String()
	until(t, "it answers at "+at, func() bool {
		_, err := dns.Exchange(new(dns.Msg).SetQuestion(zone, dns.TypeSOA), at)
		return err == nil && s.Health() == ""
	})
	s.Configure(network.Standing{Address: st.Address})
	until(t, "it answers nowhere", func() bool {
		_, err := dns.Exchange(new(dns.Msg).SetQuestion(zone, dns.TypeSOA), at)
		return err != nil && s.Health() == ""
	})
}

// outside is a name server of somebody else, by UDP and TCP. What it says by UDP of
// large.example is cut.
func outside(t *testing.T) netip.AddrPort {
	t.Helper()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := udp.LocalAddr().(*net.UDPAddr).AddrPort()
	tcp, err := net.Listen("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) {
		r := new(dns.Msg).SetReply(m)
		count, size := 1, dns.MaxMsgSize
		if strings.HasPrefix(m.Question[0].Name, "large.") {
			count = 200
		}
		if w.LocalAddr().Network() == "udp" {
			size = packetPlain
		}
		for i := range count {
			r.Answer = append(r.Answer, &dns.A{Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(198, 51, 100, byte(i))})
		}
		r.Truncate(size)
		_ = w.WriteMsg(r)
	})
	var started, ended sync.WaitGroup
	for _, server := range []*dns.Server{{PacketConn: udp, Handler: handler}, {Listener: tcp, Handler: handler}} {
		started.Add(1)
		server.NotifyStartedFunc = started.Done
		ended.Go(func() { _ = server.ActivateAndServe() })
		defer t.Cleanup(func() { _ = server.Shutdown() }) // before the wait, for cleanups run backwards
	}
	t.Cleanup(ended.Wait)
	started.Wait()
	return at
}

// TestForwards asks a real server, over both transports.
func TestForwards(t *testing.T) {
	s := New(Config{Logger: slog.New(slog.DiscardHandler), ResolvConf: filepath.Join(t.TempDir(), "resolv.conf")})
	hosts(t, s.cfg.ResolvConf, "127.0.0.1")
	other := outside(t)
	s.forward.exchange = func(ctx context.Context, m *dns.Msg, _ netip.AddrPort) (*dns.Msg, error) {
		return exchange(ctx, m, other)
	}
	at := running(t, s, "127.53.4.0/24")
	for _, c := range []struct {
		transport, name string
		cut             bool
		count           int
	}{{"udp", "small.example.", false, 1}, {"tcp", "small.example.", false, 1}, {"udp", "large.example.", true, 0}, {"tcp", "large.example.", false, 200}} {
		client := dns.Client{Net: c.transport}
		r, _, err := client.Exchange(new(dns.Msg).SetQuestion(c.name, dns.TypeA), at)
		if err != nil {
			t.Fatal(err)
		}
		if r.Truncated != c.cut || !c.cut && len(r.Answer) != c.count || !r.RecursionAvailable || r.Authoritative {
			t.Errorf("%s by %s: %d records, header %+v", c.name, c.transport, len(r.Answer), r.MsgHdr)
		}
	}
	if err := os.Remove(s.cfg.ResolvConf); err != nil {
		t.Fatal(err)
	}
	if r, err := dns.Exchange(new(dns.Msg).SetQuestion("small.example.", dns.TypeA), at); err != nil || len(r.Answer) != 1 {
		t.Errorf("what is remembered without servers: %v, %v", r, err)
	}
}

// TestLimits: one asker cannot take all, neither questions under way nor connections,
// and our own names are answered all the while.
func TestLimits(t *testing.T) {
	s := fleet()
	hold := make(chan struct{})
	release := sync.OnceFunc(func() { close(hold) })
	defer release()
	s.forward.file = filepath.Join(t.TempDir(), "resolv.conf")
	hosts(t, s.forward.file, "192.0.2.53", "192.0.2.54")
	s.forward.exchange = func(ctx context.Context, m *dns.Msg, _ netip.AddrPort) (*dns.Msg, error) {
		select {
		case <-hold:
		case <-ctx.Done():
		}
		return records(m.Question[0].Name+" 60 A 198.51.100.1")(m, "")
	}
	at := running(t, s, "127.53.5.0/24")
	conn, err := net.Dial("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ask := func(name string) {
		packet, err := new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(packet); err != nil {
			t.Fatal(err)
		}
	}
	read := func() *dns.Msg {
		buffer := make([]byte, packetMax)
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := conn.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		m := new(dns.Msg)
		if err := m.Unpack(buffer[:n]); err != nil {
			t.Fatal(err)
		}
		return m
	}
	for i := range forwardsEach + 20 {
		ask(fmt.Sprintf("n%d.example.", i))
	}
	for range 20 {
		if m := read(); m.Rcode != dns.RcodeServerFailure {
			t.Fatalf("above the limit: got %s, want SERVFAIL at once", dns.RcodeToString[m.Rcode])
		}
	}
	ask("web.default.orch.internal.")
	if m := read(); len(m.Answer) != 1 {
		t.Errorf("our own name meanwhile: %v", m)
	}
	release()
	for range forwardsEach {
		if m := read(); m.Rcode != dns.RcodeSuccess {
			t.Fatalf("within the limit: got %s", dns.RcodeToString[m.Rcode])
		}
	}
	until(t, "all places are free again", func() bool { return s.asks.take(netip.MustParseAddr("127.0.0.1")) })

	var open []net.Conn
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	for range streamsEach + 10 {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	for _, c := range open[streamsEach:] {
		_ = c.SetReadDeadline(time.Now().Add(streamIdle / 2))
		if _, err := c.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
			t.Errorf("a connection above the limit stays open: %v", err)
		}
	}
	packet, _ := new(dns.Msg).SetQuestion("web.default.orch.internal.", dns.TypeA).Pack()
	framed := append(binary.BigEndian.AppendUint16(nil, uint16(len(packet))), packet...)
	if _, err := open[0].Write(bytes.Repeat(framed, 3)); err != nil {
		t.Fatal(err)
	}
	_ = open[0].SetReadDeadline(time.Now().Add(10 * time.Second))
	for range 3 { // one connection may ask several at once
		m, err := (&dns.Conn{Conn: open[0]}).ReadMsg()
		if err != nil || len(m.Answer) != 1 {
			t.Fatalf("on a connection within the limit: %v, %v", m, err)
		}
	}
}
