package core

import (
	"fmt"

	"github.com/orchctl/orch/scheduler"
)

// explain says how nodes take a replica now; why it is where it is was kept when it was
// placed.
func (c *Core) explain(ev Explain) {
	s := c.services[ev.Key]
	if s == nil {
		c.answer(ev.Ticket, nil, fmt.Errorf("service %s: %w", ev.Key, ErrNotFound))
		return
	}
	if ev.Replica == nil {
		c.answer(ev.Ticket, scheduler.Explain(c.fleet, s.newest().shape, s.key), nil)
		return
	}
	key := *ev.Replica
	shape := s.newest().shape
	if f := c.fillings[key]; f != nil {
		shape = s.revisions[f.revision].shape
	} else if r, ok := s.refused[key.Slot]; ok && s.revisions[r.revision] != nil {
		shape = s.revisions[r.revision].shape
	}
	nodes := scheduler.ExplainMove(c.fleet, shape, key)
	c.seat(s)
	if home := c.onlyNode(s, key.Slot); home != "" {
		for _, n := range nodes {
			if n.Node == home {
				c.answer(ev.Ticket, []scheduler.NodeExplanation{n}, nil)
				return
			}
		}
		nodes = nil // it belongs to a node that there is no more
	}
	c.answer(ev.Ticket, nodes, nil)
}

// onlyNode is the node that a slot belongs to: by its volumes, or as a global service's;
// "" is any.
func (c *Core) onlyNode(s *service, slot int) string {
	if h, ok := s.seats.homes[slot]; ok {
		if h.loose {
			return ""
		}
		return h.Node
	}
	for _, x := range s.seats.of {
		if x.Slot == slot {
			return x.Node
		}
	}
	return ""
}

// chosenMax bounds what a placement keeps of why its node was chosen, in bytes: there may
// be a million of them.
const chosenMax = 80

// chosenWords say by what a node was chosen; alone: it was the only one that might be.
func chosenWords(p scheduler.Placement, alone, notRather bool) string {
	words := p.Why
	switch {
	case alone:
		words = "its slot belongs there"
	case notRather:
		words = "no other node is fit; " + words
	}
	if len(words) > chosenMax {
		words = words[:chosenMax]
	}
	return words
}
