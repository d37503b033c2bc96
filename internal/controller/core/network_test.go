package core

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/liveness"
	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/store"
	"github.com/orchctl/orch/internal/wire"
)

func TestEachNodeHasASubnetAndKnowsItsPeers(t *testing.T) {
	f := netFleet(t, 2, small())
	f.mustHaveSubnets("n1=10.64.0.0/28 n2=10.64.0.16/28")
	f.mustKnow("n1", "10.64.0.0/28: n2 10.0.0.2 10.64.0.16/28")
	f.mustKnow("n2", "10.64.0.16/28: n1 10.0.0.1 10.64.0.0/28")
	if all := f.agents["n1"].net.all; all.Cluster != "10.64.0.0/26" || all.Services != "10.128.0.0/28" || all.Routes != wire.RoutesAuto || all.Why != "" {
		t.Errorf("n1 was told %+v", all)
	}
	if n := f.seen[ViewKey{Kind: api.KindNode, Name: "n2"}].(*api.Node); n.Status.Subnet != "10.64.0.16/28" {
		t.Errorf("published with subnet %q", n.Status.Subnet)
	}
	// Another life, another session, another leader: the same subnet.
	f.node("n1", "boot2")
	f.dial("n2")
	f.elect()
	f.dial("n1", "n2")
	f.mustHaveSubnets("n1=10.64.0.0/28 n2=10.64.0.16/28")
	f.mustKnow("n1", "10.64.0.0/28: n2 10.0.0.2 10.64.0.16/28")
	// A node that moved.
	h := hello("n2", "boot1")
	h.Address = "10.9.9.9"
	f.session++
	f.agents["n2"].session = f.session
	f.step(SessionOpened{Node: "n2", Session: f.session, Hello: h})
	f.turn()
	f.mustKnow("n1", "10.64.0.0/28: n2 10.9.9.9 10.64.0.16/28")
}

func TestAReturnedSubnetRests(t *testing.T) {
	f := netFleet(t, 2, small())
	remove := func(node string) {
		t.Helper()
		f.silence(node)
		if err := errors.Join(f.word(node, "dead"), f.word(node, "remove")); err != nil {
			t.Fatal(err)
		}
	}
	remove("n1")
	f.mustKnow("n2", "10.64.0.16/28:")
	f.node("n1", "boot2") // its old one is free, but another's turn comes first
	f.mustHaveSubnets("n1=10.64.0.32/28 n2=10.64.0.16/28")
	f.mustKnow("n2", "10.64.0.16/28: n1 10.0.0.1 10.64.0.32/28")
	remove("n1")
	f.elect() // a new leader goes on there, too
	f.dial("n2")
	f.node("n3", "boot1")
	f.mustHaveSubnets("n2=10.64.0.16/28 n3=10.64.0.48/28")
	f.node("n4", "boot1")
	f.node("n5", "boot1")
	f.mustHaveSubnets("n2=10.64.0.16/28 n3=10.64.0.48/28 n4=10.64.0.0/28 n5=10.64.0.32/28")
}

func TestNoSubnetIsFree(t *testing.T) {
	f := netFleet(t, 5, small())
	why := "no subnet is free: all 4 of 10.64.0.0/26 are taken; remove nodes that are gone (orchctl node remove)"
	n5 := func() api.NodeStatus { return f.seen[ViewKey{Kind: api.KindNode, Name: "n5"}].(*api.Node).Status }
	if n5().Subnet != "" || n5().NetworkWhy != why || f.agents["n5"].net.all.Why != why {
		t.Fatalf("n5 is shown with %q %q and was told %q", n5().Subnet, n5().NetworkWhy, f.agents["n5"].net.all.Why)
	}
	f.elect()
	for _, n := range []string{"n1", "n2", "n3", "n4", "n5"} {
		f.dial(n)
	}
	warnings := 0
	for _, x := range f.seen {
		if e, ok := x.(*api.Event); ok && e.Name == "n5" && e.Reason == "NoSubnet" && e.Type == api.EventWarning {
			warnings++
		}
	}
	if warnings != 1 {
		t.Errorf("%d warnings, want one, for all terms", warnings)
	}

	s := web(5, "a:1")
	s.Spec.Containers[0].Resources.Requests = api.ResourceList{api.Memory: api.Whole(5 << 30)} // one fits on a node
	f.apply("1", s)
	f.pass(time.Second)
	f.mustReady("web", 4)
	f.mustSay("web", "5 nodes: 4 lack 5Gi memory (largest free: 3Gi on n1), 1 has no subnet (n5: "+why+")")
	host := named("host", 5, "a:1")
	host.Spec.HostNetwork = true
	f.apply("2", host)
	f.pass(time.Second)
	if f.mustReady("host", 5); f.on("n5", "host") == 0 {
		t.Error("n5 has no replica of what needs no address")
	}

	f.silence("n4")
	f.word("n4", "dead")
	f.word("n4", "remove")
	f.pass(time.Second)
	f.mustReady("web", 4)
	if n5().Subnet != "10.64.0.48/28" || n5().NetworkWhy != "" || f.on("n5", "web") != 1 {
		t.Errorf("n5 is shown with %+v and has %d of web", n5(), f.on("n5", "web"))
	}
	f.mustKnow("n5", "10.64.0.48/28: n1 10.0.0.1 10.64.0.0/28 n2 10.0.0.2 10.64.0.16/28 n3 10.0.0.3 10.64.0.32/28")
	f.mustKnow("n1", "10.64.0.0/28: n2 10.0.0.2 10.64.0.16/28 n3 10.0.0.3 10.64.0.32/28 n5 10.0.0.5 10.64.0.48/28")

	// Of two that have none, one goes; the other gets what is free next.
	f.node("n6", "boot1")
	f.node("n7", "boot1")
	for _, n := range []string{"n6", "n1"} {
		f.silence(n)
		f.word(n, "dead")
		f.word(n, "remove")
	}
	f.mustHaveSubnets("n2=10.64.0.16/28 n3=10.64.0.32/28 n5=10.64.0.48/28 n7=10.64.0.0/28")
}

func TestASubnetThatIsUsedUp(t *testing.T) {
	f := netFleet(t, 1, small())
	f.apply("1", web(14, "a:1"))
	f.pass(time.Second)
	f.mustReady("web", 13)
	f.mustSay("web", "1 node: 1 has no address left (on n1 all 13 are taken)")
}

func TestVirtualIPs(t *testing.T) {
	f := netFleet(t, 1, small())
	headless := func(s *api.Service) *api.Service {
		s.Spec.Headless = true
		return s
	}
	f.apply("1", web(1, "a:1"), headless(named("db", 1, "a:1")))
	f.mustHaveVIPs("db= web=10.128.0.10")
	if got := f.service("web").Status.VIP; got != "10.128.0.10" {
		t.Errorf("published with %q", got)
	}
	f.ticket++
	f.step(Apply{Ticket: f.ticket, Services: []*api.Service{named("dry", 1, "a:1")}, DryRun: true})
	f.turn()
	f.apply("2", web(3, "a:2")) // it keeps it over revisions, scaling and leaders
	f.elect()
	f.dial("n1")
	f.apply("3", web(2, "a:3"), named("two", 1, "a:1"))
	f.mustHaveVIPs("db= two=10.128.0.11 web=10.128.0.10")
	f.apply("4", headless(web(2, "a:3")))
	f.mustHaveVIPs("db= two=10.128.0.11 web=")
	f.apply("5", web(2, "a:3")) // its old one rests
	f.mustHaveVIPs("db= two=10.128.0.11 web=10.128.0.12")
	f.delete("two")
	f.pass(time.Second)
	f.apply("6", named("three", 1, "a:1"), named("four", 1, "a:1"), named("five", 1, "a:1"))
	f.mustHaveVIPs("db= five=10.128.0.10 four=10.128.0.14 three=10.128.0.13 web=10.128.0.12")

	// One is free: two do not get any.
	r := f.apply("7", named("six", 1, "a:1"), named("seven", 1, "a:1"))
	if want := "service default/seven: no virtual IP is free: all 5 of 10.128.0.0/28 are taken"; r.Err == nil || !strings.Contains(r.Err.Error(), want) || !errors.Is(r.Err, ErrBusy) {
		t.Errorf("got %v, want %s", r.Err, want)
	}
	f.mustHaveVIPs("db= five=10.128.0.10 four=10.128.0.14 three=10.128.0.13 web=10.128.0.12")
	f.apply("8", named("six", 1, "a:1"))
	f.mustHaveVIPs("db= five=10.128.0.10 four=10.128.0.14 six=10.128.0.11 three=10.128.0.13 web=10.128.0.12")
}

// One that is refused for its size has taken nothing.
func TestARefusedApplyTakesNoVIP(t *testing.T) {
	f := netFleet(t, 1, small())
	f.core.cfg.Limits = store.Limits{MaxOps: opsRoom + 3, MaxBytes: store.EmbeddedLimits.MaxBytes}
	if r := f.apply("1", named("a", 1, "a:1"), named("b", 1, "a:1")); !errors.Is(r.Err, ErrInvalid) {
		t.Fatalf("got %v", r.Err)
	}
	if n := len(f.core.addresses.vips); n != 0 {
		t.Errorf("%d virtual IPs are taken", n)
	}
}

// What an older version stored has neither subnets nor virtual IPs.
func TestOldRecordsGetAddresses(t *testing.T) {
	f := netFleet(t, 3, small())
	for i := range 7 {
		s := named(fmt.Sprintf("s%d", i), 1, "a:1")
		s.Spec.Headless = i == 3
		f.apply(fmt.Sprint(i), s)
	}
	f.pass(time.Second)
	// s5 found none; older versions did not need any.
	if n := len(f.core.services); n != 6 {
		t.Fatalf("%d services, want 6", n)
	}
	delete(f.kv, networkKey)
	for k, v := range f.kv {
		switch {
		case strings.HasPrefix(k, nodePrefix):
			var n api.Node
			if err := openEnvelope(v, &n); err != nil {
				t.Fatal(err)
			}
			n.Status.Subnet = ""
			f.kv[k] = object(api.KindNode, &n)
		case strings.HasPrefix(k, servicePrefix):
			var s api.Service
			if err := openEnvelope(v, &s); err != nil {
				t.Fatal(err)
			}
			s.Status.VIP = ""
			f.kv[k] = object(api.KindService, &s)
			if s.Metadata.Name == "s3" { // one more than there are virtual IPs
				s.Spec.Headless = false
				f.kv[k] = object(api.KindService, &s)
			}
		case k == countersKey:
			c := f.core.counters
			c.subnet, c.vip = 0, 0
			f.kv[k] = c.record()
		}
	}
	f.elect()
	f.mustHaveSubnets("n1=10.64.0.0/28 n2=10.64.0.16/28 n3=10.64.0.32/28")
	f.mustHaveVIPs("s0=10.128.0.10 s1=10.128.0.11 s2=10.128.0.12 s3=10.128.0.13 s4=10.128.0.14 s5=")
	f.mustSay("s5", "no virtual IP is free: all 5 of 10.128.0.0/28 are taken; delete services, or make some headless")
	f.dial("n1", "n2", "n3")
	f.pass(time.Second)
	f.mustReady("s5", 1)
	f.agents["n3"].silent = true // one that was dead gets its own when it is back
	f.word("n3", "dead")
	dying := f.core.nodes["n3"].obj
	dying.Status.Subnet = ""
	f.kv[nodeKey("n3")] = object(api.KindNode, &dying)
	f.elect()
	f.mustHaveSubnets("n1=10.64.0.0/28 n2=10.64.0.16/28 n3=")
	f.agents["n3"].silent = false
	f.dial("n1", "n2", "n3")
	f.mustHaveSubnets("n1=10.64.0.0/28 n2=10.64.0.16/28 n3=10.64.0.48/28")
	f.pass(time.Second)
	f.delete("s1")
	f.pass(time.Second)
	f.mustHaveVIPs("s0=10.128.0.10 s2=10.128.0.12 s3=10.128.0.13 s4=10.128.0.14 s5=10.128.0.11")
	if r := f.service("s5").Status.Reasons; len(r) > 0 {
		t.Errorf("s5 says %v", r)
	}
	if got := f.agents["n1"].services[api.Key{Namespace: "default", Name: "s5"}].VIP; got != "10.128.0.11" {
		t.Errorf("n1 knows s5 with %q", got)
	}
}

// What the store has decided holds, whatever the flags say now.
func TestTheStoredNetworkHolds(t *testing.T) {
	f := netFleet(t, 1, small())
	f.conf.Network = network.DefaultCluster()
	f.elect()
	if got := f.core.Network(); got != small() {
		t.Errorf("the network is %+v", got)
	}
	f.node("n2", "boot1")
	f.mustHaveSubnets("n1=10.64.0.0/28 n2=10.64.0.16/28")
}

// A record that names what cannot be gets another.
func TestARecordThatNamesAnothersAddress(t *testing.T) {
	f := netFleet(t, 3, small())
	for name, subnet := range map[string]string{"n2": "10.64.0.0/28", "n3": "10.99.0.0/28"} {
		n := f.core.nodes[name].obj
		n.Status.Subnet = subnet
		f.kv[nodeKey(name)] = object(api.KindNode, &n)
	}
	f.elect()
	f.mustHaveSubnets("n1=10.64.0.0/28 n2=10.64.0.48/28 n3=10.64.0.16/28")
}

// A subnet that was given and not committed was never told.
func TestASubnetThatWasNotCommitted(t *testing.T) {
	f := netFleet(t, 1, small())
	f.lose(func() { f.node("n2", "boot1") })
	if s := f.agents["n2"].net.all.Subnet; s != "" {
		t.Errorf("n2 was told %s", s)
	}
	f.dial("n1")
	f.node("n3", "boot1")
	f.dial("n2")
	f.mustHaveSubnets("n1=10.64.0.0/28 n2=10.64.0.32/28 n3=10.64.0.16/28")
}

// Nor was one told that the same transaction takes back.
func TestASubnetThatWasTakenBack(t *testing.T) {
	f := netFleet(t, 1, small())
	f.commits = false
	f.node("n2", "boot1")
	f.silence("n2")
	f.word("n2", "dead")
	f.word("n2", "remove")
	f.commits = true
	for _, e := range f.out {
		f.commit(e)
	}
	f.turn()
	f.mustHaveSubnets("n1=10.64.0.0/28")
	if s := f.agents["n2"].net.all.Subnet; s != "" {
		t.Errorf("n2 was told %s", s)
	}
}

// A service that lacks a virtual IP and goes does not ask for one.
func TestAServiceWithoutVIPGoes(t *testing.T) {
	f := netFleet(t, 1, small())
	for _, n := range []string{"a", "b", "c", "d", "e", "f"} {
		s := named(n, 1, "a:1")
		s.Spec.Headless = n == "f"
		f.apply(n, s)
	}
	late := f.core.services[api.Key{Namespace: "default", Name: "f"}].obj // as an older version stored it
	late.Spec.Headless = false
	f.kv[serviceKey(late.Metadata.Key())] = object(api.KindService, &late)
	f.elect()
	f.dial("n1")
	f.pass(time.Second)
	f.delete("f")
	f.pass(time.Second)
	f.delete("a")
	f.pass(time.Second)
	f.mustHaveVIPs("b=10.128.0.11 c=10.128.0.12 d=10.128.0.13 e=10.128.0.14")
}

func TestAgentsKnowServices(t *testing.T) {
	f := netFleet(t, 2, small())
	ports := []api.Port{{Name: "http", Port: 80, Protocol: api.TCP}}
	s := web(1, "a:1")
	s.Spec.Containers[0].Ports = ports
	s.Spec.SessionAffinity = api.AffinityClientIP
	s.Spec.TrafficDistribution = api.PreferSameNode
	f.apply("1", s)
	key := api.Key{Namespace: "default", Name: "web"}
	want := wire.Service{Key: key, VIP: "10.128.0.10", SessionAffinity: api.AffinityClientIP, TrafficDistribution: api.PreferSameNode, Ports: ports}
	must := func(who string, want *wire.Service) {
		t.Helper()
		if got, ok := f.agents[who].services[key]; ok != (want != nil) || ok && !reflect.DeepEqual(got, *want) {
			t.Errorf("%s knows %+v, want %+v", who, got, want)
		}
	}
	must("n1", &want)
	must("n2", &want)
	version := f.core.ends.version
	f.apply("again", s)
	if f.core.ends.version != version {
		t.Error("an apply that changes nothing is told")
	}
	two := web(1, "a:1")
	two.Spec.Containers[0].Ports = ports
	f.apply("2", two) // no revision, and yet other traffic
	want.SessionAffinity, want.TrafficDistribution = "", ""
	must("n1", &want)
	two = web(1, "a:1")
	two.Spec.Containers[0].Ports = []api.Port{{Name: "http", Port: 81, Protocol: api.TCP}}
	f.apply("3", two)
	want.Ports = two.Spec.Containers[0].Ports
	must("n1", &want)
	f.node("n3", "boot1")
	must("n3", &want)
	f.elect()
	f.dial("n1", "n2", "n3")
	must("n2", &want)
	f.agents["n1"].silent, f.agents["n2"].silent = true, true // what is there cannot be stopped
	home := f.home("web", 0)
	f.delete("web")
	if f.agents[home].silent {
		must("n3", &want)
	}
	f.agents["n1"].silent, f.agents["n2"].silent = false, false
	f.dial("n1", "n2")
	f.pass(time.Second)
	for _, n := range []string{"n1", "n2", "n3"} {
		must(n, nil)
	}
}

func TestEndpointsArePublished(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(1, "a:1"))
	home := f.home("web", 0)
	shown := func() string {
		var out []string
		for k, x := range f.seen {
			if e, ok := x.(*api.Endpoint); ok {
				s := e.Status
				if k != (ViewKey{api.KindEndpoint, "default", e.Metadata.Name}) || e.Metadata.Name != fmt.Sprintf("%s@%d", s.Replica, s.Epoch) || s.Service != "web" {
					t.Errorf("%+v is published as %v", e, k)
				}
				out = append(out, fmt.Sprintf("%s on %s %s %s%s%s", s.Replica, s.Node, s.IP, s.Verdict, map[bool]string{true: " degraded"}[s.Degraded], map[bool]string{true: " kept"}[s.Kept]))
			}
		}
		slices.Sort(out)
		return strings.Join(out, ", ")
	}
	must := func(want string) {
		t.Helper()
		if got := shown(); got != want {
			t.Errorf("shown %q, want %q", got, want)
		}
	}
	must("web-0 on " + home + " 10.64.0.9 Healthy")
	for _, n := range f.but(home) {
		f.word(n, "cordon")
	}
	f.elect()
	must("web-0 on " + home + "  Unknown kept")
	f.dial(f.but(home)...)
	f.silence(home)
	f.pass(5 * time.Second)
	must("web-0 on " + home + "  Suspect kept")
	f.agents[home].silent = false
	f.dial(home)
	f.pass(time.Second)
	must("web-0 on " + home + " 10.64.0.9 Healthy")
	f.silence(home)
	f.pass(time.Second)
	must("web-0 on " + home + " 10.64.0.9 Suspect degraded")
	other := f.but(home)[0]
	f.word(other, "uncordon")
	f.pass(time.Second)
	must("web-0 on " + other + " 10.64.0.9 Healthy")
	f.apply("2", web(2, "a:1"))
	f.pass(time.Second)
	f.silence(other)
	f.word(other, "dead") // withdrawn and forgotten in one turn
	if strings.Contains(shown(), other) {
		t.Errorf("shown %q, %s is dead", shown(), other)
	}
	f.delete("web")
	f.pass(time.Second)
	must("")
}

func TestPortsThatWitnessesTry(t *testing.T) {
	f := threeNodes(t)
	f.word("n2", "cordon")
	f.word("n3", "cordon")
	s := web(1, "a:1")
	s.Spec.Containers[0].Ports = []api.Port{{Port: 80, Publish: 8080, Mode: api.PublishHost, Protocol: api.TCP}, {Port: 81, Publish: 8081}, {Port: 53, Protocol: api.UDP}}
	host := named("host", 1, "a:1")
	host.Spec.HostNetwork = true
	host.Spec.Containers[0].Ports = []api.Port{{Port: 9000}}
	f.apply("1", s, host)
	f.pass(time.Second)
	n := f.core.nodes["n1"]
	if got, want := strings.Join(portsToAsk(n, true), " "), "10.0.0.1:9000 10.0.0.1:8080"; got != want {
		t.Errorf("the leader tries %s, want %s", got, want)
	}
	if got, want := strings.Join(portsToAsk(n, false), " "), "10.0.0.1:9000 10.0.0.1:8080 10.64.0.9:80 10.64.0.9:81"; got != want {
		t.Errorf("witnesses try %s, want %s", got, want)
	}
	f.silence("n1")
	asked := map[int]bool{} // by how many ports
	for range 20 {
		f.now = f.now.Add(50 * time.Millisecond)
		for _, n := range []string{"n2", "n3"} {
			a := f.agents[n]
			a.seq++
			f.step(Beat{Node: n, Session: a.session, Seq: a.seq})
		}
		f.step(Tick{})
	}
	for _, a := range f.asks {
		asked[len(a.Ask.Ports)] = true
		if want := map[bool]int{true: 2, false: 4}[a.Observer == liveness.LeaderObserver]; len(a.Ask.Ports) != want {
			t.Errorf("%s is asked to try %v", a.Observer, a.Ask.Ports)
		}
	}
	if !asked[2] || !asked[4] {
		t.Errorf("asked with %v ports, want 2 of the leader and 4 of others", asked)
	}
	f.agents["n1"].silent = false
	f.agents["n1"].unready["web-0"] = true
	f.reportAll(f.agents["n1"])
	if got, want := strings.Join(portsToAsk(n, false), " "), "10.0.0.1:9000"; got != want {
		t.Errorf("witnesses try %s, want %s", got, want)
	}
}

// Whatever happens: no two nodes have one subnet, no two services one virtual IP,
// none is kept by what is gone, none is lacked that is free, and agents know what
// is stored.
func TestAddressesAreNeverGivenTwice(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := netFleet(t, 1, small())
		names := []string{"n1", "n2", "n3", "n4", "n5", "n6"}
		for i := range rapid.IntRange(5, 40).Draw(rt, "steps") {
			node := rapid.SampledFrom(names).Draw(rt, "node")
			service := func() *api.Service {
				s := named(rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f", "g"}).Draw(rt, "service"), rapid.IntRange(0, 2).Draw(rt, "replicas"), "a:1")
				s.Spec.Headless = rapid.IntRange(0, 3).Draw(rt, "headless") == 0
				return s
			}
			act := func() {
				switch rapid.IntRange(0, 7).Draw(rt, "act") {
				case 0, 1:
					f.node(node, rapid.SampledFrom([]string{"boot1", "boot2"}).Draw(rt, "boot"))
				case 2:
					if a := f.agents[node]; a != nil && f.core.nodes[node] != nil {
						f.silence(node)
						f.word(node, "dead")
						f.word(node, "remove")
						a.session = 0
					}
				case 3, 4:
					f.apply(fmt.Sprint("apply", i), service())
				case 5:
					f.apply(fmt.Sprint("two", i), service(), service())
				case 6:
					f.delete(service().Metadata.Name)
				case 7:
					f.elect()
				}
			}
			if rapid.IntRange(0, 5).Draw(rt, "lost") == 0 {
				f.lose(act)
			} else {
				act()
			}
			f.checkAddresses(rt)
		}
	})
}

func (f *fleet) checkAddresses(t *rapid.T) {
	stored, lackNode, lackService := map[string]string{}, 0, 0
	subnets, vips, peers := 0, 0, map[string]wire.Peer{}
	for k, v := range f.kv {
		var what string
		switch {
		case strings.HasPrefix(k, nodePrefix):
			var n api.Node
			if err := openEnvelope(v, &n); err != nil {
				t.Fatal(err)
			}
			if what = n.Status.Subnet; what == "" {
				if f.core.nodes[n.Metadata.Name].session != 0 {
					lackNode++
				}
				continue
			}
			if !small().Nodes.Contains(netip.MustParsePrefix(what).Addr()) {
				t.Fatalf("%s has %s", k, what)
			}
			peers[n.Metadata.Name] = wire.Peer{Node: n.Metadata.Name, Address: n.Status.Address, Subnet: what}
			subnets++
		case strings.HasPrefix(k, servicePrefix):
			var s api.Service
			if err := openEnvelope(v, &s); err != nil {
				t.Fatal(err)
			}
			if what = s.Status.VIP; what == "" {
				if !s.Spec.Headless && s.Metadata.DeletedAt.IsZero() {
					lackService++
				}
				continue
			}
			if s.Spec.Headless || !small().Services.Contains(netip.MustParseAddr(what)) {
				t.Fatalf("%s (headless: %t) has %s", k, s.Spec.Headless, what)
			}
			vips++
		default:
			continue
		}
		if stored[what] != "" {
			t.Fatalf("%s is of %s and %s", what, stored[what], k)
		}
		stored[what] = k
	}
	a := f.core.addresses
	if len(a.subnets) != subnets || len(a.vips) != vips {
		t.Fatalf("%d subnets and %d virtual IPs are stored; the leader counts %v and %v", subnets, vips, a.subnets, a.vips)
	}
	if lackNode > 0 && subnets < small().Subnets() || lackService > 0 {
		t.Fatalf("%d nodes and %d services lack what is free", lackNode, lackService)
	}
	for name, x := range f.agents {
		if n := f.core.nodes[name]; n == nil || n.session == 0 || n.session != x.session {
			continue
		}
		want := maps.Clone(peers)
		delete(want, name)
		if x.net.all.Subnet != peers[name].Subnet || !maps.Equal(x.net.peers, want) {
			t.Fatalf("%s was told it has %q and knows %v, stored is %v", name, x.net.all.Subnet, x.net.peers, peers)
		}
		for key, s := range f.core.services {
			if x.services[key].VIP != s.obj.Status.VIP {
				t.Fatalf("%s knows %s with %q, stored is %q", name, key, x.services[key].VIP, s.obj.Status.VIP)
			}
		}
		if len(x.services) != len(f.core.services) {
			t.Fatalf("%s knows %v", name, x.services)
		}
	}
}
