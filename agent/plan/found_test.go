package plan

import (
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// TestHeldOverASecondRestart holds a bug that the simulator found: what was
// assigned to another life of the node was started after the agent had saved
// anything in this life and was restarted.
func TestHeldOverASecondRestart(t *testing.T) {
	grace := api.Duration(0)
	template := &api.Template{Containers: []api.Container{{Name: "main", Image: "a:1"}}, TerminationGracePeriod: &grace}
	key := func(slot int) api.ReplicaKey {
		return api.ReplicaKey{Namespace: "default", Service: "web", Slot: slot, Epoch: uint64(slot + 1)}
	}
	disk := &Saved{Incarnation: "i", BootID: "boot1", Assignments: []wire.Assignment{
		{Key: key(0), Revision: 1, Template: template},
		{Key: key(1), Revision: 1, Template: template, Stopping: true},
	}}
	saves := 0
	for life := range 2 {
		c := New(Config{BootID: "boot2", Saved: disk})
		now := time.Date(2026, 11, 1, 12, 0, life, 0, time.UTC)
		todo := c.Step(Started{}, now)
		for len(todo) > 0 {
			e := todo[0]
			todo = todo[1:]
			switch e := e.(type) {
			case Observe:
				todo = append(todo, c.Step(Observed{ID: e.ID}, now)...)
			case TeardownNetwork:
				todo = append(todo, c.Step(Done{ID: e.ID}, now)...)
			case SaveAssignment:
				saves++
				disk = &e.Saved
			case EnsureImage, SetupNetwork, StartContainer:
				t.Fatalf("life %d of the agent: %T before any session", life, e)
			}
		}
	}
	if saves == 0 {
		t.Error("nothing was saved: this tests nothing")
	}
}
