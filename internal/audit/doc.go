// Package audit keeps the audit log of a controller: one line of JSON for every
// change that somebody asked for, and for every call that was refused.
//
// It owns the lines, the file that they lie in, and the knowledge which calls
// are changes and what they are about (describe.go). It sees requests and
// answers beside their handlers, as gRPC interceptors, and refusals before
// them, around the gate.
//
// Invariant: no value of a Config or a Secret, no token and no key is in a line:
// what goes into one is picked field by field, never printed whole. A method
// that nobody described is written as a change without details; none is left out.
//
//	call ──► Tap(gate) ──refused────────────────────────┐
//	          │                                         ▼
//	          └──► Unary, Stream ──► handler ──► Line ──► file │ stdout
//	                                    └ Note: what only it knows
package audit
