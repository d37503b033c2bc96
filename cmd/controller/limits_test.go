package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/internal/daemon"
	"github.com/orchctl/orch/internal/metrics"
)

var update = flag.Bool("update", false, "rewrite the table of limits in docs/operations.md")

func TestSetLimits(t *testing.T) {
	for _, c := range []struct{ text, want string }{ // what is changed then, or the error after "!"
		{"dead-after=90s", "dead-after=1m30s"},
		{"dead-after=90s,mass-share=25%", "dead-after=1m30s mass-share=25%"},
		{"dead-after=90s, witnesses=5", "witnesses=5 dead-after=1m30s"},
		{"dead-after=1m", ""},
		{"dead-afer=90s", `!there is no limit "dead-afer": did you mean dead-after? ` + "`controller limits` lists them"},
		{"Dead-After=90s", `!did you mean dead-after?`},
		{"mass=3", "!did you mean mass-min, mass-share, mass-window?"},
		{"colour=red", `!there is no limit "colour": ` + "`controller limits` lists them"},
		{"dead-after", `!"dead-after": want name=value, such as dead-after=90s`},
		{"spares-share=10%,dead-after=90s", "dead-after=1m30s spares-share=10%"},
		{"=90s", "!want name=value"},
		{"", "!want name=value"},
		{"dead-after=90", "!set limit dead-after to \"90\": want a duration"},
		{"mass-share=120%", "!want a share"},
	} {
		var l limits
		err := l.Set(c.text)
		if want, bad := strings.CutPrefix(c.want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: error %v, want %s", c.text, err, want)
			}
		} else if got := strings.Join(l.changed(), " "); err != nil || got != c.want || l.check() != nil {
			t.Errorf("%q: changed %s, %v, %v; want %s", c.text, got, err, l.check(), c.want)
		}
	}
}

// TestLimitNames: one name, one limit, and each can be set to what it is.
func TestLimitNames(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range (&limits{}).rows() {
		if seen[r.Name] {
			t.Errorf("two limits are called %s", r.Name)
		}
		seen[r.Name] = true
		if r.What == "" || r.Unit == "" || r.Value != r.Default {
			t.Errorf("%+v", r)
		}
		var l limits
		if err := l.Set(r.Name + "=" + r.Value); err != nil || l.changed() != nil {
			t.Errorf("%s=%s: %v, changed %v", r.Name, r.Value, err, l.changed())
		}
	}
	if len(seen) < 20 {
		t.Errorf("only %d limits", len(seen))
	}
}

// TestLimitsTogether: what makes no sense together is told before anything starts.
func TestLimitsTogether(t *testing.T) {
	cmd := command()
	cmd.SetArgs([]string{"--limit", "dead-after=5ms", "--data", filepath.Join(t.TempDir(), "data")})
	err := cmd.Execute()
	if !errors.As(err, new(daemon.UsageError)) || !strings.Contains(err.Error(), "--limit: dead-after 5ms is below agent-lost-after 1s; ") {
		t.Errorf("got %v", err)
	}
}

func TestLimitsReachTheController(t *testing.T) {
	c := &config{listen: "127.0.0.1:0", gossipAddr: gossipOff, metricsAddr: metrics.Off, data: t.TempDir()}
	if err := errors.Join(c.limits.Set("dead-after=90s,spares-min=7"), c.complete()); err != nil || c.limits.liveness.DeadAfter != 90*time.Second || c.limits.budgets.SparesMin != 7 {
		t.Errorf("%v, %v", c.limits, err)
	}
}

func TestLimitsCommand(t *testing.T) {
	run := func(args ...string) (string, error) {
		var out bytes.Buffer
		cmd := command()
		cmd.SetOut(&out)
		cmd.SetArgs(append([]string{"limits"}, args...))
		err := cmd.Execute()
		return out.String(), err
	}
	got, err := run("--limit", "dead-after=90s", "--limit", "mass-share=0.25")
	for _, want := range []string{"NAME VALUE DEFAULT UNIT WHAT", "dead-after 1m30s 1m time", "mass-share 25% 20% share", "witnesses 3 same number"} {
		if err != nil || !strings.Contains(strings.Join(strings.Fields(got), " "), want) {
			t.Errorf("%v: no %q in\n%s", err, want, got)
		}
	}
	t.Setenv("ORCH_LIMIT", "dead-after=90s,witnesses=5")
	var rows []limitRow
	if got, err = run("-o", "json"); err != nil || json.Unmarshal([]byte(got), &rows) != nil {
		t.Fatal(err, got)
	}
	i := slices.IndexFunc(rows, func(r limitRow) bool { return r.Name == "witnesses" })
	if i < 0 || rows[i].Value != "5" || rows[i].Default != "3" {
		t.Errorf("from the environment: %+v", rows)
	}
	t.Setenv("ORCH_LIMIT", "")
	os.Unsetenv("ORCH_LIMIT")
	for _, bad := range [][]string{{"-o", "xml"}, {"x"}, {"--limit", "x=1"}, {"--limit", "dead-after=5ms"}} {
		if got, err := run(bad...); !errors.As(err, new(daemon.UsageError)) || got != "" {
			t.Errorf("%v: %v, %q", bad, err, got)
		}
	}
}

// TestOperationsListsLimits keeps the table of docs/operations.md current.
func TestOperationsListsLimits(t *testing.T) {
	const file, begin, end = "../../docs/operations.md", "<!-- limits: go test ./cmd/controller -update -->\n", "<!-- end of limits -->\n"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	have, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no table of limits between %q and %q", file, begin, end)
	}
	var b strings.Builder
	b.WriteString("| limit | default | what |\n|---|---|---|\n")
	for _, r := range (&limits{}).rows() {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", r.Name, r.Default, r.What)
	}
	if *update {
		if err := os.WriteFile(file, []byte(before+begin+b.String()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if have != b.String() {
		t.Errorf("the table of limits in %s is old: go test ./cmd/controller -update", file)
	}
}
