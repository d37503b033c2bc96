// Package metricstest holds a book of metrics against what is promised of it: names by
// Prometheus' conventions, and a current table in docs/monitoring.md.
//
//	Book ──► CheckBook ──► conventions, docs/monitoring.md (-update rewrites its table)
package metricstest

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/orchctl/orch/internal/metrics"
)

var update = flag.Bool("update", false, "rewrite the table of metrics in docs/monitoring.md")

// CheckBook checks the book of a program; file is docs/monitoring.md as seen from the
// test, pkg its package, as "./agent/counts".
func CheckBook(t *testing.T, b *metrics.Book, program, pkg, file string) {
	t.Helper()
	problems, err := testutil.GatherAndLint(b.Gatherer())
	if err != nil {
		t.Errorf("gather the metrics of the %s: %v", program, err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	for _, m := range b.Metrics() {
		if !strings.HasPrefix(m.Name, "orch_") || !strings.HasSuffix(m.Help, ".") {
			t.Errorf("%s: want a name with orch_ and a sentence of help, have %q", m.Name, m.Help)
		}
	}
	begin := fmt.Sprintf("<!-- metrics of the %s: go test %s -update -->\n", program, pkg)
	end := fmt.Sprintf("<!-- end of metrics of the %s -->\n", program)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), begin)
	have, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no table of metrics between %q and %q", file, begin, end)
	}
	want := metrics.Table(b.Metrics())
	switch {
	case have == want:
	case *update:
		if err := os.WriteFile(file, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("the table of the %s's metrics in %s is old: go test %s -update", program, file, pkg)
	}
}
