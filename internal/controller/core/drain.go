package core

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/liveness"
	"github.com/orchctl/orch/internal/wire"
)

// nodeWord does what an operator says of a node.
func (c *Core) nodeWord(ev NodeWord) {
	c.confirm()
	n := c.nodes[ev.Node]
	if n == nil {
		c.answer(ev.Ticket, nil, fmt.Errorf("node %q: %w", ev.Node, ErrNotFound))
		return
	}
	var err error
	switch ev.Word {
	case "dead":
		if n.verdict == api.VerdictHealthy && !ev.Force {
			err = fmt.Errorf("declare node %s dead: %w: it answers; all its replicas would be started anew: cut its power first, or force it (--force)", n.name, ErrBusy)
			break
		}
		c.liveStep(liveness.OperatorDead{Node: n.name, By: ev.By})
	case "cordon":
		c.cordon(n, ev.By)
	case "uncordon":
		c.uncordon(n, ev.By)
	case "drain":
		err = c.drain(n, ev)
	case "remove":
		err = c.removeNode(n, ev.Force, ev.By)
	case "remove-orphans":
		err = c.removeOrphans(n, ev.By)
	default:
		err = fmt.Errorf("word %s: %w: want dead, cordon, uncordon, drain, remove or remove-orphans", strconv.Quote(ev.Word), ErrInvalid)
	}
	c.answer(ev.Ticket, nil, err)
}

// removeOrphans has the node's agent stop what is of another life of the store. It is told
// once: what comes to light later is another question.
func (c *Core) removeOrphans(n *node, by string) error {
	if n.session == 0 {
		return fmt.Errorf("remove the orphans of node %s: %w: it has no session; say it again when it is back", n.name, ErrBusy)
	}
	c.sendToNode(n.name, wire.AssignmentSet{RemoveOrphans: true})
	c.event("", api.KindNode, n.name, api.EventNormal, "OrphansRemoved", fmt.Sprintf("by %s: %d", by, len(n.orphans)))
	return nil
}

func (c *Core) cordon(n *node, by string) {
	if n.obj.Spec.Unschedulable {
		return
	}
	n.obj.Spec.Unschedulable = true
	c.specChanged(n)
	c.event("", api.KindNode, n.name, api.EventNormal, "Cordoned", "by "+by)
}

// uncordon lets the node have replicas again, and ends a drain wherever it is: what
// has moved stays where it is.
func (c *Core) uncordon(n *node, by string) {
	if !n.obj.Spec.Unschedulable && n.obj.Spec.Drain == nil {
		return
	}
	if x := n.obj.Spec.Drain; x != nil && x.Done.IsZero() {
		c.event("", api.KindNode, n.name, api.EventNormal, "DrainAborted", fmt.Sprintf("by %s: %s there", by, count(c.left(n), "replica is left", "replicas are left")))
	}
	n.obj.Spec = api.NodeSpec{}
	delete(c.reliefs.drains, n.name)
	c.specChanged(n)
	c.event("", api.KindNode, n.name, api.EventNormal, "Uncordoned", "by "+by)
}

// specChanged keeps an operator's word and has everything looked at that hangs on it.
func (c *Core) specChanged(n *node) {
	c.putNode(n)
	c.nodeChanged(n)
	c.roomMade()
}

// drain has the node emptied: its replicas are relieved, each as soon as another is
// ready in its place. Said again, it changes the deadline.
func (c *Core) drain(n *node, ev NodeWord) error {
	if ev.Deadline < 0 {
		return fmt.Errorf("drain node %s by %s from now: %w: want a deadline that is still to come, or none", n.name, ev.Deadline, ErrInvalid)
	}
	x := &api.Drain{By: ev.By, Since: c.now}
	if old := n.obj.Spec.Drain; old != nil {
		x.Since, x.Done = old.Since, old.Done
	}
	words := "by " + ev.By
	if ev.Deadline > 0 {
		x.Deadline = c.now.Add(ev.Deadline)
		words += fmt.Sprintf("; what is left in %s is stopped then, as far as each service's floor allows", ev.Deadline)
	}
	if !n.heard() {
		words += fmt.Sprintf("; %s", drainUnheard(n))
	}
	n.obj.Spec = api.NodeSpec{Unschedulable: true, Drain: x}
	c.reliefs.drains[n.name] = true
	c.specChanged(n)
	c.event("", api.KindNode, n.name, api.EventNormal, "DrainStarted", words)
	return nil
}

// drainUnheard says what becomes of a drain whose node cannot be told anything.
func drainUnheard(n *node) string {
	if n.verdict == api.VerdictDead {
		return "it is Dead: its replicas are placed anew"
	}
	return fmt.Sprintf("it is %s: what cannot be reached for long is stood in for elsewhere, and what is left goes when its agent is back", n.verdict)
}

// beginDrains takes up what operators said to a leader before.
func (c *Core) beginDrains() {
	for _, n := range c.sortedNodes() {
		if n.obj.Spec.Drain != nil {
			c.reliefs.drains[n.name], c.reliefs.due = true, true
		}
	}
}

// left counts what a drain waits for: what has ended by its own policy is a record
// without a process, and to start it anew elsewhere would do its work twice.
func (c *Core) left(n *node) int {
	left := 0
	for _, f := range n.fillings {
		if !f.status.Phase.Ended() || f.stopping {
			left++
		}
	}
	return left
}

// overdue tells whether what is left on a node is to go without a successor.
func (c *Core) overdue(n *node) bool {
	x := n.obj.Spec.Drain
	return x != nil && x.Overdue && n.heard() && !c.frozen.on
}

// passDeadline notes, once, that the deadline of a drain has passed.
func (c *Core) passDeadline(n *node) {
	x := *n.obj.Spec.Drain // the published one is never changed
	if x.Overdue || !x.Done.IsZero() || x.Deadline.IsZero() || c.left(n) == 0 {
		return
	}
	if x.Deadline.After(c.now) {
		c.reliefs.at = earliest(c.reliefs.at, x.Deadline)
		return
	}
	x.Overdue = true
	n.obj.Spec.Drain = &x
	c.putNode(n)
	c.nodeChanged(n)
	c.event("", api.KindNode, n.name, api.EventWarning, "DrainDeadline", fmt.Sprintf("it has passed: %s, and stopped although nothing has taken their place, as far as each service's floor allows",
		count(c.left(n), "replica is left", "replicas are left")))
}

// settleDrains notes which nodes are empty. It costs the nodes that are drained.
func (c *Core) settleDrains() {
	for _, name := range slices.Sorted(maps.Keys(c.reliefs.drains)) {
		n := c.nodes[name]
		x := *n.obj.Spec.Drain
		if !x.Done.IsZero() || c.left(n) > 0 {
			continue
		}
		x.Done = c.now
		n.obj.Spec.Drain = &x
		c.putNode(n)
		words := "no replica runs there any more"
		if ended := len(n.fillings); ended > 0 {
			words += fmt.Sprintf("; %s by itself and stays as a record", count(ended, "has ended", "have ended"))
		}
		c.event("", api.KindNode, n.name, api.EventNormal, "Drained", words)
	}
}

// showDrains has nodes that are drained published anew, after something was planned.
func (c *Core) showDrains() {
	for name := range c.reliefs.drains {
		c.view.touchNode(c.nodes[name])
	}
}

// drainWaitsMax is as much as a person reads.
const drainWaitsMax = 20 // lines, one more says how many were left out

// drainWaits says what keeps replicas on a node that is being drained.
func (c *Core) drainWaits(n *node) []string {
	x := n.obj.Spec.Drain
	if x == nil || !x.Done.IsZero() || len(n.fillings) == 0 {
		return nil
	}
	var out []string
	fillings := n.sortedFillings()
	several := slices.ContainsFunc(fillings, func(f *filling) bool { return f.key.Namespace != fillings[0].key.Namespace })
	switch {
	case !n.heard():
		out = append(out, drainUnheard(n))
	case c.frozen.on:
		out = append(out, "nothing is moved while verdicts are frozen: "+c.frozen.why)
	}
	for _, f := range fillings {
		if f.status.Phase.Ended() && !f.stopping {
			continue
		}
		if len(out) >= drainWaitsMax {
			return append(out, fmt.Sprintf("and more: %d are left", c.left(n)))
		}
		name := f.key.Name()
		if several {
			name = f.key.Namespace + "/" + name
		}
		out = append(out, fmt.Sprintf("%s %s", name, c.drainWait(c.services[f.key.ServiceKey()], f)))
	}
	return out
}

// drainWait says what one replica on a node that is being drained waits for.
func (c *Core) drainWait(s *service, f *filling) string {
	slot := f.key.Slot
	stopping := func(x *filling) bool { return x != f && x.stopping }
	reason, refused := s.refused[slot]
	switch {
	case f.handing:
		return "hands over its traffic"
	case f.stopping:
		return "is stopping"
	case f.job:
		return "runs on to its end: it is a job's"
	case refused:
		return "waits: " + reason.reason
	case s.placeless && s.exclusive() && s.reliefs[slot] == nil:
		return "waits: no node would take it, and it is exclusive: it would be stopped before it is started"
	case s.withVolumes() && !c.overdue(c.nodes[f.node]) && s.wants(slot):
		return fmt.Sprintf("stays: it is bound to %s by its volumes, which do not move: scale or delete the service, or say how long to wait (--deadline)", f.node)
	case s.exclusive() && s.reliefs[slot] != nil:
		return fmt.Sprintf("waits: %s keeps at least %d available", s.key.Name, s.obj.Spec.Want()-max(1, s.obj.Spec.Unavailable(s.obj.Spec.Want())))
	case s.reliefs[slot] != nil:
		if i := slices.IndexFunc(s.inSlot(slot), func(x *filling) bool { return x != f && !x.stopping && !x.void }); i >= 0 {
			next := s.inSlot(slot)[i]
			return fmt.Sprintf("waits until it is ready on %s", next.node)
		}
		return "waits for a place"
	case slices.ContainsFunc(s.inSlot(slot), stopping):
		return "waits until another of its slot is gone"
	case c.overdue(c.nodes[f.node]):
		return fmt.Sprintf("stays: %s keeps at least %d available", s.key.Name, max(0, s.want()-s.obj.Spec.Unavailable(s.want())))
	}
	return "waits for its turn"
}
