// Command controller is orch's control plane: etcd (its own, or one that is
// there), the leader's core, and the API for users and agents.
//
// It owns nothing but the wiring: flags and environment become a config, parts
// are made in order and run until a signal.
//
//	flags ──► config ──► listen ──► store ──► identity ──► serve ──► lead ──► ready
package main
