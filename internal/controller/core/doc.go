// Package core is the leader's mind: one deterministic state machine that owns
// the picture of the fleet and decides everything.
//
// It does no I/O, starts no goroutine, reads no clock and draws no chance.
// Events and the time go in through Step; Turn plans for what they made dirty;
// both give effects, data for the drivers around it. What a decision promises
// (answers, messages to agents, the published view) is held until the
// transaction that makes it true is committed, and released in order.
//
// What runs may be doubted in many ways at once, so what is started beside it keeps
// to budgets (Budgets): spares for what cannot be reached, reliefs of what is on
// nodes that cannot work. An exclusive slot has neither; it waits for fences, and
// lease.go argues why it never has two running containers. Reliefs are also how a
// node is drained and how the fleet is rebalanced (drain.go, rebalance.go). Every
// stop is handed over: an agent is told of it when nobody sends the replica traffic
// any more (handover.go). What was decided of a node is kept as a record, with its
// evidence and what was done because of it.
//
// What users change becomes a revision, which is rolled out, and goes back by itself
// where it cannot work: rollout.go has the states, failing.go what speaks against a
// revision, revisions.go what is kept of each.
//
// A job is a service with an end: its slots are indexes, and what fills them ends by
// itself. An index is completed once, by the transaction that stops what completed it;
// job.go says how.
//
// Values that services take from Configs and Secrets have versions, which revisions pin
// (config.go); of Secrets the core sees what is sealed. Volumes bind slots to nodes
// (volume.go), which are then planned like those of global services.
//
// It gives addresses, too: to each node a subnet as long as it is known, to each
// service a virtual IP as long as it is there (network.go). They are in the records
// of who has them, and nobody hears of one before that is committed.
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
