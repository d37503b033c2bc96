package plan

import (
	"slices"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// What was stopped as the leader wanted is told as ended until nothing is left of
// it: it does not wait for anything.
func TestStoppedIsNotWaiting(t *testing.T) {
	m := newModel()
	m.start()
	m.connect()
	k := api.ReplicaKey{Namespace: "default", Service: "web", Epoch: 1}
	a := wire.Assignment{Key: k, Revision: 1, Template: &api.Template{Containers: []api.Container{{Name: "main", Image: "web:1"}}}}
	m.assigned[k] = a
	m.send(wire.AssignmentSet{Put: []wire.Assignment{a}})
	m.settle()
	a.Stopping = true
	m.assigned[k] = a
	m.send(wire.AssignmentSet{Put: []wire.Assignment{a}})
	ended := 0
	m.watch = func(e Effect) {
		r, ok := e.(Report)
		if !ok {
			return
		}
		for _, x := range r.Report.Replicas {
			for _, c := range x.Status.Containers {
				if c.State == api.ContainerWaiting {
					t.Errorf("told as waiting: %+v", c)
				}
				if c.State == api.ContainerExited {
					ended++
				}
			}
		}
	}
	for len(m.pending) > 0 {
		if s, ok := m.pending[0].(StopContainer); ok { // its end is heard of before the stop's
			c := m.containers[s.ContainerID]
			m.end(c, api.Exit{Code: 0, Reason: api.ExitCompleted})
			m.step(Exited{ContainerID: c.ID, Exit: *c.Exit})
		}
		m.carryOut(0, false)
		m.now = m.now.Add(time.Second) // so that every step is told
		m.step(Tick{})
	}
	if _, left := m.told[k]; left || ended == 0 {
		t.Errorf("told as ended %d times; left: %t", ended, left)
	}
}

// A leader that falls before it hears that a replica is gone leaves it to the next,
// who hands it over anew: at first the agent is not told to stop it. That it was
// stopped the agent knows, in its next life too, and does not do its work again.
func TestStoppedIsNotStartedByTheNextLeader(t *testing.T) {
	for _, restarts := range []bool{false, true} {
		m := newModel()
		m.start()
		m.connect()
		k := api.ReplicaKey{Namespace: "default", Service: "web", Epoch: 1}
		a := wire.Assignment{Key: k, Revision: 1, Template: &api.Template{Containers: []api.Container{{Name: "main", Image: "web:1"}}}}
		m.assigned[k] = a
		m.send(wire.AssignmentSet{Put: []wire.Assignment{a}})
		m.settle()
		stop := a
		stop.Stopping = true
		m.send(wire.AssignmentSet{Put: []wire.Assignment{stop}})
		m.settle()
		if len(m.containers) != 0 {
			t.Fatalf("containers %v", m.containers)
		}
		if restarts {
			m.start()
		}
		gone := false
		m.watch = func(e Effect) {
			switch e := e.(type) {
			case StartContainer:
				t.Errorf("the agent began a new life: %t: it is started again", restarts)
			case Report:
				gone = gone || slices.Contains(e.Report.Gone, k)
			}
		}
		m.assigned[k] = a // the record is there until a leader hears
		m.connect()
		if m.settle(); !gone || len(m.containers) != 0 {
			t.Errorf("the agent began a new life: %t: said to be gone: %t, containers %v", restarts, gone, m.containers)
		}
		delete(m.assigned, k)
		m.send(wire.AssignmentSet{Drop: []api.ReplicaKey{k}})
		if m.settle(); len(m.core.replicas) != 0 || len(m.saved.Assignments) != 0 {
			t.Errorf("the agent began a new life: %t: known for ever: %v, saved %v", restarts, m.core.replicas, m.saved.Assignments)
		}
	}
}
