package runtimetest

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/orchctl/orch/agent/netdev"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/wire"
)

// Network gives every replica of a node an address. Make it with NewNetwork.
type Network struct {
	mu     sync.Mutex
	have   map[api.ReplicaKey]netip.Addr
	next   func() netip.Addr
	set    *wire.NetworkSet // the sum of what was configured
	health string
	refuse error
	narrow bool
	moved  chan struct{} // closed when a set is taken up
}

// NewNetwork makes a network whose addresses come from next.
func NewNetwork(next func() netip.Addr) *Network {
	return &Network{have: map[api.ReplicaKey]netip.Addr{}, next: next, moved: make(chan struct{})}
}

// Run implements agent.Network.
func (n *Network) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Configure implements agent.Network: it keeps the sum, as a disk would.
func (n *Network) Configure(_ context.Context, set wire.NetworkSet) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.refuse != nil {
		return n.refuse
	}
	close(n.moved)
	n.moved = make(chan struct{})
	if set.Complete || n.set == nil {
		if !set.Complete {
			return fmt.Errorf("configure network: changes came before a complete set: %+v", set)
		}
		n.set = &set
		return nil
	}
	sum := *n.set
	sum.Put = slices.DeleteFunc(slices.Clone(sum.Put), func(p wire.Peer) bool {
		return slices.Contains(set.Drop, p.Node) || slices.ContainsFunc(set.Put, func(q wire.Peer) bool { return q.Node == p.Node })
	})
	sum.Put = append(sum.Put, set.Put...)
	n.set = &sum
	return nil
}

// Standing implements agent.Network.
func (n *Network) Standing() (network.Standing, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.set == nil {
		return network.Standing{}, false
	}
	prefix := func(text string) netip.Prefix {
		p, _ := netip.ParsePrefix(text) // tests that want one give one
		return p
	}
	return network.Standing{Subnet: prefix(n.set.Subnet), Cluster: prefix(n.set.Cluster), Services: prefix(n.set.Services), Routes: n.set.Routes}, true
}

// Set is the sum of what it was configured with; nil: nothing yet.
func (n *Network) Set() *wire.NetworkSet {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.set
}

// Refuse makes Configure fail from now on; nil ends that.
func (n *Network) Refuse(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.refuse = err
}

// Narrow makes Setup wait for a subnet, as the kernel's network does.
func (n *Network) Narrow() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.narrow = true
}

// Ail is what Health says from now on.
func (n *Network) Ail(words string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.health = words
}

// Health implements agent.Network.
func (n *Network) Health() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.health
}

// Files implements agent.Network: there are none.
func (n *Network) Files(api.ReplicaKey) netdev.Files { return netdev.Files{} }

// Setup implements agent.Network, as do Teardown and Prune.
func (n *Network) Setup(ctx context.Context, key api.ReplicaKey, hostNetwork bool) (netdev.Attachment, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for n.narrow && !hostNetwork && (n.set == nil || n.set.Subnet == "") {
		moved := n.moved
		n.mu.Unlock()
		select {
		case <-moved:
			n.mu.Lock()
		case <-ctx.Done():
			n.mu.Lock()
			return netdev.Attachment{}, fmt.Errorf("set up network of %s: no subnet: %w", key, ctx.Err())
		}
	}
	if _, ok := n.have[key]; !ok {
		n.have[key] = n.next()
	}
	if hostNetwork {
		return netdev.Attachment{IP: n.have[key]}, nil
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
