package dns

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"github.com/orchctl/orch/api"
)

// answer is what a question about our own names gets.
type answer struct {
	code                      int
	records, authority, extra []dns.RR
}

// zoned answers for a name in our zone; rest is what stands before the domain.
//
//	""                      the zone: SOA, NS
//	default                 a namespace: exists, and has nothing of its own
//	web.default             a service
//	web-0.web.default       a slot
//	_tcp.web.default        exists where the service does
//	_http._tcp.web.default  a named port
func (s *Server) zoned(p *place, q *query, rest string) answer {
	if rest == "" {
		return s.apex(p, q)
	}
	if strings.ContainsRune(rest, '\\') {
		return s.none(dns.RcodeNameError, zone) // an escaped letter is in no name of ours
	}
	labels := strings.Split(rest, ".")
	last := len(labels) - 1
	if last == 0 {
		if rest == "ns" {
			return s.addresses(q, []netip.Addr{p.listen.Addr()}, ttlStays)
		}
		if s.names.hasNamespace(rest) {
			return s.none(dns.RcodeSuccess, zone)
		}
		return s.none(dns.RcodeNameError, zone)
	}
	key := api.Key{Namespace: labels[last], Name: labels[last-1]}
	svc := s.names.service(key)
	switch {
	case svc == nil || last > 3:
	case last == 1:
		return s.service(q, svc)
	case last == 2 && (labels[0] == "_tcp" || labels[0] == "_udp"):
		return s.none(dns.RcodeSuccess, zone)
	case last == 2:
		if slot, ok := slotOf(labels[0], key.Name); ok {
			if t, ok := svc.slots[slot]; ok {
				return s.addresses(q, []netip.Addr{t.ip}, ttlMoves)
			}
		}
	case strings.HasPrefix(labels[0], "_") && (labels[1] == "_tcp" || labels[1] == "_udp"):
		return s.port(q, key, svc, labels[0][1:], api.Protocol(strings.ToUpper(labels[1][1:])))
	}
	return s.none(dns.RcodeNameError, zone)
}

// apex answers for the zone itself.
func (s *Server) apex(p *place, q *query) answer {
	switch q.q.Qtype {
	case dns.TypeSOA, dns.TypeANY:
		return answer{records: []dns.RR{s.soa(q.header(dns.TypeSOA, ttlStays))}}
	case dns.TypeNS:
		a := answer{records: []dns.RR{&dns.NS{Hdr: q.header(dns.TypeNS, ttlStays), Ns: gatewayName}}}
		if p.listen.IsValid() {
			a.extra = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: gatewayName, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ttlStays}, A: p.listen.Addr().AsSlice()}}
		}
		return a
	}
	return s.none(dns.RcodeSuccess, zone)
}

func (s *Server) service(q *query, svc *service) answer {
	if svc.vip.IsValid() {
		return s.addresses(q, []netip.Addr{svc.vip}, ttlStays)
	}
	some := sample(svc.ready, q.records())
	list := make([]netip.Addr, len(some))
	for i, t := range some {
		list[i] = t.ip
	}
	return s.addresses(q, list, ttlMoves)
}

// addresses answers for a name that exists and has these.
func (s *Server) addresses(q *query, list []netip.Addr, ttl uint32) answer {
	var a answer
	for _, x := range list {
		switch t := q.q.Qtype; {
		case x.Is4() && (t == dns.TypeA || t == dns.TypeANY):
			a.records = append(a.records, &dns.A{Hdr: q.header(dns.TypeA, ttl), A: x.AsSlice()})
		case x.Is6() && (t == dns.TypeAAAA || t == dns.TypeANY):
			a.records = append(a.records, &dns.AAAA{Hdr: q.header(dns.TypeAAAA, ttl), AAAA: x.AsSlice()})
		}
	}
	if len(a.records) == 0 {
		return s.none(dns.RcodeSuccess, zone)
	}
	return a
}

// port answers SRV for a named port: one record that leads to the virtual IP, or one
// for each replica of a headless service.
func (s *Server) port(q *query, key api.Key, svc *service, name string, proto api.Protocol) answer {
	newest, ok := numberOf(svc.ports, name, proto)
	if svc.vip.IsValid() {
		for i := 0; !ok && i < len(svc.ready); i++ {
			// A port that the newest revision no longer has, while old replicas run.
			newest, ok = numberOf(svc.ready[i].ports, name, proto)
		}
		if !ok {
			return s.none(dns.RcodeNameError, zone)
		}
		if !q.asks(dns.TypeSRV) {
			return s.none(dns.RcodeSuccess, zone)
		}
		target := serviceName(key)
		return answer{records: []dns.RR{q.srv(newest, target, ttlStays)}, extra: []dns.RR{addressRecord(target, svc.vip, ttlStays)}}
	}
	var a answer
	for _, t := range sample(svc.ready, q.records()) {
		number, has := numberOf(t.ports, name, proto)
		if !has {
			continue
		}
		ok = true
		target := replicaName(t.key)
		a.records = append(a.records, q.srv(number, target, ttlMoves))
		a.extra = append(a.extra, addressRecord(target, t.ip, ttlMoves))
	}
	switch {
	case !ok:
		return s.none(dns.RcodeNameError, zone)
	case len(a.records) == 0 || !q.asks(dns.TypeSRV):
		return s.none(dns.RcodeSuccess, zone)
	}
	return a
}

func numberOf(ports []api.Port, name string, proto api.Protocol) (int, bool) {
	for _, p := range ports {
		if p.Name == name && p.Name != "" && p.Transport() == proto {
			return p.Port, true
		}
	}
	return 0, false
}

// reverse answers PTR for addresses in our ranges. The second value is false for
// those of others.
func (s *Server) reverse(p *place, q *query, a netip.Addr, bits int) (answer, bool) {
	r := p.cluster
	if !r.IsValid() || !r.Contains(a) {
		r = p.services
	}
	if !r.IsValid() || !r.Contains(a) || bits < r.Bits() {
		return answer{}, false // or a part of it that is wider than our range
	}
	apex := reverseZone(a, r.Bits())
	if bits < 32 {
		return s.none(dns.RcodeSuccess, apex), true
	}
	name := ""
	if o, ok := s.names.owner(a); ok && o.replica.Epoch != 0 {
		name = replicaName(o.replica)
	} else if ok {
		name = serviceName(o.service)
	} else if p.listen.IsValid() && a == p.listen.Addr() {
		name = gatewayName
	}
	switch {
	case name == "":
		return s.none(dns.RcodeNameError, apex), true
	case !q.asks(dns.TypePTR):
		return s.none(dns.RcodeSuccess, apex), true
	}
	return answer{records: []dns.RR{&dns.PTR{Hdr: q.header(dns.TypePTR, ttlMoves), Ptr: name}}}, true
}

// reverseZone is the zone of an address: the widest on a byte's boundary that lies
// within a range of so many bits.
func reverseZone(a netip.Addr, bits int) string {
	b, whole := a.As4(), min((bits+7)/8, 3)
	name := "in-addr.arpa."
	for i := range whole {
		name = strconv.Itoa(int(b[i])) + "." + name
	}
	return name
}

// none says that a name does not exist, or has nothing of what was asked.
func (s *Server) none(code int, apex string) answer {
	return answer{code: code, authority: []dns.RR{s.soa(dns.RR_Header{Name: apex, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttlMoves})}}
}

func (s *Server) soa(h dns.RR_Header) dns.RR {
	return &dns.SOA{Hdr: h, Ns: gatewayName, Mbox: "hostmaster." + zone, Serial: s.names.version(), Refresh: 3600, Retry: 600, Expire: 86400, Minttl: ttlMoves}
}

// header is that of a record which answers the question, with the name as it was
// written there.
func (q *query) header(t uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: q.m.Question[0].Name, Rrtype: t, Class: dns.ClassINET, Ttl: ttl}
}

func (q *query) srv(port int, target string, ttl uint32) dns.RR {
	return &dns.SRV{Hdr: q.header(dns.TypeSRV, ttl), Weight: 1, Port: uint16(port), Target: target}
}

func (q *query) asks(t uint16) bool { return q.q.Qtype == t || q.q.Qtype == dns.TypeANY }

// records is how many of a name's are worth a try.
func (q *query) records() int {
	if q.tcp {
		return tcpRecords
	}
	return udpRecords
}

func addressRecord(name string, a netip.Addr, ttl uint32) dns.RR {
	h := dns.RR_Header{Name: name, Class: dns.ClassINET, Ttl: ttl}
	if a.Is6() {
		h.Rrtype = dns.TypeAAAA
		return &dns.AAAA{Hdr: h, AAAA: a.AsSlice()}
	}
	h.Rrtype = dns.TypeA
	return &dns.A{Hdr: h, A: a.AsSlice()}
}

// sample gives up to n of a list in random order, each as likely as any other. It
// costs n, however long the list is.
func sample(list []target, n int) []target {
	n = min(n, len(list))
	if n == 0 {
		return nil
	}
	some := make([]target, n)
	at := rand.IntN(len(list))
	for i := range some {
		some[i] = list[(at+i)%len(list)]
	}
	rand.Shuffle(n, func(i, j int) { some[i], some[j] = some[j], some[i] })
	return some
}

func octet(s string) (byte, error) {
	v, err := strconv.ParseUint(s, 10, 8)
	if err == nil && strconv.FormatUint(v, 10) != s {
		err = fmt.Errorf("octet %q has a sign or leading zeros", s)
	}
	return byte(v), err
}
