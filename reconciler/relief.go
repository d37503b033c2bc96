package reconciler

import (
	"fmt"
	"slices"
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

// reliever is what may go on alone in the slot: an incumbent that serves, else a
// spare, of the wanted revision if there is one.
func (p *planner) reliever(s *slot) *Filling {
	if i := slices.IndexFunc(s.incumbents(), (*Filling).serving); i >= 0 {
		return s.incumbents()[i]
	}
	var best *Filling
	for _, f := range s.spares() {
		if f.serving() && (best == nil || f.Revision == p.Revision && best.Revision != p.Revision) {
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
