package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// program is a daemon with a command under it that has some of its flags.
type program struct {
	name, token      string
	port             int
	loud             bool
	wait             time.Duration
	join, keep, tags []string
	yes              bool
}

func (p *program) command(env map[string]string, usual string) *cobra.Command {
	lookup := func(k string) (string, bool) { v, ok := env[k]; return v, ok }
	done := func(*cobra.Command, []string) error { return nil }
	cmd := &cobra.Command{Use: "x", RunE: done}
	Prepare(cmd, lookup)
	f := cmd.Flags()
	f.StringVar(&p.name, "node-name", "n0", "")
	f.StringVar(&p.token, "token", "", "")
	f.IntVar(&p.port, "port", 1, "")
	f.BoolVar(&p.loud, "loud", false, "")
	f.DurationVar(&p.wait, "wait", time.Second, "")
	f.StringSliceVar(&p.join, "join", nil, "")
	f.StringSliceVar(&p.keep, "keep", []string{"22"}, "")
	f.StringArrayVar(&p.tags, "tag", nil, "")
	Pairs(f, "tag")
	Secret(f, "token")
	under := &cobra.Command{Use: "under", RunE: done}
	Prepare(under, lookup)
	under.Flags().StringVar(&p.name, "node-name", "n0", "")
	under.Flags().BoolVar(&p.yes, "yes", false, "")
	cmd.AddCommand(under)
	ConfigFile(cmd, usual)
	return cmd
}

func (p *program) String() string {
	return fmt.Sprintf("%s %d %v %s join=%q keep=%q tags=%q", p.name, p.port, p.loud, p.wait, p.join, p.keep, p.tags)
}

func TestConfigFile(t *testing.T) {
	const usual = `n0 1 false 1s join=[] keep=["22"] tags=[]`
	for name, c := range map[string]struct {
		file string
		args []string
		env  map[string]string
		want string // of the flags, or of the error where it begins with "!", which FILE stands in
	}{
		"empty":                {"", nil, nil, usual},
		"only comments":        {"# nothing\n", nil, nil, usual},
		"a key without value":  {"node-name:\n", nil, nil, usual},
		"scalars":              {"node-name: a\nport: 7\nloud: true\nwait: 3s\n", nil, nil, `a 7 true 3s join=[] keep=["22"] tags=[]`},
		"quoted":               {"node-name: \"12\"\nport: \"7\"\n", nil, nil, `12 7 false 1s join=[] keep=["22"] tags=[]`},
		"lists":                {"join: [a:1, b:2]\nkeep: []\ntag:\n  - a=1,2\n  - b=3\n", nil, nil, `n0 1 false 1s join=["a:1" "b:2"] keep=[] tags=["a=1,2" "b=3"]`},
		"a list as one text":   {"join: a:1,b:2\ntag: a=1,2\n", nil, nil, `n0 1 false 1s join=["a:1" "b:2"] keep=["22"] tags=["a=1,2"]`},
		"a map":                {"tag: {zone: eu-1, disk: 2}\n", nil, nil, `n0 1 false 1s join=[] keep=["22"] tags=["zone=eu-1" "disk=2"]`},
		"an alias":             {"join: &j [a:1]\nkeep: *j\n", nil, nil, `n0 1 false 1s join=["a:1"] keep=["a:1"] tags=[]`},
		"environment over it":  {"node-name: a\nport: 7\njoin: [a:1]\n", nil, map[string]string{"ORCH_PORT": "8", "ORCH_JOIN": "b:2"}, `a 8 false 1s join=["b:2"] keep=["22"] tags=[]`},
		"command line over it": {"node-name: a\nport: 7\n", []string{"--port", "9"}, map[string]string{"ORCH_PORT": "8"}, `a 9 false 1s join=[] keep=["22"] tags=[]`},
		"under":                {"node-name: a\nport: 7\n", []string{"under"}, nil, `a 1 false 1s join=[] keep=["22"] tags=[]`},

		"unknown":             {"port: 7\njoins: [a:1]\n", nil, nil, `!FILE:2: unknown key "joins": did you mean join? keys are the names of flags`},
		"far off":             {"shade: red\n", nil, nil, `!FILE:1: unknown key "shade": keys are the names`},
		"underscore":          {"node_name: a\n", nil, nil, `!did you mean node-name?`},
		"unknown, under":      {"\nprot: 7\n", []string{"under"}, nil, `!FILE:2: unknown key "prot": did you mean port?`},
		"no flag of a daemon": {"yes: true\n", []string{"under"}, nil, `!FILE:1: unknown key "yes"`},
		"no key":              {"config: a\n", nil, nil, `!FILE:1: unknown key "config"`},
		"help":                {"help: true\n", nil, nil, `!FILE:1: unknown key "help"`},
		"bad number":          {"node-name: a\nport: x\n", nil, nil, `!FILE:2: port: "x": want a whole number`},
		"bad duration":        {"wait: 3\n", nil, nil, `!FILE:1: wait: "3": want a duration, such as 30s or 5m`},
		"list for one":        {"port:\n  - 1\n", nil, nil, `!FILE:2: port: want a single value`},
		"map for a list":      {"join: {a: 1}\n", nil, nil, `!FILE:1: join: want a list of values`},
		"deep":                {"tag:\n  a:\n    b: c\n", nil, nil, `!FILE:3: tag: a: want a single value`},
		"list in a list":      {"join: [[a]]\n", nil, nil, `!FILE:1: join: want a list of single values`},
		"twice":               {"port: 1\nloud: true\nport: 2\n", nil, nil, `!FILE:3: port is there twice, in line 1 too`},
		"two documents":       {"port: 1\n---\nport: 2\n", nil, nil, `!read FILE: more than one document`},
		"a list":              {"- port\n", nil, nil, `!FILE:1: want keys and values`},
		"no YAML":             {"port: [\n", nil, nil, `!read FILE: line `},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.yaml")
			if err := os.WriteFile(path, []byte(c.file), 0o644); err != nil {
				t.Fatal(err)
			}
			var p program
			cmd := p.command(c.env, path)
			cmd.SetArgs(append([]string{}, c.args...))
			err := cmd.Execute()
			if want, bad := strings.CutPrefix(c.want, "!"); bad {
				if want = strings.ReplaceAll(want, "FILE", path); !errors.As(err, new(UsageError)) || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v, want the usage error %s", err, want)
				}
			} else if err != nil || p.String() != c.want {
				t.Errorf("got  %v, %v\nwant %s", &p, err, c.want)
			}
		})
	}
}

// TestConfigFileNamed: the usual file may be missing, one that is named may not.
func TestConfigFileNamed(t *testing.T) {
	dir := t.TempDir()
	other := filepath.Join(dir, "other.yaml")
	if err := os.WriteFile(other, []byte("port: 7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		port int
		want string
	}{
		"usual and missing": {nil, 1, ""},
		"named":             {[]string{"--config", other}, 7, ""},
		"named for under":   {[]string{"under", "--config=" + other}, 1, ""},
		"none":              {[]string{"--config", ""}, 1, ""},
		"named and missing": {[]string{"--config", filepath.Join(dir, "nope")}, 1, "--config: open " + filepath.Join(dir, "nope")},
		"a folder":          {[]string{"--config", dir}, 1, "--config: read " + dir},
	} {
		var p program
		// ORCH_CONFIG is orchctl's.
		cmd := p.command(map[string]string{"ORCH_CONFIG": dir}, filepath.Join(dir, "usual.yaml"))
		cmd.SetArgs(append([]string{}, c.args...))
		err := cmd.Execute()
		if p.port != c.port || (c.want == "") != (err == nil) || err != nil && !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: port %d, %v", name, p.port, err)
		}
	}
}

// TestSecretInAFile: a token that others may read is told, and taken all the same.
func TestSecretInAFile(t *testing.T) {
	for name, c := range map[string]struct {
		file string
		mode os.FileMode
		warn bool
	}{
		"all may read":  {"token: abc\n", 0o644, true},
		"a group may":   {"token: abc\n", 0o640, true},
		"owner only":    {"token: abc\n", 0o600, false},
		"no token":      {"port: 7\n", 0o644, false},
		"no value":      {"token:\n", 0o644, false},
		"given by flag": {"port: 7\n#token: abc\n", 0o644, false},
	} {
		path := filepath.Join(t.TempDir(), "x.yaml")
		if err := os.WriteFile(path, []byte(c.file), c.mode); err != nil {
			t.Fatal(err)
		}
		var p program
		var said bytes.Buffer
		cmd := p.command(nil, path)
		cmd.SetErr(&said)
		cmd.SetArgs([]string{"--node-name", "n1"})
		if err := cmd.Execute(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := strings.Contains(said.String(), "x: warning: "+path+" holds token and others may read it: chmod 600"); got != c.warn {
			t.Errorf("%s: said %q, want a warning: %v", name, said.String(), c.warn)
		}
	}
}
