package main

const (
	inPlan    = "agent/plan/"
	inSession = "agent/session/"
	// bubble is a short world of the second simulator: real controllers and agents.
	bubble = "./internal/sim/bubble -test.run TestBubble"
)

// agents are mistakes of what runs on the nodes.
func agents() []mutation {
	return []mutation{
		// Leases.
		{breaks: "I6", file: inPlan + "lease.go", why: "the agent forgets that clocks drift",
			old: "sentAt + last - api.LeaseDrift(last) - api.LeaseKill", new: "sentAt + last - api.LeaseKill", test: "./agent/plan"},
		{breaks: "I6", file: inPlan + "lease.go", why: "no time is left for SIGKILL to take effect",
			old: "sentAt + last - api.LeaseDrift(last) - api.LeaseKill", new: "sentAt + last - api.LeaseDrift(last)"},
		{breaks: "I6", file: inPlan + "lease.go", why: "a leased replica starts without a lease",
			old: "return !r.leased() || r.lease.holds(c.now) }", new: "return true }", test: "./agent/plan"},
		{breaks: "I5", file: inPlan + "lease.go", why: "an older answer shortens a lease: what runs is stopped too early",
			old: "if l.Term <= r.lease.Term || !l.holds(c.now) {", new: "if !l.holds(c.now) {", test: "./agent/plan"},
		{breaks: "I5", file: inPlan + "lease.go", why: "the watchdog does not hear of renewals",
			old: "\t\tc.emit(SetLease{ContainerID: x.id, Lease: r.lease.Lease})\n", new: ""},
		{breaks: "I6", file: inPlan + "lease.go", why: "the grace is not kept free in a lease: the process is told to end when it is killed",
			old: "l.Term = l.Kill - r.grace()", new: "l.Term = l.Kill", test: "./agent/plan"},
		{breaks: "I6", file: inPlan + "lease.go", why: "leases stand still while the machine is suspended",
			old: "\t\t\tr.lease.until = r.lease.until.Add(-d)\n", new: "", test: "./agent/plan"},
		{breaks: "I6", file: "agent/lease.go", why: "a lease counts from the answer, not from the question",
			old: "plan.Granted{SentAt: s.at, Grant: g}", new: "plan.Granted{SentAt: d.cfg.BootTime(), Grant: g}", test: "./agent -test.run Lease"},
		{breaks: "I5", file: "cmd/shim/watchdog.go", why: "the watchdog never looks whether the lease was renewed",
			old: "\t\tw.read()\n", new: "", test: "./cmd/shim -test.run Watchdog"},
		{breaks: "I6", file: "cmd/shim/watchdog.go", why: "the watchdog kills once, not until nothing is left",
			old: "\tif now-w.overAt > killFor {\n\t\treturn now + lateEvery\n\t}\n\treturn now + killEvery\n", new: "\treturn 0\n", test: "./cmd/shim -test.run Watchdog"},
		{breaks: "I6", file: "agent/ctrd/lease.go", why: "a container starts under a lease that is over (a real containerd sees it)",
			old: "func (l Lease) over() bool { return boottime.Now() >= l.Term }", new: "func (l Lease) over() bool { return boottime.Now() < 0 }", test: "./agent/ctrd -test.run TestLeaseThatIsOver"},

		// What is assigned, kept and pruned.
		{breaks: "I5", file: inPlan + "assign.go", why: "an increment prunes, as if it were the whole",
			old: "\tif set.Complete {\n\t\tc.whole, c.taken, c.allDue", new: "\tif true {\n\t\tc.whole, c.taken, c.allDue"},
		{breaks: "I5", file: inPlan + "assign.go", why: "a complete set that is older than what was kept prunes",
			old: "c.mayPrune = set.StoreRevision >= c.storeRevision", new: "c.mayPrune = true", test: "./agent/plan"},
		{breaks: "I5", file: inPlan + "assign.go", why: "containers of another incarnation are pruned",
			old: "if o.Incarnation != c.incarnation && !c.orphansGo {\n\t\t\tcontinue", new: "if false {\n\t\t\tcontinue", test: "./agent/plan"},
		{breaks: "I5", file: inPlan + "core.go", why: "after a boot, what was assigned before starts without a session's word",
			old: "r.held = s.BootID != cfg.BootID", new: "r.held = false"},
		{breaks: "I5", file: inPlan + "core.go", why: "the same, after a second restart of the agent",
			old: "\t\t\ts.BootID = c.cfg.Saved.BootID\n", new: ""},
		{breaks: "I2", file: inPlan + "assign.go", why: "a gap in the increments is not noticed",
			old: "|| set.Sequence != c.sequence+1) {", new: ") {", test: "./agent/plan"},
		{breaks: "I9", file: inSession + "terms.go", why: "the agent obeys a leader whose term is over",
			old: "if term < t.seen.Term {", new: "if false {", test: "./agent/session"},
		{breaks: "I9", file: inSession + "terms.go", why: "the same, seen by the whole in virtual time",
			old: "if term < t.seen.Term {", new: "if false {", test: bubble},

		// What runs is adopted, and left alone.
		{breaks: "I5", file: inPlan + "observe.go", why: "a restarted agent does not adopt what was restarted in place before",
			old: "wanted := x != nil && o.Revision == r.revision &&", new: "wanted := x != nil && o.Revision == r.revision && o.Attempt == x.attempt &&"},
		{breaks: "I5", file: inPlan + "observe.go", why: "a listing from before a start ends what runs",
			old: "if x.op != 0 || x.changed > c.lookedAt {\n\t\treturn\n\t}\n\tx.uncertain", new: "if x.op != 0 {\n\t\treturn\n\t}\n\tx.uncertain"},
		{breaks: "I5", file: inPlan + "observe.go", why: "what an old listing does not hold counts as gone",
			old: "if seen[id] || x.op != 0 || x.changed > c.lookedAt {", new: "if seen[id] || x.op != 0 {"},
		{breaks: "I5", file: inPlan + "probe.go", why: "one failed try of a liveness probe restarts, whatever its threshold",
			old: "if p.failRow < max(1, orDefault(spec.FailureThreshold, api.DefaultProbeFailureThreshold)) {", new: "if p.failRow < 1 {"},
		{breaks: "I5", file: inPlan + "probe.go", why: "failures of a liveness probe add up over successes between them",
			old: "p.okRow, p.failRow, p.message = p.okRow+1, 0, \"\"", new: "p.okRow, p.message = p.okRow+1, \"\"", test: "./agent/plan"},
		{breaks: "I1", file: inPlan + "run.go", why: "a start that failed is not tried again",
			old: "\t\tx.failing.failed(f, c.now)\n\tcase !x.is(got)", new: "\t\tx.final = true\n\tcase !x.is(got)"},

		// What is gone, and what is told.
		{breaks: "I7", file: inPlan + "replica.go", why: "a replica counts as gone before its network is",
			old: "if r.net.state == netGone {", new: "if r.net.state != netTearingDown {"},
		{breaks: "I7", file: inPlan + "replica.go", why: "the remains of ended containers are left",
			old: "case stopped, ended:\n\t\t\tc.removeRun(x, r.why)\n", new: "case stopped, ended:\n\t\t\tc.forgetContainer(x)\n"},
		{breaks: "I7", file: inPlan + "assign.go", why: "containers that nobody wants are left",
			old: "\t\tif c.mark(r); !r.assigned {", new: "\t\tif c.mark(r); false {"},
		{breaks: "I3", file: inPlan + "replica.go", why: "a replica is gone while one of its containers is still stopping",
			old: "\t\tbusy = true\n", new: "\t\tbusy = busy || x.state != stopping\n"},
		{breaks: "I8", file: inPlan + "report.go", why: "a replica is called ready that does not answer its readiness probe",
			old: "s.Ready = s.Ready && cs.Ready", new: "_ = cs.Ready"},
	}
}
