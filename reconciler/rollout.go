package reconciler

import (
	"fmt"
	"slices"
)

// contested tells whether a spare is in the slot: then it is not rolled.
func (s *slot) contested() bool { return len(s.spares()) > 0 }

// old are the slot's live fillings of another revision than the wanted one,
// current those of the wanted one.
func (p *planner) old(s *slot) []*Filling {
	return s.filter(func(f *Filling) bool { return !f.Stopping && f.Revision != p.Revision })
}

func (p *planner) current(s *slot) []*Filling {
	return s.filter(func(f *Filling) bool { return !f.Stopping && f.Revision == p.Revision })
}

// prune removes what can go at no cost: all others once one of the wanted
// revision is ready, old ones that are not ready, and doubles.
func (p *planner) prune(s *slot) {
	if s.contested() {
		return
	}
	if keep := firstServing(p.current(s)); keep != nil {
		if keep = p.firstCounting(s); keep == nil {
			return // not for long enough; until then what is there stays
		}
		for _, f := range s.live() {
			switch {
			case f == keep || !f.heard():
			case f.Revision == p.Revision:
				p.remove(f, "%s on %s is ready in the same slot", keep.name(), keep.Node)
			default:
				p.remove(f, "revision %d is ready as %s on %s", p.Revision, keep.name(), keep.Node)
			}
		}
		return
	}
	p.pruneEnded(s)
	p.pruneOld(s)
}

// firstCounting is firstServing of those that count as available.
func (p *planner) firstCounting(s *slot) *Filling {
	return firstServing(s.filter(func(f *Filling) bool { return !f.Stopping && f.Revision == p.Revision && p.mature(f) }))
}

// firstServing is the oldest filling that is surely ready, one that is not to be
// relieved before those that are.
func firstServing(fs []*Filling) *Filling {
	var found *Filling
	for _, f := range fs {
		if f.known() && f.ready() && (found == nil || found.relieved() && !f.relieved()) {
			found = f
		}
	}
	return found
}

// pruneEnded leaves one of several fillings of the wanted revision that have
// ended, and none beside one that may still become ready.
func (p *planner) pruneEnded(s *slot) {
	current := p.current(s)
	keep := slices.IndexFunc(current, func(f *Filling) bool { return !f.ended() })
	keep = max(keep, 0)
	for i, f := range current {
		if i != keep && f.ended() && f.known() {
			p.remove(f, "it has ended and %s is in the same slot", current[keep].name())
		}
	}
}

// pruneOld removes old fillings that serve nobody, and all but one of those
// that do; so the slot stays as available as it is.
func (p *planner) pruneOld(s *slot) {
	keep := firstServing(p.old(s))
	for _, f := range p.old(s) {
		switch {
		case f == keep || !f.known() && !f.over() || !f.ready() && p.protected(s, f):
		case f.ended():
			p.remove(f, "revision %d has ended and revision %d is wanted", f.Revision, p.Revision)
		case !f.ready():
			p.remove(f, "revision %d is not ready and revision %d is wanted", f.Revision, p.Revision)
		default:
			p.remove(f, "%s on %s is ready in the same slot and revision %d is wanted", keep.name(), keep.Node, p.Revision)
		}
	}
}

// rollable tells whether the slot's turn has come or is still to come: all in
// it is old, and can be acted on.
func (p *planner) rollable(s *slot) bool {
	live := s.live()
	return len(live) > 0 && !slices.ContainsFunc(live, func(f *Filling) bool {
		return f.Spare || f.Revision == p.Revision || !f.known()
	})
}

// stopFirst removes old fillings that serve, as far down as the floor. It comes
// before startFirst: a successor may find no room until something old is gone,
// and then only this makes the rollout go on.
func (p *planner) stopFirst() {
	available, floor := p.available(), p.floor()
	for _, s := range p.wanted() {
		if available <= floor {
			return
		}
		if !p.rollable(s) || !p.slotCounts(s) || p.unfenceable(s) != nil || !p.mayEmpty(s) {
			continue
		}
		for _, f := range s.live() {
			p.remove(f, "revision %d makes room for revision %d: %d of %d slots are available, %d must stay",
				f.Revision, p.Revision, available, p.Replicas, floor)
		}
		available--
	}
}

// fill creates what slots without any live filling lack. Where something is
// still stopping in the slot, the new one is surge until that is gone.
func (p *planner) fill() {
	surge := p.surge()
	for _, s := range p.wanted() {
		revision := p.fillRevision(s)
		if len(s.live()) > 0 || p.waitsForOthers(revision) {
			continue
		}
		if s.occupants() > 0 {
			if surge >= p.MaxSurge {
				continue
			}
			surge++
		}
		why := s.lost
		if why == "" {
			why = "the slot is empty"
		}
		p.create(s, Action{Revision: revision, Why: why})
	}
}

// startFirst creates successors beside old fillings that serve.
func (p *planner) startFirst() {
	surge := p.surge()
	for _, s := range p.wanted() {
		if surge >= p.MaxSurge {
			return
		}
		if !p.rollable(s) || !p.mayJoin(s) {
			continue
		}
		f := s.live()[0]
		p.create(s, Action{Revision: p.Revision,
			Why: fmt.Sprintf("revision %d is to replace %s of revision %d", p.Revision, f.name(), f.Revision)})
		surge++
	}
}
