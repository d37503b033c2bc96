package dns

import (
	"context"
	"encoding/binary"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"github.com/orchctl/orch/internal/network"
)

// query is one question: answered, or to be passed on.
type query struct {
	m    *dns.Msg
	q    dns.Question // the name in lower case
	from netip.Addr
	size int // how much the answer may hold
	tcp  bool
	// reply is nil where the host's servers must be asked.
	reply *dns.Msg
}

// read takes a packet; nil: it deserves no answer.
func (s *Server) read(packet []byte, from netip.Addr) *query {
	m := new(dns.Msg)
	if err := m.Unpack(packet); err != nil {
		const header = 12
		if len(packet) < header || packet[2]&0x80 != 0 {
			return nil // no question: an answer to it could be answered for ever
		}
		bad := new(dns.Msg)
		bad.Id, bad.Response, bad.Rcode = binary.BigEndian.Uint16(packet), true, dns.RcodeFormatError
		return &query{reply: bad}
	}
	if m.Response {
		return nil
	}
	return s.take(m, from, false)
}

// take answers a question if the node itself knows.
func (s *Server) take(m *dns.Msg, from netip.Addr, tcp bool) *query {
	q := &query{m: m, from: from, tcp: tcp, size: packetPlain}
	opt := m.IsEdns0()
	if opt != nil {
		q.size = min(max(int(opt.UDPSize()), packetPlain), packetMax)
	}
	if tcp {
		q.size = streamMax
	}
	place := s.place.Load()
	switch {
	case !s.allowed(place, from):
		q.reply = q.fail(dns.RcodeRefused)
	case m.Opcode != dns.OpcodeQuery:
		q.reply = q.fail(dns.RcodeNotImplemented)
	case len(m.Question) != 1:
		q.reply = q.fail(dns.RcodeFormatError)
	case opt != nil && opt.Version() != 0:
		q.reply = q.fail(dns.RcodeBadVers)
	case m.Question[0].Qclass != dns.ClassINET || m.Question[0].Qtype == dns.TypeAXFR || m.Question[0].Qtype == dns.TypeIXFR:
		q.reply = q.fail(dns.RcodeRefused)
	}
	if q.reply != nil {
		return q
	}
	q.q = m.Question[0]
	q.q.Name = strings.ToLower(q.q.Name)
	if a, ours := s.local(place, q); ours {
		q.reply = q.answer(a)
	} else if !m.RecursionDesired {
		q.reply = q.fail(dns.RcodeRefused)
	}
	return q
}

// allowed tells whether somebody is answered: replicas and the node itself. All
// others are refused, so that nobody outside can use the node against a third.
func (s *Server) allowed(p *place, from netip.Addr) bool {
	return p.cluster.IsValid() && p.cluster.Contains(from) || from.IsLoopback() || from == p.node || s.hosts.has(from)
}

// ask has the host's servers answer; nil: ctx ended.
func (s *Server) ask(ctx context.Context, q *query) *dns.Msg {
	opt := q.m.IsEdns0()
	r, err := s.forward.resolve(ctx, question{name: q.q.Name, qtype: q.q.Qtype, dnssec: opt != nil && opt.Do(), unchecked: q.m.CheckingDisabled})
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return q.fail(dns.RcodeServerFailure)
	}
	m := q.fail(r.Rcode)
	m.RecursionAvailable, m.AuthenticatedData = true, r.AuthenticatedData
	m.Answer, m.Ns = r.Answer, r.Ns
	for _, rr := range r.Extra {
		if rr.Header().Rrtype != dns.TypeOPT {
			m.Extra = append(m.Extra, rr)
		}
	}
	m.Truncate(q.size)
	return m
}

// fail is an answer that holds a code alone.
func (q *query) fail(code int) *dns.Msg {
	m := new(dns.Msg)
	m.SetRcode(q.m, code&0xf)
	m.RecursionAvailable = true
	if opt := q.m.IsEdns0(); opt != nil {
		m.SetEdns0(packetMax, opt.Do())
		m.Rcode = code
	}
	return m
}

// answer is what the node itself says.
func (q *query) answer(a answer) *dns.Msg {
	m := q.fail(a.code)
	m.Authoritative = true
	m.Answer, m.Ns = a.records, a.authority
	m.Extra = append(m.Extra, a.extra...)
	m.Truncate(q.size)
	return m
}

// local answers what is ours: names in our zone, addresses in our ranges, and short
// names that a service of ours has. The second value is false for all else.
func (s *Server) local(p *place, q *query) (answer, bool) {
	name := q.q.Name
	if rest, ok := inZone(name); ok {
		return s.zoned(p, q, rest), true
	}
	if a, bits, ok := reversed(name); ok {
		return s.reverse(p, q, a, bits)
	}
	return s.short(p, q, name)
}

// inZone gives what stands before our domain.
func inZone(name string) (rest string, ok bool) {
	if name == zone {
		return "", true
	}
	return strings.CutSuffix(name, "."+zone)
}

// short answers names that lack our domain, for programs that do not use the search
// list of resolv.conf, or ask for what has many dots as it stands first. Only what
// exists is answered: all else may well be a name outside.
func (s *Server) short(p *place, q *query, name string) (answer, bool) {
	name = strings.TrimSuffix(name, ".")
	dots := strings.Count(name, ".")
	if name == "" || dots > 3 || strings.ContainsRune(name, '\\') {
		return answer{}, false
	}
	if o, ok := s.names.owner(q.from); ok && o.replica.Epoch != 0 {
		if a := s.zoned(p, q, name+"."+o.service.Namespace); a.code == dns.RcodeSuccess {
			return a, true
		}
	}
	if dots == 0 {
		return answer{}, false // that would be a namespace
	}
	a := s.zoned(p, q, name)
	return a, a.code == dns.RcodeSuccess
}

// reversed reads the name of an address: bits are how many of it stand there.
func reversed(name string) (a netip.Addr, bits int, ok bool) {
	rest, ok := strings.CutSuffix(name, ".in-addr.arpa.")
	if !ok {
		return netip.Addr{}, 0, false
	}
	labels := strings.Split(rest, ".")
	if len(labels) > 4 {
		return netip.Addr{}, 0, false
	}
	var b [4]byte
	for i, l := range labels {
		v, err := octet(l)
		if err != nil {
			return netip.Addr{}, 0, false
		}
		b[len(labels)-1-i] = v
	}
	return netip.AddrFrom4(b), 8 * len(labels), true
}

// gatewayName is the name server's own, with the address of the node that is asked.
const gatewayName = "ns." + zone

func (p *place) isGateway(a netip.Addr) bool {
	if !p.cluster.IsValid() || !p.cluster.Contains(a) || p.subnetBits == 0 {
		return false
	}
	return a == network.Gateway(netip.PrefixFrom(a, p.subnetBits))
}
