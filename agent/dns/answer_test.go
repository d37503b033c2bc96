package dns

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/wire"
)

var standing = network.Standing{Address: netip.MustParseAddr("192.0.2.1"), Subnet: netip.MustParsePrefix("10.64.1.0/24"),
	Cluster: netip.MustParsePrefix("10.64.0.0/10"), Services: netip.MustParsePrefix("10.128.0.0/14"), Routes: wire.RoutesAuto}

var replicaAddr = netip.MustParseAddr("10.64.2.9")

func endpoint(key, ip string, more ...any) wire.Endpoint {
	ref, err := api.ParseReplicaRef(key)
	if err != nil {
		panic(err)
	}
	e := wire.Endpoint{Replica: api.ReplicaKey(ref), Node: "n1", IP: ip, NodeIP: "192.0.2.1"}
	for _, m := range more {
		switch m := m.(type) {
		case api.Port:
			e.Ports = append(e.Ports, m)
		case string:
			e.Degraded = m == "degraded"
		}
	}
	return e
}

func svc(ns, name, vip string, ports ...api.Port) wire.Service {
	return wire.Service{Key: api.Key{Namespace: ns, Name: name}, VIP: vip, Ports: ports}
}

var (
	httpPort = api.Port{Name: "http", Port: 8080, Protocol: api.TCP}
	echoPort = api.Port{Name: "echo", Port: 7, Protocol: api.UDP}
)

// fleet is a server with one service of each sort.
func fleet() *Server {
	s := New(Config{Logger: slog.New(slog.DiscardHandler), ResolvConf: "/nonexistent"})
	s.Configure(standing)
	s.Update([]wire.Endpoint{
		endpoint("default/web-0@5", "10.64.1.2", httpPort), endpoint("default/web-1@6", "10.64.2.2", httpPort, echoPort),
		endpoint("default/db-0@1", "10.64.1.3", httpPort), endpoint("default/db-1@2", "10.64.2.3", httpPort), endpoint("default/db-1@9", "10.64.3.3", echoPort),
		endpoint("prod/sick-0@1", "10.64.1.4", "degraded"),
		endpoint("prod/half-0@1", "10.64.1.5", "degraded"), endpoint("prod/half-1@1", "10.64.1.6"),
		endpoint("prod/half-2@3", "10.64.1.7"), endpoint("prod/half-2@4", "10.64.1.8", "degraded"),
		endpoint("kube/hosty-0@1", "192.0.2.1"),
		endpoint("prod/asker-0@1", replicaAddr.String()),
	}, nil, []wire.Service{
		svc("default", "web", "10.128.0.10", httpPort), svc("default", "idle", "10.128.0.11"), svc("default", "db", ""), svc("default", "empty", ""),
		svc("prod", "sick", ""), svc("prod", "half", ""), svc("prod", "asker", "10.128.0.12"), svc("kube", "hosty", ""), svc("prod", "web", "10.128.0.13"),
	}, nil, true)
	return s
}

// ask puts a question to the server as a packet; "" means that it would be passed on.
func ask(t *testing.T, s *Server, from netip.Addr, name, qtype string, change ...func(*dns.Msg)) (*dns.Msg, string) {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, dns.StringToType[qtype])
	for _, f := range change {
		f(m)
	}
	packet, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	q := s.read(packet, from)
	if q == nil {
		return nil, "nothing"
	}
	if q.reply == nil {
		return nil, "passed on"
	}
	return q.reply, words(t, m, q.reply)
}

// words puts an answer on a line, as it comes out of a packet.
func words(t *testing.T, asked, m *dns.Msg) string {
	t.Helper()
	packet, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	got := new(dns.Msg)
	if err := got.Unpack(packet); err != nil {
		t.Fatal(err)
	}
	if got.Id != asked.Id || !got.Response {
		t.Errorf("answer has id %d and response %t, want those of an answer to %d", got.Id, got.Response, asked.Id)
	}
	var list []string
	add := func(mark string, rrs []dns.RR) {
		var part []string
		for _, rr := range rrs {
			if rr.Header().Rrtype == dns.TypeOPT {
				continue
			}
			text := strings.Join(strings.Fields(rr.String())[1:], " ")
			if soa, ok := rr.(*dns.SOA); ok {
				text = fmt.Sprintf("SOA of %s, ttl %d, negative %d", soa.Hdr.Name, soa.Hdr.Ttl, soa.Minttl)
			}
			part = append(part, mark+strings.Replace(text, " IN ", " ", 1))
		}
		slices.Sort(part) // the order is chance
		list = append(list, part...)
	}
	add("", got.Answer)
	add("authority: ", got.Ns)
	add("extra: ", got.Extra)
	head := dns.RcodeToString[got.Rcode]
	if got.Truncated {
		head += " truncated"
	}
	return strings.Join(append([]string{head}, list...), "; ")
}

const (
	noData = "NOERROR; authority: SOA of orch.internal., ttl 1, negative 1"
	noName = "NXDOMAIN; authority: SOA of orch.internal., ttl 1, negative 1"
)

func TestAnswers(t *testing.T) {
	s := fleet()
	for _, c := range []struct{ name, qtype, want string }{
		{"web.default.orch.internal.", "A", "NOERROR; 5 A 10.128.0.10"},
		{"WEB.Default.Orch.Internal.", "A", "NOERROR; 5 A 10.128.0.10"},
		{"web.default.orch.internal.", "ANY", "NOERROR; 5 A 10.128.0.10"},
		{"web.default.orch.internal.", "AAAA", noData},
		{"web.default.orch.internal.", "TXT", noData},
		{"web.default.orch.internal.", "HTTPS", noData},
		{"idle.default.orch.internal.", "A", "NOERROR; 5 A 10.128.0.11"},
		{"db.default.orch.internal.", "A", "NOERROR; 1 A 10.64.1.3; 1 A 10.64.2.3; 1 A 10.64.3.3"},
		{"empty.default.orch.internal.", "A", noData},
		{"sick.prod.orch.internal.", "A", "NOERROR; 1 A 10.64.1.4"},
		{"half.prod.orch.internal.", "A", "NOERROR; 1 A 10.64.1.6; 1 A 10.64.1.7"},
		{"hosty.kube.orch.internal.", "A", "NOERROR; 1 A 192.0.2.1"},

		{"web-0.web.default.orch.internal.", "A", "NOERROR; 1 A 10.64.1.2"},
		{"web-1.web.default.orch.internal.", "AAAA", noData},
		{"db-1.db.default.orch.internal.", "A", "NOERROR; 1 A 10.64.3.3"},  // the newest
		{"half-2.half.prod.orch.internal.", "A", "NOERROR; 1 A 10.64.1.7"}, // the one that can be reached
		{"web-2.web.default.orch.internal.", "A", noName},
		{"web-00.web.default.orch.internal.", "A", noName},
		{"web-.web.default.orch.internal.", "A", noName},
		{"db-0.web.default.orch.internal.", "A", noName},

		{"_http._tcp.web.default.orch.internal.", "SRV", "NOERROR; 5 SRV 0 1 8080 web.default.orch.internal.; extra: 5 A 10.128.0.10"},
		{"_http._tcp.web.default.orch.internal.", "A", noData},
		{"_http._udp.web.default.orch.internal.", "SRV", noName},
		{"_echo._udp.web.default.orch.internal.", "SRV", "NOERROR; 5 SRV 0 1 7 web.default.orch.internal.; extra: 5 A 10.128.0.10"}, // an old replica's
		{"_none._tcp.web.default.orch.internal.", "SRV", noName},
		{"_._tcp.web.default.orch.internal.", "SRV", noName},
		{"_tcp.web.default.orch.internal.", "SRV", noData},
		{"_tcp.none.default.orch.internal.", "SRV", noName},
		{"_http._tcp.db.default.orch.internal.", "SRV", "NOERROR; 1 SRV 0 1 8080 db-0.db.default.orch.internal.; 1 SRV 0 1 8080 db-1.db.default.orch.internal.; extra: 1 A 10.64.1.3; extra: 1 A 10.64.2.3"},
		{"_http._tcp.empty.default.orch.internal.", "SRV", noName},

		{"none.default.orch.internal.", "A", noName},
		{"web.none.orch.internal.", "A", noName},
		{"default.orch.internal.", "A", noData},
		{"none.orch.internal.", "A", noName},
		{"a.b.web.default.orch.internal.", "A", noName},
		{"a.b.c.d.e.f.orch.internal.", "A", noName},
		{`web\.default.orch.internal.`, "A", noName},
		{"orch.internal.", "SOA", "NOERROR; SOA of orch.internal., ttl 5, negative 1"},
		{"orch.internal.", "NS", "NOERROR; 5 NS ns.orch.internal.; extra: 5 A 10.64.1.1"},
		{"orch.internal.", "A", noData},
		{"ns.orch.internal.", "A", "NOERROR; 5 A 10.64.1.1"},

		{"10.0.128.10.in-addr.arpa.", "PTR", "NOERROR; 1 PTR web.default.orch.internal."},
		{"2.1.64.10.in-addr.arpa.", "PTR", "NOERROR; 1 PTR web-0.web.default.orch.internal."},
		{"1.1.64.10.in-addr.arpa.", "PTR", "NOERROR; 1 PTR ns.orch.internal."},
		{"2.1.64.10.in-addr.arpa.", "A", "NOERROR; authority: SOA of 64.10.in-addr.arpa., ttl 1, negative 1"},
		{"99.1.64.10.in-addr.arpa.", "PTR", "NXDOMAIN; authority: SOA of 64.10.in-addr.arpa., ttl 1, negative 1"},
		{"99.9.130.10.in-addr.arpa.", "PTR", "NXDOMAIN; authority: SOA of 130.10.in-addr.arpa., ttl 1, negative 1"},
		{"1.64.10.in-addr.arpa.", "PTR", "NOERROR; authority: SOA of 64.10.in-addr.arpa., ttl 1, negative 1"},
		{"10.in-addr.arpa.", "PTR", "passed on"}, // wider than our range
		{"1.2.0.192.in-addr.arpa.", "PTR", "passed on"},
		{"01.1.64.10.in-addr.arpa.", "PTR", "passed on"},
		{"1.1.1.1.1.in-addr.arpa.", "PTR", "passed on"},

		// Short forms of what exists, and nothing else.
		{"web.default.", "A", "NOERROR; 5 A 10.128.0.10"},
		{"web.default.", "AAAA", noData},
		{"web-0.web.default.", "A", "NOERROR; 1 A 10.64.1.2"},
		{"_http._tcp.web.default.", "SRV", "NOERROR; 5 SRV 0 1 8080 web.default.orch.internal.; extra: 5 A 10.128.0.10"},
		{"web.", "A", "NOERROR; 5 A 10.128.0.13"}, // the asker is in prod
		{"half-1.half.", "A", "NOERROR; 1 A 10.64.1.6"},
		{"idle.", "A", "passed on"},
		{"default.", "A", "passed on"},
		{"web-7.web.default.", "A", "passed on"},
		{"example.com.", "A", "passed on"},
		{"notorch.internal.", "A", "passed on"},
		{"xorch.internal.", "A", "passed on"},
		{".", "NS", "passed on"},
	} {
		if _, got := ask(t, s, replicaAddr, c.name, c.qtype); got != c.want {
			t.Errorf("%s %s:\n got %s\nwant %s", c.name, c.qtype, got, c.want)
		}
	}
	if _, got := ask(t, s, netip.MustParseAddr("127.0.0.1"), "web.", "A"); got != "passed on" {
		t.Errorf("web. asked by the node: got %s, want it passed on: the node is in no namespace", got)
	}
}

// TestQuestionsRefused: what is no proper question, or comes from elsewhere.
func TestQuestionsRefused(t *testing.T) {
	s := fleet()
	const name = "web.default.orch.internal."
	for _, c := range []struct {
		what, from string
		change     func(*dns.Msg)
		want       string
	}{
		{"from outside", "203.0.113.5", func(*dns.Msg) {}, "REFUSED"},
		{"from outside, by IPv6", "2001:db8::1", func(*dns.Msg) {}, "REFUSED"},
		{"from loopback", "127.0.0.1", func(*dns.Msg) {}, "NOERROR; 5 A 10.128.0.10"},
		{"from the node", "192.0.2.1", func(*dns.Msg) {}, "NOERROR; 5 A 10.128.0.10"},
		{"an answer", "10.64.1.2", func(m *dns.Msg) { m.Response = true }, "nothing"},
		{"a transfer", "10.64.1.2", func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAXFR }, "REFUSED"},
		{"another class", "10.64.1.2", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, "REFUSED"},
		{"an update", "10.64.1.2", func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }, "NOTIMP"},
		{"no question", "10.64.1.2", func(m *dns.Msg) { m.Question = nil }, "FORMERR"},
		{"two questions", "10.64.1.2", func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, "FORMERR"},
		{"a later EDNS", "10.64.1.2", func(m *dns.Msg) { m.SetEdns0(4096, false); m.IsEdns0().SetVersion(1) }, "BADVERS"},
		{"no recursion", "10.64.1.2", func(m *dns.Msg) { m.RecursionDesired = false }, "NOERROR; 5 A 10.128.0.10"},
		{"no recursion for others", "10.64.1.2", func(m *dns.Msg) { m.RecursionDesired = false; m.Question[0].Name = "example.com." }, "REFUSED"},
	} {
		_, got := ask(t, s, netip.MustParseAddr(c.from), name, "A", c.change)
		got = strings.Replace(got, "BADSIG", "BADVERS", 1) // one number, two names
		if got != c.want {
			t.Errorf("%s: got %s, want %s", c.what, got, c.want)
		}
	}
	// A node that stands nowhere answers itself alone.
	s.Configure(network.Standing{Address: standing.Address})
	if _, got := ask(t, s, replicaAddr, name, "A"); got != "REFUSED" {
		t.Errorf("without a place: got %s, want REFUSED", got)
	}
}

// TestSize: an answer fits what the asker can take, and all replicas are in it in turn.
func TestSize(t *testing.T) {
	s := fleet()
	var put []wire.Endpoint
	for i := range 3000 {
		put = append(put, endpoint(fmt.Sprintf("default/many-%d@%d", i, i+1), netip.AddrFrom4([4]byte{10, 65, byte(i >> 8), byte(i)}).String(), httpPort))
	}
	s.Update(put, nil, []wire.Service{svc("default", "many", "")}, nil, false)
	edns := func(size uint16) func(*dns.Msg) { return func(m *dns.Msg) { m.SetEdns0(size, true) } }
	for _, name := range []string{"many.default.orch.internal.", "_http._tcp.many.default.orch.internal."} {
		qtype := "A"
		if strings.HasPrefix(name, "_") {
			qtype = "SRV"
		}
		for _, c := range []struct {
			most   int
			change func(*dns.Msg)
		}{{512, func(*dns.Msg) {}}, {512, edns(100)}, {800, edns(800)}, {packetMax, edns(4096)}, {packetMax, edns(65535)}} {
			m, _ := ask(t, s, replicaAddr, name, qtype, c.change)
			packet, err := m.Pack()
			if err != nil {
				t.Fatal(err)
			}
			if len(packet) > c.most || len(packet) < c.most/2 || !m.Truncated || len(m.Answer) == 0 {
				t.Errorf("%s: %d bytes with %d records, truncated %t; want at most %d, filled", name, len(packet), len(m.Answer), m.Truncated, c.most)
			}
		}
	}
	got := s.take(new(dns.Msg).SetQuestion("many.default.orch.internal.", dns.TypeA), replicaAddr, true).reply
	if len(got.Answer) != 3000 || got.Truncated {
		t.Errorf("by TCP: %d records, truncated %t; want all 3000", len(got.Answer), got.Truncated)
	}
	if packet, err := got.Pack(); err != nil || len(packet) > streamMax {
		t.Errorf("by TCP: %d bytes, %v", len(packet), err)
	}

	// Each of three comes first about as often as the others: chi-square with two
	// degrees of freedom stays below 13.8 in 999 of 1,000 runs.
	first := map[string]int{}
	const tries = 3000
	for range tries {
		m, _ := ask(t, s, replicaAddr, "db.default.orch.internal.", "A")
		first[m.Answer[0].(*dns.A).A.String()]++
	}
	var chi float64
	for _, n := range first {
		chi += float64((n-tries/3)*(n-tries/3)) / (tries / 3)
	}
	if len(first) != 3 || chi > 20 {
		t.Errorf("who comes first: %v, chi-square %.1f", first, chi)
	}
}

// FuzzPacket: whatever comes, the answer can be written, is an answer to it, and is
// not larger than allowed.
func FuzzPacket(f *testing.F) {
	for _, name := range []string{"web.default.orch.internal.", "db.default.orch.internal.", "_http._tcp.db.default.orch.internal.", "10.0.128.10.in-addr.arpa.", "example.com.", "."} {
		m := new(dns.Msg).SetQuestion(name, dns.TypeANY)
		m.SetEdns0(1400, true)
		packet, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packet)
		f.Add(packet[:len(packet)-5])
	}
	f.Add([]byte{})
	s := fleet()
	f.Fuzz(func(t *testing.T, packet []byte) {
		q := s.read(packet, replicaAddr)
		if q == nil || q.reply == nil {
			return
		}
		out, err := q.reply.Pack()
		if err != nil {
			t.Fatalf("answer to %x cannot be written: %v", packet, err)
		}
		if len(out) > packetMax || out[0] != packet[0] || out[1] != packet[1] || out[2]&0x80 == 0 || packet[2]&0x80 != 0 {
			t.Fatalf("%x was answered with %x", packet, out)
		}
	})
}
