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

// topEvery is how often `top -w` asks: a node then measures from one time to the next.
const topEvery = 2 * time.Second

// topOrders are what --sort takes, the first without it.
var topOrders = []string{"name", "cpu", "memory"}

// topped is what `top` was asked for.
type topped struct {
	order, output     string
	watch             bool
	nodes             []string // to ask; none: all
	namespace         string   // of replicas; empty: all
	selector          string
	names             []string // of replicas, services and jobs; none: all
	containers, wants bool     // rows for containers; rows for replicas
}

func (t *tool) topCmd() *cobra.Command {
	return group("top", "Show what nodes and replicas use now", `  orchctl top nodes
  orchctl top replicas --sort memory    # what uses most, first
  orchctl top replicas -A -w            # of all namespaces, again and again`, t.topNodesCmd(), t.topReplicasCmd())
}

func (t *tool) topNodesCmd() *cobra.Command {
	var x topped
	cmd := &cobra.Command{
		Use:     "nodes [NAME...]",
		Aliases: []string{"node", "no"},
		Short:   "Show what nodes use now",
		Long: `Show the cpu and memory that nodes use now: all of the machine, not only replicas.
Percentages of cpu and memory are of what replicas may use, as in ` + "`orchctl get nodes`" + `; beside
them stands what replicas have asked for. Memory is without what the kernel gives back
at need. The disk is the one that images lie on.

CPU is averaged over a second, or since somebody asked last. A node that cannot be asked
has "?", and why is told on standard error.

Exit codes: 0 done, 1 no node could be asked.`,
		Example: `  orchctl top nodes
  orchctl top nodes n1 n2 -w
  orchctl top nodes --sort cpu`,
		ValidArgsFunction: beginning(t.completeNames(api.KindNode)),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if x.nodes, err = nodeNames(args); err != nil {
				return err
			}
			return t.top(cmd.Context(), x)
		},
	}
	t.topFlags(cmd, &x)
	return cmd
}

func (t *tool) topReplicasCmd() *cobra.Command {
	x := topped{wants: true}
	all, node := false, ""
	cmd := &cobra.Command{
		Use:     "replicas [NAME...]",
		Aliases: []string{"replica", "reps", "rep"},
		Short:   "Show what replicas use now",
		Long: `Show the cpu and memory that replicas use now, or with --containers each of their
containers. Percentages are of their limits. A NAME is that of a replica, or of a service
or job, for all of its replicas. Memory is without what the kernel gives back at need.

CPU is averaged over a second, or since somebody asked last. Replicas on a node that
cannot be asked have "?", and why is told on standard error.

Exit codes: 0 done, 1 no node could be asked, or nothing runs by a name.`,
		Example: `  orchctl top replicas
  orchctl top replicas web --containers
  orchctl top replicas -A --node n2 --sort cpu
  orchctl top replicas -l app=web -w`,
		ValidArgsFunction: beginning(t.completeNames(api.KindReplica)),
		RunE: func(cmd *cobra.Command, args []string) error {
			x.namespace = t.space()
			switch {
			case all && len(args) > 0:
				return usagef("a name is looked up in one namespace: leave out -A")
			case len(args) > 0 && x.selector != "":
				return usagef("name replicas or select them with -l, not both")
			case all:
				x.namespace = ""
			}
			if _, err := api.ParseSelector(x.selector); err != nil {
				return usageError{err}
			}
			for _, name := range args {
				kind, rest, ok := cutKind(name)
				if ok && kind != api.KindReplica && kind != api.KindService && kind != api.KindJob {
					return usagef("%q is no replica, service or job", name)
				}
				if ok {
					name = rest
				}
				x.names = append(x.names, name)
			}
			if node != "" {
				var err error
				if x.nodes, err = nodeNames([]string{node}); err != nil {
					return err
				}
			}
			return t.top(cmd.Context(), x)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&all, "all-namespaces", "A", false, "of all namespaces")
	f.StringVar(&node, "node", "", "only those on this node")
	f.StringVarP(&x.selector, "selector", "l", "", "labels that must match, such as app=web,tier!=test")
	f.BoolVar(&x.containers, "containers", false, "a row for each container")
	t.complete(cmd, "node", t.completeNames(api.KindNode))
	t.topFlags(cmd, &x)
	return cmd
}

func (t *tool) topFlags(cmd *cobra.Command, x *topped) {
	f := cmd.Flags()
	f.StringVar(&x.order, "sort", topOrders[0], "name, cpu or memory; the last two begin with the most")
	f.BoolVarP(&x.watch, "watch", "w", false, "show it again every two seconds")
	f.StringVarP(&x.output, "output", "o", "", "json; a table without it")
	t.complete(cmd, "sort", cobra.FixedCompletions(topOrders, cobra.ShellCompDirectiveNoFileComp))
	t.complete(cmd, "output", cobra.FixedCompletions([]string{"json"}, cobra.ShellCompDirectiveNoFileComp))
}

// using is what `top` has learned: what nodes tell, and what is known of them.
type using struct {
	usages   []*orchv1.NodeUsage // by name
	nodes    map[string]*api.Node
	replicas map[api.ReplicaKey]*api.Replica // of the namespace, with the labels
}

func (t *tool) top(ctx context.Context, x topped) error {
	if !slices.Contains(topOrders, x.order) {
		return usagef("--sort %s: want %s", x.order, strings.Join(topOrders, ", "))
	}
	if x.output != "" && x.output != "json" {
		return usagef("-o %s: want json", x.output)
	}
	client, err := t.connect(ctx, "ask what is used", x.watch)
	if err != nil {
		return err
	}
	if x.watch {
		return t.topWatch(ctx, client, x)
	}
	u, err := t.askUsage(ctx, client, x)
	if err != nil {
		return err
	}
	if x.output == "json" {
		if err := t.writeJSON(u.list(x)); err != nil {
			return err
		}
	} else {
		cols, rows := u.table(x)
		switch {
		case len(rows) > 0:
			if err := newTable(cols...).print(t.Out, "", rows...); err != nil {
				return err
			}
		case u.asked() > 0 && len(x.names) == 0:
			t.none(api.KindReplica, listing{all: x.namespace == "", selector: x.selector}, x.namespace)
		}
	}
	for _, n := range u.usages {
		if n.GetError() != "" {
			t.warnf("node %s: %s", n.GetNode(), cleanText(n.GetError()))
		}
	}
	if u.asked() == 0 {
		return exitStatus(exitFailed)
	}
	return t.topMissing(x, u)
}

// topMissing tells of names by which nothing runs.
func (t *tool) topMissing(x topped, u using) error {
	var missing error
	for _, name := range x.names {
		if !slices.ContainsFunc(u.rows(topped{wants: true, names: []string{name}}), func(topRow) bool { return true }) {
			t.warnf("%s: no replica of that name, or of a service or job of that name, runs in namespace %s", name, x.namespace)
			missing = exitStatus(exitFailed)
		}
	}
	return missing
}

// asked counts the nodes that have answered.
func (u using) asked() int {
	n := 0
	for _, x := range u.usages {
		if x.GetError() == "" {
			n++
		}
	}
	return n
}

// askUsage asks once.
func (t *tool) askUsage(ctx context.Context, client orchv1.OrchClient, x topped) (using, error) {
	u := using{nodes: map[string]*api.Node{}, replicas: map[api.ReplicaKey]*api.Replica{}}
	of := target{kind: api.KindNode}
	if x.wants {
		of = target{kind: api.KindReplica, namespace: x.namespace}
	}
	found, _, err := t.fetch(ctx, client, listing{selector: x.selector}, []target{of})
	if err != nil {
		return using{}, err
	}
	for _, o := range found {
		switch v := o.value.(type) {
		case *api.Node:
			u.nodes[v.Metadata.Name] = v
		case *api.Replica:
			u.replicas[api.ReplicaKey{Namespace: v.Metadata.Namespace, Service: v.Spec.Service, Slot: v.Spec.Slot, Epoch: v.Spec.Epoch}] = v
		}
	}
	u.usages, err = read(ctx, t, "ask what is used", viewer, func(ctx context.Context) ([]*orchv1.NodeUsage, error) {
		stream, err := client.Usage(ctx, &orchv1.UsageRequest{Nodes: x.nodes, Namespace: x.namespace})
		if err != nil {
			return nil, err
		}
		var list []*orchv1.NodeUsage
		for {
			n, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return list, nil
			}
			if err != nil {
				return nil, err
			}
			list = append(list, n)
		}
	})
	slices.SortFunc(u.usages, func(a, b *orchv1.NodeUsage) int { return naturally(a.GetNode(), b.GetNode()) })
	return u, err
}
