// Package etcd keeps the cluster's data in etcd: embedded in the controller
// (Embedded) or external (Dial). It is the only package that imports etcd.
//
// It owns the data folder of an embedded etcd and the meaning of etcd's errors:
// which say that nothing was written, and which leave the outcome unknown.
//
// Invariants: an embedded etcd of one member listens nowhere unless asked to,
// and never on TCP without mutual TLS; a transaction reported as refused was
// not written; a folder is opened by one controller at a time.
//
//	core --> commit --> Store --in process--> embedded etcd --> Dir/member
//	                      \-----mutual TLS---> external etcd
package etcd
