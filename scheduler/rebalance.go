package scheduler

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"math/bits"
	"slices"

	"github.com/orchctl/orch/api"
)

// Move is a replica that would be placed elsewhere today.
type Move struct {
	Key      api.ReplicaKey
	From, To string
	// Why: "n4 has 0 of web, n1 has 2".
	Why string
}

// RebalanceLimits bound what Rebalance may plan.
type RebalanceLimits struct {
	// Moves is how many replicas it moves at most; 0: none.
	Moves int
	// Movable tells which replicas may be moved at all; nil: all.
	Movable func(api.ReplicaKey) bool
}

// A move costs a start, an image perhaps, caches that are cold again: so it is made
// only where it gains as much as this. Any of the three will do.
const (
	// spreadGap: the node has this many more of the service than the other. With one
	// more the move would only swap the two.
	spreadGap = 2
	// loadGap: the node is this much fuller than the other would be with the replica,
	// in millionths of its capacity: 10 %.
	loadGap = 100_000
	// countGap: the replica asks for nothing, so that no load can tell, and the node
	// has this many more replicas than the other would have, and a quarter more.
	countGap = 3
)

// rebalanceTriesMax bounds how many places are looked for in one call: each costs
// some microseconds, for which the leader does nothing else.
const rebalanceTriesMax = 10_000

// gainLeast is what a move takes at least off the fleet's imbalance: more than what
// sums of floating point numbers may be wrong by.
const gainLeast = 1e-9

// Rebalance plans moves that make a fleet more even, each to the node where Place
// would put the replica today. before and after are the fleet's imbalance, from 0
// for as even as can be to 1 for all on one node. The fleet is not changed. Moves
// that were made are not planned again: what is planned lowers the imbalance, and
// nothing is left that would by enough, unless a limit cut it off.
func Rebalance(f *Fleet, limits RebalanceLimits) (moves []Move, before, after float64) {
	r := newRebalance(f, limits)
	before = r.imbalance()
	for r.evenSpread() || r.evenLoad() {
	}
	after = newRebalance(f, limits).imbalance()
	for _, m := range r.moves {
		f.Bind(m.Key, m.From, f.bindings[m.Key].shape)
	}
	return r.moves, before, after
}

// Better tells whether one replica is worth moving as the fleet is now, and where to.
func Better(f *Fleet, key api.ReplicaKey) (Move, bool) {
	r := newRebalance(f, RebalanceLimits{Moves: 1})
	b := f.bindings[key]
	if b == nil || !r.isOpen(b.node) {
		return Move{}, false
	}
	to, why, _ := r.gain(b)
	if to == nil {
		return Move{}, false
	}
	return Move{key, b.node.name, to.name, why}, true
}

// rebalance is a plan in the making; the moves are made in the fleet meanwhile.
type rebalance struct {
	f      *Fleet
	limits RebalanceLimits
	moves  []Move
	tries  int
	open   []*node // that take new replicas, by their place on the ring
	// sum and squares of the open nodes' strains, and of the services the weighted
	// excess over an even spread.
	sum, squares int64
	excess       float64
	weight       int
}

func newRebalance(f *Fleet, limits RebalanceLimits) *rebalance {
	f.settle()
	r := &rebalance{f: f, limits: limits}
	for pos, n := range f.index.ring {
		if f.index.open.has(pos) {
			r.open = append(r.open, n)
			r.countStrain(strain(n), 1)
		}
	}
	for _, key := range r.services() {
		sv := f.services[key]
		r.excess += r.excessOf(sv)
		r.weight += r.countOf(sv)
	}
	return r
}

func (r *rebalance) isOpen(n *node) bool { return n.pos >= 0 && r.f.index.open.has(n.pos) }

func (r *rebalance) services() []api.Key {
	return slices.SortedFunc(maps.Keys(r.f.services), func(a, b api.Key) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
}

// strain is a node's load, finer than loadOf has it: the dominant share in
// millionths, and a thousandth for each replica.
func strain(n *node) int64 { return strainWith(n, nil, 0) }

func strainWith(n *node, more []need, replicas int) int64 {
	var most int64
	for id := range max(len(n.requested), len(n.capacity)) {
		amount := at(n.requested, id)
		for _, r := range more {
			if r.id == id {
				amount = addCapped(amount, r.amount)
			}
		}
		if amount > 0 {
			most = max(most, millionths(amount, at(n.capacity, id)))
		}
	}
	return most + 1000*int64(len(n.bound)+replicas)
}

// millionths gives part/whole, rounded down, at most a million. Part is above zero.
func millionths(part, whole int64) int64 {
	const full = 1_000_000
	if part >= whole {
		return full
	}
	hi, lo := bits.Mul64(uint64(part), full)
	q, _ := bits.Div64(hi, lo, uint64(whole)) // hi < whole, for part < whole
	return int64(q)
}

func (r *rebalance) countStrain(s, times int64) {
	r.sum += times * s
	r.squares += times * s * s
}

// imbalance joins two measures, both from 0 to 1: how unevenly services are spread
// over the open nodes, and how unevenly these are loaded. The latter reads as the
// share of them that might as well be empty: where one of five has nothing and the
// others have as much each, a quarter of the four that could be.
func (r *rebalance) imbalance() float64 {
	k := float64(len(r.open))
	if k < 2 {
		return 0
	}
	spread, load := 0.0, 0.0
	if r.weight > 0 {
		spread = max(0, r.excess) / float64(r.weight)
	}
	if s := float64(r.sum); s > 0 {
		load = max(0, 1-s*s/(k*float64(r.squares))) * k / (k - 1)
	}
	return 1 - (1-spread)*(1-load)
}

// countOf counts a service's replicas on open nodes.
func (r *rebalance) countOf(sv *service) int {
	total := 0
	for n, count := range sv.on {
		if r.isOpen(n) {
			total += count
		}
	}
	return total
}

// excessOf is how far the service is from an even spread: 0, or up to the number of
// its replicas if all are on one node.
func (r *rebalance) excessOf(sv *service) float64 {
	squares, total := 0, 0
	for n, count := range sv.on {
		if r.isOpen(n) {
			squares += count * count
			total += count
		}
	}
	k := max(1, len(r.open))
	each, more := total/k, total%k
	even := more*(each+1)*(each+1) + (k-more)*each*each
	if total*total == even {
		return 0
	}
	return float64(total) * float64(squares-even) / float64(total*total-even)
}

// gain gives the node to which the replica is worth moving, why, and the imbalance
// then; nil: it is not.
func (r *rebalance) gain(b *binding) (to *node, why string, then float64) {
	r.tries++
	from, sv := b.node, b.service
	if to = r.f.elsewhere(b); to == nil {
		return nil, "", 0
	}
	needs := r.f.needs(nil, b.shape)
	have, others := sv.on[from], sv.on[to]
	full, filled := strain(from), strainWith(to, needs, 1)
	switch {
	case have-others >= spreadGap:
		why = fmt.Sprintf("%s has %d of %s, %s has %d", to.name, others, sv.key.Name, from.name, have)
	case have-others >= 1 && full-filled >= loadGap:
		why = fmt.Sprintf("%s is at %s, %s is at %s with it", from.name, percent(full), to.name, percent(filled))
	case have-others >= 1 && len(needs) == 0 && len(from.bound)-len(to.bound)-1 >= max(countGap, len(from.bound)/4):
		why = fmt.Sprintf("%s has %d of all replicas, %s has %d", to.name, len(to.bound), from.name, len(from.bound))
	default:
		return nil, "", 0
	}
	before := r.imbalance()
	then = r.with(b, to, func() float64 { return r.imbalance() })
	if then > before-gainLeast {
		return nil, "", 0
	}
	return to, why, then
}

// percent words a strain.
func percent(s int64) string { return fmt.Sprintf("%d.%d%%", s/10_000, s/1000%10) }

// with asks something of the fleet as it would be with the replica moved.
func (r *rebalance) with(b *binding, to *node, ask func() float64) float64 {
	kept, key, from, shape := *r, b.key, b.node.name, b.shape
	r.shift(b, to)
	answer := ask()
	r.f.Bind(key, from, shape)
	r.sum, r.squares, r.excess = kept.sum, kept.squares, kept.excess
	return answer
}

// shift moves a replica in the fleet and keeps the sums.
func (r *rebalance) shift(b *binding, to *node) {
	from, key, service := b.node, b.key, b.service.key
	r.countStrain(strain(from), -1)
	r.countStrain(strain(to), -1)
	r.excess -= r.excessOf(b.service)
	r.f.Bind(key, to.name, b.shape)
	r.countStrain(strain(from), 1)
	r.countStrain(strain(to), 1)
	r.excess += r.excessOf(r.f.services[service])
}

// elsewhere gives the node that Place would choose for one more replica like this
// one, anywhere but where it is; nil: none is fit. Both are counted, for the one is
// started before the other is stopped.
func (f *Fleet) elsewhere(b *binding) *node {
	w := &f.index.walk
	w.enter(f, &Group{Service: b.service.key, Shape: b.shape})
	w.begin([]string{b.node.name})
	return w.next(startOf(hashService(b.service.key), b.key.Slot, len(f.index.ring)))
}

// move plans a move. A replica that is moved again goes straight to where it ends.
func (r *rebalance) move(b *binding, to *node, why string) {
	m := Move{b.key, b.node.name, to.name, why}
	r.shift(b, to)
	i := slices.IndexFunc(r.moves, func(x Move) bool { return x.Key == m.Key })
	switch {
	case i < 0:
		r.moves = append(r.moves, m)
	case r.moves[i].From == m.To:
		r.moves = slices.Delete(r.moves, i, i+1)
	default:
		r.moves[i].To, r.moves[i].Why = m.To, m.Why
	}
}

func (r *rebalance) ended() bool {
	return len(r.moves) >= r.limits.Moves || r.tries >= rebalanceTriesMax || len(r.open) < 2
}

// evenSpread makes services more even that have too many replicas on one node, and
// tells whether it moved any.
func (r *rebalance) evenSpread() bool {
	any := false
	for _, key := range r.services() {
		for !r.ended() && r.evenService(key) {
			any = true
		}
	}
	return any && !r.ended()
}

// evenService moves one replica of the service, from where it has most.
func (r *rebalance) evenService(key api.Key) bool {
	sv := r.f.services[key]
	least := 0 // nodes that have none
	if len(sv.on) >= len(r.open) {
		least = math.MaxInt
		for n, count := range sv.on {
			if r.isOpen(n) {
				least = min(least, count)
			}
		}
	}
	var from []*node
	for n, count := range sv.on {
		if r.isOpen(n) && count-least >= spreadGap {
			from = append(from, n)
		}
	}
	slices.SortFunc(from, func(a, b *node) int {
		return cmp.Or(cmp.Compare(sv.on[b], sv.on[a]), cmp.Compare(strain(b), strain(a)), cmp.Compare(a.name, b.name))
	})
	for _, n := range from {
		for _, b := range r.kinds(n, func(b *binding) bool { return b.service.key == key }) {
			if r.ended() {
				return false
			}
			if to, why, _ := r.gain(b); to != nil {
				r.move(r.f.bindings[b.key], to, why) // it was bound anew meanwhile
				return true
			}
		}
	}
	return false
}

// kinds gives one movable replica of each service and shape on a node that is
// wanted: where one of them does not go, the others do not either.
func (r *rebalance) kinds(n *node, wanted func(*binding) bool) []*binding {
	type kind struct {
		service api.Key
		shape   *Shape
	}
	bound := slices.DeleteFunc(slices.Clone(n.bound), func(b *binding) bool {
		return !wanted(b) || r.limits.Movable != nil && !r.limits.Movable(b.key)
	})
	slices.SortFunc(bound, func(a, b *binding) int { return compareKeys(a.key, b.key) })
	seen := map[kind]bool{}
	return slices.DeleteFunc(bound, func(b *binding) bool {
		k := kind{b.service.key, b.shape}
		defer func() { seen[k] = true }()
		return seen[k]
	})
}

// evenLoad moves replicas from the fullest nodes, each time the one that gains most,
// and tells whether it moved any.
func (r *rebalance) evenLoad() bool {
	any := false
	full := r.fullest()
	for i, n := range full {
		for !r.ended() && (i+1 == len(full) || strain(n) >= strain(full[i+1])) && r.evenNode(n) {
			any = true
		}
	}
	return any && !r.ended()
}

// evenNode moves one replica from the node.
func (r *rebalance) evenNode(n *node) bool {
	var best *binding
	var bestTo *node
	var bestWhy string
	least := math.Inf(1)
	for _, b := range r.kinds(n, func(*binding) bool { return true }) {
		if r.tries >= rebalanceTriesMax {
			break
		}
		if to, why, then := r.gain(b); to != nil && then < least {
			best, bestTo, bestWhy, least = r.f.bindings[b.key], to, why, then
		}
	}
	if best == nil {
		return false
	}
	r.move(best, bestTo, bestWhy)
	return true
}

// fullest gives the open nodes that are so much fuller than another, or have so many
// more replicas, that something may be worth moving: those of the largest strain
// first.
func (r *rebalance) fullest() []*node {
	leastStrain, leastBound := int64(math.MaxInt64), math.MaxInt
	for _, n := range r.open {
		leastStrain, leastBound = min(leastStrain, strain(n)), min(leastBound, len(n.bound))
	}
	full := slices.DeleteFunc(slices.Clone(r.open), func(n *node) bool {
		return strain(n)-leastStrain < loadGap && len(n.bound)-leastBound-1 < countGap
	})
	slices.SortFunc(full, func(a, b *node) int {
		return cmp.Or(cmp.Compare(strain(b), strain(a)), cmp.Compare(a.name, b.name))
	})
	return full
}
