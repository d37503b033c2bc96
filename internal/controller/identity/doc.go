// Package identity decides who may be part of the cluster: it holds the CA,
// checks join tokens, binds names to keys, keeps the book of users, signs certificates, and
// changes CA and gossip's key while everything runs.
//
// It owns the keys below Prefix. The CA is claimed once, by compare-and-swap,
// by the first controller that starts; its key lies there sealed under a key
// that is only on controllers' disks. Tokens, names, users and what replaces the CA are
// written through the leader's core like everything else, fenced and in order.
//
// After a rotation two CAs are trusted. The newer one signs for nodes and users, and vouches
// for the older one; that signs for controllers, since everybody trusts it, until it is
// retired. So no client needs to know of a rotation to believe a controller.
//
// Invariant: a node's name belongs to the first key that joined under it, until
// an admin removes the node; no certificate is handed out before what it rests
// on is committed; a user's call is judged by the book, not by the certificate alone.
//
//	Join(token, name, csr) ──► token good? ──► name free, or this key's? ──► Writer ──► sign
//	                                                                          (core.Write)
package identity
