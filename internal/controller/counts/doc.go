// Package counts is what a controller counts of its work, for Prometheus, and the
// checks by which others see whether it lives and is ready.
//
// It owns the names of the controller's metrics. A nil *Set counts nothing, so that
// whoever counts need not ask. Invariant: counting never waits and decides nothing:
// the loop and the sessions add to numbers, what has a state (nodes, services,
// replicas) is read from the published view at a scrape, and how long failovers take
// from a watch of that view, beside the loop.
//
//	loop, commits, sessions, API ──numbers──► Set ──► Book ──► /metrics
//	published view ──watch──► failovers ───────┘│
//	               └──────────snapshot──────────┘ (at a scrape)
package counts
