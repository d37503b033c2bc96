package orchctl

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// endpoint makes that of a replica.
func endpoint(r *api.Replica, change ...func(*api.Endpoint)) *api.Endpoint {
	e := &api.Endpoint{Metadata: api.Metadata{Name: r.Metadata.Name + "@" + epochText(r.Spec.Epoch), Namespace: r.Metadata.Namespace, Labels: r.Metadata.Labels},
		Status: api.EndpointStatus{Service: r.Spec.Service, Replica: r.Metadata.Name, Epoch: r.Spec.Epoch, Node: r.Spec.Node, IP: r.Status.IP,
			Ports: []api.Port{{Name: "http", Port: 8080, Publish: 80}, {Name: "dns", Port: 53, Protocol: api.UDP}}, Verdict: api.VerdictHealthy}}
	for _, c := range change {
		c(e)
	}
	return e
}

// webOfNet has services with all that can be told of traffic.
func webOfNet() *fake {
	ports := func(s *api.Service) {
		s.Spec.Containers[0].Ports = []api.Port{{Name: "http", Port: 8080, Publish: 80}, {Name: "dns", Port: 53, Protocol: api.UDP, Publish: 53, Mode: api.PublishHost}, {Port: 9000}}
	}
	web := service("web", 3, all(3), ports, func(s *api.Service) {
		s.Status.VIP, s.Status.Updated = "10.128.0.11", 4 // a spare beside an incumbent
		s.Spec.SessionAffinity, s.Spec.TrafficDistribution = api.AffinityClientIP, api.PreferSameNode
	})
	db := service("db", 1, all(1), func(s *api.Service) { s.Spec.Headless, s.Spec.HostNetwork = true, true })
	at := func(ip string) func(*api.Replica) { return func(r *api.Replica) { r.Status.IP = ip } }
	w0, w1, w10 := replica("web", 0, 17, "n1", running(true), at("10.64.1.2")), replica("web", 1, 18, "n2", running(true), at("10.64.2.2")), replica("web", 10, 19, "n10", running(true), lastKnown, at("10.64.10.2"))
	d0 := replica("db", 0, 20, "n2", running(true), at("10.0.0.2"))
	return newFake(web, db, service("idle", 0), w0, w1, w10, d0, endpoint(w0), endpoint(w1, func(e *api.Endpoint) { e.Status.Kept = true; e.Status.Verdict = api.VerdictUnknown }),
		endpoint(w10, func(e *api.Endpoint) { e.Status.Degraded = true; e.Status.Verdict = api.VerdictSuspect }), endpoint(d0, func(e *api.Endpoint) { e.Status.Ports = nil }),
		endpoint(replica("idle", 0, 5, "n1"), func(e *api.Endpoint) { e.Metadata.Namespace, e.Status.IP, e.Status.Kept = "shop", "", true }),
		node("n1", api.VerdictHealthy, func(n *api.Node) {
			n.Status.Subnet, n.Status.DrainWaits = "10.64.1.0/24", []string{"web-0 waits: 2 nodes: 2 unschedulable"}
			n.Spec.Unschedulable, n.Spec.Drain = true, &api.Drain{By: "user alice", Since: epoch.Add(-time.Minute), Deadline: epoch.Add(9 * time.Minute)}
		}),
		node("n2", api.VerdictHealthy, func(n *api.Node) {
			n.Status.Subnet, n.Status.Replicas = "10.64.2.0/24", 0
			n.Spec.Unschedulable, n.Spec.Drain = true, &api.Drain{By: "user alice", Since: epoch.Add(-time.Minute), Done: epoch.Add(-20 * time.Second)}
		}),
		node("n10", api.VerdictHealthy, func(n *api.Node) {
			n.Status.NetworkWhy = "no subnet is free: all 2 of 10.64.0.0/23 are taken"
		}))
}

func TestNetTables(t *testing.T) {
	in(t, webOfNet(), func(t *testing.T, r *rig) {
		var b strings.Builder
		for _, line := range []string{"get services", "get endpoints", "get ep -o wide", "get endpoints -l app=db", "get endpoints -n shop", "get endpoints web", "get endpoints web-1", "get endpoints web-1@18 -o name", "get endpoints idle", "get endpoints nothing", "get endpoints db -o json", "get endpoints web-0 -o yaml",
			"get nodes -o wide", "describe service web", "describe service db", "describe node n1", "describe node n2", "describe node n10", "describe endpoints web-10"} {
			b.WriteString("$ orchctl " + line + "\n" + r.run(strings.Fields(line)...).String() + "\n")
		}
		golden(t, "net", b.String())
		var list struct{ Items []api.Endpoint }
		if err := json.Unmarshal([]byte(r.run("get", "endpoints", "web", "-o", "json").out), &list); err != nil || len(list.Items) != 3 || list.Items[2].Status.Replica != "web-10" {
			t.Errorf("%v, %v", list, err)
		}
	})
}

// TestOlderController: one that knows no endpoints and no volumes does not hide the rest.
func TestOlderController(t *testing.T) {
	in(t, webOfNet(), func(t *testing.T, r *rig) {
		r.lacks = []string{api.KindEndpoint, api.KindVolume}
		if got := r.run("describe", "service", "web"); got.code != 0 || !strings.Contains(got.out, "Replicas:") || !strings.Contains(got.out, "Events:") || strings.Contains(got.out, "Endpoints:") {
			t.Error(got)
		}
	})
}

// TestWatchEndpoints: those of one service alone, as they come and go.
func TestWatchEndpoints(t *testing.T) {
	f := webOfNet()
	in(t, f, func(t *testing.T, r *rig) {
		ctx, cancel := contextOf(t)
		var got result
		done := make(chan struct{})
		go func() {
			defer close(done)
			got = r.runCtx(ctx, "get", "endpoints", "web", "-w")
		}()
		synctest.Wait()
		w2 := replica("web", 2, 30, "n3", running(true), func(r *api.Replica) { r.Status.IP = "10.64.3.200" })
		f.put(endpoint(w2))
		f.put(endpoint(replica("db", 1, 31, "n3", running(true))))
		f.drop(endpoint(w2))
		synctest.Wait()
		cancel()
		<-done
		golden(t, "net-watch", got.String())
	})
}

func TestNetCheck(t *testing.T) {
	in(t, newFake(), func(t *testing.T, r *rig) {
		var asked []*orchv1.NetCheckRequest
		var answer []*orchv1.NetCheckResult
		r.onNetCheck = func(q *orchv1.NetCheckRequest) []*orchv1.NetCheckResult { asked = append(asked, q); return answer }
		ok := func(node, target, check string) *orchv1.NetCheckResult {
			return &orchv1.NetCheckResult{Node: node, Target: target, Check: check, Ok: true, Detail: "as it should be", Took: durationpb.New(420 * time.Microsecond)}
		}
		answer = []*orchv1.NetCheckResult{ok("n10", "n1", "route"), ok("n2", "n10", "route"), ok("n2", "n1", "route"), ok("n2", "", "dns")}
		if got := r.run("net", "check"); got.code != 0 || got.out != "2 nodes, 4 checks: all is well\n" || len(asked[0].Nodes) != 0 {
			t.Error(got, asked)
		}
		var b strings.Builder
		answer = append(answer, &orchv1.NetCheckResult{Node: "n2", Target: "n10", Check: "mtu", Detail: "packets of 1450 bytes do not arrive,\x1b[31m those of 1400 do: set the MTU"},
			&orchv1.NetCheckResult{Node: "n3", Check: "agent", Detail: "not reachable: it is Suspect: silent for 2s"})
		for _, line := range []string{"net check n2 node/n10 n3", "net check --all"} {
			b.WriteString("$ orchctl " + line + "\n" + r.run(strings.Fields(line)...).String() + "\n")
		}
		golden(t, "net-check", b.String())
		if got := strings.Join(asked[1].Nodes, " "); got != "n2 n10 n3" {
			t.Errorf("asked for %s", got)
		}
		r.fail["NetCheck's end"] = []error{unavailable("no leader")}
		answer = answer[:1]
		if got := r.run("net", "check"); got.code != 1 || got.out != "not finished; until then 1 node, 1 check: all is well\n" || !strings.HasPrefix(got.err, "orchctl: check the network: no leader\n") {
			t.Error(got)
		}
		r.fail["NetCheck"] = []error{status.Error(codes.NotFound, "node n9: not found")}
		if got := r.run("net", "check", "n9"); got.code != 1 || got.err != "orchctl: check the network: node n9: not found\n" {
			t.Error(got)
		}
	})
}
