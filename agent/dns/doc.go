// Package dns answers the names of services and replicas on the node's own
// address, and passes all other questions on to the servers of the host.
//
// It owns the sockets on the node's gateway address, port 53, the index of names,
// and the cache of what the host's servers said.
//
// Invariants: what Update was told is in every answer after it returned; a name
// below orch.internal is never asked elsewhere; nothing is answered to who is
// neither a replica nor the node, but that it is refused; and no question, however
// many there are, costs more than the limits in limits.go allow.
//
//	replica ──53/udp, tcp──► Server ── orch.internal, PTR of our ranges ──► names ◄── Update
//	                            │
//	                            └── all else ──► cache ──► the host's servers, last good one first
package dns
