package sim

import (
	"slices"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
)

// faultKinds are the faults that are drawn, the likelier ones more than once.
// Those of the network's delays, of commits, of clocks and of the runtime come
// with what they spoil.
var faultKinds = []Fault{PowerCut, PowerCut, AgentKill, AgentKill, AgentPause, Cut, Cut, Cut, Stun, Stun, Crash, Crash, Crash, Crash,
	ControllerKill, ControllerPause, SessionBreak, SessionBreak, Gossip, LostEvent, MassLoss, Flap, Gray, Gray, DiskFull, StoreFull, Operators}

// draw is everything that a fault may need, drawn before it is known whether it
// is left out, so that the others stay the same.
type draw struct {
	h, other    *host
	c           *controller
	short, long time.Duration
	n, m        int // 0 to 99
	subset      []*host
}

// nextFault lets something go wrong now and then.
func (w *world) nextFault() {
	w.after(between(w.r.faults, 100*time.Millisecond, w.pace), func() {
		if w.calm {
			return
		}
		r := w.r.faults
		kind := pick(r, faultKinds)
		d := draw{h: pick(r, w.hosts), other: pick(r, w.hosts), c: pick(r, w.controllers), short: between(r, 50*time.Millisecond, 4*time.Second),
			long: between(r, 200*time.Millisecond, max(w.limits.DeadAfter*3/2, 20*time.Second)), n: r.IntN(100), m: r.IntN(100)}
		d.subset = w.drawMany()
		w.faults++
		if w.cfg.Without&kind == 0 && !slices.Contains(w.cfg.Skip, w.faults) {
			w.say("fault %d: %s", w.faults, kind)
			w.fault(kind, d)
		}
		w.nextFault()
	})
}

func (w *world) fault(kind Fault, d draw) {
	w.res.Faults[kind]++
	h, c := d.h, d.c
	switch kind {
	case PowerCut:
		w.powerCut(h, d.long)
	case AgentKill:
		w.killAgent(h, d)
	case AgentPause:
		h.agent.pause(d.short)
	case Cut:
		w.cutSomething(d)
	case Stun:
		w.stun(h, d.long, d.m < 50)
	case Crash:
		w.crash(h, d.short, d.n)
	case ControllerKill:
		if c.up {
			if c.doomed = d.n < 50; !c.doomed { // else after its next write, before it hears of it
				c.kill()
			}
			w.after(d.short, c.start)
		}
	case ControllerPause:
		c.pause(d.short)
	case SessionBreak:
		if s := h.agent.session; s != nil {
			w.say("session %d of %s breaks", s.id, h.name)
			s.breakOff()
		}
	case Gossip:
		w.hint(h, d.n < 30)
	case LostEvent:
		w.say("%s loses events of its runtime for %s", h.name, d.short)
		h.runtime.deaf = max(h.runtime.deaf, w.clock+int64(d.short))
		if d.n < 50 {
			h.after(d.short, h.runtimeBack)
		}
	case MassLoss:
		w.loseMany(d)
	case Flap:
		w.flap(h, 2+d.n/12, d.short)
	case Gray, DiskFull:
		if h.on {
			h.turnGray(kind, max(d.long, 3*time.Second), d.n)
		}
	case StoreFull:
		w.say("the store is full for %s", d.short)
		w.full = w.clock + int64(d.short)
	case Operators:
		w.operate(d)
	}
}

func (w *world) powerCut(h *host, long time.Duration) {
	if h.on {
		h.powerOff()
		w.after(long, h.powerOn)
		w.hint(h, false)
	}
}

// killAgent mostly for as long as a restart takes; now and then for so long that
// leases end and watchdogs are alone.
func (w *world) killAgent(h *host, d draw) {
	if h.agent.up {
		h.agent.kill()
		h.after(map[bool]time.Duration{true: d.long, false: d.short}[d.n < 25], h.agent.start)
		w.hint(h, false)
	}
}

func (w *world) stun(h *host, long time.Duration, suspended bool) {
	if h.on && !h.frozen {
		h.freeze(long, suspended && w.cfg.Without&Clocks == 0)
		w.hint(h, false)
	}
}

// hint is gossip's opinion, which reaches the leader some time later, and now
// and then again when it is none any more.
func (w *world) hint(h *host, alive bool) {
	w.after(between(w.r.faults, 100*time.Millisecond, 600*time.Millisecond), func() {
		w.datagram(func() {
			for _, c := range w.controllers {
				if c.lead != nil {
					c.lead.receive(core.Gossip{Node: h.name, Alive: alive})
				}
			}
		})
	})
}

// operate is an operator who says "dead" of what cannot be reached, in the belief
// that somebody cut its power; or of what runs; or that a freeze is over.
func (w *world) operate(d draw) {
	unreachable := slices.DeleteFunc(slices.Clone(w.hosts), func(h *host) bool {
		return h.on && !h.frozen && (w.leader() == nil || w.reaches(h.name, w.leader().ctl.name) && w.reaches(w.leader().ctl.name, h.name))
	})
	switch {
	case d.n < 20:
		w.thaw(w.users[0])
	case len(unreachable) > 0:
		w.order(w.users[0], unreachable[d.m%len(unreachable)], "dead")
	case d.n < 40:
		w.order(w.users[0], d.h, "dead")
	}
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

// heal ends every fault, but that now and then a node or an agent is lost for
// good. What is still on its way ends by itself.
func (w *world) heal() {
	w.res.healed = len(w.story)
	w.say("faults stop, everything heals")
	w.calm = true
	w.full = 0
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
	if mute := pick(w.r.world, w.hosts); w.cfg.Without&AgentKill == 0 && w.lost == nil && len(w.hosts) > 3 && chance(w.r.world, 0.15) {
		w.say("the agent of %s never comes back", mute.name)
		mute.powerOn()
		mute.unfreeze()
		mute.agent.kill()
		w.mute = mute
	}
	for _, h := range w.living() {
		h.runtime.deaf = 0
		sick := max(h.gray.down, h.gray.hangs) > w.clock
		h.gray = gray{}
		for _, c := range h.runtime.sorted() {
			c.sickTill = 0
		}
		h.powerOn()
		h.unfreeze()
		h.agent.resume()
		h.agent.start()
		h.agent.good, h.agent.failing = w.clock, "" // else the next look, up to 3 s later, finds it so
		if sick {
			h.runtimeBack()
		}
	}
}
