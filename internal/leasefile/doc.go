//go:build linux

// Package leasefile is what the agent and a container's watchdog (`shim
// leased-log`) say to each other: the file that tells how long the container
// may run, the lock that shows the watchdog to be alive, and the note of who
// told the container to end.
//
//	agent ── Write (rename) ──► DIR/lease ── Read, when it is time ──► watchdog
//	      ── Guarded? ────────► DIR       ◄── Guard (flock) ──────────
//	      ── Claim ───────────► DIR/told  ◄── Claim ──────────────────
//
// It owns that folder's three names; the folder is the container's own, one per
// run, and goes with it.
//
// Invariant: a file that is read is whole and about one container: what is torn,
// foreign or absurd is an error, and an error never lengthens a lease. Little is
// imported: the shim carries this.
package leasefile
