package core

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
)

// TestNothingTakesAServiceBelowItsFloor: while no node fails, whatever users and
// operators want moved, rolled, scaled or drained, whoever leads and however slowly
// agents speak, orch takes no service below its floor (I4), no replica is told to
// stop while an agent that speaks sends it traffic (handedOver), and in the end
// everything has come to its place.
func TestNothingTakesAServiceBelowItsFloor(t *testing.T) {
	for seed := range *seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { newUpkeep(t, uint64(seed)).run() })
	}
}

// upkeep is a fleet whose operators do not leave it alone.
type upkeep struct {
	*fleet
	r      *rand.Rand
	names  []string
	before map[string]served
	deeds  []string
	drains int
}

// served is how many slots of a service were served, under which spec.
type served struct {
	generation int64
	slots      int
}

func newUpkeep(t *testing.T, seed uint64) *upkeep {
	r := rand.New(rand.NewPCG(seed, 2))
	count := 3 + r.IntN(3)
	u := &upkeep{fleet: nodes(t, count, Config{Budgets: Budgets{ReliefsMin: 1 + r.IntN(6), ReliefPatience: 5 * time.Second}}), r: r, before: map[string]served{}}
	for i := range count {
		u.names = append(u.names, fmt.Sprintf("n%d", i+1))
	}
	return u
}

func (u *upkeep) note(format string, args ...any) {
	u.deeds = append(u.deeds, fmt.Sprintf("%6s ", u.now.Sub(start))+fmt.Sprintf(format, args...))
}

func (u *upkeep) run() {
	defer func() {
		if u.t.Failed() {
			for _, d := range u.deeds {
				u.t.Log(d)
			}
		}
	}()
	for _, name := range []string{"a", "b", "c", "db"} {
		u.order(name)
	}
	u.pass(5 * time.Second)
	for range 25 {
		u.deed()
		for range u.r.IntN(40) {
			u.pass(50 * time.Millisecond)
			u.check()
		}
		if u.t.Failed() {
			return
		}
	}
	u.calm()
}

// order changes a service: its replicas, its image, its floor.
func (u *upkeep) order(name string) {
	s := surging(named(name, 1+u.r.IntN(6), fmt.Sprintf("a:%d", u.r.IntN(3))), u.r.IntN(3), u.r.IntN(3))
	if *s.Spec.Rollout.MaxSurge == (api.IntOrPercent{}) && *s.Spec.Rollout.MaxUnavailable == (api.IntOrPercent{}) {
		s = surging(s, 1, 0)
	}
	s.Spec.Containers[0].Resources.Requests = api.ResourceList{api.Memory: api.Whole(int64(u.r.IntN(12)) << 27)} // up to 1.4 Gi
	if name == "db" {
		s.Spec.Exclusive = true
	}
	s.Default()
	u.note("apply %s: %d of %s, surge %d, unavailable %d: %v", name, *s.Spec.Replicas, s.Spec.Containers[0].Image,
		s.Spec.Surge(*s.Spec.Replicas), s.Spec.Unavailable(*s.Spec.Replicas), u.apply(fmt.Sprint(len(u.deeds)), s).Err)
}

func (u *upkeep) deed() {
	node := u.names[u.r.IntN(len(u.names))]
	switch u.r.IntN(10) {
	case 0, 1:
		u.order([]string{"a", "b", "c", "db"}[u.r.IntN(4)])
	case 2, 3, 4:
		deadline := time.Duration(u.r.IntN(3)) * 2 * time.Second
		u.note("drain %s by %s: %v", node, deadline, u.drainBy(node, deadline))
		u.drains++
	case 5, 6:
		u.note("uncordon %s: %v", node, u.word(node, "uncordon"))
	case 7:
		r, err := u.rebalance(u.r.IntN(4) == 0)
		u.note("rebalance: %v, %v", r, err)
	case 8:
		is := u.r.IntN(2) == 0
		u.mute(is, node)
		u.note("%s is mute: %t", node, is)
	case 9:
		u.note("another leads")
		u.elect()
		for _, n := range u.names {
			u.dial(n)
			u.pass(time.Duration(u.r.IntN(4)) * 50 * time.Millisecond)
		}
	}
	u.check()
}

// check compares what serves with what served a moment ago, by what runs on the
// nodes and what is committed.
func (u *upkeep) check() {
	u.t.Helper()
	for key, s := range u.core.services {
		if s.deleting() {
			continue
		}
		slots := map[int]bool{}
		for _, f := range s.fillings {
			_, runs := u.agents[f.node].holds[f.key]
			if f.key.Slot < s.obj.Spec.Want() && !f.stopping && !f.void && runs && u.runs(u.agents[f.node], f.key) {
				slots[f.key.Slot] = true
			}
		}
		now := served{s.obj.Metadata.Generation, len(slots)}
		was, known := u.before[key.Name]
		u.before[key.Name] = now
		want := s.obj.Spec.Want()
		floor := want - s.obj.Spec.Unavailable(want)
		if s.exclusive() {
			floor = want - max(1, s.obj.Spec.Unavailable(want))
		}
		if known && was.generation == now.generation && now.slots < was.slots && now.slots < floor {
			u.note("%s: from %d slots to %d, floor %d", key, was.slots, now.slots, floor)
			u.t.Errorf("I4: %s from %d slots to %d, floor %d", key, was.slots, now.slots, floor)
		}
	}
}

// calm lets all nodes be open and all agents speak, and waits for what is left.
func (u *upkeep) calm() {
	u.t.Helper()
	u.note("all is well from now on")
	u.mute(false, u.names...)
	for _, n := range u.names {
		u.word(n, "uncordon")
	}
	for range 60 {
		u.pass(time.Second)
		u.check()
	}
	for key, s := range u.core.services {
		u.mustReady(key.Name, s.obj.Spec.Want())
		if len(s.fillings) != s.obj.Spec.Want() || slices.ContainsFunc(s.fillings, func(f *filling) bool { return f.spare || f.stopping || f.relieve != "" || f.moving != "" || f.handing }) {
			u.t.Errorf("%s is not in order: %d fillings, %v", key, len(s.fillings), u.service(key.Name).Status.Reasons)
		}
		if len(s.reliefs) > 0 {
			u.t.Errorf("%s has reliefs under way", key)
		}
	}
	if len(u.core.handovers.waiting) > 0 || u.status().Reliefs != 0 || len(u.core.reliefs.moves) > 0 || len(u.core.reliefs.drains) > 0 || len(u.core.relieved) > 0 {
		u.t.Errorf("left: %d hand-overs, fleet %+v, %d moves, drains %v", len(u.core.handovers.waiting), u.status(), len(u.core.reliefs.moves), u.core.reliefs.drains)
	}
	for _, n := range u.names { // and each can be drained
		u.drainBy(n, 0)
		u.pass(20 * time.Second)
		if u.published(n).Spec.Drain.Done.IsZero() && len(u.published(n).Status.DrainWaits) == 0 {
			u.t.Errorf("%s is not empty and does not say why", n)
		}
		u.word(n, "uncordon")
	}
	u.check()
}
