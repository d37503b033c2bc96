package orchctl

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

func (t *tool) netCmd() *cobra.Command {
	return group("net", "Try the network between nodes", `  orchctl net check            # all nodes, each towards ten others at most
  orchctl net check n1 n2      # these towards each other
  orchctl net check --all      # also what is well`, t.netCheckCmd())
}

func (t *tool) netCheckCmd() *cobra.Command {
	all := false
	cmd := &cobra.Command{
		Use:   "check [NODE...]",
		Short: "Have nodes try the replicas' network towards each other, and say what is wrong",
		Long: `Have nodes try the replicas' network towards each other: whether packets get there
(route), the largest ones too (mtu), whether names are answered (dns), and whether a
virtual IP leads to where it should (vip). Nodes that cannot be asked are told, too.

With one name: that node and its neighbours, both ways. With several: these towards
each other. In fleets of more than ten nodes each tries ten others.

Exit codes: 0 all is well, 1 something is not.`,
		Example: `  orchctl net check
  orchctl net check n1
  orchctl net check n1 n2 --all`,
		ValidArgsFunction: beginning(t.completeNames(api.KindNode)),
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := nodeNames(args)
			if err != nil {
				return err
			}
			return t.netCheck(cmd.Context(), names, all)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "show also what is well")
	return cmd
}

func (t *tool) netCheck(ctx context.Context, names []string, all bool) error {
	const doing = "check the network"
	client, err := t.connect(ctx, doing, false)
	if err != nil {
		return err
	}
	results, err := netResults(ctx, client, names)
	if err = t.failed(err, doing, viewer); err != nil && len(results) == 0 {
		return err
	}
	slices.SortStableFunc(results, func(a, b *orchv1.NetCheckResult) int {
		if c := naturally(a.GetNode(), b.GetNode()); c != 0 {
			return c
		}
		return naturally(a.GetTarget(), b.GetTarget())
	})
	told := t.netResults(results, all, err != nil)
	if err != nil {
		return err
	}
	return told
}

// netResults gathers what nodes find. The controller bounds each node's time;
// --request-timeout does not count, for a large fleet takes its while.
func netResults(ctx context.Context, client orchv1.OrchClient, names []string) ([]*orchv1.NetCheckResult, error) {
	stream, err := client.NetCheck(ctx, &orchv1.NetCheckRequest{Nodes: names})
	if err != nil {
		return nil, err
	}
	var list []*orchv1.NetCheckResult
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return list, err
		}
		list = append(list, r)
	}
}

// netResults prints what is wrong, or everything, and a summary; cut is set where
// more would have come.
func (t *tool) netResults(results []*orchv1.NetCheckResult, all, cut bool) error {
	nodes, bad := map[string]bool{}, 0
	var rows [][]string
	for _, r := range results {
		nodes[r.GetNode()] = true
		if !r.GetOk() {
			bad++
		} else if !all {
			continue
		}
		row := []string{r.GetNode(), orDash(r.GetTarget()), orDash(r.GetCheck())}
		if all {
			took := "-"
			if d := r.GetTook().AsDuration(); d > 0 {
				took = fine(d)
			}
			row = append(row, map[bool]string{true: "ok", false: "FAILED"}[r.GetOk()], took)
		}
		rows = append(rows, append(row, orDash(r.GetDetail())))
	}
	columns := []string{"NODE", "TARGET", "CHECK", "DETAIL"}
	if all {
		columns = []string{"NODE", "TARGET", "CHECK", "RESULT", "TOOK", "DETAIL"}
	}
	if len(rows) > 0 {
		if err := newTable(columns...).print(t.Out, "", rows...); err != nil {
			return err
		}
	}
	what := count(len(nodes), "node") + ", " + count(len(results), "check") + ": "
	if cut {
		what = "not finished; until then " + what
	}
	if bad == 0 {
		return t.printf("%sall is well\n", what)
	}
	if err := t.printf("%s%d failed\n", what, bad); err != nil {
		return err
	}
	return exitStatus(exitFailed)
}

// fine gives a time on a network, which short would round away: "0.42ms".
func fine(d time.Duration) string {
	if d >= 10*time.Millisecond {
		return short(d)
	}
	return trimDecimal(float64(d)/float64(time.Millisecond), 2) + "ms"
}

// naturally compares names with a number at their end by that: n2 before n10.
func naturally(a, b string) int {
	cut := func(s string) (string, int) {
		head := strings.TrimRight(s, "0123456789")
		n := 0
		for _, c := range s[len(head):] {
			n = min(10*n+int(c-'0'), 1<<40)
		}
		return head, n
	}
	x, i := cut(a)
	y, j := cut(b)
	if c := strings.Compare(x, y); c != 0 {
		return c
	}
	return i - j
}
