// Package bubble is the second simulator: real controllers and real agents, with
// their goroutines, gRPC, TLS and gossip, in a testing/synctest bubble. Hours of
// virtual time pass in minutes, under faults drawn by a seed.
//
// It owns the machines: a network between them that delays, cuts and drops, their
// disks (folders), containers and clocks, and the store that all controllers
// share. The order of goroutines is the scheduler's, so a seed repeats the
// faults, not every step; what the step simulator (internal/sim) cannot show,
// locks, streams, goroutines and their ends, shows here.
//
// Invariant: what a check holds against the world comes from the store's
// transactions, from the containers and from what passes over the network, never
// from what a controller or an agent says of itself.
//
//	users ──gRPC──► controllers ◄──gRPC, bufconn──► agents ──► containers
//	                 │    ▲  └────── gossip ─────────┘  │           │
//	                 ▼    │      (network: cut, slow, dropped)      │
//	               etcd (store/mem) ──► ledger ◄── checks ◄─────────┘
//
// The program is a test: see TestBubble for its flags.
package bubble
