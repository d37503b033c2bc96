package daemon

import (
	"errors"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestCommandLine(t *testing.T) {
	env := map[string]string{"ORCH_NODE_NAME": "from-env", "ORCH_PORT": "7"}
	for _, c := range []struct {
		name string
		args []string
		env  map[string]string
		want string // of the flags, or of the error where it begins with "!"
	}{
		{"defaults", nil, nil, "n0 1"},
		{"environment", nil, env, "from-env 7"},
		{"the command line goes first", []string{"--node-name", "x"}, env, "x 7"},
		{"bad environment", nil, map[string]string{"ORCH_PORT": "x"}, `!environment variable ORCH_PORT: invalid argument "x"`},
		{"unknown flag", []string{"--nope"}, nil, "!unknown flag: --nope; --help lists them"},
		{"a flag misspelt", []string{"--nodename=x"}, nil, "!unknown flag: --nodename; did you mean --node-name?"},
		{"no number", []string{"--port=many"}, nil, `!invalid argument "many" for "--port" flag: want a whole number`},
		{"a word", []string{"up"}, nil, `!unexpected argument "up": there are only flags`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var name string
			var port int
			cmd := &cobra.Command{Use: "x", RunE: func(*cobra.Command, []string) error { return nil }}
			cmd.Flags().StringVar(&name, "node-name", "n0", "")
			cmd.Flags().IntVar(&port, "port", 1, "")
			Prepare(cmd, func(k string) (string, bool) { v, ok := c.env[k]; return v, ok })
			cmd.SetArgs(append([]string{}, c.args...))
			err := cmd.Execute()
			if want, bad := strings.CutPrefix(c.want, "!"); bad {
				if !errors.As(err, new(UsageError)) || !strings.HasPrefix(err.Error(), want) {
					t.Errorf("error %v, want the usage error %s", err, want)
				}
				return
			}
			if got := strings.TrimSpace(strings.Join([]string{name, string(rune('0' + port))}, " ")); err != nil || got != c.want {
				t.Errorf("%s, %v; want %s", got, err, c.want)
			}
		})
	}
}
