// Package traffic leads this node's traffic to endpoints: it keeps what the leader
// said, turns it into rules (internal/network computes them), has the kernel and
// DNS brought in line, and says when they are.
//
// It owns the files traffic.json* in the agent's folder, and decides alone when the
// nftables table "ip orch" changes and which connections are cut.
//
// Invariants: what is told as programmed is in the kernel and in DNS, with all that
// came before it; nothing that only lay on disk is put over what a running kernel
// has, as long as the leader may still say otherwise; the end of the agent changes
// nothing for live traffic.
//
//	Balance ──► fold ──► network.Picture ──Change──► Rules (one transaction)
//	              │                                   ▲
//	              ├──► Names                          └─ repair: Diff(List, Picture.Table)
//	              └──► dropped endpoints ──► Connections: cut those to the dead
package traffic
