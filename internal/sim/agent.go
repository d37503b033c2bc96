package sim

import (
	"bytes"
	"encoding/json"
	"maps"
	"time"

	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/wire"
)

// agent is the driver around the agent's planner: session, disk, timers, probes.
type agent struct {
	h      *host
	up     bool
	life   uint64
	paused bool
	inbox  []func()

	plan    *plan.Core
	tickAt  int64
	session *session
	dialled uint64 // number of the latest dial
	parted  int64  // when the last session ended
	seq     uint64 // of beats in this session
	probes  map[probeID]*probing

	renewals map[uint64]time.Duration // when those without an answer were sent, since boot
	apart    time.Duration            // by how much the clock was behind the time since boot, as last seen
	routes   map[api.ReplicaKey]bool  // who gets traffic, by what leaders said
	unsaved  *onDisk                  // what the disk refused
	configs  map[versionKey][]byte    // values by version, in memory
	good     int64                    // the last good self-check
	failing  string                   // what was wrong with the latest one
}

const (
	dialTimeout = time.Second
	beatEvery   = 100 * time.Millisecond
	redialLeast = 20 * time.Millisecond
	redialMost  = 300 * time.Millisecond
	// suspendedMin is by how much the clock must fall behind the time since boot
	// before that counts as a suspension.
	suspendedMin = 10 * time.Millisecond
)

// start begins a life of the agent's process.
func (a *agent) start() {
	if a.up || !a.h.on || a.h == a.h.w.mute {
		return
	}
	a.h.runtime.overtaken()
	a.up, a.paused, a.inbox = true, false, nil
	a.life++
	a.session, a.tickAt, a.probes = nil, 0, map[probeID]*probing{}
	a.renewals, a.routes, a.unsaved = map[uint64]time.Duration{}, map[api.ReplicaKey]bool{}, nil
	a.configs = maps.Clone(a.h.disk.configs)
	if a.configs == nil {
		a.configs = map[versionKey][]byte{}
	}
	a.apart, a.good, a.failing = a.h.behind(), a.h.w.clock, ""
	conf := plan.Config{BootID: a.h.bootID()}
	if a.h.traffic.disk != nil {
		conf.Endpoints = a.h.traffic.disk.sorted()
	}
	for _, e := range conf.Endpoints {
		a.routes[e.Replica] = true
	}
	if a.h.disk.saved != nil {
		conf.Saved = &plan.Saved{}
		if err := json.Unmarshal(a.h.disk.saved, conf.Saved); err != nil {
			a.h.w.violate("sim", "the agent of %s cannot read its own disk: %v", a.h.name, err)
			return
		}
	}
	a.h.w.say("agent of %s starts with %d assignments on disk", a.h.name, savedCount(conf.Saved))
	a.plan = plan.New(conf)
	a.h.traffic.start()
	a.step(plan.Started{})
	a.dial()
	a.beat()
	a.selfCheck()
}

func savedCount(s *plan.Saved) int {
	if s == nil {
		return 0
	}
	return len(s.Assignments)
}

// kill ends the process; the kernel closes its connections.
func (a *agent) kill() {
	if !a.up {
		return
	}
	a.h.w.say("agent of %s is killed", a.h.name)
	if a.session != nil {
		a.session.closeByAgent()
	}
	a.vanish()
}

// vanish ends the process without a word.
func (a *agent) vanish() {
	a.up, a.paused, a.inbox, a.plan, a.session = false, false, nil, nil, nil
	a.life++
}

// receive lets the process with this life handle something, when it runs.
func (a *agent) receive(life uint64, do func()) {
	switch {
	case !a.up || a.life != life:
	case a.h.frozen:
		a.h.thaw = append(a.h.thaw, func() { a.receive(life, do) })
	case a.paused:
		a.inbox = append(a.inbox, func() { a.receive(life, do) })
	default:
		do()
	}
}

// after is a timer of the process.
func (a *agent) after(d time.Duration, upkeep bool, do func()) {
	life := a.life
	a.h.at(d, upkeep, func() { a.receive(life, do) })
}

func (a *agent) pause(d time.Duration) {
	if !a.up || a.paused {
		return
	}
	a.h.w.say("agent of %s is paused for %s", a.h.name, d)
	a.paused = true
	life := a.life
	a.h.after(d, func() {
		if a.life == life {
			a.resume()
		}
	})
}

func (a *agent) resume() {
	if !a.paused {
		return
	}
	a.h.w.say("agent of %s runs again", a.h.name)
	a.paused = false
	inbox := a.inbox
	a.inbox = nil
	for _, do := range inbox {
		do()
	}
}

// dial looks for the leader until there is a session.
func (a *agent) dial() {
	a.dialled++
	n := a.dialled
	a.after(between(a.h.w.r.net, redialLeast, redialMost), true, func() {
		if a.session != nil || a.dialled != n {
			return
		}
		w, life := a.h.w, a.life
		c := pick(w.r.net, w.controllers)
		hello := wire.Hello{BootID: a.h.bootID(), Address: a.h.address, Labels: a.h.labels, Capacity: a.h.capacity, Version: "1", OS: "linux", Kernel: "6", Runtime: "fake", StoreRevision: a.plan.StoreRevision()}
		if w.reaches(a.h.name, c.name) && w.reaches(c.name, a.h.name) {
			w.datagram(func() { c.dialled(a.h, life, n, hello) })
		}
		a.after(dialTimeout, true, func() { a.refused(n) })
	})
}

// refused: the n-th dial came to nothing.
func (a *agent) refused(n uint64) {
	if a.session == nil && a.dialled == n {
		a.dial()
	}
}

// welcomed is the leader's first word. One of a lower term than was ever heard
// is not believed.
func (a *agent) welcomed(s *session) {
	switch {
	case s.dial != a.dialled || a.session != nil: // it came too late
		s.closeByAgent()
		return
	case s.term < a.h.disk.term:
		a.h.w.say("%s refuses term %d, it knows %d", a.h.name, s.term, a.h.disk.term)
		s.closeByAgent()
		a.refused(s.dial)
		return
	}
	if s.term > a.h.disk.term && a.h.diskFull() {
		a.h.w.say("%s cannot keep term %d on its disk", a.h.name, s.term)
		s.closeByAgent()
		a.refused(s.dial)
		return
	}
	a.h.disk.term = s.term
	a.session, a.seq = s, 0
	clear(a.renewals)
	a.h.w.say("%s is in session %d with %s, term %d", a.h.name, s.id, s.lead.ctl.name, s.term)
	a.step(plan.Connected{})
}

func (a *agent) disconnected() {
	a.h.w.say("%s has no session any more", a.h.name)
	a.session, a.parted = nil, a.h.w.clock
	a.step(plan.Disconnected{})
	a.dial()
}

func (a *agent) assigned(s *session, set wire.AssignmentSet) {
	if a.deposed(s) {
		return
	}
	if !s.standing {
		a.h.w.violate("addresses", "%s is told what to run before it is told where it stands", a.h.name)
	}
	a.h.w.ledger.told(a.h, set)
	a.takeConfigs(&set)
	a.step(plan.Assigned{Incarnation: incarnation, Set: set})
}

func (a *agent) endpoints(s *session, set wire.EndpointSet) {
	if a.deposed(s) {
		return
	}
	a.route(s, set)
	a.step(plan.Endpoints{Set: set})
}

// granted answers a renewal; not one of the session before.
func (a *agent) granted(s *session, g wire.Grant) {
	if sent, ok := a.renewals[g.ID]; ok && !a.deposed(s) {
		delete(a.renewals, g.ID)
		a.step(plan.Granted{SentAt: sent, Grant: g})
	}
}

// deposed guards every message: a leader of a lower term changes nothing here.
func (a *agent) deposed(s *session) bool {
	if s.term < a.h.disk.term {
		a.h.w.say("%s refuses a message of term %d, it knows %d", a.h.name, s.term, a.h.disk.term)
		return true
	}
	return false
}

// beat goes up the session as long as the process runs.
func (a *agent) beat() {
	a.after(beatEvery, true, func() {
		if s := a.session; s != nil {
			a.seq++
			s.sendUp(true, core.Beat{Node: a.h.name, Session: s.id, Seq: a.seq, Check: a.check()})
		}
		a.beat()
	})
}

// look is a witness's work.
func (a *agent) look(s *session, ask wire.Ask) {
	life := a.life
	a.h.w.look(a.h.name, ask, func(ev core.Witnessed) {
		a.receive(life, func() {
			if a.session == s {
				s.sendUp(true, ev)
			}
		})
	})
}

// step tells the planner and does what it wants.
func (a *agent) step(ev plan.Event) {
	if a.plan == nil || a.h.w.broken != nil {
		return
	}
	if apart := a.h.behind(); apart > a.apart+suspendedMin {
		slept := apart - a.apart
		a.apart = apart
		a.step(plan.Slept{For: slept})
	}
	for _, e := range a.plan.Step(ev, a.h.now()) {
		a.do(e)
	}
	a.schedule()
}

// schedule sees to the planner's next tick.
func (a *agent) schedule() {
	at, ok := a.plan.NextWake()
	if !ok {
		return
	}
	due := max(a.h.clock.when(int64(at.Sub(start))), a.h.w.clock)
	if a.tickAt != 0 && a.tickAt <= due {
		return
	}
	a.tickAt = due
	a.after(time.Duration(due-a.h.w.clock), true, func() {
		if a.tickAt != due {
			return
		}
		a.tickAt = 0
		a.step(plan.Tick{})
	})
}

// up the session, or nowhere.
func (a *agent) sendUp(ev func(session uint64) core.Event) {
	if s := a.session; s != nil {
		s.sendUp(false, ev(s.id))
	}
}

func (a *agent) do(e plan.Effect) {
	w := a.h.w
	w.mix(effectTag(e))
	switch e := e.(type) {
	case plan.Report:
		for _, r := range e.Report.Replicas {
			w.mixKey(r.Key)
			w.ledger.reported(a.h, r)
		}
		w.say("%s reports %s", a.h.name, reportWords(e.Report))
		a.sendUp(func(id uint64) core.Event { return core.Status{Node: a.h.name, Session: id, Report: e.Report} })
	case plan.SaveAssignment:
		js, err := json.Marshal(e.Saved)
		if err != nil {
			w.violate("sim", "encode what %s saves: %v", a.h.name, err)
		}
		if bytes.Contains(js, []byte(secretMark)) {
			w.violate("pins", "%s saves values of a Secret", a.h.name)
		}
		a.save(&onDisk{js, a.keepConfigs(e.Saved)})
	case plan.Resync:
		w.say("%s wants a complete set: %s", a.h.name, e.Why)
		if s := a.session; s != nil {
			s.closeByAgent()
			a.session = nil
			// As an event of its own: the planner is in the middle of a step.
			a.after(0, true, func() { a.step(plan.Disconnected{}) })
			a.dial()
		}
	case plan.StartProbe:
		a.startProbe(e)
	case plan.StopProbe:
		delete(a.probes, probeID{e.ContainerID, e.Kind})
	case plan.Renew:
		a.renewals[e.Renewal.ID] = a.h.sinceBoot()
		w.say("%s renews %v", a.h.name, e.Renewal.Keys)
		if s := a.session; s != nil {
			s.sendUp(true, core.Renew{Node: a.h.name, Session: s.id, Renewal: e.Renewal})
		}
	case plan.SetLease:
		a.h.runtime.setLease(a, e)
	case plan.Balance:
		a.h.traffic.balance(e)
	case plan.Ack:
		a.acknowledges(e)
		a.sendUp(func(id uint64) core.Event {
			return core.Acked{Node: a.h.name, Session: id, EndpointVersion: e.EndpointVersion}
		})
	case plan.Wake, plan.ForgetReplica:
	default:
		a.h.runtime.do(a, e)
	}
}

// onDisk is what an agent keeps there.
type onDisk struct {
	saved   []byte
	configs map[versionKey][]byte
}

// save keeps the assignment on disk; one that refuses is asked again.
func (a *agent) save(x *onDisk) {
	if !a.h.diskFull() {
		a.h.disk.saved, a.h.disk.configs, a.unsaved = x.saved, x.configs, nil
		return
	}
	if a.unsaved == nil {
		a.after(saveAgain, true, func() {
			if a.unsaved != nil {
				x := a.unsaved
				a.unsaved = nil
				a.save(x)
			}
		})
	}
	a.unsaved = x
}
