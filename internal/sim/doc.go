// Package sim is the step simulator: the real core, reconciler, scheduler,
// verdicts and agent planner in one thread, with everything around them made up
// and driven by one seed: nodes that lose power, alone or all at once, agents and
// controllers that are killed or paused, networks that are cut one way or both,
// slow, or say things twice, disks and a store that are full, a containerd that
// hangs, clocks that drift or stand still, commits whose outcome nobody knows,
// containers that crash, users who retry, operators who are wrong. Time is
// virtual; the same seed gives the same run, bit by bit.
//
// It owns the faults and the checks. After every step it holds the invariants
// of the design against what it knows to be true (S); then faults stop, and
// within ConvergeWithin everything has to be as the users want it (E).
//
//	I1  E  slots.go: every slot runs once, ready and of the newest revision, or
//	       the service says why not; also where a node or an agent is lost for good
//	I1  E  moves.go: drained nodes are empty, or nothing that is left there could be
//	       elsewhere
//	I2  S  ledger.go: what was acknowledged is in the store, nothing is done twice;
//	       deeds.go: nothing goes to an agent that is not committed
//	I3  S  checks.go: no node above its capacity or its subnet's addresses, no host
//	       port twice, nothing new for a node that is not healthy, cordoned, drained,
//	       impaired or damped; budgets.go: a node that says it cannot work is held
//	       for impaired, one that is said to be drained is empty
//	I4  S  checks.go: what the leader stops leaves the service its floor
//	I5  S  stops.go, deeds.go, hearsay.go: a container or placement goes only with a
//	       reason, and a relief only when another serves; freeze.go: nobody is dead
//	       before his time, nor while many vanish at once
//	I6  S  watchdog.go: nothing leased starts or goes on without a lease, and no
//	       exclusive slot runs twice on machines that are not frozen, reachable or
//	       not; stops.go: it is given up and filled only when nothing runs there
//	I7  E  settle.go: nothing is left that nobody wants
//	I8  S  knowledge.go: traffic goes to what was ready, to last known endpoints only
//	       where there is no better one, never to what outlived its lease; session.go,
//	       traffic.go: an agent that acknowledged a withdrawal obeys it, and so does
//	       its kernel; handover.go: nothing is told to stop before all have said so,
//	       or had their time
//	I8  E  traffic.go, addresses.go: every node leads traffic as the services and
//	       their endpoints are, and knows where all others stand
//	I9  S  commit.go: no commit of a term that is over; agents refuse lower terms
//	I10 S  settle.go: in a settled world nothing is written and nothing moves;
//	       moves.go: rebalances come to an end
//	budget budgets.go: spares and reliefs stay within their budgets; elsewhere.go: what
//	       fails is tried on other nodes a few times, where others of it do well
//	rollout
//	    S  rollouts.go: a rollback goes back to what was rolled out well last, and is
//	       none of a rollback; nothing is given up because of a node, nor before its
//	       deadline but for what its own containers do; a rollout is held where its
//	       canary's step, a pause or its failure says, and recreate starts nothing
//	       beside what goes; complete is what serves in every slot
//	    E  global.go: every rollout ends, or waits for somebody
//	global
//	    S  global.go: one replica on each node that can take one, never two
//	pins
//	    S  configs.go: every revision that is kept has the versions of Configs and
//	       Secrets that it takes, and nobody keeps others; a change makes new revisions
//	       of who takes it, and who goes back takes what he had; an agent is told all
//	       values that it needs, starts nothing with others, and has no secret on disk
//	jobs
//	    S  jobs.go: an index is completed once, by a replica that really ended well, with
//	       its stop, and never tried again; no more at once than are wanted; nothing that
//	       works is stopped without a reason; a job is complete or has failed as its
//	       tries were
//	    E  every job ends that can, and what is left of it goes
//	volumes
//	    S  volumes.go: what mounts a volume is placed, and runs, where that is, alone of
//	       its slot; none is deleted unless somebody wanted it gone who may
//	order
//	    S  order.go: init containers, sidecars and containers start and end in order
//	addresses, ports
//	    S  addresses.go: no two nodes have one subnet, no two services one virtual IP
//	       or published port; who has one keeps it
//
// Some runs are gentle: nothing goes wrong but slowness, and leaders that die. In
// these no request may be lost: whatever traffic is led to serves (traffic.go).
//
// A frozen machine's containers do not count as running: nobody reaches them, and
// when it runs again its watchdogs act before anything else does. That is the
// order which orch promises as far as it can; see the documents on what a real
// one may do in that instant.
//
//	users ──► controllers: core.Core ◄──sessions──► agents: plan.Core ──► runtime, traffic
//	faults        │ Commit     ▲                        (disk)       (containers, rules)
//	              ▼            │ result, failure, unknown
//	            store/mem ── ledger: what is committed, checked at every change
//
// A step is one event that reaches a machine, a user or a fault; beats, probe
// tries and watchdogs are upkeep and are not counted.
package sim
