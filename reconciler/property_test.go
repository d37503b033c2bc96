package reconciler

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"pgregory.net/rapid"
)

// TestProperties lets users and faults at a service at random and checks every
// plan (checkPlan) and that an applied one plans nothing (I10). Then the faults
// stop, and within a bound each slot has exactly one filling: of the wanted
// revision and ready.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newFleet(rapid.IntRange(0, 5).Draw(t, "replicas"), rapid.IntRange(0, 3).Draw(t, "surge"),
			rapid.IntRange(0, 3).Draw(t, "unavailable"), "n1", "n2", "n3", "n4", "n5")
		w.bound()
		w.drawKind(t)
		steps := rapid.IntRange(1, 60).Draw(t, "steps")
		for range steps {
			w.disturb(t)
			if rapid.IntRange(0, 3).Draw(t, "plan") > 0 {
				w.step(t)
			}
		}
		w.calm(t)
		w.mustConverge(t)
		w.mustEmpty(t)
	})
}

// drawKind draws whether the service is exclusive and which revisions have leases.
func (w *fleet) drawKind(t *rapid.T) {
	w.view.Exclusive = rapid.Bool().Draw(t, "exclusive")
	for n := range int64(6) {
		w.leased[n] = rapid.IntRange(0, 2).Draw(t, "leased") > 0
	}
}

// TestMain has rapid check more than its default of 100, which is too few for
// what takes three faults to meet.
func TestMain(m *testing.M) {
	flag.Parse()
	set := false
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == "rapid.checks" })
	if !set {
		if err := flag.Set("rapid.checks", "1000"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// bound keeps surge and unavailable as api's validation does.
func (w *fleet) bound() {
	if w.view.MaxSurge == 0 && w.view.MaxUnavailable == 0 {
		w.view.MaxUnavailable = 1
	}
}

func (w *fleet) step(t checker) Decision {
	d := w.checkPlan(t)
	w.checkIdle(t, d)
	w.apply(d)
	return d
}

// disturb does one thing that users, agents or nodes may do.
func (w *fleet) disturb(t *rapid.T) {
	node := func() string { return rapid.SampledFrom(w.nodes).Draw(t, "node") }
	filling := func(do func(f *Filling)) {
		if len(w.view.Fillings) > 0 {
			do(&w.view.Fillings[rapid.IntRange(0, len(w.view.Fillings)-1).Draw(t, "filling")])
		}
	}
	switch rapid.SampledFrom([]string{"ready", "ready", "allReady", "unready", "preparing", "fail", "gone", "verdict", "verdict",
		"revision", "scale", "budget", "refuse", "silence", "exclusive", "time", "time", "renew", "renew", "relieve", "relieve", "well", "impair", "damp", "drain", "undrain",
		"hold", "hold", "stable", "minReady", "recreate"}).Draw(t, "event") {
	case "ready":
		filling(func(f *Filling) { w.report(f, api.PhaseRunning, true) })
	case "allReady":
		w.allReady()
	case "unready":
		filling(func(f *Filling) { w.report(f, api.PhaseRunning, false) })
	case "preparing":
		filling(func(f *Filling) { w.report(f, api.PhasePreparing, false) })
	case "fail":
		filling(func(f *Filling) {
			w.report(f, rapid.SampledFrom([]api.Phase{api.PhaseFailed, api.PhaseStopped}).Draw(t, "end"), false)
		})
	case "gone":
		w.gone()
	case "verdict":
		w.judgeRandom(t, node())
	case "revision":
		w.view.Revision = rapid.Int64Range(1, 4).Draw(t, "revision")
	case "scale":
		w.view.Replicas = rapid.IntRange(0, 5).Draw(t, "replicas")
	case "budget":
		w.view.MaxSurge, w.view.MaxUnavailable = rapid.IntRange(0, 3).Draw(t, "surge"), rapid.IntRange(0, 3).Draw(t, "unavailable")
		w.bound()
	case "refuse":
		w.refuse = !w.refuse
	case "silence": // a new leader knows nothing of a node yet
		n := node()
		w.judge(n, api.VerdictUnknown)
		for i := range w.view.Fillings {
			if f := &w.view.Fillings[i]; f.Node == n && !f.Phase.Ended() {
				f.Phase = ""
				w.grant(f) // the leader before may have
			}
		}
	case "exclusive":
		w.view.Exclusive = !w.view.Exclusive
	case "time":
		w.now = w.now.Add(time.Duration(rapid.IntRange(1, 20).Draw(t, "seconds")) * time.Second)
	case "renew":
		w.renew()
	case "relieve":
		filling(func(f *Filling) { f.Relieve = "its agent is lost" })
	case "well":
		n := node()
		w.impaired[n] = false
		w.relieve(n, "")
	case "impair":
		w.impair(node())
	case "drain":
		w.drain(node(), true)
	case "undrain":
		w.drain(node(), false)
	case "hold":
		w.view.Held, w.view.AtMost = rapid.Bool().Draw(t, "held"), rapid.IntRange(0, 4).Draw(t, "atMost")
	case "stable":
		w.view.Stable = rapid.Int64Range(0, 3).Draw(t, "stable")
	case "minReady":
		w.view.MinReady = time.Duration(rapid.IntRange(0, 15).Draw(t, "seconds")) * time.Second
	case "recreate":
		w.view.Recreate = rapid.Bool().Draw(t, "recreate")
	case "damp":
		w.damp(node(), rapid.Bool().Draw(t, "damped"))
	}
}

func (w *fleet) judgeRandom(t *rapid.T, node string) {
	w.judge(node, rapid.SampledFrom([]api.Verdict{api.VerdictUnknown, api.VerdictHealthy, api.VerdictHealthy, api.VerdictAgentLost,
		api.VerdictSuspect, api.VerdictSuspect, api.VerdictDead, api.VerdictBack, api.VerdictBack}).Draw(t, "verdict"))
}

// calm ends all faults but those that relief is for: every node that is not dead
// comes back or is found dead, or stays without its agent or unable to work, and
// a last revision replaces what failed for good.
func (w *fleet) calm(t *rapid.T) {
	w.view.Held = false
	comeBack, stay := rapid.Bool().Draw(t, "return"), rapid.Bool().Draw(t, "stay")
	w.refuse = false
	w.view.Recreate = w.view.Recreate && !stay // what cannot be told to stop is waited for
	for i, n := range w.nodes {
		w.damp(n, false)
		if !stay || i == 0 {
			w.impaired[n] = false
			w.drain(n, false)
		}
		switch v := w.verdict[n]; {
		case v == api.VerdictHealthy:
		case v == api.VerdictAgentLost && stay && i > 0 && !w.view.Exclusive: // what runs there without a lease blocks exclusive slots
		case v == api.VerdictSuspect && !comeBack && i > 0:
			w.judge(n, api.VerdictDead)
		default:
			w.judge(n, api.VerdictBack)
		}
	}
	w.judge(w.nodes[0], api.VerdictBack)
	w.judge(w.nodes[0], api.VerdictHealthy)
	if slices.ContainsFunc(w.view.Fillings, func(f Filling) bool { return f.Phase.Ended() && !f.Stopping }) {
		w.view.Revision = 5
	}
}

// mustConverge plans, and lets agents do what they are told, until nothing is
// left to do. A slot takes three rounds at most (remove, create, ready), and
// with the least budget slots take their turns one after the other.
func (w *fleet) mustConverge(t checker) {
	rounds := 14 + 4*w.view.Replicas
	if w.view.MinReady > 0 { // what is new counts after as many
		rounds *= 1 + int(w.view.MinReady/(lease/3))
	}
	for range rounds {
		w.relieveLasting()
		w.step(t)
		w.gone()
		w.allReady()
		w.now = w.now.Add(lease / 3)
	}
	w.relieveLasting()
	d := w.step(t)
	fillings, waiting := w.beyondReach(d)
	if len(d.Actions) > 0 || len(waiting) > 0 {
		t.Fatalf("after %d rounds without faults: %v, waiting for %q\n%s", rounds, d.Actions, waiting, w.text())
	}
	if len(fillings) != w.view.Replicas {
		t.Fatalf("%d fillings for %d replicas\n%s", len(fillings), w.view.Replicas, w.text())
	}
	for i, f := range fillings {
		if f.Key.Slot != i || f.Revision != w.view.Revision || !f.Ready || f.Stopping || f.Spare {
			t.Fatalf("slot %d wants revision %d and one ready filling\n%s", i, w.view.Revision, w.text())
		}
	}
}

// relieveLasting has everything relieved that is where it cannot stay.
func (w *fleet) relieveLasting() {
	for _, n := range w.nodes {
		why := ""
		if w.impaired[n] || w.overdue[n] || w.verdict[n] == api.VerdictAgentLost {
			why = "its node or agent cannot work, or is drained"
		}
		w.relieve(n, why)
	}
}

// beyondReach leaves out what is stopping where no agent hears of it.
func (w *fleet) beyondReach(d Decision) (fillings []Filling, waiting []string) {
	waiting = d.Waiting
	for _, f := range w.view.Fillings {
		if f.Stopping && f.Verdict == api.VerdictAgentLost {
			waiting = slices.DeleteFunc(slices.Clone(waiting), func(l string) bool { return strings.HasPrefix(l, f.name()+" is stopping") })
		} else {
			fillings = append(fillings, f)
		}
	}
	return fillings, waiting
}

// mustEmpty deletes the service: one plan removes all there is.
func (w *fleet) mustEmpty(t checker) {
	w.view.Deleting = true
	w.step(t)
	w.gone()
	d := w.step(t)
	if fillings, waiting := w.beyondReach(d); len(d.Actions) > 0 || len(waiting) > 0 || len(fillings) > 0 {
		t.Fatalf("deleted, but %v, waiting for %q\n%s", d.Actions, waiting, w.text())
	}
}

// FuzzPlan is the same with inputs from the fuzzer.
func FuzzPlan(f *testing.F) {
	f.Fuzz(rapid.MakeFuzz(func(t *rapid.T) {
		w := newFleet(rapid.IntRange(0, 5).Draw(t, "replicas"), 1, 1, "n1", "n2", "n3")
		w.drawKind(t)
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			w.disturb(t)
			w.step(t)
		}
	}))
}

// TestAnyView plans views that no history need have led to: the checks of a
// single plan hold for them too, and the service still converges.
func TestAnyView(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newFleet(rapid.IntRange(0, 4).Draw(t, "replicas"), rapid.IntRange(0, 2).Draw(t, "surge"),
			rapid.IntRange(0, 2).Draw(t, "unavailable"), "n1", "n2", "n3", "n4")
		w.bound()
		w.drawKind(t)
		w.view.Revision = rapid.Int64Range(1, 3).Draw(t, "revision")
		fence := func() time.Time {
			return rapid.SampledFrom([]time.Time{{}, {}, w.now.Add(-time.Second), w.now, w.now.Add(lease / 2), w.now.Add(lease)}).Draw(t, "fence")
		}
		w.view.Fenced = map[int]time.Time{0: fence(), 1: fence()}
		w.view.Held, w.view.AtMost = rapid.Bool().Draw(t, "held"), rapid.IntRange(0, 3).Draw(t, "atMost")
		w.view.Stable, w.view.Recreate = rapid.Int64Range(0, 3).Draw(t, "stable"), rapid.IntRange(0, 3).Draw(t, "recreate") == 0
		w.view.MinReady = time.Duration(rapid.SampledFrom([]int{0, 0, 5, 12}).Draw(t, "minReady")) * time.Second
		for _, n := range w.nodes {
			w.judgeRandom(t, n)
		}
		phases := []api.Phase{"", api.PhaseAssigned, api.PhasePreparing, api.PhaseRunning, api.PhaseRunning, api.PhaseRunning, api.PhaseFailed}
		for range rapid.IntRange(0, 10).Draw(t, "fillings") {
			w.epoch++
			node := rapid.SampledFrom(w.nodes).Draw(t, "node")
			revision := rapid.Int64Range(1, 3).Draw(t, "revision")
			w.view.Fillings = append(w.view.Fillings, Filling{
				Key:      api.ReplicaKey{Namespace: "default", Service: "web", Slot: rapid.IntRange(0, 5).Draw(t, "slot"), Epoch: w.epoch},
				Revision: revision, Node: node, Verdict: w.verdict[node], Leased: w.leased[revision], FencedAt: fence(),
				Relieve: rapid.SampledFrom([]string{"", "", "it cannot work"}).Draw(t, "relieve"), Overdue: rapid.IntRange(0, 3).Draw(t, "overdue") == 0, Damped: rapid.IntRange(0, 3).Draw(t, "damped") == 0,
				Phase: rapid.SampledFrom(phases).Draw(t, "phase"), Ready: rapid.Bool().Draw(t, "ready"),
				ReadySince: rapid.SampledFrom([]time.Time{{}, w.now.Add(-6 * time.Second), w.now}).Draw(t, "readySince"),
				Stopping:   rapid.IntRange(0, 4).Draw(t, "stopping") == 0, Spare: rapid.IntRange(0, 3).Draw(t, "spare") == 0})
		}
		w.apply(Decision{}) // sorts
		w.step(t)
		w.calm(t)
		w.mustConverge(t)
	})
}
