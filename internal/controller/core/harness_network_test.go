package core

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/wire"
)

// agentNetwork is what an agent was told of the replicas' network.
type agentNetwork struct {
	session uint64 // that it was told in
	all     wire.NetworkSet
	peers   map[string]wire.Peer
}

func (f *fleet) network(e SendNetwork) {
	f.t.Helper()
	a := f.agents[e.Node]
	if a == nil || a.session != e.Session || a.cut {
		return
	}
	switch {
	case e.Set.Complete:
		a.net = agentNetwork{e.Session, e.Set, map[string]wire.Peer{}}
	case a.net.session != e.Session:
		f.t.Errorf("%s was told of peers before it was told all", e.Node)
		return
	}
	for _, p := range e.Set.Put {
		if p.Node != a.name {
			a.net.peers[p.Node] = p
		}
	}
	for _, n := range e.Set.Drop {
		delete(a.net.peers, n)
	}
}

// netFleet is a fleet whose network is decided as given.
func netFleet(t *testing.T, count int, cluster network.Cluster) *fleet {
	f := newFleet(t)
	clear(f.kv)
	f.conf.Network = cluster
	f.elect()
	for i := range count {
		f.node(fmt.Sprintf("n%d", i+1), "boot1")
	}
	return f
}

// small has 4 subnets of 13 replicas, and 5 virtual IPs.
func small() network.Cluster {
	return network.Cluster{Nodes: netip.MustParsePrefix("10.64.0.0/26"), NodeBits: 28, Services: netip.MustParsePrefix("10.128.0.0/28"), Routes: wire.RoutesAuto}
}

// subnets words who has which: "n1=10.64.0.0/28 n2=...", as the store has it.
func (f *fleet) subnets() string {
	f.t.Helper()
	var out []string
	for _, k := range slices.Sorted(maps.Keys(f.kv)) {
		if strings.HasPrefix(k, nodePrefix) {
			var n api.Node
			if err := openEnvelope(f.kv[k], &n); err != nil {
				f.t.Fatal(err)
			}
			out = append(out, n.Metadata.Name+"="+n.Status.Subnet)
		}
	}
	return strings.Join(out, " ")
}

func (f *fleet) mustHaveSubnets(want string) {
	f.t.Helper()
	if got := f.subnets(); got != want {
		f.t.Errorf("subnets %s, want %s", got, want)
	}
}

// vips words which service has which, as the store has it.
func (f *fleet) vips() string {
	f.t.Helper()
	var out []string
	for _, k := range slices.Sorted(maps.Keys(f.kv)) {
		if strings.HasPrefix(k, servicePrefix) {
			var s api.Service
			if err := openEnvelope(f.kv[k], &s); err != nil {
				f.t.Fatal(err)
			}
			out = append(out, s.Metadata.Name+"="+s.Status.VIP)
		}
	}
	return strings.Join(out, " ")
}

func (f *fleet) mustHaveVIPs(want string) {
	f.t.Helper()
	if got := f.vips(); got != want {
		f.t.Errorf("virtual IPs %s, want %s", got, want)
	}
}

// peers words what an agent was told: "10.64.0.0/28: n2 10.0.0.2 10.64.0.16/28".
func (f *fleet) peers(name string) string {
	n := f.agents[name].net
	out := []string{n.all.Subnet + ":"}
	for _, k := range slices.Sorted(maps.Keys(n.peers)) {
		p := n.peers[k]
		out = append(out, fmt.Sprintf("%s %s %s", p.Node, p.Address, p.Subnet))
	}
	return strings.Join(out, " ")
}

func (f *fleet) mustKnow(name, want string) {
	f.t.Helper()
	if got := f.peers(name); got != want {
		f.t.Errorf("%s knows %s, want %s", name, got, want)
	}
}

// lose has the leader fall with what it has not committed.
func (f *fleet) lose(do func()) {
	f.commits = false
	do()
	f.commits = true
	f.elect()
}
