// Package liveness holds what the leader believes about each node's life.
//
// It is a pure, deterministic state machine: events and the time go in, effects
// come out. It reads no clock, draws no chance and starts no goroutine, so that
// every verdict can be replayed and explained. It owns the verdicts, and knows
// nothing of replicas, spares or sessions beyond what its events say.
//
// Invariant: a node is never suspected while its beats arrive on time, nor while
// any observer gets an answer from its host and from its replicas' ports. Silence
// and gossip only make the leader look; what observers see decides.
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
package liveness
