package orchctl

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// world has one of everything that a table can show.
func world() *fake {
	oom := &api.Exit{Code: 137, Signal: 9, OOM: true, Reason: api.ExitOutOfMemory, Message: "the kernel killed it for want of memory", FinishedAt: epoch.Add(-10 * time.Second)}
	web := service("web", 3, counts(3, 1, "web-2 pending: 3 nodes: 3 lack 64Mi memory", "web-1 on n2: BackOff: again in 4s"))
	ended := replica("job", 0, 30, "n1", func(r *api.Replica) {
		r.Status = api.ReplicaStatus{Phase: api.PhaseFailed, Containers: []api.ContainerStatus{{Name: "main", State: api.ContainerExited, LastExit: &api.Exit{Code: 3, Reason: api.ExitError}}}}
	})
	other := service("api", 1, all(1), func(s *api.Service) { s.Metadata.Namespace = "shop" })
	f := newFake(web, other, service("idle", 0),
		replica("web", 0, 17, "n1", running(true), restarts(2)), replica("web", 1, 18, "n2", waits(api.ReasonBackOff, "again in 4s", oom), restarts(3)),
		replica("web", 2, 0, "", pending("3 nodes: 3 lack 64Mi memory")),
		replica("web", 10, 19, "n3", running(true), lastKnown), replica("web", 10, 25, "n1", running(false), func(r *api.Replica) { r.Spec.Spare = true }),
		replica("img", 0, 20, "n2", waits(api.ReasonImageMissing, "no such image: \x1b[31morch.local/img:1\nat all", nil)),
		replica("img", 1, 21, "n2", waits(api.ReasonPulling, "", nil)), replica("img", 2, 22, "n2", lastKnown),
		replica("img", 3, 23, "n2", running(true), func(r *api.Replica) { r.Status.Phase = api.PhaseStopping }), ended,
		node("n1", api.VerdictHealthy), node("n2", api.VerdictHealthy, func(n *api.Node) { n.Spec.Unschedulable = true }),
		node("n3", api.VerdictSuspect, func(n *api.Node) { n.Status.VerdictWhy = "silent for 1.2s, 3 of 3 witnesses get no answer" }),
		event(1, time.Hour, api.KindService, "web", api.EventNormal, "Created", "revision 1, 3 replicas, by admin"),
		event(2, 4*time.Minute, api.KindReplica, "web-1", api.EventWarning, "Exited", "main: OutOfMemory"),
		event(3, time.Minute, api.KindNode, "n3", api.EventWarning, "Suspect", "silent for 1.2s"))
	f.fits = []*orchv1.NodeFit{
		{Node: "n1", Filter: "capacity", Why: "lacks 64Mi memory (12Mi free of 2Gi)", Remedy: "request at most 12Mi memory, or free 52Mi memory on n1"},
		{Node: "n2", Filter: "schedulable", Why: "unschedulable", Remedy: "uncordon n2"}, {Node: "n3", Filter: "capacity", Why: "lacks 64Mi memory (none free of 2Gi)", Remedy: "free 64Mi memory on n3"},
		{Node: "n4", Filter: "verdict", Why: "dead"}}
	return f
}

func TestTables(t *testing.T) {
	in(t, world(), func(t *testing.T, r *rig) {
		var b strings.Builder
		for _, line := range []string{
			"get services", "get svc -o wide", "get services -A", "get service/web service/idle", "get replicas", "get replicas -o wide", "get replica web-0",
			"get nodes", "get nodes -o wide", "get events", "get events -A", "events --for service/web", "events --for node/n3",
			"get replicas -l app=img", "get replicas -o name", "get services,nodes",
			"get services -n empty", "get replicas -l app=nothing", "get events -n empty", "events --for service/idle", "get services -A -l app=none",
		} {
			b.WriteString("$ orchctl " + line + "\n" + r.run(strings.Fields(line)...).String() + "\n")
		}
		golden(t, "tables", b.String())
	})
}

func TestDescribe(t *testing.T) {
	in(t, world(), func(t *testing.T, r *rig) {
		for _, line := range []string{"describe service web", "describe replica web-1", "describe replica web-2", "describe node n3"} {
			golden(t, strings.ReplaceAll(line, " ", "-"), r.run(strings.Fields(line)...).String())
		}
	})
}

func TestNamesAreResolvedByTheController(t *testing.T) {
	in(t, world(), func(t *testing.T, r *rig) {
		if got := r.run("get", "replica", "job"); got.code != 0 || !strings.Contains(got.out, "job-0") {
			t.Errorf("an unambiguous beginning: %s", got)
		}
		got := r.run("get", "replica", "img")
		if got.code != 2 || !strings.Contains(got.err, `"img" is ambiguous: img-0, img-1, img-2, img-3`) {
			t.Errorf("an ambiguous beginning: %s", got)
		}
		got = r.run("get", "service", "web", "nothing", "idle", "nowhere")
		if got.code != 1 || !strings.Contains(got.out, "web") || !strings.Contains(got.out, "idle") ||
			got.err != "orchctl: get service/nothing: service nothing is not there\norchctl: get service/nowhere: service nowhere is not there\n" {
			t.Errorf("missing names hide others: %s", got)
		}
	})
}

func TestYAMLIsReadBack(t *testing.T) {
	in(t, world(), func(t *testing.T, r *rig) {
		got := r.run("get", "services", "-A", "-o", "yaml")
		if got.code != 0 {
			t.Fatal(got)
		}
		r.env.In = strings.NewReader(got.out)
		if got := r.run("apply", "-f", "-", "--wait=false"); got.code != 0 {
			t.Fatal(got)
		}
		if len(r.applies) != 1 || len(r.applies[0].Objects) != 3 {
			t.Fatalf("applied: %v", r.applies)
		}
		for _, o := range r.applies[0].Objects {
			var s, want api.Service
			if err := json.Unmarshal(o.Json, &s); err != nil {
				t.Fatal(err)
			}
			have := r.objects["Service/"+s.Metadata.Namespace+"/"+s.Metadata.Name]
			if err := json.Unmarshal(have.raw, &want); err != nil {
				t.Fatal(err)
			}
			a, _ := json.Marshal(s.Spec)
			b, _ := json.Marshal(want.Spec)
			if string(a) != string(b) || s.Metadata.UID != want.Metadata.UID || s.Metadata.ResourceVersion != want.Metadata.ResourceVersion {
				t.Errorf("%s came back as\n%s\nwant\n%s", s.Metadata.Key(), a, b)
			}
		}
	})
}

func TestJSON(t *testing.T) {
	in(t, world(), func(t *testing.T, r *rig) {
		var list struct {
			Kind  string
			Items []api.Service
		}
		got := r.run("get", "services", "-A", "-o", "json")
		if err := json.Unmarshal([]byte(got.out), &list); err != nil || list.Kind != "List" || len(list.Items) != 3 || list.Items[1].Metadata.Name != "web" {
			t.Errorf("%v\n%s", err, got)
		}
		var one api.Node
		got = r.run("get", "node/n2", "-o", "json")
		if err := json.Unmarshal([]byte(got.out), &one); err != nil || one.Metadata.Name != "n2" || !one.Spec.Unschedulable {
			t.Errorf("%v\n%s", err, got)
		}
		got = r.run("get", "services", "-n", "empty", "-o", "json")
		if err := json.Unmarshal([]byte(got.out), &list); err != nil || len(list.Items) != 0 {
			t.Errorf("no services: %v\n%s", err, got)
		}
	})
}

// TestWatch: rows come as they change, once each, over a broken stream too.
func TestWatch(t *testing.T) {
	f := newFake(service("web", 2, counts(2, 1)), service("old", 1, all(1)))
	in(t, f, func(t *testing.T, r *rig) {
		ctx, cancel := contextOf(t)
		var got result
		done := make(chan struct{})
		go func() {
			defer close(done)
			got = r.runCtx(ctx, "get", "services", "-w")
		}()
		step := func(do func()) {
			time.Sleep(time.Second)
			do()
			synctest.Wait()
		}
		step(func() { f.put(service("web", 2, all(2))) })
		step(func() { f.put(service("web", 2, all(2), func(s *api.Service) { s.Metadata.ResourceVersion = 9 })) }) // no column changes
		step(func() {
			f.breakWatches()
			f.mu.Lock()
			delete(f.objects, objectOf(service("old", 1)).key()) // goes while nobody watches
			f.mu.Unlock()
		})
		step(func() { f.put(service("a-much-longer-name", 1)) })
		step(func() { f.drop(service("a-much-longer-name", 1)) })
		cancel()
		<-done
		golden(t, "watch", got.String())
		if n := f.called("Watch"); n != 2 {
			t.Errorf("%d watches, want one and one again", n)
		}
	})
}

// TestWatchWhole: in other forms than a table nothing is said beside the objects.
func TestWatchWhole(t *testing.T) {
	in(t, newFake(service("web", 2, all(2))), func(t *testing.T, r *rig) {
		ctx, cancel := contextOf(t)
		time.AfterFunc(time.Second, cancel)
		if got := r.runCtx(ctx, "get", "services", "-w", "-o", "name"); got.out != "service/web\n" || got.err != "" || got.code != 0 {
			t.Error(got)
		}
		ctx, cancel = contextOf(t)
		time.AfterFunc(time.Second, cancel)
		if got := r.runCtx(ctx, "get", "nodes", "-w", "-o", "name"); got.out != "" || got.err != "No nodes.\n" || got.code != 0 {
			t.Error(got)
		}
	})
}

func TestWatchGivesUp(t *testing.T) {
	in(t, newFake(), func(t *testing.T, r *rig) {
		for range 1000 {
			r.fail["Watch"] = append(r.fail["Watch"], unavailable("no leader"))
		}
		began := time.Now()
		got := r.run("get", "services", "-w")
		if took := time.Since(began); got.code != 1 || !strings.Contains(got.err, "no leader") || took > streamPatience || took < streamPatience/2 {
			t.Errorf("after %s: %s", took, got)
		}
	})
}

// TestNetworkError: a replica's own trouble is seen though its containers, which wait,
// have none.
func TestNetworkError(t *testing.T) {
	r := replica("web", 0, 17, "n1", waits("", "", nil))
	if got := phaseWord(r); got != "Starting" {
		t.Error(got)
	}
	r.Status.Reason, r.Status.Message = api.ReasonNetworkError, "CNI plugin ptp failed"
	if got := phaseWord(r) + ": " + replicaReason(r); got != "NetworkError: CNI plugin ptp failed" {
		t.Error(got)
	}
}

// TestDescribeOrder: containers are told in the order in which they start, whichever
// order the agent reports them in, each kind of them under its own title.
func TestDescribeOrder(t *testing.T) {
	s := service("web", 1, func(s *api.Service) {
		s.Spec.InitContainers = []api.Container{{Name: "wait", Image: "orch.local/wait:1"}, {Name: "migrate", Image: "orch.local/migrate:1"}}
		s.Spec.Sidecars = []api.Container{{Name: "proxy", Image: "orch.local/proxy:1"}}
	})
	r := replica("web", 0, 1, "n1", func(r *api.Replica) {
		r.Status = api.ReplicaStatus{Phase: api.PhasePreparing, Reason: api.ReasonInitializing, Containers: []api.ContainerStatus{
			{Name: "main", State: api.ContainerWaiting, Reason: api.ReasonInitializing},
			{Name: "migrate", State: api.ContainerWaiting, Reason: api.ReasonBackOff, Restarts: 1, LastExit: &api.Exit{Code: 3, Reason: api.ExitError}},
			{Name: "proxy", State: api.ContainerWaiting, Reason: api.ReasonInitializing},
			{Name: "wait", State: api.ContainerExited, LastExit: &api.Exit{Reason: api.ExitCompleted}},
		}}
	})
	in(t, newFake(s, r), func(t *testing.T, r *rig) {
		golden(t, "describe-replica-init", r.run("describe", "replica", "web-0").String())
	})
	in(t, newFake(r), func(t *testing.T, r *rig) { // its service is gone
		if got := r.run("describe", "replica", "web-0"); !strings.Contains(got.out, "Containers:\n  main:\n") || !strings.Contains(got.out, "  wait:\n    State:       Exited (exit code 0)\n") {
			t.Error(got)
		}
	})
}
