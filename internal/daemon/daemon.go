package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// EnvPrefix: --node-token-file is also ORCH_NODE_TOKEN_FILE.
const EnvPrefix = "ORCH_"

// UsageError is a mistake on the command line or in the environment.
type UsageError struct{ error }

// Usagef makes a UsageError.
func Usagef(format string, args ...any) error { return UsageError{fmt.Errorf(format, args...)} }

// Prepare gives a daemon's command what all have: only flags, each from the
// environment and the daemon's ConfigFile too, and errors that Main prints.
func Prepare(cmd *cobra.Command, lookup func(string) (string, bool)) {
	cmd.Args = func(_ *cobra.Command, words []string) error {
		if len(words) > 0 {
			return Usagef("unexpected argument %q: there are only flags", words[0])
		}
		return nil
	}
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return UsageError{inWords(cmd.Flags(), err)} })
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := fromEnvironment(cmd.Flags(), lookup); err != nil {
			return err
		}
		return fromFile(cmd)
	}
}

// inWords says what a flag wants where Go's own words would stand, and which was likely
// meant where there is none of that name.
func inWords(flags *pflag.FlagSet, err error) error {
	text := err.Error()
	if name, ok := strings.CutPrefix(text, "unknown flag: --"); ok {
		var names []string
		flags.VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				names = append(names, f.Name)
			}
		})
		if near := Near(name, names); len(near) > 0 {
			return fmt.Errorf("%w; did you mean --%s?", err, strings.Join(near, ", --"))
		}
		return fmt.Errorf("%w; --help lists them", err)
	}
	for _, x := range []struct{ from, want string }{
		{"strconv.ParseBool", "want true or false"}, {"strconv.", "want a whole number"}, {"time: ", "want a duration, such as 30s or 5m"},
	} {
		if i := strings.Index(text, x.from); i >= 0 {
			return errors.New(text[:i] + x.want)
		}
	}
	return err
}

// fromEnvironment sets flags that the command line leaves out.
func fromEnvironment(flags *pflag.FlagSet, lookup func(string) (string, bool)) (err error) {
	flags.VisitAll(func(f *pflag.Flag) {
		name := EnvPrefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value, ok := lookup(name)
		if f.Changed || !ok || err != nil || !IsKey(f) {
			return
		}
		if serr := flags.Set(f.Name, value); serr != nil {
			err = Usagef("environment variable %s: %w", name, inWords(flags, serr))
		}
	})
	return err
}

// Main runs the command until it ends or the program is told to stop, and exits:
// 0 done, 1 failed, 2 bad usage.
func Main(cmd *cobra.Command) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := cmd.ExecuteContext(ctx)
	stop()
	if err == nil {
		return
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", cmd.Name(), err)
	if errors.As(err, new(UsageError)) {
		os.Exit(2)
	}
	os.Exit(1)
}
