package core

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// seeds of the test below and those in orderly_test.go and straight_test.go: few, as they run under the race
// detector. make sim-long runs many.
var seeds = flag.Int("core.seeds", 8, "how many seeds each random test of a fleet runs")

// TestAnythingLeavesSlotsAlone: whatever becomes of machines and links, whoever
// leads, and whatever users and operators say, no two containers of an exclusive
// slot run at once, by the clocks of the machines that they are on. In the end all
// that is left is in order, and every slot is filled.
func TestAnythingLeavesSlotsAlone(t *testing.T) {
	for seed := range *seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { newOrdeal(t, uint64(seed)).run() })
	}
}

// ordeal is a fleet under random treatment. Beside the harness's agents it has
// machines whose names another has taken, and a leader that does not know yet that
// another took over.
type ordeal struct {
	*fleet
	r       *rand.Rand
	ghost   *Core             // leads no more; its commits fail
	haunted map[string]uint64 // agents that still hear it, with their session there
	boots   int
	deeds   []string
	wanted  int
}

func newOrdeal(t *testing.T, seed uint64) *ordeal {
	f := threeNodes(t)
	f.leasedOnly = true
	return &ordeal{fleet: f, r: rand.New(rand.NewPCG(seed, 1)), haunted: map[string]uint64{}}
}

func (o *ordeal) note(format string, args ...any) {
	o.deeds = append(o.deeds, fmt.Sprintf("%6s ", o.now.Sub(start))+fmt.Sprintf(format, args...))
}

func (o *ordeal) run() {
	defer func() {
		if o.t.Failed() {
			for _, d := range o.deeds {
				o.t.Log(d)
			}
		}
	}()
	o.order()
	for range 60 {
		o.deed()
		for range 1 + o.r.IntN(30) {
			o.pass(50 * time.Millisecond)
			o.haunt()
			o.alone()
			if o.r.IntN(4) == 0 {
				o.turnBack()
			}
		}
	}
	o.settle()
}

func (o *ordeal) someone() string {
	return []string{"n1", "n2", "n3"}[o.r.IntN(3)]
}

// order is a user's.
func (o *ordeal) order() {
	o.wanted = o.r.IntN(3)
	s := only("db", o.wanted, fmt.Sprintf("a:%d", o.r.IntN(3)))
	lease := api.Duration(time.Duration(4500+o.r.IntN(4000)) * time.Millisecond)
	s.Spec.LeaseDuration = &lease
	if o.r.IntN(6) == 0 {
		s = named("db", o.wanted, "a:1")
	}
	r := o.apply(fmt.Sprint("apply ", len(o.deeds)), s)
	o.note("apply %d of %s, exclusive %t, lease %s: %v", o.wanted, s.Spec.Containers[0].Image, s.Spec.Exclusive, s.Spec.Lease(), r.Err)
}

func (o *ordeal) deed() {
	name := o.someone()
	a := o.agents[name]
	switch n := o.r.IntN(100); {
	case n < 25:
		o.order()
	case n < 45:
		o.note("%s is cut off, its host answers: %t", name, n < 30)
		o.silentCut(name)
		a.hostUp = n < 30
	case n < 60:
		o.back(name)
	case n < 66:
		o.boots++
		o.note("%s reboots", name)
		delete(o.haunted, name)
		o.node(name, fmt.Sprintf("boot %d", o.boots))
	case n < 72:
		o.note("%s is said to be dead: %v", name, o.word(name, "dead"))
		if !a.cut {
			a.silent, a.cut = true, true // its session was closed; it dials later
		}
	case n < 78:
		if err := o.word(name, "remove"); err != nil {
			return
		}
		o.note("%s is removed", name)
		a.silent, a.cut = true, true
		if o.r.IntN(2) == 0 { // another machine takes the name, and the old one runs on
			o.boots++
			o.note("another machine joins as %s", name)
			delete(o.haunted, name)
			o.agents[fmt.Sprintf("old%d", o.boots)] = a
			delete(o.agents, name)
			o.node(name, fmt.Sprintf("boot %d", o.boots))
		}
	case n < 84:
		o.note("db is deleted")
		o.wanted = 0
		o.delete("db")
	case n < 91:
		o.takeover()
	default:
		o.slowCommits()
	}
}

// slowCommits holds transactions back for a while. Some leaders do not live to hear
// of the one that is out, which may be written all the same.
func (o *ordeal) slowCommits() {
	o.note("commits wait")
	o.commits = false
	for range o.r.IntN(20) {
		o.pass(50 * time.Millisecond)
		o.haunt()
	}
	o.commits = true
	if len(o.out) > 0 && o.r.IntN(2) == 0 {
		if o.r.IntN(2) == 0 {
			o.note("  one is written, and nobody hears of it")
			core := o.core
			o.core = New(o.conf) // it hears instead, and is nobody
			o.fleet.commit(o.out[0])
			o.core = core
		}
		o.takeover()
		return
	}
	for len(o.out) > 0 {
		c := o.out[0]
		o.out = o.out[1:]
		o.fleet.commit(c)
		o.turn()
	}
}

// back has a machine's agent dial the leader that is, in the same life.
func (o *ordeal) back(name string) {
	if a := o.agents[name]; a.silent {
		o.note("%s is back", name)
		delete(o.haunted, name)
		o.node(name, a.boot)
	}
}

// turnBack brings some back that are away. Who still hears a leader stays longer.
func (o *ordeal) turnBack() {
	for _, name := range []string{"n1", "n2", "n3"} {
		if _, ok := o.haunted[name]; o.r.IntN(8) == 0 && (!ok || o.r.IntN(20) == 0) {
			o.back(name)
		}
	}
}

// takeover elects another leader. Some agents may go on with the one before, which
// hears of it only by its next commit.
func (o *ordeal) takeover() {
	o.note("another leads")
	o.ghost, o.haunted = o.core, map[string]uint64{}
	for _, name := range []string{"n1", "n2", "n3"} {
		if a := o.agents[name]; !a.silent && a.session != 0 && o.r.IntN(2) == 0 {
			o.note("  and %s does not know", name)
			o.haunted[name] = a.session
		}
	}
	o.elect()
	for _, name := range []string{"n1", "n2", "n3"} {
		if _, ok := o.haunted[name]; ok || o.agents[name].silent {
			o.agents[name].silent, o.agents[name].cut = true, true
			continue
		}
		o.node(name, o.agents[name].boot)
	}
}

// haunt lets the leader of before grant what it still grants.
func (o *ordeal) haunt() {
	for _, name := range slices.Sorted(maps.Keys(o.haunted)) {
		a := o.agents[name]
		var keys []api.ReplicaKey
		for _, k := range slices.SortedFunc(maps.Keys(a.holds), compareReplicas) {
			if a.holds[k].Template.Leased() {
				keys = append(keys, k)
			}
		}
		ev := Renew{Node: name, Session: o.haunted[name], Renewal: wire.Renewal{ID: uint64(o.now.UnixNano()), Keys: keys}}
		for _, e := range append(o.ghost.Step(ev, o.now), o.ghost.Turn(o.now)...) {
			if g, ok := e.(SendGrant); ok && g.Node == name {
				for _, l := range g.Grant.Leases {
					a.leases[l.Key] = later(a.leases[l.Key], o.now.Add(l.For-api.LeaseDrift(l.For)))
				}
			}
		}
	}
}

// settle gives the fleet what it needs to be in order again.
func (o *ordeal) settle() {
	o.note("all is well from now on")
	for _, name := range []string{"n1", "n2", "n3"} {
		o.back(name)
	}
	for range 40 {
		o.pass(time.Second)
		o.alone()
	}
	s := o.core.services[api.Key{Namespace: "default", Name: "db"}]
	if s == nil {
		return
	}
	if st := o.service("db").Status; st.Ready != s.obj.Spec.Want() || len(s.fillings) != s.obj.Spec.Want() {
		o.t.Errorf("%d of %d slots are ready, %d fillings: %q", st.Ready, s.obj.Spec.Want(), len(s.fillings), st.Reasons)
	}
}
