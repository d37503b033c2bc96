package core

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
)

func (f *fleet) rebalance(dry bool) (RebalanceResult, error) {
	f.t.Helper()
	f.ticket++
	f.step(Rebalance{Ticket: f.ticket, DryRun: dry, By: "alice"})
	f.turn()
	r := f.replies[f.ticket]
	x, _ := r.Value.(RebalanceResult)
	return x, r.Err
}

// uneven gives three nodes that are full and a fourth that came later.
func uneven(t *testing.T, conf Config) *fleet {
	f := nodes(t, 3, conf)
	f.apply("1", append(named4(6), web(6, "a:1"))...)
	f.pass(5 * time.Second)
	f.node("n4", "boot1")
	f.pass(time.Second)
	if len(f.agents["n4"].holds) != 0 {
		t.Fatalf("n4 holds %v", f.agents["n4"].holds)
	}
	return f
}

// idle has nothing become ready on a node.
func (f *fleet) idle(node string) {
	for i := range 6 {
		f.agents[node].unready[fmt.Sprintf("web-%d", i)] = true
		for j := range 4 {
			f.agents[node].unready[fmt.Sprintf("s%d-%d", i, j)] = true
		}
	}
}

// After a node joined, a rebalance moves to it what was doubled elsewhere: each
// replica is started there first. Nothing is left to be done then.
func TestRebalance(t *testing.T) {
	f := uneven(t, Config{})
	dry, err := f.rebalance(true)
	if err != nil || len(dry.Moves) < 6 || !(dry.After < dry.Before) || dry.Before > 1 || dry.After < 0 {
		t.Fatalf("dry run: %+v, %v", dry, err)
	}
	f.pass(5 * time.Second)
	if len(f.agents["n4"].holds) != 0 || len(f.core.reliefs.moves) != 0 || f.mostReliefs != 0 {
		t.Fatalf("a dry run moved %v", f.agents["n4"].holds)
	}
	r, err := f.rebalance(false)
	if err != nil || fmt.Sprint(r) != fmt.Sprint(dry) {
		t.Fatalf("%+v, %v; the dry run said %+v", r, err, dry)
	}
	if ready := f.watch(5*time.Second, "web"); ready != 6 || f.mostReliefs > 3 {
		t.Errorf("at least %d ready, at most %d reliefs", ready, f.mostReliefs)
	}
	f.pass(10 * time.Second)
	if n := len(f.agents["n4"].holds); n != len(r.Moves) || f.running() != 30 || len(f.core.fillings) != 30 {
		t.Errorf("n4 holds %d, %d were planned; %d run", n, len(r.Moves), f.running())
	}
	for i := range 6 {
		f.mustReady(fmt.Sprintf("s%d", i), 4)
	}
	if again, err := f.rebalance(false); err != nil || len(again.Moves) != 0 || again.Before != again.After {
		t.Errorf("again: %+v, %v", again, err)
	}
	if f.status().Reliefs != 0 {
		t.Errorf("fleet %+v", f.status())
	}
}

// One at a time, and not while nothing is known or many vanish.
func TestRebalanceHasToWait(t *testing.T) {
	f := uneven(t, Config{})
	f.idle("n4") // so that moves take their time
	if _, err := f.rebalance(false); err != nil {
		t.Fatal(err)
	}
	f.pass(time.Second)
	if _, err := f.rebalance(false); !errors.Is(err, ErrBusy) {
		t.Errorf("while one is under way: %v", err)
	}
	if _, err := f.rebalance(true); err != nil {
		t.Errorf("a dry run meanwhile: %v", err)
	}
	f.elect()
	if _, err := f.rebalance(false); !errors.Is(err, ErrBusy) {
		t.Errorf("under a new leader: %v", err)
	}
	f.dial("n1", "n2", "n3", "n4")
	f.pass(10 * time.Second)
	if f.running() != 30 || len(f.agents["n4"].holds) != 0 || f.status().Reliefs != 0 || f.spares("web")+f.spares("s0") != 0 {
		t.Errorf("what the one before began: %d run, fleet %+v", f.running(), f.status())
	}
}

// A move whose spare does not become ready is given up: the incumbent serves.
func TestMoveIsGivenUp(t *testing.T) {
	f := uneven(t, Config{Budgets: Budgets{ReliefPatience: 3 * time.Second}})
	f.idle("n4")
	r, err := f.rebalance(false)
	if err != nil || len(r.Moves) == 0 {
		t.Fatal(r, err)
	}
	if ready := f.watch(time.Minute, "web"); ready != 6 {
		t.Errorf("at least %d ready", ready)
	}
	if len(f.agents["n4"].holds) != 0 || f.running() != 30 || f.status().Reliefs != 0 || len(f.core.reliefs.moves) != 0 {
		t.Errorf("n4 holds %v, %d run, fleet %+v, %d moves left", f.agents["n4"].holds, f.running(), f.status(), len(f.core.reliefs.moves))
	}
}

// What finds no node when its turn comes stays, and shows nothing pending.
func TestMoveFindsNoNode(t *testing.T) {
	const gi = 1 << 30
	f := nodes(t, 3, Config{})
	f.apply("1", sized(web(4, "a:1"), 0, 3*gi))
	f.pass(time.Second)
	f.apply("2", sized(named("fill", 2, "a:1"), 0, 5*gi)) // now only a node that is new has room
	f.node("n4", "boot1")
	f.pass(time.Second)
	f.mustReady("fill", 2)
	big := sized(named("big", 1, "a:1"), 10, 6*gi)
	f.step(Rebalance{Ticket: 501, By: "alice"})
	f.step(Apply{Ticket: 502, Services: []*api.Service{big}, By: "tester"})
	f.turn()
	if r := f.replies[501].Value.(RebalanceResult); len(r.Moves) != 1 || r.Moves[0].To != "n4" {
		t.Fatalf("%+v", r)
	}
	if len(f.core.relieved) != 1 {
		t.Fatal("the move was not begun: this tests nothing")
	}
	f.pass(time.Second)
	if f.home("big", 0) != "n4" || f.status().Reliefs != 0 || len(f.core.reliefs.moves) != 0 || len(f.core.fillings) != 7 {
		t.Errorf("big is on %q, fleet %+v, %d fillings", f.home("big", 0), f.status(), len(f.core.fillings))
	}
	for k, x := range f.seen {
		if r, ok := x.(*api.Replica); ok && r.Status.Phase == api.PhasePending {
			t.Errorf("%v is pending: %s", k, r.Status.Message)
		}
	}
	f.mustReady("web", 4)
}

// Not moved: what is exclusive, what is being rolled, what is on a node that is not
// well or is cordoned.
func TestWhatRebalanceLeavesAlone(t *testing.T) {
	f := nodes(t, 3, Config{})
	db := named("db", 3, "a:1")
	db.Spec.Exclusive = true
	f.apply("1", db, web(6, "a:1"), named("other", 6, "a:1"))
	f.pass(5 * time.Second)
	f.word("n1", "cordon")
	f.node("n4", "boot1")
	f.pass(time.Second)
	key := api.Key{Namespace: "default", Name: "web"}
	for _, x := range f.core.services[key].fillings[:1] {
		f.agents[x.node].unready["web-0"] = true
		f.reportAll(f.agents[x.node])
	}
	r, err := f.rebalance(true)
	if err != nil || len(r.Moves) == 0 {
		t.Fatal(r, err)
	}
	for _, m := range r.Moves {
		if m.Replica.Service == "db" || m.From == "n1" || m.Replica.Name() == "web-0" {
			t.Errorf("it would move %+v", m)
		}
	}
	for n := range f.agents {
		f.agents[n].unready["web-1"] = true
	}
	f.apply("2", web(6, "a:2"))
	if r, err = f.rebalance(true); err != nil {
		t.Fatal(err)
	}
	for _, m := range r.Moves {
		if m.Replica.Service == "web" {
			t.Errorf("it would move %+v, which is being rolled", m)
		}
	}
}
