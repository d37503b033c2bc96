package sim

import (
	"slices"
	"time"

	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/api"
)

// The watchdog beside a leased container lives and dies with it, not with the
// agent. It knows the time since boot and the lease's end, nothing else. While
// the machine is frozen nothing on it runs, and when it runs again its watchdogs
// come first: that is the order which orch promises as far as it can; a real
// kernel may give a container an instant before that, and the documents say so.

// setLease is the agent's word; it needs the disk on which the lease is kept. So
// does the note of who ended a container, which is never there in here: the agent
// has to know by itself what a watchdog has.
func (r *runtime) setLease(a *agent, e plan.SetLease) {
	c := r.containers[e.ContainerID]
	if c == nil || !c.Running || c.lease == nil || r.h.diskFull() {
		return
	}
	if e.Lease.Kill < c.lease.Kill {
		r.h.w.violate("I6", "%s shortens the lease of %s, whose leader counts on the longer one only", r.h.name, c.ID)
	}
	lease := e.Lease
	c.lease = &lease
	r.watch(c)
	a.after(0, true, func() { a.step(plan.LeaseSet(e)) })
}

// watch sets the watchdog's timer.
func (r *runtime) watch(c *container) {
	if c.lease == nil {
		return
	}
	c.watched++
	n, life, due := c.watched, c.life, c.lease.Term
	if c.termed {
		due = c.lease.Kill
	}
	r.h.w.queue.push(max(r.h.boottime.when(int64(due)), r.h.w.clock), true, func() {
		if c.watched == n && c.life == life && !r.h.frozen {
			r.bark(c)
		}
	})
}

// bark ends what has no lease any more.
func (r *runtime) bark(c *container) {
	if c.lease == nil || !c.Running {
		return
	}
	w, now := r.h.w, r.h.sinceBoot()
	switch {
	case now >= c.lease.Kill:
		w.say("%s: the watchdog kills %s, its lease is over", r.h.name, c.ID)
		took := between(w.r.run, 0, 5*time.Millisecond)
		if chance(w.r.run, 0.1) { // in an uninterruptible call
			took = between(w.r.run, 0, api.LeaseKill-10*time.Millisecond)
		}
		r.dieIn(c, took, 9)
	case now >= c.lease.Term && !c.termed:
		w.say("%s: the watchdog terminates %s, its lease ends", r.h.name, c.ID)
		c.termed = true
		w.res.LeasesEnded++
		if !chance(w.r.run, 0.2) { // else it takes all the time that it has
			r.dieIn(c, between(w.r.run, 5*time.Millisecond, 100*time.Millisecond), 15)
		}
		r.watch(c)
	default:
		r.watch(c)
	}
}

// dieIn ends a process after a while by the world's time. On a machine that
// freezes meanwhile it is gone before anything else runs again.
func (r *runtime) dieIn(c *container, d time.Duration, signal int) {
	c.dying = true
	life := c.life
	r.h.w.queue.push(r.h.w.clock+int64(d), true, func() {
		if c.life == life && c.Running && !r.h.frozen {
			r.end(c, api.Exit{Code: 128 + signal, Signal: signal, Reason: api.ExitSignaled})
		}
	})
}

// thaw is the instant at which a frozen machine runs again.
func (r *runtime) thaw() {
	for _, c := range r.sorted() {
		switch {
		case !c.Running || c.lease == nil:
		case c.dying || r.h.sinceBoot() >= c.lease.Kill:
			r.h.w.say("%s: the lease of %s ended while the machine was frozen", r.h.name, c.ID)
			r.end(c, api.Exit{Code: 137, Signal: 9, Reason: api.ExitSignaled})
		default:
			r.bark(c)
		}
	}
	for _, c := range r.sorted() {
		if c.Running {
			r.h.w.alone(r.h, c)
		}
	}
}

// tenants are the containers that run in a slot, on machines frozen or not.
type tenants struct {
	byName map[string][]tenant
}

type tenant struct {
	h *host
	c *container
}

func slotOf(k api.ReplicaKey) string { return k.Namespace + "/" + k.Name() }

func (t *tenants) add(h *host, c *container) {
	t.byName[slotOf(c.Replica)] = append(t.byName[slotOf(c.Replica)], tenant{h, c})
}

func (t *tenants) remove(c *container) {
	name := slotOf(c.Replica)
	t.byName[name] = slices.DeleteFunc(t.byName[name], func(x tenant) bool { return x.c == c })
}

// alone: I6. Nothing else runs in the slot of an exclusive service's container
// that begins to run now, on any machine that is not frozen, reachable or not.
func (w *world) alone(h *host, c *container) {
	for _, o := range w.tenants.byName[slotOf(c.Replica)] {
		if o.c.Replica == c.Replica || !o.c.Running || o.h.frozen {
			continue
		}
		if c.exclusive && o.c.exclusive {
			w.violate("I6", "exclusive slot %s runs twice: %s on %s, and %s on %s", slotOf(c.Replica), o.c.ID, o.h.name, c.ID, h.name)
			return
		}
		// The user made it exclusive while one ran without a lease: whose end no
		// clock tells, and who is in the way as long as it has a record.
		_, known := w.ledger.pic.placements[o.c.Replica]
		if _, wanted := w.ledger.pic.placements[c.Replica]; c.exclusive && known && wanted {
			w.violate("I6", "slot %s, which became exclusive, runs twice: %s on %s, which has no lease, and %s on %s", slotOf(c.Replica), o.c.ID, o.h.name, c.ID, h.name)
			return
		}
	}
}
