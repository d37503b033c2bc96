// Package orchctl is the operator's command line.
//
// It owns what people see: the words of commands, tables, progress and errors,
// and the exit codes (0 done, 1 failed, 2 bad usage or manifest). It decides
// nothing about a fleet: it reads files, asks the controller, and prints.
//
// Invariant: whatever comes from a fleet is printed without control characters
// (a container's message must not steer the reader's terminal), and a change is
// sent under one request id, however often it has to be repeated.
//
//	args ──cobra──► command ──► manifests (files -> objects)
//	                   │
//	                   ├─ ask    one call, repeated while there is no leader
//	                   ├─ follow a watch that outlives its connection
//	                   ▼
//	                 table, yaml, progress ──► Out     orchctl: why ──► Err
package orchctl
