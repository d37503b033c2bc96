//go:build !linux

package drill

import (
	"github.com/spf13/cobra"

	"github.com/orchctl/orch/internal/lab"
)

// Command makes `orchctl drill`, which says that it needs Linux.
func Command() *cobra.Command {
	return &cobra.Command{
		Use:                "drill",
		Short:              "Break a lab by a script, and check what is promised (Linux only)",
		DisableFlagParsing: true,
		SilenceUsage:       true,
		SilenceErrors:      true,
		RunE:               func(*cobra.Command, []string) error { return lab.ErrNeedsLinux },
	}
}
