package core

import (
	"testing"
	"time"

	"github.com/orchctl/orch/api"
)

// The tests of this file hold bugs that the simulator found.

// A service that never becomes ready may not keep a node from being itself again:
// a node that is back takes no new replicas.
func TestReturnDoesNotWaitForWhatIsNeverReady(t *testing.T) {
	f := threeNodes(t)
	for _, a := range f.agents {
		a.unready["web-0"], a.unready["web-1"], a.unready["web-2"] = true, true, true
	}
	f.apply("1", web(3, "a:1"))
	f.silence("n2")
	f.pass(time.Second)
	f.node("n2", "boot1")
	f.pass(time.Second)
	if v := f.core.nodes["n2"].verdict; v != api.VerdictHealthy {
		t.Errorf("n2 is %s", v)
	}
}
