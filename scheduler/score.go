package scheduler

import (
	"fmt"
	"math/bits"

	"github.com/orchctl/orch/api"
)

// fullLoad is the load of a node that has nothing left of some resource. Per
// mille is fine enough to tell nodes apart and coarse enough for a set per load.
const fullLoad = 1000

// loadOf gives a node's load: its dominant share in per mille, and at least one
// for every replica, at most fullLoad.
func loadOf(n *node) int {
	load := min(len(n.bound), fullLoad)
	for id, amount := range n.requested {
		if amount > 0 {
			load = max(load, perMille(amount, at(n.capacity, id)))
		}
	}
	return load
}

// perMille gives part/whole, rounded down, at most fullLoad. Part is above zero.
func perMille(part, whole int64) int {
	if part >= whole {
		return fullLoad
	}
	hi, lo := bits.Mul64(uint64(part), fullLoad)
	q, _ := bits.Div64(hi, lo, uint64(whole)) // hi < whole, for part < whole
	return int(q)
}

// score puts the choice into one number, of which more is better: a replica of
// the service weighs more than any load. Equal scores are settled by the ring.
func score(count, load int) int64 {
	return int64(fullLoad - load - count*(fullLoad+1))
}

// why words a score.
func why(sv api.Key, count, load int) string {
	return fmt.Sprintf("%d of %s here, load %d.%d%%", count, sv.Name, load/10, load%10)
}

// hashText is FNV-1a, mixed, since FNV alone leaves names that differ in their
// last letter side by side.
func hashText(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return mix(h)
}

// mix is the finalizer of splitmix64: every bit in reaches every bit out.
func mix(h uint64) uint64 {
	h ^= h >> 30
	h *= 0xbf58476d1ce4e5b9
	h ^= h >> 27
	h *= 0x94d049bb133111eb
	return h ^ h>>31
}

// hashService and startOf give the point of a slot on a ring of so many nodes.
func hashService(k api.Key) uint64 { return hashText(k.Namespace + "/" + k.Name) }

func startOf(service uint64, slot, nodes int) int {
	hi, _ := bits.Mul64(mix(service+uint64(slot)*0x9e3779b97f4a7c15), uint64(nodes))
	return int(hi)
}
