package sim

import (
	"math"
	"slices"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
)

// hearsay is what a leader knows of replicas that others placed: nothing, until
// their agents report. Unknown is not absent.
type hearsay struct {
	inherited map[api.ReplicaKey]bool // placed before this term
	whole     map[string]bool         // nodes that have said in this term all they have
	suspected map[string]uint64       // the event since which a node is suspect; 0: it is not
	turns     map[string][]turn       // the latest of each node
	troubled  map[string]uint64       // the last event at which a node was not well, or not able to work; 0: it was always
	ailed     map[string]uint64       // likewise, but for suspect
	healed    map[string]healing      // when it last became well
	flaps     map[string]flaps
}

func newHearsay() hearsay {
	return hearsay{map[api.ReplicaKey]bool{}, map[string]bool{}, map[string]uint64{}, map[string][]turn{}, map[string]uint64{}, map[string]uint64{}, map[string]healing{}, map[string]flaps{}}
}

// begin takes up what a term finds in the store.
func (s *hearsay) begin(pic picture) {
	for k := range pic.placements {
		s.inherited[k] = true
	}
}

// unheard tells whether this leader was told nothing of a replica that it did not
// place, on a node that lives on and is not known to be in trouble.
func (n *knowledge) unheard(k api.ReplicaKey, p placement, pic picture) bool {
	node := pic.nodes[p.node]
	if !n.inherited[k] || n.whole[p.node] || n.status[k] != nil || node == nil || node.Status.BootID != p.boot {
		return false
	}
	v := n.verdict[p.node]
	return v == "" || v == api.VerdictUnknown || v == api.VerdictHealthy || v == api.VerdictBack
}

// stopsUnheard: I5. What is wanted is not told to stop by a leader that was never
// told how it is, nor on a node that is back and has not said it yet; but for one
// of two where the other serves.
func (g *ledger) stopsUnheard(l *lead, after picture, k api.ReplicaKey, p placement) {
	s := after.services[k.ServiceKey()]
	if s == nil || !s.Metadata.DeletedAt.IsZero() || !g.wants(after, k, p) || g.exclusive(k.ServiceKey()) || g.turnedTwice(s) {
		return
	}
	if l.know.ailed[p.node] >= max(l.openSince, 1) {
		return // relieved, perhaps: it may never be able to say how it is
	}
	all := g.pic.of(k.ServiceKey())
	events := l.eventsOf(all)
	serves := func(o api.ReplicaKey) bool {
		return o != k && seat(s, o, g.pic.placements[o]) == seat(s, k, p) && !g.pic.placements[o].spare && slices.ContainsFunc(events, func(e uint64) bool {
			return l.know.available(after, o, after.placements[o], e)
		})
	}
	if s.Spec.Mode == api.ModeGlobal && slices.ContainsFunc(all, func(o api.ReplicaKey) bool {
		return o != k && !after.placements[o].stopping && after.placements[o].node == p.node
	}) {
		return // it became global with two on one node
	}
	told := l.know.status[k]
	returned := told != nil && !told.reported && l.know.verdict[p.node] == api.VerdictBack && g.w.host(p.node).bootID() == p.boot
	if !p.spare && !slices.ContainsFunc(all, serves) && (returned || l.know.unheard(k, p, g.pic)) {
		g.w.violate("I5", "%s is told to stop, though %s has not said yet how it is", k, p.node)
	}
}

// keepsUnheard: I8. A new leader leaves agents the endpoints of which it was told
// nothing.
func (n *knowledge) keepsUnheard(l *lead, e core.SendEndpoints) {
	h := l.w.host(e.Node)
	if h == nil {
		return
	}
	named := map[api.ReplicaKey]bool{}
	for _, x := range e.Set.Put {
		named[x.Replica] = true
	}
	for _, k := range e.Set.Keep {
		named[k] = true
	}
	for k := range h.agent.routes {
		p, placed := l.w.ledger.pic.placements[k]
		goes := e.Set.Complete && !named[k] || slices.Contains(e.Set.Drop, k)
		if goes && placed && !p.stopping && n.wellSince(p.node, l.openBefore) && l.w.host(p.node).bootID() == p.boot && n.unheard(k, p, l.w.ledger.pic) {
			l.w.violate("I8", "%s is told to send no traffic to %s any more, though %s has not said yet how it is", e.Node, k, p.node)
			return
		}
	}
}

// turn is an event at which a node's verdict changed.
type turn struct {
	event   uint64
	verdict api.Verdict
}

func (n *knowledge) turn(l *lead, node string, v api.Verdict) {
	n.suspected[node] = 0
	if v == api.VerdictSuspect {
		n.suspected[node] = max(l.events, 1)
	}
	n.turns[node] = append(n.turns[node], turn{l.events, v})
	if len(n.turns[node]) > flipsMax {
		n.turns[node] = n.turns[node][1:]
	}
}

// verdictAt is what was held of a node by then.
func (n *knowledge) verdictAt(node string, event uint64) api.Verdict {
	v := api.VerdictUnknown
	for _, t := range n.turns[node] {
		if t.event <= event {
			v = t.verdict
		}
	}
	return v
}

// healing is an event at which a node began to work again, and since when it ailed.
type healing struct {
	event uint64
	since int64
}

// troubles keeps when something was held against a node.
func (n *knowledge) troubles(l *lead, node string, v api.Verdict, impaired bool) {
	if impaired || !present(v) && v != api.VerdictUnknown {
		n.troubled[node] = max(l.events, 1)
		if impaired || v != api.VerdictSuspect {
			n.ailed[node] = max(l.events, 1)
		}
	}
}

// wellSince tells whether nothing was held against a node since an event.
func (n *knowledge) wellSince(node string, event uint64) bool {
	return n.troubled[node] < max(event, 1)
}

// ailsFrom is since when a node ails, or did at some event since the one given; 0:
// it did not.
func (n *knowledge) ailsFrom(node string, event uint64) int64 {
	if at := n.healed[node]; n.ails[node] == 0 && at.event >= event {
		return at.since
	}
	return n.ails[node]
}

// awayFromSuspects: I8. What is on a suspect node gets traffic at most as degraded.
func (n *knowledge) awayFromSuspects(l *lead, e core.SendEndpoints) {
	for k, degraded := range n.ends {
		p, placed := l.w.ledger.pic.placements[k]
		if at := n.suspected[p.node]; placed && !degraded && at != 0 && at <= l.openBefore {
			l.w.violate("I8", "%s is told to send traffic to %s on %s, which is suspect", e.Node, k, p.node)
			return
		}
	}
}

// givesWay: I5. Where the incumbent is back and serves the spare goes, unless it is
// there to relieve.
func (g *ledger) givesWay(l *lead, k api.ReplicaKey, rivals []api.ReplicaKey) {
	p := g.pic.placements[k]
	if slices.ContainsFunc(rivals, func(o api.ReplicaKey) bool { return g.tried[o] }) {
		return
	}
	if p.spare || !l.know.wellSince(p.node, l.openSince) || g.moves(l, g.pic, p.node) {
		return
	}
	if !slices.ContainsFunc(rivals, func(o api.ReplicaKey) bool { return !g.pic.placements[o].spare }) {
		g.w.violate("I5", "%s on %s is told to stop while it serves, and the spares %v stay", k, p.node, rivals)
	}
}

// flaps counts a node's returns, each of which halves with time.
type flaps struct {
	penalty float64
	at      int64
}

// flapped: I3. A node that came back too often takes nothing new. What is counted
// here is never more than what its leader counts.
func (n *knowledge) flapped(l *lead, h *host, was, v api.Verdict) {
	f, limits := n.flaps[h.name], &l.w.limits
	switch {
	case v == api.VerdictDead || v == api.VerdictHealthy && was != api.VerdictBack:
		delete(n.flaps, h.name) // perhaps another life
		return
	case v != api.VerdictBack || !missing(was) || l.core.Frozen() || n.mass.since != 0 || l.w.clock < h.calledDead:
		return
	}
	f.penalty = f.penalty*math.Exp2(-float64(l.w.clock-f.at)*1.03/float64(limits.FlapHalfLife)) + 1
	f.at = l.w.clock
	n.flaps[h.name] = f
	if _, damped := l.core.Trouble(h.name); f.penalty > limits.FlapDamp*1.05 && !damped {
		l.w.violate("I3", "%s has gone and come back so often that its penalty is %.2f, and is not damped", h.name, f.penalty)
	}
}

// stalled: what a leader did not hear while it did not run counts against nobody. A
// relief that had begun by then may still be on its way.
func (n *knowledge) stalled(w *world) {
	for node, at := range n.ails {
		if at != 0 && w.clock-at < int64(w.grace()) {
			n.ails[node] = max(w.clock, 1)
		}
	}
}
