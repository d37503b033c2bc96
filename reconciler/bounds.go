package reconciler

import (
	"slices"
	"time"
)

// A rollout goes as far as it is let. Held says how many slots it may come to. And
// while no filling of the wanted revision is ready, the rollout is on trial: it may
// leave as many slots down as the user can spare (MaxUnavailable), those that it
// cannot be blamed for included; what else is lost meanwhile is filled with the
// stable revision. Both look at the same three counts, so that what is filled
// with the stable revision is not taken away again in the next plan.

// reach is how far a rollout has come, in wanted slots.
type reach struct {
	reached int // have a live filling of the wanted revision
	down    int // are reached, and nothing serves in them
	empty   int // have no live filling
}

func (r reach) plus(x reach, by int) reach {
	return reach{r.reached + by*x.reached, r.down + by*x.down, r.empty + by*x.empty}
}

// measure begins to count the reach; from then on remove and create keep it.
func (p *planner) measure() {
	p.Held = p.Held && (!p.Recreate || p.notBegun())
	p.trial = !p.Recreate && p.other() && !p.anyWasReady(p.Revision)
	p.bounded = p.Held || p.trial
	p.mayBeDown = p.MaxUnavailable
	if p.trial && !p.anyWasReady(p.Stable) {
		p.mayBeDown = max(p.mayBeDown, 1) // the stable one does not serve either: the wanted one may be the cure
	}
	if !p.bounded {
		return
	}
	for _, s := range p.wanted() {
		s.measured = true
		p.recount(s)
	}
}

// anyWasReady tells whether a filling of a revision was ready when last heard of.
func (p *planner) anyWasReady(revision int64) bool {
	return slices.ContainsFunc(p.Fillings, func(f Filling) bool { return f.Revision == revision && f.wasReady })
}

func (p *planner) recount(s *slot) {
	if !s.measured {
		return
	}
	var now reach
	switch live := s.live(); {
	case len(live) == 0:
		now.empty = 1
	case len(p.current(s)) > 0:
		now.reached = 1
		if !slices.ContainsFunc(live, func(f *Filling) bool { return f.wasReady && !f.suspect() }) {
			now.down = 1
		}
	}
	p.reach = p.reach.plus(s.counted, -1).plus(now, 1)
	s.counted = now
}

// recountAt is recount of the slot with that number, if it is wanted.
func (p *planner) recountAt(number int) {
	if !p.bounded {
		return
	}
	if i, found := slices.BinarySearchFunc(p.slots, number, func(s *slot, n int) int { return s.number - n }); found {
		p.recount(p.slots[i])
	}
}

// others is the reach without one slot.
func (p *planner) others(s *slot) reach { return p.reach.plus(s.counted, -1) }

// other tells whether there is a stable revision to fill slots with that is not the
// wanted one.
func (p *planner) other() bool { return p.Stable != 0 && p.Stable != p.Revision }

// mayReach tells whether the rollout may come to a slot, or has.
func (p *planner) mayReach(s *slot) bool {
	o := p.others(s)
	return !p.Held || s.counted.reached > 0 || o.reached+o.empty < p.AtMost
}

// mayEmpty tells whether the rollout may take out of a slot what is in it before
// something else serves there.
func (p *planner) mayEmpty(s *slot) bool {
	o := p.others(s)
	return p.mayReach(s) && (!p.trial || s.counted.reached > 0 || o.down+o.empty < p.mayBeDown)
}

// fillRevision is what a slot without any live filling is filled with.
func (p *planner) fillRevision(s *slot) int64 {
	o := p.others(s)
	if p.other() && (p.Held && o.reached >= p.AtMost || p.trial && o.down >= p.mayBeDown) {
		return p.Stable
	}
	return p.Revision
}

// protected tells whether an old filling that serves nobody waits for the rollout's
// turn: nothing else serves in its slot, and what would take its place is no better
// known. One of a slot does, that may still become ready if there is such a one.
func (p *planner) protected(s *slot, f *Filling) bool {
	if !p.bounded || firstServing(p.old(s)) != nil {
		return false
	}
	var one *Filling
	for _, x := range p.old(s) {
		if (!p.other() || x.Revision == p.Stable) && (one == nil || one.ended() && !x.ended()) {
			one = x
		}
	}
	return f == one
}

// mayJoin tells whether the rollout may put a filling beside what is in the slot.
func (p *planner) mayJoin(s *slot) bool {
	return p.mayReach(s) && (!p.trial || p.slotCounts(s) || p.others(s).down < p.mayBeDown)
}

// retract takes the wanted revision out of slots where nothing serves, as long as it is
// on trial and more are down than may be: what served beside it was lost.
func (p *planner) retract() {
	if !p.trial {
		return
	}
	for _, s := range slices.Backward(p.wanted()) {
		if p.reach.down <= p.mayBeDown {
			return
		}
		current := p.current(s)
		if s.counted.down == 0 || s.contested() || slices.ContainsFunc(current, func(f *Filling) bool { return !f.known() }) {
			continue
		}
		for _, f := range current {
			p.remove(f, "revision %d was never ready, and nothing else serves in the slot: revision %d takes its place", p.Revision, p.Stable)
		}
	}
}

// pruneProtected removes old fillings that serve nobody where the rollout may come.
// It is apart from prune, so that all that other rules remove is counted before.
func (p *planner) pruneProtected() {
	if !p.bounded {
		return
	}
	for _, s := range p.wanted() {
		if s.contested() || p.trial && len(p.current(s)) > 0 || firstServing(p.current(s)) != nil {
			continue
		}
		for _, f := range p.old(s) {
			if (f.known() || f.over()) && !f.ready() && p.protected(s, f) && p.mayEmpty(s) {
				p.remove(f, "revision %d is not ready and revision %d is wanted", f.Revision, p.Revision)
			}
		}
	}
}

// mature tells whether a filling that is ready has been so for long enough. Those of
// other revisions did their time in rollouts of their own.
func (p *planner) mature(f *Filling) bool {
	return f.Revision != p.Revision || p.MinReady <= 0 || !f.ReadySince.Add(p.MinReady).After(p.now)
}

// counts tells whether a filling makes its slot count as available.
func (p *planner) counts(f *Filling) bool { return f.available() && p.mature(f) }

// slotCounts tells whether a slot counts as available.
func (p *planner) slotCounts(s *slot) bool { return slices.ContainsFunc(s.fillings, p.counts) }

// counted counts the wanted slots in which the wanted revision counts.
func (p *planner) counted() int {
	n := 0
	for _, s := range p.wanted() {
		if slices.ContainsFunc(s.fillings, func(f *Filling) bool { return f.Revision == p.Revision && p.counts(f) }) {
			n++
		}
	}
	return n
}

// ripens is when the next filling counts that is ready for too short a time; zero:
// none is.
func (p *planner) ripens() time.Time {
	var next time.Time
	for _, s := range p.wanted() {
		for _, f := range s.fillings {
			if at := f.ReadySince.Add(p.MinReady); f.available() && !p.mature(f) && (next.IsZero() || at.Before(next)) {
				next = at
			}
		}
	}
	return next
}

// recreating tells whether anything of another revision may still run, which has to
// end before anything of the wanted one starts.
func (p *planner) recreating() bool {
	return p.Recreate && !p.Held && p.anyOther()
}

// notBegun tells whether a rollout that is held is to stay where it began. One that
// recreates cannot be held midway: the rest of what was there is gone.
func (p *planner) notBegun() bool {
	return p.AtMost == 0 && !slices.ContainsFunc(p.slots, func(s *slot) bool {
		return slices.ContainsFunc(s.fillings, func(f *Filling) bool { return f.Revision == p.Revision })
	})
}

// waitsForOthers tells whether a filling of a revision has to wait until all others
// are gone.
func (p *planner) waitsForOthers(revision int64) bool {
	return p.Recreate && revision == p.Revision && p.anyOther()
}

// anyOther tells whether anything of another revision may still run.
func (p *planner) anyOther() bool {
	return slices.ContainsFunc(p.slots, func(s *slot) bool {
		return slices.ContainsFunc(s.fillings, func(f *Filling) bool {
			return f.Revision != p.Revision && !(p.Exclusive && f.Stopping && f.fenced(p.now))
		})
	})
}

// othersFenced is when the next filling of another revision is known to run no more;
// zero: time alone tells of none.
func (p *planner) othersFenced() time.Time {
	var next time.Time
	for _, s := range p.slots {
		for _, f := range s.fillings {
			if f.Revision != p.Revision && f.Leased && f.FencedAt.After(p.now) {
				next = earlier(next, f.FencedAt)
			}
		}
	}
	return next
}

// stopOthers removes everything of other revisions that can be told to stop. What
// cannot be heard is waited for: it may run.
func (p *planner) stopOthers() {
	for _, s := range p.wanted() {
		for _, f := range p.old(s) {
			if f.known() || f.over() {
				p.remove(f, "revision %d is recreated: all of revision %d stops first", p.Revision, f.Revision)
			}
		}
		if p.Exclusive {
			p.leaveOne(s)
			if len(s.live()) == 1 {
				p.giveUp(s)
			}
		}
		p.adoptOrphan(s)
	}
}
