package netcheck

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/wire"
)

// replicaMax bounds how long a network as a replica's may take to be made and tried.
const replicaMax = 15 * time.Second

// reached is a peer that this node itself gets to.
type reached struct {
	peer    wire.Peer
	gateway netip.Addr
}

// replica tries what a replica of this node gets to: its packets are forwarded by
// the node, and meet rules of other programs that the node's own do not.
func (c Checker) replica(ctx context.Context, to reached) (bool, string) {
	ctx, cancel := context.WithTimeout(ctx, replicaMax)
	defer cancel()
	own := network.Gateway(c.Standing.Subnet)
	var names, way error
	err := c.AsReplica(ctx, func() {
		_, names = query(ctx, own.String(), network.Domain, dns.TypeSOA, dnsMax)
		_, way = ask(ctx, netip.AddrPortFrom(to.gateway, network.CheckPort))
	})
	const pass = "if a program on the node drops or rejects packets (`iptables -S`, `nft list ruleset`; Docker and firewalld do), have it let %s pass"
	switch {
	case err != nil:
		return false, c.with(fmt.Sprintf("a replica of %s would get no network: %v", c.Node, err))
	case way != nil:
		return false, c.with(fmt.Sprintf("%s itself gets to %s, its replicas do not (%s): "+pass+", forwarded, from and to it",
			c.Node, to.peer.Node, reason(way), c.Standing.Cluster))
	case names != nil:
		return false, c.with(fmt.Sprintf("replicas of %s get no answer from its name server at %s (%s): "+pass+" in, to ports 53 and %d, TCP and UDP",
			c.Node, own, reason(names), c.Standing.Cluster, network.CheckPort))
	}
	return true, fmt.Sprintf("replicas of %s get to %s, and to names", c.Node, to.peer.Node)
}
