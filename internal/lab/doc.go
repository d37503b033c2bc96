// Package lab makes a whole fleet on one Linux machine, and breaks it on
// request: for the demo, for development and for end-to-end tests.
//
//	machine                    netns orchlab-NAME (no way out)
//	+--------------------+     +---------------------------------------------+
//	| orchctl            |     |  controller host: shim init -> controller   |
//	|  unix://controller.sock --->       10.200.0.1                          |
//	|  DIR/lab.json      |     |            br0 + nft table (cuts, losses)   |
//	+--------------------+     +--------+------------+------------+----------+
//	                                  veth n1      veth n2      veth n3
//	                            +--------+-----+ +----+----+ +----+----+
//	                            | netns, pid,  | |         | |         |
//	                            | mnt, uts, ipc| |   ...   | |   ...   |
//	                            |  shim init   | |         | |         |
//	                            |   containerd | |         | |         |
//	                            |   agent      | |         | |         |
//	                            | 10.200.0.11  | |  .0.12  | |  .0.13  |
//	                            +--------------+ +---------+ +---------+
//
// A host (a node, or the controller's) is a set of namespaces with `shim init`
// as PID 1. Killing that process is an exact loss of power: the kernel takes
// everything else along. A node that is powered on again gets new namespaces
// and a new boot id, and finds its old data folder.
//
// What it owns: the folder of the lab, the named network namespace, and the
// cgroups under /orchlab/NAME. Every process of a lab is in one of those
// cgroups, which is how Remove finds leftovers after the lab itself crashed.
// The links and mounts of a host live in its namespaces and go with them.
//
// Invariants: after Remove nothing of the lab exists; labs of distinct names
// share nothing; processes survive the program that called Up; the lab starts
// built binaries by path and imports nothing of them.
//
// The lab needs Linux and root. Elsewhere only ErrNeedsLinux is here.
package lab
