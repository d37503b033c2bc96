// Package netfilter brings the kernel's packet filter in line with rules that are
// data, and ends connections that lead to the dead. It decides nothing:
// internal/network computes the rules, agent/traffic says when and whom.
//
// It owns the nftables table "ip orch" of the network namespace that the agent runs
// in, the kernel's setting route_localnet while that table stands, and no file but a
// marker that says that the setting is ours.
//
// Invariant: the table changes in whole transactions, and only by this package: what
// others did to it is told (Touched), and undone by the next Apply of a difference
// to what List gives.
//
//	network.Change ──Apply──► knftables ──► nft -f - ──► kernel
//	network.Table  ◄──List─── nft -j         generation ──Touched──► somebody else was here
//	Connections: To, Cut ◄──► conntrack, sock_diag in each replica's namespace
package netfilter
