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
	told    time.Time // when message was noted
	// countAt is when the next failure counts: a probe that is asked more often than
	// its interval says, until its first success, fails no earlier for that.
	countAt time.Time
}

var probeKinds = []ProbeKind{Readiness, Liveness, Startup}

func (x *run) specOf(kind ProbeKind) *api.Probe {
	if x.kind == initRun {
		return nil // it is to end
	}
	if h := x.health; h != nil {
		return h.as(kind)
	}
	switch kind {
	case Readiness:
		return x.spec.ReadinessProbe
	case Liveness:
		return x.spec.LivenessProbe
	}
	return x.spec.StartupProbe
}

// healthOf gives the image's own check, where the manifest has no probe. A job has none:
// it is no server, whatever its image is made for, and would be ended as if it had failed.
func (x *run) healthOf(o Container) *Healthcheck {
	if x.r.job || x.spec.ReadinessProbe != nil || x.spec.LivenessProbe != nil || x.spec.StartupProbe != nil {
		return nil
	}
	return o.Healthcheck
}

// as gives the check as one of the three probes. As a startup probe its failures
// within the start period do not count.
func (h *Healthcheck) as(kind ProbeKind) *api.Probe {
	p := h.Probe
	if kind != Startup {
		return &p
	}
	if h.StartPeriod <= 0 {
		return nil
	}
	every := p.Interval.Or(slowProbe)
	p.FailureThreshold = orDefault(p.FailureThreshold, api.DefaultProbeFailureThreshold) + int((h.StartPeriod+every-1)/every)
	return &p
}

func (x *run) probeOf(kind ProbeKind) *probe {
	switch kind {
	case Readiness:
		return &x.readiness
	case Liveness:
		return &x.liveness
	}
	return &x.startup
}

// startProbes begins afresh: nothing is known of a container before it was asked. The
// startup probe is asked alone.
func (c *Core) startProbes(x *run) {
	if x.specOf(Startup) != nil {
		c.startProbe(x, Startup)
		return
	}
	x.begun = true
	c.mark(x.r)
	c.startProbe(x, Readiness)
	c.startProbe(x, Liveness)
}

func (c *Core) startProbe(x *run, kind ProbeKind) {
	spec := x.specOf(kind)
	if spec == nil {
		return
	}
	e := StartProbe{ContainerID: x.id, Kind: kind, Probe: *spec, IP: x.r.net.IP, Timeout: spec.Timeout.Or(api.DefaultProbeTimeout),
		Interval: spec.Interval.Or(slowProbe), Why: "its container runs"}
	e.Soon, e.Until = x.pace(kind, e.Interval)
	var port api.PortRef
	switch {
	case spec.HTTP != nil:
		port = spec.HTTP.Port
	case spec.TCP != nil:
		port = spec.TCP.Port
	case spec.GRPC != nil:
		port = spec.GRPC.Port
	}
	e.Port, _ = port.Resolve(x.spec.Ports)
	delay := time.Duration(0)
	if kind == Liveness {
		delay = e.Interval // the first moments of a process are no evidence that it is sick
	}
	if d := spec.InitialDelay.Or(delay); d > 0 {
		e.First = d
		if spec.InitialDelay != nil { // it counts from the container's start
			e.First = min(max(0, d-c.now.Sub(x.startedAt)), d)
		}
	}
	if x.adopted {
		e.First, e.Why = 0, "its container is adopted"
		if kind != Liveness {
			c.unanswered[x.id] = true
		}
	}
	*x.probeOf(kind) = probe{on: true, first: true, countAt: c.now.Add(e.First)}
	c.emit(e)
}

// pace gives the intervals of a probe until its first success. Those that decide when
// a container is of use are asked often, unless they say how often: a failover waits
// for them.
func (x *run) pace(kind ProbeKind, interval time.Duration) (soon, until time.Duration) {
	spec := x.specOf(kind)
	until = interval
	switch {
	case kind == Liveness:
	case x.health != nil:
		until = min(interval, healthProbe)
	case spec.Interval != nil:
	case spec.Exec == nil:
		return soonProbe, min(interval, fastProbe)
	case kind == Readiness:
		until = min(interval, fastProbe)
	}
	return until, until
}

func (c *Core) stopProbes(x *run) {
	delete(c.unanswered, x.id)
	for _, kind := range probeKinds {
		c.stopProbe(x, kind)
	}
}

func (c *Core) stopProbe(x *run, kind ProbeKind) {
	if p := x.probeOf(kind); p.on {
		*p = probe{}
		c.emit(StopProbe{ContainerID: x.id, Kind: kind})
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
	if ev.Kind == Readiness || !ev.OK {
		delete(c.unanswered, x.id)
	}
	if ev.OK {
		c.probeOK(x, ev.Kind, p, spec)
		return
	}
	c.probeFailed(x, ev, p, spec)
}

func (c *Core) probeOK(x *run, kind ProbeKind, p *probe, spec *api.Probe) {
	p.okRow, p.failRow, p.message = p.okRow+1, 0, ""
	need := max(1, orDefault(spec.SuccessThreshold, api.DefaultProbeSuccessThreshold))
	if x.adopted && p.first {
		need = 1 // it was well before the agent came back
	}
	if p.ready || p.okRow < need {
		return
	}
	c.mark(x.r)
	if kind != Startup {
		p.ready, p.first = true, false
		return
	}
	c.stopProbe(x, Startup)
	delete(c.unanswered, x.id)
	x.begun = true
	c.startProbe(x, Readiness)
	c.startProbe(x, Liveness)
}

func (c *Core) probeFailed(x *run, ev Probed, p *probe, spec *api.Probe) {
	p.okRow = 0
	if ev.Kind == Startup {
		c.startupFailed(x, ev, p, spec)
		return
	}
	p.failRow++
	if p.failRow < max(1, orDefault(spec.FailureThreshold, api.DefaultProbeFailureThreshold)) {
		return
	}
	if ev.Kind == Liveness {
		c.sicken(x, api.ExitLivenessFailed, fmt.Sprintf("liveness probe failed %s: %s", times(p.failRow), ev.Message))
		return
	}
	message := "readiness probe: " + ev.Message
	if p.ready || p.message == "" || p.message != message && c.now.Sub(p.told) >= answerEvery {
		p.ready, p.message, p.told = false, message, c.now
		c.mark(x.r)
	}
}

// startupFailed counts a failure of the startup probe, if it is due to count.
func (c *Core) startupFailed(x *run, ev Probed, p *probe, spec *api.Probe) {
	if p.message != ev.Message {
		p.message = ev.Message
		c.mark(x.r)
	}
	interval := spec.Interval.Or(slowProbe)
	if _, until := x.pace(Startup, interval); until < interval {
		if c.now.Before(p.countAt) {
			return
		}
		p.countAt = p.countAt.Add(interval)
	}
	p.failRow++
	if p.failRow >= max(1, orDefault(spec.FailureThreshold, api.DefaultProbeFailureThreshold)) {
		c.sicken(x, api.ExitStartupFailed, fmt.Sprintf("startup probe failed %s: %s", times(p.failRow), ev.Message))
	}
}

// sicken asks for a restart of the container; the first reason counts.
func (c *Core) sicken(x *run, as, why string) {
	if x.sick == "" {
		x.sick, x.sickAs = why, as
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
	if x.kind == initRun || x.state != running || x.r.going || x.sick != "" || x.r.lost != "" || x.lapsed != "" || !x.begun {
		return false
	}
	return x.specOf(Readiness) == nil || x.readiness.ready
}

// backOffMin is the shortest wait that is told as a back-off.
const backOffMin = 100 * time.Millisecond
