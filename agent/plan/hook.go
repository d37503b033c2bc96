package plan

import (
	"time"

	"github.com/orchctl/orch/api"
)

// hookState is how far the postStart hook of the present container is.
type hookState int

const (
	hookWanted hookState = iota
	hookRuns             // RunHook is out
	hookOK               // it has ended well, or there is none
	hookVoid             // it failed: the container is on its way out
)

// NotRunning is the Reason of a Failure that answers RunHook where the container has
// ended meanwhile, or is being stopped: its end tells why, not the hook.
const NotRunning = "NotRunning"

// runPostStart runs the hook of a container that was started; it is asked by no probe
// before. What is adopted was started by an agent that has seen to it.
func (c *Core) runPostStart(x *run) {
	if x.hook != hookWanted || x.lapsed != "" {
		return
	}
	hook := x.spec.Lifecycle.PostStart
	id, ok := c.begin(op{class: hooks, replica: x.r, run: x})
	if !ok {
		return
	}
	x.hook, x.hookOp = hookRuns, id
	e := x.runHook(id, hook, hookTimeout(hook), "postStart: its container was started")
	e.Patient = true
	c.emit(e)
}

// preStop runs the hook of a container that is to be stopped, before its signal, and
// tells whether that has to wait. Where time has run out for the container it does
// not, nor where nobody gives it any.
func (c *Core) preStop(x *run, why string) (waits bool) {
	if x.spec.Lifecycle == nil || x.spec.Lifecycle.PreStop == nil || x.left || x.lapsed != "" || x.unguarded || x.r.lost != "" {
		return false
	}
	grace := x.graceLeft(c.now)
	if grace <= 0 {
		return false
	}
	hook := x.spec.Lifecycle.PreStop
	id, ok := c.begin(op{class: leaves, replica: x.r, run: x})
	if !ok {
		return true
	}
	x.op, x.stopBy = id, c.now.Add(grace)
	c.setState(x, leaving)
	c.stopProbes(x)
	c.emit(x.runHook(id, hook, min(hookTimeout(hook), grace), "preStop: "+why))
	return true
}

func (x *run) runHook(id uint64, hook *api.Hook, timeout time.Duration, why string) RunHook {
	e := RunHook{ID: id, ContainerID: x.id, Hook: *hook, IP: x.r.net.IP, Timeout: timeout, Why: why}
	if hook.HTTP != nil {
		e.Port, _ = hook.HTTP.Port.Resolve(x.spec.Ports)
	}
	return e
}

// hookTimeout is how long a hook may take; for one that waits, how long it does.
func hookTimeout(h *api.Hook) time.Duration {
	if h.Sleep != nil {
		return h.Sleep.Or(0)
	}
	return h.Timeout.Or(api.DefaultHookTimeout)
}

// hookDone takes the end of a hook.
func (c *Core) hookDone(x *run, ev Done) {
	switch {
	case ev.ID == x.op && x.state == leaving: // what came of it changes nothing
		x.op, x.left = 0, true
		c.setState(x, running)
	case ev.ID != x.hookOp || x.hook != hookRuns || x.state != running:
	case ev.Failure == nil:
		x.hook = hookOK
		if !x.r.going {
			c.startProbes(x)
		}
	case ev.Failure.Reason == NotRunning:
		x.hook = hookVoid
		c.observe(x.what() + " ended during its postStart hook")
	default:
		x.hook = hookVoid
		c.sicken(x, api.ExitHookFailed, "postStart hook failed: "+ev.Failure.Message)
	}
}

// graceLeft is the time that a container gets from now on to end by itself. The whole
// replica has one grace: what its containers took of it, and what its hook did, the
// sidecars and the signal do not get again, but always a little.
func (x *run) graceLeft(now time.Time) time.Duration {
	grace := x.r.grace()
	least := min(grace, graceLeast)
	if x.kind == sidecarRun && !x.r.leftAt.IsZero() {
		grace = min(grace, max(least, grace-now.Sub(x.r.leftAt)))
	}
	if !x.stopBy.IsZero() {
		grace = min(grace, max(least, x.stopBy.Sub(now)))
	}
	return grace
}
