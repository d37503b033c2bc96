// Package netdev gives replicas their network, and the node its place among the
// others: a named network namespace and an address for each replica, the files
// that tell it of names, and the ways by which packets find replicas on other
// nodes. All of it goes back when the replica, or the node, goes. What leads
// traffic to endpoints is in netfilter, beneath.
//
// It owns the namespaces under NetNSDir; under StateDir the address pool, records,
// replicas' files and what the leader said of the node's place; and in the network
// namespace that the agent runs in all routes of network.RouteProtocol, the device
// network.TunnelName and the address on loopback with the label lo:orch. CNI
// plugins (ptp, host-local) make replicas' interfaces and choose addresses; what
// the host has configured for CNI is neither read nor written.
//
// Invariants: every namespace, address and file belongs to a record that was
// written before it was made, so that a crash at any point leaves nothing that the
// next New does not find and clear away. Nothing that is still wanted is ever
// taken from the kernel to be put back: a restart of the agent writes nothing.
// Where the host uses the cluster's ranges itself, nothing is written at all.
//
//	Configure ──► place (standing.json) ──network.PathsOf──► what is wanted
//	                                                            │ differences
//	kernel's notices, every 10 s ──► look: what is ─────────────┴──► kernel
//
//	replica's netns                node's netns
//	eth0 10.64.1.2 ──── veth ──── vethX (10.64.1.1) ──10.64.2.0/24──► via the peer's address
//	                               lo    10.64.1.1  ──10.64.3.0/24──► orch-vxlan ─UDP 4789─► peer
//	                                                ──10.64.0.0/10──► refused
package netdev
