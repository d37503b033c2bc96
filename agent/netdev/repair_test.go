package netdev

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/wire"
)

// What somebody does by hand is put right within two seconds.
func TestPutRight(t *testing.T) {
	left := newSegment(t, "left", "192.0.2.1/24")
	a, b := newMachine(t, left, "192.0.2.11", "10.64.1.0/24"), newMachine(t, left, "192.0.2.12", "10.64.2.0/24")
	join(t, wire.RoutesVXLAN, a, b)
	x, y := a.replica(0), b.replica(0)
	talk(t, x, y)
	tunnel := func() netlink.Link {
		l, err := netlink.LinkByName(network.TunnelName)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	for name, undo := range map[string]func() error{
		"route deleted": func() error {
			return netlink.RouteDel(&netlink.Route{Dst: ipNet(netip.MustParsePrefix("10.64.2.0/24"))})
		},
		"route changed": func() error {
			return netlink.RouteReplace(&netlink.Route{Dst: ipNet(netip.MustParsePrefix("10.64.2.0/24")), Gw: net.IP{192, 0, 2, 1}, Protocol: network.RouteProtocol})
		},
		"services' route deleted": func() error {
			return netlink.RouteDel(&netlink.Route{Dst: ipNet(netip.MustParsePrefix("10.128.0.0/14")), Scope: netlink.SCOPE_LINK})
		},
		"refusing route deleted": func() error {
			return netlink.RouteDel(&netlink.Route{Dst: ipNet(netip.MustParsePrefix("10.64.1.0/24")), Type: unix.RTN_UNREACHABLE})
		},
		"black hole of our number": func() error {
			return netlink.RouteAdd(&netlink.Route{Dst: ipNet(netip.MustParsePrefix("10.64.78.0/24")), Type: unix.RTN_BLACKHOLE, Protocol: network.RouteProtocol})
		},
		"refused where a route should be": func() error {
			return netlink.RouteReplace(&netlink.Route{Dst: ipNet(netip.MustParsePrefix("10.64.2.0/24")), Type: unix.RTN_PROHIBIT, Protocol: network.RouteProtocol})
		},
		"second next hop": func() error {
			return netlink.RouteAppend(&netlink.Route{Dst: ipNet(netip.MustParsePrefix("10.64.2.0/24")), Gw: net.IP{192, 0, 2, 1}, Protocol: network.RouteProtocol})
		},
		"foreign route of our number": func() error {
			return netlink.RouteAdd(&netlink.Route{Dst: ipNet(netip.MustParsePrefix("10.64.77.0/24")), Gw: net.IP{192, 0, 2, 1}, Protocol: network.RouteProtocol})
		},
		"neighbour deleted": func() error {
			return netlink.NeighDel(&netlink.Neigh{LinkIndex: tunnel().Attrs().Index, IP: net.IP{10, 64, 2, 1}})
		},
		"neighbour changed": func() error {
			return netlink.NeighSet(&netlink.Neigh{LinkIndex: tunnel().Attrs().Index, IP: net.IP{10, 64, 2, 1}, State: netlink.NUD_PERMANENT, HardwareAddr: net.HardwareAddr{2, 1, 1, 1, 1, 1}})
		},
		"node deleted": func() error {
			mac := network.TunnelMAC(b.address)
			return netlink.NeighDel(&netlink.Neigh{LinkIndex: tunnel().Attrs().Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, IP: b.address.AsSlice(), HardwareAddr: mac[:]})
		},
		"tunnel deleted": func() error { return netlink.LinkDel(tunnel()) },
		"tunnel down":    func() error { return netlink.LinkSetDown(tunnel()) },
		"tunnel's MTU":   func() error { return netlink.LinkSetMTU(tunnel(), 1400) },
		"gateway deleted": func() error {
			return netlink.AddrDel(lo, &netlink.Addr{IPNet: single(netip.MustParseAddr("10.64.1.1"))})
		},
		"forwarding switched off": func() error { return os.WriteFile(forwarding, []byte("0"), 0) },
		"tunnel made strict": func() error {
			return os.WriteFile("/proc/sys/net/ipv4/conf/orch-vxlan/rp_filter", []byte("1"), 0)
		},
		"other tunnel": func() error {
			if err := netlink.LinkDel(tunnel()); err != nil {
				return err
			}
			return netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: network.TunnelName}, VxlanId: 5, Port: 4790, Learning: true})
		},
	} {
		t.Run(name, func(t *testing.T) {
			a.do(undo)
			eventually(t, 2*time.Second, func() (err error) {
				a.do(func() error {
					err = inLine(a)
					return nil
				})
				return err
			})
			within(t, x.NetNS, func() error { return stream(y.IP.String()+":7000", 10_000) })
		})
	}
}

// inLine compares as the Network does, but writes nothing: it looks at how much
// it would write. It is called within the machine.
func inLine(m *machine) error {
	m.n.looking.Lock()
	defer m.n.looking.Unlock()
	k, err := openKernel()
	if err != nil {
		return err
	}
	defer k.Close()
	p := m.n.place
	l, err := k.link(m.address)
	if err != nil {
		return err
	}
	ours, host, err := k.routes(m.n.replicas(p.at.Subnet))
	if err != nil {
		return err
	}
	want := network.PathsOf(p.at, l, p.sorted(), host)
	dev, err := netlink.LinkByName(network.TunnelName)
	if err != nil {
		return err
	}
	for path, want := range map[string]string{forwarding: "1\n", "/proc/sys/net/ipv4/conf/orch-vxlan/rp_filter": "2\n"} {
		if b, err := os.ReadFile(path); err != nil || string(b) != want {
			return fmt.Errorf("%s is %q, %v", path, b, err)
		}
	}
	vx, attrs := dev.(*netlink.Vxlan), dev.Attrs()
	if vx.VxlanId != network.TunnelID || vx.Learning || attrs.MTU != want.Tunnel.MTU || attrs.Flags&net.FlagUp == 0 || string(attrs.HardwareAddr) != string(want.Tunnel.MAC[:]) {
		return fmt.Errorf("device %+v", vx)
	}
	for dst, r := range want.Routes {
		if r.Link == network.TunnelLink {
			r.Link = attrs.Index
		}
		if got, ok := ours[routeKey{dst, r.Metric}]; !ok || !got.is(r) {
			return fmt.Errorf("route %s is %+v, want %+v", dst, got, r)
		}
	}
	if len(ours) != len(want.Routes) || len(k.doubles) != 0 {
		return fmt.Errorf("routes %v, doubles %v", ours, k.doubles)
	}
	var errs failures
	k2 := &kernel{Handle: k.Handle}
	stale, more := k2.putPeers(attrs.Index, network.Paths{}, &errs) // nothing wanted: all that is there
	if len(stale) != len(want.Neighbours) || len(more) != len(want.Forwards) {
		return fmt.Errorf("neighbours %v, nodes %v", stale, more)
	}
	for _, e := range stale {
		if mac := want.Neighbours[addrOf(e.IP)]; string(mac[:]) != string(e.HardwareAddr) {
			return fmt.Errorf("neighbour %v", e)
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	addrs, err := netlink.AddrList(lo, netlink.FAMILY_V4)
	for _, a := range addrs {
		if addrOf(a.IP) == want.Gateway {
			return err
		}
	}
	return fmt.Errorf("gateway is not on loopback: %v", addrs)
}

// A peer that says of itself what can be nobody's way costs no other node its health:
// a node that says that it cannot work gets nothing new.
func TestImpossiblePeerIsItsOwnAffair(t *testing.T) {
	left := newSegment(t, "left", "192.0.2.1/24")
	a, b := newMachine(t, left, "192.0.2.11", "10.64.1.0/24"), newMachine(t, left, "192.0.2.12", "10.64.2.0/24")
	join(t, wire.RoutesAuto, a, b)
	a.do(func() error { return giveAddress("eth0", netip.MustParsePrefix("192.0.2.99/32")) })
	for _, address := range []string{"192.0.2.255", "192.0.2.99"} { // the segment's broadcast address, and the node's own
		if err := a.n.Configure(t.Context(), wire.NetworkSet{Put: []wire.Peer{{Node: "odd", Address: address, Subnet: "10.64.9.0/24"}}}); err != nil {
			t.Fatal(err)
		}
		a.do(func() error { _ = a.n.look(); return nil }) // Health says what it said
		if got := a.n.Health(); got != "" {
			t.Errorf("with a peer at %s: %s", address, got)
		}
	}
	talk(t, a.replica(0), b.replica(0))
}

// Ranges that the host uses are left to it, and told.
func TestOverlapIsTold(t *testing.T) {
	left := newSegment(t, "left", "192.0.2.1/24")
	a := newMachine(t, left, "192.0.2.11", "10.64.1.0/24")
	vpn := &netlink.Route{Dst: ipNet(netip.MustParsePrefix("10.70.0.0/16")), Gw: net.IP{192, 0, 2, 1}}
	a.do(func() error { return netlink.RouteAdd(vpn) })
	a.told(wire.RoutesAuto)
	const want = "cluster range 10.64.0.0/10 overlaps the host's route 10.70.0.0/16 via 192.0.2.1 dev eth0: choose another with --cluster-cidr"
	eventually(t, 2*time.Second, func() error {
		if got := a.n.Health(); got != want {
			return fmt.Errorf("health is %q, want %q", got, want)
		}
		return nil
	})
	if got := a.routes(); got != "" {
		t.Errorf("routes were set:\n%s", got)
	}
	a.do(func() error {
		if _, err := a.n.Setup(t.Context(), key(0, 1), false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Setup: %v", err)
		}
		return netlink.RouteDel(vpn)
	})
	a.settled()
	eventually(t, 2*time.Second, func() error {
		if got := a.n.Health(); got != "" {
			return errors.New(got)
		}
		return nil
	})
	a.replica(0)
}

// What keeps the tunnel from being made is told, and no reason to do without the
// other routes.
func TestTunnelIsInTheWay(t *testing.T) {
	left := newSegment(t, "left", "192.0.2.1/24")
	for _, c := range []struct {
		name, want string
		occupy     func() (free func() error, err error)
	}{
		{"device", "another device of this node is VXLAN 4097 on UDP port 4789", func() (func() error, error) {
			l := &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "other"}, VxlanId: network.TunnelID, Port: network.TunnelPort}
			return func() error { return netlink.LinkDel(l) }, netlink.LinkAdd(l)
		}},
		{"port", "another program of this node listens on UDP port 4789", func() (func() error, error) {
			u, err := net.ListenUDP("udp4", &net.UDPAddr{Port: network.TunnelPort})
			return u.Close, err
		}},
		{"name", "interface orch-vxlan is a bridge", func() (func() error, error) {
			l := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: network.TunnelName}}
			return func() error { return netlink.LinkDel(l) }, netlink.LinkAdd(l)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newMachine(t, left, "192.0.2.11", "10.64.1.0/24")
			var free func() error
			a.do(func() (err error) {
				free, err = c.occupy()
				return err
			})
			a.told(wire.RoutesVXLAN)
			eventually(t, 2*time.Second, func() error {
				if got := a.n.Health(); !strings.Contains(got, c.want) {
					return fmt.Errorf("health is %q, want %q", got, c.want)
				}
				return nil
			})
			if got := a.routes(); !strings.Contains(got, "10.128.0.0/14") {
				t.Errorf("routes %s", got)
			}
			a.do(free)
			eventually(t, 3*time.Second, func() error {
				if got := a.n.Health(); got != "" {
					return errors.New(got)
				}
				return nil
			})
			a.do(func() error { return inLine(a) })
		})
	}
}

func TestAddressIsGone(t *testing.T) {
	left := newSegment(t, "left", "192.0.2.1/24")
	a := newMachine(t, left, "192.0.2.11", "10.64.1.0/24")
	a.told(wire.RoutesAuto)
	a.settled()
	a.do(func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.AddrDel(l, &netlink.Addr{IPNet: &net.IPNet{IP: net.IP{192, 0, 2, 11}, Mask: net.CIDRMask(24, 32)}})
	})
	eventually(t, 2*time.Second, func() error {
		if got := a.n.Health(); !strings.Contains(got, "no interface of this node carries its address 192.0.2.11") {
			return fmt.Errorf("health is %q", got)
		}
		return nil
	})
	a.do(func() error { return giveAddress("eth0", netip.MustParsePrefix("192.0.2.11/24")) })
	eventually(t, 3*time.Second, func() error {
		if got := a.n.Health(); got != "" {
			return errors.New(got)
		}
		return nil
	})
	a.settled()
}
