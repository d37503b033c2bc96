// Command demo shows orch on one machine: a fleet of three nodes, a web service,
// a node that loses its power, and the service whole again. `make demo` runs it.
//
// Everything that it claims it has looked at: what the leader holds comes over
// the API's watch, what runs comes from each node's containerd, and answers come
// over HTTP from a network beside the nodes. Commands that it prints are run as
// they stand there, and their output is shown as it is.
//
// It owns the lab "demo". Invariant: unless told to keep it, it leaves nothing
// of it, also when a step fails or somebody interrupts.
//
//	steps ──► orchctl ...       what a user types
//	  ├─────► rig               what is checked and timed
//	  └─────► talk              what is said
package main
