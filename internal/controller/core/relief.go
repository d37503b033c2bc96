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

// relief is a replica that runs, on a node whose agent is lost for long or that
// cannot work, and is being replaced. A service has at most one at a time.
type relief struct {
	incumbent *filling
	since     time.Time
}

// reliefs is where relief may be due.
type reliefs struct {
	ailing map[string]bool // nodes that are agent lost or impaired
	at     time.Time       // when to look again; zero: nothing is to come by itself
	due    bool            // to be looked at in this turn
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
	d := liveness.DefaultLimits()
	switch {
	case n.verdict == api.VerdictAgentLost:
		from = later(n.since, c.reliefs.stalledAt).Add(cmp.Or(c.cfg.Liveness.AgentLostGrace, d.AgentLostGrace))
		return from, fmt.Sprintf("the agent of %s is lost for long", n.name)
	case n.impaired != "" && (n.verdict == api.VerdictHealthy || n.verdict == api.VerdictBack):
		from = later(n.impairedSince, c.reliefs.stalledAt).Add(cmp.Or(c.cfg.Liveness.ImpairedGrace, d.ImpairedGrace))
		return from, fmt.Sprintf("%s is impaired: %s", n.name, n.impaired)
	}
	return time.Time{}, ""
}

// relieve picks replicas to be relieved, within the budget and not while many
// nodes vanish at once. It costs the replicas of nodes that ail, and those only
// while the budget has room.
func (c *Core) relieve() {
	r := &c.reliefs
	if !r.due && (len(r.ailing) == 0 || len(c.dirty) == 0) {
		return
	}
	r.due, r.at = false, time.Time{}
	room := 0
	if !c.frozen.on {
		room = c.reliefsMost() - c.underRelief(nil)
	}
	var candidates []planned
	of := map[api.Key][]*filling{}
	for _, name := range slices.Sorted(maps.Keys(r.ailing)) {
		n := c.nodes[name]
		switch from, why := c.reliefOf(n); {
		case why == "":
		case from.After(c.now):
			r.at = earliest(r.at, from)
		default:
			c.notWaitedFor(n, why)
			if room <= 0 {
				continue
			}
			for _, f := range n.sortedFillings() {
				if s := c.services[f.key.ServiceKey()]; c.relievable(s, f) {
					if of[s.key] == nil {
						candidates = append(candidates, planned{s: s})
					}
					of[s.key] = append(of[s.key], f)
				}
			}
		}
	}
	c.byImportance(candidates)
	for _, p := range candidates {
		if room > 0 && c.beginRelief(p.s, of[p.s.key]) {
			room--
		}
	}
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
		until := s.relief.since.Add(c.budgets.ReliefPatience)
		_, refused := s.refused[s.relief.incumbent.key.Slot]
		again := s.triesAgain() && slices.ContainsFunc(but, func(p planned) bool { return p.s == s })
		if refused || again || !until.After(c.now) {
			continue
		}
		n++
		c.reliefs.at = earliest(c.reliefs.at, until)
	}
	return n
}

// relievable tells whether a replica of an ailing node is to be replaced: it is
// wanted, nothing in its slot is about to go, and its service has no relief under
// way. A spare or a successor in the slot is what it is replaced by. An exclusive one is stopped first, so there must be a node that would take
// it; and where the agent is lost its lease ends by itself.
func (c *Core) relievable(s *service, f *filling) bool {
	if f.stopping || f.void || f.status.Phase.Ended() || s.relief != nil || s.deleting() || f.key.Slot >= s.obj.Spec.Want() {
		return false
	}
	if slices.ContainsFunc(s.inSlot(f.key.Slot), func(x *filling) bool { return x.stopping && x.relieve == "" }) {
		return false // it goes soon
	}
	return !s.exclusive() || c.verdictOf(f) != api.VerdictAgentLost
}

// beginRelief takes one of the service's replicas. What has a spare or successor
// comes first: the leader before this one began to relieve it, its node was
// suspect before it was agent lost, or it was being rolled. Then come those that
// serve.
func (c *Core) beginRelief(s *service, of []*filling) bool {
	if s.exclusive() && !slices.ContainsFunc(scheduler.Explain(c.fleet, s.newest().shape, s.key), func(e scheduler.NodeExplanation) bool { return e.Fit }) {
		return false
	}
	f := of[0]
	for _, better := range []func(*filling) bool{
		func(f *filling) bool { return len(s.inSlot(f.key.Slot)) > 1 },
		func(f *filling) bool { return f.status.Ready },
	} {
		if i := slices.IndexFunc(of, better); i >= 0 {
			f = of[i]
			break
		}
	}
	_, f.relieve = c.reliefOf(c.nodes[f.node])
	s.relief = &relief{incumbent: f, since: c.now}
	c.reliefs.at = earliest(c.reliefs.at, c.now.Add(c.budgets.ReliefPatience))
	c.relieved[s.key] = true
	c.touch(f)
	return true
}

// settleRelief ends a relief that is done, or that is not needed any more: then
// the spare is removed as after any return.
func (c *Core) settleRelief(s *service) {
	if s.relief == nil {
		return
	}
	f := s.relief.incumbent
	under := false
	if c.fillings[f.key] == f && !f.stopping && !f.void {
		n := c.nodes[f.node]
		_, why := c.reliefOf(n)
		under = why != ""
	} else if s.exclusive() { // it was stopped first: its successor has to run
		under = !slices.ContainsFunc(s.inSlot(f.key.Slot), func(x *filling) bool {
			return x != f && !x.stopping && !x.status.Phase.Before(api.PhaseRunning)
		})
	}
	if under && !s.deleting() && f.key.Slot < s.obj.Spec.Want() {
		return
	}
	c.endRelief(s)
}

func (c *Core) endRelief(s *service) {
	if f := s.relief.incumbent; !f.stopping {
		f.relieve = ""
	}
	s.relief = nil
	delete(c.relieved, s.key)
	c.reliefs.due, c.spending.freed = true, true
}

// later gives the later of two times.
func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
