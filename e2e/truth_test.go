package e2e

import (
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/orchctl/orch/e2e/rig"
)

const sigkill = syscall.SIGKILL

// TestReasonsAreTold: what went wrong is said in get and in describe.
func TestReasonsAreTold(t *testing.T) {
	cases := []struct {
		name, yaml string
		get        string   // in the replica's row
		describe   []string // in its description
	}{
		{"oom", service("oom", 1, "", `      ports: [{name: http, port: 8080, publish: 8082, mode: host}]
      resources: {limits: {memory: 64Mi}}`), "OutOfMemory", []string{"64Mi"}},
		{"missing", strings.Replace(service("missing", 1, "", ""), "orch.local/web:1.0", "orch.local/nothing:1", 1), "ImageMissing", []string{"orch.local/nothing:1", "its name is not known"}},
		{"unreachable", strings.Replace(service("unreachable", 1, "", ""), "orch.local/web:1.0", "127.0.0.1:1/nothing:1", 1), "RegistryUnreachable", []string{"127.0.0.1:1/nothing:1", "nothing listens at its address"}},
		{"exits", service("exits", 1, "", `      command: ["/no/such/program"]`), "StartFailed", []string{"/no/such/program"}},
		{"huge", service("huge", 1, "", `      resources: {requests: {memory: 900Gi}}`), "Pending", []string{"lack 900Gi memory"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			deleteLater(t, c.name)
			must(t, fleet.ApplyText(t.Context(), c.yaml, false))
			if c.name == "oom" {
				must(t, fleet.WaitReady(t.Context(), "oom", 1, 10*time.Second))
				_, _ = fleet.Get(t.Context(), replicas(t, "oom")[0].Spec.Node, 8082, "/oom") // its connection dies with it
			}
			must(t, rig.Until(t.Context(), 15*time.Second, "the reason to be told", func() error {
				out, _, _ := fleet.Orchctl(t.Context(), "get", "replicas", "-o", "wide")
				row := ""
				for _, line := range strings.Split(out, "\n") {
					if strings.HasPrefix(line, c.name+"-0") {
						row = line
					}
				}
				desc, errs, code := fleet.Orchctl(t.Context(), "describe", "replica", c.name+"-0")
				if code != 0 {
					return fmt.Errorf("describe: exit %d: %s", code, errs)
				}
				if !strings.Contains(row, c.get) && !strings.Contains(desc, c.get) {
					return fmt.Errorf("neither get nor describe say %s:\n%s\n%s", c.get, row, desc)
				}
				for _, want := range c.describe {
					if !strings.Contains(desc, want) {
						return fmt.Errorf("describe does not say %q:\n%s", want, desc)
					}
				}
				return nil
			}))
		})
	}
}

// TestRollingUpdateUnderRequests: every node's port is asked all the while; a
// port may be closed while its replica is replaced, but no two at once for longer than
// nodes take to hear of it.
func TestRollingUpdateUnderRequests(t *testing.T) {
	rollout := "  rollout: {maxSurge: 0, maxUnavailable: 1}"
	first := service("web", 3, rollout, hostPort(8083))
	apply(t, "web", first)
	ctx := t.Context()
	var stop atomic.Bool
	var asked atomic.Int64
	var group sync.WaitGroup
	down := make([][]span, len(nodes))
	for i, n := range nodes {
		addr, err := fleet.Address(ctx, n)
		must(t, err)
		group.Go(func() {
			client := fleet.HTTP(time.Second)
			well := true
			for !stop.Load() {
				began := time.Now()
				resp, err := client.Get("http://" + addr + ":8083/")
				if err == nil {
					resp.Body.Close()
				}
				asked.Add(1)
				failed := err != nil || resp.StatusCode != http.StatusOK
				switch {
				case failed && well:
					down[i] = append(down[i], span{began, time.Now()})
				case failed:
					down[i][len(down[i])-1].to = time.Now()
				}
				well = !failed
			}
		})
	}
	err := fleet.ApplyText(ctx, strings.Replace(first, "web:1.0", "web:2.0", 1), true)
	stop.Store(true)
	group.Wait()
	must(t, err)
	must(t, fleet.WaitReady(ctx, "web", 3, 10*time.Second))
	if asked.Load() < 30 {
		t.Errorf("only %d requests were made: too few to tell anything", asked.Load())
	}
	worst := time.Duration(0)
	for i := range nodes {
		for j := range i {
			worst = max(worst, both(down[i], down[j]))
		}
	}
	if worst > heardWithin {
		t.Errorf("two nodes did not answer at the same time for %s, want at most %s", worst, heardWithin)
	}
	for _, n := range nodes {
		body, err := fleet.Get(ctx, n, 8083, "/")
		must(t, err)
		if !strings.Contains(body, "2.0") {
			t.Errorf("%s answers %q, not the new version", n, body)
		}
	}
	t.Logf("%d requests, two nodes down at a time for %s", asked.Load(), worst)
}

// heardWithin is how long after the leader's word that a replica is ready its node may
// refuse what is for it, while the next one is withdrawn already. It is well below what a
// replica takes to start.
const heardWithin = 150 * time.Millisecond

// span is a time in which nobody answered.
type span struct{ from, to time.Time }

// both gives the longest time that is in a span of each.
func both(a, b []span) time.Duration {
	longest := time.Duration(0)
	for _, x := range a {
		for _, y := range b {
			from, to := x.from, x.to
			if y.from.After(from) {
				from = y.from
			}
			if y.to.Before(to) {
				to = y.to
			}
			longest = max(longest, to.Sub(from))
		}
	}
	return longest
}

func TestFiftyReplicas(t *testing.T) {
	start := time.Now()
	apply(t, "many", service("many", 50, "", ""))
	t.Logf("50 replicas were running %s after the apply", time.Since(start).Round(time.Millisecond))
	if got := len(containers(t)); got != 50 {
		t.Errorf("%d containers run", got)
	}
	must(t, fleet.Must(t.Context(), "delete", "service", "many"))
	nothingLeft(t)
}

// looks are what a replica leaves in a node's kernel, as commands that print one
// line each.
var looks = map[string]string{
	"network namespace": "ls /run/orch/netns",
	"link":              "ip -o link show type veth | grep -v ' eth0@'",
	"route":             "ip route show | grep -F 10.64. | grep -v 'proto 79'", // those to other nodes stay
	"rule":              "nft list table ip orch | grep -F -e ' 8085 ' -e default/web",
	"cgroup":            "find /sys/fs/cgroup/ -type d -path '*/orchlab/e2e/'$NODE'/replicas/default.*'",
}

// traces runs the looks on a node; what prints nothing is left out.
func traces(t *testing.T, node string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for what, script := range looks {
		cmd, err := fleet.Lab.Command(t.Context(), node, "sh", "-c", "NODE="+node+"; "+script+" 2>/dev/null; true")
		must(t, err)
		out, err := cmd.Output()
		must(t, err)
		if len(out) > 0 {
			found[what] = string(out)
		}
	}
	return found
}

// TestDeleteCleansTheKernel: while a replica runs every look finds it, so that
// finding nothing afterwards means something.
func TestDeleteCleansTheKernel(t *testing.T) {
	apply(t, "web", service("web", 3, "", hostPort(8085)))
	for _, n := range nodes {
		for what := range looks {
			if traces(t, n)[what] == "" {
				t.Errorf("%s runs a replica, but no %s of it is seen: the check is blind", n, what)
			}
		}
	}
	must(t, fleet.Must(t.Context(), "delete", "service", "web"))
	nothingLeft(t)
	for _, n := range nodes {
		must(t, rig.Until(t.Context(), 5*time.Second, n+"'s kernel to be clean", func() error {
			if left := traces(t, n); len(left) > 0 {
				return fmt.Errorf("left: %v", left)
			}
			return nil
		}))
	}
}

func TestLogsAndExec(t *testing.T) {
	apply(t, "web", service("web", 2, "", hostPort(8084)))
	ctx := t.Context()
	for _, r := range replicas(t, "web") {
		_, err := fleet.Get(ctx, r.Spec.Node, 8084, "/headers")
		must(t, err)
	}
	must(t, rig.Until(ctx, 5*time.Second, "the requests to be in the logs", func() error {
		out, errs, code := fleet.Orchctl(ctx, "logs", "service/web", "--timestamps")
		if code != 0 || strings.Count(out, "/headers") != 2 || !strings.Contains(out, "web-0") || !strings.Contains(out, "web-1") {
			return fmt.Errorf("logs: exit %d\n%s%s", code, out, errs)
		}
		return nil
	}))
	// Output survives the agent.
	r := replicas(t, "web")[0]
	must(t, fleet.Lab.KillProcess(ctx, r.Spec.Node, "agent", sigkill))
	_, err := fleet.Get(ctx, r.Spec.Node, 8084, "/while-away")
	if err != nil && !strings.Contains(err.Error(), "404") {
		t.Fatal(err)
	}
	must(t, fleet.Lab.StartProcess(ctx, r.Spec.Node, "agent"))
	must(t, rig.Until(ctx, 10*time.Second, "the log of the time without an agent", func() error {
		out, errs, code := fleet.Orchctl(ctx, "logs", "web-0")
		if code != 0 || !strings.Contains(out, "/while-away") {
			return fmt.Errorf("exit %d\n%s%s", code, out, errs)
		}
		return nil
	}))
	out, errs, code := fleet.Orchctl(ctx, "exec", "web-0", "--", "/bin/web", "-h")
	if !strings.Contains(out+errs, "port to listen on") {
		t.Errorf("exec: exit %d\n%s%s", code, out, errs)
	}
	if _, errs, code = fleet.Orchctl(ctx, "exec", "web-0", "--", "/no/such"); code == 0 {
		t.Errorf("exec of a missing program: exit %d: %s", code, errs)
	}
}

func TestEveryExampleIsRefusedOrRuns(t *testing.T) {
	out, errs, code := fleet.Orchctl(t.Context(), "apply", "-f", rig.Root()+"/manifests/examples", "--dry-run")
	if code != 0 {
		t.Fatalf("apply --dry-run of the examples: exit %d\n%s%s", code, out, errs)
	}
	// Most of their images are nowhere, so nothing is waited for: they are taken whole.
	examples := rig.Root() + "/manifests/examples"
	must(t, fleet.Must(t.Context(), "apply", "-f", examples, "--wait=false"))
	must(t, rig.Until(t.Context(), 20*time.Second, "what can run of the examples to run", func() error {
		return fleet.Must(t.Context(), "wait", "--for", "complete", "job/reindex", "--timeout", "1s")
	}))
	must(t, fleet.Must(t.Context(), "delete", "-f", examples))
	for _, name := range strings.Fields(orchctl(t, "get", "volumes", "-o", "name")) {
		must(t, fleet.Must(t.Context(), "delete", name))
	}
	_, errs, code = fleet.OrchctlIn(t.Context(), strings.NewReader("apiVersion: orch/v1\nkind: Service\nmetadata: {name: x}\nspec: {replcas: 1}\n"), "apply", "-f", "-")
	if code != 2 || !strings.Contains(errs, `did you mean "replicas"`) {
		t.Errorf("broken manifest: exit %d: %s", code, errs)
	}
}

func TestStrangersAreRefused(t *testing.T) {
	// Garbage on the controller's port harms nobody.
	conn, err := fleet.Lab.Dial(t.Context(), "tcp", "10.200.0.1:7070")
	must(t, err)
	_, _ = conn.Write([]byte(strings.Repeat("garbage\r\n", 1000)))
	defer conn.Close()
	silent, err := fleet.Lab.Dial(t.Context(), "tcp", "10.200.0.1:7070")
	must(t, err)
	defer silent.Close() // connects and never says a word
	apply(t, "web", service("web", 1, "", httpProbe))
	if err := fleet.Must(t.Context(), "get", "nodes"); err != nil {
		t.Error(err)
	}
	// Nobody without a certificate. (Foreign and expired ones, and too small a
	// role, are refused in internal/controller's tests.)
	out, err := exec.CommandContext(t.Context(), rig.Root()+"/bin/orchctl", "--config", "/dev/null", "get", "services").CombinedOutput()
	if err == nil {
		t.Errorf("orchctl without a context succeeded:\n%s", out)
	}
}
