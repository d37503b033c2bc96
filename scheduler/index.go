package scheduler

import (
	"cmp"
	"slices"
)

// rulesMax bounds the remembered sets of nodes that meet a rule: 6 MB for a fleet
// of 5,000. Beyond it all are forgotten and made again as they are asked for.
const rulesMax = 10_000

// index is the ring of known nodes and sets of positions on it. While it is stale
// the sets mean nothing; settle makes them anew.
type index struct {
	stale bool
	ring  []*node // by hash of the name, then name
	// open holds the nodes that take new replicas at all: healthy and schedulable.
	open bitset
	// byLoad holds the nodes of each load; nil until one had it. loaded counts
	// them and filled holds the loads that have any.
	byLoad [fullLoad + 1]bitset
	loaded [fullLoad + 1]int
	filled bitset
	// rules holds the nodes that meet a selector and constraints, by Shape.rule.
	rules map[string]ruleSet
	walk  walk // scratch of Place, kept to save allocations
}

// ruleSet is the nodes that meet the rule of the shape, which stands for all
// shapes of the same rule.
type ruleSet struct {
	shape *Shape
	nodes bitset
}

func newIndex() index {
	return index{stale: true, filled: newBitset(fullLoad + 1), rules: map[string]ruleSet{}}
}

// settle puts all known nodes on the ring and makes the sets anew, if a node came
// or went since.
func (f *Fleet) settle() {
	x := &f.index
	if !x.stale {
		return
	}
	x.stale = false
	x.ring = x.ring[:0]
	for _, n := range f.nodes {
		if n.known {
			x.ring = append(x.ring, n)
		}
	}
	slices.SortFunc(x.ring, func(a, b *node) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.name, b.name))
	})
	x.open = newBitset(len(x.ring))
	clear(x.rules)
	clear(x.byLoad[:])
	clear(x.loaded[:])
	clear(x.filled)
	for pos, n := range x.ring {
		n.pos = pos
		x.enroll(n)
		n.load = loadOf(n)
		x.place(n)
	}
}

// enroll brings open up to date with the node's verdict and schedulability.
func (x *index) enroll(n *node) {
	if !x.stale {
		x.open.put(n.pos, takesReplicas(n))
	}
}

// relabel asks every remembered rule about the node's new labels.
func (x *index) relabel(n *node) {
	if x.stale {
		return
	}
	for _, r := range x.rules {
		r.nodes.put(n.pos, meetsRule(n, r.shape))
	}
}

// reload moves the node to the set of its present load.
func (x *index) reload(n *node) {
	load := loadOf(n)
	if load == n.load {
		return
	}
	if x.stale || n.pos < 0 {
		n.load = load
		return
	}
	x.byLoad[n.load].clear(n.pos)
	if x.loaded[n.load]--; x.loaded[n.load] == 0 {
		x.filled.clear(n.load)
	}
	n.load = load
	x.place(n)
}

// place puts the node into the set of its load.
func (x *index) place(n *node) {
	if x.byLoad[n.load] == nil {
		x.byLoad[n.load] = newBitset(len(x.ring))
	}
	x.byLoad[n.load].set(n.pos)
	if x.loaded[n.load]++; x.loaded[n.load] == 1 {
		x.filled.set(n.load)
	}
}

// meeting gives the nodes that meet the shape's rule; nil means all.
func (x *index) meeting(s *Shape) bitset {
	if s.rule == "" {
		return nil
	}
	if r, ok := x.rules[s.rule]; ok {
		return r.nodes
	}
	if len(x.rules) == rulesMax {
		clear(x.rules)
	}
	nodes := newBitset(len(x.ring))
	for pos, n := range x.ring {
		nodes.put(pos, meetsRule(n, s))
	}
	x.rules[s.rule] = ruleSet{s, nodes}
	return nodes
}
