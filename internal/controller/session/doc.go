// Package session is the leader's side of its conversation with agents.
//
// It owns the streams: one session per node, and the relays that agents open
// when asked. It decides nothing: what agents say becomes events for the
// leader's core, what the core wants said is queued and written by the
// session's own goroutine.
//
// Invariant: nothing here makes the leader wait. A session whose queue is full
// is closed; an agent that never reads harms itself alone.
//
//	agent ──Hello, Beat, Status──► reader ──core.Event──► Term.Tell
//	agent ◄──Welcome, sets, asks── writer ◄──queue◄── Assign, Endpoints, Ask
//	agent ──Relay(id)────────────► Open(node, what) ──► logs, exec, images
package session
