// Package tracing tells a collector, by OpenTelemetry's protocol, how long the parts of a
// change took: from orchctl through the controller to the start of containers.
//
// It owns the SDK, of which nobody else knows, and the rule what is told. It decides
// nothing: who carries on a trace holds a W3C traceparent as text and looks into it never.
//
// Invariant: nobody waits for a collector, and what waits for one is bounded. Off, which is
// the default, a Tracer is nil, and all that it and its Spans are asked for is a comparison
// with nil: nothing of the SDK runs.
//
//	orchctl apply ──► Apply (call) ──► inbox, decide, commit ──► assign n1 ──► replica web-0 ──► image, network, start, until ready
//	       metadata             core.Apply.Trace     Assignment.Trace      Effect.Trace
package tracing
