package netdev

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/orchctl/orch/internal/network"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestFiles(t *testing.T) {
	cfg := config(t)
	n := open(t, cfg)
	a := setup(t, n, key(0, 1))
	files := n.Files(key(0, 1))
	if got, want := read(t, files.ResolvConf), "nameserver 10.64.7.1\nsearch default.orch.internal orch.internal\noptions ndots:2 timeout:2\n"; got != want {
		t.Errorf("resolv.conf %q, want %q", got, want)
	}
	hosts := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" + a.IP.String() + "\tweb-0.web.default.orch.internal web-0\n"
	if got := read(t, files.Hosts); got != hosts {
		t.Errorf("hosts %q, want %q", got, hosts)
	}
	// What the replica writes is its own, and stays as long as it does.
	if err := os.WriteFile(files.Hosts, []byte("mine"), 0); err != nil {
		t.Fatal(err)
	}
	if other := n.Files(key(1, 2)); other == files {
		t.Error("two replicas share files")
	}
	n = open(t, cfg)
	setup(t, n, key(0, 1))
	if got := read(t, files.Hosts); got != "mine" {
		t.Errorf("hosts became %q", got)
	}
	if err := n.Teardown(t.Context(), key(0, 1)); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, n)
}

// While this node's agent starts anew, that of the next node is asked.
func TestASecondServer(t *testing.T) {
	for name, c := range map[string]struct {
		peers []string
		want  string
	}{
		"alone":         {nil, ""},
		"the next":      {[]string{"10.64.3.0/24", "10.64.9.0/24", "10.64.8.0/24"}, "10.64.8.0/24"},
		"round":         {[]string{"10.64.3.0/24", "10.64.2.0/24"}, "10.64.2.0/24"},
		"not all known": {[]string{"", "10.64.3.0/24"}, "10.64.3.0/24"},
	} {
		t.Run(name, func(t *testing.T) {
			p := place{peers: map[string]network.Peer{}}
			p.at.Subnet = netip.MustParsePrefix("10.64.7.0/24")
			for i, s := range c.peers {
				x, _ := netip.ParsePrefix(s)
				p.peers[string(rune('a'+i))] = network.Peer{Subnet: x}
			}
			want, _ := netip.ParsePrefix(c.want)
			if got := p.next(); got != want {
				t.Errorf("%s, want %s", got, want)
			}
		})
	}
}

func TestHostNetwork(t *testing.T) {
	cfg := config(t)
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	want := Attachment{IP: cfg.Address}
	host := func(slot int) {
		t.Helper()
		if a, err := n.Setup(t.Context(), key(slot, 1), true); err != nil || a != want {
			t.Fatalf("Setup: %+v, %v; want %+v", a, err, want)
		}
	}
	// Without a subnet nobody here answers names: those of the host do.
	host(0)
	ours, err := os.ReadFile(hostResolvConf)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if got := read(t, n.Files(key(0, 1)).ResolvConf); got != string(ours) {
		t.Errorf("resolv.conf %q, want the host's %q", got, ours)
	}
	if err := n.Configure(t.Context(), set()); err != nil {
		t.Fatal(err)
	}
	host(1)
	if got := read(t, n.Files(key(1, 1)).ResolvConf); !strings.HasPrefix(got, "nameserver 10.64.7.1\n") {
		t.Errorf("resolv.conf %q", got)
	}
	if got := read(t, n.Files(key(1, 1)).Hosts); !strings.HasSuffix(got, "127.0.0.1\tweb-1.web.default.orch.internal web-1\n") {
		t.Errorf("hosts %q", got)
	}
	n = open(t, cfg) // another agent
	if got := n.List(); len(got) != 2 {
		t.Errorf("after a restart: %v", got)
	}
	host(1)

	// The same slot with a network of its own, and the other way about.
	if a := setup(t, n, key(1, 1)); a.NetNS == "" || !netip.MustParsePrefix("10.64.7.0/24").Contains(a.IP) {
		t.Errorf("with a network of its own: %+v", a)
	}
	host(1)
	for slot := range 2 {
		if err := n.Teardown(t.Context(), key(slot, 1)); err != nil {
			t.Fatal(err)
		}
	}
	nothingLeft(t, n)
}
