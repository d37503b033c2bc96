package core

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/store"
	"github.com/orchctl/orch/internal/wire"
)

func hello(name, boot string) wire.Hello {
	return wire.Hello{BootID: boot, Address: "10.0.0." + name[1:],
		Capacity: api.ResourceList{api.CPU: api.Whole(4), api.Memory: api.Whole(8 << 30)}}
}

// A service is deleted while its node is silent; the node returns with nothing
// of it and says so in its complete report.
func TestCompleteReportWithoutAStoppingReplica(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(3, "a:1"))
	f.silence("n2")
	f.step(Delete{Ticket: 99, Refs: []api.Ref{{Key: api.Key{Namespace: "default", Name: "web"}}}})
	f.turn()
	a := f.agents["n2"]
	clear(a.holds)
	f.session++
	a.session, a.silent = f.session, true // it does not report stops by itself
	f.step(SessionOpened{Node: "n2", Session: a.session, Hello: hello("n2", "boot1")})
	f.turn()
	f.step(Status{Node: "n2", Session: a.session, Report: wire.StatusReport{Complete: true, Taken: 1}})
	f.pass(DefaultBudgets().HandoverMax) // nor does it say which endpoints are in force
	for k := range f.seen {
		if k.Kind == api.KindReplica || k.Kind == api.KindService {
			t.Errorf("%v is still published", k)
		}
	}
}

// The same with a scale-down: a ghost replica stays published.
func TestGhostReplicaAfterCompleteReport(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(3, "a:1"))
	var name string
	for n, a := range f.agents {
		for k := range a.holds {
			if k.Slot == 2 {
				name = n
			}
		}
	}
	f.silence(name)
	f.apply("2", web(2, "a:1"))
	a := f.agents[name]
	clear(a.holds)
	f.session++
	a.session = f.session
	f.step(SessionOpened{Node: name, Session: a.session, Hello: hello(name, "boot1")})
	f.turn()
	f.step(Status{Node: name, Session: a.session, Report: wire.StatusReport{Complete: true}})
	f.turn()
	n := 0
	for k := range f.seen {
		if k.Kind == api.KindReplica {
			n++
		}
	}
	for k := range f.core.view.known {
		if _, ok := f.seen[k]; !ok && k.Kind == api.KindReplica {
			t.Errorf("the view holds %v, which nobody sees", k)
		}
	}
	if n != len(f.core.fillings) {
		t.Errorf("%d replicas are published, %d exist", n, len(f.core.fillings))
	}
}

func TestHugeApplyMustNotTopple(t *testing.T) {
	f := threeNodes(t)
	var all []*api.Service
	for i := range 30 {
		s := web(0, "a:1")
		s.Metadata.Name = fmt.Sprintf("s%d", i)
		s.Spec.Containers[0].Env = []api.EnvVar{{Name: "X", Value: strings.Repeat("x", 100_000)}}
		all = append(all, s)
	}
	f.commits = false
	f.apply("1", all...)
	for _, c := range f.out {
		if err := (store.Txn{Then: c.Ops}).Check(store.EmbeddedLimits); err != nil {
			t.Errorf("transaction: %v", err)
		}
	}
}

func TestDeleteManyExternal(t *testing.T) {
	f := threeNodes(t)
	var refs []api.Ref
	for i := range 200 {
		s := web(0, "a:1")
		s.Metadata.Name = fmt.Sprintf("s%d", i)
		f.apply(fmt.Sprint(i), s)
		refs = append(refs, api.Ref{Key: s.Metadata.Key()})
	}
	f.core.cfg.Limits = store.ExternalLimits
	f.commits = false
	f.step(Delete{Ticket: 9999, Refs: refs})
	f.turn()
	for _, c := range f.out {
		if err := (store.Txn{Then: c.Ops}).Check(store.ExternalLimits); err != nil {
			t.Errorf("transaction: %v", err)
		}
	}
}

func TestRetryWithResourceVersion(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(1, "a:1"))
	s := web(2, "a:1")
	s.Metadata.ResourceVersion = f.service("web").Metadata.ResourceVersion
	if r := f.apply("2", s); r.Err != nil {
		t.Fatal(r.Err)
	}
	if r := f.apply("2", s); r.Err != nil {
		t.Errorf("retry of what was done: %v", r.Err)
	}
}

func TestScaleCurrentWithoutRequestID(t *testing.T) {
	f := threeNodes(t)
	f.apply("", web(3, "a:1"))
	f.step(Scale{Ticket: 50, Key: api.Key{Namespace: "default", Name: "web"}, Replicas: 5, Current: 1})
	f.turn()
	if r := f.replies[50]; !errors.Is(r.Err, ErrChanged) {
		t.Errorf("scale --current-replicas=1 of a service with 3: %+v", r)
	}
}

// An agent is restarted: its node was agent lost, its endpoints must not blink.
func TestAgentRestartKeepsEndpoints(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(3, "a:1"))
	a := f.agents["n2"]
	a.silent, a.hostUp = true, true
	f.step(SessionClosed{Node: "n2", Session: a.session})
	f.pass(time.Second)
	if v := f.core.nodes["n2"].verdict; v != api.VerdictAgentLost {
		t.Fatalf("n2 is %s", v)
	}
	if n := len(f.agents["n1"].ends); n != 3 {
		t.Fatalf("while lost: %d endpoints", n)
	}
	f.session++
	a.session = f.session // silent still: its report takes up to half a second
	f.step(SessionOpened{Node: "n2", Session: a.session, Hello: hello("n2", "boot1")})
	f.turn()
	if n := len(f.agents["n1"].ends); n != 3 {
		t.Errorf("between the new session and its report: %d endpoints, want 3", n)
	}
}

// A leader starts while one agent is down; its host answers.
func TestTakeoverKeepsEndpointsOfLostAgent(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(3, "a:1"))
	f.agents["n2"].silent, f.agents["n2"].hostUp = true, true
	f.elect()
	f.node("n1", "boot1")
	f.node("n3", "boot1")
	f.pass(5 * time.Second)
	if v := f.core.nodes["n2"].verdict; v != api.VerdictAgentLost {
		t.Fatalf("n2 is %s", v)
	}
	if n := len(f.agents["n1"].ends); n != 3 {
		t.Errorf("n1 has %d endpoints, want 3 (n2's replica is well)", n)
	}
}

// A leader starts; one agent connects and beats but cannot report (its runtime hangs).
func TestOneMuteAgentFreezesAllEndpoints(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(3, "a:1"))
	f.elect()
	f.node("n1", "boot1")
	f.node("n3", "boot1")
	a := f.agents["n2"]
	f.session++
	a.session = f.session
	f.step(SessionOpened{Node: "n2", Session: 9000, Hello: hello("n2", "boot1")}) // harness agent ignores it
	f.turn()
	a.session, a.net.session = 9000, 9000
	f.pass(20 * time.Second)
	f.silence("n3")
	f.pass(5 * time.Second)
	if v := f.core.nodes["n3"].verdict; v != api.VerdictSuspect {
		t.Fatalf("n3 is %s", v)
	}
	for k, e := range f.agents["n1"].ends {
		if e.Node == "n3" {
			t.Errorf("n1 still sends traffic to %s on n3, suspect for 5 s", k)
		}
	}
}

// After silence to death over a half-open stream the link heals.
func TestDeadNodeWithOpenSession(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(3, "a:1"))
	f.silence("n2")
	f.pass(65 * time.Second)
	if v := f.core.nodes["n2"].verdict; v != api.VerdictDead {
		t.Fatalf("n2 is %s", v)
	}
	f.agents["n2"].silent = false
	f.pass(10 * time.Second)
	closed := strings.Contains(strings.Join(f.log, "\n"), "close session of n2")
	if v := f.core.nodes["n2"].verdict; v == api.VerdictDead && !closed {
		t.Errorf("n2 beats on its session for 10 s, is %s, and its session was never closed", v)
	}
}

// A service that never gets ready keeps every node that blinked in Back.
func TestUnreadyServiceKeepsNodeBack(t *testing.T) {
	f := threeNodes(t)
	for _, a := range f.agents {
		a.unready = map[string]bool{"web-0": true, "web-1": true, "web-2": true}
	}
	f.apply("1", web(3, "a:1"))
	f.silence("n2")
	f.pass(time.Second)
	f.node("n2", "boot1")
	f.pass(2 * time.Minute)
	if v := f.core.nodes["n2"].verdict; v != api.VerdictHealthy {
		t.Errorf("n2 is %s two minutes after its return; %d fillings of 3 slots", v, len(f.core.fillings))
	}
}

// The leader dies between the apply's commit and its placements.
func TestFirstNodeGetsAllAfterTakeover(t *testing.T) {
	f := threeNodes(t)
	f.step(Apply{Ticket: 1, Services: []*api.Service{web(6, "a:1")}, RequestID: "x"})
	// flush the apply's own batch alone
	f.commits = false
	f.core.flush()
	for _, e := range f.core.take() {
		if c, ok := e.(Commit); ok {
			for _, op := range c.Ops {
				f.kv[op.Key] = op.Value
			}
			f.rev++
		}
	}
	f.commits = true
	f.elect()
	f.node("n1", "boot1")
	f.node("n2", "boot1")
	f.node("n3", "boot1")
	f.pass(3 * time.Second)
	for n, a := range f.agents {
		if len(a.holds) != 2 {
			t.Errorf("%s runs %d of 6", n, len(a.holds))
		}
	}
}

// External etcd: a rebooted node's voids do not fit one transaction, the leader dies between.
func TestVoidSurvivesAPartialCommit(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(9, "a:1"))
	f.core.cfg.Limits = store.Limits{MaxOps: 5, MaxBytes: 1 << 20}
	f.commits = false
	f.silence("n2")
	old := f.core.nodes["n2"].sortedFillings()
	f.session++
	f.step(SessionOpened{Node: "n2", Session: f.session, Hello: hello("n2", "boot2")})
	f.turn()
	for len(f.out) > 0 && !strings.Contains(string(f.kv[nodeKey("n2")]), "boot2") {
		e := f.out[0]
		f.out = f.out[1:]
		f.commit(e)
		f.turn()
	}
	f.commits = true
	f.elect()
	f.node("n1", "boot1")
	f.node("n3", "boot1")
	f.node("n2", "boot2")
	f.pass(time.Second)
	for _, x := range old {
		if _, ok := f.agents["n2"].holds[x.key]; ok {
			t.Errorf("n2 (boot2) runs %s, placed on boot1 and void", x.key)
		}
	}
}

// A removed node must not come back as a ghost.
func TestRemovedNodePartialCommit(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(9, "a:1"))
	f.silence("n2")
	f.core.cfg.Limits = store.Limits{MaxOps: 5, MaxBytes: 1 << 20}
	f.step(NodeWord{Ticket: 70, Node: "n2", Word: "dead", Force: true, By: "root"})
	f.step(NodeWord{Ticket: 71, Node: "n2", Word: "remove", By: "root"})
	f.commits = false
	f.turn()
	for len(f.out) > 0 && f.kv[nodeKey("n2")] != nil {
		e := f.out[0]
		f.out = f.out[1:]
		f.commit(e)
		f.turn()
	}
	f.commits = true
	f.elect()
	f.node("n1", "boot1")
	f.node("n3", "boot1")
	delete(f.agents, "n2")
	if n := f.core.nodes["n2"]; n != nil {
		t.Errorf("the removed node n2 is here again: %s with %d fillings", n.verdict, len(n.fillings))
	}
}

// Re-applying the same manifest after a restart changes nothing.
func TestEmptyListsAreNoChangeAfterReload(t *testing.T) {
	f := threeNodes(t)
	mk := func() *api.Service {
		s := web(1, "a:1")
		s.Spec.Containers[0].Args = []string{}
		return s
	}
	f.apply("1", mk())
	f.elect()
	for _, n := range []string{"n1", "n2", "n3"} {
		f.node(n, "boot1")
	}
	if got := f.apply("2", mk()).Value.(ApplyResult).Applied[0]; got.Outcome != "unchanged" {
		t.Errorf("outcome %s, revision %d", got.Outcome, got.Service.Status.Revision)
	}
}

// A complete report that was sent before the agent heard of a replica which is
// already stopping again.
func TestCompleteReportBeforeTheAssignmentArrived(t *testing.T) {
	f := threeNodes(t)
	for _, a := range f.agents {
		a.silent = true // nothing reaches or leaves the agents from here
	}
	s := web(1, "a:1")
	s.Spec.Containers[0].Ports = []api.Port{{Port: 80, Publish: 8080, Mode: api.PublishHost, Protocol: api.TCP}}
	f.apply("1", s)
	var x *filling
	for _, y := range f.core.fillings {
		x = y
	}
	f.apply("2", web(0, "a:1"))
	a := f.agents[x.node]
	f.step(Status{Node: a.name, Session: a.session, Report: wire.StatusReport{Complete: true}}) // from before
	f.turn()
	if f.core.fillings[x.key] == nil {
		t.Errorf("%s is forgotten while its agent may just be starting it", x.key)
	}
}

func TestDeleteRetry(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(1, "a:1"))
	f.core.Step(Write{Ticket: 5}, f.now)
	defer func() {
		if r := recover(); r != nil {
			t.Errorf("panic: %v", r)
		}
	}()
	f.turn()
}

func TestWriteTooLarge(t *testing.T) {
	f := threeNodes(t)
	f.commits = false
	f.step(Write{Ticket: 5, Ops: []store.Op{store.Put("/x", make([]byte, 5<<20))}})
	f.turn()
	for _, c := range f.out {
		if err := (store.Txn{Then: c.Ops}).Check(store.EmbeddedLimits); err != nil {
			t.Errorf("transaction: %v", err)
		}
	}
}

// A node whose incumbent is ready again stays Back while the spare's node is agent lost.
func TestBackWaitsForSpareOnLostAgent(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(1, "a:1"))
	var home string
	for _, x := range f.core.fillings {
		home = x.node
	}
	f.silence(home)
	f.pass(time.Second)
	var there string
	for _, x := range f.core.fillings {
		if x.spare {
			there = x.node
		}
	}
	f.agents[there].silent, f.agents[there].hostUp = true, true
	f.step(SessionClosed{Node: there, Session: f.agents[there].session})
	f.pass(time.Second)
	f.node(home, "boot1")
	f.pass(2 * time.Minute)
	if v := f.core.nodes[home].verdict; v != api.VerdictHealthy {
		t.Errorf("%s is %s two minutes after its return (spare on %s, %s)", home, v, there, f.core.nodes[there].verdict)
	}
}

// Remove and re-join between two turns: one Publish says both Put and Gone.
func TestRemovedAndJoinedInOneTurn(t *testing.T) {
	f := newFleet(t)
	f.node("n1", "boot1")
	f.step(SessionClosed{Node: "n1", Session: f.agents["n1"].session})
	f.step(NodeWord{Ticket: 7, Node: "n1", Word: "remove", By: "root"})
	f.session++
	f.agents["n1"].session = f.session
	f.step(SessionOpened{Node: "n1", Session: f.session, Hello: hello("n1", "boot1")})
	f.turn()
	if f.seen[ViewKey{Kind: api.KindNode, Name: "n1"}] == nil {
		t.Error("n1 has a session and is not published")
	}
}

// The agent learns that its spare was adopted.
func TestCrashLoopWritesPerRestart(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(1, "a:1"))
	var x *filling
	for _, y := range f.core.fillings {
		x = y
	}
	a := f.agents[x.node]
	before := f.rev
	for i := range 100 {
		f.now = f.now.Add(100 * time.Millisecond)
		f.step(Status{Node: a.name, Session: a.session, Report: wire.StatusReport{Replicas: []wire.Report{{Key: x.key, Status: api.ReplicaStatus{Phase: api.PhaseRunning, Ready: i%2 == 0, IP: "10.64.0.9"}}}}})
		f.turn()
	}
	t.Logf("100 readiness flips: %d transactions", f.rev-before)
}

// A leader change with a pending replica is no news.
func TestTakeoverEventsOfPending(t *testing.T) {
	f := threeNodes(t)
	s := web(4, "a:1")
	s.Spec.Containers[0].Resources.Requests = api.ResourceList{api.Memory: api.Whole(6 << 30)}
	f.apply("1", s)
	n := len(f.core.history.of["default"])
	f.elect()
	for _, name := range []string{"n1", "n2", "n3"} {
		f.node(name, "boot1")
	}
	f.pass(time.Second)
	for _, e := range f.core.history.of["default"][n:] {
		t.Logf("%s %s %s: %s (%d)", e.Kind, e.Name, e.Reason, e.Message, e.Count)
	}
}

// A spare on an unready service, takeover while the incumbent's node is away for good.
func TestScaleToZeroAndBackWhileSuspect(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(3, "a:1"))
	f.silence("n2")
	f.pass(time.Second)
	f.apply("2", web(0, "a:1"))
	f.pass(time.Second)
	f.apply("3", web(3, "a:1"))
	f.pass(time.Second)
	f.mustReady("web", 3)
	f.node("n2", "boot1")
	f.pass(2 * time.Second)
	f.mustReady("web", 3)
	if len(f.core.fillings) != 3 || f.running() != 3 {
		t.Errorf("%d fillings, %d running", len(f.core.fillings), f.running())
	}
}

func named(name string, replicas int, image string) *api.Service {
	s := web(replicas, image)
	s.Metadata.Name = name
	return s
}

// A retry of what was done must not undo what others did since.
func TestRetryDoesNotUndoOthers(t *testing.T) {
	f := threeNodes(t)
	f.apply("0", named("a", 1, "a:1"), named("b", 1, "b:1"))
	f.apply("R", named("a", 1, "a:2"), named("b", 1, "b:1")) // b is unchanged and does not get the id
	f.apply("U", named("b", 1, "b:9"))
	f.apply("R", named("a", 1, "a:2"), named("b", 1, "b:1"))
	if got := f.service("b").Spec.Containers[0].Image; got != "b:9" {
		t.Errorf("b, unchanged by the request: the retry set it to %s", got)
	}
	f.apply("V", named("a", 1, "a:9"))
	f.apply("R", named("a", 1, "a:2"), named("b", 1, "b:1"))
	if got := f.service("a").Spec.Containers[0].Image; got != "a:9" {
		t.Errorf("a, changed by somebody else since: the retry set it back to %s", got)
	}
}

// Who has the answer can read what was done.
func TestAnswerComesAfterTheView(t *testing.T) {
	f := threeNodes(t)
	f.core.cfg.Limits = store.Limits{MaxOps: 16, MaxBytes: 1 << 20}
	f.commits = false
	f.step(Apply{Ticket: 1, Services: []*api.Service{web(6, "a:1")}, RequestID: "x"})
	f.turn()
	for len(f.out) > 0 && f.replies[1].Ticket == 0 {
		e := f.out[0]
		f.out = f.out[1:]
		f.commit(e)
	}
	if f.replies[1].Ticket != 0 && f.seen[ViewKey{api.KindService, "default", "web"}] == nil {
		t.Error("answered, but the view does not have the service")
	}
}

// A leader that was deposed, and does not know it, has nothing to say, not even
// that all is so already or that there is nothing: another may have changed it.
func TestAnswersThatChangeNothingAskTheQuorum(t *testing.T) {
	f := threeNodes(t)
	f.apply("0", web(1, "a:1"))
	f.commits = false
	key := api.Key{Namespace: api.DefaultNamespace, Name: "web"}
	for i, ev := range []Event{
		Apply{Ticket: 101, Services: []*api.Service{web(1, "a:1")}, RequestID: "1"},
		Scale{Ticket: 102, Key: key, Replicas: 1, Current: -1, RequestID: "2"},
		Scale{Ticket: 103, Key: api.Key{Namespace: "other", Name: "web"}, Replicas: 1, Current: -1, RequestID: "3"},
		Delete{Ticket: 104, Refs: []api.Ref{{Key: api.Key{Namespace: "other", Name: "web"}}}, IgnoreMissing: true, RequestID: "4"},
		NodeWord{Ticket: 105, Node: "n1", Word: "uncordon", By: "alice"},
	} {
		f.out = nil
		f.step(ev)
		f.turn()
		ticket := uint64(101 + i)
		if r, ok := f.replies[ticket]; ok {
			t.Errorf("%T is answered %+v before a quorum was asked", ev, r)
		}
		for len(f.out) > 0 {
			e := f.out[0]
			f.out = f.out[1:]
			f.commit(e)
		}
		if _, ok := f.replies[ticket]; !ok {
			t.Errorf("%T is not answered", ev)
		}
	}
}
