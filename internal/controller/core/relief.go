package core

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/liveness"
	"github.com/orchctl/orch/scheduler"
)

// reliefKind is why a replica that runs is being replaced.
type reliefKind int

const (
	ailing  reliefKind = iota // its node's agent is lost for long, or its node cannot work
	drained                   // an operator wants its node empty
	moved                     // it would be placed elsewhere today
	tried                     // it ends again and again where it is; see elsewhere.go
)

// relief is a replica that runs and is being replaced. A service has at most one
// of an ailing node at a time; of drains and moves as many as it may surge.
type relief struct {
	kind      reliefKind
	incumbent *filling
	since     time.Time
}

// reliefs is where relief may be due.
type reliefs struct {
	ailing map[string]bool // nodes that are agent lost or impaired
	drains map[string]bool // nodes that are to be emptied
	// failing are replicas that have ended often enough in a row to be tried elsewhere.
	failing map[api.ReplicaKey]bool
	moves   []Move    // of a rebalance, not begun yet
	moveBy  time.Time // they are given up then, unless another begins
	count   int       // under way
	at      time.Time // when to look again; zero: nothing is to come by itself
	due     bool      // to be looked at in this turn
	// stalledAt is when the leader last did not run: what it did not hear then
	// counts against nobody.
	stalledAt time.Time
}

// ails has a node looked at for relief, or no longer.
func (c *Core) ails(n *node) {
	n.lostForLong = n.lostForLong && n.verdict == api.VerdictAgentLost
	if n.verdict == api.VerdictAgentLost || n.impaired != "" {
		c.reliefs.ailing[n.name] = true
	} else {
		delete(c.reliefs.ailing, n.name)
		for _, f := range n.fillings {
			if f.stopping {
				f.relieve = ""
			}
		}
	}
	c.reliefs.due = true
}

// reliefOf tells from when on a node's replicas are to be relieved, and why; no
// words: never. A node that is suspect, dead or unknown has spares, not reliefs.
func (c *Core) reliefOf(n *node) (from time.Time, why string) {
	if x := n.obj.Spec.Drain; x != nil && n.heard() {
		return time.Time{}, fmt.Sprintf("%s is being drained by %s", n.name, orElse(x.By, "an operator"))
	}
	return c.ailsFrom(n)
}

// ailsFrom is reliefOf a node that nobody drains.
func (c *Core) ailsFrom(n *node) (from time.Time, why string) {
	d := liveness.DefaultLimits()
	switch {
	case n == nil:
	case n.verdict == api.VerdictAgentLost:
		from = later(n.since, c.reliefs.stalledAt).Add(cmp.Or(c.cfg.Liveness.AgentLostGrace, d.AgentLostGrace))
		return from, fmt.Sprintf("the agent of %s is lost for long", n.name)
	case n.impaired != "" && n.heard():
		from = later(n.impairedSince, c.reliefs.stalledAt).Add(cmp.Or(c.cfg.Liveness.ImpairedGrace, d.ImpairedGrace))
		return from, fmt.Sprintf("%s is impaired: %s", n.name, n.impaired)
	}
	return time.Time{}, ""
}

// heard tells whether the node's agent is in a session now.
func (n *node) heard() bool {
	return n.verdict == api.VerdictHealthy || n.verdict == api.VerdictBack
}

// relieve picks replicas to be relieved, within the budget and not while many
// nodes vanish at once: those of ailing nodes first, then those of nodes that are
// drained, then those that fail where they are, then moves. It costs the replicas of such nodes, and those only while
// the budget has room.
func (c *Core) relieve() {
	r := &c.reliefs
	if !r.due && (len(r.ailing)+len(r.drains)+len(r.failing)+len(r.moves) == 0 || len(c.dirty) == 0) {
		return
	}
	r.due, r.at = false, time.Time{}
	c.giveUpMoves()
	room := 0
	if !c.frozen.on {
		room = c.reliefsMost() - c.underRelief(nil)
	}
	room = c.relieveNodes(ailing, r.ailing, room)
	room = c.relieveNodes(drained, r.drains, room)
	room = c.relieveFailing(room)
	c.beginMoves(room)
}

// relieveNodes begins reliefs of the nodes' replicas and gives the room that is left.
func (c *Core) relieveNodes(kind reliefKind, nodes map[string]bool, room int) int {
	var candidates []planned
	of := map[api.Key][]*filling{}
	for _, name := range slices.Sorted(maps.Keys(nodes)) {
		n := c.nodes[name]
		from, why := c.reliefOf(n)
		if kind == ailing {
			from, why = c.ailsFrom(n)
		} else {
			c.passDeadline(n)
		}
		switch {
		case why == "":
		case from.After(c.now):
			c.reliefs.at = earliest(c.reliefs.at, from)
		default:
			if kind == ailing {
				c.notWaitedFor(n, why)
			}
			if room <= 0 {
				continue
			}
			for _, f := range n.sortedFillings() {
				if s := c.services[f.key.ServiceKey()]; (kind == ailing || f.reported && !f.job) && c.relievable(s, f) {
					if of[s.key] == nil {
						candidates = append(candidates, planned{s: s})
					}
					of[s.key] = append(of[s.key], f)
				}
			}
		}
	}
	c.byImportance(candidates)
	var going, others []planned
	for _, p := range candidates {
		if p.s.anyBegun(of[p.s.key]) {
			going = append(going, p)
		} else {
			others = append(others, p)
		}
	}
	for _, p := range append(going, others...) {
		for room > 0 && len(of[p.s.key]) > 0 && p.s.mayRelieve(kind) && c.hasPlace(p.s) {
			var f *filling
			f, of[p.s.key] = nextToRelieve(p.s, of[p.s.key])
			_, why := c.reliefOf(c.nodes[f.node])
			c.beginRelief(p.s, f, kind, why)
			room--
		}
	}
	return room
}

// anyBegun tells whether one of the service's replicas has a spare or successor
// already: the leader before this one began to relieve it, and its budget is spent.
func (s *service) anyBegun(of []*filling) bool {
	return slices.ContainsFunc(of, func(f *filling) bool { return len(s.inSlot(f.key.Slot)) > 1 })
}

// notWaitedFor has services go on that wait for an ailing node: for the word of
// its agent, or for the room of what is stopping there.
func (c *Core) notWaitedFor(n *node, why string) {
	if n.verdict == api.VerdictAgentLost && !n.lostForLong {
		n.lostForLong = true
		for _, f := range n.sortedFillings() {
			c.touch(f)
		}
	}
	for _, f := range n.sortedFillings() {
		if f.stopping && !f.void && f.relieve == "" {
			f.relieve = why
			c.touch(f)
		}
	}
}

// reliefsMost is how many reliefs there may be at once.
func (c *Core) reliefsMost() int {
	return shareOf(c.budgets.ReliefsShare, len(c.fillings), c.budgets.ReliefsMin)
}

// underRelief counts the reliefs that hold budget: one whose spare finds no node
// or does not become ready may not keep all others waiting. Those do not count
// either that try again in one of the plans given.
func (c *Core) underRelief(but []planned) int {
	n := 0
	for key := range c.relieved {
		s := c.services[key]
		planned := slices.ContainsFunc(but, func(p planned) bool { return p.s == s })
		for slot, r := range s.reliefs {
			until := r.since.Add(c.budgets.ReliefPatience)
			_, refused := s.refused[slot]
			if refused || planned && s.triesAgain(slot) || !until.After(c.now) {
				continue
			}
			n++
			c.reliefs.at = earliest(c.reliefs.at, until)
		}
	}
	return n
}

// relievable tells whether a replica of a node that ails or is drained is to be
// replaced: it is wanted, and not on that very node, nothing in its slot is about to go,
// and it is not being relieved yet. A spare or a successor in the slot is what it is replaced by. Where
// the agent of an exclusive one is lost its lease ends by itself.
func (c *Core) relievable(s *service, f *filling) bool {
	if s.job != nil && s.job.ended() || f.stopping || f.void || f.status.Phase.Ended() || s.reliefs[f.key.Slot] != nil || s.deleting() || s.seated() || !s.wants(f.key.Slot) {
		return false
	}
	if slices.ContainsFunc(s.inSlot(f.key.Slot), func(x *filling) bool { return x.stopping && x.relieve == "" }) {
		return false // it goes soon
	}
	return !s.exclusive() || c.verdictOf(f) != api.VerdictAgentLost
}

// mayRelieve tells whether one more of the service's replicas may be relieved. What
// ails may be well again soon, and a service whose spares do not become ready is
// not to try with all of its replicas.
func (s *service) mayRelieve(kind reliefKind) bool {
	if s.job != nil { // both run on: the first that ends well counts
		return len(s.reliefs) < s.want()
	}
	if kind != drained || s.exclusive() {
		return len(s.reliefs) == 0
	}
	return len(s.reliefs) < max(1, s.obj.Spec.Surge(s.obj.Spec.Want()))
}

// hasPlace tells whether there is a place for a replica of an exclusive service: it
// is stopped before it is started there.
func (c *Core) hasPlace(s *service) bool {
	s.placeless = s.exclusive() && !scheduler.Fits(c.fleet, s.newest().shape)
	return !s.placeless
}

// nextToRelieve takes one of the service's replicas and gives the others. What has
// a spare or successor comes first: the leader before this one began to relieve it,
// its node was suspect before it was agent lost, or it was being rolled. Then come
// those that serve.
func nextToRelieve(s *service, of []*filling) (next *filling, others []*filling) {
	i := slices.IndexFunc(of, func(f *filling) bool { return len(s.inSlot(f.key.Slot)) > 1 })
	if i < 0 {
		i = max(0, slices.IndexFunc(of, func(f *filling) bool { return f.status.Ready }))
	}
	next = of[i]
	return next, slices.DeleteFunc(of, func(f *filling) bool { return f.key.Slot == next.key.Slot })
}

func (c *Core) beginRelief(s *service, f *filling, kind reliefKind, why string) {
	f.relieve = why
	if s.reliefs == nil {
		s.reliefs = map[int]*relief{}
	}
	s.reliefs[f.key.Slot] = &relief{kind: kind, incumbent: f, since: c.now}
	c.reliefs.count++
	c.reliefs.at = earliest(c.reliefs.at, c.now.Add(c.budgets.ReliefPatience))
	c.relieved[s.key] = true
	c.touch(f)
}

// settleReliefs ends reliefs that are done, or that are not needed any more: then
// the spare is removed as after any return.
func (c *Core) settleReliefs(s *service) {
	s.forgetTries()
	for _, slot := range slices.Sorted(maps.Keys(s.reliefs)) {
		if r := s.reliefs[slot]; s.deleting() || s.seated() || !s.wants(slot) || !c.underWay(s, r) {
			c.endRelief(s, slot)
		}
	}
}

func (c *Core) underWay(s *service, r *relief) bool {
	f := r.incumbent
	if c.fillings[f.key] == f && !f.stopping && !f.void {
		if r.kind == moved {
			return f.moving != "" && c.verdictOf(f) == api.VerdictHealthy && s.runs(f) == s.obj.Status.Revision
		}
		if r.kind == tried {
			return c.stillTried(s, f)
		}
		_, why := c.reliefOf(c.nodes[f.node])
		return why != ""
	}
	// An exclusive one was stopped first: its successor has to run.
	return s.exclusive() && !slices.ContainsFunc(s.inSlot(f.key.Slot), func(x *filling) bool {
		return x != f && !x.stopping && !x.status.Phase.Before(api.PhaseRunning)
	})
}

func (c *Core) endRelief(s *service, slot int) {
	if f := s.reliefs[slot].incumbent; !f.stopping {
		f.relieve, f.moving = "", ""
	}
	delete(s.reliefs, slot)
	c.reliefs.count--
	if len(s.reliefs) == 0 {
		delete(c.relieved, s.key)
	}
	c.reliefs.due, c.spending.freed = true, true
}

// later gives the later of two times.
func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
