package e2e

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/internal/tracing/tracetest"
)

// traceCollector is where the fleet's daemons send their traces. In all tests but TestTrace
// nobody is there, which nobody may notice.
const traceCollector = "10.200.0.1:4317"

// traceArgs are flags of agents and of the controller.
var traceArgs = []string{"--trace-endpoint", traceCollector, "--trace-insecure"}

// TestTrace: an apply is one trace, from orchctl through the controller to the start of
// each container and until that is ready.
func TestTrace(t *testing.T) {
	inside, err := fleet.Lab.Listen(t.Context(), "tcp", traceCollector)
	must(t, err)
	beside, err := net.Listen("tcp", "127.0.0.1:0") // orchctl is not in the lab's network
	must(t, err)
	c := tracetest.Serve(inside)
	c.Also(beside)
	defer c.Stop()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+beside.Addr().String())
	deleteLater(t, "traced")

	// A daemon that has missed the collector so far looks for it within seconds: what was
	// sent before is lost, so another apply is made until one is whole.
	var tree, problem string
	for n, deadline := 2, time.Now().Add(25*time.Second); time.Now().Before(deadline); n += 2 {
		manifest := service("traced", n, "  rollout: {minReady: 0s}", "      env: [{name: ROUND, value: \""+fmt.Sprint(n)+"\"}]\n"+httpProbe)
		out, errs, code := fleet.OrchctlIn(t.Context(), strings.NewReader(manifest), "apply", "-f", "-", "--timeout", "60s")
		_, id, told := strings.Cut(errs, "orchctl: trace ")
		if code != 0 || !told {
			t.Fatalf("exit %d\n%s%s", code, out, errs)
		}
		id, _, _ = strings.Cut(id, "\n")
		for try := time.Now().Add(4 * time.Second); time.Now().Before(try); time.Sleep(100 * time.Millisecond) {
			spans := slices.DeleteFunc(c.Spans(), func(s tracetest.Span) bool { return s.Trace != id })
			if tree, problem = tracetest.Tree(spans), whole(spans, n); problem == "" {
				t.Logf("%d replicas, %d spans\n%s", n, len(spans), tree)
				return
			}
		}
	}
	t.Errorf("%s:\n%s", problem, tree)
}

// whole says what a trace of an apply lacks; empty: nothing.
func whole(spans []tracetest.Span, replicas int) string {
	byID := map[string]tracetest.Span{}
	for _, s := range spans {
		byID[s.ID] = s
	}
	way := func(s tracetest.Span) string {
		var names []string
		for ok := true; ok; s, ok = byID[s.Parent] {
			names = append(names, s.Service+" "+s.Name)
		}
		return strings.Join(names, " < ")
	}
	const root = "orchctl orchctl apply"
	const call = "orch-controller orch.v1.Orch/Apply < orchctl orch.v1.Orch/Apply < " + root
	const replica = "orch-agent replica < orch-controller assign < " + call
	want := map[string]int{root: 1, "orchctl load manifests < " + root: 1, "orchctl wait until ready < " + root: 1, call: 1,
		"orch-controller validate < " + call: 1, "orch-controller resolve images < " + call: 1, "orch-controller inbox < " + call: 1,
		"orch-controller decide < " + call: 1, "orch-controller commit < " + call: 1, replica: replicas, "orch-agent network < " + replica: replicas,
		"orch-agent start container < " + replica: replicas, "orch-agent until ready < " + replica: replicas}
	got := map[string]int{}
	for _, s := range spans {
		got[way(s)]++
		if parent, ok := byID[s.Parent]; ok && s.Start.Before(parent.Start) {
			return fmt.Sprintf("%s begins before what it belongs to", way(s))
		}
		if s.Error != "" {
			return fmt.Sprintf("%s failed: %s", way(s), s.Error)
		}
		if s.Name == "replica" && (s.Attributes["orch.service"] != "traced" || !slices.Contains(nodes, s.Attributes["orch.node"]) || s.Attributes["orch.replica"] == "" || s.Attributes["orch.revision"] == "") {
			return fmt.Sprintf("a replica's attributes are %v", s.Attributes)
		}
	}
	for what, n := range want {
		if got[what] != n {
			return fmt.Sprintf("%d of %s, want %d", got[what], what, n)
		}
	}
	return ""
}
