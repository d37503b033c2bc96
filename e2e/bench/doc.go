// Command bench measures orch on a fleet of four nodes in a lab: how fast it
// replaces, restarts, starts and rolls out, what it never does, what it costs at rest,
// and how its network leads traffic. `make bench` runs it; -book chooses between the
// files of figures, fleet, failover, net and rollout, -run picks measurements, -quick
// makes a smoke run of few repetitions, whose figures mean nothing and go to files of
// their own.
//
//	fault or apply ──► clock starts, before the act
//	leader's view (watch) ──► clock stops, when the last change arrives
//	containerd of each node ──► what the leader says is what runs, or no figure
//
// It owns the labs "bench" and "bench-vxlan", and out/bench/{fleet,failover,net,rollout}.jsonl.
// Invariant: a figure is written only if its runs ended as they should; a run that did
// not is an error.
package main
