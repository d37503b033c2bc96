// Package api holds what users declare and what the fleet holds: the types,
// their text forms (Quantity, Duration, IntOrPercent), their states, their
// defaults and their validation. orchctl, the controller and the agent share
// it, so a manifest means the same thing everywhere.
//
// It owns the meaning of every field. Invariant: it imports the standard
// library only and does no I/O.
//
//	manifest ──► Service ──Default──► Service ──Validate──► revision 1, 2, 3
//	                                                            │
//	                     Node ◄── Placement(slot, epoch) ──► Replica
package api
