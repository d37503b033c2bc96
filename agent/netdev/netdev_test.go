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
	"github.com/orchctl/orch/internal/wire"
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
		Address: netip.MustParseAddr("127.0.0.1"),
	}
}

// set is a cluster's as node 7 of it is told.
func set(peers ...wire.Peer) wire.NetworkSet {
	return wire.NetworkSet{Complete: true, Cluster: "10.64.0.0/10", Services: "10.128.0.0/14", Subnet: "10.64.7.0/24", Put: peers}
}

const gateway = "10.64.7.1"

// open opens the network with a place in the cluster, but for who gave it another.
func open(t *testing.T, cfg Config) *Network {
	t.Helper()
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := n.Standing(); !ok {
		if err := n.Configure(t.Context(), set()); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := n.Leave(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return n
}

func key(slot int, epoch uint64) api.ReplicaKey {
	return api.ReplicaKey{Namespace: "default", Service: "web", Slot: slot, Epoch: epoch}
}

func setup(t *testing.T, n *Network, k api.ReplicaKey) Attachment {
	t.Helper()
	a, err := n.Setup(t.Context(), k, false)
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

// leftovers are patterns of files that replicas have.
func leftovers(n *Network) []string {
	return []string{n.recordDir() + "/*", n.cfg.NetNSDir + "/*", n.ipamDir() + "/orch/[0-9]*", n.filesDir() + "/*", n.cacheDir() + "/results/*"}
}

// nothingLeft checks that no trace of any replica is there.
func nothingLeft(t *testing.T, n *Network) {
	t.Helper()
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Type() == "veth" {
			t.Errorf("link %s is left", l.Attrs().Name)
		}
	}
	for _, pattern := range leftovers(n) {
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
	a, b := setup(t, n, key(0, 1)), setup(t, n, key(1, 2))
	if at, _ := n.Standing(); !at.Subnet.Contains(a.IP) || !at.Subnet.Contains(b.IP) || a.IP == b.IP {
		t.Fatalf("addresses %s and %s", a.IP, b.IP)
	}
	serve(t, a, 80)
	mustAsk(t, "tcp4", a.IP.String()+":80", gateway)
	within(t, b.NetNS, func() error {
		got, err := ask("tcp4", a.IP.String()+":80")
		if err != nil || got != b.IP.String() {
			return fmt.Errorf("replica to replica: %q, %v", got, err)
		}
		return nil
	})
	within(t, a.NetNS, func() error {
		if _, err := ask("tcp4", "127.0.0.1:80"); err != nil {
			return fmt.Errorf("loopback inside: %w", err)
		}
		return nil
	})
	for _, k := range []api.ReplicaKey{key(0, 1), key(1, 2)} {
		if err := n.Teardown(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	nothingLeft(t, n)
}

func TestSetupIsIdempotentAndSurvivesAgent(t *testing.T) {
	cfg := config(t)
	n := open(t, cfg)
	a := setup(t, n, key(0, 1))
	if again := setup(t, n, key(0, 1)); again != a {
		t.Errorf("second Setup gives %v, first gave %v", again, a)
	}
	serve(t, a, 80)

	n = open(t, cfg) // a new agent
	if got := n.List(); len(got) != 1 || got[0] != key(0, 1) {
		t.Fatalf("List after restart: %v", got)
	}
	if again := setup(t, n, key(0, 1)); again != a {
		t.Errorf("Setup after restart gives %v, first gave %v", again, a)
	}
	mustAsk(t, "tcp4", a.IP.String()+":80", gateway)
	if err := n.Prune(t.Context(), func(k api.ReplicaKey) bool { return k.Epoch == 1 }); err != nil || len(n.List()) != 1 {
		t.Errorf("Prune that keeps it: %v, %v", err, n.List())
	}
	if err := n.Prune(t.Context(), func(api.ReplicaKey) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if err := n.Teardown(t.Context(), key(0, 1)); err != nil {
		t.Errorf("second Teardown: %v", err)
	}
	nothingLeft(t, n)
}

func TestRebootAndCrashLeaveNothing(t *testing.T) {
	cfg := config(t)
	n := open(t, cfg)
	a := setup(t, n, key(0, 1))
	setup(t, n, key(1, 2))
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
	n = open(t, cfg)
	nothingLeft(t, n)
}

func TestConcurrently(t *testing.T) {
	n := open(t, config(t))
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			for range 2 {
				if _, err := n.Setup(t.Context(), key(i, uint64(i+1)), false); err != nil {
					t.Error(err)
				}
				if i%2 == 0 {
					if err := n.Teardown(t.Context(), key(i, uint64(i+1))); err != nil {
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
}

func TestBadConfig(t *testing.T) {
	address := netip.MustParseAddr("192.0.2.1")
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{StateDir: "rel", Address: address}, "not absolute"},
		{Config{StateDir: "/x"}, "not IPv4"},
		{Config{StateDir: "/x", Address: netip.MustParseAddr("fd00::1")}, "not IPv4"},
	} {
		if _, err := New(c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("New(%+v): %v, want %q", c.cfg, err, c.want)
		}
	}
}
