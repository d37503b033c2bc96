package agent

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/tracing"
	"github.com/orchctl/orch/internal/wire"
)

// arrivalMax is how long a replica's arrival is one span: who is not ready then is not
// waited for by whoever looks at the trace.
const arrivalMax = 10 * time.Minute

// traces tell how long it takes from a replica's assignment until it is ready. It goes by
// the effects of the plan, which carries text alone. Its fields are the driver's own.
type traces struct {
	tracer   *tracing.Tracer // nil: nobody traces
	node     string
	arriving map[api.ReplicaKey]*arrival
}

// arrival is a replica that is on its way.
type arrival struct {
	ctx     context.Context
	span    *tracing.Span
	began   time.Time
	started atomic.Int64 // its last container, in nanoseconds since 1970
}

// begin begins an effect's span; end is to be called with its answer, by any goroutine.
func (t *traces) begin(ctx context.Context, e plan.Effect) (_ context.Context, end func(plan.Event)) {
	if t.tracer == nil {
		return ctx, func(plan.Event) {}
	}
	var span *tracing.Span
	var of *arrival
	switch e := e.(type) {
	case plan.EnsureImage: // not below a replica's: several may wait for it
		ctx, span = t.tracer.Under(ctx, e.Trace, "image")
		span.Set("orch.node", t.node)
		span.Set("orch.image", e.Ref)
	case plan.SetupNetwork:
		ctx, span, of = t.below(ctx, e.Replica, e.Revision, e.Trace, "network")
	case plan.StartContainer:
		ctx, span, of = t.below(ctx, e.Replica, e.Revision, e.Trace, "start container")
		span.Set("orch.container", e.Container.Name)
		span.Set("orch.image", e.Container.Image)
	}
	if span == nil {
		return ctx, func(plan.Event) {}
	}
	_, starts := e.(plan.StartContainer)
	return ctx, func(ev plan.Event) {
		if done, ok := ev.(plan.Done); ok && done.Failure != nil {
			span.FailFor(done.Failure.Reason + ": " + done.Failure.Message)
		} else if starts {
			of.started.Store(time.Now().UnixNano())
		}
		span.End()
	}
}

// below begins a span below that of a replica's arrival, which begins with its first.
func (t *traces) below(ctx context.Context, key api.ReplicaKey, revision int64, text, name string) (context.Context, *tracing.Span, *arrival) {
	if text == "" {
		return ctx, nil, nil
	}
	a := t.arriving[key]
	if a == nil {
		of, span := t.tracer.Under(context.Background(), text, "replica")
		if span == nil { // the text is none
			return ctx, nil, nil
		}
		span.Set("orch.namespace", key.Namespace)
		span.Set("orch.service", key.Service)
		span.Set("orch.replica", key.Name())
		span.SetInt("orch.epoch", int64(key.Epoch))
		span.SetInt("orch.revision", revision)
		span.Set("orch.node", t.node)
		t.giveUp(time.Now())
		a = &arrival{ctx: of, span: span, began: time.Now()}
		t.arriving[key] = a
	}
	ctx, span := t.tracer.Under(ctx, a.span.Text(), name)
	span.Set("orch.replica", key.Name())
	span.Set("orch.node", t.node)
	return ctx, span, a
}

// giveUp ends arrivals that take too long, so that there are not more and more of them.
func (t *traces) giveUp(now time.Time) {
	for key, a := range t.arriving {
		if now.Sub(a.began) > arrivalMax {
			t.end(key, "it is not ready within "+arrivalMax.String())
		}
	}
}

// reported ends the arrival of replicas that are ready, or never will be.
func (t *traces) reported(r wire.StatusReport) {
	if len(t.arriving) == 0 {
		return
	}
	for _, x := range r.Replicas {
		a := t.arriving[x.Key]
		switch {
		case a == nil:
		case x.Status.Ready:
			if at := a.started.Load(); at != 0 {
				_, span := t.tracer.BeginAt(a.ctx, "until ready", time.Unix(0, at))
				span.Set("orch.replica", x.Key.Name())
				span.End()
			}
			t.end(x.Key, "")
		case x.Status.Phase == api.PhaseStopped: // as jobs do
			t.end(x.Key, "")
		case x.Status.Phase == api.PhaseFailed, x.Status.Phase == api.PhaseStopping:
			t.end(x.Key, string(x.Status.Phase)+": "+x.Status.Message)
		}
	}
	for _, key := range r.Gone {
		t.end(key, "it is gone")
	}
}

// end ends an arrival, if there is one; with words it has failed.
func (t *traces) end(key api.ReplicaKey, why string) {
	if a := t.arriving[key]; a != nil {
		a.span.FailFor(why)
		a.span.End()
		delete(t.arriving, key)
	}
}

// endAll ends those that the agent's end leaves.
func (t *traces) endAll() {
	for key := range t.arriving {
		t.end(key, "the agent ends")
	}
}
