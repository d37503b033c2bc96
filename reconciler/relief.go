package reconciler

import (
	"fmt"
	"slices"

	"github.com/orchctl/orch/api"
)

// relieve removes what is to be relieved as soon as something else serves in the
// slot, so that the slot stays available. That its node may not hear of it for
// long changes nothing: it serves beside its successor until then, or not.
func (p *planner) relieve(s *slot) {
	if !p.relief {
		return
	}
	w := p.reliever(s)
	if w == nil {
		p.relieveIdle(s)
		return
	}
	for _, f := range s.live() {
		if f.relieved() {
			p.remove(f, "%s on %s is ready in its place: %s", w.name(), w.Node, f.Relieve)
			p.actions[len(p.actions)-1].Relief = true
		}
	}
	if w.Spare && len(s.incumbents()) == 0 {
		p.adopt(w, "it has relieved the incumbent")
	}
}

// relieveIdle removes what is to be relieved and does not serve, as soon as a spare
// runs: it may be as little use as the spare, but its node is to be left.
func (p *planner) relieveIdle(s *slot) {
	i := slices.IndexFunc(s.spares(), func(f *Filling) bool {
		return f.reported() && !f.relieved() && !f.ended() && !f.Phase.Before(api.PhaseRunning)
	})
	if i < 0 || p.slotCounts(s) || !slices.ContainsFunc(s.live(), idle) {
		return
	}
	w := s.spares()[i]
	for _, f := range s.live() {
		if idle(f) {
			p.remove(f, "it is not ready and %s runs on %s in its place: %s", w.name(), w.Node, f.Relieve)
			p.actions[len(p.actions)-1].Relief = true
		}
	}
	if len(s.incumbents()) == 0 {
		p.adopt(w, "it has relieved the incumbent")
	}
}

// idle tells whether a filling is to be relieved and surely does not serve.
func idle(f *Filling) bool { return f.relieved() && f.reported() && !f.ready() && !f.ended() }

// evict removes what is overdue although nothing serves in its place, as far down as
// the floor. What does not serve, or not alone in its slot, goes at once.
func (p *planner) evict() {
	if !p.overdue {
		return
	}
	available, floor := p.available(), p.floor()
	for _, s := range p.wanted() {
		if p.Exclusive && len(s.live()) != 1 { // which of several is to stay is not decided yet
			continue
		}
		for _, f := range s.live() {
			if !f.Overdue || !f.known() || f.ended() || p.unfenceable(s) != nil {
				continue
			}
			last := f.available() && !slices.ContainsFunc(s.live(), func(x *Filling) bool { return x != f && p.counts(x) })
			if last && available <= floor {
				continue
			}
			if last && p.mature(f) {
				available--
			}
			p.remove(f, "%s was to be empty by now: %d of %d slots are available without it, %d must stay", f.Node, available, p.Replicas, floor)
		}
		if len(s.incumbents()) == 0 && !p.Exclusive {
			p.adoptOrphan(s)
		}
	}
}

// reliever is what may go on alone in the slot: an incumbent that serves, and counts
// as available, else a spare, of the wanted revision if there is one.
func (p *planner) reliever(s *slot) *Filling {
	serving := func(f *Filling) bool { return f.serving() && p.mature(f) }
	if i := slices.IndexFunc(s.incumbents(), serving); i >= 0 {
		return s.incumbents()[i]
	}
	var best *Filling
	for _, f := range s.spares() {
		if serving(f) && (best == nil || f.Revision == p.Revision && best.Revision != p.Revision) {
			best = f
		}
	}
	return best
}

// prepareRelief creates a spare where all that lives in the slot is to be
// relieved or suspect, and one is to be relieved. It comes after the rollout: to
// roll a slot relieves it as well, and a spare that finds no room may not keep
// the slot from being rolled.
func (p *planner) prepareRelief(s *slot, proven bool) {
	if !p.relief {
		return
	}
	i := slices.IndexFunc(s.live(), func(f *Filling) bool { return f.relieved() && !f.ended() })
	if i < 0 || slices.ContainsFunc(s.incumbents(), mayRelieve) {
		return
	}
	f := s.live()[i]
	rev := p.spareRevision(s, proven)
	p.dropStaleSpares(s, rev)
	if slices.ContainsFunc(s.live(), mayRelieve) {
		return
	}
	p.create(s, Action{Revision: rev, Spare: true, Relief: true, Avoid: doubtfulNodes(s),
		Why: fmt.Sprintf("%s on %s is to be relieved: %s", f.name(), f.Node, f.Relieve)})
}

// mayRelieve tells whether a filling stands in for the doubtful ones of its slot,
// or will. A spare that has ended counts: another would end as well. A successor
// that has ended does not: its rollout may be what is wrong.
func mayRelieve(f *Filling) bool { return !f.doubtful() && (f.Spare || !f.ended()) }
