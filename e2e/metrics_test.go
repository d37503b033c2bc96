package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/e2e/rig"
)

// promtool is got by `make promtool`.
func promtool(t *testing.T, stdin string, args ...string) {
	t.Helper()
	path := filepath.Join(rig.Root(), "out", "promtool")
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: `make promtool` gets it", err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 && args[1] == "metrics" {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// ask gets a path of the controller ("") or of a node's agent, and wants that code.
func ask(t *testing.T, node, path string, want int) string {
	t.Helper()
	d := fleet.Daemon(node)
	defer d.Close()
	code, body, err := d.Get(t.Context(), path)
	if err != nil || code != want {
		t.Fatalf("%s of %q: %d %v, want %d\n%s", path, node, code, err, want, body)
	}
	return body
}

// value gives the sum of a metric's series whose line has all of these words.
func value(t *testing.T, text, name string, words ...string) (sum float64) {
	t.Helper()
	found := false
	for line := range strings.Lines(text) {
		n := strings.IndexAny(line, "{ ")
		if n < 0 || line[:n] != name || slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			continue
		}
		var x float64
		if _, err := fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &x); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		sum, found = sum+x, true
	}
	if !found {
		t.Errorf("no series of %s with %q", name, words)
	}
	return sum
}

// seriesNames are those of a text, as a query writes them.
func seriesNames(text string) map[string]bool {
	out := map[string]bool{}
	for line := range strings.Lines(text) {
		if n := strings.IndexAny(line, "{ "); n > 0 && line[0] != '#' {
			out[line[:n]] = true
		}
	}
	return out
}

// TestMetrics looks at what real daemons tell: that it is well formed, that it is true,
// that it has all that the dashboard and the alerts ask for, and that a lost node's
// failover is measured.
func TestMetrics(t *testing.T) {
	apply(t, "counted", service("counted", 6, "", httpProbe))
	for _, node := range append([]string{""}, nodes...) {
		if got := ask(t, node, "/healthz", 200); got != "ok\n" {
			t.Errorf("/healthz of %q: %s", node, got)
		}
		if got := ask(t, node, "/readyz?verbose", 200); strings.Contains(got, "FAIL") || strings.Count(got, "\n") != 4 {
			t.Errorf("/readyz of %q: %s", node, got)
		}
	}
	controller, agent := ask(t, "", "/metrics", 200), ask(t, "n1", "/metrics", 200)
	promtool(t, controller, "check", "metrics")
	promtool(t, agent, "check", "metrics")
	prometheus := filepath.Join(rig.Root(), "deploy", "prometheus")
	promtool(t, "", "check", "rules", filepath.Join(prometheus, "alerts.yaml"))
	promtool(t, "", "check", "config", filepath.Join(prometheus, "scrape.yaml"))

	for _, c := range []struct {
		text, name string
		words      []string
		want       float64
	}{
		{controller, "orch_controller_leading", nil, 1},
		{controller, "orch_nodes", []string{`"Healthy"`}, float64(len(nodes))},
		{controller, "orch_sessions", nil, float64(len(nodes))},
		{controller, "orch_service_replicas_wanted", []string{`"counted"`}, 6},
		{controller, "orch_service_replicas_ready", []string{`"counted"`}, 6},
		{controller, "orch_service_endpoints", []string{`"counted"`}, 6},
		{agent, "orch_agent_session_up", nil, 1},
		{agent, "orch_agent_self_check_failing", nil, 0},
	} {
		if got := value(t, c.text, c.name, c.words...); got != c.want {
			t.Errorf("%s %q is %v, want %v", c.name, c.words, got, c.want)
		}
	}
	var here float64
	replicas, err := fleet.Replicas(t.Context(), "counted")
	must(t, err)
	for _, r := range replicas {
		if r.Spec.Node == "n1" {
			here++
			value(t, agent, "orch_container_cpu_seconds_total", `replica="`+r.Metadata.Name+`"`)
			if m := value(t, agent, "orch_container_memory_bytes", `replica="`+r.Metadata.Name+`"`); m < 100<<10 || m > 1<<30 {
				t.Errorf("%s uses %v bytes of memory", r.Metadata.Name, m)
			}
		}
	}
	for name, words := range map[string]string{"orch_agent_start_phase_duration_seconds_count": `"start"`, "orch_agent_probes_total": `"ok"`} {
		if got := value(t, agent, name, words); got < here {
			t.Errorf("%s with %s is %v, want at least %v", name, words, got, here)
		}
	}
	everythingAskedForIsThere(t, controller+agent)
	failoverIsMeasured(t)
}

// everythingAskedForIsThere holds dashboard and alerts against what is really told.
func everythingAskedForIsThere(t *testing.T, text string) {
	t.Helper()
	told := seriesNames(text)
	var d struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	b, err := os.ReadFile(filepath.Join(rig.Root(), "deploy", "grafana", "orch.json"))
	must(t, err)
	must(t, json.Unmarshal(b, &d))
	asked := ""
	for _, p := range d.Panels {
		for _, q := range p.Targets {
			asked += q.Expr + "\n"
		}
	}
	rules, err := os.ReadFile(filepath.Join(rig.Root(), "deploy", "prometheus", "alerts.yaml"))
	must(t, err)
	for line := range strings.Lines(string(rules)) {
		if _, query, ok := strings.Cut(line, " expr: "); ok {
			asked += query
		}
	}
	names := regexp.MustCompile(`\b(?:orch|process)_[a-z_]+`).FindAllString(asked, -1)
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) < 40 {
		t.Errorf("only %d names in dashboard and alerts", len(names))
	}
	for _, n := range names {
		if !told[n] {
			t.Errorf("dashboard or alerts ask for %s, which neither daemon tells", n)
		}
	}
}

// failoverIsMeasured cuts a node's power: Suspect within seconds, and each of its replicas
// replaced, is what the histograms then say.
func failoverIsMeasured(t *testing.T) {
	t.Helper()
	replicas, err := fleet.Replicas(t.Context(), "counted")
	must(t, err)
	lost := 0.0
	for _, r := range replicas {
		if r.Spec.Node == "n3" {
			lost++
		}
	}
	if lost == 0 {
		t.Fatal("no replica is on n3")
	}
	count := func(phase string) float64 {
		return value(t, ask(t, "", "/metrics", 200), "orch_failover_duration_seconds_count", `"`+phase+`"`)
	}
	detected, replaced := count("detect"), count("replace")
	must(t, fleet.Lab.KillNode(t.Context(), "n3"))
	t.Cleanup(func() {
		ctx := context.Background() // the test's is over
		must(t, fleet.Lab.StartNode(ctx, "n3"))
		must(t, fleet.WaitNodes(ctx, len(nodes)))
	})
	must(t, rig.Until(t.Context(), 20*time.Second, "the failover to be measured", func() error {
		if d, r := count("detect")-detected, count("replace")-replaced; d != 1 || r != lost {
			return fmt.Errorf("%v nodes detected, %v of %v replicas replaced", d, r, lost)
		}
		return nil
	}))
	text := ask(t, "", "/metrics", 200)
	if n := value(t, text, "orch_nodes", `"`+string(api.VerdictSuspect)+`"`) + value(t, text, "orch_nodes", `"`+string(api.VerdictDead)+`"`); n != 1 {
		t.Errorf("%v nodes are lost, want 1", n)
	}
	if mean := value(t, text, "orch_failover_duration_seconds_sum", `"total"`) / value(t, text, "orch_failover_duration_seconds_count", `"total"`); mean <= 0 || mean > 15 {
		t.Errorf("failovers take %v s on average", mean)
	}
}
