package plan

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
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
}

func newWorld(t *rapid.T) *world {
	w := &world{model: newModel(), t: t, unwanted: map[api.ReplicaKey]bool{}, sick: map[string]bool{}}
	w.model.watch = w.check
	w.begin()
	return w
}

func (w *world) begin() {
	w.allowed = map[api.ReplicaKey]wire.Assignment{}
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
	case StartContainer:
		if _, ok := w.allowed[e.Replica]; !ok {
			w.t.Fatalf("starts %s, which is not assigned", e.Replica)
		}
		for _, c := range w.containers {
			if c.Replica == e.Replica && c.Name == e.Container.Name && c.Running {
				w.t.Fatalf("starts %s %s beside %s", e.Replica, e.Container.Name, c.ID)
			}
		}
		for _, p := range w.pending {
			if s, ok := p.(StartContainer); ok && s.Replica == e.Replica && s.Container.Name == e.Container.Name {
				w.t.Fatalf("starts %s %s twice", e.Replica, e.Container.Name)
			}
		}
	case StopContainer:
		c := w.containers[e.ContainerID]
		if c == nil || !c.Running || w.sick[c.ID] {
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
		for _, r := range e.Report.Replicas {
			if r.Status.Ready && r.Status.Phase != api.PhaseRunning {
				w.t.Fatalf("%s is ready in phase %s", r.Key, r.Status.Phase)
			}
			if old, ok := w.told[r.Key]; ok && !e.Report.Complete && r.Status.Phase.Before(old.Status.Phase) {
				w.t.Fatalf("%s goes back from %s to %s", r.Key, old.Status.Phase, r.Status.Phase)
			}
		}
	}
}

func (w *world) pick(n int, what string) int { return rapid.IntRange(0, n-1).Draw(w.t, what) }

func (w *world) act() {
	switch rapid.SampledFrom([]string{"put", "put", "stop", "drop", "work", "work", "work", "work", "fail", "crash", "unseen", "probe", "probe",
		"time", "time", "agent", "containerd", "connect", "disconnect", "reboot", "incarnation", "vanish"}).Draw(w.t, "act") {
	case "put":
		w.put()
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
	case "fail":
		if len(w.pending) > 0 {
			w.carryOut(w.pick(len(w.pending), "which"), true)
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
			delete(w.containers, c.ID)
		}
	case "probe":
		w.probe()
	case "time":
		w.now = w.now.Add(time.Duration(rapid.SampledFrom([]int{1, 20, 150, 1000, 5000, 61000}).Draw(w.t, "ms")) * time.Millisecond)
		w.step(Tick{})
	case "agent":
		w.begin()
	case "containerd":
		w.step(RuntimeBack{})
	case "connect":
		w.join()
	case "disconnect":
		w.connected = false
		w.step(Disconnected{})
	case "reboot":
		w.reboot()
		w.begin()
	case "incarnation":
		if w.pick(10, "rare") == 0 {
			w.incarnation += "I"
			w.revision = 1
			w.connected = false
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
	a.Template = &api.Template{Containers: []api.Container{main}}
	if rapid.Bool().Draw(w.t, "two") {
		a.Template.Containers = append(a.Template.Containers, api.Container{Name: "side", Image: "side:1"})
	}
	w.assigned[a.Key] = a
	if w.connected {
		w.allowed[a.Key] = a
	}
	w.send(wire.AssignmentSet{Put: []wire.Assignment{a}})
}

func (w *world) probe() {
	keys := slices.Sorted(maps.Keys(w.probes))
	if len(keys) == 0 {
		return
	}
	p := w.probes[keys[w.pick(len(keys), "probe")]]
	ok := w.pick(3, "answer") > 0
	if !ok && p.Kind == Liveness {
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
func TestAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			w.act()
		}
		w.join()
		// What was seen by nobody is found by the next full looks.
		for range 4 {
			w.settle()
			w.now = w.now.Add(observeEvery)
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
	})
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
			if !c.Running {
				w.t.Fatalf("%s does not run at rest", id)
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
		for _, c := range a.Template.Containers {
			if !runs[k.String()+c.Name] {
				w.t.Fatalf("%s %s does not run at rest; told %+v", k, c.Name, w.told[k])
			}
		}
		if r := w.told[k]; !r.Status.Ready || r.Status.Phase != api.PhaseRunning {
			w.t.Fatalf("%s is told as %+v at rest", k, r)
		}
	}
	if len(w.told) != len(w.assigned) || len(w.orphans) != orphans {
		w.t.Fatalf("told %d replicas and %d orphans, there are %d and %d", len(w.told), len(w.orphans), len(w.assigned), orphans)
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
			m.assigned[k] = wire.Assignment{Key: k, Revision: 1, Template: &api.Template{Containers: []api.Container{{Name: "main", Image: "a"}}}}
			m.send(wire.AssignmentSet{Put: []wire.Assignment{m.assigned[k]}})
		}
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
