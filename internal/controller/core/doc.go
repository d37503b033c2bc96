// Package core is the leader's mind: one deterministic state machine that owns
// the picture of the fleet and decides everything.
//
// It does no I/O, starts no goroutine, reads no clock and draws no chance.
// Events and the time go in through Step; Turn plans for what they made dirty;
// both give effects, data for the drivers around it. What a decision promises
// (answers, messages to agents, the published view) is held until the
// transaction that makes it true is committed, and released in order.
//
// Invariants: nothing outward depends on a write that could still fail (I2,
// I9); cost follows what changed, not the size of the fleet; the same events at
// the same times give the same effects.
//
//	events ──► Step ──► picture (services, fillings, nodes, verdicts)
//	                       │ dirty
//	           Turn ──► reconciler.Plan ──► scheduler.Place ──► writes
//	                                                              │
//	        effects ◄── held ◄── Committed ◄── driver ◄── Commit{Seq, Ops}
package core
