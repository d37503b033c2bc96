package core

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/store"
	"github.com/orchctl/orch/internal/wire"
)

// addresses is who has which part of the replicas' network: each node a subnet as
// long as it is known, each service that is not headless a virtual IP as long as it
// is there. Both are durable in the record of who has them; the search for a free
// one goes on where the last one ended, over all terms, so that one that was
// returned is not another's while somebody may still send to it.
type addresses struct {
	cluster network.Cluster // zero until Begin, or as the store has it
	subnets map[netip.Prefix]string
	vips    map[netip.Addr]api.Key
	// starved nodes and services got none, for none was free.
	starvedNodes    map[string]bool
	starvedServices map[api.Key]bool

	changed map[string]bool // peers that sessions have yet to hear of
	// peers are all nodes with a subnet by name, made once and shared by all sets
	// of a turn; nil: to be made.
	peers []wire.Peer
}

func newAddresses() addresses {
	return addresses{subnets: map[netip.Prefix]string{}, vips: map[netip.Addr]api.Key{}, starvedNodes: map[string]bool{},
		starvedServices: map[api.Key]bool{}, changed: map[string]bool{}}
}

// Network is the replicas' network as the store has it, which is what holds; the
// zero value before Begin where it has none yet.
func (c *Core) Network() network.Cluster { return c.addresses.cluster }

// beginNetwork decides the network where nobody has, and gives addresses to what
// older versions stored without.
func (c *Core) beginNetwork() {
	a := &c.addresses
	if a.cluster == (network.Cluster{}) {
		a.cluster = c.cfg.Network
		if a.cluster == (network.Cluster{}) {
			a.cluster = network.DefaultCluster()
		}
		a.cluster.Nodes, a.cluster.Services = a.cluster.Nodes.Masked(), a.cluster.Services.Masked()
		c.write(store.Put(networkKey, object("Network", a.cluster)))
	}
	nodes, services := c.sortedNodes(), c.sortedServices()
	for _, n := range nodes { // what anybody has comes before what anybody lacks
		c.holdSubnet(n)
	}
	for _, s := range services {
		c.holdVIP(s)
	}
	for _, n := range nodes {
		// One that is dead gets its own when it is back.
		if st := n.obj.Status; st.Subnet == "" && st.Verdict != api.VerdictDead && c.giveSubnet(n) {
			c.putNode(n)
		}
	}
	for _, s := range services {
		if s.lacksVIP() && c.giveVIP(s) {
			c.putService(s)
		}
		c.claimPorts(s)
		c.tellService(s)
	}
}

// holdSubnet takes note of the subnet that the node's record names. One that is
// out of the range, or another's, is none.
func (c *Core) holdSubnet(n *node) {
	p, err := netip.ParsePrefix(n.obj.Status.Subnet)
	a := &c.addresses
	if err != nil || p != p.Masked() || p.Bits() != a.cluster.NodeBits || !a.cluster.Nodes.Contains(p.Addr()) || a.subnets[p] != "" {
		n.obj.Status.Subnet = ""
		return
	}
	a.subnets[p] = n.name
}

// giveSubnet finds one for a node that has none, and tells whether the node's
// record changed, which the caller writes.
func (c *Core) giveSubnet(n *node) bool {
	a, st := &c.addresses, &n.obj.Status
	if len(a.subnets) >= a.cluster.Subnets() {
		a.starvedNodes[n.name] = true
		before := st.NetworkWhy
		st.NetworkWhy = fmt.Sprintf("no subnet is free: all %d of %s are taken; remove nodes that are gone (orchctl node remove)", a.cluster.Subnets(), a.cluster.Nodes)
		if before == st.NetworkWhy {
			return false
		}
		c.event("", api.KindNode, n.name, api.EventWarning, "NoSubnet", st.NetworkWhy)
		return true
	}
	for {
		p := a.cluster.Subnet(int(c.counters.subnet % uint64(a.cluster.Subnets())))
		c.counters.subnet++
		if a.subnets[p] == "" {
			a.subnets[p] = n.name
			st.Subnet, st.NetworkWhy = p.String(), ""
			delete(a.starvedNodes, n.name)
			a.changed[n.name] = true
			return true
		}
	}
}

// returnSubnet takes the subnet of a node that is removed, and gives it, or
// another, to one that has a session and none.
func (c *Core) returnSubnet(n *node) {
	a := &c.addresses
	delete(a.starvedNodes, n.name)
	if n.obj.Status.Subnet == "" {
		return
	}
	delete(a.subnets, netip.MustParsePrefix(n.obj.Status.Subnet))
	a.changed[n.name] = true
	for _, name := range slices.Sorted(maps.Keys(a.starvedNodes)) {
		x := c.nodes[name]
		if x.session == 0 || !c.giveSubnet(x) { // the others get theirs when they are here
			continue
		}
		c.putNode(x)
		c.event("", api.KindNode, x.name, api.EventNormal, "Subnet", "it has "+x.obj.Status.Subnet+" now")
		c.fleet.SetNode(x.forScheduler())
		c.roomMade()
		c.sendStanding(x)
		return
	}
}

// notReplicas of a subnet's addresses: its own, the node's (the gateway), and the
// last.
const notReplicas = 3

// addressesOf is how many replicas can have an address of the node's subnet, and
// why none can; 0 and no words where it has none yet, for it was never here.
func addressesOf(n *node) (count int, why string) {
	p, err := netip.ParsePrefix(n.obj.Status.Subnet)
	if err != nil {
		return 0, n.obj.Status.NetworkWhy
	}
	return 1<<(32-p.Bits()) - notReplicas, ""
}

// sendStanding tells a session all of where its node stands. What changes in this
// turn follows at its end, so one list does for all sessions that open in it.
func (c *Core) sendStanding(n *node) {
	a := &c.addresses
	if a.peers == nil {
		a.peers = make([]wire.Peer, 0, len(a.subnets))
		for _, name := range slices.Sorted(maps.Values(a.subnets)) {
			if x := c.nodes[name]; x != nil {
				a.peers = append(a.peers, x.peer())
			}
		}
	}
	c.emit(SendNetwork{Node: n.name, Session: n.session, Set: wire.NetworkSet{Complete: true, Cluster: a.cluster.Nodes.String(), Services: a.cluster.Services.String(),
		Subnet: n.obj.Status.Subnet, Why: n.obj.Status.NetworkWhy, Routes: a.cluster.Routes, Put: a.peers}})
}

func (n *node) peer() wire.Peer {
	return wire.Peer{Node: n.name, Address: n.obj.Status.Address, Subnet: n.obj.Status.Subnet}
}

// sendNetwork tells all sessions which peers came, moved or went.
func (c *Core) sendNetwork() {
	a := &c.addresses
	if len(a.changed) == 0 {
		return
	}
	a.peers = nil
	var delta wire.NetworkSet
	for _, name := range slices.Sorted(maps.Keys(a.changed)) {
		if n := c.nodes[name]; n != nil && n.obj.Status.Subnet != "" {
			delta.Put = append(delta.Put, n.peer())
		} else {
			delta.Drop = append(delta.Drop, name)
		}
	}
	clear(a.changed)
	for _, n := range c.sortedSessions() {
		c.emit(SendNetwork{Node: n.name, Session: n.session, Set: delta})
	}
}

// holdVIP takes note of the virtual IP that the service's record names. One that
// is out of the range, or another's, is none.
func (c *Core) holdVIP(s *service) {
	ip, err := netip.ParseAddr(s.obj.Status.VIP)
	a := &c.addresses
	first, last := a.cluster.VIP(0), a.cluster.VIP(a.cluster.VIPs()-1)
	if _, taken := a.vips[ip]; err != nil || taken || ip.Less(first) || last.Less(ip) {
		s.obj.Status.VIP = ""
		return
	}
	a.vips[ip] = s.key
}

// lacksVIP tells whether the service should have a virtual IP and has none.
func (s *service) lacksVIP() bool {
	return !s.obj.Spec.Headless && !s.deleting() && s.obj.Status.VIP == ""
}

// giveVIP finds one for a service that has none, and tells whether there was one.
// The caller writes the service.
func (c *Core) giveVIP(s *service) bool {
	a := &c.addresses
	if len(a.vips) >= a.cluster.VIPs() {
		a.starvedServices[s.key] = true
		return false
	}
	for {
		ip := a.cluster.VIP(int(c.counters.vip % uint64(a.cluster.VIPs())))
		c.counters.vip++
		if _, taken := a.vips[ip]; !taken {
			a.vips[ip] = s.key
			s.obj.Status.VIP = ip.String()
			delete(a.starvedServices, s.key)
			return true
		}
	}
}

// returnVIP takes the virtual IP of a service that goes, or became headless.
func (c *Core) returnVIP(s *service) {
	a := &c.addresses
	delete(a.starvedServices, s.key)
	if s.obj.Status.VIP == "" {
		return
	}
	delete(a.vips, netip.MustParseAddr(s.obj.Status.VIP))
	s.obj.Status.VIP = ""
	for _, key := range slices.SortedFunc(maps.Keys(a.starvedServices), compareKeys) {
		if x := c.services[key]; x.lacksVIP() && c.giveVIP(x) {
			c.putService(x)
			c.tellService(x)
			return
		}
	}
}

// noVIP words that all virtual IPs are taken.
func (c *Core) noVIP() string {
	a := &c.addresses
	return fmt.Sprintf("no virtual IP is free: all %d of %s are taken; delete services, or make some headless", a.cluster.VIPs(), a.cluster.Services)
}

// reserveVIPs gives services of an apply the virtual IPs that they lack: all of
// them, or none.
func (c *Core) reserveVIPs(of []*service, dryRun bool) error {
	a := &c.addresses
	if room := a.cluster.VIPs() - len(a.vips); len(of) > room {
		return fmt.Errorf("%w: service %s: %s", ErrBusy, of[room].key, c.noVIP())
	}
	if dryRun {
		return nil
	}
	for _, s := range of {
		c.giveVIP(s)
	}
	return nil
}

// releaseVIPs undoes reserveVIPs.
func (c *Core) releaseVIPs(of []*service) {
	for _, s := range of {
		if ip, err := netip.ParseAddr(s.obj.Status.VIP); err == nil {
			delete(c.addresses.vips, ip)
			s.obj.Status.VIP = ""
		}
	}
}

// putService writes a service to which something happened that nobody applied.
func (c *Core) putService(s *service) {
	s.obj.Metadata.ResourceVersion++
	c.write(store.Put(serviceKey(s.key), object(api.KindService, &s.obj)))
	c.view.touch(s)
}

// tellService has agents told of the service, if it is not as they know it.
func (c *Core) tellService(s *service) {
	if rev := s.newest(); rev != nil && s.job == nil {
		c.ends.putService(wire.Service{Key: s.key, VIP: s.obj.Status.VIP, SessionAffinity: s.obj.Spec.SessionAffinity,
			TrafficDistribution: s.obj.Spec.TrafficDistribution, Ports: rev.ports})
	}
}
