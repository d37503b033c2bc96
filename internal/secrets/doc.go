// Package secrets keeps the values of Secrets unreadable wherever they lie: it holds the
// keys that they are encrypted with, and nothing but ciphertext leaves it for the store.
//
// It owns the key file and the format of what is sealed. It knows neither the store nor
// the network.
//
// Invariants: a key leaves the file only when nothing is sealed by it any more; what was
// sealed for one Secret opens for no other; no value and no key is ever in an error or
// a print.
//
//	values ──Encode──► plain JSON ──Seal──► payload ──► store, core   (never plain)
//	                                 │         │
//	           data key, new each ───┘         └──Open──► Decode ──► session ──► node
//	              wrapped by the newest key of the key file
package secrets
