package sim

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/wire"
)

// drawNetwork gives the replicas' network as one controller is told it: now and
// then narrow, so that subnets and addresses run out.
func (w *world) drawNetwork() network.Cluster {
	c := network.DefaultCluster()
	if chance(w.r.world, 0.3) {
		c.Nodes, c.NodeBits = netip.MustParsePrefix("10.64.0.0/26"), 28 // 4 subnets of 13 replicas
	}
	if chance(w.r.world, 0.5) {
		c.Services = netip.MustParsePrefix("10.128.0.0/28") // 5 virtual IPs, for up to 5 services
	}
	return c
}

// stands is what an agent was told of the replicas' network, kept on disk.
type stands struct {
	all   wire.NetworkSet // as last told completely
	peers map[string]wire.Peer
}

func (a *agent) network(s *session, set wire.NetworkSet) {
	if a.deposed(s) {
		return
	}
	switch {
	case set.Complete:
		s.standing = true
		a.h.disk.stands = stands{set, map[string]wire.Peer{}}
	case !s.standing:
		a.h.w.violate("addresses", "%s is told which nodes changed before it was told all", a.h.name)
		return
	}
	for _, p := range set.Put {
		a.h.disk.stands.peers[p.Node] = p
	}
	for _, n := range set.Drop {
		delete(a.h.disk.stands.peers, n)
	}
}

// notReplicas are the addresses of a subnet that no replica has.
const notReplicas = 3

// network gives a replica an address of the node's subnet, as host-local does: the
// next one that is free.
func (r *runtime) network(e plan.SetupNetwork, trouble bool) plan.Event {
	if trouble {
		return failed(e.ID, api.ReasonNetworkError, "the plugin failed")
	}
	if e.HostNetwork {
		return plan.Done{ID: e.ID, Network: plan.Network{IP: r.h.address}}
	}
	if n, ok := r.networks[e.Replica]; ok {
		return plan.Done{ID: e.ID, Network: n}
	}
	subnet, err := netip.ParsePrefix(r.h.disk.stands.all.Subnet)
	if err != nil {
		return failed(e.ID, api.ReasonNetworkError, "this node has no subnet")
	}
	taken := map[string]bool{}
	for _, n := range r.networks {
		taken[n.IP] = true
	}
	size := 1<<(32-subnet.Bits()) - notReplicas
	for range size {
		r.addresses++
		ip := network.Gateway(subnet)
		for range r.addresses%size + 1 {
			ip = ip.Next()
		}
		if !taken[ip.String()] {
			r.networks[e.Replica] = plan.Network{NetNS: "/run/netns/" + e.Replica.String(), IP: ip.String()}
			return plan.Done{ID: e.ID, Network: r.networks[e.Replica]}
		}
	}
	return failed(e.ID, api.ReasonNetworkError, "no address is free")
}

// addressed holds what was just written against what there was: no two nodes have
// one subnet, no two services one virtual IP, a node keeps its subnet and a
// service its virtual IP as long as they are there.
func (g *ledger) addressed(before picture, changes []change) {
	w, looked := g.w, false
	for _, c := range changes {
		switch {
		case c.kind == kindNode && c.object != nil:
			looked = true
			if old := before.nodes[c.node]; old != nil && old.Metadata.CreatedAt.Equal(c.object.Metadata.CreatedAt) && old.Status.Subnet != "" && old.Status.Subnet != c.object.Status.Subnet {
				w.violate("addresses", "%s has subnet %q now, it had %s", c.node, c.object.Status.Subnet, old.Status.Subnet)
			}
			if d := c.object.Spec.Drain; d != nil && !c.object.Spec.Unschedulable {
				w.violate("I3", "%s is drained, and takes replicas", c.node)
			}
		case c.kind == kindService && c.service != nil:
			looked = true
			s, old := c.service, before.services[c.key]
			if s.Spec.Headless != (s.Status.VIP == "") && s.Metadata.DeletedAt.IsZero() {
				w.violate("addresses", "service %s has virtual IP %q; headless: %t", c.key, s.Status.VIP, s.Spec.Headless)
			}
			if old != nil && old.Metadata.UID == s.Metadata.UID && old.Status.VIP != "" && s.Status.VIP != "" && old.Status.VIP != s.Status.VIP {
				w.violate("addresses", "service %s has virtual IP %s now, it had %s", c.key, s.Status.VIP, old.Status.VIP)
			}
		case c.kind == kindNetwork:
			if c.cluster == nil || g.cluster.Nodes.IsValid() && *c.cluster != g.cluster {
				w.violate("addresses", "the network was %+v and becomes %+v", g.cluster, c.cluster)
				return
			}
			g.cluster = *c.cluster
		}
	}
	if looked {
		g.nothingTwice()
		g.portsOnce()
	}
}

func (g *ledger) nothingTwice() {
	subnets := map[netip.Prefix]string{}
	for _, name := range slices.Sorted(maps.Keys(g.pic.nodes)) {
		text := g.pic.nodes[name].Status.Subnet
		if text == "" {
			continue
		}
		p, err := netip.ParsePrefix(text)
		if err != nil || p.Bits() != g.cluster.NodeBits || !g.cluster.Nodes.Contains(p.Addr()) {
			g.w.violate("addresses", "%s has subnet %q, which is none of %s", name, text, g.cluster.Nodes)
			return
		}
		for other, n := range subnets {
			if other.Overlaps(p) {
				g.w.violate("addresses", "%s and %s have subnet %s", n, name, p)
			}
		}
		subnets[p] = name
	}
	vips := map[string]api.Key{}
	for _, key := range g.pic.sortedServices() {
		ip := g.pic.services[key].Status.VIP
		if ip == "" {
			continue
		}
		if other, taken := vips[ip]; taken {
			g.w.violate("addresses", "services %s and %s have virtual IP %s", other, key, ip)
		}
		if a, err := netip.ParseAddr(ip); err != nil || !g.cluster.Services.Contains(a) {
			g.w.violate("addresses", "service %s has virtual IP %q, which is none of %s", key, ip, g.cluster.Services)
		}
		vips[ip] = key
	}
}

// wants is a port that a template wants of nodes.
type wants struct {
	number     int
	protocol   api.Protocol
	everywhere bool
}

func wantedPorts(t *api.Template) []wants {
	var out []wants
	for _, c := range t.Containers {
		for _, p := range c.Ports {
			switch {
			case p.Publish != 0:
				out = append(out, wants{p.Publish, p.Transport(), p.Mode != api.PublishHost})
			case t.HostNetwork:
				out = append(out, wants{p.Port, p.Transport(), false})
			}
		}
	}
	return out
}

// templatesOf are the newest revision of a service and those that it still runs,
// where that may come to life.
func (g *ledger) templatesOf(key api.Key) []*api.Template {
	var out []*api.Template
	if r := g.pic.revisions[revisionKey{key, g.pic.services[key].Status.Revision}]; r != nil {
		out = append(out, r.template)
	}
	if r := g.rollsOf(g.pic.services[key].Metadata.UID); r.of != nil { // what the rollout has not come to may be filled with it
		out = append(out, &r.of.Template)
	}
	for _, k := range g.pic.of(key) {
		p := g.pic.placements[k]
		n := g.pic.nodes[p.node]
		if r := g.pic.revisions[revisionKey{key, p.revision}]; r != nil && n != nil && n.Status.Verdict != api.VerdictDead && n.Status.BootID == p.boot {
			out = append(out, r.template)
		}
	}
	return out
}

// portsOnce: a port that one service publishes on every node is no other's.
func (g *ledger) portsOnce() {
	type holder struct {
		key        api.Key
		everywhere bool
	}
	held := map[wants][]holder{}
	for _, key := range g.pic.sortedServices() {
		for _, t := range g.templatesOf(key) {
			for _, x := range wantedPorts(t) {
				port := wants{number: x.number, protocol: x.protocol}
				g.heldAt[portOf{port, key}] = g.w.clock
				for _, o := range held[port] {
					if o.key != key && (o.everywhere || x.everywhere) {
						g.w.violate("ports", "services %s and %s both have port %d/%s, and one of them on every node", o.key, key, x.number, x.protocol)
						return
					}
				}
				held[port] = append(held[port], holder{key, x.everywhere})
			}
		}
	}
}

// portOf is a port that a service had.
type portOf struct {
	port wants
	key  api.Key
}

// refusalLag is how much older than an answer its reason may be.
const refusalLag = int64(10e9)

// refusedRightly tells whether somebody else had one of the ports that an apply wanted.
func (g *ledger) refusedRightly(s *api.Service) bool {
	for _, x := range wantedPorts(&s.Spec.Template) {
		for o, at := range g.heldAt {
			_, there := g.pic.services[o.key]
			if o.key != s.Metadata.Key() && o.port.number == x.number && o.port.protocol == x.protocol && (there || g.w.clock-at < refusalLag) {
				return true
			}
		}
	}
	return false
}

// networkUnsettled: every agent knows where all nodes stand, and every node has a
// subnet or says why not.
func (w *world) networkUnsettled() string {
	pic, given := w.ledger.pic, 0
	want := map[string]wire.Peer{}
	for name, n := range pic.nodes {
		if n.Status.Subnet != "" {
			given++
			want[name] = wire.Peer{Node: name, Address: n.Status.Address, Subnet: n.Status.Subnet}
		}
	}
	for _, h := range w.living() {
		n := pic.nodes[h.name]
		if n == nil || h.agent.session == nil {
			return h.name + " has no session"
		}
		if got := h.disk.stands; !maps.Equal(got.peers, want) {
			return fmt.Sprintf("%s takes the nodes for %v, they are %v", h.name, got.peers, want)
		} else if got.all.Subnet != n.Status.Subnet {
			return fmt.Sprintf("%s was told its subnet is %q, it is %q", h.name, got.all.Subnet, n.Status.Subnet)
		}
		switch full := given == w.ledger.cluster.Subnets(); {
		case n.Status.Subnet == "" && !full:
			return fmt.Sprintf("%s has no subnet, though only %d are given", h.name, given)
		case n.Status.Subnet == "" && !strings.Contains(n.Status.NetworkWhy, "no subnet is free"):
			return fmt.Sprintf("%s has no subnet, and says %q", h.name, n.Status.NetworkWhy)
		case n.Status.Subnet != "" && n.Status.NetworkWhy != "":
			return fmt.Sprintf("%s has subnet %s, and says %q", h.name, n.Status.Subnet, n.Status.NetworkWhy)
		}
		if what := h.traffic.ledOtherwise(); what != "" {
			return what
		}
	}
	return ""
}

func compareServices(a, b api.Key) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}
