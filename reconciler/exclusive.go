package reconciler

import (
	"fmt"
	"slices"
	"time"

	"github.com/orchctl/orch/api"
)

// oneEach plans the wanted slots of an exclusive service: of what is in a slot
// all goes but one, and nothing comes until all that was there is known or fenced
// to run no more.
func (p *planner) oneEach() {
	for _, s := range p.wanted() {
		p.leaveOne(s)
		if len(s.live()) == 1 { // or two that wait for an agent's word
			p.giveUp(s)
			p.prune(s)
		}
	}
	p.relieveStopFirst()
	p.evict()
	p.retract()
	p.pruneProtected()
	p.stopFirst()
	p.refill()
}

// leaveOne removes all live fillings of a slot but the best: the service became
// exclusive while there were spares or successors. One that is about to be heard
// is waited for: unknown is not absent.
func (p *planner) leaveOne(s *slot) { p.leaveBest(s.live(), "exclusive", "in the same slot") }

// leaveBest removes all but the best of what is live in one place of a service that
// became what it is.
func (p *planner) leaveBest(live []*Filling, is, where string) {
	if len(live) == 0 || len(live) > 1 && slices.ContainsFunc(live, (*Filling).unsettled) {
		return
	}
	best := live[0]
	for _, f := range live[1:] {
		if p.keepRank(f) > p.keepRank(best) {
			best = f
		}
	}
	for _, f := range live {
		if f != best {
			p.remove(f, "the service is %s and %s is %s", is, best.name(), where)
		}
	}
	if best.Spare {
		p.adopt(best, "the service is %s: the slot has no other replica", is)
	}
}

// unsettled tells whether its agent is soon to say how it is, or to be missed.
func (f *Filling) unsettled() bool {
	return f.Verdict == "" || f.Verdict == api.VerdictUnknown || f.Verdict == api.VerdictBack && !f.reported()
}

// keepRank is how well a filling would do as the only one of its slot.
func (p *planner) keepRank(f *Filling) int {
	rank := 0
	for _, good := range []bool{f.available(), p.counts(f), f.heard(), !f.ended() && !f.suspect(), !f.relieved(), f.Revision == p.Revision, !f.Spare} {
		rank *= 2
		if good {
			rank++
		}
	}
	return rank
}

// giveUp removes an incumbent that cannot be reached, once nothing in the slot
// can run any more. What had ended by its own policy is left to fill its slot.
func (p *planner) giveUp(s *slot) {
	f := s.live()[0]
	if !f.unreachable() || f.ended() || p.blocked(s) {
		return
	}
	s.lost = fmt.Sprintf("%s on %s cannot be reached and its lease has ended", f.name(), f.Node)
	if f.FencedAt.IsZero() {
		s.lost = fmt.Sprintf("%s on %s cannot be reached and never had a lease", f.name(), f.Node)
	}
	p.remove(f, "%s", s.lost)
}

// unreachable tells whether its node's agent was heard in this term and is not now.
func (f *Filling) unreachable() bool { return f.suspect() || f.Verdict == api.VerdictAgentLost }

// relieveStopFirst removes what is to be relieved where its agent can be told; one
// that cannot be reached is given up in its time. What does not serve goes at
// once, the rest as far down as the floor.
func (p *planner) relieveStopFirst() {
	available, floor := p.available(), p.floor()
	for _, s := range p.wanted() {
		live := s.live()
		if len(live) != 1 || !live[0].relieved() || !live[0].known() || live[0].ended() {
			continue
		}
		f := live[0]
		if f.available() {
			if available <= floor || p.unfenceable(s) != nil {
				continue
			}
			if p.mature(f) {
				available--
			}
		}
		p.remove(f, "it is relieved stop-first: %s", f.Relieve)
		p.actions[len(p.actions)-1].Relief = true
	}
}

// refill creates what slots lack in which nothing can run any more.
func (p *planner) refill() {
	for _, s := range p.wanted() {
		revision := p.fillRevision(s)
		if len(s.live()) > 0 || p.blocked(s) || p.waitsForOthers(revision) {
			continue
		}
		why := s.lost
		if why == "" {
			why = "the slot is empty"
		}
		p.create(s, Action{Revision: revision, Why: why})
	}
}

// blocked tells whether something that is or was in the slot may still run.
func (p *planner) blocked(s *slot) bool {
	return s.fence.After(p.now) || slices.ContainsFunc(s.fillings, func(f *Filling) bool { return !f.fenced(p.now) })
}

// unfenceable gives a filling that is to go and may run on for ever, for all that
// is known: without a lease, where no agent is heard; or nil. As long as it is
// there nothing can follow what serves in the slot, which had better stay.
func (p *planner) unfenceable(s *slot) *Filling {
	if !p.Exclusive {
		return nil
	}
	i := slices.IndexFunc(s.fillings, func(f *Filling) bool { return f.Stopping && !f.Leased && !f.heard() })
	if i < 0 {
		return nil
	}
	return s.fillings[i]
}

// waitsForFence tells whether the slot is to be filled as soon as all that may
// run in it runs no more: nothing lives there, or what does cannot be reached.
func (p *planner) waitsForFence(s *slot) bool {
	if s.number >= p.Replicas || !p.blocked(s) {
		return false
	}
	return !slices.ContainsFunc(s.live(), func(f *Filling) bool { return !f.unreachable() || f.ended() })
}

// fencedFrom is when the slot's last fence passes; zero if one of its fillings has
// none. by is the filling whose fence that is, nil for one that is not there any more.
func (p *planner) fencedFrom(s *slot) (at time.Time, by *Filling) {
	at = s.fence
	for _, f := range s.fillings {
		switch {
		case f.fenced(p.now):
		case !f.Leased || f.FencedAt.IsZero():
			return time.Time{}, f
		case f.FencedAt.After(at):
			at, by = f.FencedAt, f
		}
	}
	return at, by
}

// wake is when the next slot may be filled that waits for a fence.
func (p *planner) wake() time.Time {
	var next time.Time
	if !p.Exclusive {
		return next
	}
	if p.Recreate {
		next = p.othersFenced()
	}
	for _, s := range p.wanted() {
		if !p.waitsForFence(s) {
			continue
		}
		if at, _ := p.fencedFrom(s); !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next
}

// fenceLine says what a slot waits for; "" for nothing, or for an agent that is
// heard: of its filling another line tells.
func (p *planner) fenceLine(s *slot) string {
	if !p.Exclusive {
		return ""
	}
	slot := api.ReplicaKey{Service: p.Service.Name, Slot: s.number}.Name()
	if f := p.unfenceable(s); f != nil && s.number < p.Replicas {
		return fmt.Sprintf("%s waits for %s: %s may run there without a lease", slot, f.Node, f.name())
	}
	if !p.waitsForFence(s) {
		return ""
	}
	at, by := p.fencedFrom(s)
	// Cut to the second above: nobody is to look for it too early.
	until := at.Add(time.Second - 1).UTC().Format("15:04:05Z")
	switch {
	case by == nil:
		return fmt.Sprintf("%s waits until %s: what was in it may run on until its lease has ended", slot, until)
	case by.heard():
		return ""
	case at.IsZero():
		return fmt.Sprintf("%s waits for %s: %s may run there without a lease", slot, by.Node, by.name())
	}
	return fmt.Sprintf("%s waits until %s: %s may run on %s until its lease has ended", slot, until, by.name(), by.Node)
}
