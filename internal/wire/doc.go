// Package wire holds what agents and the leader say to each other, as Go values,
// and its conversion to and from the protobuf messages of proto/orch/v1.
//
// The pure cores on both sides speak these values; only session drivers see
// protobuf. It owns the mapping. Invariant: a value that goes over and comes
// back is the same value, and no input makes a conversion panic.
//
//	core ──wire.AssignmentSet──► session ──pb──► session ──► agent/plan
//	core ◄──wire.StatusReport─── session ◄─pb─── session ◄── agent/plan
package wire
