package core

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
)

func (f *fleet) published(node string) *api.Node {
	f.t.Helper()
	n, _ := f.seen[ViewKey{Kind: api.KindNode, Name: node}].(*api.Node)
	if n == nil {
		f.t.Fatalf("node %s is not published", node)
	}
	return n
}

// events gives the messages of a node's events of one reason, oldest first.
func (f *fleet) events(name, reason string) []string {
	var out []string
	for _, e := range f.core.history.of[""] {
		if e.Kind == api.KindNode && e.Name == name && e.Reason == reason {
			out = append(out, e.Message)
		}
	}
	return out
}

func (f *fleet) drainBy(node string, deadline time.Duration) error {
	f.t.Helper()
	f.ticket++
	f.step(NodeWord{Ticket: f.ticket, Node: node, Word: "drain", Deadline: deadline, By: "alice"})
	f.turn()
	return f.replies[f.ticket].Err
}

func surging(s *api.Service, surge, unavailable int) *api.Service {
	x, y := api.IntOrPercent{Value: surge}, api.IntOrPercent{Value: unavailable}
	s.Spec.Rollout = api.Rollout{MaxSurge: &x, MaxUnavailable: &y}
	return s
}

func (f *fleet) mustWait(node, want string) {
	f.t.Helper()
	if got := strings.Join(f.published(node).Status.DrainWaits, "; "); !strings.Contains(got, want) {
		f.t.Errorf("%s waits for %q, want %q", node, got, want)
	}
}

// A drain empties a node start-first, within the budget: no service is ever short
// of a ready slot, nothing comes to the node, and it is said when nothing is left.
func TestDrain(t *testing.T) {
	f := nodes(t, 4, Config{})
	f.apply("1", append(named4(5), surging(web(8, "a:1"), 2, 1))...)
	f.pass(5 * time.Second)
	before := len(f.agents["n2"].holds)
	if err := f.drainBy("n2", 0); err != nil {
		t.Fatal(err)
	}
	if n := f.published("n2"); n.Spec.Drain == nil || n.Spec.Drain.By != "alice" || !n.Spec.Unschedulable {
		t.Errorf("spec %+v", n.Spec)
	}
	ready := f.watch(5*time.Second, "web")
	n := f.published("n2")
	if before < 6 || len(f.agents["n2"].holds) != 0 || n.Status.Replicas != 0 || n.Spec.Drain.Done.IsZero() || len(n.Status.DrainWaits) > 0 {
		t.Errorf("n2 holds %v of %d; %+v, %+v", f.agents["n2"].holds, before, n.Spec.Drain, n.Status)
	}
	if ready != 8 || f.mostReliefs > 3 || f.mostReliefs < 2 {
		t.Errorf("at least %d ready, at most %d reliefs", ready, f.mostReliefs)
	}
	for i := range 5 {
		f.mustReady(fmt.Sprintf("s%d", i), 4)
	}
	if d := f.record("n2", "Healthy").Done; d != (api.Done{}) {
		t.Errorf("the node's verdict is said to have done %+v", d)
	}
	if x := f.events("n2", "Drained"); len(x) != 1 || len(f.events("n2", "DrainStarted")) != 1 {
		t.Errorf("events %q", x)
	}
	f.apply("2", web(12, "a:1"))
	if f.on("n2", "web") != 0 {
		t.Error("a drained node was given something")
	}
	f.elect() // the next leader says nothing of it again
	f.dial("n1", "n2", "n3", "n4")
	f.pass(5 * time.Second)
	if x := f.events("n2", "Drained"); len(x) != 1 {
		t.Errorf("events %q", x)
	}
	f.word("n2", "uncordon")
	if n := f.published("n2"); n.Spec.Drain != nil || n.Spec.Unschedulable || len(f.events("n2", "DrainAborted")) > 0 {
		t.Errorf("after uncordon: %+v, %q", n.Spec, f.events("n2", "DrainAborted"))
	}
	f.apply("3", web(16, "a:1"))
	if f.on("n2", "web") == 0 {
		t.Error("an uncordoned node is given nothing")
	}
}

// Several replicas of a service go at once, as far as it may surge.
func TestDrainAsFarAsTheSurge(t *testing.T) {
	for _, c := range []struct{ surge, most int }{{0, 1}, {1, 1}, {3, 3}} {
		f := nodes(t, 2, Config{Budgets: Budgets{ReliefsMin: 10}})
		f.apply("1", surging(web(8, "a:1"), c.surge, 1))
		f.pass(time.Second)
		f.drainBy("n1", 0)
		if ready := f.watch(5*time.Second, "web"); ready != 8 || f.mostSpares != c.most || f.on("n1", "web") != 0 {
			t.Errorf("surge %d: at least %d ready, at most %d at once, %d left", c.surge, ready, f.mostSpares, f.on("n1", "web"))
		}
	}
}

// Replicas of several namespaces that share a name are told apart.
func TestDrainWaitsNameNamespaces(t *testing.T) {
	f := nodes(t, 1, Config{})
	shop := web(1, "a:1")
	shop.Metadata.Namespace = "shop"
	f.apply("1", web(1, "a:1"), shop)
	f.pass(time.Second)
	f.drainBy("n1", 0)
	f.pass(time.Second)
	f.mustWait("n1", "default/web-0 waits: 1 node: 1 unschedulable; shop/web-0 waits: ")
}

// What finds no room stays, and says so; uncordon ends it, and nothing was lost.
func TestDrainOfAllNodes(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(3, "a:1"))
	f.pass(time.Second)
	for _, n := range []string{"n1", "n2", "n3"} {
		f.word(n, "cordon")
	}
	for _, n := range []string{"n1", "n2", "n3"} {
		f.drainBy(n, 0)
	}
	if ready := f.watch(10*time.Second, "web"); ready != 3 || f.running() != 3 {
		t.Fatalf("at least %d ready, %d running", ready, f.running())
	}
	f.mustWait("n1", "waits: 3 nodes: 3 unschedulable")
	for _, n := range []string{"n1", "n2", "n3"} {
		f.word(n, "uncordon")
	}
	f.pass(time.Second)
	if len(f.core.fillings) != 3 || f.running() != 3 || f.status().Reliefs != 0 || len(f.published("n1").Status.DrainWaits) > 0 {
		t.Errorf("%d fillings, %d running, fleet %+v", len(f.core.fillings), f.running(), f.status())
	}
	if x := f.events("n1", "DrainAborted"); len(x) != 1 || !strings.Contains(x[0], "1 replica is left") {
		t.Errorf("events %q", x)
	}
	for k := range f.seen {
		if k.Kind == api.KindReplica && !strings.Contains(k.Name, "@") {
			t.Errorf("%v is still published as pending", k)
		}
	}
}

// An aborted drain takes back what was begun.
func TestDrainIsAborted(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(3, "a:1"))
	f.pass(time.Second)
	for _, n := range f.but("n2") {
		for i := range 3 {
			f.agents[n].unready[fmt.Sprintf("web-%d", i)] = true // spares do not become ready
		}
	}
	at := f.home("web", 0)
	f.drainBy("n2", 0)
	f.pass(2 * time.Second)
	if f.spares("web") != 1 {
		t.Fatalf("%d spares", f.spares("web"))
	}
	f.mustWait("n2", "waits until it is ready on")
	f.word("n2", "uncordon")
	f.pass(time.Second)
	if f.spares("web") != 0 || f.on("n2", "web") != 1 || f.home("web", 0) != at {
		t.Errorf("%d spares, n2 holds %v", f.spares("web"), f.agents["n2"].holds)
	}
}

// After the deadline what is left is stopped without a successor, but no service is
// taken below its floor.
func TestDrainDeadline(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", surging(web(6, "a:1"), 1, 1), surging(named("firm", 3, "a:1"), 1, 0))
	f.pass(time.Second)
	for _, n := range f.but("n2") {
		f.word(n, "cordon")
	}
	if err := f.drainBy("n2", -time.Second); !errors.Is(err, ErrInvalid) {
		t.Errorf("a deadline that has passed: %v", err)
	}
	f.drainBy("n2", 10*time.Second)
	if ready := f.watch(9500*time.Millisecond, "web"); ready != 6 || f.on("n2", "web") != 2 {
		t.Fatalf("at least %d ready before the deadline", ready)
	}
	ready := f.watch(5*time.Second, "web")
	if ready != 5 || f.on("n2", "web") != 1 || f.on("n2", "firm") != 1 {
		t.Errorf("at least %d ready, n2 holds %v", ready, f.agents["n2"].holds)
	}
	if x := f.events("n2", "DrainDeadline"); len(x) != 1 || !strings.Contains(x[0], "3 replicas are left") {
		t.Errorf("events %q", x)
	}
	if n := f.published("n2"); !n.Spec.Drain.Overdue || !n.Spec.Drain.Done.IsZero() {
		t.Errorf("drain %+v", n.Spec.Drain)
	}
	f.mustReady("firm", 3)
	f.elect()
	f.dial("n1", "n2", "n3")
	f.pass(5 * time.Second)
	if f.on("n2", "web") != 1 || len(f.events("n2", "DrainDeadline")) != 1 {
		t.Errorf("under the next leader n2 holds %v, events %q", f.agents["n2"].holds, f.events("n2", "DrainDeadline"))
	}
	f.word("n1", "uncordon") // room: the rest goes start-first
	f.pass(5 * time.Second)
	f.mustReady("web", 6)
	f.mustReady("firm", 3)
	if len(f.agents["n2"].holds) != 0 || f.published("n2").Spec.Drain.Done.IsZero() {
		t.Errorf("n2 holds %v", f.agents["n2"].holds)
	}
}

// A replica that does not serve is no reason for a drain to last for ever.
func TestDrainOfWhatIsNotReady(t *testing.T) {
	f := threeNodes(t)
	for _, a := range f.agents {
		a.unready["web-0"], a.unready["web-1"], a.unready["web-2"] = true, true, true
	}
	f.apply("1", web(3, "a:1"))
	f.pass(time.Second)
	f.drainBy("n2", 0)
	f.pass(5 * time.Second)
	if f.on("n2", "web") != 0 || len(f.core.fillings) != 3 {
		t.Errorf("n2 holds %v, %d fillings", f.agents["n2"].holds, len(f.core.fillings))
	}
}

// What is exclusive is stopped first, and so only if there is a place for it.
func TestDrainOfWhatIsExclusive(t *testing.T) {
	f, home := exclusiveFleet(t)
	others := f.but(home)
	for _, n := range others {
		f.word(n, "cordon")
	}
	f.drainBy(home, 0)
	if ready := f.watch(5*time.Second, "db"); ready != 1 {
		t.Error("it was stopped although no node would take it")
	}
	f.mustWait(home, "db-0 waits: no node would take it")
	f.word(others[0], "uncordon")
	f.pass(2 * time.Second)
	f.mustReady("db", 1)
	if at := f.home("db", 0); at != others[0] || f.published(home).Spec.Drain.Done.IsZero() {
		t.Errorf("it is on %s; drain %+v", at, f.published(home).Spec.Drain)
	}
}

// A node that is not heard is drained by spares, and goes on when it is back; one
// that is dead has nothing.
func TestDrainOfANodeThatIsAway(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(3, "a:1"))
	f.pass(time.Second)
	f.silence("n2")
	f.pass(2 * time.Second)
	f.drainBy("n2", 0)
	if x := f.events("n2", "DrainStarted"); len(x) != 1 || !strings.Contains(x[0], "Suspect") {
		t.Errorf("events %q", x)
	}
	f.mustReady("web", 3)
	f.mustWait("n2", "it is Suspect")
	f.dial("n2")
	f.pass(5 * time.Second)
	f.mustReady("web", 3)
	if f.on("n2", "web") != 0 || f.published("n2").Spec.Drain.Done.IsZero() || len(f.core.fillings) != 3 {
		t.Errorf("n2 holds %v, drain %+v", f.agents["n2"].holds, f.published("n2").Spec.Drain)
	}
	f.silence("n3")
	f.pass(time.Second)
	f.drainBy("n3", 0)
	f.word("n3", "dead")
	f.pass(time.Second)
	if f.published("n3").Spec.Drain.Done.IsZero() {
		t.Error("a dead node is not drained")
	}
}

// The next leader goes on with a drain.
func TestDrainOverATakeover(t *testing.T) {
	f := nodes(t, 4, Config{})
	f.apply("1", named4(8)...)
	f.pass(time.Second)
	f.mute(true, "n1", "n2", "n3", "n4") // each stop takes as long as a hand-over may
	f.drainBy("n2", 0)
	f.pass(time.Second)
	f.elect()
	if len(f.agents["n2"].holds) == 0 {
		t.Fatal("nothing is left: this tests nothing")
	}
	f.dial("n1", "n2", "n3", "n4")
	f.pass(20 * time.Second)
	if len(f.agents["n2"].holds) != 0 || f.published("n2").Spec.Drain.Done.IsZero() || f.running() != 32 {
		t.Errorf("n2 holds %v, %d running", f.agents["n2"].holds, f.running())
	}
}

// Cordon and uncordon, and words that are none.
func TestNodeWords(t *testing.T) {
	f := threeNodes(t)
	for range 2 {
		if err := f.word("n1", "cordon"); err != nil || !f.published("n1").Spec.Unschedulable {
			t.Errorf("cordon: %v", err)
		}
	}
	for range 2 {
		if err := f.word("n1", "uncordon"); err != nil || f.published("n1").Spec.Unschedulable {
			t.Errorf("uncordon: %v", err)
		}
	}
	if n, m := f.events("n1", "Cordoned"), f.events("n1", "Uncordoned"); len(n) != 1 || len(m) != 1 {
		t.Errorf("events %q, %q", n, m)
	}
	f.core.nodes["n1"].orphans = []string{"a", "b"}
	if err := f.word("n1", "remove-orphans"); err != nil || !slices.Equal(f.events("n1", "OrphansRemoved"), []string{"by user root: 2"}) {
		t.Errorf("remove-orphans: %v, %q", err, f.events("n1", "OrphansRemoved"))
	}
	if err := f.word("n1", "empty"); !errors.Is(err, ErrInvalid) {
		t.Errorf("an unknown word: %v", err)
	}
	if err := f.word("n9", "drain"); !errors.Is(err, ErrNotFound) {
		t.Errorf("an unknown node: %v", err)
	}
	f.drainBy("n1", 0)
	f.pass(time.Second)
	if err := f.drainBy("n1", time.Minute); err != nil || f.published("n1").Spec.Drain.Deadline.IsZero() || f.published("n1").Spec.Drain.Done.IsZero() {
		t.Errorf("said again: %v, %+v", err, f.published("n1").Spec.Drain)
	}
}

// A deadline that passes while verdicts are frozen is kept when they are not any more.
func TestDrainDeadlineWhileFrozen(t *testing.T) {
	f := nodes(t, 9, Config{})
	f.apply("1", surging(web(9, "a:1"), 1, 1))
	f.pass(5 * time.Second)
	for i := range 8 {
		f.word(fmt.Sprintf("n%d", i+1), "cordon")
	}
	f.drainBy("n9", 5*time.Second)
	f.loseAgent("n1", "n2", "n3", "n4")
	f.pass(10 * time.Second)
	if !f.core.Frozen() || len(f.events("n9", "DrainDeadline")) != 1 || f.on("n9", "web") != 1 {
		t.Fatalf("frozen %t, events %q, n9 holds %v", f.core.Frozen(), f.events("n9", "DrainDeadline"), f.agents["n9"].holds)
	}
	f.mustWait("n9", "nothing is moved while verdicts are frozen")
	f.step(Thaw{Ticket: 900, By: "user root"})
	f.turn()
	f.pass(3 * time.Second)
	if f.on("n9", "web") != 0 || f.published("n9").Spec.Drain.Done.IsZero() {
		t.Errorf("n9 holds %v; %v", f.agents["n9"].holds, f.published("n9").Status.DrainWaits)
	}
}
