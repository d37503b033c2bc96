package netdev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/wire"
)

// segment is a layer-2 network: a bridge in the tests' own namespace, which is
// the router between segments.
type segment struct {
	bridge string
	router netip.Prefix
}

func newSegment(t *testing.T, bridge, router string) segment {
	t.Helper()
	s := segment{bridge, netip.MustParsePrefix(router)}
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridge}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeLink(t, bridge) })
	if err := giveAddress(bridge, s.router); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	return s
}

func removeLink(t *testing.T, name string) {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkDel(l)
	}
	if err != nil {
		t.Error(err)
	}
}

func giveAddress(link string, p netip.Prefix) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}}); err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}

// machine is a node: a network namespace on a segment, and a Network that runs in it.
type machine struct {
	t       *testing.T
	name    string
	ns      string
	address netip.Addr
	subnet  string
	cfg     Config
	n       *Network
	stop    func()
}

var machines int

// newMachine puts a machine on a segment; its default route leads to the router.
func newMachine(t *testing.T, s segment, address, subnet string) *machine {
	t.Helper()
	machines++
	dir := t.TempDir()
	m := &machine{t: t, name: fmt.Sprintf("n%d", machines), ns: filepath.Join(dir, "ns"), address: netip.MustParseAddr(address), subnet: subnet}
	if err := newNetNS(m.ns); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeNetNS(m.ns) })
	ns, err := netns.GetFromPath(m.ns)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	out := "to-" + m.name
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: out}, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeLink(t, out) }) // at once: the namespace goes some time after
	l, err := netlink.LinkByName(out)
	if err == nil {
		var br netlink.Link
		if br, err = netlink.LinkByName(s.bridge); err == nil {
			err = netlink.LinkSetMaster(l, br)
		}
	}
	if err == nil {
		err = netlink.LinkSetUp(l)
	}
	if err != nil {
		t.Fatal(err)
	}
	m.do(func() error {
		// As strict as a host may be about where packets come from.
		for _, which := range []string{"all", "default", "eth0"} {
			if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+which+"/rp_filter", []byte("1"), 0); err != nil {
				return err
			}
		}
		if err := giveAddress("eth0", netip.PrefixFrom(m.address, s.router.Bits())); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{Gw: s.router.Addr().AsSlice()})
	})
	m.cfg = Config{StateDir: filepath.Join(dir, "state"), NetNSDir: filepath.Join(dir, "netns"), Address: m.address}
	m.start()
	t.Cleanup(func() {
		m.do(func() error { return m.n.Leave(context.Background()) })
		m.stop()
	})
	return m
}

// start is a new life of the agent.
func (m *machine) start() {
	m.t.Helper()
	m.do(func() (err error) {
		m.n, err = New(m.cfg)
		return err
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	n := m.n
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ns, err := netns.GetFromPath(m.ns)
		if err == nil {
			defer ns.Close()
			err = netns.Set(ns)
		}
		if err == nil {
			err = n.Run(ctx)
		}
		ended <- err
	}()
	m.stop = func() {
		cancel()
		if err := <-ended; err != context.Canceled {
			m.t.Errorf("Run ended with %v", err)
		}
	}
}

func (m *machine) do(f func() error) {
	m.t.Helper()
	within(m.t, m.ns, f)
}

func (m *machine) peer() wire.Peer {
	return wire.Peer{Node: m.name, Address: m.address.String(), Subnet: m.subnet}
}

// told gives a machine its place among others.
func (m *machine) told(mode wire.RouteMode, others ...*machine) {
	m.t.Helper()
	set := wire.NetworkSet{Complete: true, Cluster: "10.64.0.0/10", Services: "10.128.0.0/14", Subnet: m.subnet, Routes: mode}
	for _, o := range others {
		if o != m {
			set.Put = append(set.Put, o.peer())
		}
	}
	if err := m.n.Configure(m.t.Context(), set); err != nil {
		m.t.Fatal(err)
	}
}

// join makes machines know each other, and waits for their routes.
func join(t *testing.T, mode wire.RouteMode, all ...*machine) {
	t.Helper()
	for _, m := range all {
		m.told(mode, all...)
	}
	for _, m := range all {
		m.settled()
	}
}

// settled waits until the machine's kernel is as wanted.
func (m *machine) settled() {
	m.t.Helper()
	eventually(m.t, 2*time.Second, func() (err error) {
		m.do(func() error {
			m.n.mu.Lock()
			p := m.n.place
			m.n.mu.Unlock()
			var k *kernel
			if k, err = openKernel(); err != nil {
				return nil
			}
			defer k.Close()
			var l network.Link
			if l, err = k.link(m.address); err != nil {
				return nil
			}
			ours, host, e := k.routes(m.n.replicas(p.at.Subnet))
			if err = e; err != nil {
				return nil
			}
			want := network.PathsOf(p.at, l, p.sorted(), host)
			if len(ours) != len(want.Routes) {
				err = fmt.Errorf("%s has %d routes, want %d: %v", m.name, len(ours), len(want.Routes), ours)
			}
			return nil
		})
		return err
	})
}

func eventually(t *testing.T, within time.Duration, f func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still after %v: %v", within, err)
		}
		time.Sleep(10 * time.Millisecond) // polling
	}
}

// replica gives the machine one.
func (m *machine) replica(slot int) Attachment {
	m.t.Helper()
	var a Attachment
	m.do(func() (err error) {
		a, err = m.n.Setup(m.t.Context(), api.ReplicaKey{Namespace: "default", Service: m.name, Slot: slot, Epoch: 1}, false)
		return err
	})
	return a
}

// routes are ours in the machine's kernel, as text.
func (m *machine) routes() string {
	var out []string
	m.do(func() error {
		list, err := netlink.RouteList(nil, netlink.FAMILY_V4)
		for _, r := range list {
			if r.Protocol == network.RouteProtocol {
				out = append(out, r.String())
			}
		}
		return err
	})
	return strings.Join(out, "\n")
}

// talk sends from one replica to another and back, in every manner that a path
// must stand: a small packet, the largest that the link promises, whole, and a
// stream in both directions.
func talk(t *testing.T, from, to Attachment) {
	t.Helper()
	const port, size = 7000, 1 << 20
	within(t, to.NetNS, func() error {
		l, err := net.Listen("tcp4", fmt.Sprintf(":%d", port))
		if errors.Is(err, unix.EADDRINUSE) {
			return nil // since it was last talked to
		}
		if err != nil {
			return err
		}
		u, err := net.ListenUDP("udp4", &net.UDPAddr{Port: port})
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close(); u.Close() })
		whole(u)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					io.Copy(c, c)
				}()
			}
		}()
		go func() {
			b := make([]byte, 64<<10)
			for {
				k, peer, err := u.ReadFromUDP(b)
				if err != nil {
					return
				}
				u.WriteToUDP(b[:k], peer)
			}
		}()
		return nil
	})
	within(t, from.NetNS, func() error {
		eth, err := netlink.LinkByName(ifName)
		if err != nil {
			return err
		}
		address := netip.AddrPortFrom(to.IP, port).String()
		u, err := net.Dial("udp4", address)
		if err != nil {
			return err
		}
		defer u.Close()
		whole(u.(*net.UDPConn))
		b := make([]byte, 64<<10)
		for _, want := range []int{1, eth.Attrs().MTU - 28} { // IP and UDP
			u.SetDeadline(time.Now().Add(2 * time.Second))
			if _, err := u.Write(b[:want]); err != nil {
				return fmt.Errorf("send %d bytes to %s: %w", want, to.IP, err)
			}
			if got, err := u.Read(b); err != nil || got != want {
				return fmt.Errorf("of %d bytes to %s, %d came back: %v", want, to.IP, got, err)
			}
		}
		return stream(address, size)
	})
}

func stream(address string, size int) error {
	c, err := net.DialTimeout("tcp4", address, 2*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	go func() {
		c.Write(make([]byte, size))
		c.(*net.TCPConn).CloseWrite()
	}()
	if got, err := io.Copy(io.Discard, c); err != nil || got != int64(size) {
		return fmt.Errorf("of a stream of %d bytes to %s, %d came back: %v", size, address, got, err)
	}
	return nil
}

// whole forbids that packets are cut in pieces.
func whole(u *net.UDPConn) {
	raw, err := u.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			if err := syscall.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO); err != nil {
				panic(err)
			}
		})
	}
	if err != nil {
		panic(err)
	}
}
