package reconciler

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/orchctl/orch/api"
)

// global plans a service that has one filling on each of some nodes. A slot is its
// node's: nothing stands in for it elsewhere, and what is new comes when what was
// there is gone.
type global struct {
	*planner
	seats []seat // that are to have a filling, by slot
}

type seat struct {
	*slot
	Seat
}

// planGlobal is Plan for a global service.
func planGlobal(v View, now time.Time) Decision {
	g := newGlobal(v, now)
	g.voidDead()
	g.leaveNodes()
	for _, s := range g.seats {
		g.leaveOneThere(s)
	}
	g.stopThere()
	g.fillSeats()
	counted, slots := g.counted()
	return Decision{Actions: g.sorted(), Wake: g.wakeSeats(), Counted: counted, Slots: slots, Waiting: g.waitingSeats()}
}

func newGlobal(v View, now time.Time) *global {
	v.Replicas, v.MaxSurge = 0, 0
	g := &global{planner: newPlanner(v, now)}
	if v.Deleting {
		return g
	}
	of := make(map[int]*slot, len(g.slots))
	for _, s := range g.slots {
		of[s.number] = s
	}
	for _, n := range v.Nodes {
		if n.Leave != "" {
			continue
		}
		s := of[n.Slot]
		if s == nil {
			s = &slot{number: n.Slot}
			of[n.Slot] = s
			g.slots = append(g.slots, s)
		}
		s.fence = v.Fenced[n.Slot]
		g.seats = append(g.seats, seat{s, n})
	}
	slices.SortFunc(g.seats, func(a, b seat) int { return cmp.Compare(a.number, b.number) })
	g.Replicas = len(g.seats) // of which the floor is made
	if g.Recreate {
		g.MaxUnavailable = len(g.seats)
	}
	return g
}

// there are the seat's fillings on its node; others have no business in it.
func (s seat) there() []*Filling {
	return s.filter(func(f *Filling) bool { return f.Node == s.Node })
}

func (s seat) liveThere() []*Filling {
	return s.filter(func(f *Filling) bool { return f.Node == s.Node && !f.Stopping })
}

// leaveNodes removes what no seat wants, whatever the verdict of its node.
func (g *global) leaveNodes() {
	of := map[string]Seat{}
	if !g.Deleting {
		for _, n := range g.Nodes {
			of[n.Node] = n
		}
	}
	for _, s := range g.slots {
		for _, f := range s.live() {
			n, seated := of[f.Node]
			switch {
			case g.Deleting:
				g.remove(f, "the service is deleted")
			case !seated:
				g.remove(f, "the service is global and has no slot on %s", f.Node)
			case n.Slot != s.number:
				g.remove(f, "the service is global: %s has %s", f.Node, g.name(n.Slot))
			case n.Leave != "":
				g.remove(f, "%s", n.Leave)
			}
		}
	}
}

func (g *global) name(slot int) string {
	return api.ReplicaKey{Service: g.Service.Name, Slot: slot}.Name()
}

// leaveOneThere removes all live fillings of a seat but the best: the service became
// global while it was being rolled. One that is about to be heard is waited for.
func (g *global) leaveOneThere(s seat) { g.leaveBest(s.liveThere(), "global", "on the same node") }

// stopThere removes old fillings: those that serve nobody at no cost, and others as
// far down as the floor; no more than the rollout may have come to.
func (g *global) stopThere() {
	available, floor := g.availableSeats(), g.floor()
	come, most := g.comeTo()
	for _, s := range g.seats {
		live := s.liveThere()
		if len(live) != 1 || s.Closed || live[0].Revision == g.Revision || !live[0].known() {
			continue
		}
		if most >= 0 && come >= most {
			return
		}
		f := live[0]
		switch {
		case f.ended():
			g.remove(f, "revision %d has ended and revision %d is wanted", f.Revision, g.Revision)
		case !f.ready():
			g.remove(f, "revision %d is not ready and revision %d is wanted", f.Revision, g.Revision)
		case !f.available():
			continue
		case available <= floor:
			continue
		default:
			g.remove(f, "revision %d makes room for revision %d: %d of %d slots are available, %d must stay",
				f.Revision, g.Revision, available, len(g.seats), floor)
			available--
		}
		come++
	}
}

// comeTo counts the slots that the rollout has come to: those that have the wanted
// revision, and those that are empty and will. most is how many there may be, below 0:
// all. As long as nothing has proven the wanted revision, that is what stopThere can
// have emptied; what is empty beyond was not the rollout's doing.
func (g *global) comeTo() (come, most int) {
	for _, s := range g.seats {
		live := s.liveThere()
		if len(live) == 0 && !s.Closed || slices.ContainsFunc(live, func(f *Filling) bool { return f.Revision == g.Revision }) {
			come++
		}
	}
	switch {
	case g.Held:
		return come, max(g.AtMost, 0)
	case g.stable() != g.Revision && !g.proven():
		return come, g.MaxUnavailable
	}
	return come, -1
}

// stable is the revision of what the rollout has not come to.
func (g *global) stable() int64 {
	if g.Stable == 0 {
		return g.Revision
	}
	return g.Stable
}

// fillSeats creates what is missing where all is gone that was there.
func (g *global) fillSeats() {
	_, most := g.comeTo()
	current := 0
	for _, s := range g.seats {
		if slices.ContainsFunc(s.liveThere(), func(f *Filling) bool { return f.Revision == g.Revision }) {
			current++
		}
	}
	for _, s := range g.seats {
		if s.Closed || len(s.there()) > 0 || g.Exclusive && g.blocked(s.slot) {
			continue
		}
		rev := g.Revision
		if most >= 0 && current >= most {
			rev = g.stable()
		}
		if rev == g.Revision {
			if g.Recreate && g.olderLeft() {
				continue
			}
			current++
		}
		why := s.lost
		if why == "" {
			why = fmt.Sprintf("the service is global and %s has none of it", s.Node)
		}
		g.create(s.slot, Action{Revision: rev, On: s.Node, Why: why})
		s.fillings[len(s.fillings)-1].Node = s.Node
	}
}

// olderLeft tells whether anything of another revision may still run, on a seat that
// the rollout can come to.
func (g *global) olderLeft() bool {
	return slices.ContainsFunc(g.seats, func(s seat) bool {
		return !s.Closed && slices.ContainsFunc(s.there(), func(f *Filling) bool { return f.Revision != g.Revision })
	})
}

func (g *global) availableSeats() int {
	n := 0
	for _, s := range g.seats {
		if slices.ContainsFunc(s.there(), g.counts) {
			n++
		}
	}
	return n
}

// counted gives how many slots have the wanted revision and count, and of how many: a
// seat that is closed keeps what it has, and so the rollout does not wait for it.
func (g *global) counted() (counted, slots int) {
	for _, s := range g.seats {
		current := slices.ContainsFunc(s.liveThere(), func(f *Filling) bool { return f.Revision == g.Revision })
		if s.Closed && !current {
			continue
		}
		slots++
		if slices.ContainsFunc(s.liveThere(), func(f *Filling) bool { return f.Revision == g.Revision && g.counts(f) }) {
			counted++
		}
	}
	return counted, slots
}

// wakeSeats is when the next filling counts by MinReady, or a fence has passed.
func (g *global) wakeSeats() time.Time {
	var next time.Time
	at := func(t time.Time) {
		if t.After(g.now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for _, s := range g.seats {
		for _, f := range s.liveThere() {
			if f.Revision == g.Revision && f.available() {
				at(f.ReadySince.Add(g.MinReady))
			}
		}
		if g.Exclusive && len(s.liveThere()) == 0 {
			until, _ := g.fencedFrom(s.slot)
			at(until)
		}
	}
	return next
}

// waitingSeats is waiting for a global service.
func (g *global) waitingSeats() []string {
	var lines []string
	for _, s := range g.slots {
		for _, f := range s.fillings {
			if line := g.obstacle(s, f); line != "" {
				lines = append(lines, line)
			}
		}
	}
	turns := 0
	for _, s := range g.seats {
		live := s.liveThere()
		switch {
		case len(live) != 1 || live[0].Revision == g.Revision || live[0].Key.Epoch == 0:
		case s.Closed:
			lines = append(lines, fmt.Sprintf("%s stays at revision %d: %s takes nothing new", live[0].name(), live[0].Revision, s.Node))
		case live[0].known():
			turns++
		}
	}
	if turns > 0 {
		lines = append(lines, fmt.Sprintf("slots that wait for their turn: %d (available %d, at least %d)", turns, g.availableSeats(), g.floor()))
	}
	if more := len(lines) - waitingMax; more > 0 {
		lines = append(lines[:waitingMax:waitingMax], fmt.Sprintf("and %d more", more))
	}
	return lines
}
