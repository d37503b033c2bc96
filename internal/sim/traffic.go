package sim

import (
	"maps"
	"slices"
	"time"

	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// rules are by whom traffic is led, and to which services.
type rules struct {
	ends     map[api.ReplicaKey]wire.Endpoint
	services map[api.Key]wire.Service
}

func newRules() *rules {
	return &rules{map[api.ReplicaKey]wire.Endpoint{}, map[api.Key]wire.Service{}}
}

func (r *rules) clone() *rules { return &rules{maps.Clone(r.ends), maps.Clone(r.services)} }

func (r *rules) take(b plan.Balance) {
	if b.Complete {
		clear(r.ends)
		clear(r.services)
	}
	for _, e := range b.Put {
		r.ends[e.Replica] = e
	}
	for _, k := range b.Drop {
		delete(r.ends, k)
	}
	for _, s := range b.Services {
		r.services[s.Key] = s
	}
	for _, k := range b.DropServices {
		delete(r.services, k)
	}
}

func (r *rules) sorted() []wire.Endpoint {
	var out []wire.Endpoint
	for _, k := range slices.SortedFunc(maps.Keys(r.ends), compareReplicas) {
		out = append(out, r.ends[k])
	}
	return out
}

// traffic is how a node leads traffic, and stands for agent/traffic: the kernel's
// rules outlive the agent and go with the power, the disk outlives both.
type traffic struct {
	h      *host
	kernel *rules // nil: it has none of ours
	disk   *rules // nil: nothing was saved yet

	// Of the agent's process.
	known       *rules // what it was told, in all
	mark        uint64 // of the last Balance
	free        bool   // it knows better than the kernel, or there is nothing to spoil
	programming bool
	saving      bool
}

const (
	// holdMax is how long an agent without a session leaves a kernel's rules alone.
	holdMax = 5 * time.Second
	// saveMost is how much older than what is known the disk may be.
	saveMost = 2 * time.Second
	// kernelSoon: a transaction under way is not undone by the end of who sent it.
	kernelSoon = 20 * time.Millisecond
)

// start begins with what lies on disk.
func (t *traffic) start() {
	t.known, t.mark, t.programming, t.saving = newRules(), 0, false, false
	if t.disk != nil {
		t.known = t.disk.clone()
	}
	if t.free = t.kernel == nil; t.free { // an empty kernel is given what there is
		t.program()
		return
	}
	t.hold(t.h.w.clock)
}

// hold looks whether nobody who knows better has spoken for so long.
func (t *traffic) hold(alone int64) {
	t.h.agent.after(time.Second, true, func() {
		switch now := t.h.w.clock; {
		case t.free:
		case t.h.agent.session != nil:
			t.hold(now)
		case t.disk != nil && now-alone >= int64(holdMax):
			t.h.w.say("%s leads traffic by what lay on disk", t.h.name)
			t.free = true
			t.program()
		default:
			t.hold(alone)
		}
	})
}

// balance takes up what the planner wants.
func (t *traffic) balance(b plan.Balance) {
	t.known.take(b)
	t.mark, t.free = b.Mark, t.free || b.Complete
	t.program()
	t.save()
}

// save keeps what is known, some time later.
func (t *traffic) save() {
	if t.saving {
		return
	}
	t.saving = true
	t.h.agent.after(between(t.h.w.r.run, 0, saveMost), true, func() {
		t.saving = false
		if t.h.diskFull() {
			t.save()
			return
		}
		t.disk = t.known.clone()
	})
}

// program puts in force what is known now, in its time; what comes meanwhile
// follows in one. A busy kernel, or one that refuses, may need seconds.
func (t *traffic) program() {
	if t.programming || !t.free {
		return
	}
	w, a := t.h.w, t.h.agent
	t.programming = true
	took := between(w.r.run, time.Millisecond, kernelSoon)
	slow := w.r.run.IntN(200)
	more := between(w.r.run, 50*time.Millisecond, 6*time.Second)
	if !w.calm && w.cfg.Without&Runtime == 0 && slow < 6 {
		w.res.Faults[Runtime]++
		took += more
		if slow < 4 {
			took = kernelSoon + more/5
		}
	}
	now, mark, life, finished := t.known.clone(), t.mark, a.life, chance(w.r.run, 0.5)
	t.h.upkeep(took, func() {
		if a.life != life || !a.up {
			if finished && took <= kernelSoon {
				t.inForce(now)
			}
			return
		}
		a.receive(life, func() {
			t.programming = false
			t.inForce(now)
			if mark > 0 {
				a.step(plan.Programmed{Mark: mark})
			}
			if t.mark > mark {
				t.program()
			}
		})
	})
}

func (t *traffic) inForce(r *rules) {
	w := t.h.w
	t.kernel = r
	w.mix(uint64(len(r.ends)))
	vips := map[string]api.Key{}
	for _, key := range slices.SortedFunc(maps.Keys(r.services), compareServices) {
		s := r.services[key]
		if other, taken := vips[s.VIP]; taken && s.VIP != "" {
			w.violate("addresses", "%s leads virtual IP %s to %s and to %s", t.h.name, s.VIP, other, key)
		}
		vips[s.VIP] = key
	}
	t.obeys()
	for _, e := range r.sorted() {
		w.serves(t.h, e)
	}
}

// obeys: I8. A node leads no traffic to what was withdrawn by a version that its
// agent has acknowledged in the session that it is in.
func (t *traffic) obeys() {
	s := t.h.agent.session
	if s == nil || !s.routed || s.acked == 0 || t.kernel == nil {
		return
	}
	for _, e := range t.kernel.sorted() {
		if v := s.withdrawn[e.Replica]; v > 0 && v <= s.acked {
			t.h.w.violate("I8", "%s has acknowledged version %d of the endpoints and leads traffic to %s, which version %d withdrew", t.h.name, s.acked, e.Replica, v)
		}
	}
}

// serves: where nothing goes wrong but the network's and the store's slowness,
// and leaders, no client's request meets what does not serve: traffic is led to
// containers that run and are ready, and have not been told to stop.
func (w *world) serves(on *host, e wire.Endpoint) {
	t := w.ledger.templates[e.Replica]
	if !w.gentle || t == nil || !fine(t) || t.Leased() {
		return
	}
	if a := on.agent; (a.session == nil || !a.session.routed) && w.clock-a.parted > int64(w.handoverMax()/2) {
		return // it does not find the leader for so long that nobody waits for it
	}
	if l := w.leader(); l != nil && (missing(l.core.Verdict(on.name)) || l.know.awayAt[on.name] > 0 && w.clock-l.know.awayAt[on.name] < int64(w.handoverMax())) {
		return // its packets are so slow that it is taken for missing, and nobody waits for it
	}
	h := w.host(e.Node)
	for _, spec := range t.LongRunning() {
		ok := slices.ContainsFunc(h.runtime.sorted(), func(c *container) bool {
			return c.Replica == e.Replica && c.Name == spec.Name && !c.told && c.IP == e.IP && (c.ready(w.clock) || c.Running && spec.ReadinessProbe == nil)
		})
		if !ok {
			w.violate("I8", "%s leads traffic to %s at %s, whose %s on %s does not serve there", on.name, e.Replica, e.IP, spec.Name, e.Node)
			return
		}
	}
}

// unserved: likewise, in the moment in which a container stops to serve.
func (w *world) unserved(c *container) {
	if !w.gentle {
		return
	}
	for _, h := range w.hosts {
		if h.traffic.kernel == nil {
			continue
		}
		if e, led := h.traffic.kernel.ends[c.Replica]; led {
			w.serves(h, e)
		}
	}
}

// ledOtherwise says what of a node's rules is not as its agent was told (E).
func (t *traffic) ledOtherwise() string {
	if t.programming {
		return "" // what comes and goes by itself is always on its way
	}
	if t.kernel == nil {
		return t.h.name + " leads no traffic"
	}
	want := t.h.agent.plan.Endpoints()
	if len(want) != len(t.kernel.ends) {
		return t.h.name + " leads traffic otherwise than it was told"
	}
	for _, e := range want {
		if got, ok := t.kernel.ends[e.Replica]; !ok || got.IP != e.IP {
			return t.h.name + " does not lead traffic to " + e.Replica.String()
		}
	}
	pic := t.h.w.ledger.pic
	for key, s := range pic.services {
		got, ok := t.kernel.services[key]
		newest := pic.revisions[revisionKey{key, s.Status.Revision}]
		switch {
		case !s.Metadata.DeletedAt.IsZero() || newest == nil:
		case !ok:
			return t.h.name + " does not know service " + key.String()
		case got.VIP != s.Status.VIP || got.SessionAffinity != s.Spec.SessionAffinity || got.TrafficDistribution != s.Spec.TrafficDistribution || !samePorts(got.Ports, newest.template):
			return t.h.name + " knows service " + key.String() + " as it was"
		}
	}
	for key := range t.kernel.services {
		if pic.services[key] == nil {
			return t.h.name + " still knows service " + key.String()
		}
	}
	return ""
}

func samePorts(a []api.Port, t *api.Template) bool {
	var b []api.Port
	for _, c := range t.LongRunning() {
		b = append(b, c.Ports...)
	}
	return slices.Equal(a, b)
}
