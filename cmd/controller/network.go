package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/pflag"

	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/wire"
)

// networkFlags say what the replicas' network is to be. They count when the
// cluster is made; afterwards the store has it.
type networkFlags struct {
	nodes, services, routes string
	nodeBits                int
	cluster                 network.Cluster // made of them by complete
}

func (n *networkFlags) addTo(f *pflag.FlagSet) {
	d := network.DefaultCluster()
	f.StringVar(&n.nodes, flagName(network.FlagNodes), d.Nodes.String(), "IPv4 `range` of which each node gets a subnet for its replicas; counts at the cluster's first start")
	f.IntVar(&n.nodeBits, flagName(network.FlagNodeBits), d.NodeBits, "`bits` of the prefix of a node's subnet; 24 is 256 addresses; counts at the cluster's first start")
	f.StringVar(&n.services, flagName(network.FlagServices), d.Services.String(), "IPv4 `range` of services' virtual IPs; counts at the cluster's first start")
	f.StringVar(&n.routes, flagName(network.FlagRoutes), string(d.Routes), "how packets get from node to node, `auto|direct|vxlan`: direct on one segment and else VXLAN, or one of them for all; counts at the cluster's first start")
}

func flagName(flag string) string { return strings.TrimPrefix(flag, "--") }

// complete reads and checks them. What is empty is as by default.
func (n *networkFlags) complete() error {
	d := network.DefaultCluster()
	n.cluster = network.Cluster{NodeBits: cmp.Or(n.nodeBits, d.NodeBits), Routes: cmp.Or(wire.RouteMode(n.routes), d.Routes)}
	for _, x := range []struct {
		flag, text string
		to         *netip.Prefix
	}{
		{network.FlagNodes, cmp.Or(n.nodes, d.Nodes.String()), &n.cluster.Nodes},
		{network.FlagServices, cmp.Or(n.services, d.Services.String()), &n.cluster.Services},
	} {
		p, err := netip.ParsePrefix(x.text)
		if err != nil {
			return fmt.Errorf("%s %q: want an IPv4 range, such as 10.64.0.0/10", x.flag, x.text)
		}
		*x.to = p.Masked()
	}
	return n.cluster.Validate()
}
