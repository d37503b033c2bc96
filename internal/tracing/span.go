package tracing

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Span is one part of a change. Nil is none; all methods may be called of it.
type Span struct{ span trace.Span }

// Begin begins a span under that of ctx; the context it gives is for what happens within.
func (t *Tracer) Begin(ctx context.Context, name string) (context.Context, *Span) {
	if t == nil {
		return ctx, nil
	}
	ctx, s := t.tracer.Start(ctx, name)
	return ctx, &Span{s}
}

// BeginAt begins a span in the past.
func (t *Tracer) BeginAt(ctx context.Context, name string, at time.Time) (context.Context, *Span) {
	if t == nil {
		return ctx, nil
	}
	ctx, s := t.tracer.Start(ctx, name, trace.WithTimestamp(at))
	return ctx, &Span{s}
}

// Under begins a span under one of another process, which text names; ctx lends its end
// only. There is none where text names none.
func (t *Tracer) Under(ctx context.Context, text, name string) (context.Context, *Span) {
	if t == nil || text == "" {
		return ctx, nil
	}
	return t.UnderAt(ctx, text, name, time.Now())
}

// UnderAt is Under for a span that began in the past.
func (t *Tracer) UnderAt(ctx context.Context, text, name string, at time.Time) (context.Context, *Span) {
	if t == nil || text == "" {
		return ctx, nil
	}
	parent := propagation.TraceContext{}.Extract(context.Background(), carrier(text))
	of := trace.SpanContextFromContext(parent)
	if !of.IsValid() {
		return ctx, nil
	}
	return t.BeginAt(trace.ContextWithRemoteSpanContext(ctx, of), name, at)
}

type tracerKey struct{}

// Of gives the tracer that Root was called of; nil: there is none.
func Of(ctx context.Context) *Tracer {
	t, _ := ctx.Value(tracerKey{}).(*Tracer)
	return t
}

// Root begins a trace; within its context, Of gives the tracer.
func (t *Tracer) Root(ctx context.Context, name string) (context.Context, *Span) {
	if t == nil {
		return ctx, nil
	}
	return t.Begin(context.WithValue(ctx, tracerKey{}, t), name)
}

// Current gives the span that ctx is within; nil: none that is recorded.
func Current(ctx context.Context) *Span {
	if s := trace.SpanFromContext(ctx); s.IsRecording() {
		return &Span{s}
	}
	return nil
}

// Set and SetInt say something of the span, such as orch.replica.
func (s *Span) Set(key, value string) {
	if s != nil {
		s.span.SetAttributes(attribute.String(key, value))
	}
}

// SetInt: see Set.
func (s *Span) SetInt(key string, value int64) {
	if s != nil {
		s.span.SetAttributes(attribute.Int64(key, value))
	}
}

// Fail says that it failed, and why; with nil it did not.
func (s *Span) Fail(err error) {
	if s != nil && err != nil {
		s.FailFor(err.Error())
	}
}

// FailFor is Fail with words.
func (s *Span) FailFor(why string) {
	if s != nil && why != "" {
		s.span.SetStatus(codes.Error, why)
	}
}

// End ends the span; once.
func (s *Span) End() {
	if s != nil {
		s.span.End()
	}
}

// Text names the span to other processes, as a W3C traceparent; empty: it is none, or is
// not to be told of.
func (s *Span) Text() string {
	if s == nil {
		return ""
	}
	return textOf(s.span.SpanContext())
}

// TraceID names the trace for people; empty: there is none.
func (s *Span) TraceID() string {
	if s == nil || !s.span.SpanContext().IsSampled() {
		return ""
	}
	return s.span.SpanContext().TraceID().String()
}

// traceparent is the one header that is carried.
const traceparent = "traceparent"

// carrier is a traceparent as the propagator wants it.
type carrier string

// Get implements propagation.TextMapCarrier.
func (c carrier) Get(key string) string {
	if key == traceparent {
		return string(c)
	}
	return ""
}

// Set implements propagation.TextMapCarrier: nothing is written.
func (c carrier) Set(string, string) {}

// Keys implements propagation.TextMapCarrier.
func (c carrier) Keys() []string { return []string{traceparent} }

func textOf(of trace.SpanContext) string {
	if !of.IsValid() || !of.IsSampled() {
		return ""
	}
	m := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(trace.ContextWithSpanContext(context.Background(), of), m)
	return m[traceparent]
}
