// Package election decides which controller leads, and for how long.
//
// Leadership is a compare-and-swap on one key that holds (id, term). Whoever
// wrote it last leads, until another writes it. No lease and no clock is needed
// for safety: every transaction of a leader compares the key's revision
// (Lease.Fence), so that a deposed one changes nothing. When to try is a matter
// of speed only, and is asked of an Eligible.
//
// It owns the keys leader and incarnation.
//
// Invariant: terms only rise, and no two leases have the same term.
//
//	wait until eligible -> Seize: leader = (id, term+1) -> lead(ctx, lease)
//	        ^                                                |     | key changed:
//	        +------- back-off <- Resign <--------------------+-----+ ctx ends
package election
