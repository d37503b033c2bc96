package traffic

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/agent/netdev/netfilter"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/wire"
)

// thousand is 1,000 services of three endpoints each.
func thousand() network.Update {
	u := network.Update{Complete: true}
	for i := range 1000 {
		k := api.Key{Namespace: "default", Name: fmt.Sprintf("s%d", i)}
		u.Services = append(u.Services, wire.Service{Key: k, VIP: network.DefaultCluster().VIP(i).String()})
		for j := range 3 {
			u.Put = append(u.Put, wire.Endpoint{Replica: api.ReplicaKey{Namespace: k.Namespace, Service: k.Name, Slot: j, Epoch: uint64(3*i + j)},
				Node: "n2", NodeIP: "192.0.2.2", IP: fmt.Sprintf("10.%d.%d.%d", 65+i/250, i%250, j+1), Ports: []api.Port{{Port: 80, Publish: 10000 + i}}})
		}
	}
	return u
}

// BenchmarkThousandServices measures the kernel's side with real nft: all of it made
// anew (net.whole), one endpoint changed (net.change), all of it compared.
func BenchmarkThousandServices(b *testing.B) {
	rules := netfilter.New(b.TempDir() + "/marker")
	p := network.NewPicture()
	p.Stand(here())
	p.Apply(thousand())
	p.Change()
	b.Cleanup(func() {
		if err := rules.Remove(context.Background()); err != nil {
			b.Error(err)
		}
	})
	whole := func(b *testing.B) {
		b.Helper()
		if err := rules.Apply(b.Context(), network.Diff(nil, p.Table())); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("whole", func(b *testing.B) {
		for b.Loop() {
			whole(b)
		}
	})
	b.Run("change", func(b *testing.B) {
		whole(b)
		e := thousand().Put[1500]
		there := true
		for b.Loop() {
			u := network.Update{Put: []wire.Endpoint{e}}
			if there {
				u = network.Update{Drop: []api.ReplicaKey{e.Replica}}
			}
			there = !there
			p.Apply(u)
			if err := rules.Apply(b.Context(), p.Change()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("compare", func(b *testing.B) {
		whole(b)
		for b.Loop() {
			have, err := rules.List(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			if c := network.Diff(have, p.Table()); !c.Empty() {
				b.Fatalf("%d changes", c.Size())
			}
		}
	})
	b.Run("touched", func(b *testing.B) {
		for b.Loop() {
			if _, err := rules.Touched(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkPicture is the pure part of one change among a thousand services.
func BenchmarkPicture(b *testing.B) {
	p := network.NewPicture()
	p.Stand(here())
	p.Apply(thousand())
	p.Change()
	e := thousand().Put[1500]
	for i := 0; b.Loop(); i++ {
		e.IP = fmt.Sprintf("10.64.8.%d", i%200)
		p.Apply(network.Update{Put: []wire.Endpoint{e}})
		if c := p.Change(); c.Size() > 10 {
			b.Fatal(c.Size())
		}
	}
}

// BenchmarkConnections is one look at the connections of a dropped endpoint among
// fifty thousand others.
func BenchmarkConnections(b *testing.B) {
	for i := range 50_000 {
		client, server := net.IPv4(10, 99, byte(i>>8), byte(i)), net.IPv4(10, 98, 0, 1)
		flow := &netlink.ConntrackFlow{FamilyType: unix.AF_INET, TimeOut: 1000, ProtoInfo: &netlink.ProtoInfoTCP{State: 3},
			Forward: netlink.IPTuple{Protocol: unix.IPPROTO_TCP, SrcIP: client.To4(), DstIP: server.To4(), SrcPort: 1000, DstPort: 80},
			Reverse: netlink.IPTuple{Protocol: unix.IPPROTO_TCP, SrcIP: server.To4(), DstIP: client.To4(), SrcPort: 80, DstPort: 1000}}
		if err := netlink.ConntrackCreate(netlink.ConntrackTable, unix.AF_INET, flow); err != nil {
			b.Fatal(err)
		}
	}
	b.Cleanup(func() { _ = netlink.ConntrackTableFlush(netlink.ConntrackTable) })
	c := netfilter.Connections{}
	gone := netip.MustParseAddr("10.97.0.1")
	for b.Loop() {
		all, err := c.To(b.Context(), func(a netip.AddrPort) bool { return a.Addr() == gone })
		if err != nil || len(all) > 0 {
			b.Fatal(all, err)
		}
	}
}
