package sim

import (
	"time"

	"github.com/orchctl/orch/agent/plan"
)

type probeID struct {
	container string
	kind      plan.ProbeKind
}

type probing struct {
	spec  plan.StartProbe
	first bool // no success yet
}

func (a *agent) startProbe(e plan.StartProbe) {
	p := &probing{spec: e, first: true}
	a.probes[probeID{e.ContainerID, e.Kind}] = p
	a.try(p, e.First)
}

// try probes once after a while, and again after that. Tries in the settled
// world are made less often: nothing is to be learnt from them.
func (a *agent) try(p *probing, in time.Duration) {
	id := probeID{p.spec.ContainerID, p.spec.Kind}
	a.after(in, true, func() {
		if a.probes[id] != p {
			return
		}
		ok := a.h.runtime.probe(id)
		p.first = p.first && !ok
		next := p.spec.Interval
		if p.first {
			next = p.spec.Until
		}
		a.step(plan.Probed{ContainerID: id.container, Kind: id.kind, OK: ok, Message: "no answer"})
		a.try(p, next)
	})
}
