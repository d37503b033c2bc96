package orchctl

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// hashShown is how much of a CA's hash is shown: enough to name it by.
const hashShown = 12

// holdersShown is how many nodes or users a cell names.
const holdersShown = 5

func (t *tool) caCmd() *cobra.Command {
	return group("ca", "Show and change the CA that everybody in the cluster is known by", `  orchctl ca list
  orchctl ca rotate
  orchctl ca retire 5f3a9c`,
		t.caList(), t.caRotate(), t.caRetire())
}

func (t *tool) caList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the CAs that are trusted, and who has a certificate of which", Example: "  orchctl ca list", Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := t.authorities(cmd.Context())
			if err != nil {
				return err
			}
			var rows [][]string
			for _, x := range list {
				state := "trusted"
				if x.GetSigning() {
					state = "signs"
				}
				rows = append(rows, []string{shortHash(x), state, age(t.Now(), x.GetCreated().AsTime()), t.until(x.GetExpires()), few(x.GetNodes()), few(x.GetUsers())})
			}
			return newTable("HASH", "STATE", "AGE", "EXPIRES", "NODES", "USERS").print(t.Out, "", rows...)
		},
	}
}

func shortHash(x *orchv1.Authority) string { return x.GetHash()[:min(len(x.GetHash()), hashShown)] }

// few names the first, and how many there are.
func few(names []string) string {
	if len(names) == 0 {
		return "-"
	}
	if len(names) <= holdersShown {
		return strings.Join(names, ",")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:holdersShown], ","), len(names)-holdersShown)
}

func (t *tool) authorities(ctx context.Context) ([]*orchv1.Authority, error) {
	client, err := t.connect(ctx, "list CAs", false)
	if err != nil {
		return nil, err
	}
	answer, err := read(ctx, t, "list CAs", admin, func(ctx context.Context) (*orchv1.ListAuthoritiesResponse, error) {
		return client.ListAuthorities(ctx, &orchv1.ListAuthoritiesRequest{})
	})
	return answer.GetAuthorities(), err
}

func (t *tool) caRotate() *cobra.Command {
	return &cobra.Command{
		Use:   "rotate",
		Short: "Make a new CA, from which nodes and users get their certificates",
		Long: `Make a new CA, from which nodes and users get their certificates from then on. The old
one stays trusted until ` + "`orchctl ca retire`" + `: nothing is interrupted, and nobody has to do
anything at once. Nodes that are connected get new certificates within seconds, others
when they are back. Users get new ones from an admin, who says
` + "`orchctl user create NAME --role ROLE --replace`" + `; the admin's file on the controller
is renewed by itself.

` + "`orchctl ca list`" + ` shows who still has a certificate of the old one.`,
		Example: "  orchctl ca rotate", Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			const doing = "rotate the CA"
			client, err := t.connect(cmd.Context(), doing, true)
			if err != nil {
				return err
			}
			// Not repeated like other changes: each try would make a CA.
			answer, err := ask(cmd.Context(), t, doing, admin, 0, func(ctx context.Context) (*orchv1.RotateAuthorityResponse, error) {
				return client.RotateAuthority(ctx, &orchv1.RotateAuthorityRequest{})
			})
			if err != nil {
				return err
			}
			return t.printf("CA %s signs from now on; when `orchctl ca list` shows nobody with the old one any more, end the trust in it with `orchctl ca retire HASH`\n", shortHash(answer.GetAuthority()))
		},
	}
}

func (t *tool) caRetire() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "retire HASH",
		Short: "End the trust in a CA that signs no more",
		Long: `End the trust in a CA that signs no more, named by the beginning of its hash. From then
on certificates and join tokens of it are refused. It is not done while a node or a user
still has a certificate of it; --force does it nevertheless. A user who is locked out so
needs a new certificate from an admin, and a node that was not connected has to join anew:
empty its pki folder and give it a fresh token, after ` + "`orchctl node remove NODE`" + `.`,
		Example: "  orchctl ca retire 5f3a9c", Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			doing := "retire the CA " + args[0]
			client, err := t.connect(cmd.Context(), doing, true)
			if err != nil {
				return err
			}
			if _, err := ask(cmd.Context(), t, doing, admin, 0, func(ctx context.Context) (*orchv1.RetireAuthorityResponse, error) {
				return client.RetireAuthority(ctx, &orchv1.RetireAuthorityRequest{Hash: args[0], Force: force})
			}); err != nil {
				return err
			}
			return t.printf("CA %s is retired: what it signed is refused from now on\n", args[0])
		},
		ValidArgsFunction: func(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
			ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
			defer cancel()
			list, err := t.authorities(ctx)
			if err != nil || len(given) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var out []string
			for _, x := range list {
				if !x.GetSigning() {
					out = append(out, shortHash(x))
				}
			}
			return out, cobra.ShellCompDirectiveNoFileComp
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "although nodes or users have certificates of it")
	return cmd
}

func (t *tool) gossipCmd() *cobra.Command {
	rotate := &cobra.Command{
		Use:   "rotate-key",
		Short: "Give gossip between nodes a new key",
		Long: `Give gossip between nodes a new key: all are told it, then it is used, then the old one
is forgotten. It takes some seconds and interrupts nothing: gossip is only a hint, and a
node that was away gets the keys when it is back.`,
		Example: "  orchctl gossip rotate-key", Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			const doing = "rotate gossip's key"
			client, err := t.connect(cmd.Context(), doing, true)
			if err != nil {
				return err
			}
			// Asked once: each try would make a key.
			limited, cancel := t.limited(cmd.Context())
			defer cancel()
			answer, err := client.RotateGossipKey(limited, &orchv1.RotateGossipKeyRequest{})
			if err != nil {
				return t.failed(err, doing, admin)
			}
			return t.printf("gossip is encrypted with key %s now; the old one is worth nothing\n", cleanText(answer.GetKey()))
		},
	}
	return group("gossip", "Look after the key of gossip between nodes", "  orchctl gossip rotate-key", rotate)
}
