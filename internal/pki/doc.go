// Package pki is the cluster's proof of who is who: its certificate authority,
// the certificates and identities that it signs, join tokens, TLS
// configurations and the sealing of the CA's key at rest.
//
// It owns the format of identities, tokens and sealed files. It does no RPC and
// stores no cluster state: callers keep TokenRecords and name bindings.
//
// Invariant: nobody is believed on a name alone. An Identity comes only out of a
// certificate that the cluster's CA signed for a key whose holder proved to own
// it, and a server is believed only if it is a controller.
//
//	NewCA --Hash--> token "orch1.<ca hash>.<id>.<secret>"      (printed once)
//	                  |  first contact: PinnedJoinTLS(hash)
//	node: key, CSR ---+--> controller: TokenRecord.Check, CA.Sign
//	                                      |
//	tls.crt  orch://<cluster>/node/n1  <--+   then ClientTLS / ServerTLS
//
// # Identity in a certificate
//
// A certificate has exactly one URI name, in one canonical spelling:
//
//	orch://<cluster>/node/<name>
//	orch://<cluster>/controller/<name>
//	orch://<cluster>/user/<name>?role=<viewer|operator|admin>
//
// Subject (O = cluster, CN = name) is for people and is never read. The CA names
// itself orch://<cluster>/ca. Requests, made before the cluster's name is known,
// leave the cluster empty (orch:///node/n1). Only controllers get the server
// key usage and DNS name ServerName, under which every client verifies them, so
// that any address leads to a controller.
//
// # Time and chance
//
// Time is always an argument. Readers of randomness feed serial numbers, tokens,
// salts and nonces; ECDSA keys and signatures always draw from the system's own
// source, because crypto/ecdsa ignores any other.
package pki
