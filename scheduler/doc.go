// Package scheduler decides which node each replica goes to, and says why where
// it finds none.
//
// It owns Fleet, the indexed picture of nodes and of what is bound to them, and
// the rules: filters (may this replica go there?) and the score (where is it
// best?). It is pure: no clock, chance, goroutine or I/O; it imports only api.
// Amounts are integers, ties break by hash, so the same input gives the same
// bytes in whatever order the nodes became known.
//
// Invariant: Place never binds above a node's capacity or the addresses of its
// subnet (spares counted), one host port twice on a node, or to a node that any
// filter refuses; and it refuses a replica only if every node refuses it, or the one
// on which alone it may be (Slot.On).
//
// A node takes new replicas, whatever they ask for, if its verdict is Healthy, no
// operator has cordoned it, it can do its work (is not impaired) and does not come
// and go (is not damped). What is bound to a node that does not stays bound, for
// only the reconciler takes away. Free sums what is left on those that do: that is
// what spares and reliefs may be counted against.
//
//	Template ──NewShape──► Shape ─┐
//	                              ├─ Place ──► Placement (bound into the Fleet)
//	Node, Bind, Unbind ──► Fleet ─┘      └──► Refusal "5 nodes: 3 lack 512Mi memory ..."
//
// # How a node is chosen
//
// The order, each step only among equals of the step before:
//
//  1. Fewest replicas of the same service, spares and old revisions counted: a
//     lost node should take as little of a service as possible.
//  2. Lowest load. A node's load is, in per mille, the dominant share: the
//     largest of requested/capacity over its resources. Filling all nodes
//     evenly means that a lost node hurts less and that neighbours have room
//     to burst; it costs room for very large replicas, which a fuller packing
//     would keep. Each bound replica counts for at least one per mille, so
//     that replicas without requests spread as well.
//  3. hash(replica, node): nodes stand on a ring in the order of their names'
//     hashes, a slot's hash is a point on it, the nearest node from there wins.
//     The epoch is no part of the hash: a slot tends to where its image is.
//
// Load is taken before the replica is added. So it is the node's alone and one
// index serves all shapes: a bit set of nodes per load. A choice reads nodes
// from the least load up and stops at the first one that is fit, without looking
// at the rest. This is exact, not a sample.
//
// # Batches
//
// Identical replicas are placed by one walk. While a batch runs, nodes only
// become fuller: a node found unfit stays unfit, a node that was taken leaves its
// level (the number of replicas of the service there), and those left at a level
// do not move. So the walk goes forward only, and feasibility is asked about once
// per node and level.
//
// # Rebalancing
//
// Place never moves anything: a node that joins stays empty until something new is
// placed. Rebalance says what would be placed elsewhere today: it goes over services
// that have two more replicas on one node than on another, then over the fullest
// nodes, asks for each replica where Place would put it now, and takes what gains as
// much as a move costs (spreadGap, loadGap, countGap) and lowers the fleet's
// imbalance. Since each move lowers that, it comes to an end, and what has been moved
// is not moved again.
package scheduler
