package scheduler

import "math/bits"

// bitset is a set of small integers: positions on the ring, or loads.
type bitset []uint64

func newBitset(n int) bitset { return make(bitset, (n+63)/64) }

func (b bitset) set(i int)      { b[i>>6] |= 1 << (i & 63) }
func (b bitset) clear(i int)    { b[i>>6] &^= 1 << (i & 63) }
func (b bitset) has(i int) bool { return b[i>>6]&(1<<(i&63)) != 0 }

func (b bitset) put(i int, in bool) {
	if in {
		b.set(i)
	} else {
		b.clear(i)
	}
}

// next gives the smallest member that is at least i, or -1.
func (b bitset) next(i int) int {
	w := i >> 6
	if w >= len(b) {
		return -1
	}
	word := b[w] &^ (1<<(i&63) - 1)
	for word == 0 {
		if w++; w == len(b) {
			return -1
		}
		word = b[w]
	}
	return w<<6 + bits.TrailingZeros64(word)
}

// nextOfBoth gives the first member of both sets at or after from, going round
// the ring once, or -1. The sets have equal length and from is within it.
func nextOfBoth(a, b bitset, from int) int {
	b = b[:len(a)]
	first := from >> 6
	low := uint64(1)<<(from&63) - 1 // members of the first word that come last
	if word := a[first] & b[first] &^ low; word != 0 {
		return first<<6 + bits.TrailingZeros64(word)
	}
	for w := first + 1; w < len(a); w++ {
		if word := a[w] & b[w]; word != 0 {
			return w<<6 + bits.TrailingZeros64(word)
		}
	}
	for w := range first {
		if word := a[w] & b[w]; word != 0 {
			return w<<6 + bits.TrailingZeros64(word)
		}
	}
	if word := a[first] & b[first] & low; word != 0 {
		return first<<6 + bits.TrailingZeros64(word)
	}
	return -1
}
