package netdev

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/orchctl/orch/api"
)

// TestMain runs the tests in network and mount namespaces of their own, so
// that they are root on a network that is nobody else's.
func TestMain(m *testing.M) {
	const inside = "ORCH_NETDEV_TEST_INSIDE"
	if os.Getenv(inside) == "" {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		runtime.LockOSThread() // the signal comes when this thread ends
		if err := cmd.Run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		panic(err)
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func config(t *testing.T) Config {
	t.Helper()
	dir := t.TempDir()
	return Config{
		StateDir: filepath.Join(dir, "state"), NetNSDir: filepath.Join(dir, "netns"),
		Subnet: netip.MustParsePrefix("10.64.7.0/24"), Cluster: netip.MustParsePrefix("10.64.0.0/10"),
	}
}

func open(t *testing.T, cfg Config) *Network {
	t.Helper()
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Prune(context.Background(), func(api.ReplicaKey) bool { return false }); err != nil {
			t.Error(err)
		}
	})
	return n
}

func key(slot int, epoch uint64) api.ReplicaKey {
	return api.ReplicaKey{Namespace: "default", Service: "web", Slot: slot, Epoch: epoch}
}

func setup(t *testing.T, n *Network, k api.ReplicaKey, ports ...PortMapping) Attachment {
	t.Helper()
	a, err := n.Setup(context.Background(), k, ports)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// within runs f on a thread inside the namespace.
func within(t *testing.T, path string, f func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		ns, err := netns.GetFromPath(path)
		if err == nil {
			defer ns.Close()
			err = netns.Set(ns)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// serve answers every connection to port with who the client is, over TCP and UDP.
func serve(t *testing.T, a Attachment, port int) {
	t.Helper()
	within(t, a.NetNS, func() error {
		l, err := net.Listen("tcp4", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		u, err := net.ListenPacket("udp4", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close(); u.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprintf(c, "%s", c.RemoteAddr().(*net.TCPAddr).IP)
				c.Close()
			}
		}()
		go func() {
			b := make([]byte, 100)
			for {
				_, from, err := u.ReadFrom(b)
				if err != nil {
					return
				}
				u.WriteTo([]byte("udp"), from)
			}
		}()
		return nil
	})
}

func ask(network, addr string) (string, error) {
	c, err := net.DialTimeout(network, addr, 2*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	if network == "udp4" {
		c.Write([]byte("?"))
		b := make([]byte, 100)
		n, err := c.Read(b)
		return string(b[:n]), err
	}
	b, err := io.ReadAll(c)
	return string(b), err
}

func mustAsk(t *testing.T, network, addr, want string) {
	t.Helper()
	got, err := ask(network, addr)
	if err != nil || got != want {
		t.Errorf("ask %s %s: %q, %v; want %q", network, addr, got, err, want)
	}
}

func ruleset(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// nothingLeft checks that no trace of any replica is there.
func nothingLeft(t *testing.T, n *Network) {
	t.Helper()
	if got := ruleset(t); strings.TrimSpace(got) != "" {
		t.Errorf("rules are left:\n%s", got)
	}
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Type() == "veth" {
			t.Errorf("link %s is left", l.Attrs().Name)
		}
	}
	for _, pattern := range []string{n.recordDir() + "/*", n.cfg.NetNSDir + "/*", n.cfg.StateDir + "/ipam/orch/[0-9]*", n.cfg.StateDir + "/cache/results/*"} {
		if got, _ := filepath.Glob(pattern); len(got) > 0 {
			t.Errorf("files are left: %v", got)
		}
	}
	if got := n.List(); len(got) != 0 {
		t.Errorf("replicas are left: %v", got)
	}
}

func TestTrafficReachesReplica(t *testing.T) {
	n := open(t, config(t))
	a := setup(t, n, key(0, 1), PortMapping{HostPort: 8080, Port: 80}, PortMapping{HostPort: 8080, Port: 80, Protocol: api.UDP})
	b := setup(t, n, key(1, 2))
	if !n.cfg.Subnet.Contains(a.IP) || a.IP == b.IP {
		t.Fatalf("addresses %s and %s", a.IP, b.IP)
	}
	serve(t, a, 80)
	serve(t, b, 81)
	gateway := n.cfg.Subnet.Addr().Next().String()

	mustAsk(t, "tcp4", a.IP.String()+":80", gateway)
	mustAsk(t, "tcp4", gateway+":8080", gateway)  // the node's own address
	mustAsk(t, "tcp4", "127.0.0.1:8080", gateway) // not 127.0.0.1: the replica could not answer it
	mustAsk(t, "udp4", gateway+":8080", "udp")
	within(t, b.NetNS, func() error {
		if _, err := ask("tcp4", a.IP.String()+":80"); err != nil {
			return fmt.Errorf("replica to replica: %w", err)
		}
		if _, err := ask("tcp4", gateway+":8080"); err != nil {
			return fmt.Errorf("replica to host port: %w", err)
		}
		return nil
	})
	within(t, a.NetNS, func() error {
		if _, err := ask("tcp4", "127.0.0.1:80"); err != nil {
			return fmt.Errorf("loopback inside: %w", err)
		}
		if _, err := ask("tcp4", gateway+":8080"); err != nil {
			return fmt.Errorf("replica to itself over its host port: %w", err)
		}
		return nil
	})

	if err := n.Teardown(context.Background(), key(0, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := ask("tcp4", "127.0.0.1:8080"); err == nil {
		t.Error("the host port answers after teardown")
	}
	if got := ruleset(t); strings.Contains(got, "8080") {
		t.Errorf("port is left:\n%s", got)
	}
	if err := n.Teardown(context.Background(), key(1, 2)); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, n)
}

// TestOutsideSeesNode puts a second machine beside the node: it must see the
// node's address as source, reach host ports, and not reach loopback.
func TestOutsideSeesNode(t *testing.T) {
	n := open(t, config(t))
	a := setup(t, n, key(0, 1), PortMapping{HostPort: 8080, Port: 80})
	serve(t, a, 80)

	outside := filepath.Join(t.TempDir(), "outside")
	if err := newNetNS(outside); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeNetNS(outside) })
	ns, err := netns.GetFromPath(outside)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "out0"}, PeerName: "out1", PeerNamespace: netlink.NsFd(ns)}); err != nil {
		t.Fatal(err)
	}
	up := func(name, addr string) error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		ad, err := netlink.ParseAddr(addr)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(l, ad); err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	}
	if err := up("out0", "192.0.2.1/24"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if l, err := netlink.LinkByName("out0"); err == nil {
			netlink.LinkDel(l)
		}
	})
	within(t, outside, func() error { return up("out1", "192.0.2.2/24") })
	serve(t, Attachment{NetNS: outside}, 90)

	within(t, a.NetNS, func() error {
		got, err := ask("tcp4", "192.0.2.2:90")
		if err != nil || got != "192.0.2.1" {
			return fmt.Errorf("outside sees %q, %v; want the node's 192.0.2.1", got, err)
		}
		return nil
	})
	within(t, outside, func() error {
		got, err := ask("tcp4", "192.0.2.1:8080")
		if err != nil || got != "192.0.2.2" {
			return fmt.Errorf("the replica sees %q, %v; want the client's own 192.0.2.2", got, err)
		}
		return nil
	})
}

func TestSetupIsIdempotentAndSurvivesAgent(t *testing.T) {
	cfg := config(t)
	n := open(t, cfg)
	p := PortMapping{HostPort: 8081, Port: 80}
	a := setup(t, n, key(0, 1), p)
	if again := setup(t, n, key(0, 1), p); again != a {
		t.Errorf("second Setup gives %v, first gave %v", again, a)
	}
	serve(t, a, 80)

	n = open(t, cfg) // a new agent
	if got := n.List(); len(got) != 1 || got[0] != key(0, 1) {
		t.Fatalf("List after restart: %v", got)
	}
	if again := setup(t, n, key(0, 1), p); again != a {
		t.Errorf("Setup after restart gives %v, first gave %v", again, a)
	}
	mustAsk(t, "tcp4", "127.0.0.1:8081", n.cfg.Subnet.Addr().Next().String())
	if err := n.Prune(context.Background(), func(k api.ReplicaKey) bool { return k.Epoch == 1 }); err != nil || len(n.List()) != 1 {
		t.Errorf("Prune that keeps it: %v, %v", err, n.List())
	}
	if err := n.Prune(context.Background(), func(api.ReplicaKey) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if err := n.Teardown(context.Background(), key(0, 1)); err != nil {
		t.Errorf("second Teardown: %v", err)
	}
	nothingLeft(t, n)
}

func TestRebootAndCrashLeaveNothing(t *testing.T) {
	cfg := config(t)
	n := open(t, cfg)
	a, b := setup(t, n, key(0, 1), PortMapping{HostPort: 8082, Port: 80}), setup(t, n, key(1, 2))
	// A reboot takes the namespace; a crash leaves a record without address.
	if err := syscall.Unmount(a.NetNS, syscall.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	if err := n.save(idOf(key(1, 2)), &record{Key: key(1, 2)}); err != nil {
		t.Fatal(err)
	}
	if err := newNetNS(filepath.Join(cfg.NetNSDir, "stray")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.recordPath("torn"), []byte(`{"key":`), 0o644); err != nil {
		t.Fatal(err)
	}
	_ = b
	n = open(t, cfg)
	nothingLeft(t, n)
}

func TestPortConflict(t *testing.T) {
	n := open(t, config(t))
	a := setup(t, n, key(0, 1), PortMapping{HostPort: 8083, Port: 80})
	serve(t, a, 80)
	_, err := n.Setup(context.Background(), key(1, 2), []PortMapping{{HostPort: 8083, Port: 80}})
	if err == nil || !strings.Contains(err.Error(), "set up network of default/web-1@2") {
		t.Fatalf("second replica with the same host port: %v", err)
	}
	if got := n.List(); len(got) != 1 {
		t.Errorf("the failed one is left: %v", got)
	}
	mustAsk(t, "tcp4", "127.0.0.1:8083", n.cfg.Subnet.Addr().Next().String())
}

func TestConcurrently(t *testing.T) {
	n := open(t, config(t))
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			for range 2 {
				if _, err := n.Setup(context.Background(), key(i, uint64(i+1)), []PortMapping{{HostPort: 9000 + i, Port: 80}}); err != nil {
					t.Error(err)
				}
				if i%2 == 0 {
					if err := n.Teardown(context.Background(), key(i, uint64(i+1))); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if got := len(n.List()); got != 6 {
		t.Errorf("%d replicas have a network, want 6", got)
	}
	if got := strings.Count(ruleset(t), ": 10.64.7."); got != 6 {
		t.Errorf("%d ports lead on, want 6:\n%s", got, ruleset(t))
	}
}

func TestBadConfig(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{StateDir: "rel", Subnet: netip.MustParsePrefix("10.0.0.0/24")}, "not absolute"},
		{Config{StateDir: "/x"}, "subnet"},
		{Config{StateDir: "/x", Subnet: netip.MustParsePrefix("10.0.0.0/31")}, "subnet"},
		{Config{StateDir: "/x", Subnet: netip.MustParsePrefix("fd00::/64")}, "subnet"},
	} {
		if _, err := New(c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("New(%+v): %v, want %q", c.cfg, err, c.want)
		}
	}
}
