package traffic

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/agent/netdev/netfilter"
	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/wire"
)

// What others do to the rules is put right within two seconds.
func TestPutRight(t *testing.T) {
	w := newWorld(t)
	e := w.replica("web", 0, "10.64.7.2", every)
	b := w.serving(web(affinity), e)
	for _, by := range []struct{ hand, why string }{
		{"nft flush ruleset", "all is flushed"},
		{"nft delete table ip orch", "the table is gone"},
		{"nft flush chain ip orch ep-default/web-0-1-tcp-80", "a chain is flushed"},
		{"nft flush map ip orch services", "a map is flushed"},
		{"nft delete element ip orch ports '{ tcp . 8080 }'", "an element is gone"},
		{`nft delete element ip orch services '{ 10.128.0.10 . tcp . 80 }'
			nft add element ip orch services '{ 10.128.0.10 . tcp . 80 : drop }'`, "an element leads elsewhere"},
		{`nft insert rule ip orch lead tcp dport 80 drop`, "a rule was added"},
		{`nft replace rule ip orch ep-default/web-0-1-tcp-80 handle $(nft -a list chain ip orch ep-default/web-0-1-tcp-80 | sed -n "s/.*dnat.*handle //p") tcp dport 80 dnat to 10.64.7.77:80`, "a rule was changed"},
		{`nft chain ip orch prerouting '{ policy drop; }'`, "a chain drops what it does not know"},
		{`nft add chain ip orch strange; nft add rule ip orch strange goto lead; nft add set ip orch odd '{ type ipv4_addr; }'`, "there is something that nobody wants"},
	} {
		w.Logf("%s", by.why)
		before := sh(t, "nft -s list table ip orch")
		sh(t, "%s", by.hand)
		if sh(t, "nft -s list table ip orch || true") == before {
			t.Fatalf("%s: nothing was changed", by.why)
		}
		w.eventually(2*time.Second, by.why+": put right", func() bool { return sorted(sh(t, "nft -s list table ip orch || true")) == sorted(before) })
		w.wants("out", "tcp4", nodeIP+":8080", "web-0:80", outsideIP)
		w.wants("", "tcp4", vip+":80", "web-0:80", nodeIP)
	}
	// Rules of others are none of ours.
	sh(t, "nft add table ip another; nft add chain ip another x")
	b.tell(network.Update{Drop: []api.ReplicaKey{e.Replica}})
	w.eventually(3*time.Second, "compared", func() bool { touched, err := b.cfg.Rules.Touched(); return err == nil && !touched })
	if got := sh(t, "nft list tables"); !strings.Contains(got, "another") {
		t.Errorf("another's table is gone: %s", got)
	}
	if got := b.Health(); got != "" {
		t.Errorf("health: %s", got)
	}
}

// sorted is a listing without the order of its objects.
func sorted(listing string) string {
	blocks := strings.Split(listing, "\n\n")
	for i := range blocks {
		blocks[i] = strings.Trim(blocks[i], "}\n ")
	}
	blocks[0] = strings.TrimPrefix(blocks[0], "table ip orch {\n")
	for i, b := range blocks {
		if strings.Contains(b, "set aff-") { // clients that are remembered are the kernel's own
			blocks[i], _, _ = strings.Cut(b, "elements")
			blocks[i] = strings.TrimSpace(blocks[i])
		}
	}
	slices.Sort(blocks)
	return strings.Join(blocks, "\n")
}

func (w *world) generation() string { return sh(w, "nft -a list table ip orch") }

// A restart of the agent leaves live connections alone, and the kernel's rules as
// long as the leader may still say otherwise.
func TestRestart(t *testing.T) {
	w := newWorld(t)
	ends := []wire.Endpoint{w.replica("web", 0, "10.64.7.2", every), w.replica("web", 1, "10.64.8.2", every)}
	b := w.serving(web(), ends...)
	var open []net.Conn
	for range 8 {
		c, err := w.dial("", "tcp4", vip+":80")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		open = append(open, c)
	}
	talk := func(when string) {
		t.Helper()
		for _, c := range open {
			if _, err := say(c); err != nil {
				t.Errorf("%s: a live connection failed: %v", when, err)
			}
		}
	}
	talk("before")
	b.stop()
	before := w.generation()
	names := &recorder{}
	cfg := w.config()
	cfg.Names = names
	b = w.startWith(cfg)
	if known := b.Known(); len(known) != 2 {
		t.Errorf("known from before: %v", known)
	}
	b.Configure(here())
	b.Connected(true)
	w.eventually(time.Second, "names are answered at once", func() bool { return names.puts.Load() == 2 })
	// The leader says something else than the disk: slot 2 instead of 1.
	w.within("n2", func() error { return nil })
	third := w.replica("web", 2, "10.64.8.3", every)
	if now := w.generation(); now != before {
		t.Errorf("rules were changed before the leader spoke:\n%s", now)
	}
	talk("between")
	b.tell(network.Update{Complete: true, Services: []wire.Service{web()}, Put: []wire.Endpoint{ends[0], third}})
	talk("after")
	if got := w.generation(); !strings.Contains(got, "10.64.8.3 . 80") || strings.Contains(got, "10.64.8.2") {
		t.Errorf("the leader's word is not in force:\n%s", got)
	}
	handle := func(s string) string { i := strings.Index(s, "chain lead"); return s[i : i+strings.Index(s[i:], "}")] }
	if handle(before) != handle(w.generation()) {
		t.Error("what did not change was made anew")
	}
}

// Without a session the disk is as good as anything, after a while; at once if the
// kernel has nothing, as after a reboot.
func TestStartWithoutLeader(t *testing.T) {
	w := newWorld(t)
	e := w.replica("web", 0, "10.64.7.2", every)
	b := w.serving(web(), e)
	b.stop()
	sh(t, "nft flush chain ip orch pub-default/web-tcp-8080")
	b = w.start()
	b.Configure(here())
	started := time.Now()
	w.eventually(holdMax+time.Second, "the disk's word is in force", func() bool { _, _, err := w.ask("", "tcp4", nodeIP+":8080"); return err == nil })
	if took := time.Since(started); took < holdMax-100*time.Millisecond {
		t.Errorf("the kernel was changed after %s", took)
	}
	b.stop()
	sh(t, "nft flush ruleset")
	b = w.start()
	b.Configure(here())
	w.eventually(time.Second, "an empty kernel is given what lies on disk", func() bool { _, _, err := w.ask("", "tcp4", nodeIP+":8080"); return err == nil })
}

// waiting is a client in a replica that has sent a request and waits for the answer.
func (w *world) waiting(space, to string) (ended func() (time.Time, error)) {
	w.Helper()
	c, err := w.dial(space, "tcp4", to)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { c.Close() })
	if _, err := c.Write([]byte("wait")); err != nil {
		w.Fatal(err)
	}
	type end struct {
		at  time.Time
		err error
	}
	done := make(chan end, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		done <- end{time.Now(), err}
	}()
	return func() (time.Time, error) {
		select {
		case e := <-done:
			return e.at, e.err
		case <-time.After(5 * time.Second):
			return time.Now(), os.ErrDeadlineExceeded
		}
	}
}

// A client that waits for a replica whose node lost its power hears of it; one that
// waits for a replica that was only dropped goes on waiting.
func TestDeadAreCut(t *testing.T) {
	w := newWorld(t)
	dead, slow := w.replica("web", 0, "10.64.8.2", every), w.replica("slow", 0, "10.64.7.3", http)
	slowService := wire.Service{Key: api.Key{Namespace: "default", Name: "slow"}, VIP: "10.128.0.11"}
	w.replica("other", 0, "10.64.7.5")
	b := w.serving(web(), dead, slow)
	b.tell(network.Update{Services: []wire.Service{slowService}})
	inReplica, onNode := w.waiting("other0", vip+":80"), w.waiting("", "127.0.0.1:8080")
	direct := w.waiting("other0", "10.64.8.2:80")
	patient := w.waiting("other0", "10.128.0.11:80")
	making := make(chan error, 1)
	next := w.replica("web", 1, "10.64.7.6", every)

	w.in("n2", "ip link set eth0 down") // nothing answers any more
	go func() {                         // a SYN is on its way when the endpoint goes: its next try is led elsewhere
		c, err := w.dial("other0", "tcp4", vip+":80")
		if err == nil {
			_, err = say(c)
			c.Close()
		}
		making <- err
	}()
	w.eventually(time.Second, "the kernel has seen the SYN", func() bool {
		all, err := b.cfg.Connections.To(t.Context(), func(netip.AddrPort) bool { return true })
		return err == nil && slices.ContainsFunc(all, func(c network.Connection) bool { return !c.Open && c.Protocol == api.TCP })
	})
	dropped := time.Now()
	b.tell(network.Update{Drop: []api.ReplicaKey{dead.Replica, slow.Replica}, Put: []wire.Endpoint{next}})
	for name, ended := range map[string]func() (time.Time, error){"in a replica": inReplica, "on the node": onNode, "past the virtual IP": direct} {
		at, err := ended()
		t.Logf("a client %s heard of it after %s", name, at.Sub(dropped).Round(time.Millisecond))
		if !errors.Is(err, syscall.ECONNABORTED) || at.Sub(dropped) > 2*time.Second { // 0.65 s on a machine that does nothing else
			t.Errorf("a client %s: %v after %s", name, err, at.Sub(dropped))
		}
	}
	if err := <-making; err != nil {
		t.Errorf("a connection that was being made: %v", err)
	}
	select {
	case <-done(patient):
		t.Error("a connection to a replica that lives was cut")
	case <-time.After(3 * time.Second): // it is looked at again meanwhile
	}
}

// A client's first packet is lost at a server that lives, and before the next one
// comes the server is taken out of use. It may have closed its listener by then.
func TestLostFirstPacket(t *testing.T) {
	w := newWorld(t)
	leaving, next := w.replica("web", 0, "10.64.7.2", every), w.replica("web", 1, "10.64.8.2", every)
	w.replica("other", 0, "10.64.7.5")
	b := w.serving(web(), leaving)
	w.in("web0", `nft add table ip loss; nft add chain ip loss in "{ type filter hook input priority 0; }"; nft add rule ip loss in ip saddr 10.64.7.5 tcp dport 80 drop`)
	type answer struct {
		id  string
		err error
	}
	answered := make(chan answer, 1)
	go func() {
		id, _, err := w.ask("other0", "tcp4", vip+":80")
		answered <- answer{id, err}
	}()
	w.eventually(time.Second, "the kernel leads the first packet", func() bool {
		all, err := b.cfg.Connections.To(t.Context(), func(a netip.AddrPort) bool { return a.String() == "10.64.7.2:80" })
		return err == nil && len(all) > 0
	})
	b.tell(network.Update{Drop: []api.ReplicaKey{leaving.Replica}, Put: []wire.Endpoint{next}})
	w.in("web0", "nft delete table ip loss")
	if got := <-answered; got.id != "web-1:80" || got.err != nil {
		t.Errorf("%s, %v; want web-1:80", got.id, got.err)
	}
}

func done(f func() (time.Time, error)) <-chan struct{} {
	c := make(chan struct{})
	go func() {
		if _, err := f(); !errors.Is(err, os.ErrDeadlineExceeded) {
			close(c)
		}
	}()
	return c
}

// One that dies after it was dropped takes its clients along, too.
func TestDropThenDeath(t *testing.T) {
	w := newWorld(t)
	e := w.replica("web", 0, "10.64.8.2", every)
	w.replica("other", 0, "10.64.7.5")
	b := w.serving(web(), e)
	waits := w.waiting("other0", vip+":80")
	b.tell(network.Update{Drop: []api.ReplicaKey{e.Replica}})
	w.eventually(2*time.Second, "it was looked at and lives", func() bool {
		b.cutter.mu.Lock()
		defer b.cutter.mu.Unlock()
		for _, l := range b.cutter.watched {
			return l.done > 0
		}
		return false
	})
	w.in("n2", "ip link set eth0 down")
	died := time.Now()
	if at, err := waits(); !errors.Is(err, syscall.ECONNABORTED) || at.Sub(died) > 4*time.Second {
		t.Errorf("%v after %s", err, at.Sub(died))
	}
	w.eventually(2*time.Second, "nothing is watched for ever", func() bool {
		b.cutter.mu.Lock()
		defer b.cutter.mu.Unlock()
		return len(b.cutter.watched) == 0
	})
}

// A node that is cut off from the leader finds out itself who does not answer.
func TestCutOff(t *testing.T) {
	w := newWorld(t)
	near, far := w.replica("web", 0, "10.64.7.2", every), w.replica("web", 1, "10.64.8.2", every)
	lonely := w.replica("lonely", 0, "10.64.8.3", every)
	b := w.serving(web(), near, far, lonely)
	b.Connected(false)
	w.in("n2", "ip link set eth0 down")
	rules := func() string { return sh(t, "nft list chain ip orch svc-default/web-tcp-80") }
	w.eventually(aloneMin+4*time.Second, "the other node's is out", func() bool { return !strings.Contains(rules(), "10.64.8.2") })
	for range 10 {
		w.wants("", "tcp4", vip+":80", "web-0:80", "")
	}
	if got := sh(t, "nft list chain ip orch pub-default/lonely-tcp-8080"); !strings.Contains(got, "10.64.8.3") {
		t.Errorf("the last endpoint of a service is out:\n%s", got)
	}
	w.in("n2", "ip link set eth0 up; ip route replace default via %s dev eth0 onlink", nodeIP)
	w.eventually(4*time.Second, "it is in again", func() bool { return strings.Contains(rules(), "10.64.8.2") })
	w.in("n2", "ip link set eth0 down")
	w.eventually(4*time.Second, "it is out again", func() bool { return !strings.Contains(rules(), "10.64.8.2") })
	b.Connected(true)
	b.tell(network.Update{Complete: true, Services: []wire.Service{web()}, Put: []wire.Endpoint{near, far, lonely}})
	if !strings.Contains(rules(), "10.64.8.2") {
		t.Errorf("the leader's word does not count:\n%s", rules())
	}
}

type recorder struct{ puts atomic.Int64 }

func (r *recorder) Update(put []wire.Endpoint, _ []api.ReplicaKey, _ []wire.Service, _ []api.Key, _ bool) {
	r.puts.Store(int64(len(put)))
}

// stubborn is a kernel that refuses.
type stubborn struct {
	refuse  atomic.Bool
	applied atomic.Int64
	gate    chan struct{}
}

func (s *stubborn) List(context.Context) (*network.Table, error) { return nil, nil }
func (s *stubborn) Touched() (bool, error)                       { return false, nil }
func (s *stubborn) Apply(_ context.Context, c network.Change) error {
	if s.gate != nil {
		<-s.gate
	}
	s.applied.Add(1)
	if s.refuse.Load() {
		return errors.New("the kernel has no numgen")
	}
	return nil
}

// Nothing counts as programmed that the kernel refused; it is told, and tried again.
func TestKernelRefuses(t *testing.T) {
	w := &world{t, t.TempDir()}
	kernel := &stubborn{}
	kernel.refuse.Store(true)
	cfg := w.config()
	cfg.Rules = kernel
	b := w.startWith(cfg)
	b.say(network.Update{Complete: true})
	b.Configure(here())
	w.eventually(2*time.Second, "the refusal is told", func() bool { return kernel.applied.Load() >= 3 && strings.Contains(b.Health(), "no numgen") })
	if b.programmed() != 0 {
		t.Error("told as programmed")
	}
	kernel.refuse.Store(false)
	w.eventually(2*time.Second, "it is in force, and all is well", func() bool { return b.programmed() == 1 && b.Health() == "" })
}

// What comes while the kernel is busy is one transaction.
func TestManyAreOne(t *testing.T) {
	w := &world{t, t.TempDir()}
	kernel := &stubborn{gate: make(chan struct{})}
	cfg := w.config()
	cfg.Rules = kernel
	b := w.startWith(cfg)
	b.Configure(here())
	b.say(network.Update{Complete: true})
	kernel.gate <- struct{}{}
	w.eventually(time.Second, "the first is in force", func() bool { return b.programmed() == 1 })
	b.say(network.Update{Services: []wire.Service{web()}, Put: []wire.Endpoint{{Replica: api.ReplicaKey{Namespace: "default", Service: "web"}, IP: "10.64.7.2", Ports: []api.Port{http}}}})
	w.eventually(time.Second, "the loop has taken what waits", func() bool { return len(b.wake) == 0 })
	for i := range 100 {
		k := api.ReplicaKey{Namespace: "default", Service: "web", Slot: 1 + i%2, Epoch: uint64(i)}
		b.say(network.Update{Put: []wire.Endpoint{{Replica: k, IP: "10.64.7.3", Ports: []api.Port{http}}}, Drop: []api.ReplicaKey{{Namespace: "default", Service: "web", Slot: 1 + i%2, Epoch: uint64(i - 2)}}})
	}
	kernel.gate <- struct{}{}
	kernel.gate <- struct{}{}
	w.eventually(time.Second, "all are in force", func() bool { return b.programmed() == 102 })
	if got := kernel.applied.Load(); got > 3 {
		t.Errorf("%d transactions", got)
	}
}

func TestFold(t *testing.T) {
	k := func(slot int) api.ReplicaKey { return api.ReplicaKey{Namespace: "default", Service: "web", Slot: slot} }
	put := func(slot int, ip string) wire.Endpoint { return wire.Endpoint{Replica: k(slot), IP: ip} }
	got := fold([]plan.Balance{
		{Mark: 1, Put: []wire.Endpoint{put(0, "a"), put(1, "b")}, Drop: []api.ReplicaKey{k(2)}, Services: []wire.Service{{Key: api.Key{Name: "x"}}}},
		{Mark: 2, Put: []wire.Endpoint{put(2, "c")}, Drop: []api.ReplicaKey{k(0)}, DropServices: []api.Key{{Name: "x"}}},
	})
	slices.SortFunc(got.Put, func(a, b wire.Endpoint) int { return strings.Compare(a.IP, b.IP) })
	if got.Complete || len(got.Put) != 2 || got.Put[0].IP != "b" || got.Put[1].IP != "c" || !slices.Equal(got.Drop, []api.ReplicaKey{k(0)}) || len(got.DropServices) != 1 || len(got.Services) != 0 {
		t.Errorf("two increments: %+v", got)
	}
	got = fold([]plan.Balance{{Mark: 1, Put: []wire.Endpoint{put(0, "a")}}, {Mark: 2, Complete: true, Put: []wire.Endpoint{put(1, "b")}}, {Mark: 3, Put: []wire.Endpoint{put(3, "d")}, Drop: []api.ReplicaKey{k(1)}}})
	if !got.Complete || len(got.Put) != 1 || got.Put[0].IP != "d" || len(got.Drop) != 0 {
		t.Errorf("a complete one between: %+v", got)
	}
}

// What is left of a connection to a replica that was dropped would catch a new one
// from the same port. What others have left stays.
func TestLeftoversGo(t *testing.T) {
	w := newWorld(t)
	e, other := w.replica("web", 0, "10.64.8.2", every), w.replica("web", 1, "10.64.7.3", every)
	b := w.serving(web(), e, other)
	leave := func(server string, port uint16, state uint8) {
		client, to, from := net.ParseIP(nodeIP).To4(), net.ParseIP(vip).To4(), net.ParseIP(server).To4()
		flow := &netlink.ConntrackFlow{FamilyType: unix.AF_INET, TimeOut: 100, ProtoInfo: &netlink.ProtoInfoTCP{State: state},
			Forward: netlink.IPTuple{Protocol: unix.IPPROTO_TCP, SrcIP: client, DstIP: to, SrcPort: port, DstPort: 80},
			Reverse: netlink.IPTuple{Protocol: unix.IPPROTO_TCP, SrcIP: from, DstIP: client, SrcPort: 80, DstPort: port}}
		if err := netlink.ConntrackCreate(netlink.ConntrackTable, unix.AF_INET, flow); err != nil {
			t.Fatal(err)
		}
	}
	left := func() (ports []int) {
		flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range flows {
			if f.Forward.SrcPort >= 5000 && f.Forward.SrcPort < 5010 {
				ports = append(ports, int(f.Forward.SrcPort))
			}
		}
		slices.Sort(ports)
		return ports
	}
	const established, lastAck, timeWait, closed = 3, 6, 7, 8
	leave("10.64.8.2", 5000, lastAck)
	leave("10.64.8.2", 5001, closed)
	leave("10.64.8.2", 5002, timeWait) // the kernel lets go of it itself
	leave("10.64.8.2", 5003, established)
	leave("10.64.7.3", 5004, lastAck)
	if got := left(); len(got) != 5 {
		t.Fatalf("left: %v", got)
	}
	b.tell(network.Update{Drop: []api.ReplicaKey{e.Replica}})
	w.eventually(2*time.Second, "what is left goes", func() bool { return slices.Equal(left(), []int{5002, 5003, 5004}) })
}

// A client's port may be another program's by the time its connection is cut: who
// listens there listens on.
func TestListenersAreNotCut(t *testing.T) {
	w := newWorld(t)
	w.host("other0", gateway+"/32", "10.64.7.5/32")
	sh(t, "ip route add 10.64.7.5/32 dev other0")
	var plain net.ListenConfig
	plain.SetMultipathTCP(false) // as most programs do; the kernel spares the others
	var cut []network.Connection
	for space, at := range map[string]string{"": nodeIP + ":7000", "other0": "10.64.7.5:7000"} {
		w.within(space, func() error {
			l, err := plain.Listen(t.Context(), "tcp4", at)
			if err == nil {
				t.Cleanup(func() { l.Close() })
			}
			return err
		})
		cut = append(cut, network.Connection{Protocol: api.TCP, Client: netip.MustParseAddrPort(at), To: netip.MustParseAddrPort(vip + ":80"), Server: netip.MustParseAddrPort("10.64.8.2:80"), Open: true})
	}
	if err := (netfilter.Connections{Spaces: w.space("")}).Cut(t.Context(), cut); err != nil {
		t.Error(err)
	}
	for _, c := range cut {
		conn, err := w.dial("", "tcp4", c.Client.String())
		if err != nil {
			t.Errorf("who listens at %s is cut: %v", c.Client, err)
			continue
		}
		conn.Close()
	}
}

// A UDP port of nodes that leads to replicas from now on does so for who talked to
// the node itself. Who talks to others on a port of that number goes on.
func TestOpenedPortsCutTheNodesOwn(t *testing.T) {
	w := newWorld(t)
	b := w.serving(web())
	talk := func(port uint16, to string) {
		client, server := net.ParseIP("10.64.7.5").To4(), net.ParseIP(to).To4()
		flow := &netlink.ConntrackFlow{FamilyType: unix.AF_INET, TimeOut: 100,
			Forward: netlink.IPTuple{Protocol: unix.IPPROTO_UDP, SrcIP: client, DstIP: server, SrcPort: port, DstPort: 53},
			Reverse: netlink.IPTuple{Protocol: unix.IPPROTO_UDP, SrcIP: server, DstIP: client, SrcPort: 53, DstPort: port}}
		if err := netlink.ConntrackCreate(netlink.ConntrackTable, unix.AF_INET, flow); err != nil {
			t.Fatal(err)
		}
	}
	talk(5000, nodeIP)
	talk(5001, outsideIP)
	talk(5002, "127.0.0.53")
	left := func() (ports []uint16) {
		all, err := b.cfg.Connections.To(t.Context(), func(a netip.AddrPort) bool { return a.Port() == 53 })
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range all {
			ports = append(ports, c.Client.Port())
		}
		slices.Sort(ports)
		return ports
	}
	if got := left(); len(got) != 3 {
		t.Fatalf("there: %v", got)
	}
	b.tell(network.Update{Put: []wire.Endpoint{w.replica("web", 0, "10.64.7.2", api.Port{Port: 80, Publish: 53, Protocol: api.UDP})}})
	w.eventually(2*time.Second, "the node's own go", func() bool { return !slices.Contains(left(), 5000) && !slices.Contains(left(), 5002) })
	if got := left(); !slices.Equal(got, []uint16{5001}) {
		t.Errorf("left: %v, want that to another host", got)
	}
}

// A replica that is so busy that it takes up no connections is not dead, and goes on
// with those that it has.
func TestBusyAreNotCut(t *testing.T) {
	w := newWorld(t)
	w.host("busy0", gateway+"/32", "10.64.7.4/32")
	sh(t, "ip route add 10.64.7.4/32 dev busy0")
	w.replica("other", 0, "10.64.7.5")
	var listener int
	w.within("busy0", func() (err error) {
		if listener, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0); err == nil {
			err = unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{10, 64, 7, 4}, Port: 80})
		}
		if err != nil {
			return err
		}
		return unix.Listen(listener, 0) // one connection may wait to be taken up
	})
	t.Cleanup(func() { unix.Close(listener) })
	e := wire.Endpoint{Replica: api.ReplicaKey{Namespace: "default", Service: "web", Epoch: 1}, Node: "n1", IP: "10.64.7.4", NodeIP: nodeIP, Ports: []api.Port{http}}
	b := w.serving(web(), e)
	served := w.waiting("other0", vip+":80")
	fd, _, err := unix.Accept(listener)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	w.waiting("other0", "10.64.7.4:80") // fills the queue
	b.tell(network.Update{Drop: []api.ReplicaKey{e.Replica}})
	select {
	case <-done(served):
		t.Error("a connection to a busy replica was cut")
	case <-time.After(3 * time.Second): // it is looked at more than once
	}
}
