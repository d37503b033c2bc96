package dns

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/wire"
)

// zone is where all our names end.
const zone = network.Domain + "."

// service is what answers need of one. It is never changed, only replaced, so that
// answers read it without a lock.
type service struct {
	vip   netip.Addr // not valid: headless
	ports []api.Port // its newest revision's
	// ready are who gets traffic: degraded ones only where there is nothing else.
	// Sorted by slot and epoch.
	ready []target
	slots map[int]target
}

type target struct {
	key      api.ReplicaKey
	ip       netip.Addr
	ports    []api.Port
	degraded bool
}

// names is the index of who has which name and address. A change costs what it
// touches: the endpoints of its services.
type names struct {
	writer sync.Mutex // one update at a time; held while services are put together
	known  map[api.Key]wire.Service
	ends   map[api.Key]map[api.ReplicaKey]target

	mu         sync.RWMutex // held to look up, and to put what is ready in place
	services   map[api.Key]*service
	namespaces map[string]int // how many services are in each
	addrs      map[netip.Addr]owner
	serial     uint32
}

// owner of an address: a service, by its virtual IP, or a replica.
type owner struct {
	service api.Key
	replica api.ReplicaKey // Epoch 0: none
}

func newNames() *names {
	return &names{known: map[api.Key]wire.Service{}, ends: map[api.Key]map[api.ReplicaKey]target{},
		services: map[api.Key]*service{}, namespaces: map[string]int{}, addrs: map[netip.Addr]owner{}}
}

func serviceOf(k api.ReplicaKey) api.Key { return api.Key{Namespace: k.Namespace, Name: k.Service} }

func (n *names) update(put []wire.Endpoint, drop []api.ReplicaKey, services []wire.Service, dropServices []api.Key, complete bool) {
	n.writer.Lock()
	defer n.writer.Unlock()
	if complete {
		fresh := newNames()
		fresh.change(put, nil, services, nil)
		n.known, n.ends = fresh.known, fresh.ends
		n.mu.Lock()
		defer n.mu.Unlock()
		n.services, n.namespaces, n.addrs = fresh.services, fresh.namespaces, fresh.addrs
		n.serial++
		return
	}
	n.change(put, drop, services, dropServices)
}

// change brings what answers see in line with what is told. The caller holds writer.
func (n *names) change(put []wire.Endpoint, drop []api.ReplicaKey, services []wire.Service, dropServices []api.Key) {
	dirty := map[api.Key]bool{}
	gone, came := map[netip.Addr]owner{}, map[netip.Addr]owner{}
	for _, k := range dropServices {
		if old, ok := n.known[k]; ok {
			gone[address(old.VIP)] = owner{service: k}
		}
		delete(n.known, k)
		dirty[k] = true
	}
	for _, s := range services {
		if old, ok := n.known[s.Key]; ok && old.VIP != s.VIP {
			gone[address(old.VIP)] = owner{service: s.Key}
		}
		n.known[s.Key] = s
		came[address(s.VIP)] = owner{service: s.Key}
		dirty[s.Key] = true
	}
	for _, k := range drop {
		key := serviceOf(k)
		if old, ok := n.ends[key][k]; ok {
			gone[old.ip] = owner{key, k}
		}
		if delete(n.ends[key], k); len(n.ends[key]) == 0 {
			delete(n.ends, key)
		}
		dirty[key] = true
	}
	for _, e := range put {
		key := serviceOf(e.Replica)
		if old, ok := n.ends[key][e.Replica]; ok && old.ip != address(e.IP) {
			gone[old.ip] = owner{key, e.Replica}
		}
		if n.ends[key] == nil {
			n.ends[key] = map[api.ReplicaKey]target{}
		}
		t := target{key: e.Replica, ip: address(e.IP), ports: e.Ports, degraded: e.Degraded}
		n.ends[key][e.Replica] = t
		// A node's address is not its replicas' alone: it says nothing of who it is.
		if e.IP != e.NodeIP {
			came[t.ip] = owner{key, e.Replica}
		}
		dirty[key] = true
	}
	made := make(map[api.Key]*service, len(dirty))
	for key := range dirty {
		made[key] = n.make(key)
	}
	n.place(made, gone, came)
}

// place shows answers what was made.
func (n *names) place(made map[api.Key]*service, gone, came map[netip.Addr]owner) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.serial++
	for key, s := range made {
		_, had := n.services[key]
		switch {
		case s != nil && !had:
			n.namespaces[key.Namespace]++
		case s == nil && had:
			if n.namespaces[key.Namespace]--; n.namespaces[key.Namespace] == 0 {
				delete(n.namespaces, key.Namespace)
			}
		}
		if s == nil {
			delete(n.services, key)
		} else {
			n.services[key] = s
		}
	}
	for a, o := range gone {
		if n.addrs[a] == o { // else somebody else has it by now
			delete(n.addrs, a)
		}
	}
	for a, o := range came {
		if a.IsValid() {
			n.addrs[a] = o
		}
	}
}

// make puts a service together; nil: there is nothing of it.
func (n *names) make(key api.Key) *service {
	told, known := n.known[key]
	ends := n.ends[key]
	if !known && len(ends) == 0 {
		return nil
	}
	s := &service{vip: address(told.VIP), ports: told.Ports, slots: make(map[int]target, len(ends))}
	var degraded []target
	for _, t := range ends {
		if !t.ip.IsValid() {
			continue
		}
		if t.degraded {
			degraded = append(degraded, t)
		} else {
			s.ready = append(s.ready, t)
		}
		if have, ok := s.slots[t.key.Slot]; !ok || better(t, have) {
			s.slots[t.key.Slot] = t
		}
	}
	if len(s.ready) == 0 {
		s.ready = degraded
	}
	slices.SortFunc(s.ready, func(a, b target) int {
		if a.key.Slot != b.key.Slot {
			return a.key.Slot - b.key.Slot
		}
		if a.key.Epoch < b.key.Epoch {
			return -1
		}
		return 1
	})
	return s
}

// better tells whether a answers for a slot rather than b: the one that can be
// reached, else the newer.
func better(a, b target) bool {
	if a.degraded != b.degraded {
		return b.degraded
	}
	return a.key.Epoch > b.key.Epoch
}

// address reads an IP; what is none is not valid.
func address(s string) netip.Addr {
	a, _ := netip.ParseAddr(s)
	return a.Unmap()
}

func (n *names) service(k api.Key) *service {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.services[k]
}

func (n *names) hasNamespace(ns string) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.namespaces[ns] > 0
}

func (n *names) owner(a netip.Addr) (owner, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	o, ok := n.addrs[a]
	return o, ok
}

func (n *names) version() uint32 {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.serial
}

func serviceName(k api.Key) string { return k.Name + "." + k.Namespace + "." + zone }

func replicaName(k api.ReplicaKey) string {
	return k.Service + "-" + strconv.Itoa(k.Slot) + "." + serviceName(serviceOf(k))
}

// slotOf reads "web-0" of the service web.
func slotOf(label, service string) (int, bool) {
	digits, ok := strings.CutPrefix(label, service+"-")
	if !ok || digits == "" || len(digits) > 1 && digits[0] == '0' {
		return 0, false
	}
	i, err := strconv.ParseUint(digits, 10, 31)
	return int(i), err == nil
}
