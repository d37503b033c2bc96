package sim

import (
	"slices"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
)

// handing is what one leader told agents of endpoints, by versions, and which they
// have said are in force: what is to stop is told so only behind that.
type handing struct {
	open      map[string]bool           // nodes with a session, as the core must see it
	openedAt  map[string]uint64         // the event at which it began
	told      map[string]uint64         // the newest version that went down it
	acked     map[string]uint64         // the newest that came up it
	sentAt    map[uint64]int64          // when the first agent was told of a version
	given     map[api.ReplicaKey]bool   // was an endpoint in this term, or may be
	withdrawn map[api.ReplicaKey]uint64 // by which version it is none any more
	stopTold  map[api.ReplicaKey]bool
}

func newHanding() handing {
	return handing{map[string]bool{}, map[string]uint64{}, map[string]uint64{}, map[string]uint64{}, map[uint64]int64{}, map[api.ReplicaKey]bool{}, map[api.ReplicaKey]uint64{}, map[api.ReplicaKey]bool{}}
}

func (n *handing) begins(node string, event uint64) {
	n.open[node], n.openedAt[node], n.told[node], n.acked[node] = true, event, 0, 0
}

// versioned: I8. Each change has a version of its own, and what it takes away is
// kept.
func (n *knowledge) versioned(l *lead, e core.SendEndpoints) {
	if n.session[e.Node] != e.Session {
		return
	}
	v := e.Set.Version
	if had := n.told[e.Node]; v <= had {
		l.w.violate("I8", "%s is told version %d of the endpoints after version %d", e.Node, v, had)
	}
	n.told[e.Node] = v
	if n.sentAt[v] == 0 {
		n.sentAt[v] = max(l.w.clock, 1)
	}
	gone := slices.Clone(e.Set.Drop)
	if e.Set.Complete {
		named := map[api.ReplicaKey]bool{}
		for _, x := range e.Set.Put {
			named[x.Replica] = true
		}
		for _, k := range e.Set.Keep {
			named[k] = true
			n.given[k] = true
		}
		for k := range n.given {
			if !named[k] && n.withdrawn[k] == 0 {
				gone = append(gone, k)
			}
		}
	}
	for _, k := range gone {
		if n.withdrawn[k] == 0 {
			n.withdrawn[k] = v
		}
	}
	for _, x := range e.Set.Put {
		n.given[x.Replica] = true
		delete(n.withdrawn, x.Replica)
	}
}

// handedOver: I8. What was an endpoint is told to stop only when every agent with
// an open session has said that it leads no traffic there any more, or has had its
// time to do so.
func (n *knowledge) handedOver(l *lead, node string, k api.ReplicaKey) {
	w := l.w
	s := n.status[k]
	if n.stopTold[k] || s != nil && !s.phase.Before(api.PhaseStopping) {
		n.stopTold[k] = true
		return
	}
	n.stopTold[k] = true
	if n.dead[node] || w.ledger.isJob(k) {
		return // it was void: nobody planned this
	}
	v, since := n.withdrawn[k], l.beganAt
	switch {
	case v != 0:
		since = n.sentAt[v]
		w.res.HandedOver++
	case n.inherited[k]: // agents may know it from the term before
		v = 1
	default:
		return // it was never one
	}
	if since == 0 || w.clock-since >= int64(w.handoverMax()*97/100) {
		return
	}
	for _, h := range w.hosts {
		x := h.name
		// The decision may be as old as the transaction that it waited for.
		if !n.open[x] || n.told[x] < v || n.openedAt[x] >= l.openBefore || n.acked[x] >= v {
			continue
		}
		away := func(v api.Verdict) bool { return v == api.VerdictSuspect || v == api.VerdictDead || v == "" }
		if away(n.verdict[x]) || away(n.verdictAt(x, l.openBefore)) || slices.ContainsFunc(n.turns[x], func(t turn) bool { return t.event >= l.openBefore && away(t.verdict) }) {
			continue
		}
		w.violate("I8", "%s is told to stop %s, whose traffic was withdrawn by version %d %s before, while %s has said no more than %d",
			node, k, v, time.Duration(w.clock-since), x, n.acked[x])
	}
}

func (w *world) handoverMax() time.Duration { return w.budgets.HandoverMax }
