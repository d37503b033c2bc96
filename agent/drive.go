package agent

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/orchctl/orch/agent/ctrd"
	"github.com/orchctl/orch/agent/logs"
	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/agent/session"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// inboxMax is how many events may wait; beyond, their senders do.
const inboxMax = 1024

// The longest that effects may take. They bound a runtime that hangs, not one
// that is slow.
const (
	listMax    = 30 * time.Second
	pullMax    = 30 * time.Minute
	startMax   = 2 * time.Minute
	removeMax  = 2 * time.Minute
	networkMax = time.Minute
	// noSubnetMax is for a node to which the leader has given no subnet: whoever
	// asks why nothing starts is to hear it soon.
	noSubnetMax = 5 * time.Second
	// stopSlack is the time above the grace in which SIGKILL must have worked; a
	// restart of containerd fits in.
	stopSlack = time.Minute
)

// driver owns the plan.
type driver struct {
	cfg     Config
	core    *plan.Core
	session *session.Session
	gossip  *gossiper
	check   *selfCheck
	saver   *saver
	configs *configs
	shelf   *shelf
	// standing tells the kernel's side where the node stands.
	standing *standing

	inbox   chan any      // plan.Event, connected, ended, or func() to run beside the plan
	stopped chan struct{} // nobody reads the inbox any more
	gen     uint64        // the session that reports go to; the loop's own
	timer   *time.Timer

	// storeRevision as of the last step: sessions begin by telling it.
	storeRevision atomic.Int64

	leases leases
	traces traces

	work   sync.WaitGroup
	probes map[probeKey]context.CancelFunc
	hooks  map[string]context.CancelFunc // by container; the loop's own
	turns  turns                         // of probes' commands
	owners map[string]owner              // of containers, by id; the loop's own

	// exits are how containers of replicas that are here ended last; the loop's own.
	exits   map[owner]api.Exit
	archive *logs.Archive
	// gone are closed when nothing of a replica is left whose log somebody follows; the
	// loop's own.
	gone map[api.ReplicaKey]chan struct{}
}

type probeKey struct {
	container string
	kind      plan.ProbeKind
}

// connected is the driver's own event: it brings the session's number.
type connected struct{ gen uint64 }

func newDriver(cfg Config, core *plan.Core, values *configs) *driver {
	d := &driver{cfg: cfg, core: core, configs: values, inbox: make(chan any, inboxMax), stopped: make(chan struct{}), probes: map[probeKey]context.CancelFunc{}, hooks: map[string]context.CancelFunc{}, turns: newTurns(runtime.NumCPU()), owners: map[string]owner{}, exits: map[owner]api.Exit{}, gone: map[api.ReplicaKey]chan struct{}{}, archive: logs.NewArchive(filepath.Join(cfg.Data, archiveFolder)), leases: leases{writing: map[string]*plan.Lease{}}, traces: traces{tracer: cfg.Tracer, node: cfg.Name, arriving: map[api.ReplicaKey]*arrival{}},
		check: newSelfCheck(cfg), saver: newSaver(cfg), standing: newStanding(cfg)}
	d.storeRevision.Store(core.StoreRevision())
	d.shelf = newShelf(d)
	return d
}

// run is the one goroutine that drives the plan.
func (d *driver) run(ctx context.Context) error {
	defer d.traces.endAll() // after the last that is under way
	defer d.work.Wait()
	defer close(d.stopped)
	// Effects under way end with the agent; containers do not.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d.timer = time.NewTimer(time.Hour)
	defer d.timer.Stop()
	d.step(ctx, plan.Started{})
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev := <-d.inbox:
			d.handle(ctx, ev)
		case <-d.timer.C:
			d.step(ctx, plan.Tick{})
		}
	}
}

func (d *driver) handle(ctx context.Context, ev any) {
	switch ev := ev.(type) {
	case plan.Disconnected:
		d.cfg.Traffic.Connected(false)
		d.step(ctx, ev)
	case plan.Observed:
		for _, c := range ev.Containers {
			d.owners[c.ID] = owner{c.Replica, c.Name}
			if c.Exit != nil {
				d.noteExit(d.owners[c.ID], *c.Exit)
				d.endHook(c.ID)
			}
		}
		d.step(ctx, ev)
	case plan.Assigned: // the plan gets no values, and so whatever prints it has none
		d.configs.take(ev.Incarnation, ev.Set.Configs)
		ev.Set.Configs = nil
		d.step(ctx, ev)
	case plan.Event:
		d.step(ctx, ev)
	case ended:
		d.ended(ctx, ev)
	case wire.Grant:
		d.granted(ctx, ev)
	case connected:
		d.gen = ev.gen
		d.leases.sent = nil // no session answers for the one before
		d.cfg.Traffic.Connected(true)
		d.step(ctx, plan.Connected{})
	case func():
		ev()
	}
}

func (d *driver) step(ctx context.Context, ev plan.Event) {
	boot, now := d.cfg.BootTime(), time.Now()
	if slept := d.leases.slept(boot, now); slept > 0 {
		d.cfg.Logger.Info("this machine was suspended", "for", slept)
		d.doAll(ctx, d.core.Step(plan.Slept{For: slept}, now))
	}
	d.doAll(ctx, d.core.Step(ev, now))
	d.storeRevision.Store(d.core.StoreRevision())
}

func (d *driver) doAll(ctx context.Context, effects []plan.Effect) {
	for _, e := range effects {
		d.do(ctx, e)
	}
}

// tell puts an event into the inbox.
func (d *driver) tell(ctx context.Context, ev any) {
	select {
	case d.inbox <- ev:
	case <-ctx.Done():
	}
}

// do carries out one effect, without waiting for it.
func (d *driver) do(ctx context.Context, e plan.Effect) {
	switch e := e.(type) {
	case plan.Wake:
		d.timer.Reset(time.Until(e.At))
	case plan.Report:
		d.session.SendReport(d.gen, e.Report)
		d.traces.reported(e.Report)
	case plan.Ack:
		d.session.SendAck(d.gen, e.AssignmentSequence, e.EndpointVersion)
	case plan.Balance:
		d.cfg.Traffic.Balance(e)
	case plan.Renew:
		d.renew(e.Renewal)
	case plan.SetLease:
		d.setLease(ctx, e.ContainerID, e.Lease)
	case plan.SaveAssignment:
		d.saver.save(e.Saved, d.configs.keepOnly(e.Saved))
	case plan.Resync:
		d.session.Resync(e.Why)
	case plan.StartProbe:
		d.startProbe(ctx, e)
	case plan.StopProbe:
		key := probeKey{e.ContainerID, e.Kind}
		if cancel := d.probes[key]; cancel != nil {
			cancel()
			delete(d.probes, key)
		}
	case plan.ForgetReplica:
		d.part(ctx, e.Replica)
	default:
		d.own(e)
		life := ctx
		ctx, done := d.hooked(life, e)
		ctx, traced := d.traces.begin(ctx, e)
		d.cfg.Logger.Debug("do", "effect", describe(e))
		d.work.Go(func() {
			began, ended := time.Now(), d.cfg.Counts.Began(e)
			ev := d.carryOut(ctx, e)
			ended(ev)
			done()
			traced(ev)
			d.cfg.Logger.Debug("done", "effect", fmt.Sprintf("%T", e), "took", time.Since(began))
			if life.Err() == nil {
				d.tell(life, ev)
			}
		})
	}
}

// carryOut does an effect that takes time and gives the event that answers it.
func (d *driver) carryOut(ctx context.Context, e plan.Effect) plan.Event {
	switch e := e.(type) {
	case plan.Observe:
		return d.observe(ctx, e)
	case plan.EnsureImage:
		ctx, cancel := context.WithTimeout(ctx, pullMax)
		defer cancel()
		return d.ensureImage(ctx, e)
	case plan.SetupNetwork:
		limit := networkMax
		if at, told := d.cfg.Network.Standing(); told && !at.Subnet.IsValid() && !e.HostNetwork {
			limit = noSubnetMax
		}
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		a, err := d.cfg.Network.Setup(ctx, e.Replica, e.HostNetwork)
		done := plan.Done{ID: e.ID, Failure: failure(err, api.ReasonNetworkError)}
		if err == nil {
			done.Network = plan.Network{NetNS: a.NetNS, IP: a.IP.String()}
		}
		return done
	case plan.TeardownNetwork:
		ctx, cancel := context.WithTimeout(ctx, networkMax)
		defer cancel()
		return plan.Done{ID: e.ID, Failure: failure(d.cfg.Network.Teardown(ctx, e.Replica), api.ReasonNetworkError)}
	case plan.PruneNetworks:
		ctx, cancel := context.WithTimeout(ctx, networkMax)
		defer cancel()
		keep := make(map[api.ReplicaKey]bool, len(e.Keep))
		for _, k := range e.Keep {
			keep[k] = true
		}
		err := d.cfg.Network.Prune(ctx, func(k api.ReplicaKey) bool { return keep[k] })
		if err != nil {
			d.cfg.Logger.Warn("cannot clear away networks that nobody needs", "err", err)
		}
		return plan.Done{ID: e.ID, Failure: failure(err, api.ReasonNetworkError)}
	case plan.StartContainer:
		ctx, cancel := context.WithTimeout(ctx, startMax)
		defer cancel()
		spec := specOf(e, d.cfg)
		if f := d.configs.resolve(e, &spec); f != nil {
			return plan.Done{ID: e.ID, Failure: f}
		}
		o, err := d.cfg.Runtime.Start(ctx, spec)
		if err == nil {
			d.shelf.started(e, o.ImageID)
		}
		return plan.Done{ID: e.ID, Container: containerOf(o), Failure: failure(err, api.ReasonCreateError)}
	case plan.StopContainer:
		ctx, cancel := context.WithTimeout(ctx, e.Grace+stopSlack)
		defer cancel()
		return plan.Done{ID: e.ID, Failure: failure(d.cfg.Runtime.Stop(ctx, e.ContainerID, e.Grace, e.Cause), reasonStopError)}
	case plan.RunHook:
		return d.runHook(ctx, e)
	case plan.RemoveContainer:
		ctx, cancel := context.WithTimeout(ctx, removeMax)
		defer cancel()
		return plan.Done{ID: e.ID, Failure: failure(d.cfg.Runtime.Remove(ctx, e.ContainerID), reasonRemoveError)}
	case plan.RemoveVolume:
		err := removeVolume(ctx, d.cfg.Data, e.Volume) // for as long as it takes
		if err != nil && ctx.Err() == nil {
			d.cfg.Logger.Warn("cannot remove a volume; trying again", "volume", e.Volume, "err", err)
		}
		return plan.Done{ID: e.ID, Failure: failure(err, api.ReasonVolumeError)}
	}
	panic(fmt.Sprintf("effect %T has nobody who carries it out", e))
}

func (d *driver) observe(ctx context.Context, e plan.Observe) plan.Event {
	ctx, cancel := context.WithTimeout(ctx, listMax)
	defer cancel()
	list, err := d.cfg.Runtime.List(ctx)
	if err != nil {
		d.cfg.Logger.Warn("cannot list containers; trying again", "err", err)
		return plan.Observed{ID: e.ID, Err: err.Error()}
	}
	ev := plan.Observed{ID: e.ID}
	for _, o := range list {
		c := containerOf(o)
		c.Unguarded = !d.guarded(ctx, o)
		if c.Exit != nil {
			exit := *c.Exit
			exit.Output = d.output(o.ID, owner{o.Replica, o.Container})
			c.Exit = &exit
		}
		ev.Containers = append(ev.Containers, c)
	}
	return ev
}

// watchRuntime hands on the runtime's events.
func (d *driver) watchRuntime(ctx context.Context) error {
	for ev := range d.cfg.Runtime.Events(ctx) {
		switch ev := ev.(type) {
		case ctrd.Exited:
			d.cfg.Counts.Exited(ev.Exit.Reason)
			d.tell(ctx, ended{ev.ID, ev.Exit})
		case ctrd.Reconnected:
			d.tell(ctx, plan.RuntimeBack{})
		case ctrd.OOM:
			// Its end, if it ends, carries the evidence.
			d.cfg.Logger.Warn("the kernel killed a process of a container: out of memory", "container", ev.ID)
		}
	}
	return nil
}

// describe is an effect in a line, for the log. A spec may hold what users put
// into its environment, so it is left out.
func describe(e plan.Effect) string {
	switch e := e.(type) {
	case plan.StartContainer:
		return fmt.Sprintf("StartContainer %s %s attempt %d: %s", e.Replica, e.Container.Name, e.Attempt, e.Why)
	case plan.SetupNetwork:
		return fmt.Sprintf("SetupNetwork %s: %s", e.Replica, e.Why)
	}
	return strings.TrimPrefix(fmt.Sprintf("%T%+v", e, e), "plan.")
}

// The session's words, as its Handler.

// Connected implements session.Handler.
func (d *driver) Connected(gen uint64, w session.Welcome) {
	d.cfg.Counts.Connected(w.Leader)
	d.gossip.welcome(w)
	d.fromSession(connected{gen})
}

// Welcomed implements session.Handler.
func (d *driver) Welcomed(w session.Welcome) { d.gossip.welcome(w) }

// trusted takes what the cluster's members know each other by.
func (d *driver) trusted(t session.Trust) {
	d.gossip.trusted(t.GossipKeys)
	if d.cfg.Trusted != nil && len(t.CA) > 0 {
		d.cfg.Trusted(t.CA)
	}
}

func (d *driver) fromSession(ev any) {
	select {
	case d.inbox <- ev:
	case <-d.stopped:
	}
}

// Disconnected implements session.Handler.
func (d *driver) Disconnected(uint64) {
	d.cfg.Counts.Parted()
	d.fromSession(plan.Disconnected{})
}

// Assignments implements session.Handler.
func (d *driver) Assignments(incarnation string, set wire.AssignmentSet) {
	d.fromSession(plan.Assigned{Incarnation: incarnation, Set: set})
}

// Network implements session.Handler.
func (d *driver) Network(set wire.NetworkSet) { d.standing.take(set) }

// Granted implements session.Handler.
func (d *driver) Granted(g wire.Grant) { d.fromSession(g) }

// Endpoints implements session.Handler.
func (d *driver) Endpoints(set wire.EndpointSet) { d.fromSession(plan.Endpoints{Set: set}) }
