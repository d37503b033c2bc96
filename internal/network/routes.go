package network

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/orchctl/orch/internal/wire"
)

// The device that packets for nodes on other segments go through.
const (
	// TunnelName is of the device.
	TunnelName = "orch-vxlan"
	// TunnelID is its VXLAN network identifier, TunnelPort the UDP port of all nodes.
	TunnelID   = 0x1001
	TunnelPort = 4789
	// tunnelOverhead is what VXLAN over IPv4 puts around a packet, in bytes: IP 20,
	// UDP 8, VXLAN 8, Ethernet 14.
	tunnelOverhead = 50
	// loopbackMTU stands in for that of loopback, which no link between replicas
	// and node may have.
	loopbackMTU = 1500
)

// RouteProtocol is the number that marks our routes in the kernel.
const RouteProtocol = 79

// Unreachable routes have the metric lastMetric, so that any other for the same
// range goes before.
const lastMetric = 1 << 30

// MAC is a hardware address.
type MAC [6]byte

// TunnelMAC is that of the tunnel's device on the node with an address: it need
// not be asked for.
func TunnelMAC(node netip.Addr) MAC {
	a := node.As4()
	return MAC{0x02, 0x6f, a[0], a[1], a[2], a[3]}
}

// Peer is another node.
type Peer struct {
	Node    string
	Address netip.Addr
	// Subnet is not valid while the node has none.
	Subnet netip.Prefix
}

// Link is the interface that carries the node's own address.
type Link struct {
	Index int
	Name  string
	// Prefix is the node's address with its segment's mask.
	Prefix   netip.Prefix
	MTU      int // bytes
	Loopback bool
}

// HostRoute is a route of the node that is neither ours nor to one of its replicas.
type HostRoute struct {
	Dst netip.Prefix
	// Via is not valid where Dst is on the link itself.
	Via    netip.Addr
	Link   int
	Name   string // of the link
	Metric int
}

func (r HostRoute) String() string {
	s := r.Dst.String()
	if r.Via.IsValid() {
		s += " via " + r.Via.String()
	}
	if r.Name != "" {
		s += " dev " + r.Name
	}
	return s
}

// TunnelLink stands for the tunnel's device where a link's index is wanted.
const TunnelLink = -1

// Route is one of ours.
type Route struct {
	// Link is an interface's index, TunnelLink, or 0: what goes there is refused.
	Link int
	// Via is the next hop; OnLink: it is taken to be on the link.
	Via    netip.Addr
	OnLink bool
	// Src is what the node's own packets come from; not valid: the kernel's choice.
	Src    netip.Addr
	Metric int
}

// Tunnel is the device through which nodes on other segments are reached.
type Tunnel struct {
	// Local is the node's own address.
	Local netip.Addr
	MAC   MAC
	MTU   int // bytes
	// Address is not valid while the node has no subnet.
	Address netip.Addr
}

// Paths is what a node's kernel is to hold so that packets find replicas.
type Paths struct {
	// ReplicaMTU is that of replicas' links, in bytes. A replica keeps that with
	// which it began: where a path has less, the kernel tells it so.
	ReplicaMTU int
	// Gateway is the node's address among its replicas; not valid: it has no subnet.
	Gateway netip.Addr
	// Tunnel is nil where no node needs it.
	Tunnel *Tunnel
	Routes map[netip.Prefix]Route
	// Neighbours are peers' gateways on the tunnel, Forwards their nodes' addresses.
	Neighbours map[netip.Addr]MAC
	Forwards   map[MAC]netip.Addr
	// Lost are the peers that no route leads to.
	Lost []Peer
}

// PathsOf gives the paths of a node. peers are in order of their names: of two
// that hold one subnet the last wins. host tells how peers on other segments are
// reached where they are not to be tunnelled to.
func PathsOf(s Standing, link Link, peers []Peer, host []HostRoute) Paths {
	p := Paths{
		Routes: map[netip.Prefix]Route{}, Neighbours: map[netip.Addr]MAC{}, Forwards: map[MAC]netip.Addr{},
	}
	// What replicas send to addresses that nobody has is refused by the node: it
	// must not leave by the default route.
	refuse := Route{Metric: lastMetric}
	p.Routes[s.Cluster] = refuse
	src := s.Address
	if s.Subnet.IsValid() {
		p.Gateway = Gateway(s.Subnet)
		p.Routes[s.Subnet] = refuse
		src = p.Gateway
	}
	// The node's own packets to virtual IPs must pass the rules with an address that
	// their answers find; without a default route they would not get that far.
	p.Routes[s.Services] = Route{Link: link.Index, Src: s.Address}

	mtu := link.MTU
	if link.Loopback {
		mtu = loopbackMTU
	}
	hops := newHops(s.Routes, host)
	tunnelled := s.Routes == wire.RoutesVXLAN
	for _, peer := range peers {
		if peer.Address == s.Address || !peer.Subnet.IsValid() || peer.Subnet == s.Subnet || !within(s.Cluster, peer.Subnet) {
			continue // with hostNetwork alone, or not of this cluster
		}
		switch {
		case s.Routes != wire.RoutesVXLAN && link.Prefix.Contains(peer.Address) && !link.Prefix.IsSingleIP():
			p.Routes[peer.Subnet] = Route{Link: link.Index, Via: peer.Address}
		case s.Routes == wire.RoutesDirect:
			r, ok := hops.to(peer.Address)
			if !ok {
				p.Lost = append(p.Lost, peer)
				continue
			}
			if !r.Via.IsValid() {
				r.Via = peer.Address
			}
			p.Routes[peer.Subnet] = Route{Link: r.Link, Via: r.Via}
		default:
			gateway, mac := Gateway(peer.Subnet), TunnelMAC(peer.Address)
			p.Routes[peer.Subnet] = Route{Link: TunnelLink, Via: gateway, OnLink: true, Src: src}
			p.Neighbours[gateway], p.Forwards[mac] = mac, peer.Address
			tunnelled = true
		}
	}
	p.ReplicaMTU = mtu
	if tunnelled {
		p.ReplicaMTU = mtu - tunnelOverhead
		p.Tunnel = &Tunnel{Local: s.Address, MAC: TunnelMAC(s.Address), MTU: mtu - tunnelOverhead, Address: p.Gateway}
	}
	return p
}

func within(outer, inner netip.Prefix) bool {
	return inner.Bits() > outer.Bits() && outer.Contains(inner.Addr())
}

// hops finds the host's route to an address: the longest, then the one with the
// least metric.
type hops []HostRoute

func newHops(mode wire.RouteMode, host []HostRoute) hops {
	if mode != wire.RoutesDirect {
		return nil
	}
	h := slices.Clone(host)
	slices.SortFunc(h, func(a, b HostRoute) int {
		return cmp.Or(cmp.Compare(b.Dst.Bits(), a.Dst.Bits()), cmp.Compare(a.Metric, b.Metric), a.Dst.Addr().Compare(b.Dst.Addr()), cmp.Compare(a.Link, b.Link))
	})
	return h
}

func (h hops) to(a netip.Addr) (HostRoute, bool) {
	for _, r := range h {
		if r.Dst.Contains(a) {
			return r, true
		}
	}
	return HostRoute{}, false
}

// defaultBits is up to which length a route is a default one: some programs put
// two halves before the default route instead of replacing it.
const defaultBits = 1

// Overlap tells which of the cluster's ranges the host uses already, and what to
// do; empty: none.
func Overlap(s Standing, host []HostRoute) string {
	for _, r := range []struct {
		what, flag string
		prefix     netip.Prefix
	}{{"cluster", "--cluster-cidr", s.Cluster}, {"service", "--service-cidr", s.Services}} {
		for _, h := range host {
			if h.Dst.Bits() <= defaultBits || !h.Dst.Overlaps(r.prefix) {
				continue
			}
			return fmt.Sprintf("%s range %s overlaps the host's route %s: choose another with %s", r.what, r.prefix, h, r.flag)
		}
		if r.prefix.Contains(s.Address) {
			return fmt.Sprintf("%s range %s holds the node's own address %s: choose another with %s", r.what, r.prefix, s.Address, r.flag)
		}
	}
	return ""
}
