package core

import (
	"testing"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// An agent that says "gone" of what it was not told to stop changes nothing that is
// wanted: it keeps its placement and its epoch, and the agent makes it anew.
func TestGoneOfWhatIsWantedIsNoEnd(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(3, "a:1"))
	a := f.agents["n1"]
	var key api.ReplicaKey
	for key = range a.holds {
	}
	f.step(Status{Node: "n1", Session: a.session, Report: wire.StatusReport{Gone: []api.ReplicaKey{key}}})
	f.turn()
	if _, ok := f.kv[placementKey(key)]; !ok {
		t.Errorf("%s lost its placement", key)
	}
	if len(f.core.fillings) != 3 {
		t.Errorf("%d fillings, want 3", len(f.core.fillings))
	}
}
