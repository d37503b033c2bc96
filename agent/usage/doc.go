// Package usage measures what a node and its containers use now.
//
// It owns the last readings, from which it tells how much cpu was used since. It reads
// only when asked: a node of which nobody wants to know pays nothing. What containers use
// comes from the runtime, the rest from /proc.
//
// Invariant: a rate is over a window of at least WindowMin; who asks waits at most Window
// for that, and not at all where the last reading is of use.
//
//	reading ──── a second, or since the last ────► reading
//	   └───────────────── rate ──────────────────────┘
package usage
