package sim

import (
	"slices"
	"time"

	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/api"
)

// place is where a container stands in the order of its replica's starts.
func place(t *api.Template, name string) (init bool, i int) {
	is := func(c api.Container) bool { return c.Name == name }
	if i := slices.IndexFunc(t.InitContainers, is); i >= 0 {
		return true, i
	}
	return false, slices.IndexFunc(t.LongRunning(), is)
}

// inOrder: what starts comes after all init containers that stand before it, each of
// which has ended well, and after the sidecars before it, each of which runs.
func (w *world) inOrder(h *host, c *container) {
	t := w.ledger.templates[c.Replica]
	if t == nil {
		return
	}
	init, at := place(t, c.Name)
	before := t.InitContainers
	if init {
		before = before[:at]
	}
	for _, x := range before {
		if !w.ledger.initialized[failures{c.Replica, x.Name}] {
			w.violate("order", "%s starts %s before init container %s has ended well", h.name, c.ID, x.Name)
		}
	}
	if init {
		if w.ledger.initialized[failures{c.Replica, c.Name}] {
			w.violate("order", "%s starts init container %s again, which has ended well", h.name, c.ID)
		}
		return
	}
	for _, x := range t.Sidecars[:min(at, len(t.Sidecars))] {
		if w.ledger.sidecars[failures{c.Replica, x.Name}] == 0 {
			w.violate("order", "%s starts %s before sidecar %s", h.name, c.ID, x.Name)
		}
	}
	w.ledger.sidecars[failures{c.Replica, c.Name}]++
}

// endedWell keeps which init containers are done.
func (g *ledger) endedWell(c *container) {
	if t := g.templates[c.Replica]; t != nil && c.Exit.Code == 0 && !c.unwanted {
		if init, _ := place(t, c.Name); init {
			g.initialized[failures{c.Replica, c.Name}] = true
		}
	}
}

// inOrderToEnd: a sidecar is told to end with its replica only when all of the
// replica's containers have ended.
func (w *world) inOrderToEnd(c *container, e plan.StopContainer) {
	if c == nil || !c.Running {
		return
	}
	t := w.ledger.templates[c.Replica]
	p, placed := w.ledger.pic.placements[c.Replica]
	if t == nil || !placed || !p.stopping || c.lease != nil || e.Cause == api.ExitLivenessFailed || e.Cause == api.ExitStartupFailed || e.Cause == api.ExitHookFailed {
		return
	}
	init, at := place(t, c.Name)
	if init || at >= len(t.Sidecars) {
		return
	}
	for _, o := range c.mates(w) {
		if i, n := place(t, o.Name); !i && n > at {
			w.violate("order", "sidecar %s is told to end while %s still runs", c.ID, o.ID)
		}
	}
}

// mates are the other containers of its replica that run.
func (c *container) mates(w *world) []*container {
	p := w.ledger.placed[c.Replica]
	return slices.DeleteFunc(w.host(p).runtime.sorted(), func(o *container) bool {
		return o == c || o.Replica != c.Replica || !o.Running
	})
}

// hook carries one out: a sleep lasts as long as it says, a command is quick, and
// fails now and then.
func (r *runtime) hook(e plan.RunHook, answer func(time.Duration, func() plan.Event)) {
	w := r.h.w
	took := between(w.r.run, 5*time.Millisecond, 300*time.Millisecond)
	if e.Hook.Sleep != nil {
		took = time.Duration(*e.Hook.Sleep)
	}
	fails := !w.calm && e.Hook.Sleep == nil && chance(w.r.run, 0.05)
	w.say("%s runs a hook of %s: %s", r.h.name, e.ContainerID, e.Why)
	answer(min(took, e.Timeout), func() plan.Event {
		c := r.containers[e.ContainerID]
		if c == nil || !c.Running {
			return failed(e.ID, api.ReasonHookFailed, "the container does not run")
		}
		if fails {
			c.hookFailed = true
			return failed(e.ID, api.ReasonHookFailed, "exit code 1")
		}
		c.hooked = true
		return plan.Done{ID: e.ID}
	})
}

// onlySidecars tells whether a container is a sidecar of a replica whose containers
// have all come to their end: they do not keep it alive.
func (r *runtime) onlySidecars(c *container) bool {
	t := r.h.w.ledger.templates[c.Replica]
	if t == nil || t.RestartPolicy.Condition == api.RestartAlways || t.RestartPolicy.Condition == "" {
		return false
	}
	if init, at := place(t, c.Name); init || at >= len(t.Sidecars) {
		return false
	}
	return !slices.ContainsFunc(c.mates(r.h.w), func(o *container) bool {
		_, at := place(t, o.Name)
		return at >= len(t.Sidecars)
	})
}
