package sim

import (
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/election"
	"github.com/orchctl/orch/internal/liveness"
)

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
	openAt                int64 // the clock then
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
	l.openAt = l.w.clock
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
	case core.NodeWord:
		if ev.Word == "drain" {
			l.know.drains[ev.Node] = l.events
		}
	case core.Rebalance:
		l.know.rebalanced = l.know.rebalanced || !ev.DryRun
	case core.Stalled:
		l.know.mass.stalled = true
		l.know.stalledAt = max(l.w.clock, 1)
	case core.Acked:
		if l.know.session[ev.Node] == ev.Session {
			l.know.acked[ev.Node] = max(l.know.acked[ev.Node], ev.EndpointVersion)
		}
	case core.SessionClosed:
		if l.know.session[ev.Node] == ev.Session {
			l.know.open[ev.Node] = false
		}
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
			l.know.versioned(l, e)
			l.know.endpoints(l, e)
			if s := l.sessions[e.Session]; s != nil {
				s.sendDown(func(a *agent) { a.endpoints(s, e.Set) })
			}
		case core.SendNetwork:
			if s := l.sessions[e.Session]; s != nil {
				s.sendDown(func(a *agent) { a.network(s, e.Set) })
			}
		case core.SendGrant:
			if s := l.sessions[e.Session]; s != nil {
				s.send(&s.down, true, func() { s.toAgent(func(a *agent) { a.granted(s, e.Grant) }) })
			}
		case core.AskWitness:
			l.ask(e)
		case core.CloseSession:
			if l.know.session[e.Node] == e.Session {
				l.know.open[e.Node] = false
			}
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
