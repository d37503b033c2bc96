package netcheck

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netns"

	"github.com/orchctl/orch/internal/evidence"
	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/wire"
)

// TestMain doubles as the programs that tests start in network namespaces: a
// responder, which runs until its input ends, and a check, which prints its results.
func TestMain(m *testing.M) {
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	switch os.Getenv("ORCHNC_ROLE") {
	case "respond":
		ctx, cancel := context.WithCancel(context.Background())
		r := Responder{Node: os.Getenv("ORCHNC_NODE"), Logger: logger,
			Standing: func() (network.Standing, bool) { return subnet(os.Getenv("ORCHNC_SUBNET")), true }}
		go func() { _, _ = os.Stdin.Read(make([]byte, 1)); cancel() }()
		if err := r.Run(ctx); err != nil {
			panic(err)
		}
	case "names": // until its input ends
		go func() {
			panic(dns.ListenAndServe("10.64.1.1:53", "udp", dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
				m := new(dns.Msg).SetReply(q)
				m.Answer = []dns.RR{&dns.SOA{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeSOA, Class: dns.ClassINET}, Ns: ".", Mbox: "."}}
				_ = w.WriteMsg(m)
			})))
		}()
		_, _ = os.Stdin.Read(make([]byte, 1))
	case "check":
		var x order
		if err := json.Unmarshal([]byte(os.Getenv("ORCHNC_CHECK")), &x); err != nil {
			panic(err)
		}
		c := Checker{Node: x.Node, Standing: x.Standing, Address: x.Address, Peers: x.Peers, Resolvers: x.Resolvers}
		c.Look = func(ctx context.Context, at netip.Addr) (bool, string) {
			got := (&evidence.Prober{}).Probe(ctx, evidence.Target{Addr: at}, 300*time.Millisecond)
			return got.HostAnswers, got.How
		}
		if path := os.Getenv("ORCHNC_REPLICA"); path != "" {
			c.AsReplica = func(_ context.Context, f func()) error {
				ns, err := netns.GetFromPath(path)
				if err != nil {
					return err
				}
				done := make(chan error)
				go func() {
					runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
					err := netns.Set(ns)
					if err == nil {
						f()
					}
					done <- err
				}()
				return <-done
			}
		}
		c.Ailing = func() string { return os.Getenv("ORCHNC_AILING") }
		var all []Result
		c.Run(context.Background(), []string{"n1", "n2", "n3"}, func(r Result) { all = append(all, r) })
		if err := json.NewEncoder(os.Stdout).Encode(all); err != nil {
			panic(err)
		}
	default:
		os.Exit(m.Run())
	}
}

// order is a Checker as it is handed to a process.
type order struct {
	Node      string
	Standing  network.Standing
	Address   netip.Addr
	Peers     map[string]wire.Peer
	Resolvers string
}

func subnet(text string) network.Standing {
	return network.Standing{Subnet: netip.MustParsePrefix(text)}
}

// pair is two nodes on one wire, n1 (192.0.2.1, 10.64.1.0/24) and n2 (192.0.2.2,
// 10.64.2.0/24), with routes to each other. Nothing leads out of them.
type pair struct {
	t     *testing.T
	names map[string]string
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{t: t, names: map[string]string{}}
	for _, n := range []string{"n1", "n2"} {
		name := fmt.Sprintf("orchnc-%d-%s", os.Getpid(), n)
		p.names[n] = name
		p.run("ip", "netns", "add", name)
		t.Cleanup(func() {
			if out, err := exec.Command("ip", "netns", "del", name).CombinedOutput(); err != nil {
				t.Errorf("delete %s: %v: %s", name, err, out)
			}
		})
	}
	p.run("ip", "-n", p.names["n1"], "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", p.names["n2"])
	for i, n := range []string{"n1", "n2"} {
		p.ip(n, "addr", "add", fmt.Sprintf("192.0.2.%d/24", i+1), "dev", "wire")
		p.ip(n, "link", "set", "wire", "up")
		p.ip(n, "link", "set", "lo", "up")
		p.ip(n, "addr", "add", fmt.Sprintf("10.64.%d.1/32", i+1), "dev", "lo")
		p.ip(n, "route", "add", fmt.Sprintf("10.64.%d.0/24", 2-i), "via", fmt.Sprintf("192.0.2.%d", 2-i))
	}
	return p
}

func (p *pair) run(argv ...string) {
	p.t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		p.t.Fatalf("%s: %v: %s", strings.Join(argv, " "), err, out)
	}
}

func (p *pair) ip(n string, argv ...string) {
	p.t.Helper()
	p.run(append([]string{"ip", "-n", p.names[n]}, argv...)...)
}

// filter adds rules for what a node gets.
func (p *pair) filter(n string, rules ...string) {
	p.t.Helper()
	in := []string{"nsenter", "--net=/run/netns/" + p.names[n], "nft"}
	p.run(append(in, "add table ip f; add chain ip f in { type filter hook input priority 0; }")...)
	for _, rule := range rules {
		p.run(append(in, "add rule ip f in "+rule)...)
	}
}

func (p *pair) start(n string, env ...string) *exec.Cmd {
	cmd := exec.Command("nsenter", "--net=/run/netns/"+p.names[n], os.Args[0])
	cmd.Env = append(append(os.Environ(), "GORACE=atexit_sleep_ms=0"), env...)
	cmd.Stderr = os.Stderr
	return cmd
}

// respond answers as a node, until the test ends.
func (p *pair) respond(n, name, subnet string) {
	p.t.Helper()
	cmd := p.start(n, "ORCHNC_ROLE=respond", "ORCHNC_NODE="+name, "ORCHNC_SUBNET="+subnet)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { stdin.Close(); _ = cmd.Wait() })
}

// check has n1 try all.
func (p *pair) check(c Checker, env ...string) map[string]Result {
	p.t.Helper()
	text, err := json.Marshal(order{c.Node, c.Standing, c.Address, c.Peers, c.Resolvers})
	if err != nil {
		p.t.Fatal(err)
	}
	cmd := p.start("n1", append(env, "ORCHNC_ROLE=check", "ORCHNC_CHECK="+string(text))...)
	out, err := cmd.Output()
	if err != nil {
		p.t.Fatalf("check: %v: %s", err, out)
	}
	var list []Result
	if err := json.Unmarshal(out, &list); err != nil {
		p.t.Fatalf("%v: %s", err, out)
	}
	all := map[string]Result{}
	for _, r := range list {
		if _, twice := all[r.Target+" "+r.Check]; twice {
			p.t.Errorf("told twice: %+v", r)
		}
		all[r.Target+" "+r.Check] = r
	}
	return all
}

// ready waits until a node's responder answers n1.
func (p *pair) ready() {
	p.t.Helper()
	for until := time.Now().Add(10 * time.Second); time.Now().Before(until); {
		if r := p.check(checker())["n2 route"]; r.Took < connectMax && !strings.Contains(r.Detail, "refuses") {
			return
		}
	}
	p.t.Fatal("nobody answers")
}

func checker() Checker {
	return Checker{Node: "n1", Address: netip.MustParseAddr("192.0.2.1"), Resolvers: "/nowhere/resolv.conf",
		Standing: network.Standing{Subnet: netip.MustParsePrefix("10.64.1.0/24"), Cluster: netip.MustParsePrefix("10.64.0.0/10"),
			Services: netip.MustParsePrefix("10.128.0.0/14"), Routes: wire.RoutesAuto},
		Peers: map[string]wire.Peer{"n2": {Node: "n2", Address: "192.0.2.2", Subnet: "10.64.2.0/24"}}}
}

func TestBetweenNodes(t *testing.T) {
	for _, test := range []struct {
		name    string
		prepare func(*pair)
		as      string // whom the responder says to be; empty: there is none
		change  func(*Checker)
		env     []string
		ok      []string
		wrong   map[string]string // what is wrong, and words of why
	}{
		{name: "all is well", as: "n2", ok: []string{"n2 route: n2 answers at 10.64.2.1", "n2 mtu: packets of 1500 bytes pass"},
			wrong: map[string]string{"n3 route": "the leader has not told n1 of this node"}},
		{name: "the virtual IP leads to an agent", as: "n2", ok: []string{"n2 route: ", "n1 vip: 10.128.0.1 leads to n2"},
			prepare: func(p *pair) {
				p.run("nsenter", "--net=/run/netns/"+p.names["n1"], "nft", "add table ip f; add chain ip f out { type nat hook output priority -100; }; add rule ip f out ip daddr 10.128.0.1 dnat to 10.64.2.1")
				p.ip("n1", "route", "add", "10.128.0.0/14", "dev", "wire")
			}},
		{name: "the virtual IP leads nowhere", as: "n2", wrong: map[string]string{"n1 vip": "10.128.0.1 is refused: this node's rules do not lead it on"},
			prepare: func(p *pair) { p.ip("n1", "addr", "add", "10.128.0.1/32", "dev", "lo") }},
		{name: "nobody answers names", as: "n2", env: []string{"ORCHNC_AILING=names are not answered: listen on 10.64.1.1:53: address already in use"},
			wrong: map[string]string{"n1 dns": "replicas find no names; the agent's log says why; n1 says: names are not answered: listen on 10.64.1.1:53"}},
		{name: "large packets are lost", as: "n2", wrong: map[string]string{"n2 mtu": "packets to n2 may have 1500 bytes, but only those of up to 1400 come back: large transfers hang. The network between the nodes carries less than its interfaces' MTU promises: lower the MTU of the nodes' interfaces by 100"},
			prepare: func(p *pair) { p.filter("n2", "udp dport 7071 meta length > 1400 drop") }},
		{name: "UDP is lost", as: "n2", wrong: map[string]string{"n2 mtu": "TCP gets through to n2, UDP does not"},
			prepare: func(p *pair) { p.filter("n2", "meta l4proto udp drop") }},
		{name: "the agent is not there", wrong: map[string]string{"n2 route": "10.64.2.1 is reached, but refuses TCP port 7071: does the agent on n2 run"}},
		{name: "two nodes with one subnet", as: "n7", wrong: map[string]string{"n2 route": "10.64.2.1, which belongs to n2, leads to n7: two nodes use one subnet"}},
		{name: "replicas' packets are lost", as: "n2", wrong: map[string]string{"n2 route": "nothing comes back from 10.64.2.1 (no answer within 2s): if both nodes are on one segment, let packets from and to 10.64.0.0/10 pass between the nodes (a cloud's switch may need its source check off), or use --routes vxlan; else let UDP port 4789 pass between 192.0.2.1 and 192.0.2.2"},
			prepare: func(p *pair) { p.filter("n2", "ip daddr 10.64.0.0/10 drop") }},
		{name: "the tunnel is lost", as: "n2", change: func(c *Checker) { c.Standing.Routes = wire.RoutesVXLAN },
			wrong:   map[string]string{"n2 route": "nothing comes back from 10.64.2.1 (no answer within 2s): let UDP port 4789 pass between 192.0.2.1 and 192.0.2.2"},
			prepare: func(p *pair) { p.filter("n2", "ip daddr 10.64.0.0/10 drop") }},
		{name: "the node is down", as: "n2", wrong: map[string]string{"n2 route": "n2 itself (192.0.2.2) does not answer either: icmp timeout, tcp:7946 timeout; is it on"},
			prepare: func(p *pair) { p.filter("n2", "drop") }},
		{name: "no route", as: "n2", wrong: map[string]string{"n2 route": "n1 cannot send to n2's subnet 10.64.2.0/24 (network is unreachable): "},
			prepare: func(p *pair) { p.ip("n1", "route", "del", "10.64.2.0/24") }},
		{name: "no subnet there", as: "n2", change: func(c *Checker) { c.Peers["n2"] = wire.Peer{Node: "n2", Address: "192.0.2.2"} },
			wrong: map[string]string{"n2 route": "the node has no subnet"}},
		{name: "no subnet here", as: "n2", change: func(c *Checker) { c.Standing.Subnet = netip.Prefix{} },
			wrong: map[string]string{"n1 route": "this node has no subnet"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newPair(t)
			if test.as != "" {
				p.respond("n2", test.as, "10.64.2.0/24")
				p.ready()
			}
			if test.prepare != nil {
				test.prepare(p)
			}
			c := checker()
			if test.change != nil {
				test.change(&c)
			}
			all := p.check(c, test.env...)
			for _, want := range test.ok {
				key, words, _ := strings.Cut(want, ": ")
				if r := all[key]; !r.OK || !strings.Contains(r.Detail, words) {
					t.Errorf("%s: %+v, want it good: %q", key, r, words)
				}
			}
			for key, words := range test.wrong {
				if r, ok := all[key]; !ok || r.OK || !strings.Contains(r.Detail, words) {
					t.Errorf("%s: %+v\nwant it wrong: %q", key, r, words)
				}
			}
			if _, ok := all["n2 mtu"]; ok && !all["n2 route"].OK {
				t.Error("sizes are tried though there is no way")
			}
		})
	}
}

// What other programs drop of what replicas send shows, though the node itself gets
// everywhere.
func TestAsReplica(t *testing.T) {
	p := newPair(t)
	p.respond("n2", "n2", "10.64.2.0/24")
	p.ready()
	replica := fmt.Sprintf("orchnc-%d-replica", os.Getpid())
	p.run("ip", "netns", "add", replica)
	t.Cleanup(func() { p.run("ip", "netns", "del", replica) })
	p.ip("n1", "link", "add", "r", "type", "veth", "peer", "name", "eth0", "netns", replica)
	p.ip("n1", "link", "set", "r", "up")
	p.ip("n1", "route", "add", "10.64.1.5/32", "dev", "r")
	p.names["replica"] = replica
	p.ip("replica", "addr", "add", "10.64.1.5/32", "dev", "eth0")
	p.ip("replica", "link", "set", "eth0", "up")
	p.ip("replica", "route", "add", "default", "via", "10.64.1.1", "dev", "eth0", "onlink")
	n1 := []string{"nsenter", "--net=/run/netns/" + p.names["n1"]}
	p.run(append(n1, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")...)
	as := "ORCHNC_REPLICA=/run/netns/" + replica

	server := exec.Command(n1[0], n1[1], os.Args[0])
	server.Env = append(os.Environ(), "ORCHNC_ROLE=names")
	stdin, err := server.StdinPipe()
	if err == nil {
		err = server.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); _ = server.Wait() })
	for until := time.Now().Add(10 * time.Second); !p.check(checker())["n1 dns"].OK; {
		if time.Now().After(until) {
			t.Fatal("nobody answers names")
		}
	}
	if r := p.check(checker(), as)["n1 replica"]; !r.OK || r.Detail != "replicas of n1 get to n2, and to names" {
		t.Errorf("where all is well: %+v", r)
	}
	p.filter("n1", `iifname "r" udp dport 53 drop`)
	if r := p.check(checker(), as)["n1 replica"]; r.OK || !strings.Contains(r.Detail, "replicas of n1 get no answer from its name server at 10.64.1.1 (no answer") {
		t.Errorf("without names: %+v", r)
	}
	p.run(append(n1, "nft", "add chain ip f forward { type filter hook forward priority 0; policy drop; }")...)
	all := p.check(checker(), as)
	if r := all["n1 replica"]; r.OK || !strings.Contains(r.Detail, "n1 itself gets to n2, its replicas do not (no answer within 2s): if a program on the node drops") || !strings.Contains(r.Detail, "have it let 10.64.0.0/10 pass, forwarded") {
		t.Errorf("where nothing is forwarded: %+v", r)
	}
	if r := all["n2 route"]; !r.OK {
		t.Errorf("the node's own way: %+v", r)
	}
	if r := p.check(checker(), "ORCHNC_REPLICA=/nowhere")["n1 replica"]; r.OK || !strings.Contains(r.Detail, "a replica of n1 would get no network: ") {
		t.Errorf("no network: %+v", r)
	}
}

// The responder follows the node's subnet, and answers no answers.
func TestResponder(t *testing.T) {
	var mu sync.Mutex
	var at network.Standing
	stand := func(s network.Standing) { mu.Lock(); at = s; mu.Unlock() }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	r := Responder{Node: "n1", Logger: slog.New(slog.DiscardHandler), Standing: func() (network.Standing, bool) { mu.Lock(); defer mu.Unlock(); return at, at.Subnet.IsValid() }}
	go func() { done <- r.Run(ctx) }()
	answers := func(gateway string) bool {
		who, err := ask(ctx, netip.AddrPortFrom(netip.MustParseAddr(gateway), network.CheckPort))
		return err == nil && who == "n1"
	}
	until := func(what string, f func() bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("it is not so: " + what)
			}
		}
	}
	stand(subnet("127.97.1.0/24"))
	until("it answers", func() bool { return answers("127.97.1.1") })

	conn, err := net.Dial("udp4", "127.97.1.1:7071")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, x := range []struct{ say, hear string }{{"orch-check!0123456789abcdef", ""}, {"anything", ""}, {"orch-check?0123456789abcdef", "orch-check!0123456789abcdef"}} {
		if _, err := conn.Write([]byte(x.say)); err != nil {
			t.Fatal(err)
		}
		wait := 10 * time.Second
		if x.hear == "" {
			wait = 100 * time.Millisecond
		}
		_ = conn.SetReadDeadline(time.Now().Add(wait))
		buf := make([]byte, 100)
		if n, err := conn.Read(buf); string(buf[:n]) != x.hear {
			t.Errorf("to %q it answers %q, %v; want %q", x.say, buf[:n], err, x.hear)
		}
	}

	stand(subnet("127.97.2.0/24"))
	until("it answers elsewhere", func() bool { return answers("127.97.2.1") && !answers("127.97.1.1") })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	ctx = t.Context()
	if answers("127.97.2.1") {
		t.Error("it answers after its end")
	}
}

// name is a name server on a loopback address.
func name(t *testing.T, at string, answer func(q dns.Question, m *dns.Msg)) {
	t.Helper()
	conn, err := net.ListenPacket("udp4", net.JoinHostPort(at, "53"))
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		answer(q.Question[0], m)
		_ = w.WriteMsg(m)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.ActivateAndServe() }()
	t.Cleanup(func() { conn.Close(); <-done })
}

func TestNames(t *testing.T) {
	all := func(q dns.Question, m *dns.Msg) {
		switch q.Qtype {
		case dns.TypeSOA:
			m.Answer = append(m.Answer, &dns.SOA{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeSOA, Class: dns.ClassINET}, Ns: "ns.orch.internal.", Mbox: "x.orch.internal."})
		case dns.TypeNS:
			m.Answer = append(m.Answer, &dns.NS{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeNS, Class: dns.ClassINET}, Ns: "a.root-servers.net."})
		}
	}
	own := func(q dns.Question, m *dns.Msg) {
		if q.Qtype == dns.TypeSOA {
			all(q, m)
			return
		}
		m.Rcode = dns.RcodeServerFailure
	}
	no := func(_ dns.Question, m *dns.Msg) { m.Rcode = dns.RcodeNameError }
	for i, test := range []struct {
		name     string
		own      func(dns.Question, *dns.Msg)
		upstream func(dns.Question, *dns.Msg)
		ok       bool
		detail   string
	}{
		{"all is well", all, all, true, "orch.internal is answered at 127.97.%d.1, other names by 127.97.%[1]d.9"},
		{"not ours", no, all, false, "the name server at 127.97.%d.1 does not know orch.internal (NXDOMAIN): is another program's server there?"},
		{"nobody", nil, all, false, "this node's name server at 127.97.%d.1 does not answer"},
		{"not forwarded", own, all, false, "orch.internal is answered at 127.97.%d.1, but other names are not (SERVFAIL), though the host's server 127.97.%[1]d.9 answers"},
		{"the host has none that answers", own, own, true, "orch.internal is answered at 127.97.%d.1; the host's own name servers (127.97.%[1]d.9) do not answer, so replicas find no other names"},
	} {
		t.Run(test.name, func(t *testing.T) {
			at := fmt.Sprintf("127.97.%d", 100+i)
			if test.own != nil {
				name(t, at+".1", test.own)
			}
			name(t, at+".9", test.upstream)
			conf := t.TempDir() + "/resolv.conf"
			if err := os.WriteFile(conf, []byte("nameserver "+at+".9\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			c := Checker{Node: "n1", Standing: subnet(at + ".0/24"), Resolvers: conf}
			if ok, detail := c.dns(t.Context()); ok != test.ok || !strings.Contains(detail, fmt.Sprintf(test.detail, 100+i)) {
				t.Errorf("%t: %s; want %t: %s", ok, detail, test.ok, fmt.Sprintf(test.detail, 100+i))
			}
		})
	}
	c := Checker{Node: "n1", Standing: subnet("127.97.110.0/24"), Resolvers: "/nowhere"}
	name(t, "127.97.110.1", own)
	if ok, detail := c.dns(t.Context()); !ok || !strings.Contains(detail, "this host has no name servers of its own") {
		t.Errorf("%t: %s", ok, detail)
	}
}
