package core

import (
	"fmt"
	"slices"
	"strings"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/reconciler"
	"github.com/orchctl/orch/scheduler"
)

// home is where a slot belongs, for all that is known.
type home struct {
	reconciler.Seat
	bound []string // names of the volumes that bind it
	// why nothing can be placed there now, and whether that may end by itself soon.
	why   string
	pass  bool
	loose bool // nothing binds it: it rather stays on that node than goes elsewhere
}

// seatBound gives the slots of a service with volumes their nodes. It costs its slots.
func (c *Core) seatBound(s *service) {
	was := s.seats.homes
	s.seats = seats{settled: true, generation: s.obj.Metadata.Generation, homes: map[int]home{}}
	names := s.needed()
	for slot := range s.obj.Spec.Want() {
		h := c.homeOf(s, slot, names)
		if h.Node == "" && h.why == "" && len(names) > 0 {
			h.Node = c.looseHome(s, slot, was[slot].Node, h.Avoid)
			h.loose = h.Node != ""
		}
		s.seats.homes[slot] = h
		s.seats.of = append(s.seats.of, h.Seat)
	}
	s.seats.wanted = len(s.seats.of)
}

// homeOf tells what a slot's volumes bind it to.
func (c *Core) homeOf(s *service, slot int, names []string) home {
	h := home{Seat: reconciler.Seat{Slot: slot}}
	var conflict []string
	for _, name := range names {
		key := s.keyOf(slot, name)
		for node, of := range c.volumes.removals {
			if of[key] != nil {
				h.Avoid = append(h.Avoid, node)
			}
		}
		x := c.volumes.of[key]
		if x == nil {
			continue
		}
		h.bound = append(h.bound, name)
		conflict = append(conflict, fmt.Sprintf("%s is on %s", name, x.Node))
		switch h.Node {
		case "", x.Node:
			h.Node = x.Node
		default:
			h.why = "conflict"
		}
	}
	slices.Sort(h.Avoid)
	h.Avoid = slices.Compact(h.Avoid)
	switch {
	case h.why != "":
		h.why = "its volumes are on several nodes: " + strings.Join(conflict, ", ")
	case h.Node == "":
		return h
	case slices.Contains(h.Avoid, h.Node):
		h.why, h.pass = fmt.Sprintf("another of its volumes is being removed on %s", h.Node), true
	default:
		h.why, h.pass = c.takesNothing(s, h.Node)
	}
	h.Closed = h.why != ""
	return h
}

// takesNothing says why a node would not take a replica that is bound to it; "" where it
// may. pass: that may end by itself soon.
func (c *Core) takesNothing(s *service, node string) (why string, pass bool) {
	n := c.nodes[node]
	if n == nil {
		return node + " was removed", false
	}
	unmet := scheduler.Unmet(c.fleet, s.newest().shape, node)
	switch {
	case n.verdict == api.VerdictDead:
		return node + " is Dead", false
	case n.obj.Spec.Drain != nil:
		return fmt.Sprintf("%s is being drained by %s", node, orElse(n.obj.Spec.Drain.By, "an operator")), false
	case unmet != "":
		return fmt.Sprintf("%s is not fit: it %s", node, unmet), false
	case n.obj.Spec.Unschedulable:
		return node + " is cordoned", false
	case n.verdict != api.VerdictHealthy:
		return fmt.Sprintf("%s is %s", node, n.verdict), true
	case n.impaired != "":
		return fmt.Sprintf("%s is impaired: %s", node, n.impaired), true
	case n.damped():
		return fmt.Sprintf("%s went and came back too often", node), true
	}
	return "", false
}

// looseHome is where a slot without any volume yet rather is: where it runs, or was when
// last seated. None where that node would not take it.
func (c *Core) looseHome(s *service, slot int, was string, avoid []string) string {
	node, best := was, -1
	for _, f := range s.inSlot(slot) {
		if rank := c.holds(f); rank > best {
			node, best = f.node, rank
		}
	}
	if node == "" || slices.Contains(avoid, node) {
		return ""
	}
	if why, _ := c.takesNothing(s, node); why != "" {
		return ""
	}
	return node
}

// boundWords end what is said of a replica whose node is Suspect, and that its volumes
// bind there; "" for all else.
func boundWords(f *filling, v api.Verdict) string {
	if v != api.VerdictSuspect || len(f.volumes) == 0 {
		return ""
	}
	return fmt.Sprintf("; bound to %s by its %s: nothing stands in for it", f.node, volumeWords(f.volumes))
}

// volumeWords name volumes: "volume data", "volumes cache and data".
func volumeWords(names []string) string {
	if len(names) == 1 {
		return "volume " + names[0]
	}
	return "volumes " + strings.Join(names, " and ")
}

// boundTo ends what the plan waits for, where that is a replica that cannot be reached.
func (c *Core) boundTo(s *service, waiting string) string {
	if !strings.HasSuffix(waiting, " is suspect") {
		return ""
	}
	for _, f := range s.fillings {
		if strings.HasPrefix(waiting, fmt.Sprintf("%s@%d cannot be reached", f.key.Name(), f.key.Epoch)) {
			return boundWords(f, c.verdictOf(f))
		}
	}
	return ""
}

// pendingWords say why a slot that is bound has no node. what is what its node has to say.
func (s *service) pendingWords(h home, what string) string {
	name := api.ReplicaKey{Service: s.key.Name, Slot: h.Slot}.Name()
	var objects []string
	for _, x := range h.bound {
		objects = append(objects, s.keyOf(h.Slot, x).Name())
	}
	words := fmt.Sprintf("%s is bound to %s by its %s, and %s: ", name, h.Node, volumeWords(h.bound), what)
	if strings.HasPrefix(what, "its volumes are") {
		words = fmt.Sprintf("%s cannot be placed: %s: ", name, what)
	}
	if h.pass {
		return words + "that is waited for"
	}
	return words + fmt.Sprintf("wait for it, or say `orchctl volume rm %s` to begin anew elsewhere without what is in it", strings.Join(objects, " "))
}

// pendingBound gives the slots in which nothing lives, and that are bound to where nothing
// can be placed now, with words.
func (c *Core) pendingBound(s *service) []scheduler.Refusal {
	if s.deleting() || !s.withVolumes() {
		return nil
	}
	var out []scheduler.Refusal
	for _, seat := range s.seats.of {
		h := s.seats.homes[seat.Slot]
		if h.why == "" || slices.ContainsFunc(s.inSlot(seat.Slot), func(f *filling) bool { return !f.stopping && !f.void }) {
			continue
		}
		out = append(out, scheduler.Refusal{Key: api.ReplicaKey{Namespace: s.key.Namespace, Service: s.key.Name, Slot: seat.Slot}, Reason: s.pendingWords(h, h.why)})
	}
	return out
}

// refusedAt words the scheduler's refusal of a slot that belongs to a node. One that
// nothing binds there is tried elsewhere at once.
func (c *Core) refusedAt(s *service, r scheduler.Refusal) string {
	h, ok := s.seats.homes[r.Key.Slot]
	switch {
	case !ok || h.Node == "" || !s.withVolumes():
		return r.Reason
	case h.loose:
		h.Node, h.loose = "", false
		s.seats.homes[r.Key.Slot] = h
		i := slices.IndexFunc(s.seats.of, func(x reconciler.Seat) bool { return x.Slot == r.Key.Slot })
		s.seats.of[i].Node = ""
		c.wakes[s.key] = c.now
		return r.Reason
	}
	return fmt.Sprintf("%s is bound to its node by its %s: %s", api.ReplicaKey{Service: s.key.Name, Slot: h.Slot}.Name(), volumeWords(h.bound), r.Reason)
}
