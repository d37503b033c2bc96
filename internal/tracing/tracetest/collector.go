// Package tracetest is a collector of traces for tests: what a program sends by OTLP over
// gRPC, it keeps and shows as a tree.
//
// It owns its server and the spans that came. It is no part of any program.
package tracetest

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	"google.golang.org/grpc"
)

// Span is one as it came.
type Span struct {
	Trace, ID, Parent string // hex; Parent is empty at the root
	Service, Name     string
	Start, End        time.Time
	Attributes        map[string]string
	Error             string
}

// Collector keeps spans.
type Collector struct {
	collector.UnimplementedTraceServiceServer
	server *grpc.Server

	mu    sync.Mutex
	spans []Span
}

// Serve makes a collector at a listener; Stop ends both.
func Serve(l net.Listener) *Collector {
	c := &Collector{server: grpc.NewServer()}
	collector.RegisterTraceServiceServer(c.server, c)
	go c.server.Serve(l) //nolint:errcheck // it ends with Stop
	return c
}

// Also has it answer at another listener, too.
func (c *Collector) Also(l net.Listener) { go c.server.Serve(l) } //nolint:errcheck // as above

// Stop ends it.
func (c *Collector) Stop() { c.server.Stop() }

// Export implements the collector's one call.
func (c *Collector) Export(_ context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, of := range r.GetResourceSpans() {
		service := texts(of.GetResource().GetAttributes())["service.name"]
		for _, scope := range of.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				c.spans = append(c.spans, Span{Trace: hex.EncodeToString(s.GetTraceId()), ID: hex.EncodeToString(s.GetSpanId()), Parent: hex.EncodeToString(s.GetParentSpanId()),
					Service: service, Name: s.GetName(), Start: time.Unix(0, int64(s.GetStartTimeUnixNano())), End: time.Unix(0, int64(s.GetEndTimeUnixNano())),
					Attributes: texts(s.GetAttributes()), Error: s.GetStatus().GetMessage()})
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

func texts(list []*common.KeyValue) map[string]string {
	out := map[string]string{}
	for _, kv := range list {
		switch v := kv.GetValue().GetValue().(type) {
		case *common.AnyValue_StringValue:
			out[kv.GetKey()] = v.StringValue
		case *common.AnyValue_IntValue:
			out[kv.GetKey()] = fmt.Sprint(v.IntValue)
		}
	}
	return out
}

// Spans gives what came so far, by start.
func (c *Collector) Spans() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := slices.Clone(c.spans)
	slices.SortStableFunc(out, func(a, b Span) int { return a.Start.Compare(b.Start) })
	return out
}

// Tree shows spans below each other, siblings by start: "service: name".
func Tree(spans []Span) string {
	known := map[string]bool{}
	for _, s := range spans {
		known[s.ID] = true
	}
	var b strings.Builder
	var show func(parent string, depth int)
	show = func(parent string, depth int) {
		for _, s := range spans {
			if s.Parent == parent || depth == 0 && !known[s.Parent] {
				fmt.Fprintf(&b, "%s%s: %s\n", strings.Repeat("  ", depth), s.Service, s.Name)
				show(s.ID, depth+1)
			}
		}
	}
	show("none", 0)
	return b.String()
}
