package orchctl

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

type rebalancing struct {
	dryRun, wait bool
	timeout      time.Duration
}

func (t *tool) rebalanceCmd() *cobra.Command {
	var r rebalancing
	cmd := &cobra.Command{
		Use:   "rebalance",
		Short: "Move replicas to nodes that joined or came back, where that is worth it",
		Long: `Move some replicas to where they would be placed today: after a node has joined, came
back, or was uncordoned, the others still carry what it would have had.

Only moves that gain more than they cost are made, a bounded number at a time, each
started at its new place before it stops at the old one. Exclusive services, services
that are being rolled out, and nodes that are not healthy are left alone. Say it again
until there is nothing to move.`,
		Example: `  orchctl rebalance --dry-run      # what would move, and what it would gain
  orchctl rebalance --wait`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if r.dryRun && r.wait {
				return usagef("a dry run moves nothing: leave out --wait")
			}
			return t.rebalance(cmd.Context(), r)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&r.dryRun, "dry-run", false, "say what would move, move nothing")
	f.BoolVar(&r.wait, "wait", false, "wait until the moves are done")
	f.DurationVar(&r.timeout, "timeout", waitTimeout, "how long to wait; 0 for no limit")
	return cmd
}

func (t *tool) rebalance(ctx context.Context, r rebalancing) error {
	client, err := t.connect(ctx, "rebalance", true)
	if err != nil {
		return err
	}
	var w *moveWait
	var f *feed
	if r.wait {
		watching, stop := context.WithCancel(ctx)
		f = t.feed(watching, client, []*orchv1.ListRequest{{Kind: api.KindReplica}, {Kind: api.KindFleet}})
		defer f.wait()
		defer stop()
		w = &moveWait{t: t, began: t.Now(), leaving: newLeaving(t)}
		if err := w.look(ctx, f); err != nil {
			return err
		}
	}
	// A second try would plan anew, beside the moves of the first.
	patience := time.Duration(0)
	if r.dryRun {
		patience = readPatience
	}
	answer, err := ask(ctx, t, "rebalance", operator, patience, func(ctx context.Context) (*orchv1.RebalanceResponse, error) {
		return client.Rebalance(ctx, &orchv1.RebalanceRequest{DryRun: r.dryRun})
	})
	if err != nil {
		return err
	}
	if err := t.moves(answer, r.dryRun); err != nil || w == nil || len(answer.GetMoves()) == 0 {
		return err
	}
	w.begin(answer.GetMoves())
	return w.run(ctx, f, r.timeout)
}

// moves prints what moves, and the fleet's imbalance before and after.
func (t *tool) moves(answer *orchv1.RebalanceResponse, dryRun bool) error {
	list := answer.GetMoves()
	if len(list) == 0 {
		return t.printf("nothing to move: no move gains more than it costs (imbalance %s)\n", imbalance(answer.GetBefore()))
	}
	var rows [][]string
	several := false
	for _, m := range list {
		several = several || m.GetNamespace() != t.space()
	}
	columns := []string{"REPLICA", "FROM", "TO", "WHY"}
	if several {
		columns = append([]string{"NAMESPACE"}, columns...)
	}
	for _, m := range list {
		row := []string{m.GetReplica(), m.GetFrom(), m.GetTo(), orDash(m.GetWhy())}
		if several {
			row = append([]string{m.GetNamespace()}, row...)
		}
		rows = append(rows, row)
	}
	if err := newTable(columns...).print(t.Out, "", rows...); err != nil {
		return err
	}
	what := "begun"
	if dryRun {
		what = "to make (dry run)"
	}
	return t.printf("%s %s; imbalance %s -> %s\n", count(len(list), "move"), what, imbalance(answer.GetBefore()), imbalance(answer.GetAfter()))
}

// imbalance gives a share as people read one: 0 is even, 100% all on one node.
func imbalance(v float64) string { return trimDecimal(100*v, 1) + "%" }

// moveWait follows moves until none is going on.
type moveWait struct {
	t       *tool
	began   time.Time
	leaving *leaving
	moves   []*move
	// idle is since when the fleet moves nothing; zero while it does.
	idle time.Time
}

// dropAfter is how long nothing must have moved until moves that were not begun are
// taken for given up: what was worth it then need not be now.
const dropAfter = 10 * time.Second

type move struct {
	name    string
	replica *api.Replica // at its old place
	begun   bool         // something was starting elsewhere
	over    bool
	well    bool
}

func (w *moveWait) look(ctx context.Context, f *feed) error {
	return f.all(ctx, nil, w.see)
}

func (w *moveWait) see(s sighting) {
	if x, ok := s.o.value.(*api.Fleet); ok {
		switch {
		case x.Status.Reliefs > 0:
			w.idle = time.Time{}
		case w.idle.IsZero():
			w.idle = w.t.Now()
		}
		return
	}
	w.leaving.see(s)
}

func (w *moveWait) begin(list []*orchv1.Move) {
	for _, m := range list {
		x := &move{name: cleanText(m.GetReplica())}
		if m.GetNamespace() != w.t.space() {
			x.name = cleanText(m.GetNamespace()) + "/" + x.name
		}
		at := w.leaving.all(func(r *api.Replica) bool {
			return r.Metadata.Namespace == m.GetNamespace() && r.Metadata.Name == m.GetReplica() && r.Spec.Node == m.GetFrom() && !r.Status.Phase.Ended()
		})
		if len(at) == 0 { // it has moved already
			x.over, x.well = true, true
		} else {
			x.replica = at[0]
		}
		w.moves = append(w.moves, x)
	}
}

func (w *moveWait) run(ctx context.Context, f *feed, timeout time.Duration) error {
	var over <-chan time.Time
	if timeout > 0 {
		over = time.After(timeout)
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		left, err := w.step()
		if err != nil {
			return err
		}
		if left == 0 {
			return w.conclusion()
		}
		select {
		case s := <-f.ch:
			if s.err != nil {
				return fmt.Errorf("the progress cannot be followed any more: %w; the moves go on", s.err)
			}
			if s.news != synced {
				w.see(s)
			}
		case <-tick.C:
		case <-over:
			return fmt.Errorf("not done within %s: %s not at the new place yet; orch goes on with it", short(timeout), w.names(func(x *move) bool { return !x.over }))
		case <-ctx.Done():
			return fmt.Errorf("interrupted: orch goes on with %s", w.names(func(x *move) bool { return !x.over }))
		}
	}
}

// step tells what is new, and counts the moves that are going on.
func (w *moveWait) step() (left int, err error) {
	tell := func(text string) {
		if text != "" && err == nil {
			err = w.t.printf("%s\n", text)
		}
	}
	for _, x := range w.moves {
		if x.over {
			continue
		}
		now, there := w.leaving.replicas[object{kind: api.KindReplica, value: x.replica}.key()]
		next := w.leaving.successor(x.replica)
		switch {
		case !there || now.Status.Phase.Ended():
			x.over = true
			var text string
			text, x.well = w.leaving.left(x.replica)
			tell(text)
		case x.begun && next == nil:
			x.over = true
			tell(fmt.Sprintf("%s stays on %s: its new place came to nothing", x.name, x.replica.Spec.Node))
		case !x.begun && next == nil && w.dropped():
			x.over = true
			tell(fmt.Sprintf("%s stays on %s: its move was given up before it began", x.name, x.replica.Spec.Node))
		default:
			x.begun = x.begun || next != nil
			tell(w.leaving.starts(x.replica))
			left++
		}
	}
	return left, err
}

// dropped tells whether no move begins any more.
func (w *moveWait) dropped() bool {
	now := w.t.Now()
	return !w.idle.IsZero() && now.Sub(w.idle) >= dropAfter && now.Sub(w.began) >= dropAfter
}

func (w *moveWait) names(want func(*move) bool) string {
	var out []string
	for _, x := range w.moves {
		if want(x) {
			out = append(out, x.name)
		}
	}
	return strings.Join(out, ", ")
}

func (w *moveWait) conclusion() error {
	if bad := w.names(func(x *move) bool { return !x.well }); bad != "" {
		return fmt.Errorf("not moved: %s; `orchctl rebalance` plans anew", bad)
	}
	return w.t.printf("%s done in %s\n", count(len(w.moves), "move"), short(max(w.t.Now().Sub(w.began), time.Millisecond)))
}
