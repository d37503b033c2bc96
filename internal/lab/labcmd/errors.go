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
		if check(cmd, words) == nil {
			return nil
		}
		for n := len(words) - 1; n >= 0; n-- {
			if check(cmd, words[:n]) == nil {
				return UsageError{fmt.Errorf("unexpected argument %q\nusage: %s", words[n], cmd.UseLine())}
			}
		}
		return UsageError{fmt.Errorf("an argument is missing\nusage: %s", cmd.UseLine())}
	}
}

// noSuchCommand refuses what follows `lab` and is no command of it.
func noSuchCommand(cmd *cobra.Command, words []string) error {
	if len(words) == 0 {
		return nil
	}
	return UsageError{fmt.Errorf("unknown command %q for %q; `%s --help` lists them", words[0], cmd.CommandPath(), cmd.CommandPath())}
}
