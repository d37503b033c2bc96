package reconciler

import (
	"fmt"
	"slices"
)

// standIn sees to it that a slot in which nothing but suspect incumbents lives
// has a spare. It comes after prune, which may have left it so.
func (p *planner) standIn(s *slot, proven bool) {
	if !allSuspect(s.incumbents()) {
		return
	}
	rev := p.spareRevision(s, proven)
	p.dropStaleSpares(s, rev)
	p.dropDoubles(s)
	p.addSpare(s, rev)
}

// dropDoubles leaves one spare where several serve: their nodes fell silent one after the
// other, and are back before the incumbent's.
func (p *planner) dropDoubles(s *slot) {
	var keep *Filling
	for _, f := range s.spares() {
		if !p.counts(f) || f.relieved() || f.Damped {
			continue
		}
		if keep == nil || f.Revision == p.Revision && keep.Revision != p.Revision {
			keep = f
		}
	}
	if keep == nil {
		return
	}
	for _, f := range s.spares() {
		if f != keep && f.heard() {
			p.remove(f, "the spare %s on %s serves, one is enough", keep.name(), keep.Node)
		}
	}
}

func allSuspect(fs []*Filling) bool {
	return len(fs) > 0 && !slices.ContainsFunc(fs, func(f *Filling) bool { return !f.suspect() })
}

// adoptOrphan makes a spare the slot's replica where no incumbent is left.
func (p *planner) adoptOrphan(s *slot) {
	spares := s.spares()
	if len(spares) == 0 || len(s.incumbents()) > 0 {
		return
	}
	best := spares[0]
	for _, f := range spares[1:] {
		if orphanRank(f) > orphanRank(best) {
			best = f
		}
	}
	why := s.lost
	if why == "" {
		why = "the slot has no other replica"
	}
	p.adopt(best, "%s", why)
}

func orphanRank(f *Filling) int {
	switch {
	case f.available() && !f.relieved():
		return 4
	case f.available():
		return 3
	case f.suspect():
		return 0
	case f.ended():
		return 1
	}
	return 2
}

// contest ends the coexistence of incumbent and spare once both are heard.
// An incumbent that is not yet reported is waited for: unknown is not absent.
// One that is being relieved contests nothing: its spare is to win.
func (p *planner) contest(s *slot) {
	incumbents, spares := s.incumbents(), s.spares()
	for len(spares) > 0 && len(incumbents) > 0 && !slices.ContainsFunc(incumbents, func(f *Filling) bool { return !f.over() }) {
		// What is adopted may have ended like that, too.
		for _, inc := range incumbents { // an end is final: nobody has to hear of it again
			p.remove(inc, "it has ended on %s, which may not come back, and a spare is in the slot", inc.Node)
		}
		p.adoptOrphan(s)
		incumbents, spares = s.incumbents(), s.spares()
	}
	if len(spares) == 0 || len(incumbents) == 0 || slices.ContainsFunc(incumbents, (*Filling).relieved) {
		return
	}
	if w := p.successor(incumbents, spares); w != nil {
		for _, inc := range incumbents {
			if inc.ready() {
				p.remove(inc, "the spare %s on %s is ready and has revision %d", w.name(), w.Node, w.Revision)
			} else {
				p.remove(inc, "%s is back, but the incumbent is not ready there and the spare %s on %s is", inc.Node, w.name(), w.Node)
			}
		}
		p.adopt(w, "the incumbent %s on %s goes", incumbents[0].name(), incumbents[0].Node)
	}
	i := slices.IndexFunc(s.incumbents(), func(f *Filling) bool { return f.serving() && p.mature(f) })
	if i < 0 {
		i = slices.IndexFunc(s.incumbents(), (*Filling).serving)
	}
	for _, f := range s.spares() {
		switch {
		case !f.heard() && !f.relieved() || p.staysBeside(s, f):
		case i >= 0 && !p.mature(s.incumbents()[i]) && p.counts(f):
			// It has to be ready for longer, to take over what the spare does.
		case i >= 0:
			p.remove(f, "incumbent on %s is back and ready", s.incumbents()[i].Node)
		case (f.ended() || f.reported() && f.Final && !f.ready()) && allReported(incumbents):
			p.remove(f, "the spare has ended and the incumbent on %s is back", incumbents[0].Node)
		case (f.reported() || f.relieved()) && !f.ready() && f.Revision != p.Revision && allReported(incumbents):
			// Neither serves, and perhaps neither ever will: the wanted revision,
			// which a contested slot does not get, may be the cure.
			p.remove(f, "neither it nor the incumbent on %s is ready and revision %d is wanted", incumbents[0].Node, p.Revision)
		}
	}
}

// staysBeside tells whether a spare is kept although an incumbent serves: it
// serves too, and all that do otherwise may be gone again in a moment. A rollout
// is not kept waiting for that.
func (p *planner) staysBeside(s *slot, spare *Filling) bool {
	return spare.ready() && spare.Revision == p.Revision &&
		slices.ContainsFunc(s.incumbents(), (*Filling).serving) &&
		!slices.ContainsFunc(s.incumbents(), func(f *Filling) bool { return f.serving() && !f.Damped })
}

// successor is the spare that takes the place of incumbents which are back, or
// nil. It is ready; they are not, or they have an older revision and would be
// replaced by the rollout anyway.
func (p *planner) successor(incumbents, spares []*Filling) *Filling {
	if !allReported(incumbents) {
		return nil
	}
	anyReady := slices.ContainsFunc(incumbents, (*Filling).ready)
	anyWanted := slices.ContainsFunc(incumbents, func(f *Filling) bool { return f.Revision == p.Revision })
	var best *Filling
	for _, f := range spares {
		wanted := f.Revision == p.Revision
		if !f.reported() || !f.ready() || anyReady && (anyWanted || !wanted || !p.mature(f)) {
			continue
		}
		if best == nil || wanted && best.Revision != p.Revision {
			best = f
		}
	}
	return best
}

func allReported(fs []*Filling) bool {
	return !slices.ContainsFunc(fs, func(f *Filling) bool { return !f.reported() })
}

// spareRevision is the revision of a spare for a slot whose incumbents are all
// suspect or to be relieved: a spare is no place for an experiment, so a revision
// that no filling has proven yet does not get there while the incumbent's own is
// at hand.
//
// A relief may last, and its slot is not rolled meanwhile: so it takes the wanted
// revision as soon as the incumbent's own is no better, or if there is no other
// slot that could prove it.
func (p *planner) spareRevision(s *slot, proven bool) int64 {
	held := !p.mayReach(s)
	if proven && !held {
		return p.Revision
	}
	fs := s.incumbents()
	own, ready := fs[0].Revision, false
	if i := slices.IndexFunc(fs, (*Filling).ready); i >= 0 {
		own, ready = fs[i].Revision, true
	}
	ended := slices.ContainsFunc(s.spares(), func(f *Filling) bool { return f.ended() && f.Revision == own })
	switch {
	case p.other() && own != p.Revision && !ready:
		return p.Stable
	case !held && !allSuspect(fs) && (!ready || ended || p.Replicas == 1):
		return p.Revision
	}
	return own
}

// dropStaleSpares removes spares that serve nobody and would not be made so
// today. One of the wanted revision is never stale, so this comes to an end.
func (p *planner) dropStaleSpares(s *slot, rev int64) {
	for _, f := range s.spares() {
		if f.known() && !f.ready() && f.Revision != p.Revision && f.Revision != rev {
			p.remove(f, "the spare of revision %d is not ready, revision %d takes its place", f.Revision, rev)
		}
	}
}

// addSpare creates a spare where all that lives in the slot is suspect. What
// had ended by its own policy before its node fell silent is not stood in for.
func (p *planner) addSpare(s *slot, rev int64) {
	i := slices.IndexFunc(s.incumbents(), func(f *Filling) bool { return !f.ended() })
	if i < 0 || !allSuspect(s.live()) {
		return
	}
	inc := s.incumbents()[i]
	p.create(s, Action{Revision: rev, Spare: true, Avoid: doubtfulNodes(s),
		Why: fmt.Sprintf("%s suspect: %s cannot be reached", inc.Node, inc.name())})
}

func doubtfulNodes(s *slot) []string {
	var nodes []string
	for _, f := range s.fillings {
		if f.doubtful() {
			nodes = append(nodes, f.Node)
		}
	}
	slices.Sort(nodes)
	return slices.Compact(nodes)
}
