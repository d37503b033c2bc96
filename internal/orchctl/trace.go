package orchctl

import (
	"context"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/orchctl/orch/internal/tracing"
	"github.com/orchctl/orch/internal/version"
)

// tracedCommands change what runs: a trace of each shows what it led to.
var tracedCommands = []string{"orchctl apply", "orchctl scale", "orchctl delete", "orchctl run", "orchctl rollout restart", "orchctl rollout undo"}

// traceByEnvironment traces where the OTEL_ variables say so, as they do for other programs.
func traceByEnvironment(ctx context.Context) (*tracing.Tracer, error) {
	return tracing.New(ctx, tracing.Config{Service: "orchctl", Version: version.String(), Lookup: os.LookupEnv})
}

// beginTrace has a command that changes something traced, if anybody wants that. That it
// cannot be is told, and is no reason not to do it.
func (t *tool) beginTrace(cmd *cobra.Command) {
	if t.Trace == nil || !slices.Contains(tracedCommands, cmd.CommandPath()) {
		return
	}
	tracer, err := t.Trace(cmd.Context())
	if err != nil {
		t.warnf("nothing is traced: %v", err)
	}
	if tracer == nil {
		return
	}
	ctx, span := tracer.Root(cmd.Context(), cmd.CommandPath())
	cmd.SetContext(ctx)
	t.endTrace = func(err error) {
		span.Fail(err)
		span.End()
		tracer.Close()
		if id := span.TraceID(); id != "" {
			t.warnf("trace %s", id)
		}
	}
}

// part begins a part of what is traced.
func part(ctx context.Context, name string) (context.Context, *tracing.Span) {
	return tracing.Of(ctx).Begin(ctx, name)
}
