package scheduler

import (
	"cmp"
	"maps"
	"math"
	"slices"

	"github.com/orchctl/orch/api"
)

// Node is what placement needs to know of a node. A resource that Capacity does
// not name is zero there; only the verdict Healthy takes new replicas.
type Node struct {
	Name          string
	Labels        map[string]string
	Capacity      api.ResourceList
	Verdict       api.Verdict
	Unschedulable bool
	// Impaired says in words why a node that beats cannot work ("containerd does
	// not answer"); empty: it can. What it was given might never start.
	Impaired string
	// Damped: it went and came back too often to be given more.
	Damped bool
	// NoNetwork says in words why replicas cannot have an address there ("no subnet
	// is free"); empty: they can. Those in the node's own network need none.
	NoNetwork string
	// Addresses is how many replicas can have one; 0 means that nothing is known
	// of a limit.
	Addresses int
}

// Fleet is the scheduler's picture of nodes and of what is bound to them. It has
// one owner: it is not safe for concurrent use. Changes cost what changed, but
// that the first Place after a node came or went puts the ring in order again.
type Fleet struct {
	nodes    map[string]*node
	bindings map[api.ReplicaKey]*binding
	services map[api.Key]*service
	// names are the resources by their index in a node's vectors; ids the way
	// back. The order of extended ones depends on arrival, so it never shows.
	names []string
	ids   map[string]int
	index index
}

// The fixed places in a node's vectors; extended resources follow.
const (
	idCPU = iota
	idMemory
)

// node is a node and what is bound to it. It exists without being known as long
// as bindings point to it: placements may be loaded before nodes are.
type node struct {
	name          string
	hash          uint64
	known         bool
	labels        map[string]string
	verdict       api.Verdict
	unschedulable bool
	impaired      string
	damped        bool
	noNetwork     string
	addresses     int     // 0: no limit
	addressed     int     // replicas bound that have an address of their own
	capacity      []int64 // by resource id; what lies beyond the end is zero
	requested     []int64
	bound         []*binding // in no order
	ports         map[hostPort]int
	load          int // per mille, see loadOf
	pos           int // on the ring; -1 if not on it
}

// binding ties a replica to a node.
type binding struct {
	key     api.ReplicaKey
	service *service
	node    *node
	shape   *Shape
	at      int // in node.bound
}

// service counts its replicas by node.
type service struct {
	key api.Key
	on  map[*node]int
}

// need is a request with the resource's id in one fleet.
type need struct {
	request
	id int
}

// NewFleet gives an empty fleet.
func NewFleet() *Fleet {
	return &Fleet{
		nodes:    map[string]*node{},
		bindings: map[api.ReplicaKey]*binding{},
		services: map[api.Key]*service{},
		names:    []string{idCPU: api.CPU, idMemory: api.Memory},
		ids:      map[string]int{api.CPU: idCPU, api.Memory: idMemory},
		index:    newIndex(),
	}
}

// SetNode adds a node or replaces what is known of it; its bindings stay. The
// maps are copied.
func (f *Fleet) SetNode(n Node) {
	x := f.nodeOf(n.Name)
	relabelled := !maps.Equal(x.labels, n.Labels)
	if relabelled {
		x.labels = maps.Clone(n.Labels)
	}
	x.verdict, x.unschedulable, x.impaired, x.damped = n.Verdict, n.Unschedulable, n.Impaired, n.Damped
	x.noNetwork, x.addresses = n.NoNetwork, n.Addresses
	clear(x.capacity)
	for name, q := range n.Capacity {
		if name != api.Pids {
			x.capacity = grow(x.capacity, f.id(name))
			x.capacity[f.id(name)] = max(0, q.Milli())
		}
	}
	if !x.known {
		x.known = true
		f.index.stale = true
	}
	if relabelled {
		f.index.relabel(x)
	}
	f.index.enroll(x)
	f.index.reload(x)
}

// RemoveNode forgets a node. What is bound to it stays bound until Unbind, and
// counts again should the node return. An unknown name is nothing to do.
func (f *Fleet) RemoveNode(name string) {
	x := f.nodes[name]
	if x == nil || !x.known {
		return
	}
	f.index.stale = true
	x.known = false
	// A node that returns has to say everything anew.
	x.labels, x.capacity, x.verdict, x.unschedulable, x.impaired, x.damped = nil, nil, "", false, "", false
	x.noNetwork, x.addresses = "", 0
	x.pos = -1
	f.dropEmpty(x)
}

// Bind counts a replica on a node, without asking filters: what is placed is
// placed. The node need not be known yet. Binding a key again moves it; to the
// same node it changes nothing. A nil shape asks for nothing.
func (f *Fleet) Bind(key api.ReplicaKey, node string, s *Shape) {
	if s == nil {
		s = &Shape{}
	}
	if b := f.bindings[key]; b != nil {
		if b.node.name == node && b.shape == s {
			return
		}
		f.Unbind(key)
	}
	f.bind(key, f.serviceOf(key.ServiceKey()), f.nodeOf(node), s, f.needs(nil, s))
}

func (f *Fleet) bind(key api.ReplicaKey, sv *service, n *node, s *Shape, needs []need) {
	b := &binding{key: key, service: sv, node: n, shape: s, at: len(n.bound)}
	f.bindings[key] = b
	if len(sv.on) == 0 {
		f.services[sv.key] = sv
	}
	sv.on[n]++
	n.bound = append(n.bound, b)
	if !s.hostNetwork {
		n.addressed++
	}
	for _, r := range needs {
		n.requested = grow(n.requested, r.id)
		n.requested[r.id] = addCapped(n.requested[r.id], r.amount)
	}
	for _, p := range s.ports {
		if n.ports == nil {
			n.ports = map[hostPort]int{}
		}
		n.ports[p]++
	}
	f.index.reload(n)
}

// Unbind takes a replica off its node. An unbound key is nothing to do.
func (f *Fleet) Unbind(key api.ReplicaKey) {
	b := f.bindings[key]
	if b == nil {
		return
	}
	n, sv := b.node, b.service
	delete(f.bindings, key)
	if sv.on[n]--; sv.on[n] == 0 {
		delete(sv.on, n)
	}
	if len(sv.on) == 0 {
		delete(f.services, sv.key)
	}
	last := n.bound[len(n.bound)-1]
	n.bound[b.at], last.at = last, b.at
	n.bound[len(n.bound)-1] = nil
	n.bound = n.bound[:len(n.bound)-1]
	if !b.shape.hostNetwork {
		n.addressed--
	}
	for _, r := range f.needs(nil, b.shape) {
		f.give(n, r)
	}
	for _, p := range b.shape.ports {
		if n.ports[p]--; n.ports[p] == 0 {
			delete(n.ports, p)
		}
	}
	f.index.reload(n)
	f.dropEmpty(n)
}

// give takes a request of a replica that has left off the node's sum. A sum that
// was cut off at the largest amount does not know by how much, so it is made anew.
func (f *Fleet) give(n *node, r need) {
	if n.requested[r.id] < math.MaxInt64 {
		n.requested[r.id] -= r.amount
		return
	}
	n.requested[r.id] = 0
	for _, b := range n.bound {
		for _, q := range b.shape.requests {
			if q.name == r.name {
				n.requested[r.id] = addCapped(n.requested[r.id], q.amount)
			}
		}
	}
}

// Requested sums the requests bound to a node; zero amounts are left out. It is
// empty, not nil, for a node that has nothing.
func (f *Fleet) Requested(node string) api.ResourceList {
	list := api.ResourceList{}
	if n := f.nodes[node]; n != nil {
		for id, amount := range n.requested {
			if amount != 0 {
				list[f.names[id]] = api.Quantity(amount)
			}
		}
	}
	return list
}

// Free sums what is not requested on the nodes that take new replicas at all;
// resources of which nothing is free are left out. A node that is bound past its
// capacity has nothing free, not less. It costs the nodes of the fleet.
func (f *Fleet) Free() api.ResourceList {
	f.settle()
	sums := make([]int64, len(f.names))
	for pos, n := range f.index.ring {
		if !f.index.open.has(pos) {
			continue
		}
		for id := range n.capacity {
			sums[id] = addCapped(sums[id], n.free(id))
		}
	}
	list := api.ResourceList{}
	for id, amount := range sums {
		if amount > 0 {
			list[f.names[id]] = api.Quantity(amount)
		}
	}
	return list
}

// Bound lists what is bound to a node by namespace, service, slot and epoch.
func (f *Fleet) Bound(node string) []api.ReplicaKey {
	n := f.nodes[node]
	if n == nil {
		return nil
	}
	keys := make([]api.ReplicaKey, len(n.bound))
	for i, b := range n.bound {
		keys[i] = b.key
	}
	slices.SortFunc(keys, compareKeys)
	return keys
}

func compareKeys(a, b api.ReplicaKey) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Service, b.Service),
		cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Epoch, b.Epoch))
}

func (f *Fleet) nodeOf(name string) *node {
	n := f.nodes[name]
	if n == nil {
		n = &node{name: name, hash: hashText(name), pos: -1}
		f.nodes[name] = n
	}
	return n
}

// serviceOf gives the service's counts; they are kept once something is bound.
func (f *Fleet) serviceOf(key api.Key) *service {
	if sv := f.services[key]; sv != nil {
		return sv
	}
	return &service{key: key, on: map[*node]int{}}
}

// dropEmpty lets go of a node that neither SetNode nor a binding speaks of.
func (f *Fleet) dropEmpty(n *node) {
	if !n.known && len(n.bound) == 0 {
		delete(f.nodes, n.name)
	}
}

// id gives the place of a resource in the nodes' vectors.
func (f *Fleet) id(name string) int {
	id, ok := f.ids[name]
	if !ok {
		id = len(f.names)
		f.ids[name] = id
		f.names = append(f.names, name)
	}
	return id
}

// needs appends the shape's requests, resolved for this fleet.
func (f *Fleet) needs(to []need, s *Shape) []need {
	for _, r := range s.requests {
		to = append(to, need{r, f.id(r.name)})
	}
	return to
}

// grow makes v long enough to hold id.
func grow(v []int64, id int) []int64 {
	for len(v) <= id {
		v = append(v, 0)
	}
	return v
}

// at reads a vector beyond whose end all is zero.
func at(v []int64, id int) int64 {
	if id < len(v) {
		return v[id]
	}
	return 0
}

// free is what of a resource is not requested yet; below zero on a node that
// shrank or was bound past its capacity.
func (n *node) free(id int) int64 { return at(n.capacity, id) - at(n.requested, id) }
