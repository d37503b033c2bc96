package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// model is a node and a leader, as simple as they can be: it carries out what
// the core wants and holds what really is.
type model struct {
	core *Core
	now  time.Time
	boot int

	// The node.
	containers map[string]*Container
	networks   map[api.ReplicaKey]Network
	probes     map[string]StartProbe // by container and kind
	pending    []Effect              // wanted, not carried out yet
	saved      *Saved
	ips        int
	missing    map[string]bool // images
	broken     map[string]bool // images whose command cannot be run
	health     map[string]*Healthcheck
	initDone   map[string]bool // by replica and name: it ended with code 0, in this life of the node
	watchdogs  map[string]Lease
	untold     bool          // leases do not reach them: there is no room for the file
	full       bool          // assignments are not saved: nor is there room for them
	suspended  time.Duration // in all
	traffic    traffic
	values     map[wire.ConfigKey]bool // that are on the node; those of secrets only in memory
	folders    map[api.VolumeKey]bool
	mounted    map[string][]api.VolumeKey // by container

	// The leader.
	incarnation string
	revision    int64
	sequence    uint64
	connected   bool
	assigned    map[api.ReplicaKey]wire.Assignment
	told        map[api.ReplicaKey]wire.Report
	orphans     []string
	renewals    []sentRenewal // of this session, not answered
	acked       uint64        // version of the endpoints, in this session
	withheld    bool          // values do not come with their sets
	removing    map[api.VolumeKey]bool

	// watch sees every effect before it is taken note of; check returns what is wrong.
	watch func(Effect)
	// leader answers the ith renewal while the model settles.
	leader func(i int)
}

func newModel() *model {
	m := &model{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), containers: map[string]*Container{}, watchdogs: map[string]Lease{}, networks: map[api.ReplicaKey]Network{},
		missing: map[string]bool{}, broken: map[string]bool{},
		health: map[string]*Healthcheck{}, initDone: map[string]bool{}, values: map[wire.ConfigKey]bool{}, folders: map[api.VolumeKey]bool{}, mounted: map[string][]api.VolumeKey{}, removing: map[api.VolumeKey]bool{}, incarnation: "A", revision: 1,
		assigned: map[api.ReplicaKey]wire.Assignment{}, told: map[api.ReplicaKey]wire.Report{}, watch: func(Effect) {}}
	m.leader = func(i int) { m.answer(i, m.grantable) }
	return m
}

// start begins a new life of the agent; what was under way is lost with the old one.
func (m *model) start() {
	m.pending, m.probes, m.connected, m.renewals = nil, map[string]StartProbe{}, false, nil
	m.traffic.waiting, m.traffic.mark = nil, 0
	maps.DeleteFunc(m.values, func(k wire.ConfigKey, _ bool) bool { return k.Ref.Kind() == api.KindSecret })
	m.core = New(Config{Node: "n1", BootID: fmt.Sprintf("boot-%d", m.boot), Saved: m.saved, Endpoints: m.traffic.list()})
	m.step(Started{})
	m.step(RuntimeBack{})
}

// reboot is a power cut: no container runs after it.
func (m *model) reboot() {
	m.boot++
	for _, c := range m.containers {
		m.end(c, api.Exit{Code: 255, Reason: api.ExitError, Message: "lost"})
	}
	clear(m.networks)
	clear(m.initDone)
}

func (m *model) end(c *Container, exit api.Exit) {
	if c.Running {
		exit.FinishedAt = m.now
		c.Running, c.Exit = false, &exit
		if exit.Code == 0 && isInit(c.Name) {
			m.initDone[doneKey(c.Replica, c.Name)] = true
		}
	}
}

func (m *model) connect() {
	m.connected, m.sequence, m.renewals, m.acked = true, 0, nil, 0
	m.step(Connected{})
	m.send(wire.AssignmentSet{Complete: true, Put: m.all(), RemoveVolumes: slices.SortedFunc(maps.Keys(m.removing), compareVolumes)})
}

func (m *model) all() []wire.Assignment {
	var out []wire.Assignment
	for _, k := range slices.SortedFunc(maps.Keys(m.assigned), compareKeys) {
		out = append(out, m.assigned[k])
	}
	return out
}

func (m *model) send(set wire.AssignmentSet) {
	m.revision++
	if !m.connected {
		return
	}
	for _, a := range set.Put {
		if !a.Stopping && !m.withheld {
			for _, k := range pinsOf(a.Key, a.Configs) {
				m.values[k] = true
			}
		}
	}
	m.sequence++
	set.Sequence, set.StoreRevision = m.sequence, m.revision
	m.step(Assigned{Incarnation: m.incarnation, Set: set})
}

func (m *model) step(ev Event) {
	var set []LeaseSet
	for _, e := range m.core.Step(ev, m.now) {
		m.watch(e)
		m.take(e)
		if l, ok := e.(SetLease); ok && m.watchdogs[l.ContainerID] == l.Lease {
			set = append(set, LeaseSet(l))
		}
	}
	for _, ev := range set {
		m.step(ev)
	}
}

// take notes an effect: what takes time waits in pending.
func (m *model) take(e Effect) {
	switch e := e.(type) {
	case StartProbe:
		m.probes[e.ContainerID+" "+string(e.Kind)] = e
	case StopProbe:
		delete(m.probes, e.ContainerID+" "+string(e.Kind))
	case SaveAssignment:
		if m.full {
			break
		}
		saved := e.Saved
		m.saved = &saved
		kept := map[wire.ConfigKey]bool{}
		for _, a := range saved.Assignments {
			for _, k := range pinsOf(a.Key, a.Configs) {
				kept[k] = true
			}
		}
		maps.DeleteFunc(m.values, func(k wire.ConfigKey, _ bool) bool { return !kept[k] })
	case Report:
		m.hear(e.Report)
	case Resync:
		m.connected = false
	case Renew:
		m.renewals = append(m.renewals, sentRenewal{e.Renewal, m.bootTime()})
	case SetLease:
		if c := m.containers[e.ContainerID]; c != nil && c.Running && !c.Unguarded && !m.untold {
			m.watchdogs[c.ID] = e.Lease
		}
	case Balance:
		m.traffic.take(e)
	case Ack:
		m.acked = e.EndpointVersion
	case Wake, ForgetReplica:
	default:
		m.pending = append(m.pending, e)
	}
}

func (m *model) hear(r wire.StatusReport) {
	if r.Complete {
		clear(m.told)
		m.orphans = r.Orphans
	}
	for _, x := range r.Replicas {
		m.told[x.Key] = x
	}
	for _, k := range r.VolumesGone {
		if m.folders[k] {
			panic(k.String() + " is said to be gone, and is there")
		}
		delete(m.removing, k)
	}
	for _, k := range r.Gone {
		delete(m.told, k)
		if a, ok := m.assigned[k]; ok && a.Stopping {
			delete(m.assigned, k)
			m.send(wire.AssignmentSet{Drop: []api.ReplicaKey{k}})
		}
	}
}

// carryOut does the ith pending effect and tells the core; failing makes it fail.
func (m *model) carryOut(i int, failing bool) {
	e := m.pending[i]
	m.pending = slices.Delete(m.pending, i, i+1)
	if ev := m.result(e, failing); ev != nil {
		m.step(ev)
	}
}

// carryOutBut does the ith pending effect, and the core hears that it failed.
func (m *model) carryOutBut(i int) {
	e := m.pending[i]
	m.pending = slices.Delete(m.pending, i, i+1)
	m.result(e, false)
	m.step(m.result(e, true))
}

var errBroken = &Failure{Reason: api.ReasonCreateError, Message: "broken"}

func (m *model) result(e Effect, failing bool) Event {
	fail := func(id uint64) Event { return Done{ID: id, Failure: errBroken} }
	switch e := e.(type) {
	case Observe:
		if failing {
			return Observed{ID: e.ID, Err: "broken"}
		}
		ev := Observed{ID: e.ID}
		for _, id := range slices.Sorted(maps.Keys(m.containers)) {
			ev.Containers = append(ev.Containers, *m.containers[id])
		}
		return ev
	case EnsureImage:
		if failing || m.missing[e.Ref] {
			return Done{ID: e.ID, Failure: &Failure{Reason: api.ReasonImageMissing, Message: e.Ref + " is not on this node"}}
		}
		if _, digest, pinned := strings.Cut(e.Ref, "@"); pinned {
			return Done{ID: e.ID, ImageID: digest}
		}
		return Done{ID: e.ID, ImageID: "sha256:" + e.Ref}
	case SetupNetwork:
		if failing {
			return fail(e.ID)
		}
		if _, ok := m.networks[e.Replica]; !ok {
			m.ips++
			m.networks[e.Replica] = Network{NetNS: "/run/" + e.Replica.Name(), IP: fmt.Sprintf("10.64.0.%d", m.ips)}
			if e.HostNetwork {
				m.networks[e.Replica] = Network{IP: "10.0.0.1"}
			}
		}
		return Done{ID: e.ID, Network: m.networks[e.Replica]}
	case TeardownNetwork:
		if failing {
			return fail(e.ID)
		}
		delete(m.networks, e.Replica)
		return Done{ID: e.ID}
	case PruneNetworks:
		maps.DeleteFunc(m.networks, func(k api.ReplicaKey, _ Network) bool { return !slices.Contains(e.Keep, k) })
		return Done{ID: e.ID}
	case StartContainer:
		if failing {
			return fail(e.ID)
		}
		return m.startContainer(e)
	case RunHook:
		switch c := m.containers[e.ContainerID]; {
		case c == nil || !c.Running:
			return Done{ID: e.ID, Failure: &Failure{Reason: NotRunning, Message: "it does not run"}}
		case failing:
			return Done{ID: e.ID, Failure: &Failure{Reason: api.ReasonHookFailed, Message: "no: exit code 1"}}
		}
		return Done{ID: e.ID}
	case StopContainer:
		if failing {
			return fail(e.ID)
		}
		if c := m.containers[e.ContainerID]; c != nil {
			m.end(c, api.Exit{Code: 143, Signal: 15, Reason: "Killed", Message: e.Cause})
		}
		return Done{ID: e.ID}
	case RemoveContainer:
		if failing {
			return fail(e.ID)
		}
		delete(m.containers, e.ContainerID)
		delete(m.mounted, e.ContainerID)
		return Done{ID: e.ID}
	case RemoveVolume:
		if failing {
			return fail(e.ID)
		}
		delete(m.folders, e.Volume)
		return Done{ID: e.ID}
	}
	panic(fmt.Sprintf("%T", e))
}

// pinsOf names the versions that a replica takes values of.
func pinsOf(k api.ReplicaKey, pins map[api.ConfigRef]int64) []wire.ConfigKey {
	var out []wire.ConfigKey
	for _, ref := range slices.Sorted(maps.Keys(pins)) {
		out = append(out, wire.ConfigKey{Namespace: k.Namespace, Ref: ref, Version: pins[ref]})
	}
	return out
}

func (m *model) startContainer(e StartContainer) Event {
	for _, k := range pinsOf(e.Replica, e.Configs) {
		if !m.values[k] {
			return Done{ID: e.ID, Failure: &Failure{Reason: api.ReasonConfigMissing, Message: fmt.Sprintf("%s version %d is not on this node yet", k.Ref, k.Version)}}
		}
	}
	if m.broken[e.Container.Image] {
		return Done{ID: e.ID, Failure: &Failure{Reason: api.ExitStartFailed, Exit: &api.Exit{Code: 128, Reason: api.ExitStartFailed, Message: "no such file", FinishedAt: m.now}}}
	}
	if e.Lease != nil && e.Lease.Term <= m.bootTime() {
		return Done{ID: e.ID, Failure: &Failure{Reason: api.ReasonLeaseLost, Message: "its lease is over"}}
	}
	if (e.Network.NetNS == "") != e.HostNetwork {
		panic(fmt.Sprintf("%s starts in %q, host network: %t", e.Replica, e.Network.NetNS, e.HostNetwork))
	}
	id := fmt.Sprintf("%s#%d", shortID(e.Replica, e.Container.Name), e.Attempt)
	c := m.containers[id]
	if c == nil {
		c = &Container{ID: id, Replica: e.Replica, Name: e.Container.Name, Revision: e.Revision, Incarnation: e.Incarnation, Attempt: e.Attempt, Hash: e.Hash,
			ImageID: e.ImageID, NetNS: e.Network.NetNS, IP: e.Network.IP, Grace: e.Grace, Running: true, StartedAt: m.now, Healthcheck: m.health[e.Container.Image]}
		if e.Lease != nil {
			m.watchdogs[id] = *e.Lease
		}
		m.containers[id] = c
		for _, mount := range e.Container.Mounts {
			if mount.Volume != "" {
				k := api.VolumeKey{Namespace: e.Replica.Namespace, Service: e.Replica.Service, Slot: e.Replica.Slot, Volume: mount.Volume}
				m.folders[k] = true
				m.mounted[id] = append(m.mounted[id], k)
			}
		}
	}
	return Done{ID: e.ID, Container: *c}
}

func shortID(k api.ReplicaKey, name string) string {
	return strings.TrimPrefix(k.String(), "default/") + "/" + name
}

// Names say what a container is: "init1", "proxy1".
func isInit(name string) bool    { return strings.HasPrefix(name, "init") }
func isSidecar(name string) bool { return strings.HasPrefix(name, "proxy") }
func isMain(name string) bool    { return name == "main" }

func doneKey(k api.ReplicaKey, name string) string { return k.String() + "/" + name }

// finishInits ends the init containers that run, well.
func (m *model) finishInits() (any bool) {
	for _, id := range slices.Sorted(maps.Keys(m.containers)) {
		if c := m.containers[id]; c.Running && isInit(c.Name) {
			any = true
			m.end(c, api.Exit{Reason: api.ExitCompleted})
			m.step(Exited{ContainerID: c.ID, Exit: *c.Exit})
		}
	}
	return any
}

// settle carries out everything, and lets time pass as the core asks for, until
// nothing is left to do but the next full look.
func (m *model) settle() {
	for range 2000 {
		for len(m.pending) > 0 {
			m.carryOut(0, false)
		}
		for _, k := range slices.Sorted(maps.Keys(m.probes)) {
			p := m.probes[k]
			m.step(Probed{ContainerID: p.ContainerID, Kind: p.Kind, OK: true})
		}
		for len(m.renewals) > 0 {
			m.leader(0)
		}
		at, ok := m.core.NextWake()
		if m.finishInits() || len(m.pending) > 0 {
			continue
		}
		if !ok || at.Equal(m.core.observeAt) {
			return
		}
		if at.After(m.now) {
			m.now = at
		}
		m.step(Tick{})
	}
}

// sentRenewal is stamped with the time since boot.
type sentRenewal struct {
	wire.Renewal
	at time.Duration
}

// epoch is when the machine was booted, as its clock of boot time has it.
var epoch = time.Date(2025, 12, 31, 23, 0, 0, 0, time.UTC)

func (m *model) bootTime() time.Duration { return m.now.Sub(epoch) + m.suspended }

// grantable is the leader's rule.
func (m *model) grantable(k api.ReplicaKey) bool {
	a, ok := m.assigned[k]
	return ok && !a.Stopping
}

// answer is the leader's word on the ith renewal.
func (m *model) answer(i int, grant func(api.ReplicaKey) bool) {
	r := m.renewals[i]
	m.renewals = slices.Delete(m.renewals, i, i+1)
	g := wire.Grant{ID: r.ID}
	for _, k := range r.Keys {
		if grant(k) {
			g.Leases = append(g.Leases, wire.Lease{Key: k, For: m.assigned[k].Template.Lease()})
		}
	}
	m.step(Granted{SentAt: r.at, Grant: g})
}

// watchdogsAct lets the watchdogs act: those whose container obeys SIGTERM end it at
// Term, the others at Kill. They work whether or not there is an agent.
func (m *model) watchdogsAct(obeys func(id string) bool) (ended []*Container) {
	for _, id := range slices.Sorted(maps.Keys(m.watchdogs)) {
		c, l := m.containers[id], m.watchdogs[id]
		switch {
		case c == nil || !c.Running:
			delete(m.watchdogs, id)
		case m.bootTime() >= l.Kill:
			m.end(c, api.Exit{Code: 137, Signal: 9, Reason: api.ExitSignaled, Message: "ended by signal 9 (SIGKILL)"})
			ended = append(ended, c)
		case m.bootTime() >= l.Term && obeys(id):
			m.end(c, api.Exit{Code: 143, Signal: 15, Reason: api.ExitSignaled, Message: "ended by signal 15 (SIGTERM)"})
			ended = append(ended, c)
		}
	}
	return ended
}

// suspend stops the machine for a while, and with it every clock but that of
// boot time.
func (m *model) suspend(d time.Duration) {
	m.suspended += d
	m.step(Slept{For: d})
}
