// Package commit writes the leader's batches to the store, one transaction at a
// time, each behind the leader's fence.
//
// It owns the order of commits. The core owns what is in them: while one is on
// its way the core gathers the next (group commit).
//
// Invariant: no batch is sent after one that was not surely written. A refusal,
// failure or unknown result ends the driver; the leader resigns and reloads.
//
//	core --Submit(Batch 7)--> [Batch 7] --Txn(If fence, Then ops)--> store
//	     <--Results(Seq 7, Rev, Err)----------------rev, err----------'
package commit
