package core

import (
	"errors"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// counted is what the published nodes add up to.
func (f *fleet) counted() (b beside) {
	for _, object := range f.seen {
		b.count(object, 1)
	}
	return b
}

// The fleet counts nodes that are impaired, damped or drained, through their coming
// and going, also of a new leader.
func TestFleetCountsWhatIsBesideVerdicts(t *testing.T) {
	f := nodes(t, 4, Config{})
	must := func(what string, want beside) {
		t.Helper()
		st := f.status()
		if got := (beside{st.Impaired, st.Damped, st.Drained}); got != want || f.counted() != want {
			t.Errorf("%s: the fleet says %+v, its nodes %+v, want %+v", what, got, f.counted(), want)
		}
	}
	f.pass(time.Second)
	must("at first", beside{})
	f.agents["n2"].check = wire.SelfCheck{Age: time.Minute, Failing: "containerd: no answer"}
	f.pass(8 * time.Second)
	if err := f.drainBy("n3", 0); err != nil {
		t.Fatal(err)
	}
	if err := f.drainBy("n2", 0); err != nil {
		t.Fatal(err)
	}
	f.pass(time.Second)
	must("one is impaired, two are drained", beside{impaired: 1, drained: 2})
	f.agents["n2"].check = wire.SelfCheck{}
	f.pass(20 * time.Second)
	must("it works again", beside{drained: 2})
	if err := f.word("n2", "uncordon"); err != nil {
		t.Fatal(err)
	}
	must("one is uncordoned", beside{drained: 1})
	f.elect()
	f.pass(5 * time.Second)
	must("a new leader", beside{drained: 1})
	f.agents["n3"].silent = true
	f.step(SessionClosed{Node: "n3", Session: f.agents["n3"].session})
	f.pass(time.Second)
	if err := f.word("n3", "dead"); err != nil {
		t.Fatal(err)
	}
	if err := f.word("n3", "remove"); err != nil {
		t.Fatal(err)
	}
	f.pass(time.Second)
	must("one is removed", beside{})
	if _, ok := f.seen[ViewKey{Kind: api.KindNode, Name: "n3"}]; ok {
		t.Error("n3 is there still")
	}
}

// A node that answers is not removed, unless its name is free already: then whatever
// dialled under it meanwhile is no node, and what it held is started elsewhere.
func TestRemoveOfANodeThatAnswers(t *testing.T) {
	f := nodes(t, 3, Config{})
	f.apply("1", named("web", 3, "a:1"))
	f.pass(5 * time.Second)
	if err := f.word("n2", "remove"); !errors.Is(err, ErrBusy) {
		t.Errorf("removed while it answers: %v", err)
	}
	f.ticket++
	f.step(NodeWord{Ticket: f.ticket, Node: "n2", Word: "remove", Force: true, By: "user root"})
	f.agents["n2"].silent = true
	f.turn()
	if err := f.replies[f.ticket].Err; err != nil {
		t.Fatal(err)
	}
	f.pass(5 * time.Second)
	if _, there := f.seen[ViewKey{Kind: api.KindNode, Name: "n2"}]; there {
		t.Error("n2 is there still")
	}
	for slot := range 3 {
		if home := f.home("web", slot); home == "" || home == "n2" {
			t.Errorf("slot %d is on %q", slot, home)
		}
	}
}
