// Package images decides which images of a node go when its disk fills up, and remembers
// what for.
//
// It owns no image: what there is, and what needs it, are arguments, as is the time. The
// agent's driver looks, asks, removes and measures.
//
// Invariant: what a container runs from, what is assigned, what was chosen before the last
// two revisions that ran here, and what nobody could bring again is never among what goes.
//
//	disk over the high mark ──► Plan(state) ──► removals, in order
//	                              ▲                  │ one by one, until the low mark
//	  images, containers, ────────┘                  ▼
//	  assigned, Book (on disk)                   containerd
package images
