package runtimetest

import (
	"context"
	"maps"
	"net/netip"
	"sync"

	"github.com/orchctl/orch/agent/netdev"
	"github.com/orchctl/orch/api"
)

// Network gives every replica of a node an address. Make it with NewNetwork.
type Network struct {
	mu   sync.Mutex
	have map[api.ReplicaKey]netip.Addr
	next func() netip.Addr
}

// NewNetwork makes a network whose addresses come from next.
func NewNetwork(next func() netip.Addr) *Network {
	return &Network{have: map[api.ReplicaKey]netip.Addr{}, next: next}
}

// Setup implements agent.Network, as do Teardown and Prune.
func (n *Network) Setup(_ context.Context, key api.ReplicaKey, _ []netdev.PortMapping) (netdev.Attachment, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.have[key]; !ok {
		n.have[key] = n.next()
	}
	return netdev.Attachment{NetNS: "/run/" + key.Name(), IP: n.have[key]}, nil
}

// Teardown removes one; it need not be there.
func (n *Network) Teardown(_ context.Context, key api.ReplicaKey) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.have, key)
	return nil
}

// Prune removes all but those to keep.
func (n *Network) Prune(_ context.Context, keep func(api.ReplicaKey) bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	maps.DeleteFunc(n.have, func(k api.ReplicaKey, _ netip.Addr) bool { return !keep(k) })
	return nil
}

// Keys of the replicas that have one.
func (n *Network) Keys() []api.ReplicaKey {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []api.ReplicaKey
	for k := range n.have {
		out = append(out, k)
	}
	return out
}

// PowerLost removes them all: namespaces live in memory.
func (n *Network) PowerLost() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.have)
}
