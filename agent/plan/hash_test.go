package plan

import (
	"encoding/json"
	"testing"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// before is a container as manifests could have it when there were no init containers,
// hooks and pinned images yet, and beforeHash the hash that its containers were given
// by the agents of that time: those that run must be adopted, not restarted.
const (
	before = `{"name":"main","image":"shop/web:1.0","command":["/web"],"args":["-v"],"env":[{"name":"LOG","value":"debug"},{"name":"EMPTY"}],"workingDir":"/srv",
"ports":[{"name":"http","port":8080,"publish":80},{"port":53,"protocol":"UDP"}],
"resources":{"requests":{"cpu":"250m","memory":"64Mi"},"limits":{"memory":"128Mi","pids":"100"}},
"readinessProbe":{"http":{"path":"/ready","port":"http"},"initialDelay":"1s","interval":"2s","timeout":"500ms","failureThreshold":2,"successThreshold":3},
"livenessProbe":{"exec":{"command":["/check"]},"interval":"10s"}}`
	beforeHash = "74d52e5e40894c7971c681d8"
)

func TestHashOfBefore(t *testing.T) {
	var spec api.Container
	if err := json.Unmarshal([]byte(before), &spec); err != nil {
		t.Fatal(err)
	}
	r := newReplica(wire.Assignment{Template: &api.Template{Containers: []api.Container{spec}}})
	if got := r.runs[0].hash; got != beforeHash {
		t.Errorf("hash %s, want %s: an upgrade of the agent would restart every container", got, beforeHash)
	}
}
