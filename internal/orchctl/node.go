package orchctl

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// nodeWords are the words that an operator may say of a node.
var nodeWords = map[string]struct{ done, short, long string }{
	"cordon":   {"cordoned", "Give a node no new replicas", "Give nodes no new replicas; what runs there stays."},
	"uncordon": {"uncordoned", "Give a node new replicas again", "Let nodes have new replicas again."},
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
	"remove": {"removed", "Forget a node that will not come back", `Forget nodes that are gone for good. A removed node has to join anew, with a
token.`},
}

func (t *tool) nodeCmd() *cobra.Command {
	return group("node", "Take nodes out of scheduling, declare them dead, remove them", `  orchctl node cordon n1 && orchctl node uncordon n1
  orchctl node dead n2         # its power is off: do not wait any longer
  orchctl node remove n2`,
		t.wordCmd("cordon"), t.wordCmd("uncordon"), t.wordCmd("dead"), t.wordCmd("remove"))
}

func (t *tool) wordCmd(say string) *cobra.Command {
	about := nodeWords[say]
	need := operator
	if say == "dead" || say == "remove" { // these void what runs there
		need = admin
	}
	force := false
	tell := func(ctx context.Context, client orchv1.OrchClient, name string) error {
		_, err := change(ctx, t, say+" node/"+name, need, func(ctx context.Context) (*orchv1.NodeWordResponse, error) {
			return client.NodeWord(ctx, &orchv1.NodeWordRequest{Node: name, Word: say, Force: force})
		})
		return err
	}
	cmd := &cobra.Command{
		Use:               say + " NODE...",
		Short:             about.short,
		Long:              about.long,
		Example:           "  orchctl node " + say + " n1",
		Args:              usageArgs(cobra.MinimumNArgs(1)),
		ValidArgsFunction: beginning(t.completeNames(api.KindNode)),
		RunE: func(cmd *cobra.Command, names []string) error {
			ctx := cmd.Context()
			client, err := t.connect(ctx, say+" node", true)
			if err != nil {
				return err
			}
			var failed error
			for _, name := range names {
				if kind, rest, ok := cutKind(name); ok {
					if kind != api.KindNode {
						return usagef("%q is no node", name)
					}
					name = rest
				}
				err := tell(ctx, client, name)
				switch {
				case err != nil && ctx.Err() != nil:
					return err
				case err != nil: // the others were named as well
					failed = t.alsoMissing(failed, err)
				default:
					if err := t.printf("node/%s %s\n", name, about.done); err != nil {
						return errors.Join(failed, err)
					}
				}
			}
			return failed
		},
	}
	if say == "dead" {
		cmd.Flags().BoolVar(&force, "force", false, "also of a node that answers")
	}
	return cmd
}
