package orchctl

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/orchctl/orch/internal/tracing"
	"github.com/orchctl/orch/internal/tracing/tracetest"
)

// TestTrace: a change is a trace with its parts, and tells its id; a read is none, and an
// environment that cannot be followed keeps nobody from the change.
func TestTrace(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := tracetest.Serve(l)
	defer c.Stop()
	f := newFake()
	dial, stop := f.serve()
	defer stop()
	r := newRig(t, f, dial)
	r.env.Trace = func(ctx context.Context) (*tracing.Tracer, error) {
		return tracing.New(ctx, tracing.Config{Service: "orchctl", Flags: tracing.Flags{Endpoint: l.Addr().String(), Insecure: true}})
	}
	if got := r.run("get", "services"); got.code != 0 || strings.Contains(got.err, "trace") {
		t.Error(got)
	}
	got := r.run("apply", "-f", "no-such-file.yaml")
	spans := c.Spans()
	if want := "orchctl: orchctl apply\n  orchctl: load manifests\n"; tracetest.Tree(spans) != want {
		t.Errorf("got\n%swant\n%s", tracetest.Tree(spans), want)
	}
	if len(spans) == 0 || got.code == 0 || !strings.Contains(got.err, "orchctl: trace "+spans[0].Trace+"\n") || spans[0].Error == "" {
		t.Errorf("%v, spans %+v", got, spans)
	}
	r.env.Trace = func(ctx context.Context) (*tracing.Tracer, error) {
		return tracing.New(ctx, tracing.Config{Flags: tracing.Flags{Endpoint: "nonsense"}})
	}
	if got := r.run("delete", "service/web", "--wait=false"); !strings.HasPrefix(got.err, "orchctl: nothing is traced: ") {
		t.Error(got)
	}
}
