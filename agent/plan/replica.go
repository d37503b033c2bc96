package plan

import (
	"fmt"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// replica is one filling of a slot on this node: what it should be and how far
// it is. One that is no longer assigned stays until nothing is left of it.
type replica struct {
	key      api.ReplicaKey
	revision int64
	template *api.Template
	images   map[string]string // digests, by reference
	labels   map[string]string // the service's
	configs  map[api.ConfigRef]int64
	logins   map[api.ConfigRef]int64 // to registries; they change nothing that runs
	trace    traced
	uid      string
	spare    bool
	job      bool // it comes to its end by itself

	assigned    bool // the leader's placement exists
	stopOrdered bool // the leader wants it stopped
	going       bool // it is being stopped and cleared away; there is no way back
	why         string
	leftAt      time.Time        // when its end began; zero: not yet
	held        bool             // from another life of the node: waits for a session's word
	unsure      bool             // a job's, as an earlier life of the agent could save it: it may have been done and be gone since
	gone        bool             // nothing is left of it
	next        *wire.Assignment // what it is to be made anew as, once it is gone

	phase     api.Phase
	startedAt time.Time
	net       network
	runs      []*run // in the order of their starts
	stage     int    // that of the runs that may start now; it only rises
	leftovers []*leftover

	lease     lease     // the last that it was given
	asked     bool      // this session was asked for one
	refusedAt time.Time // the leader refused one since the last was given
	lost      string    // why it has no lease any more; empty: it has one, or needs none, or none is known

	wake time.Time // when time alone changes something; zero: never
	sent *wire.Report
}

type netState int

const (
	netNone netState = iota
	netSettingUp
	netUp
	netTearingDown
	netGone
)

type network struct {
	state netState
	op    uint64
	Network
	retry retry
}

// leftover is a container that is none of the replica's runs and has to go.
type leftover struct {
	Container
	op    uint64
	retry retry
}

func newReplica(a wire.Assignment) *replica {
	r := &replica{key: a.Key, revision: a.Revision, template: a.Template, images: a.Images, labels: a.Labels, configs: a.Configs, logins: a.Logins, trace: traced{text: a.Trace}, uid: a.ServiceUID, spare: a.Spare, job: a.Job, assigned: true, phase: api.PhaseAssigned}
	if r.template == nil {
		r.template = &api.Template{}
	}
	r.runs = runsOf(r, a.Images)
	return r
}

func (r *replica) assignment() wire.Assignment {
	if r.next != nil {
		return *r.next
	}
	return wire.Assignment{Key: r.key, ServiceUID: r.uid, Revision: r.revision, Template: r.template, Images: r.images, Labels: r.labels, Configs: r.configs, Logins: r.logins, Trace: r.trace.text, Stopping: r.stopOrdered, Spare: r.spare, Job: r.job}
}

// advance moves the phase, forwards only.
func (r *replica) advance(p api.Phase) {
	if r.phase.Before(p) {
		r.phase = p
	}
}

func (r *replica) wakeBy(at time.Time) { r.wake = earliest(r.wake, at) }

func (r *replica) grace() time.Duration {
	return r.template.TerminationGracePeriod.Or(api.DefaultGrace)
}

func (r *replica) find(name string) *run {
	for _, x := range r.runs {
		if x.spec.Name == name {
			return x
		}
	}
	return nil
}

func (r *replica) findLeftover(id string) *leftover {
	for _, l := range r.leftovers {
		if l.ID == id {
			return l
		}
	}
	return nil
}

func (r *replica) removeLeftover(l *leftover) {
	for i, have := range r.leftovers {
		if have == l {
			r.leftovers = append(r.leftovers[:i:i], r.leftovers[i+1:]...)
			return
		}
	}
}

func (r *replica) leftoverNamed(name string) bool {
	for _, l := range r.leftovers {
		if l.Name == name {
			return true
		}
	}
	return false
}

func (r *replica) anyRun(f func(*run) bool) bool {
	for _, x := range r.runs {
		if f(x) {
			return true
		}
	}
	return false
}

func (r *replica) waitsForImage() bool {
	return r.anyRun(func(x *run) bool { return x.image != nil })
}

// settle brings one replica as far as it can go now.
func (c *Core) settle(r *replica) {
	r.wake = time.Time{}
	c.changed[r.key] = true
	switch {
	case r.gone:
	case r.going:
		c.settleGoing(r)
	case r.held:
	default:
		c.settleWanted(r)
	}
}

func (c *Core) settleWanted(r *replica) {
	r.advance(api.PhasePreparing)
	c.judgeLease(r)
	c.clearLeftovers(r)
	r.climb()
	if c.anew[r.key] && r.stage >= len(r.template.InitContainers) {
		delete(c.anew, r.key)
		c.saveDue = true
	}
	if r.over() {
		c.settleOver(r)
		return
	}
	if r.anyRun((*run).wantsStart) {
		c.wantNetwork(r)
	}
	for _, x := range r.runs {
		c.settleRun(x)
	}
	r.count()
}

// count advances to Running when all that is to run as long as the replica was started.
func (r *replica) count() {
	if len(r.runs) == 0 || !r.phase.Before(api.PhaseRunning) || r.anyRun(func(x *run) bool { return x.kind != initRun && x.startedAt.IsZero() }) {
		return
	}
	r.advance(api.PhaseRunning)
	for _, x := range r.runs {
		if x.startedAt.After(r.startedAt) {
			r.startedAt = x.startedAt
		}
	}
}

// settleGoing stops what runs, removes what is left, then the network.
func (c *Core) settleGoing(r *replica) {
	if r.leftAt.IsZero() {
		r.leftAt = c.now
	}
	c.clearLeftovers(r)
	busy := len(r.leftovers) > 0
	for _, x := range r.runs {
		switch x.state {
		case absent:
			if !x.doubtful {
				continue
			}
			c.lookFor(x)
		case running:
			if r.mayStop(x) {
				c.stopRun(x, r.why, r.why)
			}
		case stopped, ended:
			c.removeRun(x, r.why)
		}
		busy = true
	}
	if busy || r.net.op != 0 {
		return
	}
	if r.net.state == netGone {
		c.finish(r)
		return
	}
	if r.net.retry.waiting(c.now) {
		r.wakeBy(r.net.retry.at)
		return
	}
	id, ok := c.begin(op{class: networks, replica: r, network: true})
	if !ok {
		return
	}
	r.net.op, r.net.state = id, netTearingDown
	c.emit(TeardownNetwork{ID: id, Replica: r.key, Why: r.why})
}

// leave begins the ordered end of a replica.
func (c *Core) leave(r *replica, why string) {
	c.mark(r)
	if r.going {
		return
	}
	r.going, r.held, r.why, r.lost = true, false, why, ""
	r.advance(api.PhaseStopping)
	for _, x := range r.runs {
		c.leaveImage(x)
		c.stopProbes(x)
		x.failing.ok() // what failed so far was its start
	}
}

// finish: nothing is left.
func (c *Core) finish(r *replica) {
	c.gone[r.key] = true
	delete(c.anew, r.key)
	c.emit(ForgetReplica{Replica: r.key})
	r.gone = true
	r.advance(api.PhaseStopped)
	switch {
	case !r.assigned:
		delete(c.replicas, r.key)
	case r.stopOrdered: // stays known as gone until the leader drops it
		c.saveDue = true
	default: // it was dropped and assigned again meanwhile
		c.replicas[r.key] = newReplica(r.assignment())
		c.markKey(r.key)
	}
}

func (c *Core) wantNetwork(r *replica) {
	if r.net.state != netNone || r.net.op != 0 {
		return
	}
	if r.net.retry.waiting(c.now) {
		r.wakeBy(r.net.retry.at)
		return
	}
	id, ok := c.begin(op{class: networks, replica: r, network: true})
	if !ok {
		return
	}
	r.net.op, r.net.state = id, netSettingUp
	c.emit(SetupNetwork{ID: id, Replica: r.key, Revision: r.revision, HostNetwork: r.template.HostNetwork, Trace: r.trace.of(c.now), Why: "it is to run here"})
}

func (c *Core) networkDone(r *replica, ev Done) {
	r.net.op = 0
	if ev.Failure != nil {
		r.net.retry.failed(ev.Failure, c.now)
		r.net.state = netNone
		return
	}
	r.net.retry.ok()
	if r.net.state == netTearingDown {
		r.net.state = netGone
		return
	}
	r.net.state, r.net.Network = netUp, ev.Network
}

// doubtNetwork has the network set up again before the next start, where no
// container lives in it: what a start stumbled over may be the network's loss.
func (c *Core) doubtNetwork(r *replica) {
	if r.net.state == netUp && !r.anyRun(func(x *run) bool { return x.lives() || x.state == stopped }) {
		r.net.state = netNone
	}
}

// clearLeftovers stops and removes containers that are none of the runs.
func (c *Core) clearLeftovers(r *replica) {
	for _, l := range r.leftovers {
		if l.op != 0 {
			continue
		}
		if l.retry.waiting(c.now) {
			r.wakeBy(l.retry.at)
			continue
		}
		class := removes
		if l.Running {
			class = stops
		}
		id, ok := c.begin(op{class: class, replica: r, leftover: l})
		if !ok {
			continue
		}
		l.op = id
		why := r.why
		if !r.going {
			why = fmt.Sprintf("it is not %s as assigned", r.key)
		}
		if l.Running {
			c.emit(StopContainer{ID: id, ContainerID: l.ID, Grace: l.Grace, Cause: why, Why: why})
		} else {
			c.emit(RemoveContainer{ID: id, ContainerID: l.ID, Why: why})
		}
	}
}

func (c *Core) leftoverDone(r *replica, o op, ev Done) {
	l := o.leftover
	l.op = 0
	switch {
	case ev.Failure != nil:
		l.retry.failed(ev.Failure, c.now)
	case o.class == stops:
		l.retry.ok()
		l.Running = false
	default:
		c.noteRemoved(l.ID)
		r.removeLeftover(l)
	}
}
