package netfilter

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"sigs.k8s.io/knftables"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/wire"
)

func picture() *network.Picture {
	p := network.NewPicture()
	p.Stand(network.Standing{Address: netip.MustParseAddr("192.0.2.1"), Subnet: netip.MustParsePrefix("10.64.7.0/24"),
		Cluster: netip.MustParsePrefix("10.64.0.0/10"), Services: netip.MustParsePrefix("10.128.0.0/14")})
	return p
}

func end(slot int) wire.Endpoint {
	return wire.Endpoint{Replica: api.ReplicaKey{Namespace: "default", Service: "web", Slot: slot, Epoch: 7}, NodeIP: "192.0.2.1", IP: fmt.Sprintf("10.64.7.%d", 2+slot),
		Ports: []api.Port{{Port: 80, Publish: 8080}, {Port: 53, Protocol: api.UDP}}}
}

// Each transaction is one that nftables takes: what is pointed at is there, what is
// deleted was there.
func TestTransactions(t *testing.T) {
	fake := knftables.NewFake(knftables.IPv4Family, network.TableName)
	table := &Table{nft: fake}
	p := picture()
	apply := func(c network.Change) {
		t.Helper()
		if err := fake.Run(t.Context(), transaction(table.nft, c)); err != nil {
			t.Fatalf("%v\n%s", err, transaction(table.nft, c))
		}
	}
	p.Change()
	apply(network.Diff(nil, p.Table()))
	empty := fake.Dump()
	for _, service := range []wire.Service{
		{Key: api.Key{Namespace: "default", Name: "web"}, VIP: "10.128.0.10"},
		{Key: api.Key{Namespace: "default", Name: "web"}, VIP: "10.128.0.10", SessionAffinity: api.AffinityClientIP},
	} {
		p.Apply(network.Update{Services: []wire.Service{service}, Put: []wire.Endpoint{end(0), end(1)}})
		apply(p.Change())
		p.Apply(network.Update{Drop: []api.ReplicaKey{end(0).Replica}})
		apply(p.Change())
	}
	if got := fake.Dump(); !strings.Contains(got, `add element ip orch services { 10.128.0.10 . tcp . 80 : goto svc-default/web-tcp-80 }`) {
		t.Errorf("no way to the service:\n%s", got)
	}
	p.Apply(network.Update{Complete: true})
	apply(p.Change())
	if got := fake.Dump(); got != empty {
		t.Errorf("something is left:\n%s\nthan before:\n%s", got, empty)
	}
	apply(network.Diff(nil, p.Table()))
}

// What nft lists is what was set, in the words of several versions.
func TestParse(t *testing.T) {
	const services = `{"map": {"name": "services", "type": ["ipv4_addr", "inet_proto", "inet_service"], "map": "verdict", "elem": [%s]}}`
	for _, c := range []struct{ name, in, want string }{
		{"a map", fmt.Sprintf(services, `[{"concat": ["10.128.0.11", "tcp", 80]}, {"goto": {"target": "svc-default/web-tcp-80"}}]`),
			"set services { ipv4_addr . inet_proto . inet_service : verdict }\n\t10.128.0.11 . tcp . 80 : goto svc-default/web-tcp-80\n"},
		{"a protocol by its number, a verdict without a target", fmt.Sprintf(services, `[{"concat": ["10.128.0.11", 17, 53]}, {"drop": null}]`),
			"set services { ipv4_addr . inet_proto . inet_service : verdict }\n\t10.128.0.11 . udp . 53 : drop\n"},
		{"a commented element", `{"set": {"name": "hairpin", "type": ["ipv4_addr", "ipv4_addr"], "elem": [{"elem": {"val": {"concat": ["10.0.0.1", "10.0.0.1"]}, "comment": "x"}}]}}`,
			"set hairpin { ipv4_addr . ipv4_addr }\n\t10.0.0.1 . 10.0.0.1\n"},
		{"clients are the kernel's own", `{"set": {"name": "aff", "type": "ipv4_addr", "flags": ["timeout"], "timeout": 10800, "elem": [{"elem": {"val": "10.0.0.1", "expires": 10}}]}}`,
			"set aff { ipv4_addr timeout 10800s }\n"},
		{"a chain that drops", `{"chain": {"name": "pre", "type": "nat", "hook": "prerouting", "prio": -100, "policy": "drop"}}`, "chain pre (nat policy drop prerouting -100)\n"},
	} {
		got, err := parse([]byte(`{"nftables": [{"metainfo": {"json_schema_version": 1}}, ` + c.in + `]}`))
		if err != nil || got.String() != c.want {
			t.Errorf("%s: %v\n%s\nwant:\n%s", c.name, err, got, c.want)
		}
	}
	got, err := parse([]byte(`{"nftables": [{"chain": {"name": "c"}}, {"rule": {"chain": "c", "comment": "a"}}, {"rule": {"chain": "c"}}]}`))
	if err != nil || len(got.Chains["c"].Rules) != 2 || got.Chains["c"].Rules[0].Hash != "a" || got.Chains["c"].Rules[1].Hash != "" {
		t.Errorf("rules: %+v, %v", got, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"nftables": [{"map": {"name": "m", "map": "verdict", "elem": [[{"concat": [1, {"x": []}]}, {"goto": null}]]}}]}`))
	f.Add([]byte(`{"nftables": [{"set": {"elem": [null, {"elem": {"val": {}}}]}}, {"rule": {}}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := parse(b); err == nil {
			_ = network.Diff(got, picture().Table())
		}
	})
}

func TestWithoutNft(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", "")
	table := New(t.TempDir() + "/marker")
	p := picture()
	p.Change()
	err := table.Apply(context.Background(), network.Diff(nil, p.Table()))
	if _, e := table.List(context.Background()); err == nil || e == nil || !strings.Contains(err.Error(), "install the package nftables") || !strings.Contains(e.Error(), "install the package nftables") {
		t.Errorf("without nft: %v; %v", err, e)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0, 8, 0, 1, 0x80, 4, 0, 1, 0x80})
	f.Add([]byte{2, 0, 0, 0, 3, 0, 1, 0x80, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) { read(b) })
}
