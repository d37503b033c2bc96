// Package mem is the store in memory: the twin of store/etcd for tests and the
// simulator, with the same revisions, watches and refusals, and with faults on
// request. It loses everything with the process.
//
// Txn, Range and Compact start no goroutine and, unless a delay is set, never
// wait, so a single-threaded simulator can use them; a Watch has one goroutine,
// which waits on channels only, so that a testing/synctest bubble can advance.
//
// Invariant: what one store refuses, the other refuses (store/storetest).
//
//	Txn -> [fault?] -> [delay] -> keys, history --> watchers read the history
package mem
