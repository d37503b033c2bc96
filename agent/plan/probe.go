package plan

import (
	"fmt"
	"time"

	"github.com/orchctl/orch/api"
)

// probe is what the tries of one probe of the present container add up to.
type probe struct {
	on      bool
	ready   bool // readiness only
	okRow   int
	failRow int
	first   bool // no success yet
	message string
}

func (x *run) specOf(kind ProbeKind) *api.Probe {
	if kind == Readiness {
		return x.spec.ReadinessProbe
	}
	return x.spec.LivenessProbe
}

func (x *run) probeOf(kind ProbeKind) *probe {
	if kind == Readiness {
		return &x.readiness
	}
	return &x.liveness
}

// startProbes begins afresh: nothing is known of a container before it was asked.
func (c *Core) startProbes(x *run) {
	for _, kind := range []ProbeKind{Readiness, Liveness} {
		spec := x.specOf(kind)
		if spec == nil {
			continue
		}
		*x.probeOf(kind) = probe{on: true, first: true}
		e := StartProbe{ContainerID: x.id, Kind: kind, Probe: *spec, IP: x.r.net.IP, Timeout: spec.Timeout.Or(api.DefaultProbeTimeout),
			Interval: spec.Interval.Or(slowProbe), Until: spec.Interval.Or(slowProbe), Why: "its container runs"}
		switch {
		case spec.HTTP != nil:
			e.Port, _ = spec.HTTP.Port.Resolve(x.spec.Ports)
		case spec.TCP != nil:
			e.Port, _ = spec.TCP.Port.Resolve(x.spec.Ports)
		}
		switch {
		case kind == Readiness:
			e.Until = spec.Interval.Or(fastProbe)
			e.Soon = e.Until
			if spec.Interval == nil && spec.Exec == nil {
				e.Soon = soonProbe
			}
			e.First = spec.InitialDelay.Or(0)
		default:
			// The first moments of a process are no evidence that it is sick.
			e.First = spec.InitialDelay.Or(e.Interval)
		}
		if x.adopted {
			e.First, e.Why = 0, "its container is adopted"
			if kind == Readiness {
				c.unanswered[x.id] = true
			}
		}
		c.emit(e)
	}
}

func (c *Core) stopProbes(x *run) {
	delete(c.unanswered, x.id)
	for _, kind := range []ProbeKind{Readiness, Liveness} {
		if p := x.probeOf(kind); p.on {
			*p = probe{}
			c.emit(StopProbe{ContainerID: x.id, Kind: kind})
		}
	}
}

func (c *Core) probed(ev Probed) {
	x := c.byID[ev.ContainerID]
	if x == nil || x.state != running {
		return
	}
	p, spec := x.probeOf(ev.Kind), x.specOf(ev.Kind)
	if !p.on || spec == nil {
		return
	}
	if ev.Kind == Readiness {
		delete(c.unanswered, x.id)
	}
	if ev.OK {
		p.okRow, p.failRow, p.message = p.okRow+1, 0, ""
		need := max(1, orDefault(spec.SuccessThreshold, api.DefaultProbeSuccessThreshold))
		if x.adopted && p.first {
			need = 1 // it was well before the agent came back
		}
		if !p.ready && p.okRow >= need {
			p.ready, p.first = true, false
			c.mark(x.r)
		}
		return
	}
	p.okRow, p.failRow = 0, p.failRow+1
	if p.failRow < max(1, orDefault(spec.FailureThreshold, api.DefaultProbeFailureThreshold)) {
		return
	}
	if ev.Kind == Liveness {
		if x.sick == "" {
			x.sick = fmt.Sprintf("liveness probe failed %s: %s", times(p.failRow), ev.Message)
			c.mark(x.r)
		}
		return
	}
	if p.ready || p.message == "" {
		p.ready, p.message = false, "readiness probe: "+ev.Message
		c.mark(x.r)
	}
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func orDefault(n, def int) int {
	if n == 0 {
		return def
	}
	return n
}

// ready tells whether the container should get traffic.
func (x *run) ready() bool {
	if x.state != running || x.r.going || x.sick != "" || x.r.lost != "" || x.lapsed != "" {
		return false
	}
	return x.spec.ReadinessProbe == nil || x.readiness.ready
}

// backOffMin is the shortest wait that is told as a back-off.
const backOffMin = 100 * time.Millisecond
