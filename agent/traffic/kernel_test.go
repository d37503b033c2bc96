package traffic

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/orchctl/orch/agent/netdev/netfilter"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/wire"
)

var (
	http  = api.Port{Port: 80}
	dns   = api.Port{Port: 80, Protocol: api.UDP}
	every = api.Port{Port: 80, Publish: 8080}
	own   = api.Port{Port: 80, Publish: 8080, Mode: api.PublishHost}
)

func affinity(s *wire.Service) { s.SessionAffinity = api.AffinityClientIP }
func sameNode(s *wire.Service) { s.TrafficDistribution = api.PreferSameNode }

func TestSpread(t *testing.T) {
	w := newWorld(t)
	w.serving(web(), w.replica("web", 0, "10.64.7.2", http), w.replica("web", 1, "10.64.7.3", http), w.replica("web", 2, "10.64.8.2", http), w.replica("web", 3, "10.64.8.3", http))
	w.host("client", gateway+"/32", "10.64.7.9/32")
	sh(t, "ip route add 10.64.7.9/32 dev client")
	const asked = 3000
	got := map[string]int{}
	w.within("client", func() error {
		for range asked {
			c, err := net.DialTimeout("tcp4", vip+":80", time.Second)
			if err != nil {
				return err
			}
			said, err := say(c)
			c.Close()
			if err != nil {
				return err
			}
			id, saw, _ := strings.Cut(said, " ")
			if got[id]++; saw != "10.64.7.9" && id != "" {
				return fmt.Errorf("%s saw %s instead of the client", id, saw)
			}
		}
		return nil
	})
	chi := 0.0
	for _, n := range got {
		chi += (float64(n) - asked/4) * (float64(n) - asked/4) / (asked / 4)
	}
	if len(got) != 4 || chi > 27.9 { // three degrees of freedom: one in 250,000 is beyond
		t.Errorf("%v: chi-square %.1f", got, chi)
	}
}

func TestAffinity(t *testing.T) {
	w := newWorld(t)
	ends := []wire.Endpoint{w.replica("web", 0, "10.64.7.2", http), w.replica("web", 1, "10.64.7.3", http), w.replica("web", 2, "10.64.8.2", http)}
	b := w.serving(web(affinity), ends...)
	who := func() string {
		t.Helper()
		first := ""
		for range 20 {
			id, _, err := w.ask("", "tcp4", vip+":80")
			if err != nil || first != "" && id != first {
				t.Fatalf("%s, then %s, %v", first, id, err)
			}
			first = id
		}
		return first
	}
	had := who()
	// Others that go or come do not change it, and neither does another life of the agent.
	for i, e := range ends {
		if fmt.Sprintf("web-%d:80", i) != had {
			b.tell(network.Update{Drop: []api.ReplicaKey{e.Replica}})
			b.tell(network.Update{Put: []wire.Endpoint{e}})
			break
		}
	}
	if now := who(); now != had {
		t.Errorf("the client had %s, and has %s though that did not go", had, now)
	}
	b.stop()
	b = w.serving(web(affinity), ends...)
	if now := who(); now != had {
		t.Errorf("the client had %s, and has %s after a restart of the agent", had, now)
	}
	for i, e := range ends {
		if fmt.Sprintf("web-%d:80", i) == had {
			b.tell(network.Update{Drop: []api.ReplicaKey{e.Replica}})
		}
	}
	if now := who(); now == had {
		t.Errorf("%s was dropped and is still asked", had)
	}
}

func TestUDPGoesOnElsewhere(t *testing.T) {
	w := newWorld(t)
	ends := []wire.Endpoint{w.replica("web", 0, "10.64.7.2", dns), w.replica("web", 1, "10.64.8.2", dns)}
	b := w.serving(web(), ends...)
	c, err := w.dial("", "udp4", vip+":80") // one socket, one connection to the kernel
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	said, err := say(c)
	if err != nil {
		t.Fatal(err)
	}
	had := int(said[len("web-")] - '0')
	b.tell(network.Update{Drop: []api.ReplicaKey{ends[had].Replica}})
	w.eventually(2*time.Second, "the other one answers", func() bool {
		said, err := say(c)
		return err == nil && strings.HasPrefix(said, fmt.Sprintf("web-%d", 1-had))
	})
}

// Who answers, and whom he sees: the client, wherever the answer finds back without
// the node's help.
func TestWhoIsSeen(t *testing.T) {
	w := newWorld(t)
	local, remote := w.replica("web", 0, "10.64.7.2", every, api.Port{Port: 80, Protocol: api.UDP, Publish: 8080}), w.replica("web", 1, "10.64.8.2", every)
	w.replica("other", 0, "10.64.7.5")
	b := w.serving(web(), local)
	w.wants("", "tcp4", vip+":80", "web-0:80", nodeIP)
	w.wants("", "udp4", vip+":80", "web-0:80", nodeIP)
	w.wants("", "tcp4", "127.0.0.1:8080", "web-0:80", gateway) // 127.0.0.1 would be the replica itself
	w.wants("", "tcp4", nodeIP+":8080", "web-0:80", nodeIP)
	w.wants("", "tcp4", gateway+":8080", "web-0:80", gateway)
	w.wants("out", "tcp4", "203.0.113.1:8080", "web-0:80", outsideIP)
	w.wants("out", "udp4", "203.0.113.1:8080", "web-0:80", outsideIP)
	w.wants("n2", "tcp4", nodeIP+":8080", "web-0:80", otherIP)
	w.wants("other0", "tcp4", vip+":80", "web-0:80", "10.64.7.5")
	w.wants("other0", "tcp4", gateway+":8080", "web-0:80", "10.64.7.5")
	w.wants("other0", "tcp4", "10.64.7.2:80", "web-0:80", "10.64.7.5")
	w.wants("web0", "tcp4", vip+":80", "web-0:80", gateway) // hairpin
	w.wants("web0", "tcp4", nodeIP+":8080", "web-0:80", gateway)

	b.tell(network.Update{Put: []wire.Endpoint{remote}, Drop: []api.ReplicaKey{local.Replica}})
	w.wants("", "tcp4", vip+":80", "web-1:80", nodeIP)
	w.wants("", "tcp4", "127.0.0.1:8080", "web-1:80", nodeIP)
	w.wants("out", "tcp4", "203.0.113.1:8080", "web-1:80", nodeIP) // it would answer past this node
	w.wants("other0", "tcp4", vip+":80", "web-1:80", "10.64.7.5")
	w.wants("other0", "tcp4", nodeIP+":8080", "web-1:80", "10.64.7.5")

	// To the outside replicas are the node.
	w.serve("out", outsideIP, 80, "outside")
	w.wants("other0", "tcp4", outsideIP+":80", "outside", "203.0.113.1")
	// What another's rule leads elsewhere is not ours to change.
	sh(t, `nft add table ip another; nft 'add chain ip another pre { type nat hook prerouting priority -110; }'
		nft add rule ip another pre tcp dport 99 dnat to %s:80; ip route add 198.51.100.0/24 via %s`, "198.51.100.1", otherIP)
	w.in("n2", "ip addr add 198.51.100.1/32 dev lo; ip route add 203.0.113.0/24 via %s", nodeIP)
	w.serve("n2", "198.51.100.1", 80, "docker")
	w.wants("out", "tcp4", "203.0.113.1:99", "docker", outsideIP)
}

func TestHostNetwork(t *testing.T) {
	w := newWorld(t)
	p := api.Port{Port: 80, Publish: 80}
	there := wire.Endpoint{Replica: api.ReplicaKey{Namespace: "default", Service: "web", Slot: 1, Epoch: 1}, Node: "n2", IP: otherIP, NodeIP: otherIP, Ports: []api.Port{p}}
	mine := wire.Endpoint{Replica: api.ReplicaKey{Namespace: "default", Service: "web", Slot: 2, Epoch: 1}, Node: "n1", IP: nodeIP, NodeIP: nodeIP, Ports: []api.Port{p}}
	w.serve("n2", otherIP, 80, "there")
	w.serve("", nodeIP, 80, "mine")
	w.replica("other", 0, "10.64.7.5")
	b := w.serving(web(), there)
	w.wants("", "tcp4", vip+":80", "there", nodeIP)
	w.wants("other0", "tcp4", vip+":80", "there", nodeIP)
	w.wants("out", "tcp4", "203.0.113.1:80", "there", nodeIP)
	b.tell(network.Update{Drop: []api.ReplicaKey{there.Replica}, Put: []wire.Endpoint{mine}})
	w.wants("", "tcp4", vip+":80", "mine", nodeIP)
	w.wants("other0", "tcp4", vip+":80", "mine", "10.64.7.5")
	b.tell(network.Update{Put: []wire.Endpoint{there}})
	for range 10 {
		w.wants("out", "tcp4", nodeIP+":80", "mine", outsideIP) // never led away from who listens here
	}
}

func TestModeHostAndSameNode(t *testing.T) {
	w := newWorld(t)
	here, there := w.replica("web", 0, "10.64.7.2", own), w.replica("web", 1, "10.64.8.2", own)
	b := w.serving(web(sameNode), here, there)
	for range 10 {
		w.wants("out", "tcp4", nodeIP+":8080", "web-0:80", outsideIP)
		w.wants("", "tcp4", vip+":80", "web-0:80", "")
	}
	b.tell(network.Update{Drop: []api.ReplicaKey{here.Replica}})
	w.wants("", "tcp4", vip+":80", "web-1:80", "")
	if _, _, err := w.ask("out", "tcp4", nodeIP+":8080"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the other node's own port from here: %v", err)
	}
}

func TestRefusedAtOnce(t *testing.T) {
	w := newWorld(t)
	e := w.replica("web", 0, "10.64.7.2", every, dns)
	b := w.serving(web(), e)
	w.replica("other", 0, "10.64.7.5")
	refused := func(space, proto, to string) {
		t.Helper()
		started := time.Now()
		_, _, err := w.ask(space, proto, to)
		// A local sender of UDP is told by its own call.
		if !errors.Is(err, syscall.ECONNREFUSED) && !(proto == "udp4" && space == "" && errors.Is(err, syscall.EPERM)) || time.Since(started) > 500*time.Millisecond {
			t.Errorf("from %q to %s %s: %v after %s", space, proto, to, err, time.Since(started))
		}
	}
	for _, space := range []string{"", "other0"} {
		refused(space, "tcp4", vip+":82") // a port that it has not
		refused(space, "udp4", vip+":82")
		refused(space, "tcp4", "10.128.0.99:80") // nobody's
	}
	b.tell(network.Update{Drop: []api.ReplicaKey{e.Replica}})
	for _, space := range []string{"", "other0"} {
		refused(space, "tcp4", vip+":80")
		refused(space, "udp4", vip+":80")
		refused(space, "tcp4", nodeIP+":8080")
	}
	refused("", "tcp4", "127.0.0.1:8080")
	b.tell(network.Update{DropServices: []api.Key{{Namespace: "default", Name: "web"}}})
	refused("other0", "tcp4", vip+":80")
	if got := sh(t, "nft list table ip orch"); strings.Contains(got, "web") || strings.Contains(got, "8080") {
		t.Errorf("something is left of it:\n%s", got)
	}
}

func TestCheckAddress(t *testing.T) {
	w := newWorld(t)
	w.serving(web())
	w.serve("", gateway, network.CheckPort, "checked")
	w.replica("other", 0, "10.64.7.5")
	to := fmt.Sprintf("10.128.0.1:%d", network.CheckPort)
	for _, proto := range []string{"tcp4", "udp4"} {
		w.wants("", proto, to, "checked", nodeIP)
		w.wants("other0", proto, to, "checked", "10.64.7.5")
	}
}

// Loopback addresses are let out only as long as the guard stands that keeps
// neighbours from them.
func TestLoopbackIsKeptIn(t *testing.T) {
	w := newWorld(t)
	localnet := func() string {
		return strings.TrimSpace(sh(t, "cat /proc/sys/net/ipv4/conf/all/route_localnet"))
	}
	if got := localnet(); got != "0" {
		t.Fatalf("route_localnet is %s before", got)
	}
	w.serve("", "127.0.0.1", 99, "secret")
	cfg := w.config()
	b := w.startWith(cfg)
	b.Configure(here())
	b.tell(network.Update{Complete: true, Put: []wire.Endpoint{w.replica("web", 0, "10.64.7.2", every)}})
	if got := localnet(); got != "1" {
		t.Errorf("route_localnet is %s with rules", got)
	}
	w.in("out", "ip route add 127.0.0.1/32 via 203.0.113.1 table 99; ip rule add to 127.0.0.1 table 99 pref 0; ip rule del pref 0 table local; ip rule add pref 1 table local; echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet")
	if id, _, err := w.ask("out", "tcp4", "127.0.0.1:99"); err == nil {
		t.Errorf("a neighbour reached %s on 127.0.0.1", id)
	}
	sh(t, "echo 0 > /proc/sys/net/ipv4/conf/all/route_localnet")
	w.eventually(2500*time.Millisecond, "route_localnet is put right", func() bool { return localnet() == "1" })
	b.stop()
	if err := cfg.Rules.(*netfilter.Table).Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := localnet(); got != "0" {
		t.Errorf("route_localnet is %s with no guard any more", got)
	}
	if got := strings.TrimSpace(sh(t, "nft list ruleset")); got != "" {
		t.Errorf("rules are left:\n%s", got)
	}
	// What somebody else has set stays.
	sh(t, "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet")
	b = w.startWith(cfg)
	b.Configure(here())
	b.tell(network.Update{Complete: true})
	b.stop()
	if err := cfg.Rules.(*netfilter.Table).Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := localnet(); got != "1" {
		t.Errorf("another's route_localnet became %s", got)
	}
	if _, err := os.Stat(w.dir + "/marker"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the marker: %v", err)
	}
}

// Through the tunnel the node shows its address there: the other end sends back to
// no other.
func TestThroughTunnel(t *testing.T) {
	w := newWorld(t)
	e := w.replica("web", 0, "10.64.8.2", every)
	w.replica("other", 0, "10.64.7.5")
	tunnel := `ip link add orch-vxlan type vxlan id 4097 dstport 4789 local %[1]s nolearning
		ip link set orch-vxlan address 02:6f:c0:00:02:0%[2]d; ip addr add 10.64.%[3]d.1/32 dev orch-vxlan; ip link set orch-vxlan up
		bridge fdb append 02:6f:c0:00:02:0%[4]d dev orch-vxlan dst %[5]s
		ip neigh add 10.64.%[6]d.1 lladdr 02:6f:c0:00:02:0%[4]d dev orch-vxlan nud permanent
		ip route replace 10.64.%[6]d.0/24 via 10.64.%[6]d.1 dev orch-vxlan onlink`
	sh(t, tunnel, nodeIP, 1, 7, 2, otherIP, 8)
	t.Cleanup(func() { sh(t, "ip link del orch-vxlan") })
	w.in("n2", tunnel, otherIP, 2, 8, 1, nodeIP, 7)
	w.in("n2", "ip route del default; nft add table ip seg; nft add chain ip seg in \"{ type filter hook input priority 0; }\"; nft add rule ip seg in iif eth0 ip daddr 10.64.0.0/10 drop")
	w.serving(web(), e)
	w.wants("", "tcp4", vip+":80", "web-0:80", gateway)
	w.wants("", "tcp4", "127.0.0.1:8080", "web-0:80", gateway)
	w.wants("out", "tcp4", "203.0.113.1:8080", "web-0:80", gateway)
	w.wants("other0", "tcp4", vip+":80", "web-0:80", "10.64.7.5")
	w.wants("", "tcp4", "10.64.8.2:80", "web-0:80", gateway)
}

// An address that becomes another's at once keeps its connections.
func TestAddressChangesHands(t *testing.T) {
	w := newWorld(t)
	p := []api.Port{{Port: 80, Protocol: api.UDP}}
	at := func(epoch uint64) wire.Endpoint {
		return wire.Endpoint{Replica: api.ReplicaKey{Namespace: "default", Service: "web", Epoch: epoch}, Node: "n2", IP: otherIP, NodeIP: otherIP, Ports: p}
	}
	b := w.serving(web(), at(1))
	b.tell(network.Update{Drop: []api.ReplicaKey{at(1).Replica}, Put: []wire.Endpoint{at(2)}})
	b.cutter.mu.Lock()
	if len(b.cutter.watched) > 0 {
		t.Errorf("watched, though it serves: %v", b.cutter.watched)
	}
	b.cutter.mu.Unlock()
	// Gone while the kernel could not be told, and there again before it could.
	l := &loop{Balancer: b.Balancer, gone: map[server]bool{}}
	l.leave([]wire.Endpoint{at(2)})
	l.join([]wire.Endpoint{at(3)})
	if len(l.gone) > 0 {
		t.Errorf("gone, though it serves: %v", l.gone)
	}
}
