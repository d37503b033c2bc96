package sim

import (
	"maps"
	"time"

	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/wire"
)

// session is one stream between an agent and a leader: two ordered pipes that
// deliver everything or break.
type session struct {
	w        *world
	id       uint64
	host     *host
	boot     int
	life     uint64 // of the agent's process
	dial     uint64 // the agent's number of it
	lead     *lead
	up, down pipe
	broken   bool
	openedAt int64
	strikes  int
	// term is what the leader says with every message.
	term uint64
	// routed: the agent got all endpoints, and what came after up to version.
	routed  bool
	version uint64
	acked   uint64 // the highest that it has acknowledged
	// withdrawn are endpoints that it took away, and by which version.
	withdrawn map[api.ReplicaKey]uint64
	standing  bool // the agent was told where its node stands
}

// pipe keeps messages in order; those that cannot go now wait.
type pipe struct {
	last    int64
	waiting []func()
}

const (
	keepaliveEvery = time.Second
	// strikesMax keepalives without an answer end a session.
	strikesMax = 3
	// resendEvery is how often a message that did not get through is sent again.
	resendEvery = 100 * time.Millisecond
)

// open starts a session that the leader has accepted.
func (l *lead) open(h *host, life, dial uint64) *session {
	w := l.w
	w.sessions++
	s := &session{w: w, id: w.sessions, host: h, boot: h.boot, life: life, dial: dial, lead: l, term: l.lease.Term, openedAt: w.clock, withdrawn: map[api.ReplicaKey]uint64{}}
	l.sessions[s.id] = s
	s.keepalive()
	return s
}

func (s *session) keepalive() {
	s.w.upkeep(keepaliveEvery, func() {
		if s.broken {
			return
		}
		if s.blocked() {
			s.strikes++
		} else {
			s.strikes = 0
		}
		if s.strikes >= strikesMax {
			s.w.say("session %d of %s breaks: no answer to keepalives", s.id, s.host.name)
			s.breakOff()
			return
		}
		s.keepalive()
	})
}

func (s *session) blocked() bool {
	w, c := s.w, s.lead.ctl.name
	return !w.reaches(s.host.name, c) || !w.reaches(c, s.host.name)
}

// send puts a message on its way; it is delivered after those before it.
func (s *session) send(p *pipe, upkeep bool, deliver func()) {
	at := max(p.last+1, s.w.clock+int64(s.w.latency()))
	p.last = at
	s.w.queue.push(at, upkeep, func() { s.arrive(p, deliver) })
}

func (s *session) arrive(p *pipe, deliver func()) {
	switch {
	case s.broken:
	case s.boot != s.host.boot: // a new kernel knows nothing of the connection
		s.breakOff()
	case s.blocked() || len(p.waiting) > 0:
		if p.waiting = append(p.waiting, deliver); len(p.waiting) == 1 {
			s.resend(p)
		}
	default:
		deliver()
	}
}

func (s *session) resend(p *pipe) {
	s.w.upkeep(resendEvery, func() {
		if s.broken || s.boot != s.host.boot {
			return
		}
		if s.blocked() {
			s.resend(p)
			return
		}
		waiting := p.waiting
		p.waiting = nil
		for _, deliver := range waiting {
			if !s.broken {
				deliver()
			}
		}
	})
}

// sendDown carries a message to the agent.
func (s *session) sendDown(deliver func(a *agent)) {
	s.send(&s.down, false, func() { s.toAgent(deliver) })
}

// toAgent hands the agent something of this session, if it is still in it.
func (s *session) toAgent(f func(a *agent)) {
	a := s.host.agent
	a.receive(s.life, func() {
		if a.session == s {
			f(a)
		}
	})
}

// sendUp carries an event to the leader.
func (s *session) sendUp(upkeep bool, ev core.Event) {
	s.send(&s.up, upkeep, func() { s.lead.receive(ev) })
}

// breakOff ends the session; messages on their way are lost, and each end
// notices in its own time.
func (s *session) breakOff() {
	if s.broken {
		return
	}
	s.broken = true
	w := s.w
	w.after(between(w.r.net, 0, 200*time.Millisecond), func() { s.toAgent((*agent).disconnected) })
	w.after(between(w.r.net, 0, 200*time.Millisecond), func() { s.endAtLeader(false) })
}

// endAtLeader tells the leader that the stream is over.
func (s *session) endAtLeader(graceful bool) {
	if _, ok := s.lead.sessions[s.id]; ok {
		delete(s.lead.sessions, s.id)
		s.lead.receive(core.SessionClosed{Node: s.host.name, Session: s.id, Graceful: graceful})
	}
}

// route keeps beside the agent who gets traffic by the leader's word.
func (a *agent) route(s *session, set wire.EndpointSet) {
	before := maps.Clone(a.routes)
	if k := a.h.traffic.kernel; k != nil && set.Complete {
		for r := range k.ends {
			if !before[r] {
				before[r] = false // the agent does not know it, and it is led to all the same
			}
		}
	}
	if set.Complete {
		a.routes = map[api.ReplicaKey]bool{}
		for _, k := range set.Keep {
			if before[k] {
				a.routes[k] = true
			}
		}
		s.routed = true
	}
	if !s.routed {
		return
	}
	for _, e := range set.Put {
		a.routes[e.Replica] = true
	}
	for _, k := range set.Drop {
		delete(a.routes, k)
	}
	s.version = set.Version
	for k := range before {
		if !a.routes[k] {
			s.withdrawn[k] = set.Version
		}
	}
	for k := range a.routes {
		delete(s.withdrawn, k)
	}
}

// acknowledges: I8. An agent that says that it has taken up a version of the
// endpoints sends no traffic to what was withdrawn by then.
func (a *agent) acknowledges(e plan.Ack) {
	s := a.session
	if s == nil || !s.routed {
		return
	}
	if e.EndpointVersion > s.version {
		a.h.w.violate("I8", "%s acknowledges endpoints of version %d, it was told %d", a.h.name, e.EndpointVersion, s.version)
	}
	if s.acked = max(s.acked, e.EndpointVersion); e.EndpointVersion > 0 {
		a.h.traffic.obeys()
	}
	if e.EndpointVersion != s.version {
		return
	}
	all := a.plan.Endpoints()
	if len(all) < len(a.routes) {
		a.h.w.violate("I8", "%s has acknowledged version %d of the endpoints and sends traffic to %d of the %d that it names", a.h.name, s.version, len(all), len(a.routes))
	}
	for _, x := range all {
		if !a.routes[x.Replica] {
			a.h.w.violate("I8", "%s has acknowledged version %d of the endpoints and sends traffic to %s, which was withdrawn", a.h.name, s.version, x.Replica)
		}
	}
}

// closeByAgent: the agent's process ended or hung up; its kernel says so after
// what was sent before.
func (s *session) closeByAgent() {
	s.send(&s.up, false, func() {
		s.broken = true
		s.endAtLeader(false)
	})
}

// closeByLeader: the leader's process ended, resigned or hung up.
func (s *session) closeByLeader() {
	delete(s.lead.sessions, s.id)
	s.send(&s.down, false, func() {
		s.broken = true
		s.toAgent((*agent).disconnected)
	})
}

// welcome is the first thing that a leader says in a session.
func (s *session) welcome() {
	s.send(&s.down, false, func() {
		a := s.host.agent
		a.receive(s.life, func() { a.welcomed(s) })
	})
}

// witness asks an agent to look at a target.
func (s *session) witness(ask wire.Ask) {
	s.sendDown(func(a *agent) { a.look(s, ask) })
}

// look tells what an observer's machine sees of a target, after the time that
// it takes to see it.
func (w *world) look(from string, ask wire.Ask, seen func(ev core.Witnessed)) {
	answers := w.reaches(from, ask.Target) && w.reaches(ask.Target, from)
	took := between(w.r.net, 200*time.Microsecond, 3*time.Millisecond)
	if !answers {
		took = ask.Timeout
	}
	again := w.again()
	ports := 0
	if h := w.host(ask.Target); answers && h != nil {
		for _, p := range ask.Ports {
			if h.runtime.listens(p) {
				ports++
			}
		}
	}
	ev := core.Witnessed{Observer: from, Target: ask.Target, AskID: ask.ID, HostAnswers: answers, PortsAsked: len(ask.Ports), PortsAnswered: ports}
	w.upkeep(took, func() { seen(ev) })
	if again > 0 {
		w.upkeep(took+again, func() { seen(ev) })
	}
}
