package orchctl

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/orchctl/orch/manifests/schema"
)

func (t *tool) schemaCmd() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of manifests, for editors",
		Long: `Print the JSON Schema (draft 2020-12) of manifests: what may stand where, what it means,
what holds where it is left out. Editors complete and check with it as one writes; with
the YAML language server this is the first line of a manifest:

  # yaml-language-server: $schema=./orch.schema.json

It asks no controller. What hangs on several fields or on the fleet only apply can tell:
orchctl apply --dry-run.`,
		Example: `  orchctl schema -o orch.schema.json
  orchctl schema | jq '."$defs".Rollout'`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if file == "" || file == "-" {
				_, err := t.Out.Write(schema.JSON())
				return err
			}
			if err := os.WriteFile(file, schema.JSON(), 0o644); err != nil {
				return fmt.Errorf("write the schema to %s: %w", file, fileReason(err))
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "output", "o", "", "write it to this file; standard output without it")
	return cmd
}
