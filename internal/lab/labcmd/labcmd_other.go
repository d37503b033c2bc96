//go:build !linux

package labcmd

import (
	"github.com/spf13/cobra"

	"github.com/orchctl/orch/internal/lab"
)

// New makes the command `lab`, which says that it needs Linux.
func New() *cobra.Command {
	return &cobra.Command{
		Use:                "lab",
		Short:              "Make a fleet on this machine, and break it (Linux only)",
		DisableFlagParsing: true,
		SilenceUsage:       true,
		SilenceErrors:      true,
		RunE:               func(*cobra.Command, []string) error { return lab.ErrNeedsLinux },
	}
}
