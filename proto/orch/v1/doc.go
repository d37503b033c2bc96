// Package orchv1 is the code generated from the .proto files beside it: what
// lies in the store, what agents and controllers say to each other, and what
// orchctl calls. `make generate` writes it; CI checks that it is current.
//
// It owns the wire. Invariant: a field's number is never used again for
// another meaning.
package orchv1
