// Package netdev gives replicas their network: a named network namespace each,
// an address in it, host ports that lead there, and all of it back when the
// replica goes. It alone touches the kernel's network for replicas.
//
// It owns the namespaces under NetNSDir, the address pool and records under
// StateDir, and the nftables table "ip orch" of the network namespace that the
// agent runs in. CNI plugins (ptp, host-local) make the interfaces and choose
// addresses; the rules are ours, so that iptables is not needed.
//
// Invariant: every namespace, address and rule belongs to a record that was
// written before it was made, so that a crash at any point leaves nothing that
// the next New does not find and clear away.
//
//	replica's netns                node's netns
//	eth0 10.64.1.2 ──── veth ──── vethX (10.64.1.1) ──route──► others, outside
//	                                 ▲        masquerade ─────► outside
//	                    table ip orch: host port ─► 10.64.1.2:port
package netdev
