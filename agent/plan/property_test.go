package plan

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// world is a model under random treatment, with what must hold after each step.
type world struct {
	*model
	t *rapid.T
	// allowed are replicas that the present core was told to run, in this life
	// of the node; whatever it starts must be among them.
	allowed  map[api.ReplicaKey]wire.Assignment
	unwanted map[api.ReplicaKey]bool // told to stop, or dropped, ever
	sick     map[string]bool         // containers whose liveness probe failed
	epoch    uint64
	// terms are the ends of the leases that the leader gave to what the present
	// core has, as they must be in the core.
	terms map[*replica]time.Duration
	asked map[uint64][]*replica // whom a renewal was about
	late  []Granted             // answers of sessions that have ended
	ever  map[string]bool       // containers that were started, by replica and name
	hooks map[*Container]bool   // containers whose postStart hook was run
	// robbed are replicas of which somebody removed a container.
	robbed map[api.ReplicaKey]bool
}

func newWorld(t *rapid.T) *world {
	w := &world{model: newModel(), t: t, unwanted: map[api.ReplicaKey]bool{}, sick: map[string]bool{}, ever: map[string]bool{}, hooks: map[*Container]bool{}, robbed: map[api.ReplicaKey]bool{}}
	w.model.watch = w.check
	w.leader = func(i int) { w.grant(i, w.grantable) }
	w.begin()
	return w
}

func (w *world) begin() {
	w.allowed = map[api.ReplicaKey]wire.Assignment{}
	w.terms, w.asked, w.late = map[*replica]time.Duration{}, map[uint64][]*replica{}, nil
	if w.saved != nil && w.saved.BootID == fmt.Sprintf("boot-%d", w.boot) {
		for _, a := range w.saved.Assignments {
			if !a.Stopping {
				w.allowed[a.Key] = a
			}
		}
	}
	w.start()
}

// check looks at an effect before it is carried out.
func (w *world) check(e Effect) {
	switch e := e.(type) {
	case RemoveVolume:
		if !w.removing[e.Volume] && w.connected {
			w.t.Fatalf("removes %s, which nobody wanted gone", e.Volume)
		}
		for id, ks := range w.mounted {
			if w.containers[id] != nil && w.containers[id].Running && slices.Contains(ks, e.Volume) {
				w.t.Fatalf("removes %s, which %s has mounted", e.Volume, id)
			}
		}
	case StartContainer:
		w.inOrder(e)
		if a := w.allowed[e.Replica]; isMain(e.Container.Name) && !maps.Equal(e.Configs, a.Configs) {
			w.t.Fatalf("starts %s with %v, assigned is %v", e.Replica, e.Configs, a.Configs)
		}
		if _, ok := w.allowed[e.Replica]; !ok {
			w.t.Fatalf("starts %s, which is not assigned", e.Replica)
		}
		switch r := w.core.replicas[e.Replica]; {
		case r.template.Leased() != (e.Lease != nil):
			w.t.Fatalf("starts %s, leased %t, with the lease %v", e.Replica, r.template.Leased(), e.Lease)
		case e.Lease != nil && e.Lease.Term <= w.bootTime():
			w.t.Fatalf("starts %s under a lease that ended %s ago", e.Replica, w.bootTime()-e.Lease.Term)
		case e.Lease != nil && (e.Lease.Term > w.terms[r] || e.Lease.Kill-e.Lease.Term != r.grace()):
			w.t.Fatalf("starts %s under the lease %v, given was %s", e.Replica, *e.Lease, w.terms[r])
		}
		for _, c := range w.containers {
			if c.Replica == e.Replica && c.Name == e.Container.Name && c.Running && c.Attempt != e.Attempt { // the same one is taken up
				w.t.Fatalf("starts %s %s beside %s", e.Replica, e.Container.Name, c.ID)
			}
		}
		for id, ks := range w.mounted {
			c := w.containers[id]
			if c == nil || !c.Running || c.Replica == e.Replica || w.core.replicas[c.Replica] != nil && !w.core.replicas[c.Replica].going {
				continue
			}
			for _, m := range e.Container.Mounts {
				if m.Volume != "" && slices.Contains(ks, volumeOf(e.Replica)) {
					w.t.Fatalf("starts %s with the volume that %s has mounted", e.Replica, id)
				}
			}
		}
		for _, p := range w.pending {
			if v, ok := p.(RemoveVolume); ok && slotOf(v.Volume) == slotOfReplica(e.Replica) {
				w.t.Fatalf("starts %s while %s is removed", e.Replica, v.Volume)
			}
			if s, ok := p.(StartContainer); ok && s.Replica == e.Replica && s.Container.Name == e.Container.Name {
				w.t.Fatalf("starts %s %s twice", e.Replica, e.Container.Name)
			}
		}
	case Renew:
		if !w.connected || len(e.Renewal.Keys) == 0 {
			w.t.Fatalf("renews %v, connected %t", e.Renewal.Keys, w.connected)
		}
		for _, k := range e.Renewal.Keys {
			r := w.core.replicas[k]
			if !r.leased() || r.going || r.held || r.gone {
				w.t.Fatalf("renews %s, leased %t, going %t, held %t, gone %t", k, r.leased(), r.going, r.held, r.gone)
			}
			w.asked[e.Renewal.ID] = append(w.asked[e.Renewal.ID], r)
		}
	case SetLease:
		if c := w.containers[e.ContainerID]; c != nil && e.Lease.Term > w.terms[w.core.replicas[c.Replica]] {
			w.t.Fatalf("%s is to run until %s, given was %s", c.ID, e.Lease.Term, w.terms[w.core.replicas[c.Replica]])
		}
	case RunHook:
		if strings.HasPrefix(e.Why, "postStart") {
			c := w.containers[e.ContainerID]
			if c != nil && w.hooks[c] {
				w.t.Fatalf("the postStart hook of %s is run again", e.ContainerID)
			}
			w.hooks[c] = true
		}
	case StopContainer:
		w.sidecarsLast(e)
		c := w.containers[e.ContainerID]
		if c == nil || !c.Running || w.sick[c.ID] || c.Unguarded {
			return
		}
		if r := w.core.replicas[c.Replica]; r != nil && isSidecar(c.Name) && r.over() {
			return
		}
		if r := w.core.replicas[c.Replica]; r != nil && !r.going && e.Cause == api.ReasonLeaseLost {
			if term, ok := w.terms[r]; !ok || w.bootTime() < term {
				w.t.Fatalf("stops %s for its lease, which %v ends at %s, now %s", c.ID, ok, term, w.bootTime())
			}
			return
		}
		if a, ok := w.assigned[c.Replica]; ok && !a.Stopping && !w.unwanted[c.Replica] && a.Revision == c.Revision {
			w.t.Fatalf("stops %s, which is as assigned: %s", c.ID, e.Why)
		}
		if !w.unwanted[c.Replica] && c.Incarnation != w.incarnation {
			w.t.Fatalf("stops the orphan %s: %s", c.ID, e.Why)
		}
	case RemoveContainer:
		if c := w.containers[e.ContainerID]; c != nil && c.Running && c.Exit == nil {
			w.t.Fatalf("removes %s, which runs: %s", c.ID, e.Why)
		}
	case Report:
		for _, k := range e.Report.Gone {
			for id, c := range w.containers {
				if c.Replica == k && c.Running && c.Incarnation == w.incarnation {
					w.t.Fatalf("%s is said to be gone, and %s runs", k, id)
				}
			}
		}
		for _, r := range e.Report.Replicas {
			if have := w.core.replicas[r.Key]; r.Status.Ready && have.lease.known() && !have.lease.holds(w.now) {
				w.t.Fatalf("%s is ready, and its lease is over", r.Key)
			}
			if r.Status.Ready && r.Status.Phase != api.PhaseRunning {
				w.t.Fatalf("%s is ready in phase %s", r.Key, r.Status.Phase)
			}
			if old, ok := w.told[r.Key]; ok && !e.Report.Complete && r.Status.Phase.Before(old.Status.Phase) {
				w.t.Fatalf("%s goes back from %s to %s", r.Key, old.Status.Phase, r.Status.Phase)
			}
		}
	}
}

// inOrder: what a container waits for has happened, in this life of the node.
func (w *world) inOrder(e StartContainer) {
	t := w.core.replicas[e.Replica].template
	for i, c := range t.InitContainers {
		switch {
		case c.Name == e.Container.Name:
			for _, o := range w.containers {
				if o.Replica == e.Replica && o.Running && o.Name != c.Name {
					w.t.Fatalf("starts %s %s beside %s", e.Replica, c.Name, o.ID)
				}
			}
			for _, o := range t.InitContainers[i+1:] {
				// Else an agent was restarted in the middle of it, or finds nothing of it.
				if w.initDone[doneKey(e.Replica, o.Name)] && !w.core.anew[e.Replica] && !w.robbed[e.Replica] {
					w.t.Fatalf("starts %s %s after %s", e.Replica, c.Name, o.Name)
				}
			}
			return
		case !w.initDone[doneKey(e.Replica, c.Name)]:
			w.t.Fatalf("starts %s %s before %s has done its work", e.Replica, e.Container.Name, c.Name)
		}
	}
	for _, c := range t.Sidecars {
		if c.Name == e.Container.Name {
			break
		}
		if !w.ever[doneKey(e.Replica, c.Name)] {
			w.t.Fatalf("starts %s %s before %s", e.Replica, e.Container.Name, c.Name)
		}
	}
	w.ever[doneKey(e.Replica, e.Container.Name)] = true
}

// sidecarsLast: in the ordered end of a replica they are stopped after all others.
func (w *world) sidecarsLast(e StopContainer) {
	c := w.containers[e.ContainerID]
	if c == nil || !isSidecar(c.Name) {
		return
	}
	r := w.core.replicas[c.Replica]
	if r == nil || !r.going || r.findLeftover(c.ID) != nil {
		return
	}
	for _, o := range w.containers {
		if o.Replica == c.Replica && o.Running && r.findLeftover(o.ID) == nil && (!isSidecar(o.Name) || o.Name > c.Name) {
			w.t.Fatalf("stops %s before %s", c.ID, o.ID)
		}
	}
}

// carry does an effect; a hook that fails is a reason for a restart.
func (w *world) carry(i int, how func(int)) {
	if h, ok := w.pending[i].(RunHook); ok {
		w.sick[h.ContainerID] = true
	}
	how(i)
}

func (w *world) pick(n int, what string) int { return rapid.IntRange(0, n-1).Draw(w.t, what) }

func (w *world) act() {
	switch rapid.SampledFrom([]string{"put", "put", "withheld", "remove volume", "all", "all", "all", "stop", "drop", "work", "work", "work", "work", "fail", "fail unsaid", "crash", "unseen", "probe", "probe",
		"time", "time", "time", "grant", "grant", "grant", "refuse", "backwards", "lose", "late", "suspend", "unguarded", "agent", "containerd", "connect", "disconnect", "reboot", "incarnation", "vanish"}).Draw(w.t, "act") {
	case "put":
		w.put()
	case "withheld":
		w.withheld = !w.withheld
	case "remove volume":
		w.removeVolume()
	case "stop":
		if k, ok := w.someAssigned(); ok {
			a := w.assigned[k]
			a.Stopping = true
			w.assigned[k] = a
			w.unwanted[k] = true
			w.forbid(k)
			w.send(wire.AssignmentSet{Put: []wire.Assignment{a}})
		}
	case "drop":
		if k, ok := w.someAssigned(); ok {
			delete(w.assigned, k)
			w.unwanted[k] = true
			w.forbid(k)
			w.send(wire.AssignmentSet{Drop: []api.ReplicaKey{k}})
		}
	case "work":
		if len(w.pending) > 0 {
			w.carryOut(w.pick(len(w.pending), "which"), false)
		}
	case "all": // what is wanted is done, and what is asked is answered, at once
		for len(w.pending) > 0 {
			w.carryOut(0, false)
		}
		for len(w.renewals) > 0 {
			w.grant(0, w.grantable)
		}
	case "fail":
		if len(w.pending) > 0 {
			w.carry(w.pick(len(w.pending), "which"), func(i int) { w.carryOut(i, true) })
		}
	case "fail unsaid": // what fails has been done
		if len(w.pending) > 0 {
			w.carry(w.pick(len(w.pending), "which"), w.carryOutBut)
		}
	case "crash", "unseen":
		if c := w.someContainer(); c != nil && c.Running {
			w.end(c, api.Exit{Code: w.pick(2, "code"), Reason: api.ExitError})
			if rapid.Bool().Draw(w.t, "seen") {
				w.step(Exited{ContainerID: c.ID, Exit: *c.Exit})
			}
		}
	case "vanish":
		if c := w.someContainer(); c != nil {
			w.robbed[c.Replica] = true
			delete(w.containers, c.ID)
		}
	case "probe":
		w.probe()
	case "time":
		w.now = w.now.Add(time.Duration(rapid.SampledFrom([]int{1, 20, 150, 800, 2000, 2000, 7000, 61000}).Draw(w.t, "ms")) * time.Millisecond)
		if rapid.Bool().Draw(w.t, "tick first") {
			w.step(Tick{})
		}
		w.watchdogs()
		w.step(Tick{})
	case "suspend":
		w.suspend(time.Duration(rapid.SampledFrom([]int{1, 10, 100}).Draw(w.t, "s")) * time.Second)
		w.watchdogs()
	case "unguarded":
		if c := w.someContainer(); c != nil && c.Running && w.pick(3, "rare") == 0 {
			if _, ok := w.model.watchdogs[c.ID]; ok {
				c.Unguarded = true
				delete(w.model.watchdogs, c.ID)
				if rapid.Bool().Draw(w.t, "seen") {
					w.step(Unguarded{ContainerID: c.ID})
				}
			}
		}
	case "grant":
		if len(w.renewals) > 0 {
			w.grant(w.pick(len(w.renewals), "which"), w.grantable)
		}
	case "refuse":
		if len(w.renewals) > 0 {
			w.grant(w.pick(len(w.renewals), "which"), func(k api.ReplicaKey) bool { return w.grantable(k) && w.pick(2, "refuse") == 0 })
		}
	case "backwards": // the latest renewal is answered first
		for range 2 {
			w.now = w.now.Add(renewMax)
			w.step(Tick{})
		}
		w.watchdogs()
		for len(w.renewals) > 0 {
			w.grant(len(w.renewals)-1, w.grantable)
		}
	case "lose":
		if len(w.renewals) > 0 {
			w.renewals = w.renewals[1:]
		}
	case "late":
		if len(w.late) > 0 {
			w.step(w.late[w.pick(len(w.late), "which")])
		}
	case "agent":
		w.begin()
	case "containerd":
		w.step(RuntimeBack{})
	case "connect":
		w.join()
	case "disconnect":
		w.connected = false
		w.hangUp()
		w.step(Disconnected{})
	case "reboot":
		w.reboot()
		w.begin()
	case "incarnation":
		if w.pick(10, "rare") == 0 {
			w.incarnation += "I"
			w.revision = 1
			w.connected = false
			w.hangUp()
			w.step(Disconnected{})
		}
	}
	names := map[string]string{}
	for _, id := range slices.Sorted(maps.Keys(w.containers)) {
		if c := w.containers[id]; c.Running {
			name := c.Replica.String() + " " + c.Name
			if names[name] != "" {
				w.t.Fatalf("%s and %s run beside each other", names[name], id)
			}
			names[name] = id
		}
	}
	w.leases()
}

// leases must be in the core as the leader gave them, and what they forbid must
// not run without an order to stop it.
func (w *world) leases() {
	for k, r := range w.core.replicas {
		if !r.leased() {
			continue
		}
		if r.lease.Term != w.terms[r] || (r.lease.known() && r.lease.until.Sub(w.now) != r.lease.Term-w.bootTime()) {
			w.t.Fatalf("%s has a lease until %s (%s from now), given was %s, now is %s", k, r.lease.Term, r.lease.until.Sub(w.now), w.terms[r], w.bootTime())
		}
		if r.going || r.gone {
			continue
		}
		for _, x := range r.runs {
			if x.state == running && r.lease.known() && w.bootTime() >= r.lease.Term && !x.failing.waiting(w.now) {
				w.t.Fatalf("%s runs, its lease ended at %s, now is %s", x.id, r.lease.Term, w.bootTime())
			}
			if x.state == running && r.lease.Term != x.lease.Term && r.lease.holds(w.now) && !x.unguarded && x.lapsed == "" { // else a stop has failed
				w.t.Fatalf("the watchdog of %s knows of %s, the lease ends at %s", x.id, x.lease.Term, r.lease.Term)
			}
			if x.lastExit != nil && x.lastExit.Reason == api.ReasonLeaseLost && !x.nextStart.IsZero() {
				w.t.Fatalf("%s waits until %s after it lost its lease", x.what(), x.nextStart)
			}
		}
		if w.connected && !r.held && r.phase != api.PhaseFailed && (!r.asked || w.core.renewAt.Sub(w.now) > r.renewEvery()) {
			w.t.Fatalf("%s: renewed %t, the next time in %s, wanted every %s", k, r.asked, w.core.renewAt.Sub(w.now), r.renewEvery())
		}
	}
	for id, c := range w.containers {
		if l, ok := w.model.watchdogs[id]; ok && c.Running && w.bootTime() >= l.Kill {
			w.t.Fatalf("%s is left alive", id)
		}
	}
}

// hangUp: nobody answers what this session was asked, but an answer may still
// be on its way.
func (w *world) hangUp() {
	for _, r := range w.renewals {
		g := Granted{SentAt: r.at, Grant: wire.Grant{ID: r.ID}}
		for _, k := range r.Keys {
			g.Grant.Leases = append(g.Grant.Leases, wire.Lease{Key: k, For: time.Hour})
		}
		w.late = append(w.late, g)
	}
	w.renewals = nil
}

// grant answers and keeps what the core must have of it.
func (w *world) grant(i int, rule func(api.ReplicaKey) bool) {
	sent := w.renewals[i]
	granted := map[api.ReplicaKey]bool{}
	for _, r := range w.asked[sent.ID] {
		if !rule(r.key) {
			continue
		}
		granted[r.key] = true
		last := w.assigned[r.key].Template.Lease()
		term := sent.at + last - api.LeaseDrift(last) - api.LeaseKill - r.grace()
		if w.core.replicas[r.key] == r && r.renewable() && term > w.bootTime() {
			w.terms[r] = max(w.terms[r], term)
		}
	}
	w.answer(i, func(k api.ReplicaKey) bool { return granted[k] })
}

// watchdogs act; the agent sees it or not.
func (w *world) watchdogs() {
	for _, c := range w.watchdogsAct(func(string) bool { return rapid.Bool().Draw(w.t, "obeys") }) {
		if rapid.Bool().Draw(w.t, "seen") {
			w.step(Exited{ContainerID: c.ID, Exit: *c.Exit})
		}
	}
}

// forbid: from the moment that a session tells it, the core must not start it.
func (w *world) forbid(k api.ReplicaKey) {
	if w.connected {
		delete(w.allowed, k)
	}
}

func (w *world) join() {
	w.allowed = map[api.ReplicaKey]wire.Assignment{}
	for k, a := range w.assigned {
		if !a.Stopping {
			w.allowed[k] = a
		}
	}
	w.hangUp()
	w.connect()
}

func (w *world) put() {
	w.epoch++
	a := wire.Assignment{Key: api.ReplicaKey{Namespace: "default", Service: "web", Slot: w.pick(4, "slot"), Epoch: w.epoch}, Revision: 1}
	main := api.Container{Name: "main", Image: "web:1"}
	if rapid.Bool().Draw(w.t, "probes") {
		p := &api.Probe{TCP: &api.TCPProbe{Port: "80"}, FailureThreshold: 1}
		main.ReadinessProbe, main.LivenessProbe = p, p
	}
	w.takeValues(&a, &main)
	a.Template = &api.Template{Containers: []api.Container{main}}
	lease, grace := api.Duration(30*time.Second), api.Duration(0)
	switch w.pick(4, "leased") {
	case 0:
		a.Template.Exclusive, a.Template.LeaseDuration = true, &lease
	case 1:
		lease = api.Duration(9 * time.Second)
		a.Template.OnPartition, a.Template.LeaseDuration, a.Template.TerminationGracePeriod = api.PartitionStop, &lease, &grace
	}
	if rapid.Bool().Draw(w.t, "two") {
		a.Template.Containers = append(a.Template.Containers, api.Container{Name: "side", Image: "side:1"})
	}
	if w.pick(4, "ends for good") == 0 {
		a.Template.RestartPolicy.Condition = rapid.SampledFrom([]api.RestartCondition{api.RestartNever, api.RestartOnFailure}).Draw(w.t, "restart")
	}
	if rapid.Bool().Draw(w.t, "more") {
		w.enrich(a.Template)
	}
	w.assigned[a.Key] = a
	if w.connected {
		w.allowed[a.Key] = a
	}
	w.send(wire.AssignmentSet{Put: []wire.Assignment{a}})
}

// takeValues gives a container Configs, Secrets and a volume.
func (w *world) takeValues(a *wire.Assignment, main *api.Container) {
	a.Configs = map[api.ConfigRef]int64{}
	if w.pick(3, "config") == 0 {
		a.Configs["config/app"] = int64(w.pick(3, "version"))
		main.EnvFrom = []api.EnvFrom{{Config: "app"}}
	}
	if w.pick(3, "secret") == 0 {
		a.Configs["secret/db"] = int64(w.pick(3, "version"))
		main.Mounts = append(main.Mounts, api.Mount{Path: "/db", Secret: "db"})
	}
	if v := volumeOf(a.Key); w.pick(3, "volume") == 0 && !w.removing[v] {
		main.Mounts = append(main.Mounts, api.Mount{Path: "/data", Volume: v.Volume})
	}
}

func volumeOf(k api.ReplicaKey) api.VolumeKey {
	return api.VolumeKey{Namespace: k.Namespace, Service: k.Service, Slot: k.Slot, Volume: "data"}
}

// removeVolume: somebody wants a slot's volume gone. Where replicas of the slot are here,
// the node was dead meanwhile, and they have lost their place.
func (w *world) removeVolume() {
	v := volumeOf(api.ReplicaKey{Namespace: "default", Service: "web", Slot: w.pick(4, "slot")})
	set := wire.AssignmentSet{RemoveVolumes: []api.VolumeKey{v}}
	for _, k := range slices.SortedFunc(maps.Keys(w.assigned), compareKeys) {
		if k.Slot == v.Slot {
			delete(w.assigned, k)
			w.unwanted[k] = true
			w.forbid(k)
			set.Drop = append(set.Drop, k)
		}
	}
	w.removing[v] = true
	w.send(set)
}

// enrich gives a template what starts before its containers and runs beside them.
func (w *world) enrich(t *api.Template) {
	for i := range w.pick(3, "inits") {
		t.InitContainers = append(t.InitContainers, api.Container{Name: fmt.Sprintf("init%d", i+1), Image: "init:1"})
	}
	for i := range w.pick(3, "sidecars") {
		c := api.Container{Name: fmt.Sprintf("proxy%d", i+1), Image: "proxy:1"}
		if rapid.Bool().Draw(w.t, "startup") {
			c.StartupProbe = &api.Probe{TCP: &api.TCPProbe{Port: "80"}, FailureThreshold: 1}
		}
		t.Sidecars = append(t.Sidecars, c)
	}
	hook := &api.Hook{Exec: &api.ExecProbe{Command: []string{"x"}}}
	main := &t.Containers[0]
	switch w.pick(4, "hooks") {
	case 0:
		main.Lifecycle = &api.Lifecycle{PostStart: hook, PreStop: hook}
	case 1:
		main.Lifecycle = &api.Lifecycle{PreStop: hook}
	case 2:
		main.StartupProbe = &api.Probe{TCP: &api.TCPProbe{Port: "80"}, FailureThreshold: 1}
	}
}

func (w *world) probe() {
	keys := slices.Sorted(maps.Keys(w.probes))
	if len(keys) == 0 {
		return
	}
	p := w.probes[keys[w.pick(len(keys), "probe")]]
	ok := w.pick(3, "answer") > 0
	if !ok && p.Kind != Readiness {
		w.sick[p.ContainerID] = true
	}
	w.step(Probed{ContainerID: p.ContainerID, Kind: p.Kind, OK: ok, Message: "no"})
}

func (w *world) someAssigned() (api.ReplicaKey, bool) {
	keys := slices.SortedFunc(maps.Keys(w.assigned), compareKeys)
	if len(keys) == 0 {
		return api.ReplicaKey{}, false
	}
	return keys[w.pick(len(keys), "replica")], true
}

func (w *world) someContainer() *Container {
	ids := slices.Sorted(maps.Keys(w.containers))
	if len(ids) == 0 {
		return nil
	}
	return w.containers[ids[w.pick(len(ids), "container")]]
}

// TestAnything treats an agent to whatever may happen to it, and then, left in
// peace, it must come to rest with exactly what is assigned.
func TestAnything(t *testing.T) { rapid.Check(t, anything) }

// FuzzAnything lets the fuzzer choose what happens.
func FuzzAnything(f *testing.F) { f.Fuzz(rapid.MakeFuzz(anything)) }

func anything(t *rapid.T) {
	w := newWorld(t)
	if rapid.Bool().Draw(t, "busy") { // else it takes many steps until anything runs
		for range 3 {
			w.put()
		}
		w.join()
		w.settle()
	}
	for range rapid.IntRange(1, 120).Draw(t, "steps") {
		w.act()
	}
	w.withheld = false
	w.join()
	// What was seen by nobody is found by the next full looks.
	for range 4 {
		w.settle()
		w.now = w.core.observeAt
		w.step(Tick{})
	}
	w.settle()
	w.atRest()
	rest := fmt.Sprint(w.containers, w.networks, w.told)
	for range 2 {
		w.step(RuntimeBack{})
		w.settle()
	}
	if got := fmt.Sprint(w.containers, w.networks, w.told); got != rest {
		t.Fatalf("planning what was carried out changed something:\n%s\n%s", rest, got)
	}
}

// over tells whether a replica has ended for good, as it may.
func (w *world) over(a wire.Assignment) bool {
	s := w.told[a.Key].Status
	if !s.Phase.Ended() {
		return false
	}
	if a.Template.RestartPolicy.Condition == "" {
		w.t.Fatalf("%s is %s, though its containers are always restarted", a.Key, s.Phase)
	}
	good := true
	for _, c := range a.Template.Containers {
		i := slices.IndexFunc(s.Containers, func(cs api.ContainerStatus) bool { return cs.Name == c.Name })
		good = good && i >= 0 && s.Containers[i].LastExit != nil && s.Containers[i].LastExit.Code == 0
	}
	if good && s.Phase != api.PhaseStopped || !good && s.Phase != api.PhaseFailed {
		w.t.Fatalf("%s is %s, its containers ended well: %t: %+v", a.Key, s.Phase, good, s.Containers)
	}
	return true
}

// orphanInSlot tells whether what another incarnation left running keeps a replica from its
// volume.
func (w *world) orphanInSlot(a wire.Assignment) bool {
	if len(a.Template.Volumes()) == 0 {
		return false
	}
	for _, c := range w.containers {
		if _, assigned := w.assigned[c.Replica]; c.Running && !assigned && slotOfReplica(c.Replica) == slotOfReplica(a.Key) {
			return true
		}
	}
	return false
}

func (w *world) atRest() {
	runs := map[string]bool{}
	held := map[api.ReplicaKey]bool{}
	orphans := 0
	for id, c := range w.containers {
		held[c.Replica] = true
		a, ok := w.assigned[c.Replica]
		switch {
		case ok && !a.Stopping:
			if w.over(a) {
				if c.Running {
					w.t.Fatalf("%s runs at rest, and its replica has ended", id)
				}
				continue
			}
			if c.Running == isInit(c.Name) && (c.Running || a.Template.RestartPolicy.Condition == "") {
				w.t.Fatalf("%s: running %t at rest", id, c.Running)
			}
			runs[c.Replica.String()+c.Name] = true
		case c.Incarnation == w.incarnation:
			w.t.Fatalf("%s is left and nobody wants it", id)
		default:
			orphans++
		}
	}
	for k, a := range w.assigned {
		if a.Stopping {
			w.t.Fatalf("%s was to be stopped and is not gone", k)
		}
		if w.over(a) || w.orphanInSlot(a) {
			continue
		}
		for _, c := range a.Template.InitContainers {
			if !w.initDone[doneKey(k, c.Name)] {
				w.t.Fatalf("%s %s has not done its work at rest", k, c.Name)
			}
		}
		for _, c := range a.Template.LongRunning() {
			// One of several may have ended for good.
			if !runs[k.String()+c.Name] && a.Template.RestartPolicy.Condition == "" {
				w.t.Fatalf("%s %s does not run at rest; told %+v", k, c.Name, w.told[k])
			}
		}
		if r := w.told[k]; a.Template.RestartPolicy.Condition == "" && !r.Status.Ready || r.Status.Phase != api.PhaseRunning {
			w.t.Fatalf("%s is told as %+v at rest", k, r)
		}
	}
	if len(w.told) != len(w.assigned) || len(w.orphans) != orphans {
		w.t.Fatalf("told %d replicas and %d orphans, there are %d and %d", len(w.told), len(w.orphans), len(w.assigned), orphans)
	}
	for v := range w.removing {
		if !slices.ContainsFunc(slices.Collect(maps.Values(w.containers)), func(c *Container) bool { return slotOfReplica(c.Replica) == slotOf(v) }) {
			w.t.Fatalf("%s was to be removed and is not said to be gone", v)
		}
	}
	for k := range w.networks {
		if _, ok := w.assigned[k]; !ok && !held[k] {
			w.t.Fatalf("network of %s is left", k)
		}
	}
}

// TestSameInSameOut: the same events give the same effects, whatever the order
// of maps.
func TestSameInSameOut(t *testing.T) {
	play := func() string {
		m, log := newModel(), ""
		m.watch = func(e Effect) {
			js, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			log += fmt.Sprintf("%T %s\n", e, js)
		}
		m.start()
		m.settle()
		m.connect()
		for i := range 20 {
			k := api.ReplicaKey{Namespace: "default", Service: fmt.Sprintf("s%d", i%7), Slot: i, Epoch: uint64(i)}
			m.assigned[k] = wire.Assignment{Key: k, Revision: 1, Template: &api.Template{Exclusive: i%3 == 0, Containers: []api.Container{{Name: "main", Image: "a"}},
				InitContainers: several(t, fmt.Sprint(i%3), "init", "b"), Sidecars: several(t, fmt.Sprint(i%2), "proxy", "c")}, Labels: map[string]string{"a": "b", "c": "d"}}
			m.send(wire.AssignmentSet{Put: []wire.Assignment{m.assigned[k]}})
		}
		m.settle()
		m.suspend(time.Minute)
		m.settle()
		m.start()
		m.settle()
		return log
	}
	first := play()
	for range 5 {
		if play() != first {
			t.Fatal("two runs differ")
		}
	}
}

// TestAtOnce: limits hold, and what waits for room gets it.
func TestAtOnce(t *testing.T) {
	m := newModel()
	most := map[string]int{}
	m.watch = func(Effect) {
		now := map[string]int{}
		for _, p := range m.pending {
			now[fmt.Sprintf("%T", p)]++
		}
		for k, n := range now {
			most[k] = max(most[k], n)
		}
	}
	m.start()
	m.settle()
	m.connect()
	for i := range 50 {
		k := api.ReplicaKey{Namespace: "default", Service: "web", Slot: i, Epoch: uint64(i)}
		m.assigned[k] = wire.Assignment{Key: k, Revision: 1, Template: &api.Template{Containers: []api.Container{{Name: "main", Image: "web:1"}}}}
	}
	m.send(wire.AssignmentSet{Put: m.all()})
	m.settle()
	if len(m.containers) != 50 {
		t.Errorf("%d containers run, want 50", len(m.containers))
	}
	if most["plan.StartContainer"] > startsAtOnceMax || most["plan.SetupNetwork"] > networksAtOnceMax {
		t.Errorf("at once: %v", most)
	}
	if most["plan.EnsureImage"] != 1 {
		t.Errorf("one image was asked for %d times at once", most["plan.EnsureImage"])
	}
}
