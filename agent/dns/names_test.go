package dns

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/miekg/dns"
	"pgregory.net/rapid"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// picture puts all that answers see in words.
func picture(n *names) []string {
	var list []string
	for k, s := range n.services {
		line := fmt.Sprintf("%s vip=%v ports=%v ready=%v slots:", k, s.vip, s.ports, s.ready)
		for _, slot := range slices.Sorted(maps.Keys(s.slots)) {
			line += fmt.Sprintf(" %v", s.slots[slot])
		}
		list = append(list, line)
	}
	for a, o := range n.addrs {
		list = append(list, fmt.Sprintf("%s belongs to %v", a, o))
	}
	for ns, count := range n.namespaces {
		list = append(list, fmt.Sprintf("namespace %s has %d", ns, count))
	}
	slices.Sort(list)
	return list
}

// TestChangesAddUp: after any changes the index is as if it had been told all at once.
// Addresses are never shared, as the leader gives them.
func TestChangesAddUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := newNames()
		services, ends := map[api.Key]wire.Service{}, map[api.ReplicaKey]wire.Endpoint{}
		next := 0
		fresh := func() string { next++; return fmt.Sprintf("10.64.%d.%d", next>>8, next&255) }
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			var put []wire.Endpoint
			var drop []api.ReplicaKey
			var putServices []wire.Service
			var dropServices []api.Key
			for range rapid.IntRange(0, 4).Draw(t, "changes") {
				key := api.Key{Namespace: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "ns"), Name: rapid.SampledFrom([]string{"x", "y"}).Draw(t, "name")}
				replica := api.ReplicaKey{Namespace: key.Namespace, Service: key.Name, Slot: rapid.IntRange(0, 2).Draw(t, "slot"), Epoch: uint64(rapid.IntRange(1, 3).Draw(t, "epoch"))}
				touched := slices.Contains(drop, replica) || slices.Contains(dropServices, key) ||
					slices.ContainsFunc(put, func(e wire.Endpoint) bool { return e.Replica == replica }) || slices.ContainsFunc(putServices, func(s wire.Service) bool { return s.Key == key })
				if touched {
					continue // one set says one thing of each
				}
				switch rapid.IntRange(0, 3).Draw(t, "what") {
				case 0:
					e := wire.Endpoint{Replica: replica, IP: fresh(), NodeIP: "192.0.2.1", Degraded: rapid.Bool().Draw(t, "degraded")}
					if rapid.IntRange(0, 4).Draw(t, "hostNetwork") == 0 {
						e.IP = e.NodeIP
					}
					put, ends[replica] = append(put, e), e
				case 1:
					drop = append(drop, replica)
					delete(ends, replica)
				case 2:
					s := wire.Service{Key: key, Ports: []api.Port{{Port: next + 1}}}
					if rapid.Bool().Draw(t, "vip") {
						s.VIP = fresh()
					}
					putServices, services[key] = append(putServices, s), s
				case 3:
					dropServices = append(dropServices, key)
					delete(services, key)
				}
			}
			n.update(put, drop, putServices, dropServices, false)
			whole := newNames()
			whole.update([]wire.Endpoint{{Replica: api.ReplicaKey{Namespace: "old", Service: "old", Epoch: 1}, IP: "10.64.255.1"}}, nil, nil, nil, false)
			whole.update(slices.Collect(maps.Values(ends)), nil, slices.Collect(maps.Values(services)), nil, true)
			if got, want := picture(n), picture(whole); !slices.Equal(got, want) {
				t.Fatalf("after changes:\n%q\nall at once:\n%q", got, want)
			}
		}
	})
}

// TestAddressGoesOn: an address that another replica has by now is that one's, in
// whichever order the two changes come.
func TestAddressGoesOn(t *testing.T) {
	n := newNames()
	n.update([]wire.Endpoint{endpoint("default/web-0@1", "10.64.1.2")}, nil, nil, nil, false)
	n.update([]wire.Endpoint{endpoint("default/db-0@2", "10.64.1.2")}, nil, nil, nil, false)
	n.update(nil, []api.ReplicaKey{{Namespace: "default", Service: "web", Slot: 0, Epoch: 1}}, nil, nil, false)
	if o, ok := n.owner(address("10.64.1.2")); !ok || o.replica.Service != "db" {
		t.Errorf("10.64.1.2 belongs to %v, want db-0", o)
	}
	n.update([]wire.Endpoint{endpoint("default/web-1@3", "10.64.1.2")}, []api.ReplicaKey{{Namespace: "default", Service: "db", Slot: 0, Epoch: 2}}, nil, nil, false)
	if o, ok := n.owner(address("10.64.1.2")); !ok || o.replica.Service != "web" {
		t.Errorf("10.64.1.2 belongs to %v, want web-1", o)
	}
}

// TestAskedWhileChanged: an answer is of before a change or of after it, never between,
// and never missing while a complete set is taken up.
func TestAskedWhileChanged(t *testing.T) {
	s := fleet()
	states := [2][]wire.Endpoint{
		{endpoint("default/db-0@1", "10.64.1.3"), endpoint("default/db-1@2", "10.64.1.3")},
		{endpoint("default/db-0@1", "10.64.9.3"), endpoint("default/db-1@2", "10.64.9.3")},
	}
	s.Update(states[0], nil, []wire.Service{svc("default", "db", "")}, nil, true)
	done := make(chan struct{})
	var askers sync.WaitGroup
	for range 2 {
		askers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				m, said := ask(t, s, replicaAddr, "db.default.orch.internal.", "A")
				if m == nil || len(m.Answer) != 2 || m.Answer[0].(*dns.A).A.String() != m.Answer[1].(*dns.A).A.String() {
					t.Errorf("answer between two states: %s", said)
					return
				}
			}
		})
	}
	for i := range 2000 {
		s.Update(states[i%2], nil, []wire.Service{svc("default", "db", "")}, nil, i%3 == 0)
	}
	close(done)
	askers.Wait()
}

// BenchmarkChange: one of 1,000 services changes.
func BenchmarkChange(b *testing.B) {
	n := newNames()
	var put []wire.Endpoint
	var services []wire.Service
	for i := range 1000 {
		services = append(services, svc("default", fmt.Sprintf("s%d", i), fmt.Sprintf("10.128.%d.%d", i>>8, i&255)))
		for j := range 3 {
			put = append(put, endpoint(fmt.Sprintf("default/s%d-%d@%d", i, j, i*3+j+1), fmt.Sprintf("10.64.%d.%d", (i*3+j)>>8, (i*3+j)&255)))
		}
	}
	n.update(put, nil, services, nil, true)
	for i := 0; b.Loop(); i++ {
		n.update(put[i%len(put):i%len(put)+1], nil, nil, nil, false)
	}
}
