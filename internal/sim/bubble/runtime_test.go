package bubble

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/orchctl/orch/agent/ctrd"
	"github.com/orchctl/orch/agent/runtimetest"
	"github.com/orchctl/orch/api"
)

// runtime is a node's containerd with what runs: calls take time, hang with it or
// with the machine, and go on when the agent that made them is killed. Beside
// each leased container is its watchdog.
type runtime struct {
	*runtimetest.Runtime
	n *node

	// hung is guarded by the network's lock: how many faults hang it.
	hung int

	mu      sync.Mutex
	process map[string]*process // by container id; those that run
	// alone are replicas of which a container ended last without being told to.
	alone map[api.ReplicaKey]bool
}

// process is what runs in a container.
type process struct {
	spec     ctrd.ContainerSpec
	behavior behavior
	readyAt  time.Time
	sickTill time.Time
	// sickTries counts what its liveness probe has failed in a row.
	sickTries int
	watchdog  *time.Timer
	stopping  string // why it was told to end
	// crashes ends it by itself.
	crashes *time.Timer
}

// behavior is what an image's process does.
type behavior struct {
	missing    bool
	readyAfter time.Duration
	endsAfter  time.Duration // 0: never
	code       int           // with which it ends then
}

// behaviors by the image's name, before the colon.
var behaviors = map[string]behavior{
	"good":    {readyAfter: 300 * time.Millisecond},
	"slow":    {readyAfter: 3 * time.Second},
	"missing": {missing: true},
	"crash":   {endsAfter: 4 * time.Second, code: 1},
	// dies is never ready, so that its revision is given up.
	"dies": {readyAfter: time.Minute, endsAfter: 2 * time.Second, code: 1},
	// init is an init container's: its end is as it should be.
	"init": {endsAfter: 600 * time.Millisecond},
}

func behaviorOf(image string) behavior {
	name, _, _ := strings.Cut(image, ":")
	return behaviors[name]
}

// fine tells whether a template's processes run on and become ready.
func fine(t *api.Template) bool {
	return !slices.ContainsFunc(t.Containers, func(c api.Container) bool {
		b := behaviorOf(c.Image)
		return b.missing || b.endsAfter > 0
	})
}

// The commands of probes.
const (
	askReady = "ready"
	askAlive = "alive"
)

func newRuntime(n *node) *runtime {
	r := &runtime{Runtime: runtimetest.New(), n: n, process: map[string]*process{}, alone: map[api.ReplicaKey]bool{}}
	r.OnExec(r.command)
	r.SetBootTime(n.sinceBoot)
	return r
}

// command is what probes run.
func (r *runtime) command(id string, e ctrd.ExecSpec) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.process[id]
	if p == nil {
		return -1, fmt.Errorf("exec in %s: %w", id, ctrd.ErrNotRunning)
	}
	now := time.Now()
	well := now.After(p.sickTill)
	if e.Args[0] == askReady {
		well = well && now.After(p.readyAt)
	} else if p.sickTries++; well {
		p.sickTries = 0
	}
	if well {
		return 0, nil
	}
	return 1, nil
}

// running gives what runs now, by id; what is frozen with its machine does not.
func (r *runtime) running() map[string]*process {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.process)
}

// serves tells whether a container's process is well and ready.
func (r *runtime) serves(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.process[id]
	now := time.Now()
	return p != nil && now.After(p.sickTill) && now.After(p.readyAt)
}

// readyFor tells whether a replica has been ready for so long.
func (r *runtime) readyFor(k api.ReplicaKey, d time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.process {
		if p.spec.Replica == k {
			since := time.Now().Add(-d)
			return p.stopping == "" && since.After(p.readyAt) && since.After(p.sickTill)
		}
	}
	return false
}

// publishes tells whether a port of the machine's own address is answered.
func (r *runtime) publishes(port uint16) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.process {
		for _, x := range p.spec.Container.Ports {
			if x.Publish == int(port) {
				return true
			}
		}
	}
	return false
}

// endedAlone tells whether a replica's container ended without being told to, and
// none that was.
func (r *runtime) endedAlone(k api.ReplicaKey) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.alone[k]
}

// listensAt tells whether a container at that address declares the port.
func (r *runtime) listensAt(at netip.AddrPort) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.process {
		if p.spec.IP != at.Addr().String() {
			continue
		}
		for _, x := range p.spec.Container.Ports {
			if x.Port == int(at.Port()) {
				return true
			}
		}
	}
	return false
}

// end is the end of a container's process.
func (r *runtime) end(id string, p *process, how api.Exit) {
	r.mu.Lock()
	if r.process[id] != p {
		r.mu.Unlock()
		return
	}
	delete(r.process, id)
	r.alone[p.spec.Replica] = p.stopping == ""
	p.stopTimers()
	r.mu.Unlock()
	r.n.w.say("%s: %s ends, code %d %s %s", r.n.name, id, how.Code, how.Reason, how.Message)
	r.End(id, how)
}

func (p *process) stopTimers() {
	for _, t := range []*time.Timer{p.watchdog, p.crashes} {
		if t != nil {
			t.Stop()
		}
	}
}

// powerLost ends all at once.
func (r *runtime) powerLost() {
	r.mu.Lock()
	for id, p := range r.process {
		p.stopTimers()
		delete(r.process, id)
	}
	r.mu.Unlock()
	r.PowerLost()
	r.n.network.PowerLost()
}

// guard sets the watchdog's timer; the lock is held.
func (r *runtime) guard(id string, p *process, at time.Duration) {
	if p.watchdog != nil {
		p.watchdog.Stop()
	}
	p.watchdog = time.AfterFunc(max(at-r.n.sinceBoot(), 0), func() {
		if !r.n.net.see(func() bool { return r.n.frozen > 0 }) { // else when it thaws
			r.bite(id, p)
		}
	})
}

// bite is the watchdog's: SIGTERM at the lease's term, SIGKILL at its end.
func (r *runtime) bite(id string, p *process) {
	now, lease := r.n.sinceBoot(), r.LeaseOf(id)
	r.mu.Lock()
	if r.process[id] != p || lease == (ctrd.Lease{}) {
		r.mu.Unlock()
		return
	}
	switch {
	case now >= lease.Kill:
		r.mu.Unlock()
		r.end(id, p, api.Exit{Code: 137, Signal: 9, Reason: api.ExitSignaled, Message: "its lease is over, said the watchdog"})
		return
	case now >= lease.Term:
		r.guard(id, p, lease.Kill)
		r.mu.Unlock()
		r.terminate(id, p, p.spec.Grace, "its lease is over, said the watchdog")
		return
	}
	r.guard(id, p, lease.Term)
	r.mu.Unlock()
}

// thaw has the machine run again; its watchdogs act before anything else does.
func (r *runtime) thaw(f func()) {
	for id, p := range r.running() {
		r.bite(id, p)
	}
	f()
}

// terminate sends SIGTERM: most end soon, some use their whole grace.
func (r *runtime) terminate(id string, p *process, grace time.Duration, why string) {
	r.mu.Lock()
	p.stopping = why
	r.mu.Unlock()
	took := min(grace, r.n.w.random.between(5*time.Millisecond, 200*time.Millisecond))
	if r.n.w.random.hits(0.1) {
		took = grace
	}
	r.later(took, func() { r.end(id, p, api.Exit{Code: 143, Signal: 15, Reason: api.ExitSignaled, Message: why}) })
}

// later lets a process of the machine act, but not while that is frozen. What
// loses its power is not there any more to act on.
func (r *runtime) later(d time.Duration, f func()) *time.Timer {
	return time.AfterFunc(d, func() {
		if r.n.net.see(func() bool { return r.n.frozen > 0 }) {
			r.later(100*time.Millisecond, f)
			return
		}
		f()
	})
}

// crash ends one of the processes by itself, or makes it sick for a while.
func (r *runtime) crash(x *chance, sick time.Duration) string {
	all := r.running()
	if len(all) == 0 {
		return ""
	}
	id := pick(x, slices.Sorted(maps.Keys(all)))
	if x.hits(0.5) {
		r.mu.Lock()
		all[id].sickTill = time.Now().Add(sick)
		r.mu.Unlock()
		return fmt.Sprintf("%s does not answer its probes for %s", id, sick)
	}
	r.end(id, all[id], api.Exit{Code: 139, Signal: 11, Reason: api.ExitSignaled})
	return id + " crashes"
}
