package agent

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/orchctl/orch/agent/ctrd"
	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/agent/runtimetest"
	"github.com/orchctl/orch/agent/usage"
	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// measured is a meter that says what a test wants.
type measured struct {
	usage usage.Usage
	err   error
}

func (m measured) Now(context.Context) (usage.Usage, error)  { return m.usage, m.err }
func (m measured) Read(context.Context) (usage.Usage, error) { return m.usage, m.err }

func TestRelayUsage(t *testing.T) {
	of := func(ns, name string, milli int64) usage.Container {
		return usage.Container{CPUMilli: milli, ContainerUsage: ctrd.ContainerUsage{Replica: api.ReplicaKey{Namespace: ns, Service: "web", Slot: 2, Epoch: 7},
			Container: name, Memory: 10, MemoryLimit: 20, CPULimit: 500, Pids: 3}}
	}
	ask := func(m measured, namespace string) (*orchv1.NodeUsage, *orchv1.End) {
		d := newDriver(Config{Name: "n1", Network: newNetwork(), Traffic: runtimetest.NewTraffic(), Runtime: newRuntime(), Usage: m, Data: t.TempDir(), Logger: slog.New(slog.DiscardHandler)}, plan.New(plan.Config{}), newConfigs())
		f := newFrames()
		d.Relay(t.Context(), &orchv1.OpenRelay{Request: &orchv1.OpenRelay_Usage{Usage: &orchv1.UsageOpen{Namespace: namespace}}}, f)
		var u *orchv1.NodeUsage
		for {
			m := <-f.out
			if m.GetEnd() != nil {
				return u, m.GetEnd()
			}
			u = m.GetUsage()
		}
	}
	m := measured{usage: usage.Usage{Window: time.Second, CPUMilli: 1500, Memory: 100, Disk: 1000, DiskFree: 400,
		Containers: []usage.Container{of("default", "main", 1), of("shop", "main", 2), of("default", "side", 3)}}}
	container := func(name string, milli int64) *orchv1.ContainerUsage {
		return &orchv1.ContainerUsage{Name: name, CpuMilli: milli, MemoryBytes: 10, MemoryLimitBytes: 20, CpuLimitMilli: 500, Pids: 3}
	}
	want := &orchv1.NodeUsage{Node: "n1", CpuMilli: 1500, MemoryBytes: 100, Window: durationpb.New(time.Second), DiskBytes: 1000, DiskFreeBytes: 400, Replicas: []*orchv1.ReplicaUsage{
		{Key: &orchv1.ReplicaKey{Namespace: "default", Service: "web", Slot: 2, Epoch: 7}, Containers: []*orchv1.ContainerUsage{container("main", 1), container("side", 3)}},
		{Key: &orchv1.ReplicaKey{Namespace: "shop", Service: "web", Slot: 2, Epoch: 7}, Containers: []*orchv1.ContainerUsage{container("main", 2)}},
	}}
	if got, end := ask(m, ""); !proto.Equal(got, want) || end.GetError() != "" {
		t.Errorf("got %v, %v", got, end)
	}
	want.Replicas = want.Replicas[1:]
	if got, _ := ask(m, "shop"); !proto.Equal(got, want) {
		t.Errorf("of one namespace: %v", got)
	}
	if got, end := ask(measured{err: errors.New("containerd is away")}, ""); got != nil || end.GetError() != "containerd is away" {
		t.Errorf("a failure: %v, %v", got, end)
	}
}
