// Package probes asks containers whether they are well: over HTTP, TCP or
// gRPC, or by a command inside. It only asks and tells; thresholds and what follows
// from the answers are agent/plan's.
//
// It owns the sockets of a try, and keeps none after it. Invariant: tries of
// one probe never overlap, and none outlasts its timeout.
//
//	plan ──StartProbe──► Run ──try──► replica's IP, or exec
//	     ◄───Probed─────────┘ (every try)
package probes
