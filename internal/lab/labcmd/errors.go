package labcmd

import (
	"fmt"

	"github.com/spf13/cobra"
)

// UsageError is a command line that makes no sense.
type UsageError struct{ Err error }

func (e UsageError) Error() string { return e.Err.Error() }
func (e UsageError) Unwrap() error { return e.Err }

// ExitCode is orchctl's code for bad usage.
func (e UsageError) ExitCode() int { return 2 }

// args makes a check of arguments answer with a UsageError that shows the
// right form.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, words []string) error {
		if err := check(cmd, words); err != nil {
			return UsageError{fmt.Errorf("%w\nusage: %s", err, cmd.UseLine())}
		}
		return nil
	}
}
