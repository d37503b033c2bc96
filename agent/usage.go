package agent

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/orchctl/orch/agent/session"
	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// relayUsage tells what the node and its replicas use now.
func (d *driver) relayUsage(ctx context.Context, req *orchv1.UsageOpen, r session.Relay) *orchv1.End {
	u, err := d.cfg.Usage.Now(ctx)
	if err != nil {
		return failed(err)
	}
	out := &orchv1.NodeUsage{Node: d.cfg.Name, CpuMilli: u.CPUMilli, MemoryBytes: u.Memory, Window: durationpb.New(u.Window), DiskBytes: u.Disk, DiskFreeBytes: u.DiskFree}
	for _, x := range u.ByReplica() {
		if ns := req.GetNamespace(); ns != "" && x.Key.Namespace != ns {
			continue
		}
		replica := &orchv1.ReplicaUsage{Key: wire.KeyToPB(x.Key)}
		for _, c := range x.Containers {
			replica.Containers = append(replica.Containers, &orchv1.ContainerUsage{Name: c.Container, CpuMilli: c.CPUMilli, MemoryBytes: c.Memory,
				MemoryLimitBytes: c.MemoryLimit, CpuLimitMilli: c.CPULimit, Pids: c.Pids})
		}
		out.Replicas = append(out.Replicas, replica)
	}
	if err := r.Send(&orchv1.Frame{Frame: &orchv1.Frame_Usage{Usage: out}}); err != nil {
		return failed(err)
	}
	return &orchv1.End{}
}
