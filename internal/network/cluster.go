package network

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/orchctl/orch/internal/wire"
)

// Cluster is the replicas' network as a whole. It is decided once, when the
// cluster is made, and kept in the store.
type Cluster struct {
	// Nodes is cut into subnets of 2^(32-NodeBits) addresses, one for each node.
	Nodes    netip.Prefix `json:"nodes"`
	NodeBits int          `json:"nodeBits"`
	// Services holds the virtual IPs.
	Services netip.Prefix `json:"services"`
	// Routes says how packets get from node to node.
	Routes wire.RouteMode `json:"routes"`
}

// DefaultCluster is 16,384 subnets of 256 addresses, and 262,144 virtual IPs.
func DefaultCluster() Cluster {
	return Cluster{Nodes: netip.MustParsePrefix("10.64.0.0/10"), NodeBits: 24, Services: netip.MustParsePrefix("10.128.0.0/14"), Routes: wire.RoutesAuto}
}

// The least and the most that a subnet of a node may hold.
const (
	minNodeBits = 16
	maxNodeBits = 28 // 16 addresses: fewer are used up by a node's own
)

const (
	// rangeBitsMin: no network has more addresses to give away than 10.0.0.0/8.
	rangeBitsMin = 8
	// servicesBitsMax: a narrower range is used up by ReservedVIPs.
	servicesBitsMax = 28
)

// Validate tells what is wrong, and what would be right.
func (c Cluster) Validate() error {
	switch {
	case !usable(c.Nodes):
		return fmt.Errorf("%s %s: want an IPv4 range for replicas, of /8 or narrower, neither loopback nor multicast, such as 10.64.0.0/10", FlagNodes, c.Nodes)
	case !usable(c.Services):
		return fmt.Errorf("%s %s: want an IPv4 range for virtual IPs, of /8 or narrower, neither loopback nor multicast, such as 10.128.0.0/14", FlagServices, c.Services)
	case c.NodeBits < minNodeBits || c.NodeBits > maxNodeBits:
		return fmt.Errorf("%s %d: want %d to %d; 24 gives each node 256 addresses", FlagNodeBits, c.NodeBits, minNodeBits, maxNodeBits)
	case c.NodeBits < c.Nodes.Bits():
		return fmt.Errorf("%s %d: a subnet of that size is larger than %s %s", FlagNodeBits, c.NodeBits, FlagNodes, c.Nodes)
	case c.Services.Bits() > servicesBitsMax:
		return fmt.Errorf("%s %s: want a /%d or wider", FlagServices, c.Services, servicesBitsMax)
	case c.Nodes.Overlaps(c.Services):
		return fmt.Errorf("%s %s and %s %s overlap: choose ranges that do not", FlagNodes, c.Nodes, FlagServices, c.Services)
	}
	switch c.Routes {
	case wire.RoutesAuto, wire.RoutesDirect, wire.RoutesVXLAN:
		return nil
	}
	return fmt.Errorf("%s %q: want auto, direct or vxlan", FlagRoutes, c.Routes)
}

// usable tells whether hosts can have addresses of the range.
func usable(p netip.Prefix) bool {
	a := p.Addr()
	return p.IsValid() && a.Is4() && p.Bits() >= rangeBitsMin && !a.IsLoopback() && !a.IsMulticast() && !a.IsLinkLocalUnicast() && a.As4()[0] != 0 && a.As4()[0] < 240
}

// Subnets is how many nodes can have one.
func (c Cluster) Subnets() int { return 1 << (c.NodeBits - c.Nodes.Bits()) }

// Subnet gives the one of a number from 0 to Subnets()-1.
func (c Cluster) Subnet(i int) netip.Prefix {
	return netip.PrefixFrom(offset(c.Nodes.Masked().Addr(), uint32(i)<<(32-c.NodeBits)), c.NodeBits)
}

// VIPs is how many services can have one. The first addresses are kept: 0 is the
// range's own, and ReservedVIPs in all are for orch itself.
func (c Cluster) VIPs() int { return 1<<(32-c.Services.Bits()) - ReservedVIPs - 1 }

// ReservedVIPs at the begin of the service range belong to orch. The last address
// is nobody's.
const ReservedVIPs = 10

// VIP gives the one of a number from 0 to VIPs()-1.
func (c Cluster) VIP(i int) netip.Addr {
	return offset(c.Services.Masked().Addr(), uint32(ReservedVIPs+i))
}

// CheckVIP is the virtual IP that leads to all agents: what the network is tried with.
func CheckVIP(services netip.Prefix) netip.Addr { return offset(services.Masked().Addr(), 1) }

// Gateway is a node's own address in its subnet: the first.
func Gateway(subnet netip.Prefix) netip.Addr { return subnet.Masked().Addr().Next() }

func offset(a netip.Addr, by uint32) netip.Addr {
	b := a.As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+by)
	return netip.AddrFrom4(b)
}

// Domain is that of all names that orch answers for.
const Domain = "orch.internal"

// Standing is where one node stands in the network.
type Standing struct {
	// Address is the node's own, Subnet that of its replicas; no Subnet: it has
	// none yet.
	Address           netip.Addr
	Subnet            netip.Prefix
	Cluster, Services netip.Prefix
	Routes            wire.RouteMode
}
