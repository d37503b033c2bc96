package plan

import (
	"slices"
	"testing"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// A set of a session that was lost on the way asks for a new session with a complete
// one, and what came after it is not taken up.
func TestGapAsksForACompleteSet(t *testing.T) {
	c := New(Config{BootID: "boot1"})
	c.Step(Started{}, epoch)
	c.Step(Connected{}, epoch)
	key := api.ReplicaKey{Namespace: "default", Service: "web", Slot: 0, Epoch: 1}
	put := func(sequence uint64, complete bool) []Effect {
		return c.Step(Assigned{Incarnation: "i", Set: wire.AssignmentSet{Complete: complete, Sequence: sequence, StoreRevision: int64(sequence),
			Put: []wire.Assignment{{Key: key, Revision: 1, Template: &api.Template{}}}}}, epoch)
	}
	resyncs := func(effects []Effect) bool {
		return slices.ContainsFunc(effects, func(e Effect) bool { _, is := e.(Resync); return is })
	}
	if resyncs(put(1, true)) {
		t.Error("a complete set is no gap")
	}
	key.Epoch = 2
	if resyncs(put(2, false)) || c.replicas[key] == nil {
		t.Error("the next set is no gap")
	}
	key.Epoch = 3
	if !resyncs(put(4, false)) {
		t.Error("set 4 after set 2: no new session is asked for")
	}
	if c.replicas[key] != nil {
		t.Errorf("%s was taken up from behind the gap", key)
	}
}
