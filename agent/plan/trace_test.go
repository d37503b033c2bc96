package plan

import (
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// A trace is that of a replica's arrival: it ends when that is ready, or has taken long.
func TestTraceIsOver(t *testing.T) {
	now := time.Unix(0, 0)
	x := traced{text: "A"}
	if x.of(now) != "A" || x.of(now.Add(traceFor-time.Second)) != "A" || x.of(now.Add(traceFor)) != "" {
		t.Errorf("%+v", x)
	}
	x = traced{text: "A"}
	x.told(wire.Report{Status: api.ReplicaStatus{Phase: api.PhaseRunning}})
	if x.of(now) != "A" {
		t.Errorf("it runs, and is not ready: %+v", x)
	}
	x.told(wire.Report{Status: api.ReplicaStatus{Phase: api.PhaseRunning, Ready: true}})
	if x.of(now) != "" {
		t.Errorf("it was ready: %+v", x)
	}
	if x = (traced{}); x.of(now) != "" || !x.until.IsZero() {
		t.Errorf("there is none: %+v", x)
	}
	r := &replica{phase: api.PhaseAssigned}
	r.take(wire.Assignment{Trace: "A"}, now)
	if r.trace.of(now) != "A" {
		t.Error("one that only lay on disk takes the leader's word")
	}
	r.take(wire.Assignment{Trace: "B"}, now)
	if r.trace.of(now) != "A" {
		t.Error("its own trace is replaced")
	}
	r = &replica{phase: api.PhaseRunning}
	r.take(wire.Assignment{Trace: "A"}, now)
	if r.trace.of(now) != "" {
		t.Error("one that runs has come another way")
	}
}
