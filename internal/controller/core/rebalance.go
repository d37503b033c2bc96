package core

import (
	"fmt"
	"maps"
	"slices"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/scheduler"
)

// rebalance moves replicas to where they would be placed today, where that is worth
// it: as reliefs, each started there before it is stopped here. Nothing of it is
// durable. A leader that follows lets begun moves go as it finds them: where the
// spare serves already it stays, else the incumbent does.
func (c *Core) rebalance(ev Rebalance) {
	if !ev.DryRun {
		c.confirm()
	}
	var err error
	switch left := len(c.reliefs.moves) + c.moving(); {
	case len(c.unknown) > 0:
		err = fmt.Errorf("rebalance: %w: %s not reported to this leader yet", ErrBusy, count(len(c.unknown), "node has", "nodes have"))
	case c.frozen.on:
		err = fmt.Errorf("rebalance: %w: nothing is moved while verdicts are frozen", ErrBusy)
	case left > 0 && !ev.DryRun:
		err = fmt.Errorf("rebalance: %w: %s under way", ErrBusy, count(left, "move of the one before is", "moves of the one before are"))
	}
	if err != nil {
		c.answer(ev.Ticket, nil, err)
		return
	}
	moves, before, after := scheduler.Rebalance(c.fleet, scheduler.RebalanceLimits{Moves: c.budgets.RebalanceMoves, Movable: c.movable()})
	result := RebalanceResult{Before: before, After: after}
	for _, m := range moves {
		result.Moves = append(result.Moves, Move{Replica: m.Key, From: m.From, To: m.To, Why: m.Why})
	}
	if !ev.DryRun && len(moves) > 0 {
		c.reliefs.moves, c.reliefs.due = slices.Clone(result.Moves), true
		c.reliefs.moveBy = c.now.Add(c.budgets.ReliefPatience)
		c.event("", api.KindFleet, api.FleetName, api.EventNormal, "Rebalancing", fmt.Sprintf("by %s: %s, imbalance %.3f to %.3f",
			orElse(ev.By, "unknown"), count(len(moves), "move", "moves"), before, after))
	}
	c.answer(ev.Ticket, result, nil)
}

// moving counts the moves that were begun.
func (c *Core) moving() int {
	left := 0
	for key := range c.relieved {
		for _, r := range c.services[key].reliefs {
			if r.kind == moved {
				left++
			}
		}
	}
	return left
}

// movable gives a function that tells which replicas may be moved for no other
// reason than balance: those that serve, on nodes that are well, of services that
// have nothing else to do. What is exclusive would have to be stopped first.
func (c *Core) movable() func(api.ReplicaKey) bool {
	settled := map[api.Key]bool{}
	return func(k api.ReplicaKey) bool {
		f := c.fillings[k]
		if f == nil || !f.status.Ready || !f.reported || !c.nodes[f.node].takesReplicas() {
			return false
		}
		key := k.ServiceKey()
		is, known := settled[key]
		if !known {
			is = c.settled(c.services[key])
			settled[key] = is
		}
		return is
	}
}

// settled tells whether each slot of the service has one filling of the wanted
// revision, and nothing is to be done about any. It costs the service's fillings.
func (c *Core) settled(s *service) bool {
	if s.job != nil || s.deleting() || s.exclusive() || s.seated() || len(s.reliefs)+len(s.refused) > 0 || len(s.fillings) != s.obj.Spec.Want() {
		return false
	}
	for i, f := range s.fillings {
		if f.key.Slot != i || s.runs(f) != s.obj.Status.Revision || f.stopping || f.void || f.spare {
			return false
		}
	}
	return true
}

// beginMoves begins moves as far as there is room for reliefs, one of a service at
// a time. What is not worth it any more is left where it is; what cannot be moved
// yet waits, but not for ever.
func (c *Core) beginMoves(room int) {
	r := &c.reliefs
	if len(r.moves) == 0 {
		return
	}
	if !r.moveBy.After(c.now) {
		r.moves = nil
		return
	}
	var wait []Move
	movable := c.movable()
	for _, m := range r.moves {
		f := c.fillings[m.Replica]
		if f == nil || f.stopping || f.node != m.From {
			continue
		}
		if room <= 0 || !movable(m.Replica) {
			wait = append(wait, m)
			continue
		}
		better, ok := scheduler.Better(c.fleet, m.Replica)
		if !ok {
			continue
		}
		s := c.services[m.Replica.ServiceKey()]
		f.moving = "the fleet is rebalanced: " + better.Why
		c.beginRelief(s, f, moved, f.moving)
		movable = c.movable() // of this service no other is, for now
		r.moveBy = c.now.Add(c.budgets.ReliefPatience)
		room--
	}
	if r.moves = wait; len(wait) > 0 {
		r.at = earliest(r.at, r.moveBy)
	}
}

// giveUpMoves lets moves go whose spare does not become ready: the incumbent serves.
func (c *Core) giveUpMoves() {
	for _, key := range slices.SortedFunc(maps.Keys(c.relieved), compareKeys) {
		for _, r := range c.services[key].reliefs {
			if r.kind == moved && !r.since.Add(c.budgets.ReliefPatience).After(c.now) {
				r.incumbent.moving = ""
				c.touch(r.incumbent)
			}
		}
	}
}

// giveUpMove lets a move go that finds no place after all.
func (c *Core) giveUpMove(s *service, r *relief) {
	r.incumbent.moving = ""
	delete(s.refused, r.incumbent.key.Slot)
	c.wakes[s.key] = c.now
}
