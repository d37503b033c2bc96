// Package gossip tells early, and without authority, who seems to be alive.
//
// It wraps memberlist: agents and controllers ping each other in random order
// and spread what they find. It owns the gossip port and nothing else. Traffic is
// encrypted with one 32-byte key; a process without it is not heard.
//
// Invariant: what comes out is a hint. Only the latest hint per node is kept, so
// a slow reader delays nobody and misses no state.
//
//	peers <--udp, tcp--> memberlist --joined, left--> latest per node --> Hints()
package gossip
