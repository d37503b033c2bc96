// Package view serves what the leader published, without ever stopping it.
//
// It owns a persistent index of the published objects: the leader's loop writes
// a copy-on-write tree, and every reader holds a snapshot of it for as long as
// it likes. Watchers get each change once, from the snapshot that they started
// with on; one that does not keep up is cut and lists again.
//
// Invariant: a snapshot and the changes after it leave nothing out and repeat
// nothing, and no reader makes the writer wait.
//
//	core.Publish ──► tree ──clone──► Snapshot ──► Get, List
//	                  └── changes ──► watchers (bounded) ──► Watch
package view
