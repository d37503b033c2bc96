package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/api"
)

// TestTop: what nodes and replicas use now, also while one node's agent says nothing.
func TestTop(t *testing.T) {
	apply(t, "used", service("used", 3, "  rollout: {minReady: 0s}", "      resources: {limits: {cpu: 500m, memory: 64Mi}}\n"+httpProbe))
	type item struct {
		Name, Node, Error                                                 string
		CPUMilli, MemoryBytes, DiskBytes, CPULimitMilli, MemoryLimitBytes int64
		WindowSeconds                                                     float64
	}
	top := func(args ...string) ([]item, string) {
		t.Helper()
		out, errs, code := fleet.Orchctl(t.Context(), append([]string{"top"}, append(args, "-o", "json")...)...)
		var list struct{ Items []item }
		if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 {
			t.Fatalf("top %v: exit %d, %v\n%s%s", args, code, err, out, errs)
		}
		return list.Items, errs
	}
	machines, _ := top("nodes")
	for i, n := range machines {
		if n.Node != nodes[i] || n.CPUMilli <= 0 || n.MemoryBytes <= 0 || n.DiskBytes <= 0 || n.WindowSeconds < 0.5 {
			t.Errorf("%+v", n)
		}
	}
	used, _ := top("replicas", "used")
	if len(machines) != len(nodes) || len(used) != 3 {
		t.Fatalf("%d nodes, %d replicas", len(machines), len(used))
	}
	for _, r := range used {
		if r.MemoryBytes < 1<<20 || r.MemoryBytes > 64<<20 || r.MemoryLimitBytes != 64<<20 || r.CPULimitMilli != 500 || r.CPUMilli > 1000 {
			t.Errorf("%+v", r)
		}
	}
	out, errs, code := fleet.Orchctl(t.Context(), "top", "replicas", "used", "--containers", "--sort", "memory")
	if lines := strings.Split(strings.TrimSpace(out), "\n"); code != 0 || len(lines) != 4 || !strings.HasPrefix(lines[0], "NAME") || !strings.Contains(lines[1], "main") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}

	must(t, fleet.Lab.KillProcess(t.Context(), "n3", "agent", unix.SIGSTOP))
	awake := func() { must(t, fleet.Lab.KillProcess(t.Context(), "n3", "agent", syscall.SIGCONT)) }
	defer func() {
		awake()
		must(t, fleet.WaitNode(t.Context(), "n3", api.VerdictHealthy, 30*time.Second))
	}()
	machines, errs = top("nodes")
	i := slices.IndexFunc(machines, func(n item) bool { return n.Error != "" })
	if len(machines) != 3 || i != 2 || machines[0].CPUMilli <= 0 || !strings.Contains(errs, "orchctl: node n3: ") {
		t.Errorf("%+v\n%s", machines, errs)
	}
	if _, errs, code := fleet.Orchctl(t.Context(), "top", "nodes", "n3"); code != 1 {
		t.Errorf("nobody can be asked, and the exit code is %d\n%s", code, errs)
	}
}
