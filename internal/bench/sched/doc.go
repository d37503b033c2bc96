// Command sched measures how fast the scheduler decides: 50,000 replicas in 500
// services of distinct shapes on 5,000 nodes, from nothing. Only deciding counts:
// no store, no network. Making the nodes and the shapes is outside the measure;
// putting the nodes in order, which the first Place of a fleet does, is inside.
//
//	fleet of 5,000 ──► Place(500 groups) ──► placements per second, out/bench/sched.jsonl
//
// It owns nothing. Invariant: a run in which any replica stays without a node, or
// whose placements differ from the first run's, is an error and not a figure.
package main
