package plan

import (
	"reflect"
	"testing"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// Whoever watches the node is told what it has, and whether it was ever told all.
func TestTally(t *testing.T) {
	m := newModel()
	m.start()
	if got := m.core.Tally(); got.Taken || got.Connected || len(got.Replicas) > 0 {
		t.Errorf("before a session: %+v", got)
	}
	m.connect()
	k := api.ReplicaKey{Namespace: "default", Service: "web", Epoch: 1}
	a := wire.Assignment{Key: k, Revision: 1, Template: &api.Template{Containers: []api.Container{{Name: "main", Image: "web:1"}}}}
	m.assigned[k] = a
	m.send(wire.AssignmentSet{Put: []wire.Assignment{a}})
	want := Tally{Replicas: map[api.Phase]int{api.PhaseAssigned: 1}, Containers: map[api.ContainerState]int{api.ContainerWaiting: 1}, Connected: true, Whole: true, Taken: true}
	if got := m.core.Tally(); !reflect.DeepEqual(got, want) {
		t.Errorf("with a replica that is prepared: %+v\nwant %+v", got, want)
	}
	m.settle()
	want.Replicas, want.Containers = map[api.Phase]int{api.PhaseRunning: 1}, map[api.ContainerState]int{api.ContainerRunning: 1}
	if got := m.core.Tally(); !reflect.DeepEqual(got, want) {
		t.Errorf("with a replica that runs: %+v\nwant %+v", got, want)
	}
	m.step(Disconnected{})
	want.Connected, want.Whole = false, false
	if got := m.core.Tally(); !reflect.DeepEqual(got, want) {
		t.Errorf("without a session: %+v\nwant %+v", got, want)
	}
}
