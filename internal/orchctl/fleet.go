package orchctl

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

func fleetCell(f func(api.FleetStatus) string) func(object, time.Time) string {
	return func(o object, _ time.Time) string { return f(o.value.(*api.Fleet).Status) }
}

var fleetColumns = []column{
	{title: "NODES", cell: fleetCell(func(st api.FleetStatus) string { return strconv.Itoa(nodesIn(st)) })},
	{title: "HEALTHY", cell: fleetCell(func(st api.FleetStatus) string { return strconv.Itoa(st.Nodes[api.VerdictHealthy]) })},
	{title: "OTHERS", cell: fleetCell(func(st api.FleetStatus) string {
		return orDash(strings.Join(append(verdictCounts(st, api.VerdictHealthy), besideCounts(st)...), ","))
	})},
	{title: "FROZEN", cell: func(o object, now time.Time) string {
		if st := o.value.(*api.Fleet).Status; st.Frozen {
			return "for " + age(now, st.FrozenSince)
		}
		return "no"
	}},
	{title: "SPARES", cell: fleetCell(func(st api.FleetStatus) string { return strconv.Itoa(st.Spares) })},
	{title: "WAITING", cell: fleetCell(func(st api.FleetStatus) string { return strconv.Itoa(st.SparesWaiting) })},
	{title: "RELIEFS", cell: fleetCell(func(st api.FleetStatus) string { return strconv.Itoa(st.Reliefs) })},
	{title: "WHY", wide: true, cell: fleetCell(func(st api.FleetStatus) string { return orDash(st.FrozenWhy) })},
}

func nodesIn(st api.FleetStatus) int {
	n := 0
	for _, c := range st.Nodes {
		n += c
	}
	return n
}

// verdictCounts gives "2 Suspect", most telling first, without those left out
// and those that no node has.
func verdictCounts(st api.FleetStatus, without api.Verdict) []string {
	order := []api.Verdict{api.VerdictHealthy, api.VerdictSuspect, api.VerdictDead, api.VerdictAgentLost, api.VerdictBack, api.VerdictUnknown}
	var newer []api.Verdict // a newer controller's
	for v := range st.Nodes {
		if !slices.Contains(order, v) {
			newer = append(newer, v)
		}
	}
	slices.Sort(newer)
	var out []string
	for _, v := range append(order, newer...) {
		if n := st.Nodes[v]; n > 0 && v != without {
			out = append(out, fmt.Sprintf("%d %s", n, v))
		}
	}
	return out
}

// besideCounts gives "1 Impaired" and the like: what is to be known of nodes beside
// their verdicts. A node may be counted several times.
func besideCounts(st api.FleetStatus) []string {
	var out []string
	for _, x := range []struct {
		n    int
		word string
	}{{st.Impaired, "Impaired"}, {st.Damped, "Damped"}, {st.Drained, "Drained"}} {
		if x.n > 0 {
			out = append(out, fmt.Sprintf("%d %s", x.n, x.word))
		}
	}
	return out
}

func (t *tool) describeFleet(ctx context.Context, client orchv1.OrchClient, p *page, f *api.Fleet) error {
	st := f.Status
	nodes := strconv.Itoa(nodesIn(st))
	if counts := verdictCounts(st, ""); len(counts) > 0 {
		nodes += ": " + strings.Join(counts, ", ")
	}
	p.field(0, "Nodes", "%s", nodes)
	p.field(0, "Of these", "%s", strings.Join(besideCounts(st), ", "))
	if st.Frozen {
		p.field(0, "Frozen", "since %s", p.when(st.FrozenSince))
		p.field(0, "Why", "%s", st.FrozenWhy)
		p.list(0, "Therefore", []string{"no node is taken for dead because it is silent; spares are started all the same.",
			"It ends by itself; if you know that these nodes are gone: orchctl fleet thaw"})
	} else {
		p.field(0, "Frozen", "no")
	}
	p.field(0, "Spares", "%d stand in, %d wait for a budget", st.Spares, st.SparesWaiting)
	p.field(0, "Reliefs", "%d", st.Reliefs)
	found, _, err := t.fetch(ctx, client, listing{}, []target{{kind: api.KindNode}})
	if err != nil {
		return err
	}
	var rows [][]string
	for _, o := range found {
		n := o.value.(*api.Node)
		since := n.Status.VerdictSince
		if n.Status.Verdict == api.VerdictHealthy && n.Status.Impaired != "" {
			since = n.Status.ImpairedSince
		}
		if word := nodeWord(n); word != nodeReady {
			rows = append(rows, []string{n.Metadata.Name, word, age(p.now, since), orDash(nodeWhy(n))})
		}
	}
	p.table("Nodes that are not simply ready", rows, "NAME", "STATUS", "SINCE", "WHY")
	return t.events(ctx, client, p, target{kind: api.KindFleet, name: api.FleetName}.ref())
}

func (t *tool) fleetCmd() *cobra.Command {
	return group("fleet", "Act on the fleet as a whole", `  orchctl get fleet            # nodes by verdict, spares, and whether verdicts are frozen
  orchctl describe fleet       # why
  orchctl fleet thaw`,
		t.thawCmd())
}

func (t *tool) thawCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "thaw",
		Short: "Say that the nodes which vanished together are truly gone",
		Long: `End the freeze of verdicts.

When many nodes vanish at once, the network is a likelier cause than their
deaths. orch then freezes: it withdraws traffic and starts spares within their
budgets, but takes no node for dead because it is silent. The freeze ends by
itself when the nodes are back, when other nodes confirm the silence for long
enough, or little by little after a minute.

Say this when you know better: a rack has lost its power, and no replica can
still run there. Each node that stays silent is then taken for dead as usual.
Do not say it because of a broken switch: the nodes behind it still run their
replicas, and when they are back those are stopped.

Replicas of exclusive services wait for their leases all the same.`,
		Example: `  orchctl describe fleet && orchctl fleet thaw`,
		Args:    usageArgs(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return t.thaw(cmd.Context()) },
	}
}

// thaw looks first, so that it can say what the word means now.
func (t *tool) thaw(ctx context.Context) error {
	client, err := t.connect(ctx, "thaw the fleet", true)
	if err != nil {
		return err
	}
	found, _, err := t.fetch(ctx, client, listing{}, []target{{kind: api.KindFleet}})
	if err != nil {
		return err
	}
	var st api.FleetStatus
	if len(found) > 0 {
		st = found[0].value.(*api.Fleet).Status
	}
	if !st.Frozen {
		return t.printf("the fleet is not frozen: nothing to thaw\n")
	}
	_, err = change(ctx, t, "thaw the fleet", admin, func(ctx context.Context) (*orchv1.NodeWordResponse, error) {
		return client.NodeWord(ctx, &orchv1.NodeWordRequest{Word: "thaw"})
	})
	if err != nil {
		return err
	}
	return t.printf("fleet thawed, it was frozen for %s: a node that stays silent is taken for dead again (%s now)\n",
		age(t.Now(), st.FrozenSince), count(st.Nodes[api.VerdictSuspect], "suspect node"))
}
