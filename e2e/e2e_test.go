// Package e2e proves orch on real etcd, real containerd and real network
// namespaces, with real faults. See README.md here for its track record.
package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/e2e/rig"
	"github.com/orchctl/orch/internal/lab"
)

// fleet is the one fleet that the tests here share: making one costs seconds,
// and a test that leaves it broken fails the next, which is what we want to know.
var fleet *rig.Fleet

var nodes = []string{"n1", "n2", "n3"}

// shared is a folder of this machine that every node's agent allows replicas to mount.
var shared string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	ctx, cancel := context.WithTimeout(context.Background(), 12*time.Minute)
	defer cancel()
	var err error
	// Nodes have a /tmp and a /var/lib of their own, but not this.
	if shared, err = os.MkdirTemp("/var/tmp", "orch-e2e-"); err == nil {
		defer os.RemoveAll(shared)
		err = os.Chmod(shared, 0o777) // the web program is nobody
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "make a folder to share:", err)
		return 1
	}
	// The tests end the same node again and again, which is no flapping here.
	fleet, err = rig.Up(ctx, lab.Config{Name: "e2e", Nodes: len(nodes), Capacity: "cpu=64,memory=32Gi",
		AgentArgs: slices.Concat(registryArgs(shared), traceArgs, []string{"--allow-bind", shared}), ControllerArgs: slices.Concat(registryArgs(shared), traceArgs), Limits: []string{"flap-half-life=1s"}})
	if err != nil {
		fmt.Fprintln(os.Stderr, "make the fleet:", err)
		return 1
	}
	for _, image := range []string{"web.tar", "web2.tar"} {
		if err = fleet.LoadImage(ctx, image); err != nil {
			break
		}
	}
	code := 1
	if err == nil {
		code = m.Run()
	} else {
		fmt.Fprintln(os.Stderr, err)
	}
	if code != 0 {
		fleet.Dump(ctx, os.Stderr)
	}
	if err := fleet.Down(context.WithoutCancel(ctx)); err != nil {
		fmt.Fprintln(os.Stderr, "take the fleet down:", err)
		return 1
	}
	return code
}

// labsAtOnce is how many fleets of their own tests may have beside the shared one, when
// that has nothing to do any more.
const labsAtOnce = 3

var ownLabs = make(chan struct{}, labsAtOnce)

// ownLab is called first by a test that makes a fleet of its own: such tests run side by
// side, after all others, for most of their time they wait.
func ownLab(t *testing.T) {
	t.Parallel()
	ownLabs <- struct{}{}
	t.Cleanup(func() { <-ownLabs })
}

// service makes a manifest of the web image; extra is YAML of the container,
// spec of the service, each line indented as it stands there.
func service(name string, replicas int, spec, container string) string {
	return fmt.Sprintf(`apiVersion: orch/v1
kind: Service
metadata: {name: %s}
spec:
  replicas: %d
%s
  containers:
    - name: main
      image: orch.local/web:1.0
%s
`, name, replicas, spec, container)
}

const httpProbe = `      ports: [{name: http, port: 8080}]
      readinessProbe: {http: {path: /healthz, port: http}}`

func hostPort(port int) string {
	return fmt.Sprintf(`      ports: [{name: http, port: 8080, publish: %d, mode: host}]
      readinessProbe: {http: {path: /healthz, port: http}}`, port)
}

// apply applies a manifest, waits until it is ready, and deletes it after the test.
func apply(t *testing.T, name, yaml string) {
	t.Helper()
	deleteLater(t, name)
	must(t, fleet.ApplyText(t.Context(), yaml, true))
}

func deleteLater(t *testing.T, name string) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			var dump bytes.Buffer
			fleet.Dump(context.Background(), &dump)
			t.Log(dump.String())
		}
		if err := fleet.Must(context.Background(), "delete", "service", name, "--ignore-not-found"); err != nil {
			t.Error(err)
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func replicas(t *testing.T, service string) []api.Replica {
	t.Helper()
	all, err := fleet.Replicas(t.Context(), service)
	must(t, err)
	return all
}

func containers(t *testing.T) map[string]rig.Running {
	t.Helper()
	all, err := fleet.AllContainers(t.Context(), nodes...)
	must(t, err)
	return all
}

// sameContainers fails unless every container of before still runs, in the same
// process.
func sameContainers(t *testing.T, before map[string]rig.Running) {
	t.Helper()
	after := containers(t)
	for id, b := range before {
		if a, ok := after[id]; !ok || a.Pid != b.Pid {
			t.Errorf("container %s on %s: was pid %d, is now %+v", id, b.Node, b.Pid, a)
		}
	}
	if len(after) != len(before) {
		t.Errorf("%d containers ran before, %d now", len(before), len(after))
	}
}

func events(t *testing.T) string {
	t.Helper()
	out, errs, code := fleet.Orchctl(t.Context(), "events", "-A")
	if code != 0 {
		t.Fatalf("orchctl events: exit %d: %s", code, errs)
	}
	return out
}

func TestApplyToReadyAndDelete(t *testing.T) {
	apply(t, "web", service("web", 3, "", hostPort(8080)))
	for _, n := range nodes {
		body, err := fleet.Get(t.Context(), n, 8080, "/")
		must(t, err)
		if !strings.Contains(body, "web-") {
			t.Errorf("%s answers %q", n, body)
		}
	}
	out, errs, code := fleet.Orchctl(t.Context(), "get", "services")
	if code != 0 || !strings.Contains(out, "3/3") {
		t.Errorf("get services: exit %d\n%s%s", code, out, errs)
	}
	must(t, fleet.Must(t.Context(), "delete", "service/web"))
	if got := replicas(t, "web"); len(got) != 0 {
		t.Errorf("replicas are left: %+v", got)
	}
	nothingLeft(t)
}

// nothingLeft checks that no node holds anything of any replica.
func nothingLeft(t *testing.T) {
	t.Helper()
	must(t, rig.Until(t.Context(), 10*time.Second, "nodes to hold nothing of any replica", func() error {
		for _, n := range nodes {
			left, err := fleet.Leftovers(t.Context(), n)
			if err != nil {
				return err
			}
			if len(left) > 0 {
				return fmt.Errorf("%s: %v", n, left)
			}
		}
		return nil
	}))
}

func TestScaleUpAndDown(t *testing.T) {
	apply(t, "web", service("web", 1, "", httpProbe))
	must(t, fleet.Must(t.Context(), "scale", "service/web", "--replicas", "6"))
	must(t, fleet.WaitReady(t.Context(), "web", 6, 20*time.Second))
	perNode := map[string]int{}
	for _, r := range replicas(t, "web") {
		perNode[r.Spec.Node]++
	}
	for _, n := range nodes {
		if perNode[n] != 2 {
			t.Errorf("6 replicas are spread as %v", perNode)
			break
		}
	}
	must(t, fleet.Must(t.Context(), "scale", "service/web", "--replicas", "2"))
	must(t, fleet.WaitReady(t.Context(), "web", 2, 20*time.Second))
}

func TestCrashIsRestartedInPlace(t *testing.T) {
	apply(t, "web", service("web", 1, "", httpProbe))
	before := replicas(t, "web")[0]
	must(t, fleet.KillContainer(t.Context(), before.Spec.Node, "web-0"))
	must(t, rig.Until(t.Context(), 10*time.Second, "web-0 to be restarted", func() error {
		r := replicas(t, "web")[0]
		if r.Status.Restarts != before.Status.Restarts+1 || !r.Status.Ready {
			return fmt.Errorf("%d restarts, ready %v", r.Status.Restarts, r.Status.Ready)
		}
		if r.Spec.Epoch != before.Spec.Epoch || r.Spec.Node != before.Spec.Node {
			t.Fatalf("it was moved from %s epoch %d to %s epoch %d", before.Spec.Node, before.Spec.Epoch, r.Spec.Node, r.Spec.Epoch)
		}
		x := r.Status.Containers[0].LastExit
		if x == nil || x.Reason != api.ExitSignaled || x.Signal != 9 {
			return fmt.Errorf("last exit %+v, want signal 9", x)
		}
		return nil
	}))
}

func TestFailingProbes(t *testing.T) {
	apply(t, "web", service("web", 1, "", `      ports: [{name: http, port: 8080, publish: 8081, mode: host}]
      readinessProbe: {http: {path: /healthz, port: http}, interval: 200ms, failureThreshold: 2}
      livenessProbe: {http: {path: /healthz, port: http}, interval: 500ms, failureThreshold: 4}`))
	r := replicas(t, "web")[0]
	_, err := fleet.Get(t.Context(), r.Spec.Node, 8081, "/fail")
	must(t, err)
	must(t, rig.Until(t.Context(), 5*time.Second, "web-0 to leave the endpoints", func() error {
		if s, err := fleet.Service(t.Context(), "web"); err != nil || s.Status.Ready != 0 {
			return fmt.Errorf("ready %+v, %v", s, err)
		}
		return nil
	}))
	must(t, rig.Until(t.Context(), 15*time.Second, "the liveness probe to restart web-0", func() error {
		r := replicas(t, "web")[0]
		if r.Status.Restarts != 1 || !r.Status.Ready {
			return fmt.Errorf("%d restarts, ready %v", r.Status.Restarts, r.Status.Ready)
		}
		if x := r.Status.Containers[0].LastExit; x == nil || x.Reason != api.ExitLivenessFailed {
			return fmt.Errorf("last exit %+v, want LivenessFailed", x)
		}
		return nil
	}))
}

func TestPowerCutIsReplacedElsewhere(t *testing.T) {
	apply(t, "web", service("web", 6, "", httpProbe))
	ctx := t.Context()
	start := time.Now()
	must(t, fleet.Lab.KillNode(ctx, "n2"))
	must(t, rig.Until(ctx, 20*time.Second, "six ready replicas without n2", func() error {
		on := map[int]bool{}
		for _, r := range replicas(t, "web") {
			if r.Status.Ready && r.Spec.Node != "n2" {
				on[r.Spec.Slot] = true
			}
		}
		if len(on) != 6 {
			return fmt.Errorf("%d slots are ready on n1 and n3", len(on))
		}
		return nil
	}))
	t.Logf("replaced %s after the power cut", time.Since(start).Round(time.Millisecond))
	if e := events(t); !strings.Contains(e, "Suspect") {
		t.Errorf("the events do not tell of the suspicion:\n%s", e)
	}

	must(t, fleet.Lab.StartNode(ctx, "n2"))
	must(t, fleet.WaitNode(ctx, "n2", api.VerdictHealthy, 20*time.Second))
	must(t, fleet.WaitReady(ctx, "web", 6, 20*time.Second))
	must(t, rig.Until(ctx, 15*time.Second, "the stale containers of n2 to go", func() error {
		left, err := fleet.Leftovers(ctx, "n2")
		if err != nil {
			return err
		}
		for _, x := range left {
			if strings.Contains(x, "web") && !wanted(replicas(t, "web"), "n2", x) {
				return fmt.Errorf("%s is still there", x)
			}
		}
		return nil
	}))
}

// wanted tells whether some replica on the node owns what a leftover names.
func wanted(all []api.Replica, node, leftover string) bool {
	for _, r := range all {
		for _, c := range r.Status.Containers {
			if r.Spec.Node == node && c.ID != "" && strings.Contains(leftover, c.ID) {
				return true
			}
		}
	}
	return false
}

func TestAgentAndContainerdRestartsTouchNothing(t *testing.T) {
	apply(t, "web", service("web", 6, "", httpProbe))
	before := containers(t)
	ctx := t.Context()
	must(t, fleet.Lab.KillProcess(ctx, "n1", "agent", sigkill))
	must(t, fleet.Lab.StartProcess(ctx, "n1", "agent"))
	must(t, fleet.WaitNode(ctx, "n1", api.VerdictHealthy, 20*time.Second))
	must(t, fleet.WaitReady(ctx, "web", 6, 20*time.Second))
	sameContainers(t, before)

	must(t, fleet.Lab.KillProcess(ctx, "n3", "containerd", sigkill))
	must(t, fleet.Lab.StartProcess(ctx, "n3", "containerd"))
	must(t, rig.Until(ctx, 20*time.Second, "containerd of n3 to answer", func() error {
		_, err := fleet.Containers(ctx, "n3")
		return err
	}))
	must(t, fleet.WaitReady(ctx, "web", 6, 20*time.Second))
	sameContainers(t, before)
	// It still manages them: a crash after the restarts is seen and mended.
	for _, n := range []string{"n1", "n3"} {
		must(t, fleet.KillContainer(ctx, n, "web"))
	}
	must(t, rig.Until(ctx, 15*time.Second, "both crashes to be mended", func() error {
		restarts := 0
		for _, r := range replicas(t, "web") {
			restarts += r.Status.Restarts
			if !r.Status.Ready {
				return fmt.Errorf("%s is not ready", r.Metadata.Name)
			}
		}
		if restarts != 2 {
			return fmt.Errorf("%d restarts", restarts)
		}
		return nil
	}))
}

func TestControllerKilledInTheMiddle(t *testing.T) {
	apply(t, "web", service("web", 3, "", httpProbe))
	before := containers(t)
	ctx := t.Context()
	deleteLater(t, "other")
	for i, change := range []func() error{
		func() error { return fleet.ApplyText(ctx, service("other", 3, "", httpProbe), false) },
		func() error { return fleet.Must(ctx, "scale", "service/other", "--replicas", "5") },
	} {
		acknowledged := make(chan error, 1)
		go func() { acknowledged <- change() }()
		must(t, fleet.Lab.StopController(ctx, sigkill))
		must(t, fleet.Lab.StartController(ctx))
		must(t, <-acknowledged) // orchctl tries again with the same request id
		must(t, fleet.WaitReady(ctx, "other", 3+2*i, 30*time.Second))
	}
	must(t, fleet.WaitReady(ctx, "web", 3, 20*time.Second))
	after := containers(t)
	for id, b := range before {
		if after[id].Pid != b.Pid {
			t.Errorf("container %s of web was touched: %+v -> %+v", id, b, after[id])
		}
	}
	if s, err := fleet.Service(ctx, "other"); err != nil || s.Metadata.Generation != 2 {
		t.Errorf("other has generation %d, want 2: each change done once; %v", s.Metadata.Generation, err)
	}
}
