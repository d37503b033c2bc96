package main

import "slices"

// table are all mistakes. Where a line of the code changes, its row changes with
// it: the mistake stays the same.
func table() []mutation {
	return slices.Concat(control(), verdicts(), agents(), traffic(), rollouts(), owned())
}

const (
	inCore       = "internal/controller/core/"
	inReconciler = "reconciler/"
	inScheduler  = "scheduler/"
)

// control are mistakes of the core, the reconciler and the scheduler.
func control() []mutation {
	return []mutation{
		// What is committed, and what comes out when.
		{breaks: "I2", file: inCore + "batch.go", why: "effects are released before the write that they speak of is committed",
			old: "if n := len(c.batches); n > 0 {\n\t\tc.batches[n-1].held", new: "if n := len(c.batches); n > 1 {\n\t\tc.batches[n-1].held"},
		{breaks: "I2", file: inCore + "batch.go", why: "a commit that failed releases what waited for it",
			old: "if ev.Err != nil || len(c.batches) == 0", new: "if len(c.batches) == 0"},
		{breaks: "I2", file: inCore + "records.go", why: "a new leader forgets which requests were done: a retry is done twice",
			old: "\t\tc.requests.add(r)\n", new: ""},
		{breaks: "I2", file: inCore + "plan.go", why: "the first placement of a batch gets the last epoch once more",
			old: "c.counters.epoch + uint64(len(wanted)) + 1", new: "c.counters.epoch + uint64(len(wanted))"},
		{breaks: "I2", file: inCore + "plan.go", why: "a placement does not spend its epoch",
			old: "\t\tc.counters.epoch = max(c.counters.epoch, p.Key.Epoch)\n", new: ""},
		{breaks: "I9", file: "internal/controller/commit/commit.go", why: "transactions go without the fence: a deposed leader writes on",
			old: "If: []store.Compare{d.fence}, ", new: "", test: "./internal/controller/commit"},
		{breaks: "I9", file: "internal/controller/commit/commit.go", why: "the same, seen by the whole in virtual time",
			old: "store.Txn{If: []store.Compare{d.fence}, Then: b.Ops}", new: "store.Txn{Then: b.Ops}", test: bubble},
		{breaks: "I9", file: "internal/controller/election/election.go", why: "the leader key is seized without looking whether it changed: two win",
			old: "\t\tIf:   []store.Compare{store.ModRevIs(LeaderKey, at)},\n", new: "", test: "./internal/controller/election -test.run TestContendersOverOneStore"},

		// Unknown is not absent.
		{breaks: "I5", file: inCore + "plan.go", why: "unheard: what has not reported to this leader is judged as if it had",
			old: "\t\t\treturn !c.nodes[f.node].reported\n", new: "\t\t\treturn false\n"},
		{breaks: "I5", file: inCore + "plan.go", why: "a node that is back counts with what it last said, before it has spoken",
			old: "if x.Verdict == api.VerdictBack && !f.reported {", new: "if false {", test: "./internal/controller/core"},
		{breaks: "I8", file: inCore + "assign.go", why: "a new leader withdraws the endpoints of nodes that it has not heard yet",
			old: "\t\treturn kept\n", new: "\t\treturn out\n"},
		{breaks: "I5", file: inCore + "node.go", why: "what a session said that is over still counts",
			old: "n.session == session && session != 0", new: "session != 0"},
		{breaks: "I3", file: inCore + "node.go", why: "a complete report from before an assignment ends what it could not know",
			old: "if said[f.key] || f.sent > ev.Report.Taken {", new: "if said[f.key] {"},
		{breaks: "I5", file: inCore + "node.go", why: "an agent's \"gone\" drops what was not told to stop",
			old: "if f == nil || !f.stopping && !f.void {", new: "if f == nil {", test: "./internal/controller/core"},

		// Lives of nodes.
		{breaks: "I5", file: inCore + "node.go", why: "what was placed on a node's last life stays when it joins with another",
			old: "\tc.dropVoid(n, true, \"its node's life is over\")\n", new: "", test: "./internal/controller/core"},
		{breaks: "I2", file: inCore + "records.go", why: "a new leader takes placements of another boot for living ones",
			old: "if n != nil && n.obj.Status.BootID == f.bootID {", new: "if n != nil {", test: "./internal/controller/core"},
		{breaks: "I1", file: inCore + "verdict.go", why: "the half-open session of a dead node is not closed",
			old: "\t\tc.closeSession(n, \"this node was taken for dead: \"+e.Why)\n", new: ""},

		// Endpoints.
		{breaks: "I8", file: inCore + "assign.go", why: "what is on a suspect node stays a good endpoint",
			old: "case v != api.VerdictSuspect && !c.unsure(f):", new: "case !c.unsure(f):"},
		{breaks: "I8", file: inCore + "assign.go", why: "last known endpoints get traffic beside good ones",
			old: "case x == live || x == lastKnown && s.bare:", new: "case x == live || x == lastKnown:"},
		{breaks: "I8", file: inCore + "assign.go", why: "an exclusive replica that cannot be reached keeps its traffic, degraded",
			old: "case f.exclusive: // its lease ends, and with it its container\n\t\treturn out\n", new: ""},
		{breaks: "I8", file: inCore + "assign.go", why: "what is not ready gets traffic",
			old: "case f.loaded || !f.status.Ready:", new: "case f.loaded:"},
		{breaks: "I8", file: inCore + "assign.go", why: "what has outlived its lease keeps its traffic",
			old: " || c.spent(f):", new: ":"},
		{breaks: "I8", file: inCore + "assign.go", why: "what is told to stop keeps its traffic",
			old: "case f.job || f.void || f.stopping || v == api.VerdictDead ||", new: "case f.job || f.void || v == api.VerdictDead ||"},

		// Leases and fences of exclusive slots.
		{breaks: "I6", file: inCore + "lease.go", why: "the fence forgets that clocks drift",
			old: "return at.Add(f.lease + api.LeaseDrift(f.lease))", new: "return at.Add(f.lease)", test: "./internal/controller/core"},
		{breaks: "I6", file: inCore + "lease.go", why: "the fence is counted from the first grant, not the last",
			old: "\t\t\tf.granted = c.now\n", new: "\t\t\tif f.granted.IsZero() {\n\t\t\t\tf.granted = c.now\n\t\t\t}\n"},
		{breaks: "I6", file: inCore + "lease.go", why: "leases are granted though no quorum has answered of late",
			old: "c.quorumAt.IsZero() || c.now.Sub(c.quorumAt) >= QuorumFresh", new: "c.quorumAt.IsZero()"},
		{breaks: "I6", file: inCore + "batch.go", why: "a quorum's answer counts from its arrival, not from the question",
			old: "c.quorumAt = b.sentAt", new: "c.quorumAt = c.now"},
		{breaks: "I6", file: inCore + "records.go", why: "a new leader does not wait for the leases of the one before",
			old: "f.loaded, f.inherited = true, true", new: "f.loaded = true"},
		{breaks: "I6", file: inCore + "lease.go", why: "a new leader forgets what a deposed one may grant for a second more",
			old: "c.began.Add(QuorumFresh + api.LeaseDrift(QuorumFresh))", new: "c.began", test: "./internal/controller/core"},
		{breaks: "I6", file: inCore + "lease.go", why: "what is stopping is granted leases on and on",
			old: "f.lease > 0 && !f.stopping && !f.void", new: "f.lease > 0 && !f.void"},
		{breaks: "I6", file: inCore + "service.go", why: "\"dead\", by whoever's word, lifts the fence of an exclusive slot",
			old: "if c.fenced(s, f) {\n\t\tc.lapse", new: "if false {\n\t\tc.lapse"},
		{breaks: "I6", file: inCore + "lease.go", why: "what lapsed is let go before its fence",
			old: "case f.lapsed && !c.fenced(s, f):", new: "case f.lapsed:"},
		{breaks: "I1", file: inCore + "plan.go", why: "nobody looks again when a fence has passed: the slot stays empty",
			old: "\t\tc.wakes[s.key] = wake\n", new: "\t\tdelete(c.wakes, s.key)\n"},
		{breaks: "I6", file: inReconciler + "exclusive.go", why: "an exclusive replica that cannot be reached is given up before its fence",
			old: "|| f.ended() || p.blocked(s) {", new: "|| f.ended() {"},
		{breaks: "I6", file: inReconciler + "exclusive.go", why: "an exclusive slot is filled while what was in it may run (the core stands behind: its own check keeps it from being placed)",
			old: "if len(s.live()) > 0 || p.blocked(s) || p.waits", new: "if len(s.live()) > 0 || p.waits", test: "./reconciler"},

		// Budgets and relief.
		{breaks: "budget", file: inCore + "budget.go", why: "one spare more than the budget of its service",
			old: "case mine >= perService:", new: "case mine > perService:"},
		{breaks: "budget", file: inCore + "budget.go", why: "one spare more than the budget of the fleet",
			old: "case a.used.standIns >= inFleet:", new: "case a.used.standIns > inFleet:"},
		{breaks: "budget", file: inCore + "budget.go", why: "spares may take all that is free",
			old: "case !a.fits(need):", new: "case false:", test: "./internal/controller/core"},
		{breaks: "budget", file: inCore + "relief.go", why: "relief goes on while verdicts are frozen",
			old: "if !c.frozen.on {\n\t\troom", new: "if true {\n\t\troom", test: "./internal/controller/core"},
		{breaks: "I5", file: inCore + "relief.go", why: "relief does not wait for the grace",
			old: "case from.After(c.now):\n", new: "case false:\n"},
		{breaks: "I5", file: inCore + "core.go", why: "the grace runs on while the leader itself did not run",
			old: "c.reliefs.stalledAt, c.reliefs.due = c.now, true", new: "c.reliefs.due = true", test: "./internal/controller/core"},
		{breaks: "budget", file: inCore + "relief.go", why: "reliefs under way are not counted",
			old: "c.reliefsMost() - c.underRelief(nil)", new: "c.reliefsMost()"},
		{breaks: "I4", file: inReconciler + "relief.go", why: "relief takes the incumbent before its spare is ready",
			old: "if serving(f) && (best == nil", new: "if f.reported() && (best == nil"},

		// Rollouts, and who stays when both are back.
		{breaks: "I4", file: inReconciler + "rollout.go", why: "a rollout takes one more than may be missing",
			old: "if available <= floor {\n\t\t\treturn", new: "if available < floor {\n\t\t\treturn"},
		{breaks: "I4", file: inReconciler + "rollout.go", why: "a rollout stops slots one after the other without counting",
			old: "\t\tavailable--\n\t}\n}\n\n// fill", new: "\t}\n}\n\n// fill"},
		{breaks: "I5", file: inReconciler + "spare.go", why: "a ready spare beats a ready incumbent",
			old: "anyReady && (anyWanted || !wanted || !p.mature(f)) {", new: "anyReady && !anyWanted && !wanted {", test: "./reconciler"},
		{breaks: "I5", file: inReconciler + "spare.go", why: "an incumbent that has not reported yet is not waited for",
			old: "if !allReported(incumbents) {\n\t\treturn nil", new: "if false {\n\t\treturn nil"},
		{breaks: "I4", file: inReconciler + "spare.go", why: "a spare goes as soon as its incumbent is back, ready or not",
			old: "slices.IndexFunc(s.incumbents(), (*Filling).serving)\n\t}\n\tfor", new: "slices.IndexFunc(s.incumbents(), (*Filling).reported)\n\t}\n\tfor", test: "./reconciler"},
		{breaks: "I5", file: inReconciler + "spare.go", why: "a damped node's incumbent is trusted like any other: the spare goes",
			old: "return f.serving() && !f.Damped })", new: "return f.serving() })", test: "./reconciler"},
		{breaks: "I10", file: inCore + "plan.go", why: "an adopted spare stays a spare: it is adopted over and over",
			old: "f.spare, f.why = false, a.Why", new: "f.why = a.Why"},
		{breaks: "I10", file: inReconciler + "relief.go", why: "a spare that only starts does not count: another is made with every plan",
			old: "return !f.doubtful() && (f.Spare || !f.ended())", new: "return f.serving()"},
		{breaks: "I10", file: inReconciler + "spare.go", why: "a spare is added beside a spare",
			old: "if i < 0 || !allSuspect(s.live()) {", new: "if i < 0 {"},

		// Placing.
		{breaks: "I3", file: inScheduler + "filter.go", why: "a node's capacity counts, not what is left of it",
			old: "a.needs[i].amount > n.free(a.needs[i].id)", new: "a.needs[i].amount > at(n.capacity, a.needs[i].id)"},
		{breaks: "I1", file: inScheduler + "filter.go", why: "what fits exactly is refused",
			old: "a.needs[i].amount > n.free(a.needs[i].id)", new: "a.needs[i].amount >= n.free(a.needs[i].id)"},
		{breaks: "I3", file: inScheduler + "filter.go", why: "a host port is given twice",
			old: "if n.ports[p] > 0 {", new: "if n.ports[p] > 1 {"},
		{breaks: "I3", file: inScheduler + "filter.go", why: "a node that is coming back takes new replicas",
			old: "if n.verdict == api.VerdictHealthy {", new: "if n.verdict == api.VerdictHealthy || n.verdict == api.VerdictBack {"},
		{breaks: "I3", file: inScheduler + "filter.go", why: "an impaired node takes new replicas",
			old: " && refuseImpaired(nil, n) < 0", new: ""},
		{breaks: "I3", file: inScheduler + "filter.go", why: "a damped node takes new replicas",
			old: " && refuseDamped(nil, n) < 0", new: ""},
		{breaks: "I3", file: inScheduler + "filter.go", why: "a cordoned node takes new replicas",
			old: " && refuseUnschedulable(nil, n) < 0", new: ""},
		{breaks: "I3", file: inCore + "service.go", why: "a new leader does not count the room of spares",
			old: "\tc.fleet.Bind(f.key, f.node, r.shape)\n", new: "\tif !f.spare {\n\t\tc.fleet.Bind(f.key, f.node, r.shape)\n\t}\n"},
	}
}
