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

	// The leader.
	incarnation string
	revision    int64
	sequence    uint64
	connected   bool
	assigned    map[api.ReplicaKey]wire.Assignment
	told        map[api.ReplicaKey]wire.Report
	orphans     []string

	// watch sees every effect before it is taken note of; check returns what is wrong.
	watch func(Effect)
}

func newModel() *model {
	return &model{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), containers: map[string]*Container{}, networks: map[api.ReplicaKey]Network{},
		missing: map[string]bool{}, broken: map[string]bool{}, incarnation: "A", revision: 1,
		assigned: map[api.ReplicaKey]wire.Assignment{}, told: map[api.ReplicaKey]wire.Report{}, watch: func(Effect) {}}
}

// start begins a new life of the agent; what was under way is lost with the old one.
func (m *model) start() {
	m.pending, m.probes, m.connected = nil, map[string]StartProbe{}, false
	m.core = New(Config{BootID: fmt.Sprintf("boot-%d", m.boot), Saved: m.saved})
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
}

func (m *model) end(c *Container, exit api.Exit) {
	if c.Running {
		exit.FinishedAt = m.now
		c.Running, c.Exit = false, &exit
	}
}

func (m *model) connect() {
	m.connected, m.sequence = true, 0
	m.step(Connected{})
	m.send(wire.AssignmentSet{Complete: true, Put: m.all()})
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
	m.sequence++
	set.Sequence, set.StoreRevision = m.sequence, m.revision
	m.step(Assigned{Incarnation: m.incarnation, Set: set})
}

func (m *model) step(ev Event) {
	for _, e := range m.core.Step(ev, m.now) {
		m.watch(e)
		m.take(e)
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
		saved := e.Saved
		m.saved = &saved
	case Report:
		m.hear(e.Report)
	case Resync:
		m.connected = false
	case Wake, Ack, ForgetReplica:
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
		return Done{ID: e.ID, ImageID: "sha256:" + e.Ref}
	case SetupNetwork:
		if failing {
			return fail(e.ID)
		}
		if _, ok := m.networks[e.Replica]; !ok {
			m.ips++
			m.networks[e.Replica] = Network{NetNS: "/run/" + e.Replica.Name(), IP: fmt.Sprintf("10.64.0.%d", m.ips)}
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
		return Done{ID: e.ID}
	}
	panic(fmt.Sprintf("%T", e))
}

func (m *model) startContainer(e StartContainer) Event {
	if m.broken[e.Container.Image] {
		return Done{ID: e.ID, Failure: &Failure{Reason: api.ExitStartFailed, Exit: &api.Exit{Code: 128, Reason: api.ExitStartFailed, Message: "no such file", FinishedAt: m.now}}}
	}
	id := fmt.Sprintf("%s#%d", shortID(e.Replica, e.Container.Name), e.Attempt)
	c := m.containers[id]
	if c == nil {
		c = &Container{ID: id, Replica: e.Replica, Name: e.Container.Name, Revision: e.Revision, Incarnation: e.Incarnation, Attempt: e.Attempt, Hash: e.Hash,
			ImageID: e.ImageID, NetNS: e.Network.NetNS, IP: e.Network.IP, Grace: e.Grace, Running: true, StartedAt: m.now}
		m.containers[id] = c
	}
	return Done{ID: e.ID, Container: *c}
}

func shortID(k api.ReplicaKey, name string) string {
	return strings.TrimPrefix(k.String(), "default/") + "/" + name
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
		at, ok := m.core.NextWake()
		if len(m.pending) > 0 {
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
