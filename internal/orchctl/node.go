package orchctl

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// nodeWords are the words that an operator may say of a node.
var nodeWords = map[string]struct{ done, short, long string }{
	"cordon":   {"cordoned", "Give nodes no new replicas", "Give nodes no new replicas; what runs there stays. `orchctl drain` moves that, too."},
	"uncordon": {"uncordoned", "Give nodes new replicas again", "Let nodes have new replicas again, and end their drains. What has moved stays where\nit is; `orchctl rebalance` moves some of it back."},
	"dead": {"declared dead", "Declare a node dead, which nobody can be sure of but you", `Declare nodes dead: what was placed on them is void, and its spares are the
replicas now.

You seldom need to. Traffic leaves a silent node and spares start elsewhere
within a second, without anybody's word, and after a minute of confirmed silence
the node is dead by itself. Say it

  - of a node whose power is off for good, to have all its replicas filled now:
    spares are budgeted, and a dead node's replicas are not;
  - while the fleet is frozen (orchctl describe fleet), of single nodes that you
    know are off; of all that are silent: orchctl fleet thaw;
  - before orchctl node remove.

Do not say it of a node that is only cut off: what runs there runs on until the
node is back, and is stopped then, even if it is the older copy. Slots of
exclusive services wait for their leases all the same: no word shortens them.
Of a node that answers it takes --force.`},
	"remove-orphans": {"is rid of its orphans", "Stop what runs there from before a restore", `Stop containers that are of another life of the cluster's store, and remove what is left
of them. They are left alone after a restore from a backup that does not know them:
orchctl describe node lists them. Apply again what you want to keep running first, or its
clients notice. Volumes stay.`},
	"remove": {"removed", "Forget a node that will not come back", `Forget nodes that are gone for good: their names, addresses and certificates are
free, or worth nothing, from then on.

A machine that was removed and is switched on again does not rejoin by itself: its
agent is refused, and logs "it was removed from the cluster: join again". To take it
in again, under this name or another:

  - make a token: orchctl token create > orch-token
  - on the machine, stop the agent and delete its old identity: rm -r /var/lib/orch/agent/pki
  - start the agent with --token-file orch-token

It then gets a subnet as any new node does, and what is left of its old replicas goes.`},
}

// afterwards is told once behind what a word did.
var afterwards = map[string]string{
	"remove": "a machine of that name has to join anew: `orchctl node remove --help` says how\n",
}

func (t *tool) nodeCmd() *cobra.Command {
	return group("node", "Declare nodes dead, remove them or what is left on them", `  orchctl node dead n2         # its power is off: do not wait any longer
  orchctl node remove n2`,
		t.wordCmd("node ", "dead"), t.wordCmd("node ", "remove"), t.wordCmd("node ", "remove-orphans"))
}

// nodeNames reads nodes' names, with or without "node/".
func nodeNames(args []string) ([]string, error) {
	var out []string
	for _, name := range args {
		if kind, rest, ok := cutKind(name); ok {
			if kind != api.KindNode {
				return nil, usagef("%q is no node", name)
			}
			name = rest
		}
		if name == "" {
			return nil, usagef("the name of a node is missing")
		}
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out, nil
}

// say tells the controller an operator's word on nodes.
func (t *tool) say(ctx context.Context, word string, names []string, need string, force bool, done string) error {
	client, err := t.connect(ctx, word+" node", true)
	if err != nil {
		return err
	}
	said := 0
	failed := each(ctx, t, names, func(name string) error {
		_, err := change(ctx, t, word+" node/"+name, need, func(ctx context.Context) (*orchv1.NodeWordResponse, error) {
			return client.NodeWord(ctx, &orchv1.NodeWordRequest{Node: name, Word: word, Force: force})
		})
		return err
	}, func(name string) error {
		said++
		return t.printf("node/%s %s\n", name, done)
	})
	if said > 0 {
		fmt.Fprint(t.Err, afterwards[word])
	}
	return failed
}

// wordCmd makes the command that says a word; under is what stands before it.
func (t *tool) wordCmd(under, say string) *cobra.Command {
	about := nodeWords[say]
	need := operator
	if say == "dead" || say == "remove" || say == "remove-orphans" { // these void what runs there
		need = admin
	}
	force := false
	cmd := &cobra.Command{
		Use:               say + " NODE...",
		Short:             about.short,
		Long:              about.long,
		Example:           "  orchctl " + under + say + " n1",
		Args:              usageArgs(cobra.MinimumNArgs(1)),
		ValidArgsFunction: beginning(t.completeNames(api.KindNode)),
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := nodeNames(args)
			if err != nil {
				return err
			}
			return t.say(cmd.Context(), say, names, need, force, about.done)
		},
	}
	if say == "dead" {
		cmd.Flags().BoolVar(&force, "force", false, "also of a node that answers")
	}
	return cmd
}
