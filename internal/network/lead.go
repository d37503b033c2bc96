package network

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// part is what one service has in the table: chains and sets of its own, and
// elements of the sets that all share.
type part struct {
	chains   map[string]Chain
	sets     map[string]Set
	elements map[string]map[string]string
}

func (p part) empty() bool { return len(p.chains)+len(p.sets)+len(p.elements) == 0 }

// target is a port of an endpoint to which traffic can be led.
type target struct {
	replica api.ReplicaKey
	ip      netip.Addr
	port    int
	// local: it is on this node; host: its address is its node's.
	local, host bool
}

// at is a port with its protocol, in the words of nft.
type at struct {
	proto string
	port  int
}

func (a at) String() string { return fmt.Sprintf("%s . %d", a.proto, a.port) }

// AffinitySizeMax bounds the clients that are remembered for one replica: a flood
// of sources must not take the kernel's memory.
const AffinitySizeMax = 65536

// part computes what a service has in the table.
func (p *Picture) part(k api.Key) part {
	out := part{chains: map[string]Chain{}, sets: map[string]Set{}, elements: map[string]map[string]string{}}
	s := p.services[k]
	vips, published := map[at][]target{}, map[at][]target{}
	for _, e := range p.usable(k) {
		ip, err := netip.ParseAddr(e.IP)
		if err != nil || !ip.Is4() {
			continue // nobody can be led there
		}
		t := target{replica: e.Replica, ip: ip, local: e.NodeIP == p.self.Address.String(), host: e.IP == e.NodeIP}
		for _, port := range e.Ports {
			proto := protocol(port.Protocol)
			if proto == "" || !number(port.Port) {
				continue // one word that nft does not take would cost all services their changes
			}
			t.port = port.Port
			vips[at{proto, port.Port}] = append(vips[at{proto, port.Port}], t)
			if number(port.Publish) && (port.Mode != api.PublishHost || t.local && !t.host) {
				published[at{proto, port.Publish}] = append(published[at{proto, port.Publish}], t)
			}
		}
	}
	if vip, err := netip.ParseAddr(s.VIP); err == nil && vip.Is4() {
		for a, targets := range vips {
			name := ident("svc-", fmt.Sprintf("%s/%s-%s-%d", k.Namespace, k.Name, a.proto, a.port))
			p.lead(&out, s, name, a.proto, targets)
			out.element(setServices, vip.String()+" . "+a.String(), "goto "+name)
		}
	}
	for a, targets := range published {
		// One that uses the node's own network listens there itself. Leading away
		// what others lead here would send it in circles.
		if slices.ContainsFunc(targets, func(t target) bool { return t.local && t.host && t.port == a.port }) {
			continue
		}
		name := ident("pub-", fmt.Sprintf("%s/%s-%s-%d", k.Namespace, k.Name, a.proto, a.port))
		p.lead(&out, s, name, a.proto, targets)
		out.element(setPorts, a.String(), "goto "+name)
	}
	return out
}

// usable are the endpoints that get traffic, in order: those that are well, or
// else those that are the least bad.
func (p *Picture) usable(k api.Key) []wire.Endpoint {
	var best []wire.Endpoint
	worst := 4
	for _, e := range p.endpoints[k] {
		bad := 0
		if p.ejected[e.Replica] {
			bad += 2 // it does not answer this very node
		}
		if e.Degraded {
			bad++
		}
		if bad < worst {
			best, worst = nil, bad
		}
		if bad == worst {
			best = append(best, e)
		}
	}
	slices.SortFunc(best, func(a, b wire.Endpoint) int { return compareReplicas(a.Replica, b.Replica) })
	return best
}

// lead makes the chain that spreads connections over targets.
func (p *Picture) lead(out *part, s wire.Service, name, proto string, targets []target) {
	if s.TrafficDistribution == api.PreferSameNode {
		if local := filter(targets, func(t target) bool { return t.local }); len(local) > 0 {
			targets = local
		}
	}
	var once []target
	seen := map[netip.AddrPort]bool{}
	for _, t := range targets {
		where := netip.AddrPortFrom(t.ip, uint16(t.port))
		if seen[where] {
			continue
		}
		seen[where] = true
		once = append(once, t)
		switch {
		case t.local && !t.host:
			out.element(setHairpin, fmt.Sprintf("%s . %s", t.ip, t.ip), "")
		case t.host && !t.local:
			out.element(setHosts, fmt.Sprintf("%s . %s . %d", t.ip, proto, t.port), "")
		}
	}
	if s.SessionAffinity == api.AffinityClientIP {
		out.sticky(name, proto, once)
		return
	}
	if len(once) == 1 {
		out.chains[name] = Chain{Rules: []Rule{rule("meta l4proto %s dnat ip to %s:%d", proto, once[0].ip, once[0].port)}}
		return
	}
	var choices []string
	for i, t := range once {
		choices = append(choices, fmt.Sprintf("%d : %s . %d", i, t.ip, t.port))
	}
	out.chains[name] = Chain{Rules: []Rule{rule("meta l4proto %s dnat ip to numgen random mod %d map { %s }", proto, len(once), strings.Join(choices, ", "))}}
}

// sticky makes a chain that sends a client where it was sent before. Each replica
// has a set of its clients, so that one that goes takes no others' clients along.
func (out *part) sticky(name, proto string, targets []target) {
	var known []Rule
	var choices []string
	for i, t := range targets {
		r := fmt.Sprintf("%s/%s-%d-%d", t.replica.Namespace, t.replica.Service, t.replica.Slot, t.replica.Epoch)
		clients, to := ident("aff-", r), ident("ep-", fmt.Sprintf("%s-%s-%d", r, proto, t.port))
		out.sets[clients] = Set{Key: "ipv4_addr", Timeout: int(api.AffinityTimeout / time.Second)}
		out.chains[to] = Chain{Rules: []Rule{
			rule("update @%s { ip saddr }", clients),
			rule("meta l4proto %s dnat ip to %s:%d", proto, t.ip, t.port),
		}}
		known = append(known, rule("ip saddr @%s goto %s", clients, to))
		choices = append(choices, fmt.Sprintf("%d : goto %s", i, to))
	}
	// Spaces on both sides of the comma: knftables knows chains by them.
	out.chains[name] = Chain{Rules: append(known, rule("numgen random mod %d vmap { %s }", len(targets), strings.Join(choices, " , ")))}
}

func (out *part) element(set, key, value string) { element(&out.elements, set, key, value) }

// nameMax is what nft takes as the name of a chain or a set.
const nameMax = 127

// ident gives a name that nft takes: what is too long, or written in other letters
// than those of services' names, ends in a hash.
func ident(prefix, name string) string {
	ok := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '/' || r == '.'
	}
	if len(prefix)+len(name) <= nameMax && strings.IndexFunc(name, func(r rune) bool { return !ok(r) }) < 0 {
		return prefix + name
	}
	readable := strings.Map(func(r rune) rune {
		if ok(r) {
			return r
		}
		return -1
	}, name)
	h := "_" + hash(name) // no name holds an underscore, so none is like this
	return prefix + readable[:min(len(readable), nameMax-len(prefix)-len(h))] + h
}

func protocol(p api.Protocol) string {
	switch p {
	case "", api.TCP:
		return "tcp"
	case api.UDP:
		return "udp"
	}
	return ""
}

// number tells whether a port can have it.
func number(port int) bool { return port > 0 && port <= api.MaxPort }

func filter[T any](all []T, keep func(T) bool) []T {
	var out []T
	for _, v := range all {
		if keep(v) {
			out = append(out, v)
		}
	}
	return out
}

func compareKeys(a, b api.Key) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

func compareReplicas(a, b api.ReplicaKey) int {
	return cmp.Or(compareKeys(a.ServiceKey(), b.ServiceKey()), cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Epoch, b.Epoch))
}
