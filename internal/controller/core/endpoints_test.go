package core

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// ends words what an agent knows of a service: "n1, n2 degraded".
func (f *fleet) ends(agent, service string) string {
	var out []string
	for k, e := range f.agents[agent].ends {
		if k.Service == service {
			out = append(out, e.Node+map[bool]string{true: " degraded"}[e.Degraded])
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func (f *fleet) mustEnd(agent, service, want string) {
	f.t.Helper()
	if got := f.ends(agent, service); got != want {
		f.t.Errorf("%s sends traffic of %s to %q, want %q", agent, service, got, want)
	}
}

func (f *fleet) replica(service string, slot int, node string) *api.Replica {
	f.t.Helper()
	for _, x := range f.seen {
		if r, ok := x.(*api.Replica); ok && r.Spec.Service == service && r.Spec.Slot == slot && r.Spec.Node == node {
			return r
		}
	}
	f.t.Fatalf("no replica of %s-%d on %s is published", service, slot, node)
	return nil
}

// The last endpoints of a service stay while their node cannot be reached, marked,
// until anything better is ready. They never count as ready.
func TestLastEndpointsAreKeptDegraded(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(1, "a:1"), named("two", 2, "a:1"))
	f.pass(time.Second)
	home := f.home("web", 0)
	other := f.but(home)[0]
	for _, n := range f.but(home) {
		f.word(n, "cordon") // so that there is no spare
	}
	f.mustEnd(other, "web", home)
	f.silence(home)
	f.pass(time.Second)
	f.mustEnd(other, "web", home+" degraded")
	f.mustReady("web", 0)
	f.mustSay("web", "no replica can be reached: traffic still goes to web-0 on "+home)
	if r := f.replica("web", 0, home); !r.Status.Degraded || r.Status.Ready || !r.Status.LastKnown {
		t.Errorf("replica %+v", r.Status)
	}
	two := f.on(home, "two")
	if d := f.record(home, "Suspect").Done; d.EndpointsDegraded != 1 || d.EndpointsWithdrawn != two || d.SparesWaiting != 1+two {
		t.Errorf("done %+v, two had %d there", d, two)
	}
	f.node("n4", "boot1") // a spare finds room
	f.pass(time.Second)
	f.mustEnd(other, "web", "n4")
	f.mustReady("web", 1)
	if r := f.replica("web", 0, home); r.Status.Degraded {
		t.Error("it is still called degraded")
	}
	if d := f.record(home, "Suspect").Done; d.EndpointsDegraded != 0 || d.EndpointsWithdrawn != 1+two {
		t.Errorf("done %+v", d)
	}
	f.pass(time.Minute)
	f.mustEnd(other, "web", "n4")
}

func TestDegradedEndpointIsWellAgain(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(1, "a:1"))
	home := f.home("web", 0)
	for _, n := range f.but(home) {
		f.word(n, "cordon")
	}
	other := f.but(home)[0]
	for _, again := range []func(){
		func() { f.agents[home].silent = false }, // beats resume
		func() { f.dial(home) },                  // a new session
		func() { // a new session, whose report takes a while
			f.session++
			a := f.agents[home]
			a.session, a.seq, a.silent, a.cut = f.session, 0, false, true
			f.step(SessionOpened{Node: home, Session: a.session, Hello: hello(home, "boot1")})
			f.turn()
			f.mustEnd(other, "web", home+" degraded")
			f.step(Status{Node: home, Session: a.session, Report: wire.StatusReport{Complete: true, Taken: 1, Replicas: f.reports(a)}})
			f.turn()
		},
	} {
		f.silence(home)
		f.pass(time.Second)
		f.mustEnd(other, "web", home+" degraded")
		again()
		f.pass(time.Second)
		f.mustEnd(other, "web", home)
		f.mustReady("web", 1)
	}
}

// A host that answers again without its agent may have booted: what it ran gets no
// traffic beside what is well until the agent has said that it runs.
func TestEndpointsOfALostAgentThatWasSuspect(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(3, "a:1"))
	f.silentCut("n2")
	f.pass(time.Second)
	f.mustEnd("n1", "web", "n1, n1, n3")
	f.agents["n2"].hostUp = true
	f.pass(2 * time.Second)
	if v := f.core.Verdict("n2"); v != api.VerdictAgentLost {
		t.Fatalf("n2 is %s", v)
	}
	f.mustEnd("n1", "web", "n1, n1, n3")
	for _, x := range f.core.nodes["n2"].fillings {
		if f.core.publicReplica(f.core.services[x.key.ServiceKey()], x).Status.Ready {
			t.Errorf("%s counts as ready on a host that was silent, without its agent's word", x.key)
		}
	}
	f.session++
	a := f.agents["n2"]
	a.session, a.seq, a.silent, a.cut = f.session, 0, false, false
	f.step(SessionOpened{Node: "n2", Session: a.session, Hello: hello("n2", "boot1")})
	f.turn() // it reports at once
	f.pass(time.Second)
	f.mustEnd("n1", "web", "n1, n2, n3")
	f.mustReady("web", 3)
}

// One endpoint that is well suffices for all others to go.
func TestNoDegradedBesideOneThatIsWell(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(3, "a:1"))
	f.word("n1", "cordon")
	f.silence("n2")
	f.silence("n3")
	f.pass(time.Second)
	f.mustEnd("n1", "web", "n1")
	// That one is not ready any more: what else there was may be better than nothing.
	a := f.agents["n1"]
	for k := range a.holds {
		a.unready[k.Name()] = true
	}
	f.reportAll(a)
	f.mustEnd("n1", "web", "n2 degraded, n3 degraded")
	f.word("n2", "dead")
	f.mustEnd("n1", "web", "n3 degraded")
	f.apply("down", web(0, "a:1"))
	f.pass(time.Second)
	f.mustEnd("n1", "web", "")
}

// What was not ready when it was last heard of is no endpoint; nor is what is
// exclusive: its lease ends it.
func TestWhatIsNeverDegraded(t *testing.T) {
	f, home := exclusiveFleet(t)
	for _, n := range f.but(home) {
		f.word(n, "cordon")
	}
	f.agents[home].unready["web-0"] = true
	f.apply("2", web(1, "a:1"))
	other := f.but(home)[0]
	f.mustEnd(other, "db", home)
	f.silentCut(home)
	f.pass(time.Second)
	f.mustEnd(other, "db", "")
	f.mustEnd(other, "web", "")
}

// A new leader does not know the endpoints of a node that is gone. Where they are
// a service's last, agents keep what they know; else they go.
func TestTakeoverKeepsTheLastEndpoints(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(1, "a:1"), named("two", 3, "a:1"))
	home := f.home("web", 0)
	for _, n := range f.but(home) {
		f.word(n, "cordon")
	}
	other, third := f.but(home)[0], f.but(home)[1]
	f.silence(home)
	f.elect()
	f.dial(other, third)
	f.pass(5 * time.Second)
	if v := f.core.Verdict(home); v != api.VerdictSuspect {
		t.Fatalf("%s is %s", home, v)
	}
	f.mustEnd(other, "web", home)
	if n := len(strings.Split(f.ends(other, "two"), ", ")); n != 2 {
		t.Errorf("endpoints of two: %s", f.ends(other, "two"))
	}
	f.dial(third) // a new session is told the same
	f.mustEnd(third, "web", home)
	f.mustReady("web", 0)
	f.word(other, "uncordon")
	f.pass(time.Second)
	f.mustEnd(other, "web", other)
	f.mustEnd(third, "web", other)
}

// What agents keep of a node that cannot be reached is published as long as they
// keep it: as long as the service has nothing better.
func TestKeptEndpointsArePublished(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(2, "a:1"))
	f.pass(time.Second)
	gone := f.home("web", 1)
	key := endpointKey(f.core.fillings[f.key("web", 1)])
	for _, n := range f.but(gone) {
		f.agents[n].unready["web-1"] = true // its spare
	}
	f.silence(gone)
	f.elect()
	f.dial(f.but(gone)...)
	f.pass(4 * time.Second)
	if v := f.core.Verdict(gone); v != api.VerdictSuspect {
		t.Fatalf("%s is %s", gone, v)
	}
	for i, ready := range []bool{true, false, true, false} {
		for _, n := range f.but(gone) {
			f.agents[n].unready["web-0"] = !ready
			f.reportAll(f.agents[n])
		}
		if e, is := f.seen[key].(*api.Endpoint); is == ready || is && !e.Status.Kept {
			t.Errorf("%d: web-0 is ready: %t, and the endpoint that is kept is published as %+v", i, ready, e)
		}
	}
}

// The same of what is exclusive, when its lease ends before any agent has asked.
func TestKeptEndpointsEndWithTheirLease(t *testing.T) {
	f := threeNodes(t)
	grace := api.Duration(time.Second)
	s := named("db", 1, "a:1")
	s.Spec.Exclusive, s.Spec.TerminationGracePeriod = true, &grace
	s.Default()
	f.apply("1", s)
	f.pass(time.Second)
	x := f.core.fillings[f.key("db", 0)]
	for _, a := range f.agents {
		a.silent, a.hostUp = true, true
	}
	f.elect()
	f.pass(5 * time.Second)
	if e, is := f.seen[endpointKey(x)].(*api.Endpoint); !is || !e.Status.Kept {
		t.Fatalf("published as %+v", e)
	}
	f.pass(9 * time.Second)
	if x := f.core.fillings[x.key]; x == nil || f.core.standingOf(x) != out || x.stopping {
		t.Fatalf("it is %+v", x)
	}
	if e, is := f.seen[endpointKey(x)]; is {
		t.Errorf("after its lease it is published as %+v", e)
	}
}
