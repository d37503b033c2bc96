package tracing

import (
	"context"
	"slices"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"

	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// changes are the calls that are traced: those that change what runs. Sessions, watches and
// other streams last for ever, and reads are many.
var changes = []string{orchv1.Orch_Apply_FullMethodName, orchv1.Orch_Scale_FullMethodName, orchv1.Orch_Delete_FullMethodName,
	orchv1.Orch_Rollout_FullMethodName, orchv1.Orch_Rebalance_FullMethodName, orchv1.Orch_NodeWord_FullMethodName}

func (t *Tracer) options() []otelgrpc.Option {
	return []otelgrpc.Option{
		otelgrpc.WithTracerProvider(t.provider), otelgrpc.WithMeterProvider(noop.NewMeterProvider()), otelgrpc.WithPropagators(propagation.TraceContext{}),
		otelgrpc.WithFilter(func(i *stats.RPCTagInfo) bool { return slices.Contains(changes, i.FullMethodName) }),
	}
}

// ServerOptions have a server trace calls that change something.
func (t *Tracer) ServerOptions() []grpc.ServerOption {
	if t == nil {
		return nil
	}
	return []grpc.ServerOption{grpc.StatsHandler(otelgrpc.NewServerHandler(t.options()...))}
}

// DialOptions have a client do so.
func (t *Tracer) DialOptions() []grpc.DialOption {
	if t == nil {
		return nil
	}
	return []grpc.DialOption{grpc.WithStatsHandler(otelgrpc.NewClientHandler(t.options()...))}
}

// Carried gives the traceparent that a call goes on with: that of its own span, or, where
// this process does not trace, the caller's. Empty: there is none.
func Carried(ctx context.Context) string {
	if of := trace.SpanContextFromContext(ctx); of.IsValid() {
		return textOf(of)
	}
	for _, text := range metadata.ValueFromIncomingContext(ctx, traceparent) {
		// What a caller says goes no further than it is what it should be.
		return textOf(trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), carrier(text))))
	}
	return ""
}
