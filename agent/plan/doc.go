// Package plan decides what an agent does: which images, networks, containers
// and probes its replicas need now, what is left to clear away, and what there
// is to report.
//
// It is a pure, deterministic state machine: Step(event, now) gives effects,
// which are data with a reason; a driver carries them out and tells the results
// as events. It reads no clock, draws no chance, starts no goroutine and does no
// I/O. It owns the agent's picture: what is assigned, what was observed, how far
// each replica is.
//
// Invariant: a container that runs and is as assigned is never stopped, but by
// the leader's word, its own liveness or startup probe or postStart hook, or the end
// of its lease; nothing is started that is not assigned, in this life of the node; no
// replica has two containers of one name; planning what was carried out plans nothing.
// What needs a lease starts only while one holds, and when it ends is told to stop;
// what was found running is left to its watchdog until the leader renews it.
//
// A volume is removed when nothing that may have it mounted is left on the node, and none
// of its slot starts meanwhile. Of Configs and Secrets it knows versions, never values.
//
// A replica climbs through stages, one for each init container, one for each sidecar
// and the last for all its containers: what belongs to one starts when the replica has
// reached it. No init container runs after one of a later stage has started, but where
// the node was off meanwhile; sidecars are stopped when all else has ended, the last
// one first. A replica whose containers have all ended for good is Stopped where each
// did well, else Failed.
//
//	             +------------------------- Core --------------------------+
//	Assigned --> | assigned --+                                            |
//	Observed --> | observed --+--> per replica: what is missing, one step  | --> effects
//	Done ------> | results ---+    further: image, network, start, probe   |
//	Exited ----> |                 or: stop, remove, teardown, gone        | --> Report
//	Probed ----> |                                                         |
//	             +---------------------------------------------------------+
//
//	stages:  init 1 -> init 2 -> sidecar 1 -> sidecar 2 -> containers
//	         its end with 0      it has begun               (all at once)
//	one run: image, network, start -> postStart -> startup probe -> readiness, liveness
//	         preStop -> stop -> its end -> remove, and again; or final
//
// It is level-triggered: an event only corrects the picture and marks replicas;
// then each marked replica is compared with what it should be.
package plan
