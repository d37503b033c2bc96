// Package store is the small durable floor of the control plane: atomic
// transactions with compares, one-snapshot ranges, ordered watches.
//
// It owns the words (Txn, Range, Watch) and their meaning, not their storage:
// store/etcd keeps the cluster's data, store/mem is its twin in memory for
// tests and the simulator, and store/storetest holds both to one suite.
//
// Invariant: a transaction is written whole or not at all, and a caller is
// told "refused" only when nothing was written. Whatever cannot be known is
// ErrUnknown, never guessed.
//
//	commit ----Txn(If fence, Then ops)--> store --rev--> answers, sessions
//	reload ----Range(prefix)------------> one snapshot at rev
//	follower --Watch(prefix, rev+1)-----> Change{Rev, Events} ...
package store
