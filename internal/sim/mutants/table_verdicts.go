package main

const inLiveness = "internal/liveness/"

// verdicts are mistakes of the verdict machine.
func verdicts() []mutation {
	return []mutation{
		{breaks: "I5", file: inLiveness + "ask.go", why: "the first confirmed silence kills, not a minute of it",
			old: "n.verdict == Suspect && m.lasts(n.silentSince, m.limits.DeadAfter) && ", new: "n.verdict == Suspect && "},
		{breaks: "I5", file: inLiveness + "ask.go", why: "silence kills though many vanished at once",
			old: "len(n.silentBy) > 0 && m.mayDie()", new: "len(n.silentBy) > 0"},
		{breaks: "I5", file: inLiveness + "ask.go", why: "the leader's word alone kills",
			old: "len(n.silentBy) > 0 && m.mayDie()", new: "m.mayDie()", test: "./internal/liveness"},
		{breaks: "I5", file: inLiveness + "ask.go", why: "a node whose host and replicas answer is suspect",
			old: "return r.HostAnswers && (r.PortsAsked == 0 || r.PortsAnswered > 0)", new: "return false"},
		{breaks: "I5", file: inLiveness + "freeze.go", why: "verdicts freeze one node too late",
			old: "if len(f.falls) <= most {", new: "if len(f.falls) <= most+1 {"},
		{breaks: "I5", file: inLiveness + "freeze.go", why: "a freeze lifts as soon as witnesses agree, not after some time",
			old: "case m.lasts(f.agreed, l.FreezeConfirm):", new: "case !f.agreed.IsZero():"},
		{breaks: "I5", file: inLiveness + "freeze.go", why: "the leader's own looks lift a freeze, without a witness",
			old: "case len(n.silentBy) == 0:", new: "case false:", test: "./internal/liveness"},
		{breaks: "I5", file: inLiveness + "machine.go", why: "another boot id is taken for the same life",
			old: "if oldBoot != \"\" && oldBoot != ev.BootID {", new: "if false {"},
		{breaks: "I5", file: inLiveness + "machine.go", why: "a dead node that comes back is healthy at once: its void replicas are not settled",
			old: "\t\tm.setVerdict(n, Back, cause{why: fmt.Sprintf(\"session opened in the same life, was %s\", was), by: said})\n", new: "\t\tm.setVerdict(n, Healthy, cause{why: fmt.Sprintf(\"session opened in the same life, was %s\", was), by: said})\n"},
		{breaks: "I5", file: inLiveness + "machine.go", why: "the leader's own stalls count against the nodes",
			old: "\t\tpast(&n.heard)\n", new: "", test: "./internal/liveness"},
		{breaks: "I1", file: inLiveness + "machine.go", why: "beats do not bring a node back",
			old: "\tif missing {\n\t\tm.setVerdict(n, Back", new: "\tif false {\n\t\tm.setVerdict(n, Back"},
		{breaks: "I3", file: inLiveness + "machine.go", why: "a node that flaps is never damped",
			old: "\t\tm.returned(n)\n", new: ""},
		{breaks: "I3", file: inLiveness + "damp.go", why: "penalties do not add up",
			old: "f.penalty*math.Exp2(-halvings)+1", new: "math.Exp2(-halvings)+1"},
		{breaks: "I1", file: inLiveness + "wake.go", why: "a damping never ends",
			old: "if damped := n.flaps.until; !damped.IsZero() && (", new: "if damped := n.flaps.until; false && ("},
		{breaks: "I3", file: inLiveness + "impaired.go", why: "a failing self-check impairs nobody",
			old: "if stale || failing || pressed {", new: "if pressed {"},
		{breaks: "I1", file: inLiveness + "impaired.go", why: "an impaired node never works again",
			old: "if m.lasts(h.good, l.SelfCheckGood) {", new: "if false {"},
		{breaks: "I1", file: inLiveness + "ask.go", why: "a host that answers keeps its dead agent healthy: nobody ever looks for its replicas",
			old: "\tc.by = by\n\tm.setVerdict(n, AgentLost, c)\n", new: "\tc.by = by\n"},
	}
}
