// Package daemon is what the command lines of the agent and the controller
// share: flags that are environment variables and keys of a file too, mistakes
// that end with code 2, signals that end the program in order.
//
//	--flag ──► ORCH_FLAG ──► /etc/orch/agent.yaml ──► default
//
// Invariant: the set of flags is the only list of settings there is. A key that is
// no flag is refused, with its line and the one that was likely meant.
package daemon
