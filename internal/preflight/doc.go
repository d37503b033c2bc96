// Package preflight looks at a machine before a daemon runs on it, and says what is
// wrong in words that tell what to do.
//
// What is seen and what it means are apart: Look gathers facts, Agent and Controller
// judge them. Judging is a function of facts and settings, so that every rule has a
// table; looking does no harm and leaves nothing behind.
//
//	machine ──Look──► Facts ──Agent, Controller──► Report ──► table, JSON, exit code
//	                                                     └──► the daemon's own start
//
// Invariant: a finding that is not ok names its remedy.
package preflight
