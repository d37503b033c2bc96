package core

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// each is a global service.
func each(name, image string, unavailable int) *api.Service {
	s := named(name, 1, image)
	none, some := api.IntOrPercent{}, api.IntOrPercent{Value: unavailable}
	s.Spec.Mode, s.Spec.Replicas, s.Spec.Rollout.MaxSurge, s.Spec.Rollout.MaxUnavailable = api.ModeGlobal, nil, &none, &some
	return s
}

// where gives what lives of a service: "n1:log-0@1", by node; the number behind is the
// revision's.
func (f *fleet) where(service string) string {
	var out []string
	for _, x := range f.core.services[api.Key{Namespace: "default", Name: service}].fillings {
		if !x.stopping && !x.void {
			out = append(out, fmt.Sprintf("%s:%s@%d", x.node, x.key.Name(), x.revision))
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func (f *fleet) mustBe(service, want string) {
	f.t.Helper()
	if got := f.where(service); got != want {
		f.t.Fatalf("%s after %s: %q, want %q; status %+v", service, f.now.Sub(start), got, want, f.service(service).Status)
	}
}

// mustCount checks how many replicas of a global service are ready, of how many.
func (f *fleet) mustCount(service string, ready, of int) {
	f.t.Helper()
	if st := f.service(service).Status; st.Ready != ready || st.Replicas != of {
		f.t.Fatalf("%s: %d of %d ready, want %d of %d; %q", service, st.Ready, st.Replicas, ready, of, st.Reasons)
	}
}

// tag has a node join or dial again with labels.
func (f *fleet) tag(name, label, value string) {
	f.t.Helper()
	a := f.agents[name]
	f.session++
	a.session, a.seq, a.silent, a.cut = f.session, 0, false, false
	f.step(SessionOpened{Node: name, Session: a.session, Hello: wire.Hello{BootID: a.boot, Address: "10.0.0." + name[1:], Labels: map[string]string{label: value},
		Capacity: api.ResourceList{api.CPU: api.Whole(4), api.Memory: api.Whole(8 << 30)}}})
	f.turn()
	f.reportAll(a)
}

func TestGlobalOnEveryNodeThatIsFit(t *testing.T) {
	f := threeNodes(t)
	if r := f.apply("1", each("log", "a:1", 1)); r.Err != nil || r.Value.(ApplyResult).Applied[0].Service.Status.Replicas != 3 {
		t.Fatalf("%+v", r)
	}
	f.mustBe("log", "n1:log-0@1 n2:log-1@1 n3:log-2@1")
	f.mustCount("log", 3, 3)
	f.node("n4", "boot1") // a node that joins has its replica with the same turn
	f.mustBe("log", "n1:log-0@1 n2:log-1@1 n3:log-2@1 n4:log-3@1")
	f.mustCount("log", 4, 4)

	// Scaling it is refused, in words.
	f.ticket++
	f.step(Scale{Ticket: f.ticket, Key: api.Key{Namespace: "default", Name: "log"}, Replicas: 2, Current: -1})
	f.turn()
	if err := f.replies[f.ticket].Err; err == nil || !strings.Contains(err.Error(), "it is global and has one replica on every node that is fit") {
		t.Errorf("scale: %v", err)
	}
	// Rebalancing leaves it alone.
	if r, err := f.rebalance(false); err != nil || len(r.Moves) > 0 {
		t.Errorf("rebalance: %+v, %v", r, err)
	}
	f.delete("log")
	f.pass(time.Second)
	if f.running() > 0 || len(f.core.globals) > 0 || f.core.services[api.Key{Namespace: "default", Name: "log"}] != nil {
		t.Error("something is left of it")
	}
}

// Cordon, drain, a label that is taken away, the end of a node: what becomes of its
// replica, and of its seat when the node is fit again.
func TestGlobalAndWhatBecomesOfItsNodes(t *testing.T) {
	all := "n1:log-0@1 n2:log-1@1 n3:log-2@1"
	for _, c := range []struct {
		name        string
		do          func(*fleet)
		then        string
		ready, of   int
		back        func(*fleet)
		afterwards  string
		saysOfNode  string // by its event
		saysService string
	}{
		{name: "cordon", do: func(f *fleet) { f.word("n2", "cordon") }, then: all, ready: 3, of: 3,
			back: func(f *fleet) { f.word("n2", "uncordon") }, afterwards: all},
		{name: "drain", do: func(f *fleet) { f.drainBy("n2", 0) }, then: "n1:log-0@1 n3:log-2@1", ready: 2, of: 2,
			back: func(f *fleet) { f.word("n2", "uncordon") }, afterwards: all, saysOfNode: "no replica runs there any more"},
		{name: "label", do: func(f *fleet) { f.tag("n2", "kind", "other") }, then: "n1:log-0@1 n3:log-2@1", ready: 2, of: 2,
			back: func(f *fleet) { f.tag("n2", "kind", "worker") }, afterwards: all},
		{name: "dead", do: func(f *fleet) { f.silence("n2"); f.pass(70 * time.Second) }, then: "n1:log-0@1 n3:log-2@1", ready: 2, of: 2,
			back: func(f *fleet) {
				f.agents["n2"].boot = "boot2"
				f.agents["n2"].holds = map[api.ReplicaKey]wire.Assignment{}
				f.again("n2")
			}, afterwards: all},
		{name: "removed", do: func(f *fleet) {
			f.silence("n2")
			f.pass(70 * time.Second)
			f.word("n2", "remove")
			delete(f.agents, "n2")
		}, then: "n1:log-0@1 n3:log-2@1", ready: 2, of: 2,
			back: func(f *fleet) { f.node("n9", "boot1"); f.tag("n9", "kind", "worker") }, afterwards: "n1:log-0@1 n3:log-2@1 n9:log-1@1"},
		{name: "suspect", do: func(f *fleet) { f.silence("n2"); f.pass(3 * time.Second) }, then: all, ready: 2, of: 3,
			back: func(f *fleet) { f.again("n2") }, afterwards: all, saysService: "n2 is suspect"},
		{name: "agent lost", do: func(f *fleet) { f.loseAgent("n2"); f.pass(2 * time.Minute) }, then: all, ready: 3, of: 3,
			back: func(f *fleet) { f.again("n2") }, afterwards: all},
		{name: "rebooted", do: func(f *fleet) {
			f.agents["n2"].boot = "boot2"
			f.agents["n2"].holds = map[api.ReplicaKey]wire.Assignment{}
			f.again("n2")
		},
			then: all, ready: 3, of: 3, back: func(*fleet) {}, afterwards: all},
		{name: "another leader", do: func(f *fleet) { f.elect() }, then: all, ready: 0, of: 3,
			back: func(f *fleet) { f.again("n3"); f.again("n1"); f.again("n2") }, afterwards: all},
		{name: "another leader, a node that joins before the others are heard", do: func(f *fleet) { f.elect(); f.node("n4", "boot1"); f.tag("n4", "kind", "worker") },
			then: all + " n4:log-3@1", ready: 1, of: 4,
			back: func(f *fleet) { f.again("n3"); f.again("n1"); f.again("n2") }, afterwards: all + " n4:log-3@1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := threeNodes(t)
			for _, n := range []string{"n1", "n2", "n3"} {
				f.tag(n, "kind", "worker")
			}
			s := each("log", "a:1", 1)
			s.Spec.NodeSelector = map[string]string{"kind": "worker"}
			f.apply("1", s)
			f.pass(time.Second)
			f.mustBe("log", all)
			c.do(f)
			f.pass(time.Second)
			f.mustBe("log", c.then)
			f.mustCount("log", c.ready, c.of)
			if c.saysService != "" {
				f.mustSay("log", c.saysService)
			}
			if c.saysOfNode != "" && !strings.Contains(strings.Join(append(f.events("n2", "Drained"), f.events("n2", "Placed")...), "; "), c.saysOfNode) {
				t.Errorf("n2's events do not say %q", c.saysOfNode)
			}
			c.back(f)
			f.pass(2 * time.Second)
			f.mustBe("log", c.afterwards)
			f.mustCount("log", c.of+strings.Count(c.afterwards, "@")-c.of, strings.Count(c.afterwards, "@"))
			if f.status().Spares+f.status().SparesWaiting+f.status().Reliefs > 0 || f.mostReliefs > 0 || f.mostSpares > 0 {
				t.Errorf("something stood in: %+v", f.status())
			}
		})
	}
}

// again has a node's agent dial with the labels that it had.
func (f *fleet) again(name string) {
	f.t.Helper()
	f.tag(name, "kind", "worker")
}

// A node on which it finds no room is told of by its name, and is waited for.
func TestGlobalWaitsForRoomOnItsNode(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", sized(each("big", "a:1", 1), 0, 5<<30))
	f.apply("2", sized(each("log", "a:1", 1), 0, 4<<30))
	f.mustCount("log", 0, 3)
	f.mustSay("log", "log-1 pending: n2: lacks 4Gi memory (3Gi free of 8Gi)")
	f.delete("big")
	f.pass(time.Second)
	f.mustCount("log", 3, 3)
}

func TestGlobalIsRolledStopFirst(t *testing.T) {
	f := nodes(t, 6, Config{})
	f.apply("1", each("log", "a:1", 2))
	f.pass(time.Second)
	f.word("n3", "cordon")
	least := 6
	f.apply("2", each("log", "a:2", 2))
	for range 100 {
		f.pass(50 * time.Millisecond)
		least = min(least, f.service("log").Status.Ready)
	}
	// What is cordoned keeps what it has, and is rolled when it is not any more.
	f.mustBe("log", "n1:log-0@2 n2:log-1@2 n3:log-2@1 n4:log-3@2 n5:log-4@2 n6:log-5@2")
	f.mustSay("log", "stays at revision 1: n3 takes nothing new")
	f.word("n3", "uncordon")
	f.pass(time.Second)
	f.mustBe("log", "n1:log-0@2 n2:log-1@2 n3:log-2@2 n4:log-3@2 n5:log-4@2 n6:log-5@2")
	if st := f.service("log").Status; least < 4 || st.Updated != 6 || st.UpdatedReady != 6 || len(st.Reasons) > 0 {
		t.Errorf("at least %d were ready; %+v", least, st)
	}
}

// A service changes its mind, there and back.
func TestBecomingGlobalAndBack(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(5, "a:1"))
	f.pass(time.Second)
	s := each("web", "a:1", 1)
	f.apply("2", s)
	f.pass(3 * time.Second)
	f.mustCount("web", 3, 3)
	seen := map[string]bool{}
	for _, x := range f.core.services[s.Metadata.Key()].fillings {
		if seen[x.node] || x.spare || x.stopping {
			t.Errorf("%s on %s: spare %t, stopping %t", x.key, x.node, x.spare, x.stopping)
		}
		seen[x.node] = true
	}
	f.apply("3", web(4, "a:1"))
	f.pass(3 * time.Second)
	f.mustReady("web", 4)
	if n := len(f.core.services[s.Metadata.Key()].fillings); n != 4 || len(f.core.globals) > 0 {
		t.Errorf("%d fillings, globals %v", n, f.core.globals)
	}
}

// What still runs in a slot keeps its number: a node that has none gets another.
func TestGlobalNumbersAreNotTakenFromWhatRuns(t *testing.T) {
	f := nodes(t, 2, Config{})
	f.word("n2", "cordon")
	f.apply("1", web(3, "a:1"))
	f.pass(time.Second)
	f.word("n2", "uncordon")
	f.mute(true, "n2") // what is to stop on n1 is handed over for as long as can be
	f.apply("2", each("web", "a:1", 1))
	f.mustBe("web", "n1:web-0@1 n2:web-3@1")
	f.pass(3 * time.Second)
	f.node("n3", "boot1")
	f.mustBe("web", "n1:web-0@1 n2:web-3@1 n3:web-1@1")
}

// Its replica is handed over before it stops, as others are.
func TestGlobalIsHandedOver(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", each("log", "a:1", 1))
	f.pass(time.Second)
	f.mute(true, "n1")
	f.drainBy("n2", 0)
	f.mustWait("n2", "log-1 hands over its traffic")
	f.pass(3 * time.Second)
	if f.on("n2", "log") != 0 || f.published("n2").Spec.Drain.Done.IsZero() {
		t.Errorf("n2 holds %d, waits for %q", f.on("n2", "log"), f.published("n2").Status.DrainWaits)
	}
}

// TestGlobalBesideASpare: the service becomes global under a new leader, while a node
// has a spare of another's slot. That goes first, and is not told before all are heard.
func TestGlobalBesideASpare(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", named("log", 2, "a:1"))
	f.silence("n2")
	f.pass(time.Second)
	f.elect()
	f.apply("2", each("log", "a:1", 1))
	f.node("n1", "boot1")
	f.node("n3", "boot1")
	for i := 0; ; i++ {
		on := map[string]string{}
		for k, x := range f.core.fillings {
			if x.stopping || x.void {
				continue
			}
			if on[x.node] != "" {
				t.Fatalf("%s has %s and %s", x.node, on[x.node], k.Name())
			}
			on[x.node] = k.Name()
		}
		if i == 10 {
			break
		}
		f.pass(500 * time.Millisecond)
		if i == 5 {
			f.node("n2", "boot1")
		}
	}
	f.mustCount("log", 3, 3)
}

// TestGlobalWaitsForTheWordOfWhatIsBack: a service becomes global while two nodes have
// one slot of it, and its leader has heard neither. Both are back and have not said how
// theirs are: nothing stops until they have. Then the one that serves keeps its number.
func TestGlobalWaitsForTheWordOfWhatIsBack(t *testing.T) {
	f := threeNodes(t)
	f.word("n2", "cordon")
	f.word("n3", "cordon")
	f.apply("1", named("log", 1, "a:1"))
	f.word("n2", "uncordon")
	f.agents["n2"].unready["log-0"] = true
	f.apply("2", named("log", 1, "a:2")) // its successor is not ready yet
	f.word("n3", "uncordon")
	f.mustBe("log", "n1:log-0@1 n2:log-0@2")
	lost := []*agent{f.agents["n1"], f.agents["n2"]}
	for _, a := range lost {
		a.silent, a.hostUp = true, true
	}
	f.elect()
	f.node("n3", "boot1")
	f.pass(5 * time.Second)
	f.apply("3", each("log", "a:2", 1))
	for _, a := range lost {
		f.session++
		a.session, a.seq = f.session, 0
		f.step(SessionOpened{Node: a.name, Session: a.session, Hello: hello(a.name, "boot1")})
		f.turn()
	}
	for _, a := range lost {
		if v := f.core.Verdict(a.name); v != api.VerdictBack {
			t.Fatalf("%s is %s", a.name, v)
		}
	}
	f.mustBe("log", "n1:log-0@1 n2:log-0@2 n3:log-2@1")
	lost[0].unready["log-0"], lost[1].unready["log-0"] = true, false
	for _, a := range lost {
		a.silent = false
		f.reportAll(a)
	}
	f.pass(5 * time.Second)
	f.mustBe("log", "n1:log-1@2 n2:log-0@2 n3:log-2@2")
	f.mustCount("log", 3, 3)
}

// TestGlobalWhateverHappens: whatever users, operators and nodes do, there is at most
// one live replica on a node; orch takes the service below its floor (I4) only by what
// a node is not fit for any more; and in the end each node that is fit has one.
func TestGlobalWhateverHappens(t *testing.T) {
	for seed := range *seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { newGlobals(t, uint64(seed)).run() })
	}
}

type globals struct {
	*fleet
	r      *rand.Rand
	faults bool // nodes fail too: then nobody can promise a floor
	label  map[string]string
	before map[string]bool
	of     int64
	deeds  []string
	image  int
}

func newGlobals(t *testing.T, seed uint64) *globals {
	r := rand.New(rand.NewPCG(seed, 6))
	g := &globals{fleet: nodes(t, 2+r.IntN(4), Config{}), r: r, faults: seed%2 == 1, label: map[string]string{}}
	return g
}

func (g *globals) note(format string, args ...any) {
	g.deeds = append(g.deeds, fmt.Sprintf("%6s ", g.now.Sub(start))+fmt.Sprintf(format, args...))
}

func (g *globals) run() {
	defer func() {
		if g.t.Failed() {
			for _, d := range g.deeds {
				g.t.Log(d)
			}
		}
	}()
	g.order()
	g.apply("web", web(3, "a:1"))
	for range 30 {
		g.deed()
		for range g.r.IntN(40) {
			g.pass(50 * time.Millisecond)
			g.check()
		}
		if g.t.Failed() {
			return
		}
	}
	g.calm()
}

func (g *globals) order() {
	s := each("log", fmt.Sprintf("a:%d", g.image), 1+g.r.IntN(2))
	if g.r.IntN(4) == 0 {
		s.Spec.Constraints = []api.Constraint{{Key: "kind", Operator: api.OpNotIn, Values: []string{"odd"}}}
	}
	if g.r.IntN(6) == 0 { // and sometimes it is not global
		n := g.r.IntN(5)
		s.Spec.Mode, s.Spec.Replicas = "", &n
	}
	g.image++
	g.note("apply mode %q, constraints %v: %v", s.Spec.Mode, s.Spec.Constraints, g.apply(fmt.Sprint("log", g.image), s).Err)
	clear(g.before)
}

func (g *globals) deed() {
	names := slices.Sorted(maps.Keys(g.agents))
	name := names[g.r.IntN(len(names))]
	a := g.agents[name]
	kinds := 8
	if g.faults {
		kinds = 12
	}
	switch g.r.IntN(kinds) {
	case 0, 1:
		g.order()
	case 2:
		g.note("drain %s: %v", name, g.drainBy(name, 0))
	case 3:
		g.note("cordon %s: %v", name, g.word(name, "cordon"))
	case 4, 5:
		g.note("uncordon %s: %v", name, g.word(name, "uncordon"))
	case 6:
		n := fmt.Sprintf("n%d", len(names)+1)
		if len(names) < 7 {
			g.note("%s joins", n)
			g.node(n, "boot1")
		}
	case 7:
		if a.silent {
			break
		}
		if g.label[name] == "" {
			g.label[name] = "odd"
		} else {
			g.label[name] = ""
		}
		g.note("%s is of kind %q", name, g.label[name])
		g.tag(name, "kind", g.label[name])
	case 8:
		g.note("%s falls silent", name)
		g.silence(name)
		g.pass(time.Duration(g.r.IntN(90)) * time.Second)
	case 9:
		if a.silent {
			g.note("%s boots", name)
			g.boot(name)
		}
	case 10:
		if a.silent {
			g.note("%s is back", name)
			g.tag(name, "kind", g.label[name])
		}
	case 11:
		g.note("another leads")
		g.elect()
		for _, n := range names {
			if !g.agents[n].silent {
				g.tag(n, "kind", g.label[n])
			}
		}
	}
	g.check()
}

func (g *globals) boot(name string) {
	a := g.agents[name]
	a.boot += "+"
	a.holds, a.ends, a.leases = map[api.ReplicaKey]wire.Assignment{}, map[api.ReplicaKey]wire.Endpoint{}, map[api.ReplicaKey]time.Time{}
	g.tag(name, "kind", g.label[name])
}

func (g *globals) log() *service { return g.core.services[api.Key{Namespace: "default", Name: "log"}] }

func (g *globals) check() {
	g.t.Helper()
	s := g.log()
	if !s.global() {
		g.before = nil
		return
	}
	if len(g.core.dirty) > 0 { // between a deed and its turn
		return
	}
	live, serving := map[string]int{}, map[string]bool{}
	for _, f := range s.fillings {
		if f.stopping || f.void {
			continue
		}
		live[f.node]++
		if _, runs := g.agents[f.node].holds[f.key]; runs {
			serving[f.node] = true
		}
	}
	if len(g.core.unknown) == 0 && !g.unheardAny() {
		for n, count := range live {
			if count > 1 {
				g.t.Errorf("%s: %d live on %s", g.now.Sub(start), count, n)
			}
		}
	}
	wanted := map[string]bool{}
	for _, x := range s.seats.of {
		wanted[x.Node] = x.Leave == ""
	}
	was, is := 0, 0
	for n := range g.before {
		if wanted[n] {
			was++
		}
	}
	for n := range serving {
		if wanted[n] {
			is++
		}
	}
	floor := s.want() - s.obj.Spec.Unavailable(s.want())
	if !g.faults && g.of == s.obj.Metadata.Generation && is < was && is < floor {
		g.t.Errorf("%s: I4: from %d to %d, floor %d", g.now.Sub(start), was, is, floor)
	}
	g.before, g.of = serving, s.obj.Metadata.Generation
}

// unheardAny: what an agent has not said yet holds actions back.
func (g *globals) unheardAny() bool { return g.core.unheard(g.log()) }

// calm has all nodes come back, and all be open but some that are drained.
func (g *globals) calm() {
	g.t.Helper()
	drained := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(g.agents)) {
		g.boot(name)
		if g.word(name, "uncordon"); g.r.IntN(4) == 0 {
			drained[name] = true
			g.drainBy(name, 0)
		}
	}
	g.note("all is well from now on; drained are %v", drained)
	for range 400 { // until the damped are not any more
		g.pass(time.Second)
		g.check()
	}
	s := each("log", "a:last", 1)
	s.Spec.Constraints = []api.Constraint{{Key: "kind", Operator: api.OpNotIn, Values: []string{"odd"}}}
	g.apply("last", s)
	g.pass(20 * time.Second)
	var want []string
	for _, name := range slices.Sorted(maps.Keys(g.agents)) {
		if !drained[name] && g.label[name] != "odd" {
			want = append(want, name)
		}
	}
	var have []string
	for _, f := range g.log().fillings {
		have = append(have, f.node)
		if f.spare || f.stopping || f.revision != g.log().obj.Status.Revision {
			g.t.Errorf("%s on %s: spare %t, stopping %t, revision %d", f.key, f.node, f.spare, f.stopping, f.revision)
		}
	}
	slices.Sort(have)
	if st := g.service("log").Status; !slices.Equal(have, want) || st.Ready != len(want) || st.Replicas != len(want) || len(st.Reasons) > 0 {
		g.t.Errorf("on %q, want %q; %+v", have, want, st)
	}
	for name := range drained {
		if g.published(name).Spec.Drain.Done.IsZero() && g.on(name, "web") == 0 {
			g.t.Errorf("the drain of %s does not end: %q", name, g.published(name).Status.DrainWaits)
		}
	}
}
