package main

// rollouts are mistakes of what takes the place of what, and goes back.
func rollouts() []mutation {
	return []mutation{
		// Bounds.
		{breaks: "I4", file: inReconciler + "bounds.go", why: "what is ready counts before it was ready for long enough: a rollout's floor ignores minReady",
			old: "return f.available() && p.mature(f) }", new: "return f.available() }"},
		{breaks: "rollout", file: inCore + "rollout.go", why: "a canary's step does not bound the rollout",
			old: "if n, ok := s.canary(v.Replicas); ok && (", new: "if n, ok := s.canary(v.Replicas); ok && false && ("},
		{breaks: "rollout", file: inReconciler + "bounds.go", why: "what a held rollout has not come to is filled with the newest revision",
			old: "if p.other() && (p.Held && o.reached >= p.AtMost || ", new: "if p.other() && ("},
		{breaks: "I2", file: inCore + "rolloutword.go", why: "a pause is kept by its leader only: the next one forgets it",
			old: "		st.State = api.RolloutPaused\n	}\n	c.putRollout(s)\n", new: "		st.State = api.RolloutPaused\n	}\n	c.rolled(s)\n"},
		{breaks: "rollout", file: inReconciler + "bounds.go", why: "a recreated revision starts beside the old one",
			old: "return f.Revision != p.Revision && !(p.Exclusive && f.Stopping && f.fenced(p.now))", new: "return f.Revision != p.Revision && !f.Stopping"},

		// What failed, and what is gone back to.
		{breaks: "rollout", file: inCore + "rollout.go", why: "a rollback goes back to the revision before, whether that was rolled out well or not",
			old: "to := s.revisions[s.stable()]", new: "to := s.revisions[newest.Number-1]"},
		{breaks: "rollout", file: inCore + "rollout.go", why: "the progress deadline runs on while a node is not heard",
			old: "p.at.IsZero() || blind || p.blind || counted > p.most", new: "p.at.IsZero() || counted > p.most"},
		{breaks: "rollout", file: inCore + "rollout.go", why: "autoRollback: false is not heeded",
			old: " && (auto == nil || *auto) {", new: " && (auto == nil || true) {"},
		{breaks: "rollout", file: inCore + "rollout.go", why: "a rollout is complete with the last slot still to come",
			old: "case plan.Counted >= plan.Slots && ", new: "case plan.Counted+1 >= plan.Slots && "},
		{breaks: "rollout", file: inCore + "rollout.go", why: "the first end of a container gives its revision up",
			old: "f.hopeless(c.budgets.RolloutEnds, ", new: "f.hopeless(1, "},
		{breaks: "I1", file: inCore + "plan.go", why: "a rollout that a new leader found is not looked at when all nodes are known",
			old: "c.blocked[s.key] = true // nothing is concluded", new: "_ = s // nothing is concluded"},
		{breaks: "ports", file: inCore + "ports.go", why: "ports of the revision that a rollout may have to go back to are given away",
			old: "if n := o.stable(); n != 0 && ", new: "if n := o.stable(); n < 0 && "},

		// Global services.
		{breaks: "global", file: inReconciler + "seated.go", why: "what is new on a node does not wait until what was there is gone",
			old: "if s.Closed || len(s.there()) > 0 ||", new: "if s.Closed || len(s.liveThere()) > 0 ||"},
		{breaks: "I4", file: inReconciler + "seated.go", why: "a rollout on all nodes takes one more than may be missing",
			old: "case available <= floor:", new: "case available < floor:"},

		// The order within a replica.
		{breaks: "order", file: inPlan + "stage.go", why: "an init container that has started counts as done",
			old: "		return x.done\n	}\n	return x.state == running && x.begun", new: "		return x.done || x.state == running\n	}\n	return x.state == running && x.begun"},
		{breaks: "order", file: inPlan + "stage.go", why: "sidecars end with the containers that they serve",
			old: "	if x.kind != sidecarRun {\n		return true\n	}\n", new: "	if x.kind != initRun {\n		return true\n	}\n"},
	}
}
