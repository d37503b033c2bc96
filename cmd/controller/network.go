package main

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/wire"
)

// networkFlags say what the replicas' network is to be. They count when the
// cluster is made; afterwards the store has it.
type networkFlags struct {
	nodes, services, routes string
	nodeBits                int
	keep                    []string
	kept                    map[api.HostPort]string // made of keep by complete
	cluster                 network.Cluster         // made of them by complete
}

func (n *networkFlags) addTo(f *pflag.FlagSet) {
	d := network.DefaultCluster()
	f.StringVar(&n.nodes, flagName(network.FlagNodes), d.Nodes.String(), "IPv4 `range` of which each node gets a subnet for its replicas; counts at the cluster's first start")
	f.IntVar(&n.nodeBits, flagName(network.FlagNodeBits), d.NodeBits, "`bits` of the prefix of a node's subnet; 24 is 256 addresses; counts at the cluster's first start")
	f.StringVar(&n.services, flagName(network.FlagServices), d.Services.String(), "IPv4 `range` of services' virtual IPs; counts at the cluster's first start")
	f.StringVar(&n.routes, flagName(network.FlagRoutes), string(d.Routes), "how packets get from node to node, `auto|direct|vxlan`: direct on one segment and else VXLAN, or one of them for all; counts at the cluster's first start")
	f.StringSliceVar(&n.keep, "kept-ports", []string{"22/TCP"}, "`ports` of the nodes that no service may publish, beside orch's own; \"\" keeps none")
}

func flagName(flag string) string { return strings.TrimPrefix(flag, "--") }

// complete reads and checks them. What is empty is as by default.
func (n *networkFlags) complete() error {
	d := network.DefaultCluster()
	n.cluster = network.Cluster{NodeBits: cmp.Or(n.nodeBits, d.NodeBits), Routes: cmp.Or(wire.RouteMode(n.routes), d.Routes)}
	for _, x := range []struct {
		flag, text string
		usual      netip.Prefix
		to         *netip.Prefix
	}{
		{network.FlagNodes, n.nodes, d.Nodes, &n.cluster.Nodes},
		{network.FlagServices, n.services, d.Services, &n.cluster.Services},
	} {
		p, err := netip.ParsePrefix(cmp.Or(x.text, x.usual.String()))
		switch {
		case err != nil:
			return fmt.Errorf("%s %q: want an IPv4 range, such as %s", x.flag, x.text, x.usual)
		case p != p.Masked():
			return fmt.Errorf("%s %s: an address within a range; the range is %s", x.flag, p, p.Masked())
		}
		*x.to = p
	}
	if err := n.readKept(); err != nil {
		return err
	}
	return n.cluster.Validate()
}

func (n *networkFlags) readKept() error {
	n.kept = map[api.HostPort]string{}
	for _, text := range n.keep {
		number, protocol, _ := strings.Cut(text, "/")
		port, err := strconv.ParseUint(number, 10, 16)
		p := api.HostPort{Port: int(port), Protocol: api.Protocol(strings.ToUpper(protocol))}
		if p.Protocol == "" {
			p.Protocol = api.TCP
		}
		if err != nil || port == 0 || p.Protocol != api.TCP && p.Protocol != api.UDP {
			return fmt.Errorf("--kept-ports %q: want ports such as 22/TCP or 500/UDP, separated by commas", text)
		}
		n.kept[p] = "the node itself (--kept-ports of the controller)"
	}
	return nil
}

// keptPorts are those of nodes that a service on top of them would cut off: what
// users keep, and orch's own.
func (c *config) keptPorts() map[api.HostPort]string {
	kept := maps.Clone(c.network.kept)
	keep := func(whose string, port int, protocols ...api.Protocol) {
		for _, p := range protocols {
			kept[api.HostPort{Port: port, Protocol: p}] = whose
		}
	}
	keep("orch's VXLAN", network.TunnelPort, api.UDP)
	if _, port, err := splitPort(c.advertise); err == nil {
		keep("orch's controllers", port, api.TCP)
	}
	if _, port, err := splitPort(c.gossipAddr); err == nil { // it may be off
		keep("orch's gossip", port, api.TCP, api.UDP)
	}
	return kept
}
