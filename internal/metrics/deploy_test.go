package metrics_test

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	agentcounts "github.com/orchctl/orch/agent/counts"
	"github.com/orchctl/orch/internal/controller/counts"
	"github.com/orchctl/orch/internal/metrics"
)

// expr is one query, and the texts that name labels of what it gives.
type expr struct {
	where, query string
	shown        []string
}

func dashboard(t *testing.T) (out []expr) {
	t.Helper()
	var d struct {
		Panels []struct {
			ID      int
			Type    string
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr, LegendFormat string }
		}
	}
	read(t, "../../deploy/grafana/orch.json", func(b []byte) error { return json.Unmarshal(b, &d) })
	taken, ids := map[[2]int]string{}, map[int]bool{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q: its id is another's, or it asks nothing", p.Title)
		}
		ids[p.ID] = true
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other, ok := taken[at]; ok || at[0] >= 24 {
					t.Fatalf("panel %q lies on %q, or beyond the edge", p.Title, other)
				}
				taken[at] = p.Title
			}
		}
		for _, q := range p.Targets {
			out = append(out, expr{"dashboard, panel " + p.Title, q.Expr, []string{q.LegendFormat}})
		}
	}
	return out
}

func alerts(t *testing.T) (out []expr) {
	t.Helper()
	var f struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Labels      map[string]string
				Annotations map[string]string
			}
		}
	}
	read(t, "../../deploy/prometheus/alerts.yaml", func(b []byte) error { return yaml.Unmarshal(b, &f) })
	for _, g := range f.Groups {
		for _, r := range g.Rules {
			if s := r.Labels["severity"]; s != "page" && s != "ticket" || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("alert %s: want a severity, a summary and a description", r.Alert)
			}
			out = append(out, expr{"alert " + r.Alert, r.Expr, []string{r.Annotations["summary"], r.Annotations["description"]}})
		}
	}
	return out
}

func read(t *testing.T, file string, parse func([]byte) error) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err == nil {
		err = parse(b)
	}
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

var (
	names     = regexp.MustCompile(`\b(orch|process|go)_[a-z0-9_]+`)
	selectors = regexp.MustCompile(`([a-z_][a-z0-9_]*)\{([^}]*)\}`)
	matchers  = regexp.MustCompile(`([a-z_]+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"`)
	grouped   = regexp.MustCompile(`\bby \(([^)]*)\)`)
	shown     = regexp.MustCompile(`\{\{\s*(?:\$labels\.)?([a-z_]+)\s*\}\}`)
	// ofScrapes are labels that Prometheus adds, ofPrograms metrics of every Go program.
	ofScrapes  = []string{"job", "instance"}
	ofPrograms = []string{"process_cpu_seconds_total", "process_resident_memory_bytes"}
)

// problems tells what of an expression no daemon has.
func problems(e expr, known map[string]metrics.Metric) (out []string) {
	labels := slices.Clone(ofScrapes)
	used := names.FindAllString(e.query, -1)
	if len(used) == 0 && !strings.HasPrefix(e.query, "up{") {
		out = append(out, "it asks for nothing")
	}
	for _, n := range used {
		m, ok := find(n, known)
		if !ok && !slices.Contains(ofPrograms, n) {
			out = append(out, "there is no metric "+n)
		}
		labels = append(labels, m.Labels...)
		if m.Kind == metrics.Histogram {
			labels = append(labels, "le")
		}
	}
	for _, s := range selectors.FindAllStringSubmatch(e.query, -1) {
		m, _ := find(s[1], known)
		for _, x := range matchers.FindAllStringSubmatch(s[2], -1) {
			if !slices.Contains(ofScrapes, x[1]) && !slices.Contains(m.Labels, x[1]) {
				out = append(out, s[1]+" has no label "+x[1])
			}
		}
	}
	mentioned := []string{}
	for _, g := range grouped.FindAllStringSubmatch(e.query, -1) {
		mentioned = append(mentioned, strings.Split(strings.ReplaceAll(g[1], " ", ""), ",")...)
	}
	for _, text := range e.shown {
		for _, l := range shown.FindAllStringSubmatch(text, -1) {
			mentioned = append(mentioned, l[1])
		}
	}
	for _, l := range mentioned {
		if !slices.Contains(labels, l) {
			out = append(out, "nothing in it has a label "+l)
		}
	}
	return out
}

// find knows what a histogram's series are called.
func find(name string, known map[string]metrics.Metric) (metrics.Metric, bool) {
	if m, ok := known[name]; ok {
		return m, m.Kind != metrics.Histogram // by its own name it has no series
	}
	for _, end := range []string{"_bucket", "_sum", "_count"} {
		base, ok := strings.CutSuffix(name, end)
		if m := known[base]; ok && m.Kind == metrics.Histogram {
			return m, true
		}
	}
	return metrics.Metric{}, false
}

func all() map[string]metrics.Metric {
	known := map[string]metrics.Metric{}
	for _, b := range []*metrics.Book{counts.New().Book(), agentcounts.New().Book()} {
		for _, m := range b.Metrics() {
			known[m.Name] = m
		}
	}
	return known
}

// What a dashboard or an alert asks for is really told, with these labels: a name that
// is not would be an empty panel, and an alert that never comes.
func TestWhatDashboardAndAlertsAskFor(t *testing.T) {
	known := all()
	list := append(dashboard(t), alerts(t)...)
	if len(list) < 50 {
		t.Errorf("only %d expressions", len(list))
	}
	for _, e := range list {
		for _, p := range problems(e, known) {
			t.Errorf("%s: %s in %s", e.where, p, e.query)
		}
	}
}

func TestTheTestCanFail(t *testing.T) {
	known := all()
	for _, c := range []struct {
		e    expr
		want string
	}{
		{expr{"", "orch_nodez", nil}, "there is no metric orch_nodez"},
		{expr{"", "orch_failover_duration_seconds", nil}, "there is no metric orch_failover_duration_seconds"},
		{expr{"", "orch_nodes_bucket", nil}, "there is no metric orch_nodes_bucket"},
		{expr{"", `orch_nodes{verdict="Dead",zone!="x"}`, nil}, "orch_nodes has no label zone"},
		{expr{"", "sum by (verdict, zone) (orch_nodes)", nil}, "nothing in it has a label zone"},
		{expr{"", "orch_nodes", []string{"{{verdict}} {{zone}}"}}, "nothing in it has a label zone"},
		{expr{"", "orch_nodes", []string{"{{ $labels.zone }} {{ $value }}"}}, "nothing in it has a label zone"},
		{expr{"", "1", nil}, "it asks for nothing"},
		{expr{"", `sum by (le, phase) (rate(orch_failover_duration_seconds_bucket{phase=~"a|b",job="x"}[5m]))`, []string{"{{phase}}"}}, ""},
	} {
		if got := strings.Join(problems(c.e, known), "; "); got != c.want {
			t.Errorf("%s: %q, want %q", c.e.query, got, c.want)
		}
	}
}
