package agent

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/tracing"
	"github.com/orchctl/orch/internal/tracing/tracetest"
	"github.com/orchctl/orch/internal/wire"
)

// TestArrivalIsTraced: what is done for a replica until it is ready is below one span; what
// comes later is in none, and one that never is ready ends all the same.
func TestArrivalIsTraced(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := tracetest.Serve(l)
	defer c.Stop()
	tracer, err := tracing.New(t.Context(), tracing.Config{Service: "orch-agent", Flags: tracing.Flags{Endpoint: l.Addr().String(), Insecure: true}})
	if err != nil {
		t.Fatal(err)
	}
	x := traces{tracer: tracer, node: "n1", arriving: map[api.ReplicaKey]*arrival{}}
	_, apply := tracer.Begin(t.Context(), "apply")
	key := func(slot int) api.ReplicaKey {
		return api.ReplicaKey{Namespace: "default", Service: "web", Slot: slot, Epoch: 7}
	}
	does := func(e plan.Effect, err error) {
		_, end := x.begin(t.Context(), e)
		end(plan.Done{Failure: failure(err, "CreateError")})
	}
	text := apply.Text()
	does(plan.EnsureImage{Ref: "web:1", Trace: text}, nil)
	does(plan.SetupNetwork{Replica: key(0), Revision: 3, Trace: text}, nil)
	does(plan.StartContainer{Replica: key(0), Revision: 3, Container: api.Container{Name: "main", Image: "web:1"}, Trace: text}, errors.New("no such file"))
	does(plan.StartContainer{Replica: key(0), Revision: 3, Container: api.Container{Name: "main", Image: "web:1"}, Trace: text}, nil)
	does(plan.StopContainer{ContainerID: "x"}, nil)
	does(plan.StartContainer{Replica: key(5), Trace: ""}, nil)
	does(plan.StartContainer{Replica: key(5), Trace: "nonsense"}, nil)
	does(plan.SetupNetwork{Replica: key(1), Trace: text}, nil)
	does(plan.SetupNetwork{Replica: key(2), Trace: text}, nil)
	does(plan.SetupNetwork{Replica: key(3), Trace: text}, nil)
	x.reported(wire.StatusReport{Replicas: []wire.Report{
		{Key: key(0), Status: api.ReplicaStatus{Phase: api.PhaseRunning, Ready: true}}, {Key: key(1), Status: api.ReplicaStatus{Phase: api.PhaseFailed, Message: "exit code 1"}},
		{Key: key(2), Status: api.ReplicaStatus{Phase: api.PhaseRunning}}, {Key: key(5), Status: api.ReplicaStatus{Ready: true}}}})
	if len(x.arriving) != 2 {
		t.Errorf("%d are still arriving", len(x.arriving))
	}
	x.giveUp(time.Now().Add(arrivalMax))
	if x.giveUp(time.Now().Add(arrivalMax + time.Second)); len(x.arriving) != 0 {
		t.Errorf("%d are never given up", len(x.arriving))
	}
	apply.End()
	tracer.Close()
	spans := c.Spans()
	want := `orch-agent: apply
  orch-agent: image
  orch-agent: replica
    orch-agent: network
    orch-agent: start container
    orch-agent: start container
    orch-agent: until ready
  orch-agent: replica
    orch-agent: network
  orch-agent: replica
    orch-agent: network
  orch-agent: replica
    orch-agent: network
`
	if got := tracetest.Tree(spans); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	var failed []string
	for _, s := range spans {
		if s.Error != "" {
			failed = append(failed, s.Name+": "+s.Error)
		}
		if s.Name == "replica" && (s.Attributes["orch.node"] != "n1" || s.Attributes["orch.service"] != "web" || !strings.HasPrefix(s.Attributes["orch.replica"], "web-")) {
			t.Errorf("%+v", s)
		}
	}
	if got := strings.Join(failed, "; "); got != "start container: CreateError: no such file; replica: Failed: exit code 1; replica: it is not ready within 10m0s; replica: it is not ready within 10m0s" {
		t.Errorf("failed: %s", got)
	}
	// Off: nothing is kept.
	off := traces{arriving: map[api.ReplicaKey]*arrival{}}
	_, end := off.begin(t.Context(), plan.SetupNetwork{Replica: key(0), Trace: text})
	end(plan.Done{})
	if len(off.arriving) > 0 {
		t.Error("off, and it keeps arrivals")
	}
}
