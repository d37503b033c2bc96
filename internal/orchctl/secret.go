package orchctl

import (
	"context"

	"github.com/spf13/cobra"

	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

func (t *tool) secretCmd() *cobra.Command {
	return group("secret", "Look after the key that secrets are encrypted with",
		`  orchctl secret rotate-key`,
		t.rotateKeyCmd())
}

func (t *tool) rotateKeyCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "rotate-key",
		Short: "Make a new key for secrets, and encrypt all of them anew",
		Long: `Make a new key for secrets, and encrypt all of them anew with it; the old one is
dropped when nothing needs it any more. The values stay as they are, and so nothing is
restarted. Where it was interrupted, do it again: it goes on.

The key file of the controllers changes: back it up again.`,
		Example: `  orchctl secret rotate-key`,
		Args:    usageArgs(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return t.rotateKey(cmd.Context()) },
	}
}

// rotateKey asks once: each time it is asked for, a key is made.
func (t *tool) rotateKey(ctx context.Context) error {
	const doing = "rotate the key of secrets"
	client, err := t.connect(ctx, doing, true)
	if err != nil {
		return err
	}
	limited, cancel := t.limited(ctx)
	defer cancel()
	answer, err := client.RotateSecretKey(limited, &orchv1.RotateSecretKeyRequest{})
	if err != nil {
		return t.failed(err, doing, admin)
	}
	return t.printf("secrets are encrypted with key %s now: %s encrypted anew\n", cleanText(answer.GetKey()), count(int(answer.GetVersions()), "version"))
}
