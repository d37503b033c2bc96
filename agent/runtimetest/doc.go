// Package runtimetest is a node's containers and networks in memory, for tests
// of agents. They outlive agents, as containerd's do.
//
// It owns what runs. Invariant: nothing in it takes time by itself, and no
// subscriber holds it up.
//
//	agent ──Start, Stop, List──► Runtime ──Exited──► agent
//	test  ──Exit, PowerLost────►
package runtimetest
