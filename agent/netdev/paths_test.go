package netdev

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/wire"
)

// mtu is that of the replica's link.
func mtu(t *testing.T, a Attachment) (mtu int) {
	t.Helper()
	within(t, a.NetNS, func() error {
		l, err := netlink.LinkByName(ifName)
		if err == nil {
			mtu = l.Attrs().MTU
		}
		return err
	})
	return mtu
}

func TestAcrossNodes(t *testing.T) {
	for _, c := range []struct {
		name    string
		mode    wire.RouteMode
		routed  bool // the second machine is on another segment
		mtu     int
		tunnels bool
	}{
		{"auto on one segment", wire.RoutesAuto, false, 1500, false},
		{"auto across a router", wire.RoutesAuto, true, 1450, true},
		{"vxlan on one segment", wire.RoutesVXLAN, false, 1450, true},
		{"vxlan across a router", wire.RoutesVXLAN, true, 1450, true},
		{"direct on one segment", wire.RoutesDirect, false, 1500, false},
		{"direct across a router that knows", wire.RoutesDirect, true, 1500, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			left := newSegment(t, "left", "192.0.2.1/24")
			a := newMachine(t, left, "192.0.2.11", "10.64.1.0/24")
			var b *machine
			if c.routed {
				b = newMachine(t, newSegment(t, "right", "198.51.100.1/24"), "198.51.100.12", "10.64.2.0/24")
			} else {
				b = newMachine(t, left, "192.0.2.12", "10.64.2.0/24")
			}
			if c.routed && c.mode == wire.RoutesDirect {
				for _, m := range []*machine{a, b} { // they go with the segment
					if err := netlink.RouteAdd(&netlink.Route{Dst: ipNet(netip.MustParsePrefix(m.subnet)), Gw: m.address.AsSlice()}); err != nil {
						t.Fatal(err)
					}
				}
			}
			join(t, c.mode, a, b)
			x, y := a.replica(0), b.replica(0)
			talk(t, x, y)
			talk(t, y, x)
			if got := mtu(t, x); got != c.mtu {
				t.Errorf("MTU %d, want %d", got, c.mtu)
			}
			if got := strings.Contains(a.routes(), "10.64.2.1"); got != c.tunnels {
				t.Errorf("through the tunnel: %v, want %v:\n%s", got, c.tunnels, a.routes())
			}
			// From node to replica, and to a replica that is not there.
			serve(t, y, 80)
			a.do(func() error {
				if _, err := ask("tcp4", y.IP.String()+":80"); err != nil {
					return fmt.Errorf("node to replica: %w", err)
				}
				if _, err := ask("tcp4", "10.64.1.99:80"); !errors.Is(err, unix.EHOSTUNREACH) {
					return fmt.Errorf("to a replica that is not there: %v", err)
				}
				return nil
			})
			within(t, x.NetNS, func() error {
				began := time.Now()
				if _, err := ask("tcp4", "10.64.2.99:80"); !errors.Is(err, unix.EHOSTUNREACH) || time.Since(began) > time.Second {
					return fmt.Errorf("to one that is not there on another node: %v after %v", err, time.Since(began))
				}
				if _, err := ask("tcp4", "10.99.2.99:80"); !errors.Is(err, unix.EHOSTUNREACH) {
					return fmt.Errorf("to a node that is not there: %v", err)
				}
				return nil
			})
			if a.n.Health() != "" || b.n.Health() != "" {
				t.Errorf("health: %q, %q", a.n.Health(), b.n.Health())
			}
		})
	}
}

// Two on one segment and one behind a router; the latter comes later, so that
// replicas that are there have a larger MTU than the path to it.
func TestThirdNodeBehindRouter(t *testing.T) {
	left, right := newSegment(t, "left", "192.0.2.1/24"), newSegment(t, "right", "198.51.100.1/24")
	a, b := newMachine(t, left, "192.0.2.11", "10.64.1.0/24"), newMachine(t, left, "192.0.2.12", "10.64.2.0/24")
	join(t, wire.RoutesAuto, a, b)
	x, y := a.replica(0), b.replica(0)
	c := newMachine(t, right, "198.51.100.13", "10.64.3.0/24")
	c.told(wire.RoutesAuto, a, b, c)
	for _, m := range []*machine{a, b} {
		if err := m.n.Configure(t.Context(), wire.NetworkSet{Put: []wire.Peer{c.peer()}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range []*machine{a, b, c} {
		m.settled()
	}
	z := c.replica(0)
	if mtu(t, x) != 1500 || mtu(t, z) != 1450 || mtu(t, a.replica(1)) != 1450 {
		t.Errorf("MTUs %d, %d, %d; want 1500, 1450, 1450", mtu(t, x), mtu(t, z), mtu(t, a.replica(1)))
	}
	talk(t, x, y)
	talk(t, z, x)
	talk(t, z, y)
	within(t, x.NetNS, func() error { return stream(y.IP.String()+":7000", 1<<20) })
	talkStream(t, x, z)

	// It leaves again: the others need no tunnel any more.
	for _, m := range []*machine{a, b} {
		if err := m.n.Configure(t.Context(), wire.NetworkSet{Drop: []string{c.name}}); err != nil {
			t.Fatal(err)
		}
		eventually(t, 2*time.Second, func() (err error) {
			m.do(func() error {
				if _, e := netlink.LinkByName(network.TunnelName); e == nil {
					err = errors.New("the tunnel's device is there")
				}
				return nil
			})
			return err
		})
	}
	within(t, x.NetNS, func() error { return stream(y.IP.String()+":7000", 1<<20) })
}

// talkStream sends more at once than the path's MTU allows.
func talkStream(t *testing.T, from, to Attachment) {
	t.Helper()
	within(t, to.NetNS, func() error {
		l, err := net.Listen("tcp4", ":7001")
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			b := make([]byte, 64<<10)
			for {
				k, err := c.Read(b)
				if err != nil {
					return
				}
				c.Write(b[:k])
			}
		}()
		return nil
	})
	within(t, from.NetNS, func() error { return stream(to.IP.String()+":7001", 1<<20) })
}

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

// A restart of the agent changes nothing in the kernel, and needs no controller.
func TestRestartLeavesPaths(t *testing.T) {
	left := newSegment(t, "left", "192.0.2.1/24")
	a, b := newMachine(t, left, "192.0.2.11", "10.64.1.0/24"), newMachine(t, left, "192.0.2.12", "10.64.2.0/24")
	join(t, wire.RoutesVXLAN, a, b)
	x, y := a.replica(0), b.replica(0)
	talk(t, x, y)
	a.stop()
	within(t, x.NetNS, func() error { return stream(y.IP.String()+":7000", 10_000) })
	a.start()
	if at, ok := a.n.Standing(); !ok || at.Subnet.String() != a.subnet || at.Routes != wire.RoutesVXLAN {
		t.Fatalf("Standing after restart: %+v, %v", at, ok)
	}
	a.do(func() error {
		wrong, writes, err := a.n.put(a.n.place)
		if wrong != "" || writes != 0 || err != nil {
			return fmt.Errorf("after a restart: %q, %d writes, %v", wrong, writes, err)
		}
		return nil
	})
	if got := a.replica(0); got != x {
		t.Errorf("Setup after restart gives %v, want %v", got, x)
	}
	// Told the same again: still nothing to write.
	a.told(wire.RoutesVXLAN, a, b)
	a.do(func() error {
		if _, writes, err := a.n.put(a.n.place); writes != 0 || err != nil {
			return fmt.Errorf("told the same again: %d writes, %v", writes, err)
		}
		return nil
	})
	within(t, x.NetNS, func() error { return stream(y.IP.String()+":7000", 10_000) })
}

func TestLeaveTakesAll(t *testing.T) {
	left := newSegment(t, "left", "192.0.2.1/24")
	a, b := newMachine(t, left, "192.0.2.11", "10.64.1.0/24"), newMachine(t, left, "192.0.2.12", "10.64.2.0/24")
	links := func() (names []string) {
		a.do(func() error {
			list, err := netlink.LinkList()
			for _, l := range list {
				names = append(names, l.Attrs().Name)
				addrs, _ := netlink.AddrList(l, netlink.FAMILY_V4)
				for _, ad := range addrs {
					names = append(names, ad.String())
				}
			}
			return err
		})
		return names
	}
	before := fmt.Sprint(links())
	join(t, wire.RoutesVXLAN, a, b)
	talk(t, a.replica(0), b.replica(0))
	a.replica(1)
	a.do(func() error { return a.n.Leave(t.Context()) })
	eventually(t, 2*time.Second, func() error { // links of replicas go a moment after their namespace
		if after := fmt.Sprint(links()); after != before {
			return fmt.Errorf("links %s, before %s", after, before)
		}
		return nil
	})
	if got := a.routes(); got != "" {
		t.Errorf("routes are left:\n%s", got)
	}
	for _, pattern := range leftovers(a.n) {
		if got, _ := filepath.Glob(pattern); len(got) > 0 {
			t.Errorf("files are left: %v", got)
		}
	}
	if _, ok := a.n.Standing(); ok {
		t.Error("it still knows where it stands")
	}
	a.stop()
	a.start()
	if _, ok := a.n.Standing(); ok {
		t.Error("the next agent knows where it stands")
	}
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

// Another subnet: the old address is nobody's, and Setup gives a new one.
func TestSubnetChanges(t *testing.T) {
	left := newSegment(t, "left", "192.0.2.1/24")
	a := newMachine(t, left, "192.0.2.11", "10.64.1.0/24")
	a.told(wire.RoutesVXLAN)
	a.settled()
	old := a.replica(0)
	a.replica(1)
	a.subnet = "10.64.9.0/24"
	a.told(wire.RoutesVXLAN)
	a.settled()
	if got := a.n.Health(); got != "" {
		t.Errorf("health %q", got)
	}
	again := a.replica(0)
	if again.IP == old.IP || !netip.MustParsePrefix(a.subnet).Contains(again.IP) {
		t.Errorf("address %s after %s", again.IP, old.IP)
	}
	talk(t, again, a.replica(2))
	eventually(t, 2*time.Second, func() (err error) {
		a.do(func() error { err = inLine(a); return nil })
		return err
	})
	a.do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		addrs, err := netlink.AddrList(lo, netlink.FAMILY_V4)
		for _, ad := range addrs {
			if ad.IP.String() == "10.64.1.1" {
				t.Error("the old gateway is left")
			}
		}
		return err
	})
}

// Ten thousand nodes: all are written once, and then nothing more.
func TestManyPeers(t *testing.T) {
	const peers = 10_000
	left := newSegment(t, "left", "192.0.2.1/24")
	a := newMachine(t, left, "192.0.2.11", "10.64.1.0/24")
	set := wire.NetworkSet{Complete: true, Cluster: "10.64.0.0/10", Services: "10.128.0.0/14", Subnet: a.subnet}
	all := network.DefaultCluster()
	for i := range peers {
		set.Put = append(set.Put, wire.Peer{Node: fmt.Sprintf("p%d", i), Address: fmt.Sprintf("203.0.%d.%d", i/250, i%250+1), Subnet: all.Subnet(i + 10).String()})
	}
	a.stop() // so that this alone looks
	if err := a.n.Configure(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	a.do(func() error {
		for pass := range 3 {
			began := time.Now()
			wrong, writes, err := a.n.put(a.n.place)
			t.Logf("pass %d: %d writes in %v", pass, writes, time.Since(began))
			if wrong != "" || err != nil || (pass == 0) != (writes >= 3*peers) || pass > 0 && writes != 0 {
				return fmt.Errorf("pass %d: %q, %d writes, %v", pass, wrong, writes, err)
			}
		}
		if err := a.n.Configure(t.Context(), wire.NetworkSet{Drop: []string{"p7"}}); err != nil {
			return err
		}
		if _, writes, err := a.n.put(a.n.place); writes != 3 || err != nil {
			return fmt.Errorf("one left: %d writes, %v", writes, err)
		}
		return nil
	})
	a.start()
	if got := len(a.n.place.peers); got != peers { // Run, which saves what came later, was not there
		t.Errorf("%d peers after a restart", got)
	}
}
