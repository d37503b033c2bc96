package sim

import (
	"slices"
	"time"

	"github.com/orchctl/orch/api"
)

// ailing keeps since when a node's replicas may have to be relieved: its grace
// begins when it becomes agent lost or impaired, and when the leader stalled.
func (n *knowledge) ailing(l *lead, h *host, v api.Verdict, impaired bool) {
	switch ails := v == api.VerdictAgentLost || impaired; {
	case !ails && n.ails[h.name] != 0:
		n.healed[h.name] = healing{l.events, n.ails[h.name]}
		n.ails[h.name] = 0
	case !ails:
	case n.ails[h.name] == 0:
		n.ails[h.name] = max(l.w.clock, 1)
	}
}

// hasRoom holds new spares against the budgets: they are never exceeded. What is
// counted here is surely counted by the leader, too.
func (g *ledger) hasRoom(l *lead, after picture, k api.ReplicaKey) {
	// Which of them stand in for what may have changed while the batch was open.
	unclear := l.know.judged > l.openSince
	if unclear && g.mayStandIn(l, after, k) {
		return
	}
	if g.relieves(l, after, k) {
		g.relievedRightly(l, after, k, unclear)
		return
	}
	if unclear {
		return
	}
	b := g.w.budgets
	ofService, all := 0, 0
	for x, p := range after.placements {
		if !p.spare || p.stopping || g.relief[x] || l.know.verdict[p.node] == api.VerdictSuspect || !slices.ContainsFunc(after.of(x.ServiceKey()), func(o api.ReplicaKey) bool {
			i := after.placements[o]
			return o.Slot == x.Slot && !i.spare && !i.stopping && l.know.verdict[i.node] == api.VerdictSuspect
		}) {
			continue
		}
		if all++; x.ServiceKey() == k.ServiceKey() {
			ofService++
		}
	}
	want := g.slots(after, k.ServiceKey())
	if g.pic.services[k.ServiceKey()] != nil || g.pic.jobs[k.ServiceKey()] != nil {
		want = max(want, g.slots(g.pic, k.ServiceKey()))
	}
	if most := max(b.SparesMin, want/2); ofService > most {
		g.w.violate("budget", "%s is placed as a spare, the %dth of its service: at most %d may be", k, ofService, most)
	}
	if most := max(b.SparesFleetMin, max(len(after.placements), len(g.pic.placements))/5); all > most {
		g.w.violate("budget", "%s is placed as a spare, the %dth of all: at most %d may be", k, all, most)
	}
}

// relieves tells whether a new spare is there to relieve: what it stands beside
// is heard, or its host is, or it is a spare that ails itself.
func (g *ledger) relieves(l *lead, after picture, k api.ReplicaKey) bool {
	for _, o := range after.of(k.ServiceKey()) {
		if p := after.placements[o]; o.Slot == k.Slot && o != k && p.spare && !p.stopping && (l.know.ails[p.node] != 0 || g.moves(l, after, p.node)) && l.know.verdict[p.node] != api.VerdictSuspect {
			return true
		}
	}
	for _, o := range after.of(k.ServiceKey()) {
		if p := after.placements[o]; o.Slot == k.Slot && !p.spare && !p.stopping && l.know.verdict[p.node] == api.VerdictSuspect {
			return false
		}
	}
	return true
}

// mayStandIn tells whether something in the slot was suspect while the batch was open.
func (g *ledger) mayStandIn(l *lead, after picture, k api.ReplicaKey) bool {
	return slices.ContainsFunc(after.of(k.ServiceKey()), func(o api.ReplicaKey) bool {
		node := after.placements[o].node
		return o.Slot == k.Slot && (l.know.verdictAt(node, l.openSince) == api.VerdictSuspect ||
			slices.ContainsFunc(l.know.turns[node], func(t turn) bool { return t.event > l.openSince && t.verdict == api.VerdictSuspect }))
	})
}

// relievedRightly: a relief begins after the grace, not while verdicts are frozen,
// one at a time in a service and few in the fleet.
func (g *ledger) relievedRightly(l *lead, after picture, k api.ReplicaKey, unclear bool) {
	w := g.w
	g.relief[k] = true
	w.res.Reliefs++
	if l.frozen != 0 && l.frozen <= l.openSince {
		w.violate("budget", "%s is placed to relieve while verdicts are frozen", k)
	}
	if failing, fails := g.failsHere(l, after, k); fails {
		g.triesRightly(l, after, k, failing)
	} else if !slices.ContainsFunc(after.of(k.ServiceKey()), func(o api.ReplicaKey) bool {
		p, known := g.pic.placements[o]
		at := l.know.ailsFrom(p.node, l.openSince)
		return known && o.Slot == k.Slot && !p.stopping && (at != 0 && w.clock-at >= int64(w.grace()) || g.moves(l, after, p.node))
	}) {
		w.violate("I5", "%s is placed to relieve what else is in its slot, though no grace has passed", k)
	}
	if unclear {
		return
	}
	slots, all := map[int]bool{}, map[string]bool{}
	for x, p := range after.placements {
		if !g.relief[x] || !p.spare || p.stopping || l.know.verdict[p.node] == api.VerdictSuspect || !slices.ContainsFunc(after.of(x.ServiceKey()), func(o api.ReplicaKey) bool {
			i := after.placements[o]
			return o.Slot == x.Slot && !i.spare && !i.stopping && (l.know.ails[i.node] != 0 || present(l.know.verdict[i.node]) && (g.moves(l, after, i.node) || g.tried[x]))
		}) {
			continue
		}
		if x.ServiceKey() == k.ServiceKey() {
			slots[x.Slot] = true
		}
		// What is tried elsewhere may be well again where it was, which ends its relief, and
		// has bounds of its own.
		if since := g.committedAt[x]; !g.tried[x] && (since == 0 || w.clock-since < int64(w.budgets.ReliefPatience*9/10)) {
			all[slotOf(x)] = true
		}
	}
	most := 1
	for _, pic := range []picture{g.pic, after} { // of nodes that are drained as many as it may surge
		if s := pic.services[k.ServiceKey()]; s != nil {
			most = max(most, s.Spec.Surge(g.slots(pic, k.ServiceKey())))
		}
	}
	if j := after.jobs[k.ServiceKey()]; j != nil { // both run on: the first that ends well counts
		most = j.Spec.Want()
	}
	if len(slots) > most {
		w.violate("budget", "%s is placed to relieve, the %dth slot of its service at once: at most %d may be", k, len(slots), most)
	}
	if most := max(w.budgets.ReliefsMin, max(len(after.placements), len(g.pic.placements))/20); len(all) > most {
		w.violate("budget", "%s is placed to relieve, the %dth of all slots at once: at most %d may be", k, len(all), most)
	}
}

// grace is how long a node ails before its replicas are relieved, a little less:
// clocks drift.
func (w *world) grace() time.Duration {
	return min(w.limits.AgentLostGrace, w.limits.ImpairedGrace) * 98 / 100
}

// moves tells whether replicas of a node may be moved though nothing ails it: it is
// drained, or somebody has asked for a rebalance in this term.
func (g *ledger) moves(l *lead, after picture, node string) bool {
	return l.know.rebalanced || g.drainedBetween(l, node) || g.drained(after, node)
}

// drainedBetween tells whether a drain was asked for while the batch was open, and
// taken back in it, perhaps.
func (g *ledger) drainedBetween(l *lead, node string) bool {
	said := l.know.drains[node]
	return said != 0 && said >= l.openSince
}

func (g *ledger) drained(after picture, node string) bool {
	return slices.ContainsFunc([]picture{g.pic, after}, func(p picture) bool { return p.nodes[node] != nil && p.nodes[node].Spec.Drain != nil })
}

// overdue tells whether the deadline of a node's drain has passed.
func (g *ledger) overdue(after picture, node string) bool {
	return slices.ContainsFunc([]picture{g.pic, after}, func(p picture) bool {
		n := p.nodes[node]
		return n != nil && n.Spec.Drain != nil && n.Spec.Drain.Overdue
	})
}

// drainedRightly: what is said to be empty is so.
func (g *ledger) drainedRightly(l *lead, after picture, name string) {
	n, old := after.nodes[name], g.pic.nodes[name]
	if n == nil || n.Spec.Drain == nil || n.Spec.Drain.Done.IsZero() || old != nil && old.Spec.Drain != nil && !old.Spec.Drain.Done.IsZero() {
		return
	}
	g.w.res.Drained++
	for _, k := range after.sortedPlacements() {
		p := after.placements[k]
		if s := l.know.status[k]; p.node == name && !p.stopping && p.boot == n.Status.BootID && (s == nil || !s.phase.Ended()) {
			g.w.violate("I3", "%s is said to be drained, while %s is there", name, k)
		}
	}
}

// sickness is since when every beat of a node's session says that it cannot work.
type sickness struct{ since, heard int64 }

// beat: a node that says so for long enough is held for impaired.
func (n *knowledge) beat(l *lead, node string, session uint64, age time.Duration) {
	if n.session[node] != session {
		return
	}
	s, now := n.sick[node], l.w.clock
	if age <= l.w.limits.SelfCheckStale || now-s.heard > int64(beatEvery*14/10) {
		s.since = 0
	}
	if s.heard = now; age > l.w.limits.SelfCheckStale && s.since == 0 {
		s.since = now
	}
	n.sick[node] = s
	impaired, _ := l.core.Trouble(node)
	if most := l.w.limits.SelfCheckStale/2 + 2*time.Second; s.since != 0 && now-s.since > int64(most) && !impaired && l.core.Verdict(node) == api.VerdictHealthy {
		l.w.violate("I3", "%s says for %s that its last good self-check is old, and is not held for impaired", node, time.Duration(now-s.since))
	}
}
