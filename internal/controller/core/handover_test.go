package core

import (
	"testing"

	"github.com/orchctl/orch/api"
)

// handedOver checks that no agent that speaks, and knows this leader's endpoints, leads traffic to what is told to stop.
func (f *fleet) handedOver(k api.ReplicaKey) {
	f.t.Helper()
	for _, a := range f.agents {
		if _, leads := a.ends[k]; leads && a.session != 0 && a.routed == a.session && !a.silent && !a.cut && !a.mute {
			f.t.Errorf("%s is told to stop while %s sends it traffic", k, a.name)
		}
	}
}

var _ = testing.Short
