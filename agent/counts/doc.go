// Package counts is what an agent counts of its work, for Prometheus, and the checks
// by which others see whether it lives and is ready.
//
// It owns the names of the agent's metrics. A nil *Set counts nothing, so that whoever
// counts need not ask. Invariant: counting never waits and decides nothing: drivers
// add to numbers; what has a state (replicas, sessions, what containers use) is read at
// a scrape, for a bounded time.
//
//	driver, session, probes, dns, rules ──numbers──► Set ──► Book ──► /metrics
//	plan, self-check, usage ──────────── at a scrape ──┘
package counts
