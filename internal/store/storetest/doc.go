// Package storetest is the conformance suite of package store: what every
// implementation must do, as tests. Only tests import it.
//
// Invariant: no case depends on an implementation, its page size or where its
// revisions begin.
package storetest
