// Package daemontest holds the examples of configuration files against the flags
// of the program that reads them.
//
// Invariant: a flag that is added without a line in its example fails a test.
package daemontest

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/orchctl/orch/internal/daemon"
)

// setting is a line of an example that is ready to be used: "#key: value", without a
// space, where prose has one.
var setting = regexp.MustCompile(`(?m)^#([a-z][a-z0-9-]*:)`)

// CheckExample fails unless the example at path has exactly the flags of the
// program, each with its default, or with a value that is taken where the default
// is nothing. The flags in byHost have a default that the machine says.
func CheckExample(t *testing.T, program *cobra.Command, path string, byHost ...string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			t.Errorf("%s: %q takes effect: an example only shows: put a # before it", path, line)
		}
	}
	used := filepath.Join(t.TempDir(), filepath.Base(path))
	if err := os.WriteFile(used, setting.ReplaceAll(text, []byte("$1")), 0o600); err != nil {
		t.Fatal(err)
	}
	program.RunE = func(*cobra.Command, []string) error { return nil }
	program.SetArgs([]string{"--" + daemon.FlagConfig, used})
	if err := program.Execute(); err != nil {
		t.Errorf("%s is not taken: %v", path, err)
		return
	}
	program.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		none := slices.Contains([]string{"", "[]"}, f.DefValue)
		switch {
		case !daemon.IsKey(f) || f.Hidden:
		case !f.Changed:
			t.Errorf("%s has no line for --%s: add a comment that says what it is for, and #%s: %s", path, f.Name, f.Name, f.DefValue)
		case !none && !slices.Contains(byHost, f.Name) && f.Value.String() != f.DefValue:
			t.Errorf("%s: %s: shows %s, the default is %s", path, f.Name, f.Value, f.DefValue)
		}
	})
}
