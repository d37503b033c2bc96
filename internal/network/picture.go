package network

import (
	"maps"
	"slices"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// Picture is what one node knows of who gets traffic, and the table that follows
// from it. A change costs what the services that it touches cost.
type Picture struct {
	self      Standing
	stands    bool
	services  map[api.Key]wire.Service
	endpoints map[api.Key]map[api.ReplicaKey]wire.Endpoint
	ejected   map[api.ReplicaKey]bool

	dirty map[api.Key]bool // services whose part is to be computed anew
	parts map[api.Key]part
	table *Table // wanted; the sum of all parts and the base
	// claims say who wants an element of a set that services share: set, key,
	// service, value. The service that comes first gets it, so that the same
	// picture gives the same table, whatever the order in which it was told.
	claims map[string]map[string]map[api.Key]string
}

// NewPicture is an empty one.
func NewPicture() *Picture {
	return &Picture{
		services: map[api.Key]wire.Service{}, endpoints: map[api.Key]map[api.ReplicaKey]wire.Endpoint{}, ejected: map[api.ReplicaKey]bool{},
		dirty: map[api.Key]bool{}, parts: map[api.Key]part{}, table: NewTable(), claims: map[string]map[string]map[api.Key]string{},
	}
}

// Stand says where the node stands. Before it, the picture has no table.
func (p *Picture) Stand(s Standing) {
	if p.stands && s == p.self {
		return
	}
	p.self, p.stands = s, true
	p.dirty[api.Key{}] = true // the base
	for k := range p.services {
		p.dirty[k] = true
	}
	for k := range p.endpoints {
		p.dirty[k] = true
	}
}

// Apply takes an update up. It gives the endpoints that are none any more, or
// have another address now, as they were.
func (p *Picture) Apply(u Update) []wire.Endpoint {
	var gone []wire.Endpoint
	if u.Complete {
		u = p.against(u)
	}
	for _, k := range u.Drop {
		if old, ok := p.endpoints[k.ServiceKey()][k]; ok {
			gone = append(gone, old)
			p.drop(k)
		}
	}
	for _, e := range u.Put {
		k := e.Replica.ServiceKey()
		if old, ok := p.endpoints[k][e.Replica]; ok && old.IP != e.IP {
			gone = append(gone, old)
		}
		if p.endpoints[k] == nil {
			p.endpoints[k] = map[api.ReplicaKey]wire.Endpoint{}
		}
		p.endpoints[k][e.Replica] = e
		p.dirty[k] = true
	}
	for _, k := range u.DropServices {
		if _, ok := p.services[k]; ok {
			delete(p.services, k)
			p.dirty[k] = true
		}
	}
	for _, s := range u.Services {
		p.services[s.Key] = s
		p.dirty[s.Key] = true
	}
	return gone
}

// against turns a complete update into what it changes.
func (p *Picture) against(u Update) Update {
	put := map[api.ReplicaKey]bool{}
	for _, e := range u.Put {
		put[e.Replica] = true
	}
	services := map[api.Key]bool{}
	for _, s := range u.Services {
		services[s.Key] = true
	}
	out := Update{Put: u.Put, Services: u.Services}
	for _, of := range p.endpoints {
		for k := range of {
			if !put[k] {
				out.Drop = append(out.Drop, k)
			}
		}
	}
	for k := range p.services {
		if !services[k] {
			out.DropServices = append(out.DropServices, k)
		}
	}
	slices.SortFunc(out.Drop, compareReplicas)
	return out
}

func (p *Picture) drop(k api.ReplicaKey) {
	of := k.ServiceKey()
	delete(p.endpoints[of], k)
	if len(p.endpoints[of]) == 0 {
		delete(p.endpoints, of)
	}
	delete(p.ejected, k)
	p.dirty[of] = true
}

// Eject takes an endpoint out of the rules, or lets it in again, without
// forgetting it. A service whose endpoints are all ejected keeps them all.
func (p *Picture) Eject(k api.ReplicaKey, out bool) {
	if _, ok := p.endpoints[k.ServiceKey()][k]; !ok || p.ejected[k] == out {
		return
	}
	if out {
		p.ejected[k] = true
	} else {
		delete(p.ejected, k)
	}
	p.dirty[k.ServiceKey()] = true
}

// Ejected gives the endpoints that are, in order.
func (p *Picture) Ejected() []api.ReplicaKey {
	return slices.SortedFunc(maps.Keys(p.ejected), compareReplicas)
}

// Spare tells whether a service has endpoints that are not ejected besides this one.
func (p *Picture) Spare(k api.ReplicaKey) bool {
	for other := range p.endpoints[k.ServiceKey()] {
		if other != k && !p.ejected[other] {
			return true
		}
	}
	return false
}

// Endpoint gives one; false: it is none.
func (p *Picture) Endpoint(k api.ReplicaKey) (wire.Endpoint, bool) {
	e, ok := p.endpoints[k.ServiceKey()][k]
	return e, ok
}

// All gives everything that is known, in order: what a complete update would say.
func (p *Picture) All() Update {
	u := Update{Complete: true}
	for _, of := range p.endpoints {
		u.Put = slices.AppendSeq(u.Put, maps.Values(of))
	}
	slices.SortFunc(u.Put, func(a, b wire.Endpoint) int { return compareReplicas(a.Replica, b.Replica) })
	u.Services = slices.Collect(maps.Values(p.services))
	slices.SortFunc(u.Services, func(a, b wire.Service) int { return compareKeys(a.Key, b.Key) })
	return u
}

// Table is what the kernel should have, as of the last Change. It is to be read
// before the next one, and never written to.
func (p *Picture) Table() *Table { return p.table }

// Change computes anew what is touched, and gives what is to be done since the last
// Change.
func (p *Picture) Change() Change {
	var c Change
	if !p.stands {
		return c
	}
	before := map[[2]string]*string{} // elements that were touched, as they were
	if p.dirty[api.Key{}] {
		delete(p.dirty, api.Key{})
		p.rebase(&c)
	}
	for _, k := range slices.SortedFunc(maps.Keys(p.dirty), compareKeys) {
		p.replace(&c, before, k, p.part(k))
	}
	clear(p.dirty)
	for at, was := range before {
		set, key := at[0], at[1]
		is := p.winner(set, key)
		if was != nil && (is == nil || *is != *was) {
			element(&c.Drop, set, key, *was)
		}
		if is != nil && (was == nil || *is != *was) {
			element(&c.Put, set, key, *is)
		}
		elements := p.table.Sets[set].Elements
		if delete(elements, key); is != nil {
			elements[key] = *is
		}
	}
	c.sort()
	return c
}

// rebase brings the base in line with where the node stands.
func (p *Picture) rebase(c *Change) {
	chains, sets := base(p.self)
	for name, s := range sets {
		if _, ok := p.table.Sets[name]; !ok {
			s.Elements = map[string]string{}
			c.set(name, nil, &s)
			p.table.Sets[name] = s
		}
	}
	// A chain stays, empty, when it has no rules for now: so the names of the base
	// are always the same.
	for name, chain := range chains {
		c.chain(name, get(p.table.Chains, name), &chain)
		p.table.Chains[name] = chain
	}
}

// replace puts a service's new part in the place of its old one.
func (p *Picture) replace(c *Change, before map[[2]string]*string, k api.Key, now part) {
	old := p.parts[k]
	for _, name := range names(old.chains, now.chains) {
		want := get(now.chains, name)
		c.chain(name, get(old.chains, name), want)
		if delete(p.table.Chains, name); want != nil {
			p.table.Chains[name] = *want
		}
	}
	for _, name := range names(old.sets, now.sets) {
		want := get(now.sets, name)
		c.set(name, get(old.sets, name), want)
		if delete(p.table.Sets, name); want != nil {
			p.table.Sets[name] = *want
		}
	}
	touch := func(set, key string) map[api.Key]string {
		if _, seen := before[[2]string{set, key}]; !seen {
			before[[2]string{set, key}] = p.winner(set, key)
		}
		if p.claims[set] == nil {
			p.claims[set] = map[string]map[api.Key]string{}
		}
		if p.claims[set][key] == nil {
			p.claims[set][key] = map[api.Key]string{}
		}
		return p.claims[set][key]
	}
	for set, elements := range old.elements {
		for key := range elements {
			if _, stays := now.elements[set][key]; !stays {
				who := touch(set, key)
				if delete(who, k); len(who) == 0 {
					delete(p.claims[set], key)
				}
			}
		}
	}
	for set, elements := range now.elements {
		for key, value := range elements {
			if was, ok := old.elements[set][key]; !ok || was != value {
				touch(set, key)[k] = value
			}
		}
	}
	if now.empty() {
		delete(p.parts, k)
	} else {
		p.parts[k] = now
	}
}

// winner is the value of a shared element; nil: nobody wants it.
func (p *Picture) winner(set, key string) *string {
	var first *api.Key
	var value string
	for k, v := range p.claims[set][key] {
		if first == nil || compareKeys(k, *first) < 0 {
			first, value = &k, v
		}
	}
	if first == nil {
		return nil
	}
	return &value
}
