// Package network computes how replicas are reached: which subnet a node and
// which virtual IP a service gets, which routes a node needs, and which rules
// lead traffic to endpoints. It is pure: addresses, routes and rules are data,
// and agent/netdev brings the kernel in line with them.
//
// Invariants: no subnet and no virtual IP is given to two at once; rules lead to
// endpoints that were given, and to no others; the same input gives the same
// rules, and the difference between what is and what is wanted, applied, leaves
// no difference.
//
//	Cluster ──► Subnet(i), VIP(i)              internal/controller/core keeps who has which
//	Standing + peers ──► routes                agent/netdev ──► netlink
//	services + endpoints ──► Picture ──Change──► agent/netdev/netfilter ──► nftables
package network
