package sim

import (
	"fmt"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
)

// drainsEnd waits until drained nodes are empty, or nothing that is left could be
// elsewhere (E).
func (w *world) drainsEnd() {
	what := ""
	for from := w.clock; w.broken == nil; w.runFor(lookEvery) {
		if what = w.undrained(); what == "" {
			return
		}
		w.bury()
		if w.clock-from > int64(ConvergeWithin) {
			w.violate("I1", "%s after everything healed: %s", ConvergeWithin, what)
		}
	}
}

// undrained names what keeps a drain from its end.
func (w *world) undrained() string {
	l := w.leader()
	if l == nil {
		return "nobody leads"
	}
	for _, h := range w.living() {
		n := w.ledger.pic.nodes[h.name]
		if n == nil || n.Spec.Drain == nil {
			continue
		}
		seen, _ := l.view[core.ViewKey{Kind: api.KindNode, Name: h.name}].(*api.Node)
		if seen == nil {
			return h.name + " is not published"
		}
		for _, k := range w.ledger.pic.sortedPlacements() {
			p := w.ledger.pic.placements[k]
			if p.node != h.name {
				continue
			}
			switch {
			case !n.Spec.Drain.Done.IsZero() && p.boot == n.Status.BootID && !p.stopping && !hasEnded(l, k):
				return fmt.Sprintf("%s is drained, and holds %s", h.name, k)
			case n.Spec.Drain.Done.IsZero() && len(seen.Status.DrainWaits) == 0 && !hasEnded(l, k):
				return fmt.Sprintf("%s is being drained, holds %s and does not say why", h.name, k)
			case w.couldMove(k):
				return fmt.Sprintf("%s is being drained and %s is still there: %v", h.name, k, seen.Status.DrainWaits)
			}
		}
	}
	return ""
}

// hasEnded tells whether a replica is a record without a process, as its leader sees it.
func hasEnded(l *lead, k api.ReplicaKey) bool {
	r, _ := l.view[core.ViewKey{Kind: api.KindReplica, Namespace: k.Namespace, Name: fmt.Sprintf("%s@%d", k.Name(), k.Epoch)}].(*api.Replica)
	return r != nil && r.Status.Phase.Ended()
}

// couldMove tells whether nothing keeps a replica where it is, by counting.
func (w *world) couldMove(k api.ReplicaKey) bool {
	pic := w.ledger.pic
	s := pic.services[k.ServiceKey()]
	if s == nil || !s.Metadata.DeletedAt.IsZero() || s.Spec.Mode == api.ModeGlobal || k.Slot >= s.Spec.Want() || w.lost != nil || w.mute != nil {
		return false
	}
	newest := pic.revisions[revisionKey{k.ServiceKey(), s.Status.Revision}]
	if newest == nil || newest.template.Exclusive || w.ledger.seated(pic, k.ServiceKey()) || newest.template.RestartPolicy.Condition == api.RestartNever {
		return false
	}
	// Another that never becomes ready may hold what its service may surge.
	for _, o := range pic.of(k.ServiceKey()) {
		if t := w.templateOf(o); t == nil || !fine(t) || t.Exclusive || t.RestartPolicy.Condition == api.RestartNever || len(pic.of(k.ServiceKey())) != s.Spec.Want() {
			return false
		}
	}
	return fine(newest.template) && !w.fullOn(newest, func(h *host) bool {
		n := pic.nodes[h.name]
		return n != nil && !n.Spec.Unschedulable
	})
}

const (
	// roundsMax is after how many rebalances nothing may be left to move.
	roundsMax = 40
	// answerWithin is how long a rebalance may take to be planned.
	answerWithin = int64(5e9)
	// imbalanceNoise is what sums of floating point numbers may be wrong by.
	imbalanceNoise = 1e-9
)

// evenOut rebalances until nothing is planned any more: I10. One that is carried out
// while others are under way may leave a little for the next; but each leaves the
// fleet more even, and they come to an end.
func (w *world) evenOut() {
	if _, all := w.complete(); !all || w.lost != nil || w.mute != nil || w.r.world.IntN(3) > 0 {
		return
	}
	uneven := 1.0
	for range roundsMax {
		w.rebalance(false)
		for from := w.clock; w.plan == nil && w.broken == nil; w.runFor(lookEvery) {
			if w.clock-from > answerWithin {
				w.say("there is no rebalance now")
				return
			}
		}
		if w.broken != nil || len(w.plan.Moves) == 0 {
			return
		}
		if p := w.plan; p.Before > uneven+imbalanceNoise || p.After >= p.Before {
			w.violate("I10", "a rebalance plans %v: imbalance %.3f to %.3f, and it was %.3f before the one before", p.Moves, p.Before, p.After, uneven)
			return
		}
		uneven = w.plan.Before
		for from := w.clock; w.broken == nil; {
			w.runFor(lookEvery)
			invariant, what := w.unsettled()
			if invariant == "" && w.clock-from > int64(QuietFor) {
				break
			}
			if w.clock-from > int64(ConvergeWithin) {
				w.violate("I1", "%s after a rebalance: %s %s", ConvergeWithin, invariant, what)
			}
		}
	}
	if w.broken == nil {
		w.violate("I10", "after %d rebalances there is still something to move", roundsMax)
	}
}
