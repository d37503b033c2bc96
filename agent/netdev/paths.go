package netdev

import (
	"context"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/network"
)

// Run keeps routes and devices in place until ctx ends; they stay then.
func (n *Network) Run(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// Health says in words what is wrong now and cannot be put right; empty: nothing.
func (n *Network) Health() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.wrong
}

func (n *Network) replicaMTU(network.Standing) (int, error) { return 1450, nil }

// Leave takes everything of ours from the node: replicas' networks, routes,
// devices, and what is known of the cluster. Nothing is put back until the next
// Configure.
func (n *Network) Leave(ctx context.Context) error {
	return n.Prune(ctx, func(api.ReplicaKey) bool { return false })
}
