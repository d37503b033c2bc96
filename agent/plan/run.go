package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/orchctl/orch/api"
)

// run is one container of a replica through its restarts in place: at most one
// container of the runtime at a time.
type run struct {
	r    *replica
	spec api.Container // its image pinned
	hash string
	ref  string // its image as the template has it
	bare string // the hash that it had without the pin; empty: it has none

	kind    kind
	stage   int
	nth, of int // among those of its kind

	state     runState
	op        uint64 // under way; 0: none
	changed   uint64 // the step in which state last changed
	id        string // the runtime's, while there is a container
	attempt   int    // restarts in place before this container, or the next
	startedAt time.Time
	imageID   string
	uncertain bool // the runtime could not tell whether it runs
	doubtful  bool // absent after a start that failed: what is left of that is not known
	adopted   bool

	lease lease // what its watchdog was told; that of its replica may be later
	// has is what its watchdog is known to have: what it was told may not have
	// reached it. Zero: only the watchdog knows.
	has lease
	// lapsed is why it is stopped for want of a lease; see holdLease.
	lapsed string
	// unguarded: it has no watchdog any more.
	unguarded bool
	image     *image // waits for it
	pulling   string
	failing   retry // start, stop or removal, whichever was last

	lastExit  *api.Exit
	final     bool      // ended, and not to be started again
	good      bool      // the last end was as it should be
	done      bool      // an init container that has done its work
	endedAt   time.Time // of the last end
	inRow     int       // ends since the last good run
	nextStart time.Time // the back-off; zero: at once
	// sick is why the present container has to be restarted, once its liveness or its
	// startup probe or its postStart hook asks for that; sickAs is the exit's reason.
	sick, sickAs string

	hook   hookState
	hookOp uint64
	begun  bool      // its startup probe, if it has one, has passed
	left   bool      // its preStop hook has been run
	stopBy time.Time // when its grace is over, from its preStop hook on; zero: that was not run

	health                       *Healthcheck // asked in place of probes; nil: the manifest has some, or the image none
	readiness, liveness, startup probe
}

type runState int

const (
	absent   runState = iota // no container
	starting                 // StartContainer is out
	running
	leaving  // RunHook is out, for preStop
	stopping // StopContainer is out
	stopped  // it was stopped; how it ended is not known yet
	ended    // its process ended, its remains are there
	removing // RemoveContainer is out
)

// hashOf tells containers of different specs apart. It is stored with the
// container.
func hashOf(spec api.Container) string {
	js, err := json.Marshal(spec)
	if err != nil { // api types hold nothing that JSON cannot
		panic(fmt.Sprintf("encode container %s: %v", spec.Name, err))
	}
	sum := sha256.Sum256(js)
	return hex.EncodeToString(sum[:12])
}

func (x *run) what() string { return fmt.Sprintf("%s %s", x.r.key, x.spec.Name) }

func (x *run) wantsStart() bool {
	return !x.final && (x.state == absent || x.state == ended || x.state == removing)
}

func (c *Core) setState(x *run, s runState) { x.state, x.changed = s, c.steps }

// settleRun brings a wanted run a step further.
func (c *Core) settleRun(x *run) {
	switch x.state {
	case absent:
		c.startRun(x)
	case running:
		c.holdLease(x)
		if x.state != running {
			return
		}
		if x.sick != "" {
			c.stopRun(x, x.sickAs, x.sick)
			return
		}
		c.runPostStart(x)
	case ended:
		if x.final {
			return
		}
		if x.stage > x.r.stage {
			return
		}
		if c.now.Before(x.nextStart) {
			x.r.wakeBy(x.nextStart)
			return
		}
		// Its remains were kept until now: they carry the count of restarts
		// over a restart of the agent.
		c.removeRun(x, "it is started again")
	}
}

func (c *Core) startRun(x *run) {
	r := x.r
	if x.final {
		return
	}
	if c.now.Before(x.nextStart) {
		r.wakeBy(x.nextStart)
		return
	}
	if x.imageID == "" {
		c.wantImage(x)
		return
	}
	if x.stage > r.stage || r.net.state != netUp || r.leftoverNamed(x.spec.Name) {
		return // what takes long, its image, is fetched meanwhile
	}
	if !c.mayStart(r) { // what takes time is ready when it may
		return
	}
	if c.removesVolume(r) { // its Done marks the replica
		return
	}
	if c.sharesVolume(r) {
		c.volumes.waits[r.key] = true
		return
	}
	if x.failing.waiting(c.now) {
		r.wakeBy(x.failing.at)
		return
	}
	if id := c.strayWithVolume(r); id != "" {
		x.failing.soon(&Failure{Reason: api.ReasonVolumeError, Message: fmt.Sprintf("container %s, which nobody assigned, runs in its slot and may have its volume", id)}, c.now)
		r.wakeBy(x.failing.at)
		return
	}
	id, ok := c.begin(op{class: starts, replica: r, run: x})
	if !ok {
		return
	}
	x.op, x.lease, x.has = id, r.lease, r.lease
	c.setState(x, starting)
	why := "it is assigned"
	if x.lastExit != nil {
		why = fmt.Sprintf("its last run ended: %s", x.lastExit.Reason)
	}
	spec := x.spec
	spec.Env = c.environment(x)
	c.emit(StartContainer{ID: id, Replica: r.key, Revision: r.revision, ServiceUID: r.uid, Incarnation: c.incarnation, Attempt: x.attempt, Container: spec,
		ImageID: x.imageID, Network: r.net.Network, HostNetwork: r.template.HostNetwork, Grace: r.grace(), Hash: x.hash, Sysctls: r.template.Sysctls,
		Configs: x.pins(), Lease: r.leaseOf(), Trace: x.trace(c.now), Why: why})
}

// trace is that of its first start: one that ended is started again for that.
func (x *run) trace(now time.Time) string {
	if x.attempt > 0 || x.lastExit != nil {
		return ""
	}
	return x.r.trace.of(now)
}

func (c *Core) startDone(x *run, ev Done) {
	if x.op != ev.ID {
		return
	}
	x.op = 0
	c.setState(x, absent)
	if f := ev.Failure; f != nil && f.Reason == api.ReasonConfigMissing { // the runtime was not asked
		x.failing.soon(f, c.now)
		return
	}
	x.doubtful = ev.Failure != nil || !x.is(ev.Container)
	got := ev.Container
	switch f := ev.Failure; {
	case f != nil && f.Exit != nil:
		c.doubtNetwork(x.r)
		x.startedAt = time.Time{}
		c.judgeEnd(x, *f.Exit)
	case f != nil && f.Reason == api.ReasonLeaseLost:
		c.startRefused(x, f.Message)
	case f != nil:
		c.doubtNetwork(x.r)
		if f.Reason == api.ReasonImageMissing {
			x.imageID = ""
		}
		x.failing.failed(f, c.now)
	case !x.is(got):
		x.failing.failed(&Failure{Reason: api.ReasonCreateError, Message: fmt.Sprintf("container %s exists with another specification", got.ID)}, c.now)
	default:
		x.failing.ok()
		c.take(x, got)
		if exit, ok := c.early[got.ID]; ok && x.state == running {
			c.endRun(x, exit)
		}
	}
	if c.busy[starts] == 0 {
		clear(c.early)
	}
}

// lookFor has the runtime asked whether a start that failed left a container: it
// may run although nobody could say so. The next start would take it up; where
// there is none, it has to be known before the replica is gone.
func (c *Core) lookFor(x *run) {
	if c.lookedAt < x.changed {
		c.observe("what a failed start of " + x.what() + " left is not known")
	}
}

// take makes a container of the runtime the run's own.
func (c *Core) take(x *run, o Container) {
	found := x.adopted && !x.doubtful // of another life of the agent
	x.hook = hookWanted
	if found || x.spec.Lifecycle == nil || x.spec.Lifecycle.PostStart == nil {
		x.hook = hookOK
	}
	x.doubtful, x.begun, x.left, x.stopBy, x.health = false, false, false, time.Time{}, x.healthOf(o)
	x.id, x.attempt, x.startedAt, x.uncertain, x.unguarded, x.sick, x.lapsed = o.ID, o.Attempt, o.StartedAt, o.Uncertain, o.Unguarded, "", ""
	if x.startedAt.IsZero() {
		x.startedAt = c.now
	}
	if o.ImageID != "" {
		x.imageID = o.ImageID
	}
	c.leaveImage(x)
	c.byID[o.ID] = x
	// Of another life of the node; not where what waits for it has come up in this one.
	before := found && c.anew[x.r.key] && !o.Running && x.stage >= x.r.stage
	if !before {
		x.r.reach(x.stage)
	}
	if !o.Running {
		exit := api.Exit{Code: lostCode, Reason: api.ExitError, Message: "how it ended is not known", FinishedAt: c.now}
		if o.Exit != nil {
			exit = *o.Exit
		}
		c.endRun(x, exit)
		if before && x.done { // what it has done is lost, as far as it was in memory, or to the network
			x.final, x.done, x.nextStart, x.lastExit = false, false, time.Time{}, nil
		}
		return
	}
	c.setState(x, running)
	if n := &x.r.net; n.op == 0 && (n.state == netNone) && o.NetNS != "" {
		n.state, n.Network = netUp, Network{NetNS: o.NetNS, IP: o.IP}
	}
	if !x.r.going && x.hook == hookOK {
		c.startProbes(x)
	}
}

// lostCode is the exit code of a container that nobody saw end.
const lostCode = 255

// stopRun stops a container that runs. cause goes into its exit.
func (c *Core) stopRun(x *run, cause, why string) {
	if x.failing.waiting(c.now) {
		x.r.wakeBy(x.failing.at)
		return
	}
	if c.preStop(x, why) {
		return
	}
	id, ok := c.begin(op{class: stops, replica: x.r, run: x})
	if !ok {
		return
	}
	x.op = id
	c.setState(x, stopping)
	c.stopProbes(x)
	c.emit(StopContainer{ID: id, ContainerID: x.id, Grace: x.graceLeft(c.now), Cause: cause, Why: why})
}

func (c *Core) stopDone(x *run, ev Done) {
	if x.op != ev.ID { // its end was seen before
		return
	}
	x.op = 0
	if ev.Failure != nil {
		x.failing.failed(ev.Failure, c.now)
		c.setState(x, running)
		return
	}
	x.failing.ok()
	c.setState(x, stopped)
	if !x.r.going {
		c.observe("how " + x.what() + " ended is not known yet")
	}
}

// removeRun removes the remains of a container that ended.
func (c *Core) removeRun(x *run, why string) {
	if x.failing.waiting(c.now) {
		x.r.wakeBy(x.failing.at)
		return
	}
	id, ok := c.begin(op{class: removes, replica: x.r, run: x})
	if !ok {
		return
	}
	x.op = id
	c.setState(x, removing)
	c.emit(RemoveContainer{ID: id, ContainerID: x.id, Why: why})
}

func (c *Core) removeDone(x *run, ev Done) {
	if x.op != ev.ID {
		return
	}
	x.op = 0
	if ev.Failure != nil {
		x.failing.failed(ev.Failure, c.now)
		c.setState(x, ended)
		return
	}
	x.failing.ok()
	c.noteRemoved(x.id)
	c.forgetContainer(x)
}

// forgetContainer: the runtime has nothing of this run any more.
func (c *Core) forgetContainer(x *run) {
	delete(c.byID, x.id)
	x.id, x.uncertain, x.adopted, x.lease, x.has, x.unguarded = "", false, false, lease{}, lease{}, false
	if !x.r.going { // no further run
		x.attempt++
	}
	c.setState(x, absent)
}

// exited takes the runtime's word that a process ended.
func (c *Core) exited(ev Exited) {
	if x := c.byID[ev.ContainerID]; x != nil {
		if x.lives() || x.state == stopped {
			x.op = 0
			c.endRun(x, ev.Exit)
			c.mark(x.r)
		}
		return
	}
	if o, ok := c.strays[ev.ContainerID]; ok {
		o.Running, o.Exit = false, &ev.Exit
		c.strays[ev.ContainerID] = o
		return
	}
	if c.busy[starts] > 0 {
		c.early[ev.ContainerID] = ev.Exit
	}
}

// endRun: the container's process ended.
func (c *Core) endRun(x *run, exit api.Exit) {
	c.stopProbes(x)
	c.setState(x, ended)
	x.uncertain = false
	if c.endedByLease(x, exit) {
		exit = x.leaseLost(exit)
		x.sick = ""
	}
	x.lapsed = ""
	if x.sick != "" {
		exit.Reason = x.sickAs
		exit.Message = join(x.sick, exit.Message)
		x.sick = ""
	}
	c.judgeEnd(x, exit)
}

// judgeEnd decides what follows from an end: a restart and when, or none.
func (c *Core) judgeEnd(x *run, exit api.Exit) {
	x.lastExit = &exit
	at := c.now
	if !exit.FinishedAt.IsZero() && exit.FinishedAt.Before(at) {
		at = exit.FinishedAt
	}
	x.endedAt = at
	if exit.Reason == api.ReasonLeaseLost { // no fault of its own, whatever the policy: the next lease starts it
		x.nextStart = time.Time{}
		return
	}
	policy := x.r.template.RestartPolicy
	failed := exit.Code != 0 || exit.Signal != 0 || exit.OOM ||
		exit.Reason == api.ExitLivenessFailed || exit.Reason == api.ExitStartupFailed || exit.Reason == api.ExitHookFailed
	x.good = !failed
	if x.kind == initRun && (!failed || x.done) { // its remains are kept: they tell the agent's next life
		x.final, x.done = true, true
		return
	}
	if policy.Condition == api.RestartNever || (policy.Condition == api.RestartOnFailure && !failed) {
		x.final = true
		return
	}
	if !x.startedAt.IsZero() && at.Sub(x.startedAt) >= policy.ResetAfter.Or(api.DefaultResetAfter) {
		x.inRow = 0
	}
	first := policy.BackOff.Or(api.DefaultBackOff)
	x.nextStart = at
	if x.inRow > 0 {
		x.nextStart = at.Add(doubled(first, max(first, policy.MaxBackOff.Or(api.DefaultMaxBackOff)), x.inRow-1))
	}
	x.inRow++
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}
