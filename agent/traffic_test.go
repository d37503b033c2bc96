package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orchctl/orch/agent/netdev"
	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/agent/runtimetest"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

func (l *leader) endpoints(set wire.EndpointSet) {
	l.Say(&orchv1.ControllerMessage{Message: &orchv1.ControllerMessage_Endpoints{Endpoints: set.ToPB()}})
}

func (l *leader) network(set wire.NetworkSet) {
	l.Say(&orchv1.ControllerMessage{Message: &orchv1.ControllerMessage_Network{Network: set.ToPB()}})
}

// acked waits for an ack of the endpoints.
func (l *leader) acked() uint64 {
	m := l.Hear(func(m *orchv1.AgentMessage) bool { return m.GetAck().GetEndpointVersion() > 0 })
	return m.GetAck().GetEndpointVersion()
}

// quiet fails if an ack of the endpoints comes within a second.
func (l *leader) quiet(t *testing.T) {
	t.Helper()
	time.Sleep(time.Second)
	synctest.Wait()
	for _, m := range l.Heard() {
		if v := m.GetAck().GetEndpointVersion(); v > 0 {
			t.Errorf("version %d is acknowledged, though it is not in force, or not of this session", v)
		}
	}
}

func endpoint(slot int, epoch uint64) wire.Endpoint {
	return wire.Endpoint{Replica: api.ReplicaKey{Namespace: "default", Service: "web", Slot: slot, Epoch: epoch}, Node: "n2", IP: "10.64.2.7"}
}

func (r *rig) wantEndpoints(want ...wire.Endpoint) {
	r.t.Helper()
	synctest.Wait()
	same := func(a, b wire.Endpoint) bool { return a.Replica == b.Replica && a.IP == b.IP }
	if got := r.traffic.Endpoints(); !slices.EqualFunc(got, want, same) {
		r.t.Errorf("traffic is led to %v, want %v", got, want)
	}
}

// What is acknowledged is in force, and what is in force outlives sessions and
// agents.
func TestTrafficIsAcknowledgedWhenItIsLed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		l := r.next(10)
		l.assign(t, wire.AssignmentSet{Complete: true})
		web := wire.Service{Key: api.Key{Namespace: "default", Name: "web"}, VIP: "10.128.0.10"}
		l.endpoints(wire.EndpointSet{Complete: true, Version: 3, Put: []wire.Endpoint{endpoint(0, 1), endpoint(1, 2)}, Services: []wire.Service{web}})
		if v := l.acked(); v != 3 {
			t.Errorf("acknowledged %d, want 3", v)
		}
		r.wantEndpoints(endpoint(0, 1), endpoint(1, 2))
		if s, ok := r.traffic.Service(web.Key); !ok || s.VIP != web.VIP {
			t.Errorf("service %+v, %t", s, ok)
		}
		if !r.traffic.Up() {
			t.Error("traffic was not told of the session")
		}

		r.traffic.Hold(true)
		l.endpoints(wire.EndpointSet{Version: 4, Drop: []api.ReplicaKey{endpoint(0, 1).Replica}})
		l.endpoints(wire.EndpointSet{Version: 5, Put: []wire.Endpoint{endpoint(0, 3)}})
		l.quiet(t)
		r.traffic.Hold(false)
		if v := l.acked(); v != 5 {
			t.Errorf("acknowledged %d, want 5", v)
		}
		r.wantEndpoints(endpoint(0, 3), endpoint(1, 2))

		// What an old session said is no version of the new one's, though it is in
		// force only now.
		r.traffic.Hold(true)
		l.endpoints(wire.EndpointSet{Version: 6, Drop: []api.ReplicaKey{endpoint(1, 2).Replica}})
		synctest.Wait()
		l.Close()
		l = r.next(11)
		r.traffic.Hold(false)
		l.quiet(t)
		r.wantEndpoints(endpoint(0, 3))

		// A new life of the agent and a leader that has not heard of all nodes yet.
		r.c.Stop()
		r.end()
		if r.traffic.Up() {
			t.Error("traffic is told that there is a session")
		}
		r.start()
		time.Sleep(time.Minute)
		r.wantEndpoints(endpoint(0, 3))
		r.c.Serve(nil)
		l = r.next(12)
		l.assign(t, wire.AssignmentSet{Complete: true})
		l.endpoints(wire.EndpointSet{Complete: true, Version: 1, Keep: []api.ReplicaKey{endpoint(0, 3).Replica}})
		if v := l.acked(); v != 1 {
			t.Errorf("acknowledged %d, want 1", v)
		}
		r.wantEndpoints(endpoint(0, 3))
		r.stop()
	})
}

// Where the node stands is taken up in order, again until it is, and told to traffic.
func TestNetworkIsTakenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		l := r.next(10)
		r.network.Refuse(errors.New("no space left on device"))
		n2, n3 := wire.Peer{Node: "n2", Address: "10.0.0.2", Subnet: "10.64.2.0/24"}, wire.Peer{Node: "n3", Address: "10.0.0.3", Subnet: "10.64.3.0/24"}
		l.network(wire.NetworkSet{Complete: true, Cluster: "10.64.0.0/10", Services: "10.128.0.0/14", Subnet: "10.64.1.0/24", Routes: wire.RoutesAuto, Put: []wire.Peer{n2}})
		l.network(wire.NetworkSet{Put: []wire.Peer{n3}, Drop: []string{"n2"}})
		time.Sleep(5 * time.Second)
		if set := r.network.Set(); set != nil {
			t.Errorf("taken up: %+v", set)
		}
		// The plan goes on meanwhile.
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{web(web0)}})
		l.hear(ready)
		r.network.Refuse(nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if set := r.network.Set(); set == nil || !slices.Equal(set.Put, []wire.Peer{n3}) {
			t.Fatalf("taken up: %+v", set)
		}
		if at := r.traffic.Standing(); at.Subnet.String() != "10.64.1.0/24" || at.Services.String() != "10.128.0.0/14" {
			t.Errorf("traffic was told %+v", at)
		}

		// A new life begins with what lay on disk, and a complete set replaces all.
		r.restart()
		l = r.next(11)
		r.network.Refuse(errors.New("no space left on device"))
		l.network(wire.NetworkSet{Put: []wire.Peer{n2}})
		time.Sleep(time.Second)
		l.network(wire.NetworkSet{Complete: true, Cluster: "10.64.0.0/10", Services: "10.128.0.0/14", Subnet: "10.64.9.0/24"})
		r.network.Refuse(nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if set := r.network.Set(); set.Subnet != "10.64.9.0/24" || len(set.Put) != 0 || r.traffic.Standing().Subnet.String() != "10.64.9.0/24" {
			t.Errorf("taken up: %+v; traffic was told %+v", set, r.traffic.Standing())
		}
		r.stop()
	})
}

// A replica without a network of its own has its node's address.
func TestHostNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		l := r.next(10)
		a := web(web0)
		a.Template.HostNetwork = true
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{a}})
		l.hear(ready)
		if o, ok := r.runtime.Get("default.web-0.1.main"); !ok || o.NetNS != "" || o.IP != "127.0.0.1" {
			t.Errorf("started %+v", o)
		}
		r.stop()
	})
}

// A check of the network begins with where the node stands, as the leader told it.
func TestNetCheckKnowsWhereItStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		l := r.next(10)
		check := func() (out []*orchv1.NetCheckResult) {
			frames, end := r.relay(l, &orchv1.OpenRelay{Request: &orchv1.OpenRelay_NetCheck{NetCheck: &orchv1.NetCheckOpen{Targets: []string{"n2"}}}})
			if end.GetError() != "" {
				t.Errorf("ended with %v", end)
			}
			for _, f := range frames {
				out = append(out, f.GetNetCheck())
			}
			return out
		}
		r.network.Ail("the pool is empty")
		got := check()
		if len(got) != 1 || got[0].GetOk() || got[0].GetNode() != "n1" || got[0].GetTarget() != "n1" || got[0].GetCheck() != "route" ||
			!strings.Contains(got[0].GetDetail(), "this node has no subnet") || !strings.HasSuffix(got[0].GetDetail(), "; n1 says: the pool is empty") {
			t.Errorf("without a subnet: %v", got)
		}
		r.stop()
	})
}

// What a container gets of the network is what the network has made.
func TestContainersGetTheirNetwork(t *testing.T) {
	cfg := Config{Name: "n1", Address: netip.MustParseAddr("10.0.0.1"), Network: filed{newNetwork()}}
	own := specOf(plan.StartContainer{Replica: web0, Network: plan.Network{NetNS: "/run/orch/netns/x", IP: "10.64.1.2"}}, cfg)
	if own.NetNS != "/run/orch/netns/x" || own.HostNetwork || own.IP != "10.64.1.2" || own.Hosts != "/files/web-0/hosts" || own.ResolvConf != "/files/web-0/resolv.conf" {
		t.Errorf("its own network: %+v", own)
	}
	if host := specOf(plan.StartContainer{Replica: web0, HostNetwork: true, Network: plan.Network{IP: "10.0.0.1"}}, cfg); host.NetNS != "" || !host.HostNetwork || host.IP != "10.0.0.1" {
		t.Errorf("the node's network: %+v", host)
	}
}

// filed is a network with files.
type filed struct{ *runtimetest.Network }

func (filed) Files(k api.ReplicaKey) netdev.Files {
	return netdev.Files{Hosts: "/files/" + k.Name() + "/hosts", ResolvConf: "/files/" + k.Name() + "/resolv.conf"}
}

// Where the leader has given no subnet that is told soon, and a subnet that comes
// late is taken up.
func TestNoSubnetIsToldSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.network.Narrow()
		r.start()
		l := r.next(10)
		l.network(wire.NetworkSet{Complete: true, Cluster: "10.64.0.0/28", Services: "10.128.0.0/14", Why: "all are taken"})
		synctest.Wait()
		began := time.Now()
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{web(web0)}})
		l.hear(func(s wire.StatusReport) bool {
			return len(s.Replicas) == 1 && s.Replicas[0].Status.Reason == api.ReasonNetworkError && strings.Contains(s.Replicas[0].Status.Message, "no subnet")
		})
		if took := time.Since(began); took > noSubnetMax+time.Second {
			t.Errorf("it is told after %s", took)
		}
		l.network(wire.NetworkSet{Complete: true, Cluster: "10.64.0.0/28", Services: "10.128.0.0/14", Subnet: "10.64.0.0/28"})
		l.hear(ready)
		r.stop()
	})
}

// spaced is a network whose replicas have one namespace.
type spaced struct {
	*runtimetest.Network
	path string
}

func (n spaced) Setup(ctx context.Context, k api.ReplicaKey, hostNetwork bool) (netdev.Attachment, error) {
	a, err := n.Network.Setup(ctx, k, hostNetwork)
	a.NetNS = n.path
	return a, err
}

// A check that goes the way of a replica takes back what it had made, also where it
// could not be made use of.
func TestCheckAsReplicaLeavesNothing(t *testing.T) {
	for path, works := range map[string]bool{"/proc/self/ns/net": true, "/nowhere": false} {
		n := spaced{newNetwork(), path}
		d := &driver{cfg: Config{Network: n, Logger: slog.New(slog.DiscardHandler)}}
		tried := false
		err := d.asReplica(t.Context(), func() {
			tried = true
			if had := n.Keys(); len(had) != 1 || api.CheckName(had[0].Namespace, api.MaxNamespaceName) == nil {
				t.Errorf("it goes as %v", had)
			}
		})
		if tried != works || (err == nil) != works || len(n.Keys()) > 0 {
			t.Errorf("in %s: tried %t, %v; left %v", path, tried, err, n.Keys())
		}
	}
}
