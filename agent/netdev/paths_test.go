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

	// What came one by one is on disk, too, when the agent has ended.
	if err := a.n.Configure(t.Context(), wire.NetworkSet{Put: []wire.Peer{{Node: "c", Address: "192.0.2.13", Subnet: "10.64.3.0/24"}}, Drop: []string{b.name}}); err != nil {
		t.Fatal(err)
	}
	a.stop()
	a.start()
	if p := a.n.placed().peers; len(p) != 1 || p["c"].Subnet.String() != "10.64.3.0/24" {
		t.Errorf("peers after a restart: %v", p)
	}
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
