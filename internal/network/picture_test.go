package network

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

func here() Standing {
	return Standing{Address: netip.MustParseAddr("192.0.2.1"), Subnet: netip.MustParsePrefix("10.64.7.0/24"),
		Cluster: netip.MustParsePrefix("10.64.0.0/10"), Services: netip.MustParsePrefix("10.128.0.0/14"), Routes: wire.RoutesAuto}
}

func svc(name, vip string, opts ...func(*wire.Service)) wire.Service {
	s := wire.Service{Key: api.Key{Namespace: "default", Name: name}, VIP: vip}
	for _, o := range opts {
		o(&s)
	}
	return s
}

func sticky(s *wire.Service)     { s.SessionAffinity = api.AffinityClientIP }
func localFirst(s *wire.Service) { s.TrafficDistribution = api.PreferSameNode }

// end is slot i of a service: on this node if its address is of 10.64.7.
func end(service string, i int, ip string, ports ...api.Port) wire.Endpoint {
	e := wire.Endpoint{Replica: api.ReplicaKey{Namespace: "default", Service: service, Slot: i, Epoch: uint64(10 + i)}, Node: "n2", IP: ip, NodeIP: "192.0.2.2", Ports: ports}
	if strings.HasPrefix(ip, "10.64.7.") {
		e.Node, e.NodeIP = "n1", "192.0.2.1"
	}
	return e
}

func hostEnd(service string, i int, ip string, ports ...api.Port) wire.Endpoint {
	e := end(service, i, ip, ports...)
	e.NodeIP = ip
	return e
}

func port(n int) api.Port                    { return api.Port{Port: n} }
func udp(n int) api.Port                     { return api.Port{Port: n, Protocol: api.UDP} }
func published(at, n int) api.Port           { return api.Port{Port: n, Publish: at} }
func onOwnNode(at, n int) api.Port           { return api.Port{Port: n, Publish: at, Mode: api.PublishHost} }
func degraded(e wire.Endpoint) wire.Endpoint { e.Degraded = true; return e }

// of gives what a table has apart from the base, as text.
func of(t *Table) string {
	part := NewTable()
	baseChains, _ := base(here())
	for name, c := range t.Chains {
		if _, ok := baseChains[name]; !ok {
			part.Chains[name] = c
		}
	}
	for name, s := range t.Sets {
		if s.Timeout > 0 || len(s.Elements) > 0 {
			part.Sets[name] = s
		}
	}
	return part.String()
}

func TestLead(t *testing.T) {
	for _, c := range []struct {
		name string
		u    Update
		out  []api.ReplicaKey // ejected
		want string
	}{
		{name: "one endpoint", u: Update{Services: []wire.Service{svc("web", "10.128.0.10")}, Put: []wire.Endpoint{end("web", 0, "10.64.8.2", port(80))}}, want: `
set services { ipv4_addr . inet_proto . inet_service : verdict }
	10.128.0.10 . tcp . 80 : goto svc-default/web-tcp-80
chain svc-default/web-tcp-80
	meta l4proto tcp dnat ip to 10.64.8.2:80
`},
		{name: "several, two protocols, one here", u: Update{Services: []wire.Service{svc("web", "10.128.0.10")}, Put: []wire.Endpoint{
			end("web", 1, "10.64.7.2", port(80), udp(53)), end("web", 0, "10.64.8.2", port(80))}}, want: `
set hairpin { ipv4_addr . ipv4_addr }
	10.64.7.2 . 10.64.7.2
set services { ipv4_addr . inet_proto . inet_service : verdict }
	10.128.0.10 . tcp . 80 : goto svc-default/web-tcp-80
	10.128.0.10 . udp . 53 : goto svc-default/web-udp-53
chain svc-default/web-tcp-80
	meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.64.8.2 . 80, 1 : 10.64.7.2 . 80 }
chain svc-default/web-udp-53
	meta l4proto udp dnat ip to 10.64.7.2:53
`},
		{name: "ports that are none keep nobody from the rest", u: Update{Services: []wire.Service{svc("web", "10.128.0.10")}, Put: []wire.Endpoint{
			end("web", 0, "10.64.8.2", port(80), port(0), port(-1), port(70000), published(70000, 80), published(-1, 80))}}, want: `
set services { ipv4_addr . inet_proto . inet_service : verdict }
	10.128.0.10 . tcp . 80 : goto svc-default/web-tcp-80
chain svc-default/web-tcp-80
	meta l4proto tcp dnat ip to 10.64.8.2:80
`},
		{name: "headless, published on every node: the port of each revision", u: Update{Services: []wire.Service{svc("web", "")}, Put: []wire.Endpoint{
			end("web", 0, "10.64.8.2", published(8080, 80)), end("web", 1, "10.64.8.3", published(8080, 81))}}, want: `
set ports { inet_proto . inet_service : verdict }
	tcp . 8080 : goto pub-default/web-tcp-8080
chain pub-default/web-tcp-8080
	meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.64.8.2 . 80, 1 : 10.64.8.3 . 81 }
`},
		{name: "mode host leads to this node's only", u: Update{Put: []wire.Endpoint{
			end("web", 0, "10.64.8.2", onOwnNode(8080, 80)), end("web", 1, "10.64.7.3", onOwnNode(8080, 80))}}, want: `
set hairpin { ipv4_addr . ipv4_addr }
	10.64.7.3 . 10.64.7.3
set ports { inet_proto . inet_service : verdict }
	tcp . 8080 : goto pub-default/web-tcp-8080
chain pub-default/web-tcp-8080
	meta l4proto tcp dnat ip to 10.64.7.3:80
`},
		{name: "same node preferred, where it has one", u: Update{Services: []wire.Service{svc("web", "10.128.0.10", localFirst)}, Put: []wire.Endpoint{
			end("web", 0, "10.64.8.2", port(80), port(90)), end("web", 1, "10.64.7.3", port(80))}}, want: `
set hairpin { ipv4_addr . ipv4_addr }
	10.64.7.3 . 10.64.7.3
set services { ipv4_addr . inet_proto . inet_service : verdict }
	10.128.0.10 . tcp . 80 : goto svc-default/web-tcp-80
	10.128.0.10 . tcp . 90 : goto svc-default/web-tcp-90
chain svc-default/web-tcp-80
	meta l4proto tcp dnat ip to 10.64.7.3:80
chain svc-default/web-tcp-90
	meta l4proto tcp dnat ip to 10.64.8.2:90
`},
		{name: "affinity", u: Update{Services: []wire.Service{svc("web", "10.128.0.10", sticky)}, Put: []wire.Endpoint{
			end("web", 0, "10.64.8.2", port(80)), end("web", 1, "10.64.8.3", port(80))}}, want: `
set aff-default/web-0-10 { ipv4_addr timeout 10800s }
set aff-default/web-1-11 { ipv4_addr timeout 10800s }
set services { ipv4_addr . inet_proto . inet_service : verdict }
	10.128.0.10 . tcp . 80 : goto svc-default/web-tcp-80
chain ep-default/web-0-10-tcp-80
	update @aff-default/web-0-10 { ip saddr }
	meta l4proto tcp dnat ip to 10.64.8.2:80
chain ep-default/web-1-11-tcp-80
	update @aff-default/web-1-11 { ip saddr }
	meta l4proto tcp dnat ip to 10.64.8.3:80
chain svc-default/web-tcp-80
	ip saddr @aff-default/web-0-10 goto ep-default/web-0-10-tcp-80
	ip saddr @aff-default/web-1-11 goto ep-default/web-1-11-tcp-80
	numgen random mod 2 vmap { 0 : goto ep-default/web-0-10-tcp-80 , 1 : goto ep-default/web-1-11-tcp-80 }
`},
		{name: "the node's own network: led there from elsewhere, not led away from there", u: Update{Services: []wire.Service{svc("dns", "10.128.0.11"), svc("web", "10.128.0.10")}, Put: []wire.Endpoint{
			hostEnd("web", 0, "192.0.2.2", published(80, 80)), hostEnd("dns", 0, "192.0.2.1", published(90, 90)), hostEnd("dns", 1, "192.0.2.3", published(90, 90))}}, want: `
set hosts { ipv4_addr . inet_proto . inet_service }
	192.0.2.2 . tcp . 80
	192.0.2.3 . tcp . 90
set ports { inet_proto . inet_service : verdict }
	tcp . 80 : goto pub-default/web-tcp-80
set services { ipv4_addr . inet_proto . inet_service : verdict }
	10.128.0.10 . tcp . 80 : goto svc-default/web-tcp-80
	10.128.0.11 . tcp . 90 : goto svc-default/dns-tcp-90
chain pub-default/web-tcp-80
	meta l4proto tcp dnat ip to 192.0.2.2:80
chain svc-default/dns-tcp-90
	meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 192.0.2.1 . 90, 1 : 192.0.2.3 . 90 }
chain svc-default/web-tcp-80
	meta l4proto tcp dnat ip to 192.0.2.2:80
`},
		{name: "the least bad", u: Update{Services: []wire.Service{svc("web", "10.128.0.10")}, Put: []wire.Endpoint{
			end("web", 0, "10.64.8.2", port(80)), degraded(end("web", 1, "10.64.8.3", port(80))), end("web", 2, "10.64.8.4", port(80))}},
			out: []api.ReplicaKey{{Namespace: "default", Service: "web", Slot: 0, Epoch: 10}, {Namespace: "default", Service: "web", Slot: 2, Epoch: 12}}, want: `
set services { ipv4_addr . inet_proto . inet_service : verdict }
	10.128.0.10 . tcp . 80 : goto svc-default/web-tcp-80
chain svc-default/web-tcp-80
	meta l4proto tcp dnat ip to 10.64.8.3:80
`},
		{name: "all ejected: all stay", u: Update{Services: []wire.Service{svc("web", "10.128.0.10")}, Put: []wire.Endpoint{end("web", 0, "10.64.8.2", port(80))}},
			out: []api.ReplicaKey{{Namespace: "default", Service: "web", Slot: 0, Epoch: 10}}, want: `
set services { ipv4_addr . inet_proto . inet_service : verdict }
	10.128.0.10 . tcp . 80 : goto svc-default/web-tcp-80
chain svc-default/web-tcp-80
	meta l4proto tcp dnat ip to 10.64.8.2:80
`},
		{name: "two publish one port: the first by name has it", u: Update{Put: []wire.Endpoint{
			end("b", 0, "10.64.8.2", published(8080, 80)), end("a", 0, "10.64.8.3", published(8080, 80))}}, want: `
set ports { inet_proto . inet_service : verdict }
	tcp . 8080 : goto pub-default/a-tcp-8080
chain pub-default/a-tcp-8080
	meta l4proto tcp dnat ip to 10.64.8.3:80
chain pub-default/b-tcp-8080
	meta l4proto tcp dnat ip to 10.64.8.2:80
`},
		{name: "what cannot be led to is left out", u: Update{Services: []wire.Service{svc("web", "10.128.0.10; flush ruleset"), svc("api", "10.128.0.12")}, Put: []wire.Endpoint{
			end("web", 0, "10.64.8.2", port(80)), end("api", 0, "fd00::1", port(80)), end("api", 1, "", port(80)),
			end("api", 2, "10.64.8.9", api.Port{Port: 1, Protocol: "SCTP"})}}, want: "\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := NewPicture()
			p.Stand(here())
			c.u.Complete = true
			p.Apply(c.u)
			for _, k := range c.out {
				p.Eject(k, true)
			}
			p.Change()
			if got := of(p.Table()); "\n"+got != c.want {
				t.Errorf("got:\n%s\nwant:%s", got, c.want)
			}
		})
	}
}

func TestBaseFollowsStanding(t *testing.T) {
	p := NewPicture()
	if c := p.Change(); !c.Empty() || len(p.Table().Chains) > 0 {
		t.Errorf("a table before the node stands anywhere: %+v", c)
	}
	s := here()
	s.Subnet = netip.Prefix{}
	p.Stand(s)
	p.Change()
	if got := p.Table().String(); strings.Contains(got, "invalid") {
		t.Errorf("no subnet, yet a rule on it:\n%s", got)
	}
	before := len(p.Table().Chains)
	p.Stand(here())
	c := p.Change()
	if c.Whole || len(c.DropChains)+len(c.DropSets)+len(c.Sets) > 0 || c.Chains["postrouting"].Rules == nil || len(p.Table().Chains) != before {
		t.Errorf("a subnet came: %+v", c)
	}
	for _, want := range []string{
		`iif != "lo" ip daddr 127.0.0.0/8 drop`,
		`iif != "lo" ip saddr 127.0.0.0/8 drop`,
		"ip saddr 10.64.0.0/10 udp dport 4789 drop",
		"ip saddr 10.64.7.0/24 ip daddr != 10.64.0.0/10 masquerade",
		"ct status dnat ip daddr 10.64.0.0/10 ip daddr != 10.64.7.0/24 ip saddr != 10.64.0.0/10 masquerade",
		"ip daddr 10.128.0.0/14 meta l4proto tcp reject with tcp reset",
		"meta l4proto tcp dnat ip to 10.64.7.1:7071",
	} {
		if got := p.Table().String(); !strings.Contains(got, want) {
			t.Errorf("%q is missing:\n%s", want, got)
		}
	}
	p.Stand(here())
	if c := p.Change(); !c.Empty() {
		t.Errorf("standing still changes %+v", c)
	}
}

// One change among a thousand services names what one service has, and no more.
func TestCostFollowsTheChange(t *testing.T) {
	p := thousand()
	if c := p.Change(); c.Size() < 3000 {
		t.Fatalf("the whole names %d", c.Size())
	}
	gone := p.Apply(Update{Drop: []api.ReplicaKey{{Namespace: "default", Service: "s500", Slot: 1, Epoch: 11}}})
	if len(gone) != 1 || gone[0].IP != "10.65.244.1" {
		t.Errorf("gone: %+v", gone)
	}
	if c := p.Change(); c.Size() != 2 || len(c.Chains["svc-default/s500-tcp-80"].Rules) != 1 {
		t.Errorf("one endpoint fewer: %+v", c)
	}
}

func thousand() *Picture {
	p := NewPicture()
	p.Stand(here())
	u := Update{Complete: true}
	for i := range 1000 {
		u.Services = append(u.Services, svc(fmt.Sprintf("s%d", i), VIPs().VIP(i).String()))
		for j := range 3 {
			u.Put = append(u.Put, end(fmt.Sprintf("s%d", i), j, fmt.Sprintf("10.%d.%d.%d", 64+i/256, i%256, j), port(80)))
		}
	}
	p.Apply(u)
	return p
}

// VIPs is the range of tests.
func VIPs() Cluster { return DefaultCluster() }

func TestNames(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, c := range []struct{ in, want string }{
		{"default/web-tcp-80", "svc-default/web-tcp-80"},
		{long + "/" + long + "-tcp-65535", "svc-" + long + "/" + strings.Repeat("a", 42) + "_"},
		{"Weird ;name", "svc-eirdname_"},
	} {
		got := ident("svc-", c.in)
		if len(got) > nameMax || got != c.want && !strings.HasPrefix(got, c.want) {
			t.Errorf("ident(%q) = %q (%d letters), want %q", c.in, got, len(got), c.want)
		}
	}
	if ident("svc-", long+"/"+long+"-tcp-1") == ident("svc-", long+"/"+long+"-tcp-2") {
		t.Error("two long names are one")
	}
}

func TestOpened(t *testing.T) {
	p := NewPicture()
	p.Stand(here())
	u := api.Port{Port: 53, Protocol: api.UDP, Publish: 5353}
	p.Apply(Update{Put: []wire.Endpoint{end("dns", 0, "10.64.8.2", u, published(80, 80))}})
	if got := p.Change().Opened(); !slices.Equal(got, []uint16{5353}) {
		t.Errorf("opened: %v", got)
	}
	p.Apply(Update{Put: []wire.Endpoint{end("dns", 1, "10.64.8.3", u)}})
	if got := p.Change().Opened(); len(got) > 0 {
		t.Errorf("opened though it was: %v", got)
	}
}

// apply does to a table what the kernel does.
func apply(t *Table, c Change) error {
	if c.Whole {
		*t = *NewTable()
	}
	for name, s := range c.Sets {
		s.Elements = map[string]string{}
		if _, ok := t.Sets[name]; !ok {
			t.Sets[name] = s
		}
	}
	for name, chain := range c.Chains {
		t.Chains[name] = chain
	}
	for set, elements := range c.Drop {
		for k := range elements {
			if _, ok := t.Sets[set].Elements[k]; !ok {
				return fmt.Errorf("set %s has no %s", set, k)
			}
			delete(t.Sets[set].Elements, k)
		}
	}
	for set, elements := range c.Put {
		for k, v := range elements {
			if old, ok := t.Sets[set].Elements[k]; ok {
				return fmt.Errorf("set %s has %s: %s already", set, k, old)
			}
			t.Sets[set].Elements[k] = v
		}
	}
	for _, name := range c.DropChains {
		if _, ok := t.Chains[name]; !ok {
			return fmt.Errorf("no chain %s", name)
		}
		delete(t.Chains, name)
	}
	for _, name := range c.DropSets {
		if _, ok := t.Sets[name]; !ok {
			return fmt.Errorf("no set %s", name)
		}
		delete(t.Sets, name)
	}
	return dangling(t)
}

// dangling tells whether something points to what is not there: the kernel would
// refuse it.
func dangling(t *Table) error {
	var all []string
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			all = append(all, r.Text)
		}
	}
	for _, s := range t.Sets {
		all = slices.AppendSeq(all, maps.Values(s.Elements))
	}
	for _, text := range all {
		words := strings.Fields(text)
		for i, w := range words {
			if set, ok := strings.CutPrefix(w, "@"); ok {
				if _, ok := t.Sets[set]; !ok {
					return fmt.Errorf("%q: no set %s", text, set)
				}
			}
			if (w == "goto" || w == "jump") && i+1 < len(words) {
				if _, ok := t.Chains[strings.Trim(words[i+1], ",")]; !ok {
					return fmt.Errorf("%q: no chain", text)
				}
			}
		}
	}
	return nil
}

// Whatever is told in whatever order: the changes, carried out, give the table; a
// fresh picture of the same gives the same; and what was spoilt is put right.
func TestChangesAddUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, kernel := NewPicture(), NewTable()
		p.Stand(here())
		genPort := rapid.SampledFrom([]api.Port{port(80), port(81), udp(53), published(8080, 80), published(8080, 81), onOwnNode(8080, 80), onOwnNode(9090, 90)})
		genEnd := rapid.Custom(func(t *rapid.T) wire.Endpoint {
			ip := fmt.Sprintf("10.64.%d.%d", rapid.IntRange(7, 8).Draw(t, "node"), rapid.IntRange(2, 5).Draw(t, "ip"))
			e := end(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "service"), rapid.IntRange(0, 3).Draw(t, "slot"), ip, rapid.SliceOfN(genPort, 0, 3).Draw(t, "ports")...)
			if rapid.IntRange(0, 4).Draw(t, "host") == 0 {
				e.IP = e.NodeIP
			}
			e.Degraded = rapid.IntRange(0, 4).Draw(t, "degraded") == 0
			return e
		})
		genService := rapid.Custom(func(t *rapid.T) wire.Service {
			i := rapid.IntRange(0, 2).Draw(t, "service")
			s := svc([]string{"a", "b", "c"}[i], rapid.SampledFrom([]string{"", fmt.Sprintf("10.128.0.%d", 10+i)}).Draw(t, "vip"))
			s.SessionAffinity = rapid.SampledFrom([]api.SessionAffinity{"", api.AffinityClientIP}).Draw(t, "affinity")
			s.TrafficDistribution = rapid.SampledFrom([]api.TrafficDistribution{"", api.PreferSameNode}).Draw(t, "distribution")
			return s
		})
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			u := Update{Complete: rapid.IntRange(0, 5).Draw(t, "complete") == 0, Put: rapid.SliceOfN(genEnd, 0, 4).Draw(t, "put"), Services: rapid.SliceOfN(genService, 0, 2).Draw(t, "services")}
			for _, e := range rapid.SliceOfN(genEnd, 0, 3).Draw(t, "drop") {
				u.Drop = append(u.Drop, e.Replica)
			}
			for _, s := range rapid.SliceOfN(genService, 0, 1).Draw(t, "dropServices") {
				u.DropServices = append(u.DropServices, s.Key)
			}
			if u.Complete {
				u.Drop, u.DropServices = nil, nil
			}
			p.Apply(u)
			for _, e := range rapid.SliceOfN(genEnd, 0, 2).Draw(t, "eject") {
				p.Eject(e.Replica, rapid.Bool().Draw(t, "out"))
			}
			if err := apply(kernel, p.Change()); err != nil {
				t.Fatal(err)
			}
		}
		if kernel.String() != p.Table().String() {
			t.Fatalf("kernel:\n%s\nwanted:\n%s", kernel, p.Table())
		}
		if c := p.Change(); !c.Empty() {
			t.Fatalf("nothing new changes %+v", c)
		}
		fresh := NewPicture()
		fresh.Stand(here())
		fresh.Apply(p.All())
		for _, k := range p.Ejected() {
			fresh.Eject(k, true)
		}
		fresh.Change()
		if fresh.Table().String() != kernel.String() {
			t.Fatalf("fresh:\n%s\nkernel:\n%s", fresh.Table(), kernel)
		}
		for name, c := range kernel.Chains { // somebody was there
			switch rapid.IntRange(0, 9).Draw(t, "spoil "+name) {
			case 0:
				delete(kernel.Chains, name)
			case 1:
				c.Rules = append(slices.Clone(c.Rules), Rule{Hash: "strange"})
				kernel.Chains[name] = c
			case 2:
				kernel.Chains["strange"] = Chain{}
			}
		}
		for name, s := range kernel.Sets {
			for k := range s.Elements {
				if rapid.Bool().Draw(t, "spoil "+name) {
					s.Elements[k] = "drop"
				}
			}
		}
		c := Diff(kernel, p.Table())
		if err := apply(kernel, c); err != nil {
			t.Fatal(err)
		}
		if c := Diff(kernel, p.Table()); !c.Empty() || kernel.String() != p.Table().String() {
			t.Fatalf("not put right: %+v", c)
		}
	})
}

func TestDiffMakesAnewWhatCannotBeTurned(t *testing.T) {
	p := thousand()
	p.Change()
	for _, have := range []*Table{
		nil,
		{Chains: map[string]Chain{"guard": {}}},
		{Chains: map[string]Chain{}, Sets: map[string]Set{setPorts: {Key: "ipv4_addr"}}},
	} {
		if c := Diff(have, p.Table()); !c.Whole || len(c.Chains) != len(p.Table().Chains) {
			t.Errorf("%v: not whole", have)
		}
	}
}
