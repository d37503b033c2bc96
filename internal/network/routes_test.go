package network

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/orchctl/orch/internal/wire"
)

func nodeAt(mode wire.RouteMode, subnet string) Standing {
	s := Standing{Address: addr("192.0.2.11"), Cluster: prefix("10.64.0.0/10"), Services: prefix("10.128.0.0/14"), Routes: mode}
	if subnet != "" {
		s.Subnet = prefix(subnet)
	}
	return s
}

var eth0 = Link{Index: 2, Name: "eth0", Prefix: prefix("192.0.2.11/24"), MTU: 1500}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

func peer(node, address, subnet string) Peer {
	p := Peer{Node: node, Address: addr(address)}
	if subnet != "" {
		p.Subnet = prefix(subnet)
	}
	return p
}

// told gives paths a line each.
func told(p Paths) string {
	var out []string
	for dst, r := range p.Routes {
		line := dst.String()
		switch r.Link {
		case 0:
			line += " refused"
		case TunnelLink:
			line += " tunnel"
		default:
			line += fmt.Sprintf(" link %d", r.Link)
		}
		if r.Via.IsValid() {
			line += " via " + r.Via.String()
		}
		if r.OnLink {
			line += " onlink"
		}
		if r.Src.IsValid() {
			line += " src " + r.Src.String()
		}
		out = append(out, line)
	}
	for at, mac := range p.Neighbours {
		out = append(out, fmt.Sprintf("%s is %x at %s", at, mac, p.Forwards[mac]))
	}
	for _, l := range p.Lost {
		out = append(out, "lost "+l.Node)
	}
	slices.Sort(out)
	out = append(out, fmt.Sprintf("mtu %d", p.ReplicaMTU))
	if t := p.Tunnel; t != nil {
		out = append(out, fmt.Sprintf("tunnel %s %x mtu %d address %s", t.Local, t.MAC, t.MTU, t.Address))
	}
	return strings.Join(out, "\n")
}

func TestPaths(t *testing.T) {
	const base = `10.128.0.0/14 link 2 src 192.0.2.11
10.64.0.0/10 refused
10.64.1.0/24 refused`
	near, far := peer("b", "192.0.2.12", "10.64.2.0/24"), peer("c", "198.51.100.13", "10.64.3.0/24")
	for _, c := range []struct {
		name  string
		at    Standing
		link  Link
		peers []Peer
		host  []HostRoute
		want  string
	}{
		{"alone", nodeAt(wire.RoutesAuto, "10.64.1.0/24"), eth0, nil, nil, base + "\nmtu 1500"},
		{"alone with a tunnel", nodeAt(wire.RoutesVXLAN, "10.64.1.0/24"), eth0, nil, nil, base + "\nmtu 1450\ntunnel 192.0.2.11 026fc000020b mtu 1450 address 10.64.1.1"},
		{"one segment", nodeAt(wire.RoutesAuto, "10.64.1.0/24"), eth0, []Peer{near}, nil,
			"10.128.0.0/14 link 2 src 192.0.2.11\n10.64.0.0/10 refused\n10.64.1.0/24 refused\n10.64.2.0/24 link 2 via 192.0.2.12\nmtu 1500"},
		{"two segments", nodeAt(wire.RoutesAuto, "10.64.1.0/24"), eth0, []Peer{near, far}, nil, `10.128.0.0/14 link 2 src 192.0.2.11
10.64.0.0/10 refused
10.64.1.0/24 refused
10.64.2.0/24 link 2 via 192.0.2.12
10.64.3.0/24 tunnel via 10.64.3.1 onlink src 10.64.1.1
10.64.3.1 is 026fc633640d at 198.51.100.13
mtu 1450
tunnel 192.0.2.11 026fc000020b mtu 1450 address 10.64.1.1`},
		{"a node without a subnet", nodeAt(wire.RoutesAuto, ""), eth0, []Peer{near, far}, nil, `10.128.0.0/14 link 2 src 192.0.2.11
10.64.0.0/10 refused
10.64.2.0/24 link 2 via 192.0.2.12
10.64.3.0/24 tunnel via 10.64.3.1 onlink src 192.0.2.11
10.64.3.1 is 026fc633640d at 198.51.100.13
mtu 1450
tunnel 192.0.2.11 026fc000020b mtu 1450 address invalid IP`},
		{"direct by the host's routes", nodeAt(wire.RoutesDirect, "10.64.1.0/24"), eth0,
			[]Peer{near, far, peer("d", "203.0.113.4", "10.64.4.0/24"), peer("e", "233.252.0.5", "10.64.5.0/24")},
			[]HostRoute{
				{Dst: prefix("198.51.100.0/24"), Via: addr("192.0.2.1"), Link: 2, Metric: 10},
				{Dst: prefix("198.51.100.0/24"), Via: addr("192.0.2.9"), Link: 2, Metric: 20},
				{Dst: prefix("198.51.0.0/16"), Via: addr("192.0.2.8"), Link: 2},
				{Dst: prefix("203.0.113.0/24"), Link: 3},
			}, `10.128.0.0/14 link 2 src 192.0.2.11
10.64.0.0/10 refused
10.64.1.0/24 refused
10.64.2.0/24 link 2 via 192.0.2.12
10.64.3.0/24 link 2 via 192.0.2.1
10.64.4.0/24 link 3 via 203.0.113.4
lost e
mtu 1500`},
		{"an address of its own segment, as clouds give", nodeAt(wire.RoutesAuto, "10.64.1.0/24"),
			Link{Index: 2, Prefix: prefix("192.0.2.11/32"), MTU: 1460}, []Peer{near}, nil, `10.128.0.0/14 link 2 src 192.0.2.11
10.64.0.0/10 refused
10.64.1.0/24 refused
10.64.2.0/24 tunnel via 10.64.2.1 onlink src 10.64.1.1
10.64.2.1 is 026fc000020c at 192.0.2.12
mtu 1410
tunnel 192.0.2.11 026fc000020b mtu 1410 address 10.64.1.1`},
		{"not of the cluster, itself, its own subnet, none", nodeAt(wire.RoutesAuto, "10.64.1.0/24"), eth0, []Peer{
			peer("x", "192.0.2.20", "172.16.0.0/24"), peer("me", "192.0.2.11", "10.64.9.0/24"), peer("thief", "192.0.2.21", "10.64.1.0/24"), peer("none", "192.0.2.22", ""),
			peer("all", "192.0.2.23", "10.64.0.0/10"),
		}, nil, base + "\nmtu 1500"},
		{"on loopback", nodeAt(wire.RoutesAuto, "10.64.1.0/24"), Link{Index: 1, Prefix: prefix("127.0.0.1/8"), MTU: 65536, Loopback: true}, nil, nil,
			strings.Replace(base, "link 2", "link 1", 1) + "\nmtu 1500"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := told(PathsOf(c.at, c.link, c.peers, c.host)); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestOverlap(t *testing.T) {
	at := nodeAt(wire.RoutesAuto, "10.64.1.0/24")
	inside := at
	inside.Address = addr("10.128.0.7")
	for _, c := range []struct {
		name string
		at   Standing
		host []HostRoute
		want string
	}{
		{"none", at, nil, ""},
		{"apart, default and its halves", at, []HostRoute{{Dst: prefix("192.0.2.0/24")}, {Dst: prefix("0.0.0.0/0")}, {Dst: prefix("0.0.0.0/1")}, {Dst: prefix("128.0.0.0/1")}, {Dst: prefix("10.63.0.0/16")}, {Dst: prefix("10.132.0.0/16")}}, ""},
		{"inside", at, []HostRoute{{Dst: prefix("10.70.0.0/16"), Name: "eth1"}}, "cluster range 10.64.0.0/10 overlaps the host's route 10.70.0.0/16 dev eth1: choose another with --cluster-cidr"},
		{"around", at, []HostRoute{{Dst: prefix("10.0.0.0/8"), Via: addr("192.0.2.1"), Name: "eth0"}}, "cluster range 10.64.0.0/10 overlaps the host's route 10.0.0.0/8 via 192.0.2.1 dev eth0: choose another with --cluster-cidr"},
		{"services", at, []HostRoute{{Dst: prefix("10.129.0.1/32"), Name: "wg0"}}, "service range 10.128.0.0/14 overlaps the host's route 10.129.0.1/32 dev wg0: choose another with --service-cidr"},
		{"the node itself", inside, nil, "service range 10.128.0.0/14 holds the node's own address 10.128.0.7: choose another with --service-cidr"},
	} {
		if got := Overlap(c.at, c.host); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// Whatever the peers: each with a subnet of the cluster has exactly one way, what
// the tunnel's routes need is there and no more, and order does not matter.
func TestPathsProperties(t *testing.T) {
	modes := []wire.RouteMode{wire.RoutesAuto, wire.RoutesDirect, wire.RoutesVXLAN}
	all := DefaultCluster()
	rapid.Check(t, func(t *rapid.T) {
		at := nodeAt(rapid.SampledFrom(modes).Draw(t, "mode"), "10.64.1.0/24")
		var peers []Peer
		for i, last := range rapid.SliceOfNDistinct(rapid.IntRange(20, 250), 0, 20, rapid.ID[int]).Draw(t, "peers") {
			segment := rapid.SampledFrom([]string{"192.0.2", "198.51.100"}).Draw(t, "segment")
			peers = append(peers, peer(fmt.Sprintf("n%02d", i), fmt.Sprintf("%s.%d", segment, last), all.Subnet(last).String()))
		}
		host := []HostRoute{{Dst: prefix("0.0.0.0/0"), Via: addr("192.0.2.1"), Link: 2}}
		p := PathsOf(at, eth0, peers, host)
		if len(p.Routes) != len(peers)+3 || len(p.Lost) != 0 {
			t.Fatalf("%d routes for %d peers, lost %v", len(p.Routes), len(peers), p.Lost)
		}
		tunnelled := 0
		for _, peer := range peers {
			r := p.Routes[peer.Subnet]
			near := eth0.Prefix.Contains(peer.Address)
			if want := at.Routes == wire.RoutesVXLAN || at.Routes == wire.RoutesAuto && !near; want != (r.Link == TunnelLink) {
				t.Fatalf("%s to %+v: %+v", at.Routes, peer, r)
			}
			if r.Link == TunnelLink {
				tunnelled++
				if mac := p.Neighbours[r.Via]; p.Forwards[mac] != peer.Address {
					t.Fatalf("%+v is behind %x, which leads to %s", peer, mac, p.Forwards[mac])
				}
			}
		}
		if len(p.Neighbours) != tunnelled || len(p.Forwards) != tunnelled || (tunnelled > 0 || at.Routes == wire.RoutesVXLAN) != (p.Tunnel != nil) {
			t.Fatalf("%d through the tunnel, %v, %v, %v", tunnelled, p.Neighbours, p.Forwards, p.Tunnel)
		}
		slices.Reverse(peers)
		if q := PathsOf(at, eth0, peers, host); !maps.Equal(p.Routes, q.Routes) || !maps.Equal(p.Neighbours, q.Neighbours) || p.ReplicaMTU != q.ReplicaMTU {
			t.Fatal("order matters")
		}
	})
}
