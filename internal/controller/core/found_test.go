package core

import (
	"fmt"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/liveness"
	"github.com/orchctl/orch/internal/wire"
)

// The tests of this file hold bugs that the simulator found, and reviews.

// A service that never becomes ready may not keep a node from being itself again:
// a node that is back takes no new replicas.
func TestReturnDoesNotWaitForWhatIsNeverReady(t *testing.T) {
	f := threeNodes(t)
	for _, a := range f.agents {
		a.unready["web-0"], a.unready["web-1"], a.unready["web-2"] = true, true, true
	}
	f.apply("1", web(3, "a:1"))
	f.silence("n2")
	f.pass(time.Second)
	f.node("n2", "boot1")
	f.pass(time.Second)
	if v := f.core.nodes["n2"].verdict; v != api.VerdictHealthy {
		t.Errorf("n2 is %s", v)
	}
}

// A complete report that ends a replica may not publish it again.
func TestReportThatEndsAReplicaLeavesNoGhost(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(3, "a:1"))
	f.silence("n2")
	f.apply("2", web(0, "a:1"))
	a := f.agents["n2"]
	a.silent = false
	clear(a.holds)
	f.node("n2", "boot1")
	for k := range f.seen {
		if k.Kind == api.KindReplica {
			t.Errorf("%s is still published", k.Name)
		}
	}
	if len(f.core.fillings) != 0 {
		t.Errorf("%d fillings are left", len(f.core.fillings))
	}
}

// What was placed and undone within one transaction was never committed, and no
// agent may hear of it.
func TestNobodyIsToldWhatOneTransactionUndid(t *testing.T) {
	f := threeNodes(t)
	f.commits = false
	f.apply("1", web(1, "a:1")) // on its way, so that the rest gathers
	f.apply("2", web(3, "a:1"))
	f.step(NodeWord{Ticket: 99, Node: "n1", Word: "dead", Force: true, By: "tester"})
	f.step(NodeWord{Ticket: 100, Node: "n2", Word: "dead", Force: true, By: "tester"})
	f.step(NodeWord{Ticket: 101, Node: "n3", Word: "dead", Force: true, By: "tester"})
	f.turn()
	f.commits = true
	f.commit(f.out[0]) // the harness fails if an agent hears of what is not in the store
	f.turn()
}

// A leader that comes upon a relief goes on with it, and begins no second one of
// the service beside it.
func TestTakeoverGoesOnWithARelief(t *testing.T) {
	f := nodes(t, 3, Config{})
	f.apply("1", web(6, "a:1"))
	f.pass(time.Second)
	for slot := range 6 {
		if f.home("web", slot) != "n2" { // only what is to be relieved takes its time
			continue
		}
		for _, a := range f.agents {
			a.unready[fmt.Sprintf("web-%d", slot)] = a.name != "n2"
		}
	}
	f.loseAgent("n2")
	f.pass(32 * time.Second)
	if st := f.status(); st.Reliefs != 1 || f.spares("web") != 1 {
		t.Fatalf("fleet %+v, %d spares: no relief is under way", st, f.spares("web"))
	}
	f.elect()
	f.dial(f.but("n2")...)
	f.pass(34 * time.Second)
	if st := f.status(); st.Reliefs != 1 || f.spares("web") != 1 {
		t.Errorf("fleet %+v, %d spares: the next leader begins another relief beside the one it found", st, f.spares("web"))
	}
	for _, a := range f.agents {
		clear(a.unready)
		f.reportAll(a)
	}
	f.pass(5 * time.Second)
	for _, x := range f.core.services[api.Key{Namespace: "default", Name: "web"}].fillings {
		if x.node == "n2" && !x.stopping {
			t.Errorf("%s is still on n2", x.key)
		}
	}
}

// A relief that the leader before began spends the fleet's budget: nothing more
// important is begun beside it.
func TestTakeoverCountsADrainsRelief(t *testing.T) {
	f := nodes(t, 3, Config{Budgets: Budgets{ReliefsMin: 1}})
	db := func(priority int) *api.Service {
		s := web(3, "a:1")
		s.Metadata.Name, s.Spec.Priority = "db", priority
		return s
	}
	f.apply("1", web(3, "a:1"))
	f.apply("2", db(-1))
	f.pass(time.Second)
	for slot := range 3 {
		if f.home("web", slot) == "n2" { // what relieves it takes its time
			for _, a := range f.agents {
				a.unready[fmt.Sprintf("web-%d", slot)] = a.name != "n2"
			}
		}
	}
	if err := f.word("n2", "drain"); err != nil {
		t.Fatal(err)
	}
	f.pass(time.Second)
	f.apply("3", db(5))
	if f.spares("web") != 1 || f.spares("db") != 0 || f.on("n2", "db") == 0 {
		t.Fatalf("%d spares of web, %d of db, %d of db on n2", f.spares("web"), f.spares("db"), f.on("n2", "db"))
	}
	f.elect()
	f.dial("n1", "n2", "n3")
	f.pass(5 * time.Second)
	if f.spares("web") != 1 || f.on("n2", "db") == 0 {
		t.Errorf("%d spares of web, %d of db on n2: the next leader begins another relief beside the one it found", f.spares("web"), f.on("n2", "db"))
	}
}

// A leader that never hears of a lost agent does not wait for it beyond its grace:
// what it runs is unknown for good, and a rollout goes on.
func TestRolloutDoesNotWaitForALostAgent(t *testing.T) {
	f := nodes(t, 3, Config{})
	f.apply("1", web(3, "a:1"))
	f.pass(time.Second)
	f.loseAgent("n2")
	f.elect()
	f.dial(f.but("n2")...)
	f.pass(5 * time.Second)
	f.apply("2", web(3, "a:2"))
	f.pass(20 * time.Second)
	s := f.service("web")
	if s.Status.UpdatedReady != 0 {
		t.Errorf("%+v: what is unknown was acted on within the grace", s.Status)
	}
	f.pass(40 * time.Second)
	if s := f.service("web"); s.Status.UpdatedReady != 3 {
		t.Errorf("%+v: the rollout waits for an agent that never comes back", s.Status)
	}
}

// A spare on a node whose agent is lost is relieved like a replica, and does not
// keep the service's next relief waiting.
func TestSpareOfALostAgentIsRelieved(t *testing.T) {
	f := nodes(t, 3, Config{})
	f.apply("1", web(3, "a:1"))
	f.pass(time.Second)
	home := f.home("web", 0)
	f.silence(home)
	f.pass(time.Second)
	spare := ""
	for _, x := range f.core.services[api.Key{Namespace: "default", Name: "web"}].fillings {
		if x.spare {
			spare = x.node
		}
	}
	f.loseAgent(spare)
	f.pass(2 * time.Second)
	f.agents[home].silent = false
	f.node(home, "boot1")
	f.pass(45 * time.Second)
	for _, x := range f.core.services[api.Key{Namespace: "default", Name: "web"}].fillings {
		if x.node == spare && !x.stopping {
			t.Errorf("%s is still on %s, spare: %t", x.key, x.node, x.spare)
		}
	}
	if st := f.status(); st.Reliefs != 0 || st.Spares != 0 {
		t.Errorf("fleet %+v", st)
	}
	f.mustReady("web", 3)
}

// A leased replica of a lost agent stops itself when its lease ends: it gets no
// traffic then, though its host answers.
func TestWhatOutlivedItsLeaseGetsNoTraffic(t *testing.T) {
	f := threeNodes(t)
	s := named("site", 1, "a:1")
	lease, grace := api.Duration(onlyLease), api.Duration(0)
	s.Spec.OnPartition, s.Spec.LeaseDuration, s.Spec.TerminationGracePeriod = api.PartitionStop, &lease, &grace
	s.Default()
	f.apply("1", s)
	f.pass(time.Second)
	where := f.home("site", 0)
	var other string
	for _, n := range f.but(where) {
		other = n
	}
	f.loseAgent(where)
	f.pass(1500 * time.Millisecond)
	if f.core.Verdict(where) != api.VerdictAgentLost || f.ends(other, "site") == "" {
		t.Fatalf("%s is %s, endpoints %q", where, f.core.Verdict(where), f.ends(other, "site"))
	}
	f.pass(onlyLease)
	if e := f.ends(other, "site"); e != "" {
		t.Errorf("%s sends traffic to %s, whose lease has ended", other, e)
	}
	if r := f.replica("site", 0, where); r.Status.Ready || r.Status.Reason != api.ReasonLeaseLost {
		t.Errorf("%+v", r.Status)
	}
}

// TestASessionThatIsToldOfLate holds what a review found: of two sessions of a
// node the first may be told of last, when it has ended already. It was taken for
// the node's, and the living one heard no more: not its beats, not its renewals.
func TestASessionThatIsToldOfLate(t *testing.T) {
	f, home := exclusiveFleet(t)
	a := f.agents[home]
	f.session++
	late := f.session
	f.node(home, a.boot)
	for _, ev := range []Event{SessionOpened{Node: home, Session: late, Hello: wire.Hello{BootID: a.boot, Address: "10.0.0.9"}}, SessionClosed{Node: home, Session: late}} {
		f.step(ev)
		f.turn()
	}
	f.pass(2 * fenceMost)
	f.mustReady("db", 1)
	if at := f.home("db", 0); f.core.Verdict(home) != api.VerdictHealthy || at != home {
		t.Errorf("%s is %s, db is on %s", home, f.core.Verdict(home), at)
	}
}

// Where both of a slot, the old and its successor, are on a lost agent's node,
// neither is waited for.
func TestBothOfASlotAreRelieved(t *testing.T) {
	f := nodes(t, 3, Config{})
	for _, n := range []string{"n1", "n3"} {
		if err := f.word(n, "cordon"); err != nil {
			t.Fatal(err)
		}
	}
	f.apply("1", web(1, "a:1"))
	f.pass(time.Second)
	f.loseAgent("n2")
	f.apply("2", web(1, "a:2")) // placed beside it before anybody has missed the agent
	for _, n := range []string{"n1", "n3"} {
		if err := f.word(n, "uncordon"); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(f.core.services[api.Key{Namespace: "default", Name: "web"}].inSlot(0)); n != 2 {
		t.Fatalf("%d are in the slot, want the old one and its successor", n)
	}
	f.pass(45 * time.Second)
	for _, x := range f.core.services[api.Key{Namespace: "default", Name: "web"}].fillings {
		if x.node == "n2" && !x.stopping {
			t.Errorf("%s is still on n2", x.key)
		}
	}
	f.mustReady("web", 1)
}

// A spare that is relieved itself keeps its place in the budget of spares.
func TestRelievedSpareCounts(t *testing.T) {
	f := nodes(t, 4, Config{Budgets: Budgets{SparesMin: 1, SparesShare: 0.01}})
	f.apply("1", web(8, "a:1"))
	f.pass(time.Second)
	f.silence("n2")
	f.pass(time.Second)
	home := ""
	for _, x := range f.core.services[api.Key{Namespace: "default", Name: "web"}].fillings {
		if x.spare {
			home = x.node
		}
	}
	f.agents[home].check = wire.SelfCheck{Failing: "containerd: no answer for 10s"}
	for range 50 * 2 {
		f.pass(500 * time.Millisecond)
		standIns := 0
		for _, x := range f.core.services[api.Key{Namespace: "default", Name: "web"}].fillings {
			if x.spare && !x.stopping && x.node != home {
				standIns++
			}
		}
		if standIns > 1 {
			t.Fatalf("%s: %d spares elsewhere than on %s, where the only one that the budget allows is being relieved", f.now.Sub(start), standIns, home)
		}
	}
}

// A relief that waits for room is not placed when verdicts freeze meanwhile.
func TestReliefThatWaitsIsHeldByAFreeze(t *testing.T) {
	f := nodes(t, 3, Config{})
	f.apply("1", web(3, "a:1"))
	f.pass(time.Second)
	for _, n := range f.but("n2") {
		if err := f.word(n, "cordon"); err != nil {
			t.Fatal(err)
		}
	}
	f.loseAgent("n2")
	f.pass(35 * time.Second)
	if st := f.status(); st.Reliefs != 1 || f.spares("web") != 0 {
		t.Fatalf("fleet %+v, %d spares: want a relief that finds no node", st, f.spares("web"))
	}
	f.core.setFrozen(liveness.SetFrozen{Frozen: true, Why: "many vanished"})
	for _, n := range f.but("n2") {
		if err := f.word(n, "uncordon"); err != nil {
			t.Fatal(err)
		}
	}
	f.pass(2 * time.Second)
	if n := f.spares("web"); n != 0 {
		t.Errorf("%d spares are placed to relieve while verdicts are frozen", n)
	}
	f.mustSay("web", "nothing is relieved while verdicts are frozen")
	f.core.setFrozen(liveness.SetFrozen{Why: "a person said so"})
	f.pass(5 * time.Second)
	for _, x := range f.core.services[api.Key{Namespace: "default", Name: "web"}].fillings {
		if x.node == "n2" && !x.stopping {
			t.Errorf("%s is still on n2", x.key)
		}
	}
}

// A dry run takes no virtual IP, and may not say that there is none.
func TestDryRunDoesNotLackAVirtualIP(t *testing.T) {
	f := threeNodes(t)
	f.step(Apply{Ticket: 99, Services: []*api.Service{web(3, "a:1")}, DryRun: true})
	f.turn()
	if r := f.replies[99].Value.(ApplyResult).Applied[0].Service.Status.Reasons; len(r) > 0 {
		t.Errorf("it says %q", r)
	}
}
