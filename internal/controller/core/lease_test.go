package core

import (
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// fenceMost is how long the fence of a replica with the lease of only lasts after
// the last grant, or after a term began.
const (
	onlyLease = 6 * time.Second
	fenceMost = onlyLease + onlyLease/100
)

// only is an exclusive service.
func only(name string, replicas int, image string) *api.Service {
	s := named(name, replicas, image)
	lease := api.Duration(onlyLease)
	s.Spec.Exclusive, s.Spec.LeaseDuration = true, &lease
	s.Default()
	return s
}

// exclusiveFleet has an exclusive service db with one replica, on the node home.
func exclusiveFleet(t *testing.T) (f *fleet, home string) {
	f = threeNodes(t)
	f.apply("1", only("db", 1, "a:1"))
	f.pass(time.Second)
	f.mustReady("db", 1)
	return f, f.home("db", 0)
}

// runsFrom passes time until the service has a ready replica, and gives how long
// that took.
func (f *fleet) runsFrom(service string, most time.Duration) time.Duration {
	f.t.Helper()
	for from := f.now; f.now.Sub(from) < most; f.pass(50 * time.Millisecond) {
		if f.service(service).Status.Ready > 0 {
			return f.now.Sub(from)
		}
	}
	f.t.Fatalf("%s does not run after %s: %q", service, most, f.service(service).Status.Reasons)
	return 0
}

// between fails where a refill came too early or too late.
func between(t *testing.T, what string, took, least, most time.Duration) {
	t.Helper()
	if took < least || took > most {
		t.Errorf("%s: it runs elsewhere after %s, want %s to %s", what, took, least, most)
	}
}

// dial has agents dial anew, in the same life.
func (f *fleet) dial(names ...string) {
	f.t.Helper()
	for _, n := range names {
		f.node(n, f.agents[n].boot)
	}
}

func (f *fleet) but(name string) []string {
	var out []string
	for _, n := range []string{"n1", "n2", "n3"} {
		if n != name {
			out = append(out, n)
		}
	}
	return out
}

func TestExclusiveRunsUnderALease(t *testing.T) {
	f, home := exclusiveFleet(t)
	f.pass(20 * time.Second)
	f.mustReady("db", 1)
	if f.agents[home].grants < 15 || len(f.core.fillings) != 1 {
		t.Errorf("%d grants in 20 s, %d fillings", f.agents[home].grants, len(f.core.fillings))
	}
}

// A node is cut off: no spare, the endpoint goes, and the slot is filled as soon
// as the last lease has surely ended, not sooner. fleet.alone watches.
func TestExclusiveWaitsForTheLeaseOfASuspectNode(t *testing.T) {
	f, home := exclusiveFleet(t)
	f.silentCut(home)
	f.pass(time.Second)
	f.mustReady("db", 0)
	if r := strings.Join(f.service("db").Status.Reasons, "; "); !strings.Contains(r, "waits until") {
		t.Errorf("reasons: %s", r)
	}
	for name, a := range f.agents {
		if len(a.ends) != 0 && !a.cut {
			t.Errorf("%s still sends traffic to %v", name, a.ends)
		}
	}
	between(t, "cut", f.runsFrom("db", 20*time.Second)+time.Second, fenceMost-time.Second, fenceMost+200*time.Millisecond)
	f.dial(home)
	f.pass(time.Second)
	f.mustReady("db", 1)
	if len(f.agents[home].holds) != 0 || len(f.core.fillings) != 1 {
		t.Errorf("%s holds %v, %d fillings", home, f.agents[home].holds, len(f.core.fillings))
	}
}

// It is back before the lease ends: nothing happened to it.
func TestExclusiveSurvivesAShortCut(t *testing.T) {
	f, home := exclusiveFleet(t)
	epoch := f.core.counters.epoch
	f.silentCut(home)
	f.pass(3 * time.Second)
	f.dial(home)
	f.pass(10 * time.Second)
	f.mustReady("db", 1)
	if f.core.counters.epoch != epoch {
		t.Error("it was placed anew")
	}
}

func TestExclusiveWaitsForTheLeaseOfALostAgent(t *testing.T) {
	f, home := exclusiveFleet(t)
	f.silentCut(home)
	f.agents[home].hostUp = true
	f.step(SessionClosed{Node: home, Session: f.agents[home].session})
	f.pass(2 * time.Second)
	if v := f.core.Verdict(home); v != api.VerdictAgentLost {
		t.Fatalf("%s is %s", home, v)
	}
	f.pass(6 * time.Second)
	f.mustReady("db", 1)
	if at := f.home("db", 0); at == home {
		t.Errorf("it is still on %s", at)
	}
}

// Neither the operator's "dead" nor "remove" lets anything run before the lease
// has ended; deleting the service and making it anew does not either, nor scaling.
func TestNoWordLiftsAFence(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(f *fleet, home string)
	}{
		{"dead", func(f *fleet, home string) { f.word(home, "dead") }},
		{"dead and removed", func(f *fleet, home string) {
			f.word(home, "dead")
			f.word(home, "remove")
		}},
		{"removed, and another machine joins by its name", func(f *fleet, home string) {
			f.word(home, "dead")
			f.word(home, "remove")
			f.agents["old"] = f.agents[home]
			delete(f.agents, home)
			f.node(home, "boot of another")
		}},
		{"deleted and made anew", func(f *fleet, home string) {
			f.delete("db")
			f.pass(time.Second)
			if r := f.apply("again", only("db", 1, "a:1")); r.Err == nil {
				f.t.Error("it could be made anew before its fence passed")
			}
			f.word(home, "dead")
			f.pass(time.Second)
			if r := f.apply("and again", only("db", 1, "a:1")); r.Err == nil {
				f.t.Error("it could be made anew before its fence passed, its node being dead")
			}
			for f.seen[ViewKey{api.KindService, "default", "db"}] != nil && f.now.Sub(start) < time.Minute {
				f.pass(50 * time.Millisecond)
			}
			f.apply("at last", only("db", 1, "a:1"))
		}},
		{"scaled down and up", func(f *fleet, _ string) {
			f.apply("down", only("db", 0, "a:1"))
			f.pass(time.Second)
			f.apply("up", only("db", 1, "a:1"))
		}},
		{"scaled down, dead, scaled up", func(f *fleet, home string) {
			f.apply("down", only("db", 0, "a:1"))
			f.word(home, "dead")
			f.pass(time.Second)
			f.apply("up", only("db", 1, "a:1"))
		}},
		{"a new revision", func(f *fleet, _ string) { f.apply("new", only("db", 1, "a:2")) }},
		{"no longer exclusive", func(f *fleet, _ string) { f.apply("new", named("db", 1, "a:2")) }},
		{"no longer exclusive, and dead", func(f *fleet, home string) {
			f.word(home, "dead")
			f.apply("new", named("db", 1, "a:2"))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, home := exclusiveFleet(t)
			f.silentCut(home)
			cut := f.now
			f.pass(500 * time.Millisecond)
			c.do(f, home)
			f.alone()
			f.runsFrom("db", 20*time.Second)
			between(t, c.name, f.now.Sub(cut), fenceMost-time.Second, fenceMost+600*time.Millisecond)
			f.pass(2 * time.Second)
			f.mustReady("db", 1)
			if len(f.core.fillings) != 1 && f.core.Verdict(home) == api.VerdictDead {
				t.Errorf("%d fillings are left", len(f.core.fillings))
			}
		})
	}
}

// "dead" said of a node that lives: it is told to stop what it has, and as soon
// as it says that it did, the slot is filled.
func TestDeadSaidOfALivingNode(t *testing.T) {
	f, home := exclusiveFleet(t)
	f.agents[home].cut = true // the session ends
	f.word(home, "dead")
	f.pass(time.Second)
	f.mustReady("db", 0)
	f.dial(home)
	f.pass(200 * time.Millisecond)
	f.mustReady("db", 1)
	if r := f.record(home, "Dead"); r.Done.Voided != 1 || len(r.By) == 0 {
		t.Errorf("record %+v", r)
	}
}

// A boot ends all that ran before; there is nothing to wait for.
func TestABootLiftsAFence(t *testing.T) {
	f, home := exclusiveFleet(t)
	f.silentCut(home)
	f.pass(time.Second)
	f.node(home, "boot2")
	f.pass(200 * time.Millisecond)
	f.mustReady("db", 1)
	f.silentCut(f.home("db", 0))
	gone := f.home("db", 0)
	f.word(gone, "dead") // lapsed already when it boots
	f.pass(200 * time.Millisecond)
	f.mustReady("db", 0)
	f.log = nil
	f.node(gone, "boot3")
	f.pass(200 * time.Millisecond)
	f.mustReady("db", 1)
	for _, line := range f.log {
		if strings.HasPrefix(line, gone) && strings.Contains(line, "stopping") {
			t.Errorf("a machine that booted is told of what was before: %s", line)
		}
	}
}

// A new leader cannot know what the one before granted at last: it waits from its
// own beginning, for what lives, what is stopping, what is dead, and what an
// operator removed.
func TestTakeoverWaitsForTheLeasesOfTheLeaderBefore(t *testing.T) {
	for _, c := range []struct {
		name   string
		before func(f *fleet, home string)
	}{
		{"cut", func(*fleet, string) {}},
		{"dead", func(f *fleet, home string) { f.word(home, "dead") }},
		{"removed", func(f *fleet, home string) {
			f.word(home, "dead")
			f.word(home, "remove")
		}},
		{"removed, and another machine has joined by its name", func(f *fleet, home string) {
			f.word(home, "dead")
			f.word(home, "remove")
			f.agents["old"] = f.agents[home]
			delete(f.agents, home)
			f.node(home, "boot of another")
		}},
		{"scaled down and up", func(f *fleet, _ string) {
			f.apply("down", only("db", 0, "a:1"))
			f.apply("up", only("db", 1, "a:1"))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, home := exclusiveFleet(t)
			f.silentCut(home)
			f.pass(500 * time.Millisecond)
			c.before(f, home)
			f.pass(3 * time.Second)
			f.elect()
			f.dial(f.but(home)...)
			if a := f.agents[home]; a != nil && !a.cut {
				f.dial(home)
			}
			f.runsFrom("db", 20*time.Second)
			most := fenceMost + QuorumFresh
			between(t, c.name, f.now.Sub(f.began), most, most+500*time.Millisecond)
		})
	}
}

// The cut node is heard by the new leader: what it runs, it may run on, at once.
func TestTakeoverLetsWhatRunsRun(t *testing.T) {
	f, home := exclusiveFleet(t)
	epoch := f.core.counters.epoch
	f.elect()
	f.dial("n1", "n2", "n3")
	f.pass(10 * time.Second)
	f.mustReady("db", 1)
	if f.core.counters.epoch != epoch || f.home("db", 0) != home {
		t.Error("it was placed anew")
	}
}

// Without a fresh word of a quorum nothing is granted, and the renewal brings
// about a commit without writes that asks for it.
func TestNoGrantWithoutAQuorum(t *testing.T) {
	f, home := exclusiveFleet(t)
	a := f.agents[home]
	f.pass(2 * time.Second)
	f.commits, f.out = false, nil
	grants := a.grants
	f.now = f.now.Add(QuorumFresh) // nothing was committed for so long
	sent := f.now
	f.renew(a)
	f.turn()
	if a.grants != grants {
		t.Fatal("granted though no quorum has answered for long")
	}
	if len(f.out) != 1 || len(f.out[0].Ops) != 0 {
		t.Fatalf("transactions that ask the quorum: %+v", f.out)
	}
	f.now = f.now.Add(QuorumFresh + time.Millisecond)
	f.commit(f.out[0]) // it was sent too long ago by now
	if a.grants != grants {
		t.Fatal("granted by a commit that was sent long ago")
	}
	f.turn()
	if len(f.out) != 2 || len(f.out[1].Ops) != 0 {
		t.Fatalf("it is not tried again: %+v", f.out)
	}
	f.now = f.now.Add(QuorumFresh - time.Millisecond)
	f.commit(f.out[1])
	if a.grants != grants+1 {
		t.Fatal("not granted though a quorum has just answered")
	}
	if until := a.leases[f.key("db", 0)]; !until.Equal(sent.Add(onlyLease - onlyLease/100)) {
		t.Errorf("the lease ends %s after the renewal was sent", until.Sub(sent))
	}
	f.step(Stalled{For: time.Second})
	f.renew(a)
	if a.grants != grants+1 {
		t.Fatal("granted after a stall by what was known before")
	}
	f.turn()
	f.step(Stalled{For: time.Second})
	f.commit(f.out[2])
	if a.grants != grants+1 {
		t.Fatal("granted by a commit that was sent before a stall")
	}
	// The fence counts from the grant.
	if at := f.core.fence(f.core.fillings[f.key("db", 0)]); !at.Equal(f.now.Add(fenceMost)) {
		t.Errorf("the fence is %s after the grant", at.Sub(f.now))
	}
}

func (f *fleet) key(service string, slot int) api.ReplicaKey {
	f.t.Helper()
	for _, x := range f.core.services[api.Key{Namespace: "default", Name: service}].inSlot(slot) {
		if !x.stopping {
			return x.key
		}
	}
	f.t.Fatalf("nothing lives in %s-%d", service, slot)
	return api.ReplicaKey{}
}

// Only what is the node's own, and not on its way out, gets a lease; who asks is
// answered even if that is nothing, and an ended session is not.
func TestGrantsAreForWhatLives(t *testing.T) {
	f, home := exclusiveFleet(t)
	f.apply("2", web(1, "a:1"))
	f.pass(100 * time.Millisecond)
	k, plain := f.key("db", 0), f.key("web", 0)
	granted := func(node string, session uint64, keys ...api.ReplicaKey) *wire.Grant {
		var out *wire.Grant
		f.pass(100 * time.Millisecond)
		for _, e := range f.core.Step(Renew{Node: node, Session: session, Renewal: wire.Renewal{ID: 7, Keys: keys}}, f.now) {
			if g, ok := e.(SendGrant); ok {
				out = &g.Grant
			}
		}
		f.turn()
		return out
	}
	f.step(Write{Ticket: 1000}) // a quorum answers
	f.turn()
	own := f.agents[home].session
	other := f.but(home)[0]
	if g := granted(home, own, k, plain); g == nil || len(g.Leases) != 1 || g.Leases[0] != (wire.Lease{Key: k, For: onlyLease}) || g.ID != 7 {
		t.Errorf("the living replica's lease: %+v", g)
	}
	if g := granted(other, f.agents[other].session, k); g == nil || len(g.Leases) != 0 {
		t.Errorf("another node's lease: %+v", g)
	}
	if g := granted(home, own-1, k); g != nil {
		t.Errorf("in a session that is over: %+v", g)
	}
	f.agents[home].cut = true // it does not hear that it is to stop
	f.apply("down", only("db", 0, "a:1"))
	if g := granted(home, own, k); g == nil || len(g.Leases) != 0 {
		t.Errorf("of a replica that is to stop: %+v", g)
	}
}

// What this leader placed and never granted a lease never ran.
func TestNeverGrantedIsNeverWaitedFor(t *testing.T) {
	f := threeNodes(t)
	f.commits = false
	f.apply("1", only("db", 1, "a:1"))
	home := f.home("db", 0)
	f.silentCut(home) // it will hear nothing
	f.commits = true
	f.commit(f.out[0])
	f.pass(2 * time.Second)
	f.mustReady("db", 1)
}

// Agents ask at once for what is new to them, and for that only: what they asked
// for before is still to be answered.
func TestARenewalDoesNotReplaceTheOneBefore(t *testing.T) {
	f, home := exclusiveFleet(t)
	k, session := f.key("db", 0), f.agents[home].session
	f.commits, f.out = false, nil
	f.now = f.now.Add(QuorumFresh)
	granted := map[uint64]int{}
	hear := func(effects []Effect) {
		for _, e := range effects {
			if g, ok := e.(SendGrant); ok {
				granted[g.Grant.ID] += len(g.Grant.Leases)
			}
		}
	}
	ask := func(id uint64, session uint64, keys ...api.ReplicaKey) {
		hear(f.core.Step(Renew{Node: home, Session: session, Renewal: wire.Renewal{ID: id, Keys: keys}}, f.now))
	}
	ask(1, session, k)
	ask(2, session)
	f.turn()
	hear(f.core.Step(Committed{Seq: f.out[0].Seq, Rev: f.rev}, f.now))
	if granted[1] != 1 || len(granted) != 2 {
		t.Errorf("granted %v, want a lease for the first and an answer for the second", granted)
	}
	f.now = f.now.Add(QuorumFresh)
	for id := uint64(10); id < 1000; id++ {
		ask(id, session, k)
	}
	if n := len(f.core.renewals[home]); n != renewalsHeld {
		t.Errorf("%d are held", n)
	}
	f.turn()
	hear(f.core.Step(Committed{Seq: f.out[1].Seq, Rev: f.rev}, f.now))
	if granted[999] != 1 || len(f.core.renewals) != 0 {
		t.Errorf("the last is answered %d times, %d are left", granted[999], len(f.core.renewals))
	}
}
