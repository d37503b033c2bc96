package tracing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/orchctl/orch/internal/tracing/tracetest"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

func environment(pairs ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, p := range pairs {
			if v, ok := strings.CutPrefix(p, name+"="); ok {
				return v, true
			}
		}
		return "", false
	}
}

func TestOffUnlessSaid(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  Config
		on   bool
		err  string
	}{
		{"nothing is said", Config{}, false, ""},
		{"an environment without it", Config{Lookup: environment("PATH=/bin")}, false, ""},
		{"the flag", Config{Flags: Flags{Endpoint: "127.0.0.1:1", Insecure: true}}, true, ""},
		{"the flag, with TLS", Config{Flags: Flags{Endpoint: "127.0.0.1:1"}}, true, ""},
		{"the environment", Config{Lookup: environment("OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1")}, true, ""},
		{"the environment, of traces", Config{Lookup: environment("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://127.0.0.1:1")}, true, ""},
		{"disabled", Config{Lookup: environment("OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", "OTEL_SDK_DISABLED=true")}, false, ""},
		{"no traces", Config{Lookup: environment("OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", "OTEL_TRACES_EXPORTER=none")}, false, ""},
		{"another protocol", Config{Lookup: environment("OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf")}, false, ""},
		{"the flag beats the environment", Config{Flags: Flags{Endpoint: "127.0.0.1:1"}, Lookup: environment("OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf", "OTEL_SDK_DISABLED=true")}, true, ""},
		{"no port", Config{Flags: Flags{Endpoint: "collector"}}, false, `--trace-endpoint "collector": want host:port, such as 127.0.0.1:4317`},
	} {
		got, err := New(t.Context(), c.cfg)
		if (got != nil) != c.on || (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
		got.Close()
	}
}

// All of a nil tracer's spans are nil, and nothing is made for them.
func TestNilTracer(t *testing.T) {
	var none *Tracer
	if n := testing.AllocsPerRun(100, func() { everything(none) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if none.ServerOptions() != nil || none.DialOptions() != nil {
		t.Error("it has options for gRPC")
	}
	none.Close()
}

func everything(tr *Tracer) {
	ctx, s := tr.Begin(context.Background(), "one")
	_, s2 := tr.Under(ctx, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "two")
	s.Set("orch.replica", "web-0")
	s.SetInt("orch.revision", 3)
	s.Fail(nil)
	s2.End()
	s.End()
	_ = s.Text()
}

func BenchmarkOff(b *testing.B) {
	var none *Tracer
	b.ReportAllocs()
	for b.Loop() {
		everything(none)
	}
}

// serve has a collector and a tracer that sends to it.
func serve(t *testing.T) (*tracetest.Collector, *Tracer) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := tracetest.Serve(l)
	t.Cleanup(c.Stop)
	tr, err := New(t.Context(), Config{Service: "orchctl", Instance: "i", Version: "v1", Flags: Flags{Endpoint: l.Addr().String(), Insecure: true}})
	if err != nil {
		t.Fatal(err)
	}
	return c, tr
}

// TestArrives: spans get to a collector with their parents, over a text too, before the
// program ends.
func TestArrives(t *testing.T) {
	c, tr := serve(t)
	ctx, root := tr.Begin(t.Context(), "apply")
	root.Set("orch.service", "default/web")
	_, load := tr.BeginAt(ctx, "load", time.Now().Add(-time.Minute))
	load.Fail(errors.New("no such file"))
	load.End()
	text := root.Text()
	if !strings.HasPrefix(text, "00-"+root.TraceID()+"-") || !strings.HasSuffix(text, "-01") {
		t.Errorf("text %q", text)
	}
	_, far := tr.Under(context.Background(), text, "start")
	far.SetInt("orch.revision", 3)
	far.End()
	for _, bad := range []string{"", "00-x", "nonsense", "00-00000000000000000000000000000000-0000000000000000-01", strings.Repeat("a", 55)} {
		if _, s := tr.Under(t.Context(), bad, "lost"); s != nil {
			t.Errorf("a span under %q", bad)
		}
	}
	root.End()
	began := time.Now()
	tr.Close()
	if took := time.Since(began); took > flushMax+time.Second {
		t.Errorf("the end took %s", took)
	}
	spans := c.Spans()
	if got := tracetest.Tree(spans); got != "orchctl: apply\n  orchctl: load\n  orchctl: start\n" && got != "orchctl: load\norchctl: apply\n" {
		t.Errorf("got\n%s", got)
	}
	for _, s := range spans {
		if s.Trace != root.TraceID() || s.Name == "load" && (s.Error != "no such file" || s.End.Sub(s.Start) < time.Minute) ||
			s.Name == "start" && s.Attributes["orch.revision"] != "3" || s.Name == "apply" && s.Attributes["orch.service"] != "default/web" {
			t.Errorf("%+v", s)
		}
	}
}

// echo tells what a call carries on.
type echo struct {
	orchv1.UnimplementedOrchServer
	carried []string
}

func (e *echo) Apply(ctx context.Context, _ *orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) {
	e.carried = append(e.carried, Carried(ctx))
	return &orchv1.ApplyResponse{}, nil
}

func (e *echo) Version(ctx context.Context, _ *orchv1.VersionRequest) (*orchv1.VersionResponse, error) {
	e.carried = append(e.carried, Carried(ctx))
	return &orchv1.VersionResponse{}, nil
}

// TestCalls: a change is traced over a call, and a read is not; a server that does not
// trace hands on what it was told, and nothing else.
func TestCalls(t *testing.T) {
	c, tr := serve(t)
	for _, server := range []*Tracer{tr, nil} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		e := &echo{}
		s := grpc.NewServer(server.ServerOptions()...)
		orchv1.RegisterOrchServer(s, e)
		go s.Serve(l)
		conn, err := grpc.NewClient(l.Addr().String(), append(tr.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
		if err != nil {
			t.Fatal(err)
		}
		ctx, root := tr.Begin(t.Context(), "apply")
		client := orchv1.NewOrchClient(conn)
		if _, err := client.Apply(ctx, &orchv1.ApplyRequest{}); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Version(ctx, &orchv1.VersionRequest{}); err != nil {
			t.Fatal(err)
		}
		root.End()
		if len(e.carried) != 2 || !strings.Contains(e.carried[0], root.TraceID()) || e.carried[0] == root.Text() || e.carried[1] != root.Text() {
			t.Errorf("carried %q of %s", e.carried, root.Text())
		}
		conn.Close()
		s.Stop()
	}
	for text, want := range map[string]string{"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00": "", "<script>": "", strings.Repeat("0", 10000): ""} {
		if got := Carried(metadata.NewIncomingContext(t.Context(), metadata.Pairs("traceparent", text))); got != want {
			t.Errorf("of %.60q is carried on %q", text, got)
		}
	}
	tr.Close()
	if got, want := tracetest.Tree(c.Spans()), "orchctl: apply\n  orchctl: orch.v1.Orch/Apply\n    orchctl: orch.v1.Orch/Apply\norchctl: apply\n  orchctl: orch.v1.Orch/Apply\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// words is a log that may still be written to.
type words struct {
	mu sync.Mutex
	b  strings.Builder
}

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// TestCollectorAway: nobody waits for a collector that is not there, what waits for it is
// bounded, and it is told of once.
func TestCollectorAway(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // and nobody accepts: the worst that a collector can be
	var log words
	tr, err := New(t.Context(), Config{Service: "orch-agent", Flags: Flags{Endpoint: l.Addr().String(), Insecure: true}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, routines := heap(), runtime.NumGoroutine()
	began := time.Now()
	for i := range 50_000 {
		_, s := tr.Begin(t.Context(), "work")
		s.Set("orch.replica", fmt.Sprint("web-", i))
		s.End()
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("50,000 spans took %s", took)
	}
	if grown := int64(heap()) - int64(before); grown > 16<<20 {
		t.Errorf("%d bytes wait for the collector", grown)
	}
	if n := runtime.NumGoroutine() - routines; n > 10 {
		t.Errorf("%d goroutines more", n)
	}
	began = time.Now()
	tr.Close()
	if took := time.Since(began); took > flushMax+time.Second {
		t.Errorf("the end took %s", took)
	}
	if n := strings.Count(log.String(), "collector of traces"); n > 1 {
		t.Errorf("told %d times:\n%s", n, log.String())
	}
}

// TestComplainsSeldom: once, and then not for long.
func TestComplainsSeldom(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // nobody is there
	var log words
	tr, err := New(t.Context(), Config{Service: "orchctl", Flags: Flags{Endpoint: l.Addr().String(), Insecure: true}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		_, s := tr.Begin(t.Context(), "work")
		s.End()
		_ = tr.provider.ForceFlush(t.Context())
	}
	began := time.Now()
	tr.Close()
	if took := time.Since(began); took > flushMax {
		t.Errorf("the end took %s though nobody is there", took)
	}
	if n := strings.Count(log.String(), "spans do not reach the collector of traces"); n != 1 {
		t.Errorf("told %d times:\n%s", n, log.String())
	}
}
