package orchctl

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// topFleet has three nodes, the last of which cannot be asked.
func topFleet() *fake {
	shop := replica("cart", 0, 50, "n1", running(true), func(r *api.Replica) { r.Metadata.Namespace = "shop" })
	f := newFake(node("n1", api.VerdictHealthy), node("n2", api.VerdictHealthy), node("n10", api.VerdictSuspect),
		replica("web", 0, 17, "n1", running(true)), replica("web", 1, 18, "n2", running(true)), replica("web", 1, 20, "n1", running(false)),
		replica("web", 10, 19, "n10", running(true)), replica("db", 0, 30, "n2", running(true)), replica("db", 1, 31, "n2"), shop)
	of := func(ns, service string, slot int, epoch uint64, containers ...*orchv1.ContainerUsage) *orchv1.ReplicaUsage {
		return &orchv1.ReplicaUsage{Key: &orchv1.ReplicaKey{Namespace: ns, Service: service, Slot: int32(slot), Epoch: epoch}, Containers: containers}
	}
	use := func(name string, cpu, memory, limit int64) *orchv1.ContainerUsage {
		return &orchv1.ContainerUsage{Name: name, CpuMilli: cpu, MemoryBytes: memory << 20, CpuLimitMilli: 1000, MemoryLimitBytes: limit << 20, Pids: 1}
	}
	f.onUsage = func(r *orchv1.UsageRequest) []*orchv1.NodeUsage {
		all := []*orchv1.NodeUsage{
			{Node: "n10", Error: "not reachable: it is Suspect: silent for 2s"},
			{Node: "n2", CpuMilli: 3900, MemoryBytes: 6 << 30, Window: durationpb.New(time.Second), DiskBytes: 100, DiskFreeBytes: 4,
				Replicas: []*orchv1.ReplicaUsage{of("default", "web", 1, 18, use("main", 3, 20, 64)), of("default", "db", 0, 30, use("main", 250, 900, 0))}},
			{Node: "n1", CpuMilli: 120, MemoryBytes: 1 << 30, Window: durationpb.New(time.Second), DiskBytes: 100, DiskFreeBytes: 60,
				Replicas: []*orchv1.ReplicaUsage{of("default", "web", 0, 17, use("main", 500, 48, 64), use("side", 1, 2, 16)), of("default", "web", 1, 20, use("main", 7, 5, 64)), of("shop", "cart", 0, 50, use("main", 9, 9, 64))}},
		}
		var out []*orchv1.NodeUsage
		for _, n := range all {
			if len(r.Nodes) > 0 && r.Nodes[0] != n.Node {
				continue
			}
			var some []*orchv1.ReplicaUsage
			for _, x := range n.Replicas {
				if r.Namespace == "" || x.Key.Namespace == r.Namespace {
					some = append(some, x)
				}
			}
			n.Replicas = some
			out = append(out, n)
		}
		return out
	}
	return f
}

func TestTop(t *testing.T) {
	in(t, topFleet(), func(t *testing.T, r *rig) {
		var b strings.Builder
		for _, line := range []string{
			"top nodes", "top nodes node/n2", "top nodes --sort cpu", "top nodes n10", "top node --sort memory -o json",
			"top replicas", "top replicas --containers --sort memory", "top replicas -A --sort cpu", "top replicas web -n default", "top replicas web-1@20 service/db", "top replicas -l app=db",
			"top replicas -n shop -o json", "top replicas web-7", "top replicas -n empty", "top replicas --node n2 -l app=nothing",
			"top replicas --sort age", "top nodes -o yaml", "top replicas web -A", "top replicas web -l app=web", "top replicas node/n1", "top pods", "top services", "top nodez", "stats",
		} {
			b.WriteString("$ orchctl " + line + "\n" + r.run(strings.Fields(line)...).String() + "\n")
		}
		golden(t, "top", b.String())
		r.fail["Usage"] = []error{status.Error(codes.NotFound, "node n9: not found")}
		if got := r.run("top", "nodes", "n9"); got.code != 1 || got.err != "orchctl: ask what is used: node n9: not found\n" {
			t.Error(got)
		}
	})
}

// TestTopWatch: again every two seconds, on a terminal in place, through a break of the
// controller, until an interrupt.
func TestTopWatch(t *testing.T) {
	for _, c := range []struct {
		name   string
		screen func() (int, int, bool)
	}{{"pipe", nil}, {"terminal", func() (int, int, bool) { return 60, 5, true }}} {
		in(t, topFleet(), func(t *testing.T, r *rig) {
			if c.screen != nil {
				r.env.Screen = c.screen
			}
			rounds := 0
			inner := r.onUsage
			r.onUsage = func(q *orchv1.UsageRequest) []*orchv1.NodeUsage {
				rounds++
				list := inner(q)
				list[1].Replicas[0].Containers[0].CpuMilli += int64(rounds * 1000)
				return list
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan result)
			go func() { done <- r.runCtx(ctx, "top", "replicas", "-w") }()
			time.Sleep(time.Second)
			synctest.Wait()
			if rounds != 1 {
				t.Errorf("%d rounds within a second", rounds)
			}
			r.mu.Lock()
			r.fail["List"] = []error{unavailable("no leader"), unavailable("no leader")}
			r.mu.Unlock()
			time.Sleep(2 * time.Second)
			synctest.Wait()
			cancel()
			got := <-done
			if rounds != 2 || got.code != 0 {
				t.Errorf("%d rounds, %v", rounds, got)
			}
			golden(t, "top-watch-"+c.name, strings.ReplaceAll(got.String(), "\x1b", "ESC"))
		})
	}
	in(t, topFleet(), func(t *testing.T, r *rig) {
		r.onUsage = func(*orchv1.UsageRequest) []*orchv1.NodeUsage { return nil }
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		got := r.runCtx(ctx, "top", "nodes", "-w", "-o", "json")
		for d := json.NewDecoder(strings.NewReader(got.out)); d.More(); {
			var l topList
			if err := d.Decode(&l); err != nil || l.Kind != "NodeUsageList" || l.Items == nil {
				t.Fatalf("%v: %v", err, got)
			}
		}
		r.fail["Usage"] = []error{status.Error(codes.PermissionDenied, "no")}
		if got := r.run("top", "nodes", "-w"); got.code != 1 || !strings.Contains(got.err, "ask what is used: no") {
			t.Error(got)
		}
	})
}
