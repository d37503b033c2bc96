package scheduler_test

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/scheduler"
)

// spread binds the slots of a service to nodes, in their order.
func spread(f *scheduler.Fleet, service string, s *scheduler.Shape, nodes ...string) {
	for slot, n := range nodes {
		f.Bind(key(service, slot), n, s)
	}
}

func wordsOf(moves []scheduler.Move) string {
	var out []string
	for _, m := range moves {
		out = append(out, fmt.Sprintf("%s %s>%s", m.Key.Name(), m.From, m.To))
	}
	return strings.Join(out, ", ")
}

func TestRebalance(t *testing.T) {
	half := requests("cpu", "400m") // a tenth of a node
	for _, c := range []struct {
		name  string
		fleet func() *scheduler.Fleet
		most  int
		fixed string // a service that may not be moved
		want  string
		why   string // of the first move
	}{
		{name: "nothing to move", fleet: func() *scheduler.Fleet { return fleet(node("n1"), node("n2")) }, most: 9},
		{name: "no nodes", fleet: func() *scheduler.Fleet { return fleet() }, most: 9},
		{name: "even", most: 9, fleet: func() *scheduler.Fleet {
			f := fleet(node("n1"), node("n2"), node("n3"))
			spread(f, "web", shape(half), "n1", "n2", "n3", "n1")
			return f
		}},
		{name: "one node has two of a service and another none", most: 9, fleet: func() *scheduler.Fleet {
			f := fleet(node("n1"), node("n2"), node("n3"))
			spread(f, "web", shape(), "n1", "n2", "n1")
			return f
		}, want: "web-0 n1>n3", why: "n3 has 0 of web, n1 has 2"},
		{name: "the other is not open", most: 9, fleet: func() *scheduler.Fleet {
			f := fleet(node("n1"), node("n2"), node("n3", unschedulable()))
			spread(f, "web", shape(), "n1", "n2", "n1")
			return f
		}},
		{name: "what is on a node that is not open stays", most: 9, fleet: func() *scheduler.Fleet {
			f := fleet(node("n1", unschedulable()), node("n2"), node("n3"))
			spread(f, "web", shape(), "n1", "n1", "n1")
			return f
		}},
		{name: "it may not be moved", most: 9, fixed: "web", fleet: func() *scheduler.Fleet {
			f := fleet(node("n1"), node("n2"))
			spread(f, "web", shape(), "n1", "n1")
			return f
		}},
		{name: "it may not be there", most: 9, fleet: func() *scheduler.Fleet {
			f := fleet(node("n1"), node("n2", labelled("zone", "b")))
			spread(f, "web", shape(selects("zone", "a")), "n1", "n1")
			return f
		}},
		{name: "one node is much fuller", most: 9, fleet: func() *scheduler.Fleet {
			f := fleet(node("n1"), node("n2"))
			for i := range 4 {
				spread(f, fmt.Sprintf("s%d", i), shape(half), "n1")
			}
			return f
		}, want: "s0-0 n1>n2, s1-0 n1>n2", why: "n1 is at 40.4%, n2 is at 10.1% with it"},
		{name: "fuller, but not by as much as a move costs", most: 9, fleet: func() *scheduler.Fleet {
			f := fleet(node("n1"), node("n2"))
			spread(f, "a", shape(half), "n1")
			spread(f, "b", shape(half), "n1")
			spread(f, "c", shape(half), "n2")
			return f
		}},
		{name: "no more than asked for", most: 1, fleet: func() *scheduler.Fleet {
			f := fleet(node("n1"), node("n2"))
			for i := range 4 {
				spread(f, fmt.Sprintf("s%d", i), shape(half), "n1")
			}
			return f
		}, want: "s0-0 n1>n2"},
		{name: "none asked for", most: 0, fleet: func() *scheduler.Fleet {
			f := fleet(node("n1"), node("n2"))
			spread(f, "web", shape(), "n1", "n1", "n1")
			return f
		}},
		{name: "replicas that ask for nothing are counted", most: 9, fleet: func() *scheduler.Fleet {
			f := fleet(node("n1"), node("n2"))
			for i := range 8 {
				spread(f, fmt.Sprintf("s%d", i), shape(), "n1")
			}
			return f
		}, want: "s0-0 n1>n2, s1-0 n1>n2, s2-0 n1>n2", why: "n2 has 0 of all replicas, n1 has 8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := c.fleet()
			moves, before, after := scheduler.Rebalance(f, scheduler.RebalanceLimits{Moves: c.most, Movable: func(k api.ReplicaKey) bool { return k.Service != c.fixed }})
			if got := wordsOf(moves); got != c.want {
				t.Errorf("moves %q, want %q", got, c.want)
			}
			if c.why != "" && (len(moves) == 0 || moves[0].Why != c.why) {
				t.Errorf("%+v, want why %q", moves, c.why)
			}
			if len(moves) > 0 {
				if m, ok := scheduler.Better(f, moves[0].Key); !ok || m.From != moves[0].From {
					t.Errorf("alone: %+v, %v", m, ok)
				}
			}
			if len(moves) == 0 && before != after || len(moves) > 0 && after >= before {
				t.Errorf("%d moves, imbalance %f to %f", len(moves), before, after)
			}
		})
	}
}

// Everything on one node is the worst that there is.
func TestImbalanceIsAShare(t *testing.T) {
	f := fleet(node("n1"), node("n2"), node("n3"))
	spread(f, "web", shape(), "n1", "n1", "n1")
	if _, before, _ := scheduler.Rebalance(f, scheduler.RebalanceLimits{}); before != 1 {
		t.Errorf("imbalance %f, want 1", before)
	}
	f = fleet(node("n1"), node("n2"), node("n3"))
	spread(f, "web", shape(), "n1", "n2", "n3")
	if _, before, _ := scheduler.Rebalance(f, scheduler.RebalanceLimits{}); before != 0 {
		t.Errorf("imbalance %f, want 0", before)
	}
}

// What Rebalance plans changes nothing in the fleet, keeps to limits, constraints and
// capacities, lowers the imbalance, and is all that there is to do.
func TestRebalanceProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{nodes: map[string]scheduler.Node{}, on: map[api.ReplicaKey]string{}, asks: map[api.ReplicaKey]plain{}}
		names := []string{}
		for i := range rapid.IntRange(1, 8).Draw(t, "nodes") {
			name := fmt.Sprintf("n%d", i)
			m.nodes[name] = drawNode(t, name)
			names = append(names, name)
		}
		shapes := map[string]*scheduler.Shape{}
		for i := range rapid.IntRange(1, 6).Draw(t, "services") {
			service := fmt.Sprintf("s%d", i)
			p := drawPlain(t)
			shapes[service] = p.shape()
			for slot := range rapid.IntRange(1, 8).Draw(t, "replicas") {
				on := rapid.SampledFrom(names).Draw(t, "on")
				if k := key(service, slot); m.fit(on, p, nil) || rapid.IntRange(0, 9).Draw(t, "misfit") == 0 {
					m.on[k], m.asks[k] = on, p
				}
			}
		}
		build := func(order []api.ReplicaKey, nodes []string) *scheduler.Fleet {
			f := scheduler.NewFleet()
			for _, n := range nodes {
				f.SetNode(m.nodes[n])
			}
			for _, k := range order {
				f.Bind(k, m.on[k], shapes[k.Service])
			}
			return f
		}
		keys := slices.SortedFunc(maps.Keys(m.on), func(a, b api.ReplicaKey) int { return strings.Compare(a.String(), b.String()) })
		f := build(keys, names)
		fixed := rapid.SampledFrom([]string{"", "s0"}).Draw(t, "fixed")
		limits := scheduler.RebalanceLimits{Moves: rapid.IntRange(0, 20).Draw(t, "most"), Movable: func(k api.ReplicaKey) bool { return k.Service != fixed }}
		moves, before, after := scheduler.Rebalance(f, limits)

		for _, n := range names {
			var want []api.ReplicaKey
			for _, k := range keys {
				if m.on[k] == n {
					want = append(want, k)
				}
			}
			got := f.Bound(n)
			if len(got) != len(want) || slices.ContainsFunc(want, func(k api.ReplicaKey) bool { return !slices.Contains(got, k) }) {
				t.Fatalf("it changed %s: has %v, had %v", n, got, want)
			}
		}
		if len(moves) > limits.Moves || before < 0 || before > 1 || after < 0 || after > 1 || len(moves) > 0 && after >= before || len(moves) == 0 && after != before {
			t.Fatalf("%d moves of %d, imbalance %f to %f", len(moves), limits.Moves, before, after)
		}
		turned := slices.Clone(keys)
		slices.Reverse(turned)
		backwards := slices.Clone(names)
		slices.Reverse(backwards)
		if again, x, y := scheduler.Rebalance(build(turned, backwards), limits); wordsOf(again) != wordsOf(moves) || x != before || y != after {
			t.Fatalf("known in another order: %s (%f to %f), was %s (%f to %f)", wordsOf(again), x, y, wordsOf(moves), before, after)
		}
		seen := map[api.ReplicaKey]bool{}
		for _, x := range moves {
			if seen[x.Key] || x.Key.Service == fixed || m.on[x.Key] != x.From || x.To == x.From || !open(m.nodes[x.From]) || x.Why == "" {
				t.Fatalf("move %+v of %s", x, wordsOf(moves))
			}
			seen[x.Key] = true
			m.on[x.Key] = x.To
			f.Bind(x.Key, x.To, shapes[x.Key.Service])
		}
		for _, x := range moves { // it fits where it is then, beside all others
			to := m.on[x.Key]
			delete(m.on, x.Key)
			if !m.fit(to, m.asks[x.Key], nil) {
				t.Fatalf("%+v does not fit there", x)
			}
			m.on[x.Key] = to
		}
		again, x, _ := scheduler.Rebalance(f, limits)
		if math.Abs(x-after) > 1e-9 {
			t.Fatalf("imbalance %f, foretold %f", x, after)
		}
		if len(moves) < limits.Moves && len(again) > 0 {
			t.Fatalf("again: %s after %s", wordsOf(again), wordsOf(moves))
		}
	})
}
