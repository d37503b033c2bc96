package reconciler

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/orchctl/orch/api"
)

// seated plans a service whose slots belong to nodes, one to each node (Global) or as
// each is bound (Bound): nothing stands in for a slot elsewhere, and what is new comes
// when what was there is gone.
type seated struct {
	*planner
	seats []seat // that are to have a filling, by slot
}

type seat struct {
	*slot
	Seat
	bound bool
}

// planSeated is Plan for a service whose slots belong to nodes.
func planSeated(v View, now time.Time) Decision {
	g := newSeated(v, now)
	g.voidDead()
	g.leaveNodes()
	if !v.Global { // a global one leaves what is drained at once
		g.evictThere()
	}
	for _, s := range g.seats {
		g.leaveOneThere(s)
	}
	g.stopThere()
	g.fillSeats()
	counted, slots := g.counted()
	return Decision{Actions: g.sorted(), Wake: g.wakeSeats(), Counted: counted, Slots: slots, Waiting: g.waitingSeats()}
}

func newSeated(v View, now time.Time) *seated {
	v.Replicas, v.MaxSurge = 0, 0
	g := &seated{planner: newPlanner(v, now)}
	if v.Deleting {
		return g
	}
	of := make(map[int]*slot, len(g.slots))
	for _, s := range g.slots {
		of[s.number] = s
	}
	for _, n := range v.Seats {
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
		g.seats = append(g.seats, seat{s, n, v.Bound})
	}
	slices.SortFunc(g.seats, func(a, b seat) int { return cmp.Compare(a.number, b.number) })
	g.Replicas = len(g.seats) // of which the floor is made
	if g.Recreate {
		g.MaxUnavailable = len(g.seats)
	}
	return g
}

// there are the seat's fillings: of a global service those on its node, as others have
// no business in it. What runs elsewhere in a slot that is bound serves until its turn.
func (s seat) there() []*Filling {
	return s.filter(func(f *Filling) bool { return s.bound || f.Node == s.Node })
}

func (s seat) liveThere() []*Filling {
	return s.filter(func(f *Filling) bool { return (s.bound || f.Node == s.Node) && !f.Stopping })
}

// inPlace tells whether a filling is where its seat is.
func (s seat) inPlace(f *Filling) bool { return s.Node == "" || f.Node == s.Node }

// isCurrent tells whether a filling is what the seat is to have in the end.
func (g *seated) isCurrent(s seat, f *Filling) bool { return f.Revision == g.Revision && s.inPlace(f) }

func (g *seated) hasCurrent(s seat) bool {
	return slices.ContainsFunc(s.liveThere(), func(f *Filling) bool { return g.isCurrent(s, f) })
}

// leaveNodes removes what no seat wants, whatever the verdict of its node.
func (g *seated) leaveNodes() {
	onNode, inSlot := map[string]Seat{}, map[int]Seat{}
	if !g.Deleting {
		for _, n := range g.Seats {
			onNode[n.Node], inSlot[n.Slot] = n, n
		}
	}
	for _, s := range g.slots {
		for _, f := range s.live() {
			n, seated := onNode[f.Node]
			if !g.Global {
				n, seated = inSlot[s.number]
			}
			switch {
			case g.Deleting:
				g.remove(f, "the service is deleted")
			case !seated && !g.Global:
				g.remove(f, "the service is scaled to %d", len(g.Seats))
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

func (g *seated) name(slot int) string {
	return api.ReplicaKey{Service: g.Service.Name, Slot: slot}.Name()
}

// leaveOneThere removes all live fillings of a seat but the best: the service became
// global while it was being rolled. One that is about to be heard is waited for.
func (g *seated) leaveOneThere(s seat) {
	is, where := "global", "on the same node"
	if s.bound {
		is, where = "bound to its nodes", "in the same slot"
	}
	g.leaveBest(s.liveThere(), is, where)
}

// evictThere removes what is overdue, as far down as the floor: nothing is to take its
// place elsewhere.
func (g *seated) evictThere() {
	if !g.overdue {
		return
	}
	available, floor := g.availableSeats(), g.floor()
	for _, s := range g.seats {
		for _, f := range s.liveThere() {
			if !f.Overdue || !f.known() || f.ended() {
				continue
			}
			if g.counts(f) {
				if available <= floor {
					continue
				}
				available--
			}
			g.remove(f, "%s was to be empty by now: %d of %d slots are available without it, %d must stay", f.Node, available, len(g.seats), floor)
		}
	}
}

// stopThere removes old fillings: those that serve nobody at no cost, and others as
// far down as the floor; no more than the rollout may have come to.
func (g *seated) stopThere() {
	available, floor := g.availableSeats(), g.floor()
	come, most := g.comeTo()
	for _, s := range g.seats {
		live := s.liveThere()
		if len(live) != 1 || s.Closed || g.isCurrent(s, live[0]) || !live[0].known() {
			continue
		}
		if most >= 0 && come >= most {
			return
		}
		f := live[0]
		switch {
		case f.Revision == g.Revision && (!f.available() || available > floor):
			if f.available() {
				available--
			}
			g.remove(f, "its slot is bound to %s", s.Node)
		case f.Revision == g.Revision:
			continue
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
func (g *seated) comeTo() (come, most int) {
	for _, s := range g.seats {
		live := s.liveThere()
		if len(live) == 0 && !s.Closed || g.hasCurrent(s) {
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
func (g *seated) stable() int64 {
	if g.Stable == 0 {
		return g.Revision
	}
	return g.Stable
}

// fillSeats creates what is missing where all is gone that was there.
func (g *seated) fillSeats() {
	_, most := g.comeTo()
	current := 0
	for _, s := range g.seats {
		if g.hasCurrent(s) {
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
		switch {
		case why != "":
		case g.Global:
			why = fmt.Sprintf("the service is global and %s has none of it", s.Node)
		default:
			why = "the slot is empty"
		}
		g.create(s.slot, Action{Revision: rev, On: s.Node, Avoid: s.Avoid, Why: why})
		s.fillings[len(s.fillings)-1].Node = s.Node
	}
}

// olderLeft tells whether anything of another revision may still run, on a seat that
// the rollout can come to, or that is none any more.
func (g *seated) olderLeft() bool {
	older := func(f *Filling) bool { return f.Revision != g.Revision }
	if slices.ContainsFunc(g.seats, func(s seat) bool { return !s.Closed && slices.ContainsFunc(s.there(), older) }) {
		return true
	}
	return slices.ContainsFunc(g.slots, func(s *slot) bool { // what is scaled away, or has no business on its node, runs until it is gone
		return !slices.ContainsFunc(g.seats, func(x seat) bool { return x.slot == s }) &&
			slices.ContainsFunc(s.fillings, func(f *Filling) bool { return older(f) && f.heard() })
	})
}

func (g *seated) availableSeats() int {
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
func (g *seated) counted() (counted, slots int) {
	for _, s := range g.seats {
		if s.Closed && !g.hasCurrent(s) {
			continue
		}
		slots++
		if slices.ContainsFunc(s.liveThere(), func(f *Filling) bool { return g.isCurrent(s, f) && g.counts(f) }) {
			counted++
		}
	}
	return counted, slots
}

// wakeSeats is when the next filling counts by MinReady, or a fence has passed.
func (g *seated) wakeSeats() time.Time {
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

// waitingSeats is waiting for a service whose slots belong to nodes.
func (g *seated) waitingSeats() []string {
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
		case len(live) != 1 || g.isCurrent(s, live[0]) || live[0].Key.Epoch == 0:
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
