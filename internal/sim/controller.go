package sim

import (
	"fmt"
	"time"

	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/election"
	"github.com/orchctl/orch/internal/wire"
)

// controller is one controller's process. It leads or waits for its chance.
type controller struct {
	w        *world
	name     string
	up       bool
	life     uint64
	clock    clock
	pausedAt int64 // 0: it runs
	inbox    []func()
	lead     *lead
	heard    int64 // when it last heard another that leads
	// storeCut: its way to the store is cut.
	storeCut bool
	// doomed: it dies after its next write, before it hears of it.
	doomed bool
}

const (
	watchEvery = 250 * time.Millisecond
	// silenceMax without the leader's beat, and another takes over.
	silenceMax = time.Second
)

func newController(w *world, i int) *controller {
	return &controller{w: w, name: fmt.Sprintf("c%d", i+1), clock: w.newClock()}
}

func (c *controller) start() {
	if c.up {
		return
	}
	c.up, c.pausedAt, c.inbox, c.lead = true, 0, nil, nil
	c.life++
	c.heard = c.w.clock - int64(silenceMax)
	c.w.say("controller %s starts", c.name)
	c.watch()
}

func (c *controller) kill() {
	if !c.up {
		return
	}
	c.w.say("controller %s is killed", c.name)
	if c.lead != nil {
		c.lead.end("killed")
	}
	c.up, c.pausedAt, c.inbox = false, 0, nil
	c.life++
}

// receive lets this life of the process handle something, when it runs.
func (c *controller) receive(do func()) {
	switch {
	case !c.up:
	case c.pausedAt != 0:
		c.inbox = append(c.inbox, do)
	default:
		do()
	}
}

func (c *controller) pause(d time.Duration) {
	if !c.up || c.pausedAt != 0 {
		return
	}
	c.w.say("controller %s is paused for %s", c.name, d)
	c.pausedAt = max(c.w.clock, 1)
	life := c.life
	c.w.after(d, func() {
		if c.life == life {
			c.resume()
		}
	})
}

func (c *controller) resume() {
	if c.pausedAt == 0 {
		return
	}
	stall := time.Duration(c.clock.at(c.w.clock) - c.clock.at(c.pausedAt))
	c.w.say("controller %s runs again after %s", c.name, stall)
	c.pausedAt = 0
	c.heard = c.w.clock
	if l := c.lead; l != nil {
		l.know.stalled(c.w)
		l.step(core.Stalled{For: stall})
	}
	inbox := c.inbox
	c.inbox = nil
	for _, do := range inbox {
		do()
	}
}

// watch looks at intervals whether somebody leads, and leads if nobody does.
func (c *controller) watch() {
	life := c.life
	c.w.upkeep(between(c.w.r.net, watchEvery/2, watchEvery*3/2), func() {
		if c.life != life {
			return
		}
		c.watch()
		if c.pausedAt != 0 || c.lead != nil {
			return
		}
		for _, o := range c.w.controllers {
			if o != c && o.lead != nil && o.pausedAt == 0 && c.w.reaches(o.name, c.name) {
				c.heard = c.w.clock
			}
		}
		if c.w.clock-c.heard > int64(silenceMax) && !c.storeCut && !c.w.storeFull() {
			c.seize()
		}
	})
}

// seize begins a term: first the leader key, then the picture, so that nothing
// of the term before can still be written behind it.
func (c *controller) seize() {
	lease, err := election.Seize(c.w.ctx, c.w.store, c.name)
	if err != nil {
		c.w.violate("sim", "%s cannot seize the leader key: %v", c.name, err)
		return
	}
	c.w.say("controller %s leads term %d", c.name, lease.Term)
	c.w.res.Terms++
	c.w.ledger.term = lease.Term
	for _, o := range c.w.controllers {
		if old := o.lead; old != nil {
			// It watches the key, where it can.
			c.w.after(between(c.w.r.net, time.Millisecond, 50*time.Millisecond), func() {
				if !o.storeCut {
					o.receive(func() { old.resign("deposed") })
				}
			})
		}
	}
	l := &lead{w: c.w, ctl: c, lease: lease, sessions: map[uint64]*session{}, know: newKnowledge(), view: map[core.ViewKey]any{}, requests: map[uint64]*request{}}
	c.lead = l
	c.w.after(between(c.w.r.net, time.Millisecond, 30*time.Millisecond), func() { c.receive(l.begin) })
}

// dialled: an agent wants a session.
func (c *controller) dialled(h *host, life, dial uint64, hello wire.Hello) {
	if !c.up {
		c.w.upkeep(c.w.latency(), func() { h.agent.receive(life, func() { h.agent.refused(dial) }) })
		return
	}
	c.receive(func() {
		l := c.lead
		if hello.BootID != h.bootID() {
			return // a handshake needs both ends, and that machine is no more
		}
		if l == nil || l.core == nil {
			c.w.upkeep(c.w.latency(), func() { h.agent.receive(life, func() { h.agent.refused(dial) }) })
			return
		}
		for _, old := range sortedSessions(l.sessions) {
			if old.host == h { // the driver ends what another session replaces
				old.closeByLeader()
			}
		}
		s := l.open(h, life, dial)
		s.welcome()
		l.know.opened(l, h.name, s.id)
		l.step(core.SessionOpened{Node: h.name, Session: s.id, Hello: hello})
	})
}
