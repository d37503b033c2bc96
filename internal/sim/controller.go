package sim

import (
	"fmt"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/election"
	"github.com/orchctl/orch/internal/liveness"
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
		l.know.stalled(c.w.clock)
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

// lead is one term of one controller: the driver around the core.
type lead struct {
	w          *world
	ctl        *controller
	lease      election.Lease
	core       *core.Core
	over       bool
	sessions   map[uint64]*session
	requests   map[uint64]*request // by ticket
	view       map[core.ViewKey]any
	know       *knowledge
	began      time.Time // by its own clock
	beganAt    int64
	committing bool   // a commit is under way
	idleAt     int64  // when none was, last
	frozen     uint64 // the event since which verdicts are frozen; 0: they are not

	tickAt  int64
	turnDue bool
	events  uint64 // counts steps
	// openSince is the event at which the batch that gathers now was begun.
	// openBefore the one before that.
	openSince, openBefore uint64
}

func (l *lead) begin() {
	if l.over {
		return
	}
	kvs, rev, err := l.w.store.Range(l.w.ctx, core.Prefix)
	if err != nil {
		l.w.violate("sim", "read the store: %v", err)
		return
	}
	l.core = core.New(l.w.coreConfig(l.lease.Term))
	if err := l.core.Load(kvs, rev); err != nil {
		l.w.violate("I2", "the leader of term %d cannot read what was committed: %v", l.lease.Term, err)
		return
	}
	l.began, l.beganAt = l.ctl.now(), l.w.clock
	l.know.begin(l.w.ledger.pic)
	l.do(l.core.Begin(l.began))
	l.turn()
}

// receive takes an event from outside.
func (l *lead) receive(ev core.Event) { l.ctl.receive(func() { l.step(ev) }) }

func (l *lead) step(ev core.Event) {
	if l.over || l.core == nil || l.w.broken != nil {
		return
	}
	l.events++
	_, beat := ev.(core.Beat) // a driver's inbox is emptied before it plans
	switch ev := ev.(type) {
	case core.Status:
		l.know.report(l, ev)
	case core.Committed:
		l.committing = false
	case core.Beat:
		defer l.know.beat(l, ev.Node, ev.Session, ev.Check.Age)
	case core.Stalled:
		l.know.mass.stalled = true
	case core.Thaw:
		l.know.mass.worded = l.w.clock
	}
	l.do(l.core.Step(ev, l.ctl.now()))
	if l.over {
		return
	}
	if l.core.Failed() {
		l.resign("a commit failed")
		return
	}
	if !beat {
		l.know.verdicts(l)
	}
	// The inbox is not always empty at once: some bursts are planned for together.
	if !beat && !l.turnDue && chance(l.w.r.net, 0.12) {
		l.turnDue = true
		l.w.upkeep(between(l.w.r.net, 0, 4*time.Millisecond), func() { l.ctl.receive(l.turn) })
	}
	if !l.turnDue {
		l.turn()
	}
}

func (l *lead) turn() {
	l.turnDue = false
	if l.over || l.core == nil || l.w.broken != nil {
		return
	}
	l.know.verdicts(l)
	switch frozen := l.core.Frozen(); {
	case !frozen:
		l.frozen = 0
	case l.frozen == 0:
		l.frozen = max(l.events, 1)
	}
	l.do(l.core.Turn(l.ctl.now()))
	l.schedule()
}

// schedule sees to the next tick, which may come a little late.
func (l *lead) schedule() {
	if l.over {
		return
	}
	at, ok := l.core.NextWake()
	if !ok {
		return
	}
	due := max(l.ctl.clock.when(int64(at.Sub(start))), l.w.clock+1)
	if l.tickAt != 0 && l.tickAt <= due {
		return
	}
	l.tickAt = due
	l.w.queue.push(due, true, func() {
		l.ctl.receive(func() {
			if l.tickAt != due || l.over {
				return
			}
			l.tickAt = 0
			if at, ok := l.core.NextWake(); ok && at.After(l.ctl.now()) {
				l.schedule() // beats came in meanwhile
				return
			}
			l.step(core.Tick{})
		})
	})
}

// resign gives up the term in good order.
func (l *lead) resign(why string) {
	if l.over {
		return
	}
	if !l.ctl.storeCut && !l.w.storeFull() {
		_ = election.Resign(l.w.ctx, l.w.store, l.lease) // deposed is as good
	}
	l.end(why)
	l.ctl.heard = l.w.clock - int64(between(l.w.r.net, silenceMax/2, silenceMax))
}

// end drops the core and everything that hangs on it.
func (l *lead) end(why string) {
	l.w.say("controller %s leads term %d no more: %s", l.ctl.name, l.lease.Term, why)
	l.over = true
	l.ctl.lead = nil
	for _, s := range sortedSessions(l.sessions) {
		s.closeByLeader()
	}
	for _, r := range sortedRequests(l.requests) {
		r.unknown()
	}
}

// do carries out what the core wants.
func (l *lead) do(effects []core.Effect) {
	for _, e := range effects {
		if l.over || l.w.broken != nil {
			return
		}
		l.w.mix(coreTag(e))
		switch e := e.(type) {
		case core.Commit:
			l.commit(e)
		case core.Reply:
			l.reply(e)
		case core.SendAssignments:
			l.w.ledger.sent(l, e)
			if s := l.sessions[e.Session]; s != nil {
				s.sendDown(func(a *agent) { a.assigned(s, e.Set) })
			}
		case core.SendEndpoints:
			l.know.endpoints(l, e)
			if s := l.sessions[e.Session]; s != nil {
				s.sendDown(func(a *agent) { a.endpoints(s, e.Set) })
			}
		case core.SendGrant:
			if s := l.sessions[e.Session]; s != nil {
				s.send(&s.down, true, func() { s.toAgent(func(a *agent) { a.granted(s, e.Grant) }) })
			}
		case core.AskWitness:
			l.ask(e)
		case core.CloseSession:
			if s := l.sessions[e.Session]; s != nil {
				s.closeByLeader()
			}
		case core.Publish:
			for _, x := range e.Put {
				l.view[x.Key] = x.Object
				if ev, ok := x.Object.(*api.Event); ok {
					if ev.Time.Before(l.began) { // of the term before
						continue
					}
					l.w.say("%s: %s %s %s: %s", l.ctl.name, ev.Kind, ev.Name, ev.Reason, ev.Message)
					delete(l.view, x.Key) // only for the story
				}
			}
			for _, k := range e.Gone {
				delete(l.view, k)
			}
		}
	}
	l.know.checkWithdrawn(l)
	l.know.checkLeases(l)
}

func (l *lead) ask(e core.AskWitness) {
	if e.Observer == liveness.LeaderObserver {
		l.w.look(l.ctl.name, e.Ask, func(ev core.Witnessed) {
			ev.Observer = liveness.LeaderObserver
			l.receive(ev)
		})
		return
	}
	if s := l.sessions[e.Session]; s != nil {
		s.witness(e.Ask)
	}
}
