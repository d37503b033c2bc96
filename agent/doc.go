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
// Values of Configs and Secrets never reach the plan: they are put in when a container
// starts. Those of Configs lie in the data folder, beside the assignment; those of Secrets
// are on no disk, and after a restart of the agent come with the next session. Volumes are
// folders of the data folder (VolumePath), which outlive all but the leader's word.
//
// Images are cleaned away by agent/images' word when their disk is full (shelf): never what a
// container has, what is assigned, or what ran here before.
//
//	session ──sets──┐                    ┌──► ctrd, netdev, probes
//	ctrd ──events───┼──► inbox ──► plan ─┼──► session (reports, acks)
//	results ────────┤                    ├──► disk (last assignment, Configs), hooks
//	traffic ──marks─┘                    └──► traffic (endpoints)
//	session ──where the node stands──► netdev ──► traffic
package agent
