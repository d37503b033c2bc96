package evidence

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain doubles as the programs that tests start in network namespaces: a
// probe that prints its result, and a listener that accepts until its input ends.
func TestMain(m *testing.M) {
	switch os.Getenv("ORCHEV_ROLE") {
	case "probe":
		var order probeOrder
		if err := json.Unmarshal([]byte(os.Getenv("ORCHEV_PROBE")), &order); err != nil {
			panic(err)
		}
		p := Prober{HostPort: order.HostPort}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		if order.CancelAfter > 0 {
			time.AfterFunc(order.CancelAfter, cancel)
		}
		json.NewEncoder(os.Stdout).Encode(p.Probe(ctx, order.Target, order.Timeout))
	case "listen":
		l, err := net.Listen("tcp", os.Getenv("ORCHEV_LISTEN"))
		if err != nil {
			panic(err)
		}
		fmt.Println("listening")
		go func() {
			for c, err := l.Accept(); err == nil; c, err = l.Accept() {
				c.Close()
			}
		}()
		os.Stdin.Read(make([]byte, 1))
	default:
		os.Exit(m.Run())
	}
}

type probeOrder struct {
	HostPort uint16
	Target   Target
	Timeout  time.Duration
	// CancelAfter ends the probe's context early; zero: not.
	CancelAfter time.Duration
}

func listen(t *testing.T, addr string) (net.Listener, uint16) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, uint16(l.Addr().(*net.TCPAddr).Port)
}

func TestLoopback(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "::1"} {
		_, open := listen(t, net.JoinHostPort(addr, "0"))
		l, closed := listen(t, net.JoinHostPort(addr, "0"))
		l.Close()
		target := Target{Addr: netip.MustParseAddr(addr), Ports: []uint16{open, closed}}
		started := time.Now()
		got := (&Prober{HostPort: closed}).Probe(t.Context(), target, 5*time.Second)
		if !got.HostAnswers || got.PortsAsked != 2 || got.PortsAnswered != 1 {
			t.Errorf("%s: %+v", addr, got)
		}
		if !strings.Contains(got.How, fmt.Sprintf("tcp:%d accepted", open)) || !strings.Contains(got.How, fmt.Sprintf("tcp:%d refused", closed)) {
			t.Errorf("%s: how: %s", addr, got.How)
		}
		if took := time.Since(started); took > 4*time.Second {
			t.Errorf("%s: waited %s though everything answered", addr, took)
		}
	}
}

func TestICMPOnLoopback(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "::1", "::ffff:127.0.0.1"} {
		if _, err := echo(t.Context(), netip.MustParseAddr(addr).Unmap(), 5*time.Second); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestPortsAreCapped(t *testing.T) {
	_, open := listen(t, "127.0.0.1:0")
	ports := make([]uint16, 40)
	for i := range ports {
		ports[i] = open
	}
	got := (&Prober{}).Probe(t.Context(), Target{Addr: netip.MustParseAddr("127.0.0.1"), Ports: ports}, 5*time.Second)
	if got.PortsAsked != portsMax || got.PortsAnswered != portsMax {
		t.Errorf("%+v", got)
	}
}

// TestCancelled: the end of the context ends a probe of something silent.
func TestCancelled(t *testing.T) {
	p := newPair(t)
	p.filter("b", "drop")
	started := time.Now()
	got := p.probe(probeOrder{Target: Target{Addr: hostB, Ports: []uint16{80}}, Timeout: time.Minute, CancelAfter: 100 * time.Millisecond})
	if took := time.Since(started); got.HostAnswers || got.PortsAnswered != 0 || took > 30*time.Second {
		t.Errorf("%+v after %s", got, took)
	}
	if want := "icmp cancelled, tcp:7946 cancelled, tcp:80 cancelled"; got.How != want {
		t.Errorf("how: %s, want %s", got.How, want)
	}

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if got := (&Prober{}).Probe(ended, Target{Addr: netip.MustParseAddr("127.0.0.1")}, time.Minute); got.HostAnswers {
		t.Errorf("after the end: %+v", got)
	}
}

func TestReason(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{context.DeadlineExceeded, "timeout"},
		{context.Canceled, "cancelled"},
		{&net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, "timeout"},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)}, "host unreachable"},
		{fmt.Errorf("send: %w", syscall.ENETUNREACH), "no route"},
		{fmt.Errorf("open: %w", syscall.EACCES), "permission denied"},
		{errors.New("odd"), "odd"},
	} {
		if got := reason(test.err); got != test.want {
			t.Errorf("%v: %q, want %q", test.err, got, test.want)
		}
	}
}

// pair is two network namespaces, a (10.98.0.1) and b (10.98.0.2), on one wire.
// Nothing leads out of them.
type pair struct {
	t     *testing.T
	names map[string]string
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{t: t, names: map[string]string{}}
	for _, n := range []string{"a", "b"} {
		name := fmt.Sprintf("orchev-%d-%s", os.Getpid(), n)
		p.names[n] = name
		p.run("ip", "netns", "add", name)
		t.Cleanup(func() {
			if out, err := exec.Command("ip", "netns", "del", name).CombinedOutput(); err != nil {
				t.Errorf("delete %s: %v: %s", name, err, out)
			}
		})
	}
	p.run("ip", "-n", p.names["a"], "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", p.names["b"])
	for n, addr := range map[string]string{"a": "10.98.0.1/24", "b": "10.98.0.2/24"} {
		p.run("ip", "-n", p.names[n], "addr", "add", addr, "dev", "wire")
		p.run("ip", "-n", p.names[n], "link", "set", "wire", "up")
		p.run("ip", "-n", p.names[n], "link", "set", "lo", "up")
	}
	return p
}

func (p *pair) run(argv ...string) {
	p.t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		p.t.Fatalf("%s: %v: %s", strings.Join(argv, " "), err, out)
	}
}

func (p *pair) enter(n string, argv ...string) []string {
	return append([]string{"nsenter", "--net=/run/netns/" + p.names[n]}, argv...)
}

func (p *pair) in(n string, argv ...string) {
	p.t.Helper()
	p.run(p.enter(n, argv...)...)
}

// listen accepts connections in b until the test ends.
func (p *pair) listen(addr string) {
	p.t.Helper()
	argv := p.enter("b", os.Args[0])
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", "ORCHEV_ROLE=listen", "ORCHEV_LISTEN="+addr)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { stdin.Close(); cmd.Wait() })
	if n, err := stdout.Read(make([]byte, 32)); n == 0 {
		p.t.Fatalf("listener did not start: %v", err)
	}
}

// probe runs a probe in a, through the given wrapper program, if any.
func (p *pair) probe(order probeOrder, wrapper ...string) Result {
	p.t.Helper()
	if order.Timeout == 0 {
		order.Timeout = time.Second // far above what these links need, for machines that are busy
	}
	text, err := json.Marshal(order)
	if err != nil {
		p.t.Fatal(err)
	}
	argv := p.enter("a", append(wrapper, os.Args[0])...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", "ORCHEV_ROLE=probe", "ORCHEV_PROBE="+string(text))
	out, err := cmd.Output()
	if err != nil {
		p.t.Fatalf("probe: %v: %s", err, out)
	}
	var result Result
	if err := json.Unmarshal(out, &result); err != nil {
		p.t.Fatalf("%v: %s", err, out)
	}
	return result
}

var hostB = netip.MustParseAddr("10.98.0.2")

func TestAcrossAWire(t *testing.T) {
	for _, test := range []struct {
		name          string
		prepare       func(*pair)
		wrapper       []string
		to            netip.Addr // zero: b
		ports         []uint16
		answers       bool
		portsAnswered int
		how           []string
	}{
		{name: "all answers", ports: []uint16{80, 81}, answers: true, portsAnswered: 1,
			prepare: func(p *pair) { p.listen("10.98.0.2:80") }, how: []string{"tcp:80 accepted", "tcp:81 refused"}},
		{name: "icmp alone", answers: true, how: []string{"icmp ", " timeout"}, ports: []uint16{80},
			prepare: func(p *pair) { p.filter("b", "meta l4proto tcp drop") }},
		{name: "a refusal alone", answers: true, how: []string{"tcp:7946 refused", "tcp:80 timeout"}, ports: []uint16{80},
			prepare: func(p *pair) { p.filter("b", "meta l4proto icmp drop", "tcp dport 80 drop") }},
		{name: "everything dropped", how: []string{"icmp timeout", "tcp:7946 timeout", "tcp:80 timeout"}, ports: []uint16{80},
			prepare: func(p *pair) { p.listen("10.98.0.2:80"); p.filter("b", "drop") }},
		{name: "their link down", how: []string{"icmp ", "tcp:7946 ", "tcp:80 "}, ports: []uint16{80},
			prepare: func(p *pair) {
				p.listen("10.98.0.2:80")
				p.run("ip", "-n", p.names["b"], "link", "set", "wire", "down")
			}},
		{name: "our link down", how: []string{"icmp no route", "tcp:7946 no route", "tcp:80 no route"}, ports: []uint16{80},
			prepare: func(p *pair) { p.run("ip", "-n", p.names["a"], "link", "set", "wire", "down") }},
		{name: "unreachable by the table", how: []string{"icmp host unreachable", "tcp:7946 host unreachable"},
			to:      netip.MustParseAddr("10.97.0.1"),
			prepare: func(p *pair) { p.run("ip", "-n", p.names["a"], "route", "add", "unreachable", "10.97.0.0/24") }},
		{name: "nobody has the address", how: []string{"icmp ", "tcp:7946 host unreachable"},
			to: netip.MustParseAddr("10.98.0.77"),
			prepare: func(p *pair) { // ARP gives up within the probe's time
				p.in("a", "sysctl", "-qw", "net.ipv4.neigh.wire.retrans_time_ms=20")
			}},
		{name: "a router says unreachable", how: []string{"icmp timeout", "tcp:7946 host unreachable"},
			to: netip.MustParseAddr("10.97.0.1"),
			prepare: func(p *pair) {
				p.run("ip", "-n", p.names["a"], "route", "add", "10.97.0.0/24", "via", "10.98.0.2")
				p.run("ip", "-n", p.names["b"], "route", "add", "unreachable", "10.97.0.0/24")
				p.in("b", "sysctl", "-qw", "net.ipv4.ip_forward=1")
			}},
		{name: "one echo lost", answers: true, how: []string{"icmp "},
			prepare: func(p *pair) {
				p.filter("b", "meta l4proto tcp drop", "icmp type echo-request numgen inc mod 3 < 1 drop")
			}},
		{name: "without a raw socket", answers: true, how: []string{"icmp "}, wrapper: []string{"setpriv", "--bounding-set=-net_raw"},
			prepare: func(p *pair) {
				p.in("a", "sysctl", "-qw", "net.ipv4.ping_group_range=0 0")
				p.filter("b", "meta l4proto tcp drop")
			}},
		{name: "without any icmp socket", answers: true, how: []string{"icmp permission denied", "tcp:7946 refused"}, ports: []uint16{80},
			wrapper: []string{"setpriv", "--bounding-set=-net_raw"},
			prepare: func(p *pair) { p.filter("b", "tcp dport 80 drop") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newPair(t)
			test.prepare(p)
			to := test.to
			if !to.IsValid() {
				to = hostB
			}
			got := p.probe(probeOrder{Target: Target{Addr: to, Ports: test.ports}}, test.wrapper...)
			if got.HostAnswers != test.answers || got.PortsAsked != len(test.ports) || got.PortsAnswered != test.portsAnswered {
				t.Errorf("%+v", got)
			}
			for _, how := range test.how {
				if !strings.Contains(got.How, how) {
					t.Errorf("how %q does not say %q", got.How, how)
				}
			}
		})
	}
}

// filter adds input rules in a namespace.
func (p *pair) filter(n string, rules ...string) {
	p.t.Helper()
	p.in(n, "nft", "add table ip f; add chain ip f in { type filter hook input priority 0; }")
	for _, rule := range rules {
		p.in(n, "nft", "add rule ip f in "+rule)
	}
}

// TestLinkCutAndHealed: the same host answers, does not, and answers again.
func TestLinkCutAndHealed(t *testing.T) {
	p := newPair(t)
	order := probeOrder{Target: Target{Addr: hostB}, Timeout: 300 * time.Millisecond}
	for _, step := range []struct {
		link string
		want bool
	}{{"up", true}, {"down", false}, {"up", true}} {
		p.run("ip", "-n", p.names["b"], "link", "set", "wire", step.link)
		deadline := time.Now().Add(10 * time.Second) // the wire takes a moment to come up
		got := p.probe(order)
		for got.HostAnswers != step.want && time.Now().Before(deadline) {
			got = p.probe(order)
		}
		if got.HostAnswers != step.want {
			t.Fatalf("link %s: %+v", step.link, got)
		}
	}
}

// What answers at a replica's own address tells of the replica, not of the host.
func TestReplicasAtTheirOwnAddresses(t *testing.T) {
	p := newPair(t)
	p.listen("10.98.0.2:8080")
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr("10.98.0.2"), port) }
	silent := netip.MustParseAddr("10.98.0.9")
	got := p.probe(probeOrder{Target: Target{Addr: silent, Replicas: []netip.AddrPort{at(8080), at(8081)}}})
	if got.HostAnswers || got.PortsAsked != 2 || got.PortsAnswered != 1 ||
		!strings.Contains(got.How, "tcp:10.98.0.2:8080 accepted, tcp:10.98.0.2:8081 refused") {
		t.Errorf("%+v", got)
	}
}
