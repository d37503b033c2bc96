package orchctl

import (
	"testing"

	"github.com/orchctl/orch/api"
)

// TestPulls: of pulls the one furthest behind is told, and again only when it is
// noticeably further.
func TestPulls(t *testing.T) {
	two := 2
	x := &track{key: api.Key{Namespace: "default", Name: "web"}, service: &api.Service{Spec: api.ServiceSpec{Replicas: &two}, Status: api.ServiceStatus{Revision: 1}}, replicas: map[string]*api.Replica{}}
	pulling := func(slot int, name, message string) {
		r := &api.Replica{Metadata: api.Metadata{Name: name}, Spec: api.ReplicaSpec{Service: "web", Slot: slot, Revision: 1, Node: "n1"},
			Status: api.ReplicaStatus{Phase: api.PhasePreparing, Reason: api.ReasonPulling, Message: message}}
		x.replicas[name] = r
	}
	for _, step := range []struct{ a, b, want string }{
		{"pulling web:1", "pulling web:1", ""},
		{"pulling web:1: 30 of 48 MiB", "pulling web:1: 2 of 48 MiB", " (web-1 on n1: 2 of 48 MiB)"},
		{"pulling web:1: 40 of 48 MiB", "pulling web:1: 9 of 48 MiB", " (web-1 on n1: 2 of 48 MiB)"},
		{"pulling web:1: 40 of 48 MiB", "pulling web:1: 12 of 48 MiB", " (web-1 on n1: 12 of 48 MiB)"},
		{"pulling web:1: 40 of 48 MiB", "pulling web:1: unpacking 48 MiB", " (web-0 on n1: 40 of 48 MiB)"},
	} {
		pulling(0, "web-0", step.a)
		pulling(1, "web-1", step.b)
		if got := x.pulls(); got != step.want {
			t.Errorf("%q and %q: %q, want %q", step.a, step.b, got, step.want)
		}
	}
}
