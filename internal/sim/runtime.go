package sim

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/api"
)

// runtime is a node's containers, networks and images. It goes on without an
// agent and loses what runs with the power; what lay on disk is there after it.
type runtime struct {
	h          *host
	containers map[string]*container
	networks   map[api.ReplicaKey]plan.Network
	images     map[string]string // digests by reference
	addresses  int
	// deaf: events are lost until then.
	deaf int64
	// starting are the starts that the agent's present life asked for; see overtaken.
	starting []func()
}

type container struct {
	plan.Container
	spec     api.Container
	behavior behavior
	life     int // counts what was scheduled for it before and counts no more
	readyAt  int64
	sickTill int64 // probes fail
	failed   int   // liveness tries in a row
	answered bool  // its readiness probe succeeded once
	started  bool  // likewise its startup probe
	// hooked: its postStart hook ended well; hookFailed: one failed.
	hooked, hookFailed bool
	startups           int    // startup tries in a row that failed
	by                 uint64 // the life of the agent that started it
	cause              string // why it is stopped
	told               bool   // SIGTERM was sent, or it ended
	unwanted           bool   // its agent wanted it stopped, whatever came of that

	exclusive bool
	lease     *plan.Lease // its watchdog's; nil: it has none
	watched   int         // counts the watchdog's timers: the last one holds
	termed    bool        // the watchdog sent SIGTERM
	dying     bool        // the watchdog's signal takes effect
}

func newRuntime(h *host) *runtime {
	return &runtime{h: h, containers: map[string]*container{}, networks: map[api.ReplicaKey]plan.Network{}, images: map[string]string{}}
}

func (r *runtime) sorted() []*container {
	return slices.SortedFunc(maps.Values(r.containers), func(a, b *container) int { return cmp.Compare(a.ID, b.ID) })
}

// powerLost ends every process without anybody seeing it.
func (r *runtime) powerLost() {
	for _, c := range r.sorted() {
		c.life++
		if c.Running {
			c.Running = false
			r.h.w.tenants.remove(c)
			c.Exit = &api.Exit{Code: 255, Reason: api.ExitError, Message: "lost with its supervisor", FinishedAt: r.h.now()}
		}
	}
	clear(r.networks) // namespaces live in memory
	r.starting = nil
}

// overtaken ends a dead agent's starts before the next agent looks: they were carried on,
// or never will be. A real start is several steps of the agent's, and containerd has the
// container before it is asked for the process, which is the last of them. So what may
// still begin to run is in a listing that was asked for after the agent's death; one that
// is not there and runs later would be a container that no agent can know of.
func (r *runtime) overtaken() {
	starting := r.starting
	r.starting = nil
	for _, do := range starting {
		do()
	}
}

// do carries out an effect in its time. The agent hears of it if it still lives.
func (r *runtime) do(a *agent, e plan.Effect) {
	w := r.h.w
	ms := func(least, most int) time.Duration {
		return between(w.r.run, time.Duration(least)*time.Millisecond, time.Duration(most)*time.Millisecond)
	}
	answer := func(took time.Duration, act func() plan.Event) {
		life := a.life
		// What the agent's death leaves half done is done or not.
		carriedOn := chance(w.r.run, 0.5)
		done := false
		do := func() {
			if done || a.life != life && !carriedOn {
				return
			}
			done = true
			if ev := act(); ev != nil {
				a.receive(life, func() { a.step(ev) })
			}
		}
		if _, starts := e.(plan.StartContainer); starts {
			r.starting = append(r.starting, do)
		}
		r.h.upkeep(took, do)
	}
	trouble := !w.calm && w.cfg.Without&Runtime == 0 && chance(w.r.run, 0.01)
	if trouble {
		w.res.Faults[Runtime]++
	}
	message, took, late := r.h.refusal(w.r.run, e)
	if message != "" {
		r.refuse(a, e, message, took, late, answer)
		return
	}
	switch e := e.(type) {
	case plan.Observe:
		if trouble {
			answer(ms(1, 20), func() plan.Event { return plan.Observed{ID: e.ID, Err: "the runtime is away"} })
			return
		}
		early := r.list() // what is seen may be a moment old
		seenEarly := chance(w.r.run, 0.5)
		answer(ms(1, 20), func() plan.Event {
			if seenEarly {
				return plan.Observed{ID: e.ID, Containers: early}
			}
			return plan.Observed{ID: e.ID, Containers: r.list()}
		})
	case plan.EnsureImage:
		took := ms(1, 5)
		if r.images[e.Ref] == "" {
			took = ms(20, 1500)
		}
		answer(took, func() plan.Event { return r.pull(e, trouble) })
	case plan.SetupNetwork:
		answer(ms(5, 60), func() plan.Event { return r.network(e, trouble) })
	case plan.TeardownNetwork:
		answer(ms(5, 60), func() plan.Event {
			if trouble {
				return failed(e.ID, api.ReasonNetworkError, "the plugin timed out")
			}
			delete(r.networks, e.Replica)
			return plan.Done{ID: e.ID}
		})
	case plan.PruneNetworks:
		answer(ms(1, 30), func() plan.Event {
			maps.DeleteFunc(r.networks, func(k api.ReplicaKey, _ plan.Network) bool { return !slices.Contains(e.Keep, k) })
			return plan.Done{ID: e.ID}
		})
	case plan.StartContainer:
		r.tellStart(e)
		unsaid := trouble && chance(w.r.run, 0.5)
		answer(ms(15, 250), func() plan.Event {
			ev := r.start(e, trouble && !unsaid)
			if unsaid { // it is done, and the answer is lost
				ev = failed(e.ID, api.ReasonCreateError, "the connection broke")
			}
			return ev
		})
	case plan.StopContainer:
		c := r.tellStop(e)
		w.inOrderToEnd(c, e)
		if trouble {
			answer(ms(1, 50), func() plan.Event { return failed(e.ID, api.ReasonCreateError, "the runtime is away") })
			return
		}
		r.stop(c, e, answer)
	case plan.RemoveContainer:
		answer(ms(2, 60), func() plan.Event {
			if trouble {
				return failed(e.ID, api.ReasonCreateError, "device busy")
			}
			if c := r.containers[e.ContainerID]; c != nil && c.Running {
				w.violate("I5", "%s removes %s, which runs", r.h.name, e.ContainerID)
			}
			delete(r.containers, e.ContainerID)
			return plan.Done{ID: e.ID}
		})
	case plan.RemoveVolume:
		answer(ms(2, 60), func() plan.Event {
			if trouble {
				return failed(e.ID, api.ReasonVolumeError, "device busy")
			}
			return r.removeVolume(e)
		})
	case plan.RunHook:
		r.hook(e, answer)
	default:
		w.violate("sim", "the agent wants %T, which is not made up here", e)
	}
}

func (r *runtime) tellStart(e plan.StartContainer) {
	r.h.w.say("%s starts %s %s, attempt %d: %s", r.h.name, e.Replica, e.Container.Name, e.Attempt, e.Why)
	r.h.w.mixKey(e.Replica)
	r.h.w.ledger.started(r.h, e)
}

func (r *runtime) tellStop(e plan.StopContainer) *container {
	r.h.w.say("%s stops %s: %s", r.h.name, e.ContainerID, e.Why)
	r.h.w.mixText(e.ContainerID)
	r.h.w.res.Stops++
	c := r.containers[e.ContainerID]
	if c != nil {
		c.unwanted = true
		delete(r.h.w.ledger.initialized, failures{c.Replica, c.Name}) // its agent did not hear of its end
	}
	r.h.w.ledger.stopped(r.h, e, c)
	return c
}

// refuse answers for a machine that does not work.
func (r *runtime) refuse(a *agent, e plan.Effect, message string, took time.Duration, late bool, answer func(time.Duration, func() plan.Event)) {
	var c *container
	switch e := e.(type) {
	case plan.StartContainer:
		r.tellStart(e)
	case plan.StopContainer:
		c = r.tellStop(e)
	case plan.RunHook:
		if x := r.containers[e.ContainerID]; x != nil {
			x.hookFailed = true
		}
	}
	answer(took, func() plan.Event { return refused(e, message) })
	if c != nil && late { // containerd does it after all, when it is itself again
		life := c.life
		r.h.upkeep(time.Duration(r.h.gray.hangs-r.h.w.clock), func() {
			if c.life == life && c.Running {
				r.end(c, api.Exit{Code: 137, Signal: 9, Reason: api.ExitSignaled})
			}
		})
	}
}

func failed(id uint64, reason, message string) plan.Event {
	return plan.Done{ID: id, Failure: &plan.Failure{Reason: reason, Message: message}}
}

func (r *runtime) list() []plan.Container {
	out := make([]plan.Container, 0, len(r.containers))
	for _, c := range r.sorted() {
		o := c.Container
		if o.Exit != nil {
			x := *o.Exit
			o.Exit = &x
		}
		out = append(out, o)
	}
	return out
}

func (r *runtime) pull(e plan.EnsureImage, trouble bool) plan.Event {
	if trouble {
		return failed(e.ID, api.ReasonImageError, "the connection broke")
	}
	if behaviorOf(e.Ref).missing {
		return failed(e.ID, api.ReasonImageMissing, "no such image")
	}
	if _, digest, pinned := strings.Cut(e.Ref, "@"); pinned {
		r.images[e.Ref] = digest
	} else if r.images[e.Ref] == "" {
		r.images[e.Ref] = r.h.w.means(e.Ref)
	}
	return plan.Done{ID: e.ID, ImageID: r.images[e.Ref]}
}

// start makes a container and starts it; one that is there is given as it is.
func (r *runtime) start(e plan.StartContainer, trouble bool) plan.Event {
	id := e.Replica.ContainerName(e.Container.Name)
	if e.Attempt > 0 {
		id = fmt.Sprintf("%s_%d", id, e.Attempt)
	}
	w := r.h.w
	if c := r.containers[id]; c != nil && !c.StartedAt.IsZero() {
		if c.Running && c.lease != nil && e.Lease != nil && e.Lease.Kill > c.lease.Kill {
			c.lease = e.Lease
			r.watch(c)
		}
		return plan.Done{ID: e.ID, Container: c.Container}
	}
	if trouble {
		return failed(e.ID, api.ReasonCreateError, "the runtime is away")
	}
	if missing := r.valuesOf(e); missing != "" {
		w.res.ConfigsMissing++
		return failed(e.ID, api.ReasonConfigMissing, missing)
	}
	if e.Lease != nil && r.h.sinceBoot() >= e.Lease.Term {
		return failed(e.ID, api.ReasonLeaseLost, "its lease is over")
	}
	r.imageOf(e)
	b := behaviorOf(e.Container.Image)
	if b.startFails {
		w.ledger.failed(e.Replica, e.Container.Name)
		if w.ledger.isJob(e.Replica) {
			w.ledger.runOf(e.Replica).bad = true
		}
		return plan.Done{ID: e.ID, Failure: &plan.Failure{Reason: api.ReasonCreateError, Message: "no such file",
			Exit: &api.Exit{Code: 128, Reason: api.ExitStartFailed, Message: "no such file", FinishedAt: r.h.now()}}}
	}
	for _, c := range r.sorted() {
		if c.Running && c.Replica == e.Replica && c.Name == e.Container.Name {
			w.violate("I5", "%s runs two containers %s of %s: %s and %s", r.h.name, c.Name, e.Replica, c.ID, id)
		}
	}
	c := &container{spec: e.Container, behavior: b, by: r.h.agent.life}
	c.Container = plan.Container{ID: id, Replica: e.Replica, Name: e.Container.Name, Revision: e.Revision, Incarnation: e.Incarnation, Attempt: e.Attempt,
		Hash: e.Hash, ImageID: e.ImageID, NetNS: e.Network.NetNS, IP: e.Network.IP, Grace: e.Grace, Running: true, StartedAt: r.h.now()}
	c.lease = e.Lease
	if t := w.ledger.templates[e.Replica]; t != nil {
		if c.exclusive = t.Exclusive; t.Leased() && e.Lease == nil {
			w.violate("I6", "%s starts %s without a lease", r.h.name, id)
		}
	}
	c.readyAt = w.clock + int64(between(w.r.run, b.readyAfter/2, b.readyAfter))
	r.containers[id] = c
	w.res.Starts++
	w.ledger.begins(r.h, e, c)
	r.mounts(c)
	w.alone(r.h, c)
	w.ledger.aloneHere(r.h, c)
	w.inOrder(r.h, c)
	if w.ledger.global[e.Replica] {
		w.res.Globals++
	}
	w.tenants.add(r.h, c)
	delete(w.ledger.left, e.Replica)
	r.watch(c)
	if b.picky && r.h.labels["zone"] != "b" {
		b.ends = false
	}
	if b.ends {
		life := c.life
		if b.fitful && chance(w.r.run, 0.5) {
			b.exit = api.Exit{Code: 0, Reason: api.ExitCompleted}
		}
		r.h.upkeep(between(w.r.run, b.endsAfter/2, b.endsAfter), func() {
			if c.life == life {
				r.end(c, b.exit)
			}
		})
	}
	return plan.Done{ID: e.ID, Container: c.Container}
}

// stop sends SIGTERM; some processes take their whole grace.
func (r *runtime) stop(c *container, e plan.StopContainer, answer func(time.Duration, func() plan.Event)) {
	if c == nil || !c.Running {
		answer(time.Millisecond, func() plan.Event { return plan.Done{ID: e.ID} })
		return
	}
	took := min(e.Grace, between(r.h.w.r.run, 5*time.Millisecond, 100*time.Millisecond))
	if chance(r.h.w.r.run, 0.1) {
		took = e.Grace
	}
	c.cause, c.told = e.Cause, true
	r.h.w.unserved(c)
	life := c.life
	r.h.upkeep(took, func() {
		if c.life == life && c.Running {
			r.end(c, api.Exit{Code: 143, Signal: 15, Reason: api.ExitSignaled, Message: c.cause})
		}
	})
	answer(took+time.Millisecond, func() plan.Event { return plan.Done{ID: e.ID} })
}

// end is the end of a container's process; the agent hears of it, mostly.
func (r *runtime) end(c *container, exit api.Exit) {
	w := r.h.w
	c.life++
	w.tenants.remove(c)
	if c.lease != nil && r.h.sinceBoot() >= c.lease.Term-leaseMargin {
		w.ledger.left[c.Replica] = w.clock
	}
	exit.FinishedAt = r.h.now()
	switch c.cause {
	case api.ExitLivenessFailed, api.ExitStartupFailed, api.ExitHookFailed:
		exit.Reason = c.cause
		w.ledger.failed(c.Replica, c.Name)
	case "":
		if !c.termed {
			w.ledger.failed(c.Replica, c.Name)
		}
	}
	c.Running, c.Exit = false, &exit
	w.ledger.endedWell(c)
	w.ledger.endsRun(c)
	w.unserved(c)
	w.mixText(c.ID)
	w.say("%s: %s ends, code %d %s", r.h.name, c.ID, exit.Code, exit.Reason)
	if w.clock < r.deaf {
		return
	}
	a, life := r.h.agent, r.h.agent.life
	told := *c.Exit
	r.h.upkeep(between(w.r.run, 0, 5*time.Millisecond), func() {
		a.receive(life, func() { a.step(plan.Exited{ContainerID: c.ID, Exit: told}) })
	})
}

// probe is what a probe of the container gets.
func (r *runtime) probe(id probeID) bool {
	c := r.containers[id.container]
	ok := c != nil && c.Running && r.h.w.clock >= c.sickTill
	if id.kind == plan.Readiness {
		ok = ok && c.ready(r.h.w.clock)
		if ok {
			c.answered = true
		}
		return ok
	}
	if id.kind == plan.Startup {
		if ok = ok && c.ready(r.h.w.clock); ok {
			c.started, c.startups = true, 0
		} else if c != nil {
			c.startups++
		}
		return ok
	}
	switch {
	case c == nil:
	case ok:
		c.failed = 0
	default:
		c.failed++
	}
	return ok
}

// ready tells whether it serves, as it knows itself.
func (c *container) ready(clock int64) bool {
	return c.Running && !c.behavior.unready && clock >= c.readyAt && clock >= c.sickTill
}

// listens tells whether a port of the machine's own address is answered.
func (r *runtime) listens(address string) bool {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return false
	}
	for _, c := range r.containers {
		for _, p := range c.spec.Ports {
			if c.Running && p.Publish == int(ap.Port()) {
				return true
			}
		}
	}
	return false
}
