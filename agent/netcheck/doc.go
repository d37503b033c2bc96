// Package netcheck tries the replicas' network from a node: the routes to other
// nodes, how large packets may be on them, names and virtual IPs. It says in words
// what is wrong and what to do.
//
// It owns the responder that every agent runs at its gateway's address, and the
// sockets of a check, of which it keeps none after it.
//
// Invariant: a check says that something works only where the other side has
// answered with what was asked; and the responder sends to nobody more than it got
// from them.
//
//	n1: Checker ──TCP: who is there?──────────► n2: Responder, at the gateway's address
//	            ──UDP, as large as allowed────►
//	            ──TCP to the virtual IP ──rules──► any Responder
//	            ──DNS──► n1's own server
package netcheck
