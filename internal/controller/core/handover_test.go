package core

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// handedOver checks that no agent that speaks, and knows this leader's endpoints,
// leads traffic to what is told to stop.
func (f *fleet) handedOver(k api.ReplicaKey) {
	f.t.Helper()
	for _, a := range f.agents {
		if _, leads := a.ends[k]; leads && a.session != 0 && a.routed == a.session && !a.silent && !a.cut && !a.mute {
			f.t.Errorf("%s is told to stop while %s sends it traffic", k, a.name)
		}
	}
}

// mute has agents not say which endpoints are in force.
func (f *fleet) mute(is bool, names ...string) {
	for _, n := range names {
		f.agents[n].mute = is
	}
}

// ack has an agent say what is in force.
func (f *fleet) ack(name string, version uint64) {
	f.t.Helper()
	f.step(Acked{Node: name, Session: f.agents[name].session, EndpointVersion: version})
	f.turn()
}

// handing gives three ready replicas of which web-2 is to go, and its home. No
// agent says that it has heard of it.
func handing(t *testing.T) (f *fleet, home string) {
	f = threeNodes(t)
	f.apply("1", web(3, "a:1"))
	f.pass(5 * time.Second)
	home = f.home("web", 2)
	f.mute(true, "n1", "n2", "n3")
	f.apply("2", web(2, "a:1"))
	f.mustEnd("n1", "web", f.ends(home, "web"))
	if f.on(home, "web") != 1 || len(f.agents[home].ends) != 2 {
		t.Fatalf("%s holds %v, its endpoints are %v", home, f.agents[home].holds, f.agents[home].ends)
	}
	return f, home
}

// A stop waits until every agent with a session has the endpoints without it.
func TestStopWaitsForAllAgents(t *testing.T) {
	f, home := handing(t)
	r := f.replica("web", 2, home)
	if r.Status.Phase != api.PhaseStopping || r.Status.Reason != api.ReasonHandingOver || r.Status.Ready {
		t.Errorf("shown as %+v", r.Status)
	}
	version := f.core.ends.version
	f.ack("n1", version)
	f.ack("n2", version-1)
	f.ack("n3", version)
	if f.on(home, "web") != 1 {
		t.Fatal("it was told to stop before n2 has the endpoints")
	}
	f.step(Acked{Node: "n2", Session: 7777, EndpointVersion: version}) // another session's word
	f.turn()
	if f.on(home, "web") != 1 {
		t.Fatal("another session's word was taken")
	}
	f.ack("n2", version+3) // what is newer will do
	if f.on(home, "web") != 0 || len(f.core.fillings) != 2 {
		t.Error("it was not told to stop although all agents have the endpoints")
	}
}

// Nobody waits for longer than the limit.
func TestStopWaitsNoLongerThanTheLimit(t *testing.T) {
	f, home := handing(t)
	f.pass(1900 * time.Millisecond)
	if f.on(home, "web") != 1 {
		t.Fatal("told to stop before the limit")
	}
	f.pass(200 * time.Millisecond)
	if f.on(home, "web") != 0 {
		t.Error("not told to stop after the limit")
	}
	if _, ok := f.core.NextWake(); ok && !f.core.nextHandover().IsZero() {
		t.Error("something still waits")
	}
}

// The limit counts from when agents could be told, not from when it was decided: a
// store that is slow takes nothing off it.
func TestLimitCountsFromTheSending(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(3, "a:1"))
	f.pass(5 * time.Second)
	home := f.home("web", 2)
	f.mute(true, "n1", "n2", "n3")
	f.commits = false
	f.apply("2", web(2, "a:1"))
	f.pass(3 * time.Second)
	f.commits = true
	for len(f.out) > 0 {
		e := f.out[0]
		f.out = f.out[1:]
		f.commit(e)
	}
	f.turn()
	f.pass(1500 * time.Millisecond)
	if f.on(home, "web") != 1 || len(f.agents["n1"].ends) != 2 {
		t.Fatalf("told to stop 1.5 s after agents were told; n1 has %d endpoints", len(f.agents["n1"].ends))
	}
	f.pass(600 * time.Millisecond)
	if f.on(home, "web") != 0 {
		t.Error("not told to stop after the limit")
	}
}

// What gets no traffic for long is told at once, whoever is mute.
func TestStopOfWhatHasNoTrafficIsAtOnce(t *testing.T) {
	f := threeNodes(t)
	for _, a := range f.agents {
		a.unready["web-2"] = true
	}
	f.apply("1", web(3, "a:1"))
	home := f.home("web", 2)
	f.mute(true, "n1", "n2", "n3")
	f.apply("2", web(2, "a:1"))
	if f.on(home, "web") != 0 {
		t.Error("it waits though it never was ready")
	}
}

// Who has no session is not waited for; who has one again is, until it has acknowledged its
// complete set; who joins meanwhile is, too.
func TestHandOverAndSessions(t *testing.T) {
	f, home := handing(t)
	others := f.but(home)
	for _, n := range append(others[1:], home) {
		f.ack(n, f.core.ends.version)
	}
	a := f.agents[others[0]]
	f.step(SessionClosed{Node: a.name, Session: a.session})
	f.node(a.name, a.boot) // dials anew, and is still mute
	f.agents["n4"] = &agent{name: "n4", mute: true, unready: map[string]bool{}}
	f.node("n4", "boot1")
	if f.on(home, "web") != 1 {
		t.Fatal("not waited for an agent that dialled anew")
	}
	f.ack(a.name, f.core.ends.version)
	if f.on(home, "web") != 1 {
		t.Fatal("not waited for a node that joined")
	}
	f.step(SessionClosed{Node: "n4", Session: f.agents["n4"].session})
	f.agents["n4"].session = 0
	f.turn()
	if f.on(home, "web") != 0 {
		t.Error("a node without a session is waited for")
	}
}

// A new leader does not know who was handed over: it begins anew, waits for the
// agents that it has not heard of yet, and no longer than the limit.
func TestHandOverOverATakeover(t *testing.T) {
	for _, c := range []struct {
		name        string
		back, mute  bool // the last agent's return
		least, most time.Duration
	}{
		{"all come back", true, false, 0, 50 * time.Millisecond},
		{"one says nothing", true, true, 1900 * time.Millisecond, 2100 * time.Millisecond},
		{"one never comes back", false, false, 1900 * time.Millisecond, 2100 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, home := handing(t)
			first, last := f.but(home)[0], f.but(home)[1]
			f.elect()
			began := f.now
			f.mute(false, home, first, last)
			f.mute(c.mute, last)
			f.dial(home)
			if f.on(home, "web") != 1 {
				t.Fatal("told to stop before the other agents have this leader's endpoints")
			}
			f.dial(first)
			if f.on(home, "web") != 1 {
				t.Fatal("told to stop before the last agent was heard of")
			}
			if c.back {
				f.dial(last)
			}
			for f.on(home, "web") == 1 && f.now.Sub(began) < 10*time.Second {
				f.pass(50 * time.Millisecond)
			}
			if took := f.now.Sub(began); took < c.least || took > c.most {
				t.Errorf("it was told to stop after %s", took)
			}
		})
	}
}

// What its agent stops already is not waited for.
func TestHandOverOfWhatStopsAlready(t *testing.T) {
	f, home := handing(t)
	a := f.agents[home]
	for k, x := range a.holds {
		if k.Slot == 2 {
			f.step(Status{Node: home, Session: a.session, Report: wire.StatusReport{Replicas: []wire.Report{
				{Key: k, Revision: x.Revision, Status: api.ReplicaStatus{Phase: api.PhaseStopping}}}}})
		}
	}
	f.turn()
	if f.on(home, "web") != 0 {
		t.Error("it stops, and is not told to")
	}
}

// A service of a thousand waits as one, and each acknowledgement costs nothing.
func TestHandOverOfAThousand(t *testing.T) {
	f := nodes(t, 10, Config{})
	f.apply("1", web(1000, "a:1"))
	f.mustReady("web", 1000)
	f.mute(true, "n1")
	f.delete("web")
	if n := len(f.core.handovers.waiting); n != 1 || f.running() != 1000 {
		t.Fatalf("%d wait, %d run", n, f.running())
	}
	behind := len(f.core.handovers.behind)
	for range 100 {
		f.ack("n2", f.core.ends.version)
	}
	if behind == 0 || len(f.core.handovers.behind) > behind {
		t.Errorf("%d nodes are behind, %d were", len(f.core.handovers.behind), behind)
	}
	f.ack("n1", f.core.ends.version)
	if f.running() != 0 || len(f.core.services) != 0 {
		t.Errorf("%d run, services %v", f.running(), len(f.core.services))
	}
}

// Each of several withdrawals waits for its own version, and none for a later one's.
func TestHandOversInTurn(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(6, "a:1"))
	f.pass(5 * time.Second)
	f.mute(true, "n1", "n2", "n3")
	var versions []uint64
	for i := range 3 {
		f.apply(fmt.Sprint("down", i), web(5-i, "a:1"))
		versions = append(versions, f.core.ends.version)
	}
	for i, v := range versions {
		if f.running() != 6-i {
			t.Fatalf("%d run before version %d is in force", f.running(), v)
		}
		for _, n := range []string{"n3", "n1", "n2"} {
			f.ack(n, v)
		}
	}
	if f.running() != 3 || !f.core.nextHandover().IsZero() {
		t.Errorf("%d run in the end", f.running())
	}
}

// A withdrawal waits for the commit that was gathering then, perhaps for long: agents
// have their time from when they are told of it.
func TestWithdrawalThatWaitedIsHandedOver(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(3, "a:1"))
	f.pass(5 * time.Second)
	home := f.home("web", 2)
	f.mute(true, "n1", "n2", "n3")
	other := web(1, "a:1")
	other.Metadata.Name = "db"
	f.commits = false
	f.ticket++
	f.step(Apply{Ticket: f.ticket, Services: []*api.Service{other}, RequestID: "2", By: "tester"})
	f.turn()
	f.agents[home].unready["web-2"] = true
	f.reportAll(f.agents[home])
	f.pass(3 * time.Second)
	f.ticket++
	f.step(Scale{Ticket: f.ticket, Key: api.Key{Namespace: api.DefaultNamespace, Name: "web"}, Replicas: 2, Current: -1, RequestID: "3", By: "tester"})
	f.turn()
	f.commits = true
	for len(f.out) > 0 {
		e := f.out[0]
		f.out = f.out[1:]
		f.commit(e)
	}
	f.turn()
	if len(f.agents["n1"].ends) != 3 || f.on(home, "web") != 1 { // two of web, one of db
		t.Fatalf("n1 has %d endpoints, %s holds %d of web: told to stop as soon as agents were told", len(f.agents["n1"].ends), home, f.on(home, "web"))
	}
	f.pass(2100 * time.Millisecond)
	if f.on(home, "web") != 0 {
		t.Error("not told to stop after the limit")
	}
}

// A node that was away when it was to be told is told in its next session, and then
// others may have come back before it that lead traffic there.
func TestAwayIsHandedOverAgain(t *testing.T) {
	f, home := handing(t)
	others := slices.DeleteFunc([]string{"n1", "n2", "n3"}, func(n string) bool { return n == home })
	for _, n := range []string{home, others[0]} {
		f.step(SessionClosed{Node: n, Session: f.agents[n].session})
		f.agents[n].session = 0
	}
	f.ack(others[1], f.core.ends.version)
	boot := f.agents[home].boot
	f.node(others[0], f.agents[others[0]].boot)
	f.node(home, boot)
	if f.on(home, "web") != 1 {
		t.Fatalf("told to stop before %s has the endpoints", others[0])
	}
	f.ack(others[0], f.core.ends.version)
	f.ack(home, f.core.ends.version)
	if f.on(home, "web") != 0 {
		t.Error("not told to stop though all have the endpoints")
	}
}

// What a session has said ends with it: the next may be of a node that has booted
// since, and leads traffic by an old file.
func TestASessionsWordEndsWithIt(t *testing.T) {
	f, home := handing(t)
	f.ack("n1", f.core.ends.version)
	f.node("n1", f.agents["n1"].boot)
	f.ack("n2", f.core.ends.version)
	f.ack("n3", f.core.ends.version)
	if f.on(home, "web") != 1 {
		t.Fatal("told to stop by what n1 said in its last session")
	}
	f.ack("n1", f.core.ends.version)
	if f.on(home, "web") != 0 {
		t.Error("not told to stop though all have the endpoints")
	}
}
