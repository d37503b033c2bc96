// Package images keeps the image archives that users brought, so that every
// node gets them: those that are there at once, the others when they come.
//
// It owns the folder of archives, named by their digest, and the note beside
// each of which nodes have it (by the hash of the node's key: a machine made
// anew has another). The number of archives is bounded; the oldest goes.
//
// Invariant: an archive is whole before it has its name, and a node is noted
// only after its agent said that it took it up.
//
//	LoadImage ──► Add ──► <sha256>.tar, <sha256>.json ──Send──► relay ──► agent
//	session opened ──► Offer: what this node has not got ──────┤
//	a replica lacks it ──► Again: what this node had ──────────┘
package images
