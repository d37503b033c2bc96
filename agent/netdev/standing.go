package netdev

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/wire"
)

// place is where the node stands in the network, and who else is in it.
type place struct {
	known bool // something was told, now or to an earlier agent
	at    network.Standing
	// why there is no subnet, in the leader's words.
	why   string
	peers map[string]network.Peer // by node; never changed, but replaced
}

// take gives the place with a set taken in, and what is wrong with peers that are
// left out: what one node says of itself must not keep all others from each other.
func (p place) take(address netip.Addr, set wire.NetworkSet) (_ place, strange []error, _ error) {
	old := p.peers
	if set.Complete {
		at := network.Standing{Address: address, Routes: cmp.Or(set.Routes, wire.RoutesAuto)}
		for _, f := range []struct {
			to   *netip.Prefix
			from string
		}{{&at.Cluster, set.Cluster}, {&at.Services, set.Services}, {&at.Subnet, set.Subnet}} {
			if f.from == "" && f.to == &at.Subnet {
				continue
			}
			prefix, err := parseRange(f.from)
			if err != nil {
				return p, nil, err
			}
			*f.to = prefix
		}
		if at.Subnet.IsValid() && at.Subnet.Bits() > 30 {
			return p, nil, fmt.Errorf("subnet %s has no room for two addresses", at.Subnet)
		}
		p, old = place{known: true, at: at, why: set.Why}, nil
	}
	p.peers = make(map[string]network.Peer, len(old)+len(set.Put))
	for node, peer := range old {
		p.peers[node] = peer
	}
	for _, peer := range set.Put {
		parsed, err := parsePeer(peer)
		if err != nil {
			strange = append(strange, fmt.Errorf("peer %s: %w", peer.Node, err))
			delete(p.peers, peer.Node) // wherever it was, it is there no more
			continue
		}
		p.peers[peer.Node] = parsed
	}
	for _, node := range set.Drop {
		delete(p.peers, node)
	}
	return p, strange, nil
}

func parsePeer(peer wire.Peer) (network.Peer, error) {
	parsed := network.Peer{Node: peer.Node}
	var err error
	if parsed.Address, err = netip.ParseAddr(peer.Address); err != nil || !parsed.Address.Is4() {
		return parsed, fmt.Errorf("address %q is not IPv4", peer.Address)
	}
	if a := parsed.Address; a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return parsed, fmt.Errorf("address %s is no node's", a)
	}
	if peer.Subnet != "" {
		parsed.Subnet, err = parseRange(peer.Subnet)
	}
	return parsed, err
}

func parseRange(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil || !p.Addr().Is4() {
		return netip.Prefix{}, fmt.Errorf("range %q is not IPv4 in the form of 10.64.0.0/10", s)
	}
	return p.Masked(), nil
}

// whole gives the set that take would make the place of.
func (p place) whole() wire.NetworkSet {
	set := wire.NetworkSet{Complete: true, Cluster: p.at.Cluster.String(), Services: p.at.Services.String(), Why: p.why, Routes: p.at.Routes}
	if p.at.Subnet.IsValid() {
		set.Subnet = p.at.Subnet.String()
	}
	for _, peer := range p.sorted() {
		w := wire.Peer{Node: peer.Node, Address: peer.Address.String()}
		if peer.Subnet.IsValid() {
			w.Subnet = peer.Subnet.String()
		}
		set.Put = append(set.Put, w)
	}
	return set
}

// sorted gives the peers by node.
func (p place) sorted() []network.Peer {
	peers := make([]network.Peer, 0, len(p.peers))
	for _, peer := range p.peers {
		peers = append(peers, peer)
	}
	slices.SortFunc(peers, func(a, b network.Peer) int { return cmp.Compare(a.Node, b.Node) })
	return peers
}

// next gives the subnet of the peer that comes after this node, round and round, so
// that each node is second for one other; none if it is alone.
func (p place) next() netip.Prefix {
	var next, first netip.Prefix
	for _, peer := range p.peers {
		x := peer.Subnet
		if !x.IsValid() {
			continue
		}
		if !first.IsValid() || x.Addr().Less(first.Addr()) {
			first = x
		}
		if p.at.Subnet.Addr().Less(x.Addr()) && (!next.IsValid() || x.Addr().Less(next.Addr())) {
			next = x
		}
	}
	if !next.IsValid() {
		return first
	}
	return next
}

// Configure takes where the node stands, a set at a time, in order. The node's own
// part is on disk when it returns, peers soon after, as are routes.
func (n *Network) Configure(_ context.Context, set wire.NetworkSet) error {
	n.telling.Lock()
	defer n.telling.Unlock()
	next, strange, err := n.placed().take(n.cfg.Address, set)
	if err != nil {
		return fmt.Errorf("take the node's place in the network: %w", err)
	}
	for _, why := range strange {
		n.log.Warn("no packet goes to replicas of a peer: what the leader says of it makes no sense", "err", why)
	}
	if set.Complete {
		if err := n.savePlace(next); err != nil {
			return err
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.place, n.left, n.unsaved = next, false, !set.Complete
	if set.Complete {
		n.looked = false
	}
	close(n.moved)
	n.moved = make(chan struct{})
	n.markDirty()
	return nil
}

// placed gives the place; what it holds does not change.
func (n *Network) placed() place {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.place
}

// Standing is what the node was last told; false: nothing yet.
func (n *Network) Standing() (network.Standing, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.place.at, n.place.known
}

// awaitSubnet gives where the node stands once it has a subnet.
func (n *Network) awaitSubnet(ctx context.Context) (network.Standing, error) {
	for {
		n.mu.Lock()
		p, moved := n.place, n.moved
		n.mu.Unlock()
		if p.at.Subnet.IsValid() {
			return p.at, nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			if p.why == "" {
				p.why = "it has not been heard"
			}
			return network.Standing{}, fmt.Errorf("the leader has given this node no subnet: %s", p.why)
		}
	}
}

func (n *Network) placePath() string { return filepath.Join(n.cfg.StateDir, "standing.json") }

func (n *Network) savePlace(p place) error {
	b, err := json.Marshal(p.whole())
	if err == nil {
		err = writeFile(n.placePath(), b)
	}
	if err != nil {
		return fmt.Errorf("write the node's place in the network: %w", err)
	}
	return nil
}

// saveLate writes the peers that Configure has not.
func (n *Network) saveLate() error {
	n.telling.Lock()
	defer n.telling.Unlock()
	n.mu.Lock()
	p, due := n.place, n.unsaved
	n.unsaved = false
	n.mu.Unlock()
	if !due {
		return nil
	}
	err := n.savePlace(p)
	if err != nil {
		n.mu.Lock()
		n.unsaved = true
		n.mu.Unlock()
	}
	return err
}

// loadPlace reads what an earlier agent was told. A file that cannot be read is as
// good as none: the leader tells it again.
func (n *Network) loadPlace() error {
	b, err := os.ReadFile(n.placePath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the node's place in the network: %w", err)
	}
	var set wire.NetworkSet
	if err = json.Unmarshal(b, &set); err == nil {
		n.place, _, err = place{}.take(n.cfg.Address, set)
	}
	if err != nil {
		n.log.Warn("cannot use what is on disk of the node's place in the network: it is told again", "err", err)
		n.place = place{}
	}
	return nil
}

func (n *Network) markDirty() {
	select {
	case n.dirty <- struct{}{}:
	default:
	}
}
