// Package controller drives the leader's core: it is everything around it that
// waits.
//
// It owns the term: one goroutine that feeds the core with events and carries
// out its effects, for as long as this controller leads. When a commit fails,
// its outcome is unknown or another took over, the term ends: sessions close,
// answers that were held become Unavailable, the core is dropped, and the next
// term reads everything anew from the store. There is no other way back.
//
// Invariant: the loop never waits for I/O, and what a transaction makes true is
// told only after it is committed (see core).
//
//	API calls ─┐                        ┌─► commit ──► store
//	sessions ──┤   inbox    ┌──────┐    ├─► sessions ──► agents
//	gossip ────┼──(bounded)─► core  ├──effects─► view ──► reads, watches
//	probes ────┤            └──────┘    ├─► answers, by ticket
//	commits ───┘   timer ──────┘        └─► probes
package controller
