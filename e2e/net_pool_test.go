package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/e2e/rig"
	"github.com/orchctl/orch/internal/lab"
)

// replacePlugin puts a script in a plugin's place until restore is called, which
// may be more than once.
func (n *netFleet) replacePlugin(name, script string) (restore func(), err error) {
	path := filepath.Join(n.plugins, name)
	target, err := os.Readlink(path)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.Remove(path), os.WriteFile(path, []byte(script), 0o755)); err != nil {
		return nil, err
	}
	done := false
	return func() {
		if !done {
			done = true
			_ = os.Remove(path)
			_ = os.Symlink(target, path)
		}
	}, nil
}

// TestNetFullPool: a cluster range of two subnets on three nodes, and subnets of
// sixteen addresses: who gets none is told, and gets one when it is free.
func TestNetFullPool(t *testing.T) {
	ctx := t.Context()
	labels := map[string]map[string]string{}
	for _, node := range nodes {
		labels[node] = map[string]string{"name": node}
	}
	f, err := rig.Up(ctx, lab.Config{Name: "e2e-pool", Nodes: len(nodes), Labels: labels, Capacity: "cpu=64,memory=32Gi",
		ControllerArgs: []string{"--cluster-cidr", "10.64.0.0/27", "--node-cidr-mask-size", "28"}})
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			f.Dump(context.Background(), os.Stderr)
		}
		if err := f.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	must(t, f.LoadImage(ctx, "web.tar"))
	without := func() (names []string, why string) {
		all, err := rig.List[api.Node](ctx, f, api.KindNode, "")
		must(t, err)
		for _, n := range all {
			if n.Status.Subnet == "" {
				names, why = append(names, n.Metadata.Name), n.Status.NetworkWhy
			}
		}
		return names, why
	}
	poor, why := without()
	if len(poor) != 1 || !strings.Contains(why, "10.64.0.0/27") {
		t.Fatalf("without a subnet: %v, because %q; want one node, and the range named", poor, why)
	}
	out, _, _ := f.Orchctl(ctx, "describe", "node", poor[0])
	if !strings.Contains(out, why) {
		t.Errorf("describe node does not say %q:\n%s", why, out)
	}
	// 13 addresses are for replicas in each of the two.
	must(t, f.ApplyText(ctx, service("many", 30, "", ""), false))
	must(t, rig.Until(ctx, 40*time.Second, "26 of 30 to run, the rest to say why not", func() error {
		all, err := f.Replicas(ctx, "many")
		if err != nil {
			return err
		}
		running := 0
		for _, r := range all {
			if r.Status.Phase == api.PhaseRunning {
				running++
				if r.Spec.Node == poor[0] {
					t.Fatalf("%s runs on %s, which has no addresses", r.Metadata.Name, poor[0])
				}
			}
		}
		s, err := f.Service(ctx, "many")
		if err != nil {
			return err
		}
		said := strings.Join(s.Status.Reasons, "; ")
		out, _, _ := f.Orchctl(ctx, "describe", "service", "many")
		if running != 26 || !strings.Contains(said+out, "address") && !strings.Contains(said+out, "subnet") {
			return fmt.Errorf("%d run; said: %s", running, said)
		}
		return nil
	}))
	// Replicas in the node's own network need no address of the range.
	must(t, f.ApplyText(ctx, fmt.Sprintf(`apiVersion: orch/v1
kind: Service
metadata: {name: own}
spec:
  hostNetwork: true
  nodeSelector: {name: %s}
  containers: [{name: main, image: "orch.local/web:1.0", ports: [{name: http, port: 8080}]}]
`, poor[0]), true))
	must(t, f.Must(ctx, "delete", "service/many"))
	rich := "n1"
	if poor[0] == "n1" {
		rich = "n2"
	}
	must(t, f.Lab.KillNode(ctx, rich))
	must(t, f.WaitNode(ctx, rich, api.VerdictSuspect, 20*time.Second))
	must(t, f.Must(ctx, "node", "dead", rich, "--force"))
	must(t, f.Must(ctx, "node", "remove", rich))
	must(t, rig.Until(ctx, 10*time.Second, poor[0]+" to get the subnet that is free", func() error {
		if left, why := without(); len(left) > 0 {
			return fmt.Errorf("%v have none: %s", left, why)
		}
		return nil
	}))
	must(t, f.ApplyText(ctx, service("few", 8, "", httpProbe), true))
	if on := (&netFleet{Fleet: f}).on(t, "few"); on[poor[0]].Metadata.Name == "" {
		t.Errorf("none of 8 replicas runs on %s, which has a subnet now: %v", poor[0], on)
	}
}
