package sim

import (
	"time"

	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
)

// faultKinds are the faults that are drawn, the likelier ones more than once.
// Those of the network's delays, of commits and of the runtime come with what
// they spoil.
var faultKinds = []Fault{PowerCut, PowerCut, AgentKill, AgentKill, AgentPause, Cut, Cut, Stun, Crash, Crash, Crash, Crash,
	ControllerKill, ControllerPause, SessionBreak, SessionBreak, Gossip, LostEvent}

// nextFault lets something go wrong now and then. Everything is drawn before it
// is known whether the kind is left out, so that the others stay the same.
func (w *world) nextFault() {
	w.after(between(w.r.faults, 100*time.Millisecond, 4*time.Second), func() {
		if w.calm {
			return
		}
		kind := pick(w.r.faults, faultKinds)
		h, other, c := pick(w.r.faults, w.hosts), pick(w.r.faults, w.hosts), pick(w.r.faults, w.controllers)
		short, long := between(w.r.faults, 50*time.Millisecond, 4*time.Second), between(w.r.faults, 200*time.Millisecond, w.limits.DeadAfter*3/2)
		n := w.r.faults.IntN(100)
		if w.cfg.Without&kind == 0 {
			w.fault(kind, h, other, c, short, long, n)
		}
		w.nextFault()
	})
}

func (w *world) fault(kind Fault, h, other *host, c *controller, short, long time.Duration, n int) {
	w.res.Faults[kind]++
	switch kind {
	case PowerCut:
		if h.on {
			h.powerOff()
			w.after(long, h.powerOn)
			w.hint(h, false)
		}
	case AgentKill:
		if h.agent.up {
			h.agent.kill()
			h.after(short, h.agent.start)
			w.hint(h, false)
		}
	case AgentPause:
		h.agent.pause(short)
	case Cut:
		w.cutSomething(h, other, c, long, n)
	case Stun:
		if h.on && !h.frozen {
			h.freeze(long)
			w.hint(h, false)
		}
	case Crash:
		w.crash(h, short, n)
	case ControllerKill:
		if c.up {
			if c.doomed = n < 50; !c.doomed { // else after its next write, before it hears of it
				c.kill()
			}
			w.after(short, c.start)
		}
	case ControllerPause:
		c.pause(short)
	case SessionBreak:
		if s := h.agent.session; s != nil {
			w.say("session %d of %s breaks", s.id, h.name)
			s.breakOff()
		}
	case Gossip:
		w.hint(h, n < 30)
	case LostEvent:
		w.say("%s loses events of its runtime for %s", h.name, short)
		h.runtime.deaf = w.clock + int64(short)
		if n < 50 {
			h.after(short, func() { h.agent.receive(h.agent.life, func() { h.agent.step(plan.RuntimeBack{}) }) })
		}
	}
}

// hint is gossip's opinion, which reaches the leader some time later.
func (w *world) hint(h *host, alive bool) {
	w.after(between(w.r.faults, 100*time.Millisecond, 600*time.Millisecond), func() {
		for _, c := range w.controllers {
			if c.lead != nil {
				c.lead.receive(core.Gossip{Node: h.name, Alive: alive})
			}
		}
	})
}

// cutSomething cuts one path in one or both directions, a node from everybody,
// or a controller from the store.
func (w *world) cutSomething(h, other *host, c *controller, long time.Duration, n int) {
	if n < 10 {
		w.say("%s is cut from the store for %s", c.name, long)
		c.storeCut = true
		w.after(long, func() { c.storeCut = false })
		return
	}
	var pairs [][2]string
	switch {
	case n < 40:
		pairs = [][2]string{{h.name, c.name}, {c.name, h.name}}
	case n < 55:
		pairs = [][2]string{{h.name, c.name}}
	case n < 70:
		pairs = [][2]string{{c.name, h.name}}
	case n < 80 && other != h:
		pairs = [][2]string{{h.name, other.name}, {other.name, h.name}}
	default:
		for _, x := range w.machines() {
			if x != h.name {
				pairs = append(pairs, [2]string{h.name, x}, [2]string{x, h.name})
			}
		}
		w.hint(h, false)
	}
	w.say("cut for %s: %v", long, pairs)
	for _, p := range pairs {
		w.cuts[p] = true
	}
	w.after(long, func() {
		if !w.calm {
			w.say("healed: %v", pairs)
		}
		for _, p := range pairs {
			delete(w.cuts, p)
		}
	})
}

func (w *world) machines() []string {
	var out []string
	for _, h := range w.hosts {
		out = append(out, h.name)
	}
	for _, c := range w.controllers {
		out = append(out, c.name)
	}
	return out
}

// crash ends a container's process, or makes it deaf to its probes for a while.
func (w *world) crash(h *host, short time.Duration, n int) {
	var running []*container
	for _, c := range h.runtime.sorted() {
		if c.Running && h.on && !h.frozen {
			running = append(running, c)
		}
	}
	if len(running) == 0 {
		return
	}
	c := running[n%len(running)]
	switch n % 3 {
	case 0:
		h.runtime.end(c, api.Exit{Code: 137, Signal: 9, Reason: api.ExitSignaled})
	case 1:
		h.runtime.end(c, api.Exit{Code: 137, Signal: 9, OOM: true, Reason: api.ExitOutOfMemory})
	case 2:
		w.say("%s does not answer its probes for %s", c.ID, short)
		c.sickTill = w.clock + int64(short)
	}
}

// heal ends every fault, but that now and then a node is lost for good. What is still on its way ends by itself.
func (w *world) heal() {
	w.res.healed = len(w.story)
	w.say("faults stop, everything heals")
	w.calm = true
	clear(w.cuts)
	for _, c := range w.controllers {
		c.storeCut, c.doomed = false, false
		c.resume()
		c.start()
	}
	if w.cfg.Without&PowerCut == 0 && len(w.hosts) > 3 && chance(w.r.world, 0.25) {
		w.lost = pick(w.r.world, w.hosts)
		if w.lost.on {
			w.lost.powerOff()
		}
		w.say("%s never comes back", w.lost.name)
	}
	for _, h := range w.living() {
		h.runtime.deaf = 0
		for _, c := range h.runtime.sorted() {
			c.sickTill = 0
		}
		h.powerOn()
		h.unfreeze()
		h.agent.resume()
		h.agent.start()
	}
}
