package core

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// loseAgent has a node's agent fall silent; its host and replicas answer.
func (f *fleet) loseAgent(names ...string) {
	f.t.Helper()
	for _, name := range names {
		a := f.agents[name]
		a.silent, a.hostUp, a.cut = true, true, true
		f.step(SessionClosed{Node: name, Session: a.session})
	}
}

// watch passes time and gives the fewest ready slots of a service seen.
func (f *fleet) watch(d time.Duration, service string) int {
	f.t.Helper()
	ready := f.service(service).Status.Ready
	for end := f.now.Add(d); f.now.Before(end); {
		f.pass(50 * time.Millisecond)
		ready = min(ready, f.service(service).Status.Ready)
	}
	return ready
}

func named4(n int) []*api.Service {
	var all []*api.Service
	for i := range n {
		all = append(all, named(fmt.Sprintf("s%d", i), 4, "a:1"))
	}
	return all
}

// After the grace a lost agent's replicas are relieved start-first, few at once,
// one per service; no service is ever short of a ready slot.
func TestReliefOfALostAgent(t *testing.T) {
	f := nodes(t, 4, Config{})
	f.apply("1", append(named4(5), web(8, "a:1"))...)
	f.pass(time.Second)
	here := f.on("n2", "web")
	all := len(f.agents["n2"].holds)
	f.loseAgent("n2")
	f.pass(29 * time.Second)
	if f.status().Reliefs != 0 {
		t.Fatal("relieved before the grace")
	}
	ready := f.watch(10*time.Second, "web")
	if ready != 8 || f.mostReliefs != 3 || f.mostSpares != 1 || here < 2 {
		t.Errorf("at least %d ready, at most %d reliefs at once, %d of one service; n2 had %d of web", ready, f.mostReliefs, f.mostSpares, here)
	}
	for _, s := range []string{"s0", "s4", "web"} {
		for _, x := range f.core.services[api.Key{Namespace: "default", Name: s}].fillings {
			if x.node == "n2" && !x.stopping {
				t.Errorf("%s is still on n2", x.key)
			}
		}
	}
	if d := f.record("n2", "AgentLost").Done; d.Relieved != all || d.SparesPlaced != all {
		t.Errorf("done %+v, want %d relieved", d, all)
	}
	if st := f.status(); st.Reliefs != 0 || st.Spares != 0 {
		t.Errorf("fleet %+v", st)
	}
	// The agent is back: it stops what it has.
	f.node("n2", "boot1")
	f.pass(time.Second)
	if len(f.agents["n2"].holds) != 0 || f.core.Verdict("n2") != api.VerdictHealthy {
		t.Errorf("n2 is %s and holds %v", f.core.Verdict("n2"), f.agents["n2"].holds)
	}
}

// The node is well again before the spare is ready: the spare goes.
func TestReliefIsCalledOff(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(3, "a:1"))
	f.pass(time.Second)
	for _, n := range f.but("n2") {
		for i := range 3 {
			f.agents[n].unready[fmt.Sprintf("web-%d", i)] = true // spares do not become ready
		}
	}
	f.loseAgent("n2")
	f.pass(33 * time.Second)
	if f.spares("web") != 1 || f.status().Reliefs != 1 {
		t.Fatalf("%d spares, fleet %+v", f.spares("web"), f.status())
	}
	f.mustSay("web", "to be relieved")
	f.dial("n2")
	f.pass(time.Second)
	if f.spares("web") != 0 || f.status().Reliefs != 0 || f.home("web", 1) == "" {
		t.Errorf("%d spares, fleet %+v", f.spares("web"), f.status())
	}
	if d := f.record("n2", "Back").Done; d.SparesRemoved != 1 || d.IncumbentsRemoved != 0 {
		t.Errorf("done %+v", d)
	}
	if f.on("n2", "web") != 1 {
		t.Error("its replica was stopped")
	}
}

// While many nodes vanish nothing is relieved; a thaw lets it begin.
func TestNoReliefWhileFrozen(t *testing.T) {
	f := nodes(t, 9, Config{})
	f.apply("1", named4(6)...)
	f.pass(time.Second)
	f.loseAgent("n1", "n2", "n3", "n4")
	f.pass(40 * time.Second)
	st := f.status()
	if !st.Frozen || st.FrozenWhy == "" || st.FrozenSince.IsZero() || f.mostReliefs != 0 || f.mostSpares != 0 {
		t.Fatalf("fleet %+v", st)
	}
	f.step(Thaw{Ticket: 900, By: "user root"})
	f.turn()
	if f.replies[900].Err != nil || f.status().Frozen {
		t.Fatalf("thaw: %v, %+v", f.replies[900].Err, f.status())
	}
	if f.pass(time.Second); f.mostReliefs == 0 {
		t.Error("nothing is relieved after the thaw")
	}
	f.step(Thaw{Ticket: 901, By: "user root"})
	f.turn()
	if f.replies[901].Err == nil {
		t.Error("thawed what was not frozen")
	}
}

// What the leader did not hear because it did not run itself is no grace.
func TestReliefDiscountsStalls(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(3, "a:1"))
	f.loseAgent("n2")
	f.pass(2 * time.Second)
	f.now = f.now.Add(40 * time.Second)
	f.step(Stalled{For: 40 * time.Second})
	f.pass(20 * time.Second)
	if f.mostReliefs != 0 {
		t.Error("relieved after 20 s")
	}
	f.pass(15 * time.Second)
	if d := f.record("n2", "AgentLost").Done; d.Relieved != 1 {
		t.Errorf("done %+v", d)
	}
}

// What is stopping on a node whose agent is lost holds no room for ever.
func TestNobodyWaitsForEverForALostAgent(t *testing.T) {
	f := threeNodes(t)
	one, none := api.IntOrPercent{Value: 1}, api.IntOrPercent{}
	s := web(3, "a:1")
	s.Spec.Rollout = api.Rollout{MaxSurge: &none, MaxUnavailable: &one}
	f.apply("1", s)
	f.agents["n1"].cut, f.agents["n2"].cut, f.agents["n3"].cut = true, true, true // none hears that it is to stop something
	s = web(3, "a:2")
	s.Spec.Rollout = api.Rollout{MaxSurge: &none, MaxUnavailable: &one}
	f.apply("2", s)
	gone := ""
	for _, x := range f.core.fillings {
		if x.stopping {
			gone = x.node
		}
	}
	f.loseAgent(gone)
	f.dial(f.but(gone)...)
	f.pass(20 * time.Second)
	if s := f.service("web"); s.Status.UpdatedReady != 0 {
		t.Fatalf("status %+v", s.Status)
	}
	f.pass(15 * time.Second)
	if s := f.service("web"); s.Status.UpdatedReady != 3 {
		t.Errorf("status %+v", s.Status)
	}
	f.dial(gone)
	f.pass(time.Second)
	if len(f.core.fillings) != 3 || f.running() != 3 {
		t.Errorf("%d fillings, %d running", len(f.core.fillings), f.running())
	}
}

// A node that beats but cannot work gets nothing new, says why, and is relieved.
func TestReliefOfAnImpairedNode(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(3, "a:1"))
	f.agents["n2"].check = wire.SelfCheck{Age: 6 * time.Second, Failing: "containerd: no answer for 10s"}
	f.pass(8 * time.Second)
	n, _ := f.seen[ViewKey{Kind: api.KindNode, Name: "n2"}].(*api.Node)
	if !strings.Contains(n.Status.Impaired, "containerd") || n.Status.ImpairedSince.IsZero() || n.Status.Verdict != api.VerdictHealthy {
		t.Fatalf("n2: %+v", n.Status)
	}
	f.apply("2", web(6, "a:1"))
	if f.on("n2", "web") != 1 {
		t.Error("an impaired node was given more")
	}
	s := sized(named("big", 3, "a:1"), 0, 5<<30)
	f.apply("3", s)
	f.mustSay("big", "impaired (n2: containerd")
	ready := f.watch(40*time.Second, "web")
	if ready != 6 || f.on("n2", "web") != 0 {
		t.Errorf("at least %d ready, n2 holds %v", ready, f.agents["n2"].holds)
	}
	r := f.record("n2", "Impaired")
	if r.Done.Relieved != 1 || len(r.Evidence) == 0 || r.From != "" || r.To != "" {
		t.Errorf("record %+v", r)
	}
	f.agents["n2"].check = wire.SelfCheck{}
	f.pass(12 * time.Second)
	f.mustReady("big", 3)
	if f.record("n2", "Works").Why == "" {
		t.Error("nobody says why it works")
	}
}

// An exclusive replica is stopped first, so not unless there is a place for it.
func TestReliefOfAnExclusiveReplica(t *testing.T) {
	f, home := exclusiveFleet(t)
	others := f.but(home)
	for _, n := range others {
		f.word(n, "cordon")
	}
	f.agents[home].check = wire.SelfCheck{Failing: "disk: no answer for 10s"}
	if ready := f.watch(50*time.Second, "db"); ready != 1 {
		t.Error("it was stopped although no node would take it")
	}
	f.word(others[0], "uncordon")
	f.pass(2 * time.Second)
	f.mustReady("db", 1)
	if at := f.home("db", 0); at != others[0] {
		t.Errorf("it is on %s", at)
	}
	f.pass(2 * time.Second)
	if st := f.status(); st.Reliefs != 0 || f.record(home, "Impaired").Done.Relieved != 1 {
		t.Errorf("fleet %+v, done %+v", st, f.record(home, "Impaired").Done)
	}
}

// Reliefs that come to nothing do not keep the others waiting.
func TestReliefsThatComeToNothing(t *testing.T) {
	f := nodes(t, 4, Config{Budgets: Budgets{ReliefsMin: 1}})
	// What finds no other node, what is never ready elsewhere, and one that is fine.
	var all []*api.Service
	for i := range 4 {
		s := named(fmt.Sprintf("big%d", i), 1, "a:1")
		s.Spec.Priority = 9
		all = append(all, sized(s, 9, 7<<30))
	}
	f.apply("1", all...) // one on each node: no room for another
	f.pass(time.Second)
	f.apply("2", named("fine", 4, "a:1"))
	gone := f.home("fine", 0)
	f.loseAgent(gone)
	f.pass(35 * time.Second)
	for _, x := range f.core.services[api.Key{Namespace: "default", Name: "fine"}].fillings {
		if x.node == gone && !x.stopping {
			t.Errorf("%s was not relieved", x.key)
		}
	}
	if f.record(gone, "AgentLost").Done.SparesWaiting != 1 {
		t.Errorf("done %+v: the spare that finds no node is to be counted", f.record(gone, "AgentLost").Done)
	}
}

// Room is made for many reliefs that waited for it: no more than the budget begin.
func TestReliefsThatWaitedKeepToTheBudget(t *testing.T) {
	f := nodes(t, 2, Config{Budgets: Budgets{ReliefsMin: 2, ReliefsShare: 0.01}})
	f.word("n2", "cordon")
	var all []*api.Service
	for i := range 6 {
		all = append(all, named(fmt.Sprintf("s%d", i), 1, "a:1"))
	}
	f.apply("1", all...)
	f.agents["n2"].unready = map[string]bool{}
	for _, s := range all {
		f.agents["n2"].unready[s.Metadata.Name+"-0"] = true
	}
	f.loseAgent("n1")
	f.pass(35 * time.Second)
	if n := f.status().Reliefs; n != 6 {
		t.Fatalf("%d reliefs have been tried, want 6", n)
	}
	f.mustSay("s0", "pending: 2 nodes")
	f.word("n2", "uncordon")
	spares := func() (n int) {
		for _, s := range all {
			n += f.spares(s.Metadata.Name)
		}
		return n
	}
	for range 20 {
		f.pass(50 * time.Millisecond)
		if n := spares(); n > 2 {
			t.Fatalf("%d spares at once", n)
		}
	}
	if spares() != 2 {
		t.Errorf("%d spares, want 2", spares())
	}
	f.mustSay("s5", "pending: budget of 2 reliefs at once")
	clear(f.agents["n2"].unready)
	f.reportAll(f.agents["n2"])
	f.pass(time.Second)
	if d := f.record("n1", "AgentLost").Done; d.Relieved != 6 || f.status().Reliefs != 0 {
		t.Errorf("done %+v, fleet %+v", d, f.status())
	}
}

// Nor do spares that never become ready, after a while.
func TestReliefPatience(t *testing.T) {
	f := nodes(t, 3, Config{Budgets: Budgets{ReliefsMin: 1}})
	first := named("first", 1, "a:1")
	first.Spec.Priority = 9
	f.apply("1", first, named("second", 3, "a:1"))
	gone := f.home("first", 0)
	for _, n := range f.but(gone) {
		f.agents[n].unready["first-0"] = true
	}
	f.loseAgent(gone)
	f.pass(5 * time.Minute)
	if f.spares("first") != 1 || f.record(gone, "AgentLost").Done.Relieved != 0 {
		t.Fatalf("%d spares, done %+v", f.spares("first"), f.record(gone, "AgentLost").Done)
	}
	f.pass(time.Minute)
	if d := f.record(gone, "AgentLost").Done; d.Relieved != 1 || f.spares("first") != 1 {
		t.Errorf("done %+v", d)
	}
}

// A node that comes and goes keeps its replicas, and their spares beside them,
// until it has been steady for a while.
func TestDampedNode(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(3, "a:1"))
	for range 4 {
		f.silence("n2")
		f.pass(time.Second)
		f.node("n2", "boot1")
		f.pass(time.Second)
	}
	n, _ := f.seen[ViewKey{Kind: api.KindNode, Name: "n2"}].(*api.Node)
	if n.Status.DampedUntil.IsZero() || n.Status.Verdict != api.VerdictHealthy {
		t.Fatalf("n2: %+v", n.Status)
	}
	if f.spares("web") != 1 || f.on("n2", "web") != 1 {
		t.Errorf("%d spares, n2 holds %v", f.spares("web"), f.agents["n2"].holds)
	}
	f.mustReady("web", 3)
	f.apply("2", web(9, "a:1"))
	if f.on("n2", "web") != 1 {
		t.Error("a damped node was given more")
	}
	f.pass(3 * time.Minute)
	if f.spares("web") != 0 || f.on("n2", "web") != 1 {
		t.Errorf("when steady: %d spares, n2 holds %v", f.spares("web"), f.agents["n2"].holds)
	}
	if f.record("n2", "Damped").Why == "" || f.record("n2", "Undamped").Done.SparesRemoved != 1 {
		t.Errorf("records %+v, %+v", f.record("n2", "Damped"), f.record("n2", "Undamped"))
	}
}
