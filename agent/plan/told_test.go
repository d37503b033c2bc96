package plan

import (
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
