package core

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/reconciler"
	"github.com/orchctl/orch/scheduler"
)

// A global service has a replica on every node that would take it. Each such node has
// a seat: a slot of its own, which it keeps as long as anything of the service is
// there. Nothing of it is durable but the placements: a leader that follows gives
// those that have one the same seat, and the others any.

// seats are those of a global service.
type seats struct {
	of      []reconciler.Seat // by slot
	wanted  int               // of them are to have a replica
	numbers map[string]int    // slots by node, as given last; only where it is global
	homes   map[int]home      // by slot, only of one with volumes
	// settled: nothing changed since that they hang on, the service apart, whose
	// generation they were given for.
	settled    bool
	generation int64
}

func (s *service) global() bool { return s.obj.Spec.Mode == api.ModeGlobal }

// want is how many slots the service is to have; of a job, at once.
func (s *service) want() int {
	switch {
	case s.job != nil:
		return s.job.obj.Spec.AtOnce()
	case s.global():
		return s.seats.wanted
	}
	return s.obj.Spec.Want()
}

// wants tells whether the service is to have a slot.
func (s *service) wants(slot int) bool {
	if s.job != nil {
		return slot < s.obj.Spec.Want() && !s.job.ended() && !s.job.done.Has(slot)
	}
	if !s.global() {
		return slot < s.obj.Spec.Want()
	}
	i, found := slices.BinarySearchFunc(s.seats.of, slot, func(x reconciler.Seat, slot int) int { return cmp.Compare(x.Slot, slot) })
	return found && s.seats.of[i].Leave == ""
}

// shows words what it is, for an event.
func (s *service) shows() string {
	if s.job != nil {
		return fmt.Sprintf("%s, %d at once", count(s.job.obj.Spec.Want(), "completion", "completions"), s.job.obj.Spec.AtOnce())
	}
	return fmt.Sprintf("revision %d, %s", s.obj.Status.Revision, s.size())
}

// size words how many replicas are wanted.
func (s *service) size() string {
	if s.global() {
		return "one replica on every node that is fit"
	}
	return fmt.Sprintf("%d replicas", s.obj.Spec.Want())
}

// noteGlobal takes note of whether the service is global. It is for one that was
// loaded or changed.
func (c *Core) noteGlobal(s *service) {
	delete(c.globals, s.key)
	if s.seated() {
		c.globals[s.key] = true
	}
	s.seats.settled = false
}

// reseat has seats given anew, as a node came, went or changed: of all global services,
// and of those with slots that are bound to it.
func (c *Core) reseat(node string) {
	for key := range c.globals {
		s := c.services[key]
		if !s.global() && s.seats.settled && !slices.ContainsFunc(s.seats.of, func(x reconciler.Seat) bool { return x.Node == node }) {
			continue
		}
		s.seats.settled = false
		c.dirty[key] = true
	}
}

// seat gives a global service's seats, if they are not as they were given. It costs
// the nodes of the fleet and the service's fillings.
func (c *Core) seat(s *service) {
	if !s.seated() || s.seats.settled && s.seats.generation == s.obj.Metadata.Generation {
		return
	}
	if !s.global() {
		c.seatBound(s)
		return
	}
	was := s.seats.numbers
	s.seats = seats{numbers: map[string]int{}, settled: true, generation: s.obj.Metadata.Generation}
	given := map[int]bool{} // numbers that are somebody's, or not free yet
	take := func(node string, slot int) {
		s.seats.numbers[node], given[slot] = slot, true
	}
	for _, name := range s.newest().volumes { // what a slot keeps on a node goes before what runs there
		for _, x := range c.volumesOf(s, name) {
			given[x.key.Slot] = true
			if _, has := s.seats.numbers[x.Node]; !has && c.nodes[x.Node] != nil {
				take(x.Node, x.key.Slot)
			}
		}
	}
	holders := make([]holder, len(s.fillings))
	for i, f := range s.fillings {
		holders[i] = holder{f, c.holds(f)}
	}
	slices.SortStableFunc(holders, func(a, b holder) int { return cmp.Compare(b.rank, a.rank) })
	live := make(map[string]bool, len(holders))
	for _, x := range holders {
		f := x.filling
		live[f.node] = live[f.node] || !f.stopping && !f.void
		if _, has := s.seats.numbers[f.node]; !has && !given[f.key.Slot] && c.nodes[f.node] != nil && !c.removedSlots(s, f.node)[f.key.Slot] {
			take(f.node, f.key.Slot)
		}
	}
	for _, f := range s.fillings { // what is in a slot, or was just now, may run
		given[f.key.Slot] = true
	}
	for node := range c.volumes.removals { // what is new there would be removed with what was
		for slot := range c.removedSlots(s, node) {
			given[slot] = true
		}
	}
	var without []reconciler.Seat
	for _, n := range c.sortedNodes() {
		x, ok := c.seatOn(s, n, live[n.name])
		if !ok {
			delete(s.seats.numbers, n.name)
			continue
		}
		if slot, has := s.seats.numbers[n.name]; has {
			x.Slot = slot
			s.seats.of = append(s.seats.of, x)
		} else if slot, had := was[n.name]; had && !given[slot] {
			take(n.name, slot)
			x.Slot = slot
			s.seats.of = append(s.seats.of, x)
		} else {
			without = append(without, x)
		}
	}
	free := 0
	for _, x := range without {
		for given[free] {
			free++
		}
		take(x.Node, free)
		x.Slot = free
		s.seats.of = append(s.seats.of, x)
	}
	slices.SortFunc(s.seats.of, func(a, b reconciler.Seat) int { return cmp.Compare(a.Slot, b.Slot) })
	for _, x := range s.seats.of {
		if x.Leave == "" {
			s.seats.wanted++
		}
	}
}

// holder is a filling with its claim to its slot.
type holder struct {
	*filling
	rank int
}

// holds is how good a claim to its slot a filling gives its node.
func (c *Core) holds(f *filling) int {
	rank := 0
	for _, good := range []bool{!f.void, !f.stopping, f.status.Ready && c.heard(f), !f.spare} {
		rank *= 2
		if good {
			rank++
		}
	}
	return rank
}

// seatOn tells what a node is to the service, but for the slot; live: something of
// it is there and is not about to go. A node that takes nothing new keeps what it has,
// and one that has nothing then has no seat.
func (c *Core) seatOn(s *service, n *node, live bool) (reconciler.Seat, bool) {
	x := reconciler.Seat{Node: n.name}
	unmet := scheduler.Unmet(c.fleet, s.newest().shape, n.name)
	switch {
	case n.obj.Spec.Drain != nil:
		x.Leave = fmt.Sprintf("%s is being drained by %s", n.name, orElse(n.obj.Spec.Drain.By, "an operator"))
	case unmet != "":
		x.Leave = fmt.Sprintf("%s is not fit: it %s", n.name, unmet)
	case live:
		x.Closed = n.obj.Spec.Unschedulable || n.impaired != "" || n.damped()
		return x, true
	default:
		return x, n.takesReplicas()
	}
	return x, live
}
