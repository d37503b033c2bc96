// Package sim is the step simulator: the real core, reconciler, scheduler,
// verdicts and agent planner in one thread, with everything around them made up
// and driven by one seed: nodes that lose power, agents and controllers that are
// killed or paused, cut and slow networks, commits whose outcome nobody knows,
// containers that crash, users who retry. Time is virtual; the same seed gives
// the same run, bit by bit.
//
// It owns the faults and the checks. After every step it holds the invariants
// of the design against what it knows to be true (S); then faults stop, and
// within ConvergeWithin everything has to be as the users want it (E).
//
//	users ──► controllers: core.Core ◄──sessions──► agents: plan.Core ──► runtime
//	faults        │ Commit     ▲                        (disk)       (containers)
//	              ▼            │ result, failure, unknown
//	            store/mem ── ledger: what is committed, checked at every change
//
// A step is one event that reaches a machine, a user or a fault; beats, probe
// tries and watchdogs are upkeep and are not counted.
package sim
