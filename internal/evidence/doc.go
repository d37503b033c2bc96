// Package evidence looks at a host from where the process runs and says what
// answered. Agents use it as witnesses, the leader for itself.
//
// It owns the sockets of a probe, and keeps none after it.
//
// Invariant: only something that the host sent is an answer: an ICMP echo reply, a
// TCP handshake or a TCP refusal. Time running out and errors of the network or of
// this machine (no route, host unreachable, ARP without a reply) are none.
//
//	          +-- ICMP echo, sent three times ---+
//	Probe ----+-- TCP to HostPort ---------------+--> Result
//	          +-- TCP to each replica's port ----+
package evidence
