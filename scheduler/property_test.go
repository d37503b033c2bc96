package scheduler_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/scheduler"
)

// model is what a fleet should hold, kept in the plainest way: it is the judge of
// the index and shares no code with it.
type model struct {
	nodes map[string]scheduler.Node
	on    map[api.ReplicaKey]string
	asks  map[api.ReplicaKey]plain
}

// plain is a shape in the model's terms.
type plain struct {
	cpu, memory, gpus int64 // milli, Mi, count
	port              int   // 0: none
	hostNetwork       bool
	udp               bool
	zone, notZone     string
}

func (p plain) shape() *scheduler.Shape {
	opts := []shapeOption{requests("cpu", fmt.Sprintf("%dm", p.cpu)), requests("memory", fmt.Sprintf("%dMi", p.memory)), requests("gpus", fmt.Sprint(p.gpus))}
	if p.port != 0 {
		proto := api.TCP
		if p.udp {
			proto = api.UDP
		}
		opts = append(opts, publishes(p.port, proto))
	}
	if p.hostNetwork {
		opts = append(opts, hostNetwork)
	}
	if p.zone != "" {
		opts = append(opts, selects("zone", p.zone))
	}
	if p.notZone != "" {
		opts = append(opts, where("zone", api.OpNotIn, p.notZone))
	}
	return shape(opts...)
}

func drawPlain(t *rapid.T) plain {
	zones := rapid.SampledFrom([]string{"", "", "a", "b"})
	return plain{
		cpu:    rapid.Int64Range(0, 30).Draw(t, "cpu") * 100,
		memory: rapid.SampledFrom([]int64{0, 100, 512, 3000}).Draw(t, "memory"),
		gpus:   rapid.SampledFrom([]int64{0, 0, 0, 1}).Draw(t, "gpus"),
		port:   rapid.SampledFrom([]int{0, 0, 80, 443}).Draw(t, "port"),
		udp:    rapid.Bool().Draw(t, "udp"), hostNetwork: rapid.IntRange(0, 3).Draw(t, "hostNetwork") == 0,
		zone: zones.Draw(t, "zone"), notZone: zones.Draw(t, "notZone"),
	}
}

func drawNode(t *rapid.T, name string) scheduler.Node {
	healthy := api.VerdictHealthy
	n := node(name,
		has("cpu", fmt.Sprint(rapid.IntRange(0, 6).Draw(t, "cpu"))),
		has("memory", rapid.SampledFrom([]string{"1Gi", "4Gi", "8Gi"}).Draw(t, "memory")),
		labelled("zone", rapid.SampledFrom([]string{"a", "b"}).Draw(t, "zone")),
		verdict(rapid.SampledFrom([]api.Verdict{healthy, healthy, healthy, api.VerdictSuspect, api.VerdictBack}).Draw(t, "verdict")))
	n.Unschedulable = rapid.IntRange(0, 9).Draw(t, "unschedulable") == 0
	if rapid.IntRange(0, 9).Draw(t, "impaired") == 0 {
		n.Impaired = "no fsync for 12s"
	}
	switch rapid.IntRange(0, 9).Draw(t, "network") {
	case 0:
		n.NoNetwork = "no subnet is free"
	case 1, 2, 3:
		n.Addresses = rapid.IntRange(1, 3).Draw(t, "addresses")
	}
	n.Damped = rapid.IntRange(0, 9).Draw(t, "damped") == 0
	if rapid.Bool().Draw(t, "has gpus") {
		n.Capacity["gpus"] = api.Whole(int64(rapid.IntRange(0, 3).Draw(t, "gpus")))
	}
	if rapid.IntRange(0, 4).Draw(t, "no zone") == 0 {
		delete(n.Labels, "zone")
	}
	return n
}

// used sums what is bound to a node.
func (m *model) used(name string) (cpu, memory, gpus int64, ports map[string]bool) {
	ports = map[string]bool{}
	for k, on := range m.on {
		if on == name {
			p := m.asks[k]
			cpu, memory, gpus = cpu+p.cpu, memory+p.memory, gpus+p.gpus
			if p.port != 0 {
				ports[fmt.Sprint(p.port, p.udp)] = true
			}
		}
	}
	return
}

// open tells whether the node takes new replicas at all.
func open(n scheduler.Node) bool {
	return n.Verdict == api.VerdictHealthy && !n.Unschedulable && n.Impaired == "" && !n.Damped
}

// free sums what open nodes have left.
func (m *model) free() (cpu, memory, gpus int64) {
	for name, n := range m.nodes {
		if open(n) {
			c, mem, g, _ := m.used(name)
			cpu += max(0, int64(n.Capacity[api.CPU])-c)
			memory += max(0, int64(n.Capacity[api.Memory])-mem*1000*mi)
			gpus += max(0, int64(n.Capacity["gpus"])-g*1000)
		}
	}
	return
}

func (m *model) fit(name string, p plain, avoid []string) bool {
	n, ok := m.nodes[name]
	if !ok || !open(n) || slices.Contains(avoid, name) {
		return false
	}
	zone, zoned := n.Labels["zone"]
	if p.zone != "" && zone != p.zone || p.notZone != "" && zoned && zone == p.notZone {
		return false
	}
	if !p.hostNetwork {
		addressed := 0
		for k, on := range m.on {
			if on == name && !m.asks[k].hostNetwork {
				addressed++
			}
		}
		if n.NoNetwork != "" || n.Addresses > 0 && addressed >= n.Addresses {
			return false
		}
	}
	cpu, memory, gpus, ports := m.used(name)
	fits := func(used, asked int64, unit int64, resource string) bool {
		return asked == 0 || (used+asked)*unit <= int64(n.Capacity[resource])
	}
	return fits(cpu, p.cpu, 1, api.CPU) && fits(memory, p.memory, 1000*mi, api.Memory) && fits(gpus, p.gpus, 1000, "gpus") &&
		(p.port == 0 || !ports[fmt.Sprint(p.port, p.udp)])
}

// rank is what the best node has least of: replicas of the service, then load.
func (m *model) rank(name, service string) [2]int64 {
	n := m.nodes[name]
	var count, bound int64
	for k, on := range m.on {
		if on == name {
			bound++
			if k.Service == service {
				count++
			}
		}
	}
	cpu, memory, gpus, _ := m.used(name)
	load := bound
	for _, r := range []struct {
		used     int64
		capacity api.Quantity
	}{{cpu, n.Capacity[api.CPU]}, {memory * 1000 * mi, n.Capacity[api.Memory]}, {gpus * 1000, n.Capacity["gpus"]}} {
		switch {
		case r.used == 0:
		case r.used >= int64(r.capacity):
			load = 1000
		default:
			load = max(load, r.used*1000/int64(r.capacity))
		}
	}
	return [2]int64{count, load}
}

// check holds the result of one Place against the model, slot by slot in order,
// and takes the placements over.
func (m *model) check(t *rapid.T, f *scheduler.Fleet, groups []scheduler.Group, asks []plain, placed []scheduler.Placement, refused []scheduler.Refusal) {
	for gi, g := range groups {
		for _, slot := range g.Slots {
			var fit []string
			for name := range m.nodes {
				if (slot.On == "" || slot.On == name) && m.fit(name, asks[gi], slot.Avoid) {
					fit = append(fit, name)
				}
			}
			if len(placed) > 0 && placed[0].Key == slot.Key {
				p := placed[0]
				placed = placed[1:]
				if !slices.Contains(fit, p.Node) {
					t.Fatalf("%s was placed on %s, but fit are %q", p.Key, p.Node, fit)
				}
				got := m.rank(p.Node, g.Service.Name)
				for _, name := range fit {
					if r := m.rank(name, g.Service.Name); r[0] < got[0] || r[0] == got[0] && r[1] < got[1] {
						t.Fatalf("%s was placed on %s %v, though %s %v is better", p.Key, p.Node, got, name, r)
					}
				}
				m.on[p.Key], m.asks[p.Key] = p.Node, asks[gi]
				continue
			}
			if len(refused) == 0 || refused[0].Key != slot.Key {
				t.Fatalf("%s has no answer in its turn", slot.Key)
			}
			r := refused[0]
			refused = refused[1:]
			if len(fit) > 0 {
				t.Fatalf("%s was refused (%s), but fit are %q", slot.Key, r.Reason, fit)
			}
			nodes := 0
			for _, c := range r.Counts {
				nodes += c.Nodes
			}
			asked := len(m.nodes)
			if slot.On != "" {
				asked = 0
				if _, known := m.nodes[slot.On]; known {
					asked = 1
				}
				if !strings.HasPrefix(r.Reason, slot.On+": ") {
					t.Fatalf("%s on %s: %q speaks of others", slot.Key, slot.On, r.Reason)
				}
			}
			if nodes != asked {
				t.Fatalf("%s: %q counts %d of %d nodes", slot.Key, r.Reason, nodes, asked)
			}
		}
	}
	if len(placed)+len(refused) > 0 {
		t.Fatalf("answers that nobody asked for: %q", lines(placed, refused))
	}
	m.same(t, f)
}

// same tells whether the fleet's sums are the model's.
func (m *model) same(t *rapid.T, f *scheduler.Fleet) {
	cpu, memory, gpus := m.free()
	if got := f.Free(); got[api.CPU] != api.Quantity(cpu) || got[api.Memory] != api.Quantity(memory) || got["gpus"] != api.Quantity(gpus) {
		t.Fatalf("free %v, want %dm, %d, %d gpus", got, cpu, memory, gpus)
	}
	for i := range 9 {
		name := fmt.Sprint("n", i)
		cpu, memory, gpus, _ := m.used(name)
		got := f.Requested(name)
		if got[api.CPU] != api.Quantity(cpu) || got[api.Memory] != api.Whole(memory*mi) || got["gpus"] != api.Whole(gpus) {
			t.Fatalf("%s: requested %v, want %dm, %dMi, %d gpus", name, got, cpu, memory, gpus)
		}
		bound := f.Bound(name)
		for _, k := range bound {
			if m.on[k] != name {
				t.Fatalf("%s is bound to %s, want it on %q", k, name, m.on[k])
			}
		}
		count := 0
		for _, on := range m.on {
			if on == name {
				count++
			}
		}
		if count != len(bound) {
			t.Fatalf("%s: %d bound, want %d", name, len(bound), count)
		}
	}
}

// Whatever happens to a fleet, placements are fit, within capacity, one port once
// on a node and best by count and load; and who is refused fits nowhere.
func TestPlaceAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := scheduler.NewFleet()
		m := &model{map[string]scheduler.Node{}, map[api.ReplicaKey]string{}, map[api.ReplicaKey]plain{}}
		epoch := uint64(0)
		name := rapid.Custom(func(t *rapid.T) string { return fmt.Sprint("n", rapid.IntRange(0, 8).Draw(t, "n")) })
		for i := range 8 {
			n := drawNode(t, fmt.Sprint("n", i))
			m.nodes[n.Name] = n
			f.SetNode(n)
		}
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				n := drawNode(t, name.Draw(t, "node"))
				m.nodes[n.Name] = n
				f.SetNode(n)
			},
			"remove": func(t *rapid.T) {
				n := name.Draw(t, "node")
				delete(m.nodes, n)
				f.RemoveNode(n)
			},
			"bind": func(t *rapid.T) {
				epoch++
				k := api.ReplicaKey{Namespace: "default", Service: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "service"), Epoch: epoch}
				p := drawPlain(t)
				m.on[k], m.asks[k] = name.Draw(t, "node"), p
				f.Bind(k, m.on[k], p.shape())
			},
			"move or unbind": func(t *rapid.T) {
				keys := slices.SortedFunc(func(yield func(api.ReplicaKey) bool) {
					for k := range m.on {
						if !yield(k) {
							return
						}
					}
				}, func(a, b api.ReplicaKey) int { return strings.Compare(a.String(), b.String()) })
				for _, k := range keys {
					switch rapid.IntRange(0, 5).Draw(t, k.String()) {
					case 0:
						m.on[k] = name.Draw(t, "node")
						f.Bind(k, m.on[k], m.asks[k].shape())
					case 1, 2, 3:
						delete(m.on, k)
						f.Unbind(k)
					}
				}
			},
			"place": func(t *rapid.T) {
				var groups []scheduler.Group
				var asks []plain
				for range rapid.IntRange(1, 3).Draw(t, "groups") {
					p := drawPlain(t)
					g := group(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "service"), rapid.IntRange(1, 12).Draw(t, "replicas"), p.shape())
					for i := range g.Slots {
						epoch++
						g.Slots[i].Key.Epoch = epoch
						if rapid.IntRange(0, 2).Draw(t, "avoids") == 0 {
							g.Slots[i].Avoid = rapid.SliceOfN(name, 1, 3).Draw(t, "avoid")
						}
						if rapid.IntRange(0, 3).Draw(t, "bound to one") == 0 {
							g.Slots[i].On = name.Draw(t, "on")
						}
					}
					groups, asks = append(groups, g), append(asks, p)
				}
				placed, refused := scheduler.Place(f, groups)
				// Placements come in the order of slots among themselves.
				m.check(t, f, groups, asks, placed, refused)
			},
			"": func(t *rapid.T) { m.same(t, f) },
		})
	})
}

// The same nodes, bindings and groups give the same bytes, in whatever order and
// by whatever detours the fleet came to be as it is.
func TestSameInputSameBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := make([]scheduler.Node, rapid.IntRange(0, 80).Draw(t, "nodes"))
		for i := range nodes {
			nodes[i] = drawNode(t, fmt.Sprint("n", i))
		}
		var groups []scheduler.Group
		for i := range rapid.IntRange(1, 4).Draw(t, "groups") {
			groups = append(groups, group(fmt.Sprint("web", i), rapid.IntRange(1, 30).Draw(t, "replicas"), drawPlain(t).shape()))
		}
		extended := shape(requests("disks", "1"))
		run := func(order []scheduler.Node, detour bool) string {
			f := scheduler.NewFleet()
			if detour { // other resource ids, nodes that come and go, bindings that went
				f.Bind(key("gone", 0), "n0", extended)
				f.SetNode(node("m"))
				scheduler.Place(f, []scheduler.Group{group("gone", 3, shape())})
				f.RemoveNode("m")
			}
			for _, n := range order {
				f.SetNode(n)
			}
			for i := range 3 {
				f.Unbind(key("gone", i))
			}
			out := lines(scheduler.Place(f, groups))
			for _, e := range scheduler.Explain(f, groups[0].Shape, groups[0].Service) {
				out = append(out, fmt.Sprintf("%+v", e))
			}
			return strings.Join(out, "\n")
		}
		want := run(nodes, false)
		if got := run(rapid.Permutation(nodes).Draw(t, "order"), true); got != want {
			t.Fatalf("got\n%s\nwant\n%s", got, want)
		}
	})
}

func TestEvenSpread(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := scheduler.NewFleet()
		nodes := rapid.IntRange(1, 200).Draw(t, "nodes")
		for i := range nodes {
			f.SetNode(node(fmt.Sprint("n", i)))
		}
		replicas := rapid.IntRange(0, 5*nodes).Draw(t, "replicas")
		placed, refused := scheduler.Place(f, []scheduler.Group{group("web", replicas, shape(requests("cpu", "700m")))})
		if len(refused) > 0 || len(placed) != replicas {
			t.Fatalf("%d of %d placed, %d refused", len(placed), replicas, len(refused))
		}
		least, most := replicas, 0
		for i := range nodes {
			n := len(f.Bound(fmt.Sprint("n", i)))
			least, most = min(least, n), max(most, n)
		}
		if most-least > 1 {
			t.Fatalf("%d replicas on %d nodes: from %d to %d on a node", replicas, nodes, least, most)
		}
	})
}

func TestUnbindRestores(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := scheduler.NewFleet()
		for i := range 6 {
			n := drawNode(t, fmt.Sprint("n", i))
			f.SetNode(n)
			f.Bind(key("old", i), n.Name, drawPlain(t).shape())
		}
		g := group("web", 20, drawPlain(t).shape())
		state := func() string {
			var b strings.Builder
			for i := range 6 {
				name := fmt.Sprint("n", i)
				fmt.Fprintln(&b, name, f.Requested(name), f.Bound(name))
			}
			fmt.Fprintf(&b, "%+v", scheduler.Explain(f, g.Shape, g.Service))
			return b.String()
		}
		before := state()
		placed, refused := scheduler.Place(f, []scheduler.Group{g})
		for _, p := range placed {
			f.Unbind(p.Key)
		}
		if after := state(); after != before {
			t.Fatalf("before\n%s\nafter\n%s", before, after)
		}
		again, refusedAgain := scheduler.Place(f, []scheduler.Group{g})
		if a, b := fmt.Sprint(lines(again, refusedAgain)), fmt.Sprint(lines(placed, refused)); a != b {
			t.Fatalf("placed again\n%s\nat first\n%s", a, b)
		}
	})
}
