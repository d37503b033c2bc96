// Package liveness holds what the leader believes about each node's life.
//
// It is a pure, deterministic state machine: events and the time go in, effects
// come out. It reads no clock, draws no chance and starts no goroutine, so that
// every verdict can be replayed and explained. It owns the verdicts, and knows
// nothing of replicas, spares or sessions beyond what its events say.
//
// Invariant: a node is never suspected while its beats arrive on time, nor while
// any observer gets an answer from its host and from its replicas' ports. Silence
// and gossip only make the leader look; what observers see decides. Every verdict
// names those whose word it rests on.
//
//	                        Reconciled
//	          +-------------------------------------------+
//	          v                                           |
//	Unknown / Healthy --quiet, host answers--> AgentLost --+ same boot
//	          |                                 ^  |      +--> Back
//	          +--quiet, no answer-----------> Suspect ----+     ^
//	                                            |               | same boot
//	          any: new boot id, operator;  60 s |               |
//	          ----------------------------> Dead ---------------+
//	                                            +--new boot--> Healthy
//
// # Time
//
// A power cut, in a fleet of up to Limits.BeatFleet nodes, from the last beat on:
//
//	0 ms        100             150                  300         350
//	last beat   one is missing  late: observers      they saw    three are missing:
//	                            are asked            no answer   Suspect
//
// Asking and waiting overlap, but no verdict rests on less for it: a beat ends the
// look, an answer does too (the next look is at 350 ms), and where witnesses were
// lost with the node a second look follows at 350 ms. How late a beat may be, 50 ms
// here, is each node's own and follows its jitter up to 300 ms (jitter.go); all of
// the above moves with it. A session that breaks is looked at at once.
//
// # Beside the verdicts
//
// Impaired (impaired.go): a node beats, but its self-checks say that it cannot work.
// It keeps what it has, gets nothing new, and is relieved by and by.
//
// Damped (damp.go): a node came back too often. Until its penalty has decayed it
// gets nothing new, and spares that stand in for its replicas stay.
//
// Frozen (freeze.go): many nodes vanished at once. None dies of silence until
// witnesses off the leader's host have agreed for 10 s about all that are suspect,
// none is missing any more, or an operator says so; after a minute a few at a time
// do. Hard facts count all the while.
package liveness
