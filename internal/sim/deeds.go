package sim

import (
	"time"

	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/wire"
)

// sent: nothing goes to an agent that is not committed.
func (g *ledger) sent(l *lead, e core.SendAssignments) {
	if l.know.session[e.Node] != e.Session {
		return // that stream is over: nobody reads it
	}
	g.sentWith(e)
	g.toldToRemove(e)
	for _, a := range e.Set.Put {
		g.w.mixKey(a.Key)
		if g.placed[a.Key] != e.Node {
			g.w.violate("I2", "%s is told to run %s before that is committed", e.Node, a.Key)
		}
		if p, ok := g.pic.placements[a.Key]; a.Stopping {
			if ok && !p.stopping {
				g.w.violate("I2", "%s is told to stop %s before that is committed", e.Node, a.Key)
			}
			l.know.handedOver(l, e.Node, a.Key)
			if !e.Set.Complete {
				l.know.stopping = append(l.know.stopping, a.Key)
			}
		}
		g.w.say("%s tells %s: %s revision %d%s%s", l.ctl.name, e.Node, a.Key, a.Revision, map[bool]string{true: ", spare"}[a.Spare], map[bool]string{true: ", to stop"}[a.Stopping])
	}
	for _, k := range e.Set.Drop {
		g.w.mixKey(k)
		if _, ok := g.pic.placements[k]; ok {
			g.w.violate("I2", "%s is told to drop %s before that is committed", e.Node, k)
		}
	}
}

// told: an agent takes up a set.
func (g *ledger) told(h *host, set wire.AssignmentSet) {
	if set.Complete {
		g.w.say("%s takes up the complete set of revision %d, %d replicas", h.name, set.StoreRevision, len(set.Put))
	}
}

// reported: I8. Nothing is called ready whose readiness probe never succeeded.
func (g *ledger) reported(h *host, r wire.Report) {
	if !r.Status.Ready {
		return
	}
	for _, c := range h.runtime.sorted() {
		if c.Replica != r.Key || !c.Running {
			continue
		}
		switch {
		case c.spec.ReadinessProbe != nil && !c.answered:
			g.w.violate("I8", "%s reports %s as ready, though %s never answered its readiness probe", h.name, r.Key, c.ID)
		case c.spec.StartupProbe != nil && !c.started:
			g.w.violate("I8", "%s reports %s as ready, though %s never answered its startup probe", h.name, r.Key, c.ID)
		case c.spec.Lifecycle != nil && c.spec.Lifecycle.PostStart != nil && !c.hooked && c.by == h.agent.life:
			g.w.violate("I8", "%s reports %s as ready, though the hook of %s has not ended", h.name, r.Key, c.ID)
		}
	}
}

// started: only what was committed to this life of this node ever runs on it.
func (g *ledger) started(h *host, e plan.StartContainer) {
	if node := g.placed[e.Replica]; node != h.name {
		g.w.violate("epochs", "%s starts %s, which was committed to %q", h.name, e.Replica, node)
	}
	if boot := g.boots[e.Replica]; boot != h.bootID() {
		g.w.violate("epochs", "%s starts %s, which was committed to another life of it, %s", h.bootID(), e.Replica, boot)
	}
}

// leaseMargin is what a timer may be early by.
const leaseMargin = 5 * time.Millisecond

// stopped: I5. A container that runs is stopped only if its record says so, if
// it is not as assigned, or if its own liveness probe failed.
func (g *ledger) stopped(h *host, e plan.StopContainer, c *container) {
	if c == nil || !c.Running {
		return
	}
	p, ok := g.pic.placements[c.Replica]
	switch {
	case !ok || p.stopping || p.node != h.name || p.revision != c.Revision:
	case h.runtime.onlySidecars(c):
	case e.Cause == api.ReasonLeaseLost && c.lease != nil:
		if early := c.lease.Term - h.sinceBoot(); early > leaseMargin {
			g.w.violate("I5", "%s stops %s for want of a lease %s before that ends", h.name, c.ID, early)
		}
	case e.Cause == api.ExitStartupFailed && c.spec.StartupProbe != nil && c.startups >= max(1, c.spec.StartupProbe.FailureThreshold):
	case e.Cause == api.ExitHookFailed && c.hookFailed:
	case e.Cause == api.ExitLivenessFailed && c.spec.LivenessProbe != nil && c.failed >= max(1, c.spec.LivenessProbe.FailureThreshold):
	default:
		g.w.violate("I5", "%s stops %s (%s), which is assigned there and well: %s", h.name, c.ID, c.Replica, e.Why)
	}
}
