package counts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/view"
	"github.com/orchctl/orch/internal/metrics/metricstest"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// leading is a set whose controller leads and has published nothing.
func leading() (*Set, *view.View) {
	s, v := New(), view.New()
	s.From(Sources{View: v, Leads: func() (uint64, bool) { return 7, true }, Inbox: func() int { return 3 }, Sessions: func() int { return 2 },
		Working: func() time.Time { return time.Time{} }, Reach: func(context.Context) error { return nil }, Store: func() (int64, int64) { return 10, 100 }, Audit: func() (uint64, uint64) { return 5, 1 }})
	return s, v
}

func put(objects ...any) (p core.Publish) {
	for _, o := range objects {
		var k core.ViewKey
		switch x := o.(type) {
		case *api.Replica:
			k = core.ViewKey{Kind: api.KindReplica, Namespace: "default", Name: fmt.Sprintf("%s-%d@%d", x.Spec.Service, x.Spec.Slot, x.Spec.Epoch)}
		case *api.Service:
			k = core.ViewKey{Kind: api.KindService, Namespace: "default", Name: x.Metadata.Name}
		case *api.Node:
			k = core.ViewKey{Kind: api.KindNode, Name: x.Metadata.Name}
		case *api.VerdictRecord:
			k = core.ViewKey{Kind: api.KindVerdict, Name: fmt.Sprintf("%s/%d", x.Node, x.Seq)}
		case *api.Event:
			k = core.ViewKey{Kind: api.KindEvent, Name: fmt.Sprint(x.Seq)}
		case *api.Endpoint:
			k = core.ViewKey{Kind: api.KindEndpoint, Namespace: "default", Name: x.Metadata.Name}
		case *api.Fleet:
			k = core.ViewKey{Kind: api.KindFleet, Name: api.FleetName}
		}
		p.Put = append(p.Put, core.Entry{Key: k, Object: o})
	}
	return p
}

func service(name string, wanted, ready int) *api.Service {
	s := &api.Service{Metadata: api.Metadata{Namespace: "default", Name: name}}
	s.Spec.Replicas = &wanted
	s.Status.Replicas, s.Status.Ready = wanted, ready
	return s
}

func replica(service string, slot int, epoch uint64, node string, ready bool) *api.Replica {
	return &api.Replica{Metadata: api.Metadata{Namespace: "default"}, Spec: api.ReplicaSpec{Service: service, Slot: slot, Epoch: epoch, Node: node},
		Status: api.ReplicaStatus{Phase: api.PhaseRunning, Ready: ready}}
}

func node(name string, v api.Verdict) *api.Node {
	n := &api.Node{Metadata: api.Metadata{Name: name}}
	n.Status.Verdict = v
	n.Status.Capacity = api.ResourceList{api.CPU: 1500, api.Memory: api.Whole(4 << 30)}
	return n
}

func TestBook(t *testing.T) {
	s, v := leading()
	v.Publish(put(service("web", 3, 2), node("n1", api.VerdictHealthy), &api.Fleet{Status: api.FleetStatus{Nodes: map[api.Verdict]int{api.VerdictHealthy: 1}}}))
	s.calls.WithLabelValues("Apply").Observe(1)
	metricstest.CheckBook(t, s.Book(), "controller", "./internal/controller/counts", "../../../docs/monitoring.md")
}

// want checks the samples of some metrics.
func want(t *testing.T, s *Set, text string, names ...string) {
	t.Helper()
	var lines []string
	got := gather(t, s)
	for _, line := range got {
		for _, n := range names {
			if line[:strings.IndexAny(line, "{ ")] == n {
				lines = append(lines, line)
			}
		}
	}
	if have := strings.Join(lines, "\n"); have != strings.TrimSpace(text) {
		t.Errorf("have\n%s\nwant\n%s", have, strings.TrimSpace(text))
	}
}

// gather gives all samples but those of buckets, as text.
func gather(t *testing.T, s *Set) (lines []string) {
	t.Helper()
	var names []string
	for _, m := range s.Book().Metrics() {
		names = append(names, m.Name)
	}
	text, err := testutil.GatherAndFormat(s.Book().Gatherer(), expfmt.TypeTextPlain, names...)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "#") && !strings.Contains(line, "_bucket{") {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestReads(t *testing.T) {
	s, v := leading()
	degraded := &api.Endpoint{Metadata: api.Metadata{Namespace: "default", Name: "web-1@2"}}
	degraded.Status.Service, degraded.Status.Degraded = "web", true
	cordoned := node("n2", api.VerdictDead)
	cordoned.Spec.Unschedulable = true
	global := service("logs", 9, 2) // as many as nodes fit, whatever a manifest says
	global.Spec.Mode, global.Status.Replicas = api.ModeGlobal, 2
	v.Publish(put(service("web", 3, 1), global, replica("web", 0, 1, "n1", true), replica("web", 1, 2, "n2", false), degraded, node("n1", api.VerdictHealthy), cordoned,
		&api.Fleet{Status: api.FleetStatus{Nodes: map[api.Verdict]int{api.VerdictHealthy: 1, api.VerdictDead: 1}, Frozen: true, Spares: 4}}))
	want(t, s, `
orch_controller_audit_lines_total{outcome="failed"} 1
orch_controller_audit_lines_total{outcome="written"} 5
orch_controller_leading 1
orch_controller_store_quota_bytes 100
orch_controller_term 7
orch_endpoints_degraded 1
orch_fleet_frozen 1
orch_node_capacity_cpu_cores{node="n1"} 1.5
orch_node_capacity_cpu_cores{node="n2"} 1.5
orch_nodes_unschedulable 1
orch_replicas_ready 1
orch_service_endpoints{namespace="default",service="logs"} 0
orch_service_endpoints{namespace="default",service="web"} 1
orch_service_replicas_ready{namespace="default",service="logs"} 2
orch_service_replicas_ready{namespace="default",service="web"} 1
orch_service_replicas_wanted{namespace="default",service="logs"} 2
orch_service_replicas_wanted{namespace="default",service="web"} 3
orch_services 2`,
		"orch_controller_audit_lines_total", "orch_controller_leading", "orch_controller_term", "orch_controller_store_quota_bytes", "orch_endpoints_degraded", "orch_fleet_frozen", "orch_node_capacity_cpu_cores",
		"orch_nodes_unschedulable", "orch_replicas_ready", "orch_service_endpoints", "orch_service_replicas_ready", "orch_service_replicas_wanted", "orch_services")
	// Who leads no more says nothing of what it held last.
	src := *s.sources.Load()
	src.Leads = func() (uint64, bool) { return 0, false }
	s.From(src)
	want(t, s, "orch_controller_leading 0", "orch_controller_leading", "orch_services", "orch_nodes", "orch_service_replicas_wanted")
}

// A fleet may have more services than a Prometheus is to hold series for: those that lack
// replicas stay, and how many are left out is told.
func TestSeriesAreBounded(t *testing.T) {
	s, v := leading()
	s.serviceSeries, s.nodeSeries = 2, 1
	v.Publish(put(service("a", 1, 1), service("b", 1, 1), service("c", 2, 1), node("n1", api.VerdictHealthy), node("n2", api.VerdictSuspect)))
	want(t, s, `
orch_node_capacity_cpu_cores{node="n2"} 1.5
orch_nodes_without_series 1
orch_service_replicas_wanted{namespace="default",service="a"} 1
orch_service_replicas_wanted{namespace="default",service="c"} 2
orch_services_without_series 1`,
		"orch_node_capacity_cpu_cores", "orch_nodes_without_series", "orch_service_replicas_wanted", "orch_services_without_series")
}

// TestFailovers measures one that is replaced, and none where the node comes back, where
// the replica was not ready before, or where a record is told again.
func TestFailovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v := leading()
		old := &api.VerdictRecord{Seq: 1, Time: time.Now().Add(-time.Minute), Node: "n1", From: api.VerdictHealthy, To: api.VerdictSuspect}
		v.Publish(put(old, replica("web", 0, 1, "n1", true), replica("web", 1, 2, "n1", true), replica("web", 2, 3, "n1", false), replica("web", 3, 4, "n2", true)))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		synctest.Wait()
		s.Opened("n1").Came(time.Now(), time.Second)
		time.Sleep(1200 * time.Millisecond)
		record := &api.VerdictRecord{Seq: 2, Time: time.Now(), Node: "n1", From: api.VerdictHealthy, To: api.VerdictSuspect}
		v.Publish(put(replica("web", 0, 1, "n1", false), replica("web", 1, 2, "n1", false), record, &api.Event{Seq: 3, Time: time.Now(), Type: api.EventWarning}))
		time.Sleep(800 * time.Millisecond)
		v.Publish(put(record, replica("web", 0, 5, "n3", true), replica("web", 2, 6, "n3", true)))
		time.Sleep(time.Second)
		v.Publish(put(replica("web", 1, 2, "n1", true), &api.VerdictRecord{Seq: 4, Time: time.Now(), Node: "n1", From: api.VerdictSuspect, To: api.VerdictBack}))
		time.Sleep(time.Second)
		v.Publish(put(replica("web", 1, 7, "n3", true)))
		synctest.Wait()
		cancel()
		<-ended
		want(t, s, `
orch_events_total{type="Normal"} 0
orch_events_total{type="Warning"} 1
orch_failover_duration_seconds_sum{phase="detect"} 1.2
orch_failover_duration_seconds_count{phase="detect"} 1
orch_failover_duration_seconds_sum{phase="replace"} 0.8
orch_failover_duration_seconds_count{phase="replace"} 1
orch_failover_duration_seconds_sum{phase="total"} 2
orch_failover_duration_seconds_count{phase="total"} 1`,
			"orch_failover_duration_seconds_sum", "orch_failover_duration_seconds_count", "orch_events_total")
		if n := testutil.ToFloat64(s.verdicts.WithLabelValues("Healthy", "Suspect")); n != 1 {
			t.Errorf("%v verdicts from Healthy to Suspect, want 1", n)
		}
	})
}

// A beat's lateness counts from the one before it in the same session.
func TestBeats(t *testing.T) {
	s, _ := leading()
	now := time.Now()
	b := s.Opened("n1")
	b.Came(now, 100*time.Millisecond)
	b.Came(now.Add(90*time.Millisecond), 100*time.Millisecond)
	b.Came(now.Add(390*time.Millisecond), 100*time.Millisecond)
	s.Opened("n1").Came(now.Add(time.Hour), 100*time.Millisecond)
	want(t, s, "orch_beat_lateness_seconds_sum 0.2\norch_beat_lateness_seconds_count 2", "orch_beat_lateness_seconds_sum", "orch_beat_lateness_seconds_count")
}

// Calls are counted however they end, refused ones too; what nobody serves is one series.
func TestCalls(t *testing.T) {
	s, _ := leading()
	refuse := s.Gate(func(ctx context.Context, _ *tap.Info) (context.Context, error) {
		return ctx, status.Error(codes.PermissionDenied, "no")
	})
	for _, m := range []string{orchv1.Orch_Apply_FullMethodName, "/orch.v1.Orch/Nope1", "/orch.v1.Orch/Nope2"} {
		if _, err := refuse(t.Context(), &tap.Info{FullMethodName: m}); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: %v", m, err)
		}
	}
	call := func(err error) {
		_, got := s.Unary(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: orchv1.Orch_Apply_FullMethodName}, func(context.Context, any) (any, error) { return nil, err })
		if !errors.Is(got, err) {
			t.Errorf("the answer %v became %v", err, got)
		}
	}
	call(nil)
	call(status.Error(codes.Aborted, "x"))
	during := 0.0
	err := s.Stream(nil, nil, &grpc.StreamServerInfo{FullMethod: orchv1.Orch_Watch_FullMethodName}, func(any, grpc.ServerStream) error {
		during = testutil.ToFloat64(s.streams.WithLabelValues("Watch"))
		return context.Canceled
	})
	if !errors.Is(err, context.Canceled) || during != 1 || testutil.ToFloat64(s.streams.WithLabelValues("Watch")) != 0 {
		t.Errorf("a stream: %v, %v open during it", err, during)
	}
	for key, n := range map[[2]string]float64{{"Apply", "OK"}: 1, {"Apply", "Aborted"}: 1, {"Apply", "PermissionDenied"}: 1, {"unknown", "PermissionDenied"}: 2, {"Watch", "Canceled"}: 1} {
		if got := testutil.ToFloat64(s.requests.WithLabelValues(key[0], key[1])); got != n {
			t.Errorf("%v: %v, want %v", key, got, n)
		}
	}
}

// Every event of the core's has a kind of its own; one that is new is missed here.
func TestEveryEventHasAKind(t *testing.T) {
	s, _ := leading()
	missing := map[string]bool{}
	files, err := filepath.Glob("../core/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^func \((\w+)\) +event\(\)`).FindAllSubmatch(text, -1) {
			missing["core."+string(m[1])] = true
		}
	}
	if len(missing) < 20 {
		t.Fatalf("only %d events are found in the core", len(missing))
	}
	for _, ev := range []core.Event{core.Apply{}, core.Rollout{}, core.Scale{}, core.Delete{}, core.NodeWord{}, core.Write{}, core.ListSealed{}, core.Reseal{}, core.Explain{}, core.Recall{},
		core.Rebalance{}, core.Thaw{}, core.SessionOpened{}, core.SessionClosed{}, core.NodeCloned{}, core.Status{}, core.Acked{}, core.Beat{}, core.Renew{}, core.Witnessed{}, core.Gossip{},
		core.Stalled{For: time.Second}, core.Committed{}, core.Tick{}} {
		delete(missing, fmt.Sprintf("%T", ev))
		if kind := kindOf(ev); kind == "other" || s.events[kind] == nil {
			t.Errorf("%T is counted as %q", ev, kind)
		} else if s.Event(ev); testutil.ToFloat64(s.events[kind]) != 1 {
			t.Errorf("%T is not counted", ev)
		}
	}
	for ev := range missing {
		t.Errorf("%s is not tried here: give it a kind", ev)
	}
	want(t, s, "orch_controller_stalled_seconds_total 1", "orch_controller_stalled_seconds_total")
}

func TestChecks(t *testing.T) {
	s, v := leading()
	ready := func() (out []string) {
		for _, c := range s.Ready() {
			detail, err := c.Try(t.Context())
			if err != nil {
				detail = "FAIL " + err.Error()
			}
			out = append(out, c.Name+": "+detail)
		}
		return out
	}
	expect := func(words ...string) {
		t.Helper()
		got := ready()
		for i, w := range words {
			if !strings.Contains(got[i], w) {
				t.Errorf("have %q, want %q", got[i], w)
			}
		}
	}
	expect("loop: it waits", "leader: it leads term 7", "store: it answers", "view: FAIL nothing was published")
	v.Publish(core.Publish{})
	expect("loop", "leader", "store", "view: it is current")
	v.End(time.Now())
	src := *s.sources.Load()
	src.Leads = func() (uint64, bool) { return 0, false }
	src.Reach = func(context.Context) error { return errors.New("away") }
	src.Working = func() time.Time { return time.Now().Add(-time.Minute) }
	s.From(src)
	expect("loop: FAIL the leader's loop has been at work for 1m0s", "leader: FAIL this controller does not lead", "store: FAIL the store does not answer: away", "view: FAIL what users read is stale since")
}

// Nobody who counts asks whether anybody wants to know.
func TestNil(t *testing.T) {
	var s *Set
	s.Term()
	s.Event(core.Tick{})
	s.Turn(1)
	s.Worked(1)
	s.Commit(1, 1, nil)
	s.Applied(core.ApplyResult{})
	s.Received(nil)
	s.Sent(nil)
	s.Opened("n1").Came(time.Now(), 1)
	s.Closed(true)
	s.From(Sources{})
	if err := s.Run(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := s.Unary(t.Context(), nil, nil, func(context.Context, any) (any, error) { return nil, nil }); err != nil {
		t.Error(err)
	}
	if err := s.Stream(nil, nil, nil, func(any, grpc.ServerStream) error { return nil }); err != nil {
		t.Error(err)
	}
}
