package plan

import (
	"fmt"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// TestPreStopHasRoom: postStart hooks that hang, as many as may run, hold up no stop.
func TestPreStopHasRoom(t *testing.T) {
	day := api.Duration(24 * time.Hour)
	hang := &api.Hook{Exec: &api.ExecProbe{Command: []string{"hang"}}, Timeout: &day}
	m := newModel()
	m.start()
	m.connect()
	put := func(slot int, l *api.Lifecycle) api.ReplicaKey {
		k := api.ReplicaKey{Namespace: "default", Service: "web", Slot: slot, Epoch: 1}
		a := wire.Assignment{Key: k, Revision: 1, Template: &api.Template{Containers: []api.Container{{Name: "main", Image: "web:1", Lifecycle: l}}}}
		m.assigned[k] = a
		m.send(wire.AssignmentSet{Put: []wire.Assignment{a}})
		for i := 0; i < len(m.pending); {
			if h, ok := m.pending[i].(RunHook); ok && h.Timeout > time.Hour {
				i++ // it hangs
			} else {
				m.carryOut(i, false)
			}
		}
		return k
	}
	for i := range hooksAtOnceMax + 1 {
		put(i, &api.Lifecycle{PostStart: hang})
	}
	if len(m.pending) != hooksAtOnceMax {
		t.Fatalf("%d hooks are under way, want %d", len(m.pending), hooksAtOnceMax)
	}
	k := put(hooksAtOnceMax+1, &api.Lifecycle{PreStop: &api.Hook{Exec: hang.Exec}})
	delete(m.assigned, k)
	m.send(wire.AssignmentSet{Drop: []api.ReplicaKey{k}})
	if h, ok := m.pending[len(m.pending)-1].(RunHook); !ok || h.ContainerID != shortID(k, "main")+"#0" {
		t.Errorf("no preStop hook but %s", fmt.Sprintf("%#v", m.pending[len(m.pending)-1]))
	}
}

// TestHookIsRunAgain: a runtime that said of a container which runs that it does not
// is asked again; the container would never be ready.
func TestHookIsRunAgain(t *testing.T) {
	k := api.ReplicaKey{Namespace: "default", Service: "web", Slot: 0, Epoch: 1}
	m := newModel()
	m.start()
	m.connect()
	m.assigned[k] = wire.Assignment{Key: k, Revision: 1, Template: &api.Template{Containers: []api.Container{
		{Name: "main", Image: "web:1", Lifecycle: &api.Lifecycle{PostStart: &api.Hook{Exec: &api.ExecProbe{Command: []string{"warm"}}}}}}}}
	m.send(wire.AssignmentSet{Put: m.all()})
	hook := func() (id uint64) {
		for i := 0; i < len(m.pending); {
			if h, ok := m.pending[i].(RunHook); ok {
				id = h.ID
				i++
			} else {
				m.carryOut(i, false)
			}
		}
		m.pending = nil
		return id
	}
	for range 2 {
		id := hook()
		if id == 0 {
			t.Fatal("no hook")
		}
		m.step(Done{ID: id, Failure: &Failure{Reason: NotRunning, Message: "it does not run"}})
	}
	id := hook()
	m.step(Done{ID: id})
	m.settle()
	if r := m.told[k]; !r.Status.Ready || r.Status.Restarts != 0 {
		t.Errorf("%+v", r.Status)
	}
}

// TestUnguardedIsNotLeft: a container whose watchdog dies during its preStop hook is
// told to end at once, for it might outlive its lease; the hook's end comes too late.
func TestUnguardedIsNotLeft(t *testing.T) {
	k := api.ReplicaKey{Namespace: "default", Service: "web", Slot: 0, Epoch: 1}
	m := newModel()
	m.start()
	m.connect()
	m.assigned[k] = wire.Assignment{Key: k, Revision: 1, Template: &api.Template{Exclusive: true, Containers: []api.Container{
		{Name: "main", Image: "web:1", Lifecycle: &api.Lifecycle{PreStop: &api.Hook{Exec: &api.ExecProbe{Command: []string{"drain"}}}}}}}}
	m.send(wire.AssignmentSet{Put: m.all()})
	m.settle()
	delete(m.assigned, k)
	m.send(wire.AssignmentSet{Drop: []api.ReplicaKey{k}})
	hook, ok := m.pending[0].(RunHook)
	if !ok {
		t.Fatalf("no hook: %#v", m.pending)
	}
	m.step(Unguarded{ContainerID: hook.ContainerID})
	if stop, ok := m.pending[1].(StopContainer); len(m.pending) != 2 || !ok || stop.ContainerID != hook.ContainerID {
		t.Fatalf("%#v", m.pending)
	}
	m.step(Done{ID: hook.ID})
	m.carryOut(1, false)
	m.pending = m.pending[1:]
	m.settle()
	if len(m.containers) != 0 || len(m.core.replicas) != 0 {
		t.Errorf("left: %v", m.containers)
	}
}
