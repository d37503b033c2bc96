package netdev

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/orchctl/orch/internal/wire"
)

// withPlugin opens the network with a ptp plugin of the test's own, a shell script
// that may run the real one as $real.
func withPlugin(t *testing.T, script string) *Network {
	t.Helper()
	cfg := config(t)
	cfg.CNIBin = t.TempDir()
	text := "#!/bin/sh\nreal=/usr/lib/cni/ptp\nhere=" + cfg.CNIBin + "\n" + script
	if err := os.WriteFile(filepath.Join(cfg.CNIBin, "ptp"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	// The real one looks for it in the same folder.
	if err := os.Symlink("/usr/lib/cni/host-local", filepath.Join(cfg.CNIBin, "host-local")); err != nil {
		t.Fatal(err)
	}
	n := open(t, cfg)
	n.cniTimeout, n.clearTimeout = time.Second, 500*time.Millisecond
	return n
}

func refuses(t *testing.T, n *Network, want ...string) {
	t.Helper()
	_, err := n.Setup(t.Context(), key(0, 1), false)
	for _, w := range want {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("Setup: %v; want %q", err, w)
		}
	}
}

func TestPluginFails(t *testing.T) {
	for _, c := range []struct{ name, script, want string }{
		{"in its own words", `echo '{"code":100,"msg":"no luck","details":"at all"}'; exit 1`, "set up network of default/web-0@1: CNI plugin ptp failed: no luck: at all"},
		{"in others", `echo segmentation fault >&2; exit 139`, "CNI plugin ptp failed: segmentation fault"},
		{"silently", `exit 3`, "CNI plugin ptp failed: it said nothing, and ended with exit status 3"},
		{"with nonsense", `echo '{}'`, "no IPv4 address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := withPlugin(t, c.script)
			refuses(t, n, c.want)
			nothingLeft(t, n)
		})
	}
}

func TestPluginIsMissing(t *testing.T) {
	cfg := config(t)
	cfg.CNIBin = t.TempDir()
	n := open(t, cfg)
	refuses(t, n, "CNI plugin ptp is not in "+cfg.CNIBin)
	nothingLeft(t, n)
}

// A plugin that hangs is killed with all that it has started, and what it made by
// then goes, though it hangs again when it is to take that back.
func TestPluginHangs(t *testing.T) {
	n := withPlugin(t, `
if [ "$CNI_COMMAND" = ADD ]; then $real || exit; fi
echo $$ >> $here/pids
echo waiting for a lock >&2
sleep 1000 &
echo $! >> $here/pids
wait`)
	refuses(t, n, "CNI plugin ptp did not answer within 1.0s and was killed; it said: waiting for a lock")
	b, err := os.ReadFile(filepath.Join(n.cfg.CNIBin, "pids"))
	pids := strings.Fields(string(b))
	if err != nil || len(pids) != 4 { // two runs: to make and to take back
		t.Fatalf("processes %v, %v", pids, err)
	}
	for _, s := range pids {
		pid, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, 2*time.Second, func() error {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) || strings.Contains(string(b), ") Z ") {
				return nil
			}
			return fmt.Errorf("process %d lives: %s, %v", pid, b, err)
		})
	}
	eventually(t, 2*time.Second, func() error { // the kernel takes links a moment after their namespace
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, l := range links {
			if l.Type() == "veth" {
				return fmt.Errorf("link %s is left", l.Attrs().Name)
			}
		}
		return nil
	})
	nothingLeft(t, n)

	// The plugin is well again: so is the next replica.
	if err := os.Remove(filepath.Join(n.cfg.CNIBin, "ptp")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/usr/lib/cni/ptp", filepath.Join(n.cfg.CNIBin, "ptp")); err != nil {
		t.Fatal(err)
	}
	n.cniTimeout = cniTimeout
	setup(t, n, key(0, 1))
}

func TestAddressesRunOut(t *testing.T) {
	n := open(t, config(t))
	small := set()
	small.Subnet = "10.64.7.0/29"
	if err := n.Configure(t.Context(), small); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		setup(t, n, key(i+1, 1))
	}
	refuses(t, n, "set up network of default/web-0@1: all 5 addresses of 10.64.7.0/29 are in use")
	if got := len(n.List()); got != 5 {
		t.Errorf("%d replicas have a network", got)
	}
	if err := n.Teardown(t.Context(), key(3, 1)); err != nil {
		t.Fatal(err)
	}
	setup(t, n, key(0, 1))
}

func TestSetupWaitsForSubnet(t *testing.T) {
	n, err := New(config(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Leave(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if _, ok := n.Standing(); ok {
		t.Error("it stands somewhere, and nobody has told it")
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	none := set()
	none.Subnet, none.Why = "", "no subnet is free: all 4 of 10.64.0.0/26 are taken"
	for _, c := range []struct {
		set  *wire.NetworkSet
		want string
	}{
		{nil, "set up network of default/web-0@1: the leader has given this node no subnet: it has not been heard"},
		{&none, "the leader has given this node no subnet: no subnet is free: all 4 of 10.64.0.0/26 are taken"},
	} {
		if c.set != nil {
			if err := n.Configure(t.Context(), *c.set); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := n.Setup(over, key(0, 1), false); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Setup: %v; want %q", err, c.want)
		}
	}
	if len(n.List()) != 0 {
		t.Errorf("replicas %v", n.List())
	}
	done := make(chan error, 1)
	go func() {
		_, err := n.Setup(context.Background(), key(0, 1), false)
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("Setup did not wait: %v", err)
	default:
	}
	if err := n.Configure(t.Context(), set()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestBadSetsAreRefused(t *testing.T) {
	n := open(t, config(t))
	before, _ := n.Standing()
	for _, c := range []struct {
		change func(*wire.NetworkSet)
		want   string
	}{
		{func(s *wire.NetworkSet) { s.Cluster = "" }, `range ""`},
		{func(s *wire.NetworkSet) { s.Services = "fd00::/64" }, `range "fd00::/64" is not IPv4`},
		{func(s *wire.NetworkSet) { s.Subnet = "10.64.7.0/31" }, "no room"},
	} {
		s := set()
		c.change(&s)
		if err := n.Configure(t.Context(), s); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Configure(%+v): %v, want %q", s, err, c.want)
		}
	}
	if after, ok := n.Standing(); !ok || after != before {
		t.Errorf("it stands at %+v, before %+v", after, before)
	}
}

// What makes no sense of one node is left out, and said: the others stay together.
func TestStrangePeersAreLeftOut(t *testing.T) {
	var said bytes.Buffer
	cfg := config(t)
	cfg.Logger = slog.New(slog.NewTextHandler(&said, nil))
	n := open(t, cfg)
	good := wire.Peer{Node: "good", Address: "192.0.2.2", Subnet: "10.64.9.0/24"}
	for _, c := range []struct {
		strange wire.Peer
		want    string
	}{
		{wire.Peer{Node: "bad", Address: "here", Subnet: "10.64.8.0/24"}, `address \"here\" is not IPv4`},
		{wire.Peer{Node: "bad", Address: "fd00::1", Subnet: "10.64.8.0/24"}, `address \"fd00::1\" is not IPv4`},
		{wire.Peer{Node: "bad", Address: "0.0.0.0", Subnet: "10.64.8.0/24"}, "0.0.0.0 is no node's"},
		{wire.Peer{Node: "bad", Address: "224.0.0.1", Subnet: "10.64.8.0/24"}, "224.0.0.1 is no node's"},
		{wire.Peer{Node: "bad", Address: "192.0.2.3", Subnet: "10.64/16"}, `range \"10.64/16\"`},
	} {
		was := wire.Peer{Node: "bad", Address: "192.0.2.3", Subnet: "10.64.8.0/24"}
		for what, sets := range map[string][]wire.NetworkSet{
			"whole":      {set(c.strange, good)},
			"as it came": {set(was), {Put: []wire.Peer{c.strange, good}}},
		} {
			said.Reset()
			for _, s := range sets {
				if err := n.Configure(t.Context(), s); err != nil {
					t.Fatalf("%+v, told %s: %v", c.strange, what, err)
				}
			}
			if got := n.placed().sorted(); len(got) != 1 || got[0].Node != "good" {
				t.Errorf("%+v, told %s: the peers are %+v", c.strange, what, got)
			}
			if !strings.Contains(said.String(), c.want) {
				t.Errorf("%+v, told %s: said %q, want %q", c.strange, what, said.String(), c.want)
			}
		}
	}
}

// A file that cannot be read is told again by the leader; the agent starts.
func TestPlaceOnDiskIsTorn(t *testing.T) {
	cfg := config(t)
	n := open(t, cfg)
	for _, text := range []string{`{"Complete":tr`, `{"Complete":true,"Cluster":"everything"}`} {
		if err := os.WriteFile(n.placePath(), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		again, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := again.Standing(); ok {
			t.Errorf("%s: it stands somewhere", text)
		}
	}
}
