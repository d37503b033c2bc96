package controller

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/tracing"
	"github.com/orchctl/orch/internal/tracing/tracetest"
)

// TestTracesOfALoop: a change waits, is decided and committed; what is answered without a
// commit, refused or left by the end of a term ends too, and nothing is kept of it.
func TestTracesOfALoop(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := tracetest.Serve(l)
	defer c.Stop()
	tracer, err := tracing.New(t.Context(), tracing.Config{Service: "c", Flags: tracing.Flags{Endpoint: l.Addr().String(), Insecure: true}})
	if err != nil {
		t.Fatal(err)
	}
	x := newTraces(tracer)
	ctx, root := tracer.Begin(t.Context(), "call")
	changes := []core.Event{core.Apply{Ticket: 1}, core.Scale{Ticket: 2}, core.Delete{Ticket: 3}, core.Rollout{Ticket: 4}, core.NodeWord{Ticket: 5}}
	for _, ev := range append(changes, core.Explain{Ticket: 6}, core.Beat{}, core.Rebalance{Ticket: 7}) {
		x.ask(ctx, ev)
	}
	x.ask(t.Context(), core.Apply{Ticket: 8}) // nobody traces that one
	x.leave(7)
	if len(x.asked) != len(changes) {
		t.Errorf("%d wait, want %d", len(x.asked), len(changes))
	}
	x.took(core.Apply{Ticket: 1})
	x.took(core.Scale{Ticket: 2})
	x.commits(3)
	x.took(core.Delete{Ticket: 3})
	x.took(core.Rollout{Ticket: 4})
	x.took(core.Explain{Ticket: 6})
	x.took(core.Apply{Ticket: 8})
	x.answered(core.Reply{Ticket: 1})
	x.answered(core.Reply{Ticket: 2})
	x.answered(core.Reply{Ticket: 3, Err: errors.New("not found")})
	x.answered(core.Reply{Ticket: 6})
	x.commits(1)
	x.took(core.NodeWord{Ticket: 5})
	x.end()
	if len(x.asked) != 0 || len(x.open) != 0 {
		t.Errorf("kept: %v, %v", x.asked, x.open)
	}
	root.End()
	tracer.Close()
	count := map[string]int{}
	var failed []string
	for _, s := range c.Spans() {
		count[s.Name]++
		if s.Error != "" {
			failed = append(failed, s.Name+" "+s.Error)
		}
	}
	if count["inbox"] != 5 || count["decide"] != 5 || count["commit"] != 3 {
		t.Errorf("%v", count)
	}
	if len(failed) != 3 || !strings.Contains(strings.Join(failed, "; "), "decide not found") || !strings.Contains(strings.Join(failed, "; "), "commit the term ended") {
		t.Errorf("failed: %q", failed)
	}
	var none *traces
	none.ask(ctx, core.Apply{Ticket: 1})
	none.took(core.Apply{Ticket: 1})
	none.commits(1)
	none.answered(core.Reply{Ticket: 1})
	none.leave(1)
	none.end()
}
