// Package agent runs a node's replicas and leads its traffic: it drives agent/plan
// with what really happens, and carries out what plan wants through containerd and
// the kernel's network.
//
// It owns the node's data folder. Nothing is decided here: one goroutine owns
// the plan; each effect that takes time runs in a goroutine of its own (plan
// bounds how many) and comes back as an event.
//
// Invariant: neither the end of Run nor a kill -9 touches a container; and what
// lies on disk is enough to go on without a controller. Endpoints are acknowledged
// when traffic is led by them.
//
//	session ──sets──┐                    ┌──► ctrd, netdev, probes
//	ctrd ──events───┼──► inbox ──► plan ─┼──► session (reports, acks)
//	results ────────┤                    ├──► disk (last assignment), hooks
//	traffic ──marks─┘                    └──► traffic (endpoints)
//	session ──where the node stands──► netdev ──► traffic
package agent
