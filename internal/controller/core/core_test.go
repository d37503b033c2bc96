package core

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/liveness"
	"github.com/orchctl/orch/internal/wire"
)

func threeNodes(t *testing.T) *fleet {
	f := newFleet(t)
	for _, n := range []string{"n1", "n2", "n3"} {
		f.node(n, "boot1")
	}
	return f
}

func TestApplyRunsAndScales(t *testing.T) {
	f := threeNodes(t)
	r := f.apply("1", web(3, "a:1"))
	if got := r.Value.(ApplyResult).Applied[0].Outcome; got != "created" {
		t.Fatalf("outcome %q", got)
	}
	f.mustReady("web", 3)
	for name, a := range f.agents {
		if len(a.holds) != 1 {
			t.Errorf("%s runs %d replicas, want 1", name, len(a.holds))
		}
		if len(a.ends) != 3 {
			t.Errorf("%s knows %d endpoints, want 3", name, len(a.ends))
		}
	}
	if got := f.apply("2", web(3, "a:1")).Value.(ApplyResult).Applied[0].Outcome; got != "unchanged" {
		t.Errorf("the same again: %q", got)
	}
	f.apply("3", web(1, "a:1"))
	f.mustReady("web", 1)
	if f.running() != 1 {
		t.Errorf("%d replicas run after scaling to 1", f.running())
	}
}

func TestRetryIsDoneOnce(t *testing.T) {
	f := threeNodes(t)
	f.apply("same", web(2, "a:1"))
	before := f.service("web").Metadata.ResourceVersion
	if got := f.apply("same", web(2, "a:1")).Value.(ApplyResult).Applied[0].Outcome; got != "created" {
		t.Errorf("retry: %q, want what the first try was told", got)
	}
	if f.service("web").Metadata.ResourceVersion != before {
		t.Error("the retry changed the service")
	}
}

func TestNothingOutwardBeforeTheCommit(t *testing.T) {
	f := threeNodes(t)
	f.commits = false
	r := f.apply("1", web(3, "a:1"))
	if r.Ticket != 0 {
		t.Fatal("answered before the commit")
	}
	if f.running() != 0 || f.seen[ViewKey{api.KindService, "default", "web"}] != nil {
		t.Fatal("agents or readers were told before the commit")
	}
	if len(f.out) != 1 {
		t.Fatalf("%d transactions are out, want 1", len(f.out))
	}
	f.commits = true
	f.commit(f.out[0])
	f.turn()
	if f.replies[f.ticket].Value == nil || f.running() != 3 {
		t.Errorf("after the commit: reply %+v, %d running", f.replies[f.ticket], f.running())
	}
	f.mustReady("web", 3)
}

func TestFailedCommitReleasesNothing(t *testing.T) {
	f := threeNodes(t)
	f.commits = false
	f.apply("1", web(3, "a:1"))
	f.step(Committed{Seq: f.out[0].Seq, Err: errLost})
	f.turn()
	if _, ok := f.replies[f.ticket]; ok || f.running() != 0 || !f.core.Failed() {
		t.Errorf("reply %v, running %d, failed %v", f.replies[f.ticket], f.running(), f.core.Failed())
	}
}

func TestOptimisticConcurrency(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(1, "a:1"))
	stale := web(2, "a:1")
	stale.Metadata.ResourceVersion = 99
	r := f.apply("2", stale)
	if !errors.Is(r.Err, ErrChanged) || !strings.Contains(r.Err.Error(), "resourceVersion is 99") {
		t.Errorf("got %v", r.Err)
	}
	other := web(1, "b:1")
	other.Metadata.Name = "other"
	r = f.apply("3", other, stale)
	if r.Err == nil || f.seen[ViewKey{api.KindService, "default", "other"}] != nil {
		t.Errorf("half of a failed apply was done: %v", r.Err)
	}
}

func TestRollingUpdate(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(3, "a:1"))
	f.apply("2", web(3, "a:2"))
	s := f.service("web")
	if s.Status.Revision != 2 || s.Status.UpdatedReady != 3 || s.Status.Ready != 3 || f.running() != 3 {
		t.Errorf("status %+v, running %d", s.Status, f.running())
	}
}

func TestUnreadyRevisionStopsTheRollout(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(3, "a:1"))
	for _, a := range f.agents {
		a.unready = map[string]bool{"web-0": true, "web-1": true, "web-2": true}
	}
	// Those that run stay ready: only new reports say otherwise, and the old
	// replicas are not reported anew by this harness unless something is sent.
	f.apply("2", web(3, "a:2"))
	if s := f.service("web"); s.Status.UpdatedReady != 0 {
		t.Errorf("status %+v", s.Status)
	}
	if len(f.service("web").Status.Reasons) == 0 {
		t.Error("a rollout that waits must say why")
	}
}

func TestDeleteLeavesNothing(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(3, "a:1"))
	f.ticket++
	f.step(Delete{Ticket: f.ticket, Refs: []api.Ref{{Key: api.Key{Namespace: "default", Name: "web"}}}})
	f.turn()
	if f.running() != 0 || f.seen[ViewKey{api.KindService, "default", "web"}] != nil {
		t.Errorf("running %d, published %v", f.running(), f.seen)
	}
	for k := range f.kv {
		if strings.Contains(k, "/web") {
			t.Errorf("%s is left in the store", k)
		}
	}
	f.ticket++
	f.step(Delete{Ticket: f.ticket, Refs: []api.Ref{{Key: api.Key{Namespace: "default", Name: "web"}}}})
	f.turn()
	if !errors.Is(f.replies[f.ticket].Err, ErrNotFound) {
		t.Errorf("second delete: %v", f.replies[f.ticket].Err)
	}
}

// silence cuts a node's power: no beats, no answers to anybody.
func (f *fleet) silence(name string) {
	f.agents[name].silent = true
}

func TestPowerCutIsReplacedByASpareAndSettled(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(3, "a:1"))
	f.silence("n2")
	f.pass(time.Second)
	if v := f.core.nodes["n2"].verdict; v != api.VerdictSuspect {
		t.Fatalf("n2 is %s", v)
	}
	f.mustReady("web", 3)
	spares := 0
	for _, x := range f.core.fillings {
		if x.spare {
			spares++
		}
	}
	if spares != 1 {
		t.Errorf("%d spares, want 1", spares)
	}
	// It comes back in the same life with its replica running: the spare goes.
	f.node("n2", "boot1")
	f.pass(time.Second)
	f.mustReady("web", 3)
	if len(f.core.fillings) != 3 || f.core.nodes["n2"].verdict != api.VerdictHealthy || f.running() != 3 {
		t.Errorf("after its return: %d fillings, n2 %s, %d running", len(f.core.fillings), f.core.nodes["n2"].verdict, f.running())
	}
}

func TestNewLeaderSettlesSparesOfTheOneBefore(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(3, "a:1"))
	f.silence("n2")
	f.pass(time.Second)
	f.elect()
	f.node("n1", "boot1")
	f.node("n3", "boot1")
	f.pass(3 * time.Second)
	f.node("n2", "boot1")
	f.pass(time.Second)
	f.mustReady("web", 3)
	if len(f.core.fillings) != 3 || f.running() != 3 {
		t.Errorf("%d fillings, %d running", len(f.core.fillings), f.running())
	}
}

func TestRebootVoidsWhatWasPlaced(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(3, "a:1"))
	f.silence("n2")
	f.pass(time.Second)
	f.node("n2", "boot2")
	f.pass(time.Second)
	f.mustReady("web", 3)
	if len(f.core.fillings) != 3 || len(f.agents["n2"].holds) != 0 {
		t.Errorf("%d fillings, n2 holds %v", len(f.core.fillings), f.agents["n2"].holds)
	}
	for _, x := range f.core.fillings {
		if x.spare || x.void {
			t.Errorf("%s is still spare %v void %v", x.key, x.spare, x.void)
		}
	}
}

func TestNewLeaderTouchesNothing(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(3, "a:1"))
	f.log = nil
	f.elect()
	for _, n := range []string{"n1", "n2", "n3"} {
		f.node(n, "boot1")
	}
	f.pass(5 * time.Second)
	f.mustReady("web", 3)
	for _, line := range f.log {
		if strings.Contains(line, "prunes") || strings.Contains(line, "stopping") {
			t.Error(line)
		}
	}
	if len(f.core.fillings) != 3 {
		t.Errorf("%d fillings", len(f.core.fillings))
	}
}

func TestNewLeaderDuringRolloutWaitsForReports(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(3, "a:1"))
	f.commits = false
	f.apply("2", web(3, "a:2"))
	f.commits = true
	for len(f.out) > 0 { // the apply is acknowledged; the leader dies right after
		e := f.out[0]
		f.out = f.out[1:]
		f.commit(e)
	}
	f.elect()
	f.node("n1", "boot1")
	for _, a := range f.agents {
		for k, x := range a.holds {
			if x.Stopping {
				t.Errorf("%s is stopped while n2 and n3 are unheard", k)
			}
		}
	}
	f.node("n2", "boot1")
	f.node("n3", "boot1")
	f.pass(time.Second)
	if s := f.service("web"); s.Status.UpdatedReady != 3 {
		t.Errorf("status %+v", s.Status)
	}
}

func TestPendingSaysWhyAndRecovers(t *testing.T) {
	f := threeNodes(t)
	s := web(4, "a:1")
	s.Spec.Containers[0].Resources.Requests = api.ResourceList{api.Memory: api.Whole(6 << 30)}
	f.apply("1", s)
	f.mustReady("web", 3)
	reasons := strings.Join(f.service("web").Status.Reasons, "; ")
	if !strings.Contains(reasons, "web-3 pending: 3 nodes:") {
		t.Errorf("reasons: %s", reasons)
	}
	epoch := f.core.counters.epoch
	f.pass(time.Second)
	if f.core.counters.epoch != epoch {
		t.Error("a replica that stays pending spends epochs")
	}
	f.node("n4", "boot1")
	f.mustReady("web", 4)
	if r := f.service("web").Status.Reasons; len(r) != 0 {
		t.Errorf("reasons left: %v", r)
	}
}

// What keeps a replica from its network is told though its containers, which wait for
// it, have nothing to say.
func TestOwnTroubleIsTold(t *testing.T) {
	f := threeNodes(t)
	f.agents["n1"].silent, f.agents["n2"].silent, f.agents["n3"].silent = true, true, true
	f.apply("1", web(1, "a:1"))
	f.pass(100 * time.Millisecond)
	for _, a := range f.agents {
		for k, x := range a.holds {
			f.step(Status{Node: a.name, Session: a.session, Report: wire.StatusReport{Replicas: []wire.Report{{Key: k, Revision: x.Revision, Status: api.ReplicaStatus{
				Phase: api.PhasePreparing, Reason: api.ReasonNetworkError, Message: "CNI plugin ptp failed", Containers: []api.ContainerStatus{{Name: "main", State: api.ContainerWaiting}}}}}}})
		}
	}
	f.turn()
	if r := strings.Join(f.service("web").Status.Reasons, "; "); !strings.Contains(r, ": NetworkError: CNI plugin ptp failed") || strings.Contains(r, "is not ready on") {
		t.Errorf("reasons: %s", r)
	}
	if !slices.ContainsFunc(f.core.history.of["default"], func(e *api.Event) bool { return e.Reason == api.ReasonNetworkError && e.Type == api.EventWarning }) {
		t.Errorf("events: %v", f.core.history.of["default"])
	}
}

func TestOperatorsWordKillsAndTheAgentMayReturn(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(3, "a:1"))
	f.ticket++
	f.step(NodeWord{Ticket: f.ticket, Node: "n1", Word: "dead", Force: true, By: "root"})
	f.turn()
	if f.replies[f.ticket].Err != nil || f.core.nodes["n1"].verdict != api.VerdictDead {
		t.Fatalf("reply %+v, verdict %s", f.replies[f.ticket], f.core.nodes["n1"].verdict)
	}
	f.mustReady("web", 3)
	f.node("n1", "boot1")
	f.pass(time.Second)
	if len(f.agents["n1"].holds) != 0 || len(f.core.fillings) != 3 {
		t.Errorf("n1 holds %v; %d fillings", f.agents["n1"].holds, len(f.core.fillings))
	}
}

func TestANodeThatAnswersIsNotDeclaredDeadByMistake(t *testing.T) {
	f := threeNodes(t)
	f.ticket++
	f.step(NodeWord{Ticket: f.ticket, Node: "n1", Word: "dead", By: "root"})
	f.turn()
	if err := f.replies[f.ticket].Err; !errors.Is(err, ErrBusy) || f.core.nodes["n1"].verdict != api.VerdictHealthy {
		t.Errorf("%v, n1 is %s", err, f.core.nodes["n1"].verdict)
	}
}

func TestDryRunSaysWhatWouldBePending(t *testing.T) {
	f := threeNodes(t)
	s := web(4, "a:1")
	s.Spec.Containers[0].Resources.Requests = api.ResourceList{api.Memory: api.Whole(6 << 30)}
	f.step(Apply{Ticket: 7, Services: []*api.Service{s}, DryRun: true})
	f.turn()
	plan := f.replies[7].Value.(ApplyResult).Applied[0].Plan
	if last := plan[len(plan)-1]; len(plan) != 5 || !strings.HasPrefix(last, "web-3 would be pending: 3 nodes: ") {
		t.Errorf("plan %q", plan)
	}
	f.apply("1", s)
	f.mustReady("web", 3) // the try left no trace
}

func TestHistoryFoldsAndIsBounded(t *testing.T) {
	f := newFleet(t)
	f.core.history.limit = 5
	for i := range 20 {
		f.core.event("default", api.KindService, "web", api.EventNormal, "Configured", "the same")
		f.core.event("default", api.KindService, "web", api.EventNormal, "Created", strings.Repeat("x", i+1))
	}
	f.turn()
	if n := len(f.core.history.of["default"]); n != 5 {
		t.Errorf("%d events are kept", n)
	}
	stored := 0
	for k := range f.kv {
		if strings.HasPrefix(k, eventPrefix) {
			stored++
		}
	}
	if stored != 5+len(f.core.history.of[""]) {
		t.Errorf("%d events are stored", stored)
	}
}

func TestReplicaThatTheAgentLostIsStartedAgain(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(1, "a:1"))
	for _, a := range f.agents {
		if len(a.holds) == 1 {
			f.step(Status{Node: a.name, Session: a.session, Report: wire.StatusReport{Complete: true, Taken: a.taken}})
			f.turn()
			f.mustReady("web", 0)
			f.reportAll(a)
		}
	}
	f.mustReady("web", 1)
}

func TestLeaderObserverIsAsked(t *testing.T) {
	f := newFleet(t)
	f.node("n1", "boot1")
	f.silence("n1")
	asked := false
	for range 20 {
		f.now = f.now.Add(50 * time.Millisecond)
		for _, e := range f.core.Step(Tick{}, f.now) {
			if a, ok := e.(AskWitness); ok && a.Observer == liveness.LeaderObserver {
				asked = true
			}
		}
	}
	if !asked {
		t.Error("a single node's silence must be looked at by the leader itself")
	}
}
