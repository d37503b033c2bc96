package plan

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// What is told of a container that runs and is not ready: its readiness probe fails;
// its startup probe has not passed, or its postStart hook has not ended.
const (
	reasonNotReady = "ReadinessFailed"
	reasonStarting = "Starting"
)

// report says what changed, or everything once per session.
func (c *Core) report() {
	c.reportAt = time.Time{}
	if !c.connected || !c.whole || !c.observed {
		return // the complete report to come tells it
	}
	if c.allDue {
		if len(c.unanswered) == 0 || !c.now.Before(c.adoptUntil) {
			c.reportAll()
		}
		return
	}
	if len(c.changed) == 0 && len(c.gone) == 0 && len(c.volumes.gone) == 0 {
		return
	}
	if next := c.reported.Add(reportEvery); c.now.Before(next) {
		c.reportAt = next
		return
	}
	var rep wire.StatusReport
	for _, k := range slices.SortedFunc(maps.Keys(c.changed), compareKeys) {
		r := c.replicas[k]
		if r == nil || r.gone {
			continue
		}
		now := r.told()
		r.trace.told(now)
		if r.sent == nil || !reflect.DeepEqual(*r.sent, now) {
			r.sent = &now
			rep.Replicas = append(rep.Replicas, now)
		}
	}
	rep.Gone = slices.SortedFunc(maps.Keys(c.gone), compareKeys)
	clear(c.changed)
	clear(c.gone)
	rep.VolumesGone = c.volumesGone()
	if len(rep.Replicas) > 0 || len(rep.Gone) > 0 || len(rep.VolumesGone) > 0 {
		c.reported = c.now
		c.emit(Report{rep})
	}
}

func (c *Core) reportAll() {
	rep := wire.StatusReport{Complete: true, Taken: c.ack.AssignmentSequence, Orphans: c.orphans(), VolumesGone: c.volumesGone()}
	for _, k := range c.sortedKeys() {
		r := c.replicas[k]
		if r.gone {
			c.gone[k] = true
			continue
		}
		now := r.told()
		r.trace.told(now)
		r.sent = &now
		rep.Replicas = append(rep.Replicas, now)
	}
	rep.Gone = slices.SortedFunc(maps.Keys(c.gone), compareKeys)
	clear(c.changed)
	clear(c.gone)
	c.allDue, c.reported = false, c.now
	c.emit(Report{rep})
}

// orphans are containers of another incarnation.
func (c *Core) orphans() []string {
	var ids []string
	for id, o := range c.strays {
		if o.Incarnation != c.incarnation {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// told is what the leader is to know of a replica. Its Containers are those that run as
// long as it does, and before them the init container that is its turn: one that has
// done its work has ended well, and an Exited container tells the leader that its
// replica has not.
func (r *replica) told() wire.Report {
	s := api.ReplicaStatus{Phase: r.phase, IP: r.net.IP, StartedAt: r.startedAt}
	s.Ready = r.phase == api.PhaseRunning && !r.going
	for _, x := range r.runs {
		cs := x.told()
		s.Restarts += cs.Restarts
		if x.kind == initRun && (x.done || x.stage != r.stage) {
			continue
		}
		s.Ready = s.Ready && cs.Ready
		if s.Reason == "" && x.tells(cs.Reason) {
			s.Reason, s.Message = cs.Reason, cs.Message
			switch {
			case x.kind == initRun:
				s.Message = x.title() + ": " + cs.Message
			case len(r.runs) > 1 && cs.Message != "":
				s.Message = cs.Name + ": " + cs.Message
			}
		}
		s.Containers = append(s.Containers, cs)
	}
	if x := r.current(); x != nil && s.Reason == "" && !r.going && !r.phase.Ended() {
		s.Reason, s.Message = api.ReasonInitializing, x.does()
	}
	if f := r.net.retry.failure; f != nil {
		s.Reason, s.Message = f.Reason, f.Message
	}
	for _, l := range r.leftovers {
		if f := l.retry.failure; f != nil {
			s.Reason, s.Message = f.Reason, f.Message
		}
	}
	if len(r.runs) == 0 && !r.going {
		s.Reason, s.Message = api.ReasonCreateError, "assigned without containers"
	}
	if r.going && s.Reason == "" {
		s.Message = r.why
	}
	return wire.Report{Key: r.key, Revision: r.revision, Status: s, Images: r.found()}
}

func (x *run) told() api.ContainerStatus {
	cs := api.ContainerStatus{Name: x.spec.Name, ID: x.id, State: api.ContainerWaiting, Ready: x.ready(), Restarts: x.attempt,
		StartedAt: x.startedAt, ImageID: x.imageID}
	if x.lastExit != nil {
		e := *x.lastExit
		cs.LastExit = &e
	}
	switch {
	case x.lives() || x.state == stopped:
		cs.State = api.ContainerRunning
		cs.Reason, cs.Message = x.unready()
	case x.final || (x.r.going && (x.state == ended || x.lastExit != nil)):
		cs.State = api.ContainerExited
		if x.lastExit != nil { // else it was stopped, and nobody told how it ended
			cs.Reason, cs.Message = x.lastExit.Reason, x.lastExit.Message
		}
	case x.image != nil && x.image.retry.failure != nil && x.pulling == "":
		cs.Reason, cs.Message = x.image.retry.failure.Reason, x.image.retry.failure.Message
	case x.pulling != "":
		cs.Reason, cs.Message = api.ReasonPulling, x.pulling
	case x.stage > x.r.stage && x.lastExit == nil:
		cs.Reason = api.ReasonInitializing
		if y := x.r.current(); y != nil {
			cs.Message = "waits for " + y.title()
		}
	case x.lastExit == nil && x.waitsForLease():
		cs.Reason, cs.Message = api.ReasonNoLease, "waits for the leader to give it a lease"
	case x.lastExit != nil:
		cs.Reason, cs.Message = x.lastExit.Reason, x.lastExit.Message
		wait := x.nextStart.Sub(x.endedAt)
		if wait >= backOffMin && (x.state == ended || x.state == absent) {
			cs.Reason = api.ReasonBackOff
			cs.Message = fmt.Sprintf("restarts %s after its end (%s)", wait.Round(time.Millisecond), join(x.lastExit.Reason, x.lastExit.Message))
		}
	}
	if x.r.lost != "" && !x.final && x.stage <= x.r.stage {
		cs.Reason, cs.Message = api.ReasonLeaseLost, x.r.lost
	}
	if f := x.failing.failure; f != nil {
		cs.Reason, cs.Message = f.Reason, f.Message
	}
	return cs
}

// tells tells whether a container's reason is its replica's, too: not what a stage is
// usually waited for with, not that sidecars were stopped because all is over, and of what
// failed not that a part of it ended well.
func (x *run) tells(reason string) bool {
	switch {
	case reason == "" || reason == api.ReasonInitializing:
		return false
	case x.r.over() && x.r.phase == api.PhaseFailed && x.good:
		return false
	case x.r.over():
		return x.kind == mainRun || x.stage == x.r.stage
	}
	return reason != reasonStarting || x.stage != x.r.stage || x.kind == mainRun
}

// unready says in words why a container that runs is not ready; empty: nothing that
// was told yet keeps it.
func (x *run) unready() (reason, message string) {
	switch {
	case x.sick != "":
		return x.sickAs, x.sick
	case x.kind == initRun:
		return api.ReasonInitializing, "runs"
	case x.r.going:
	case x.hook == hookRuns:
		return reasonStarting, "its postStart hook runs"
	case x.startup.message != "":
		return reasonStarting, "startup probe: " + x.startup.message
	case x.readiness.message != "":
		return reasonNotReady, x.readiness.message
	}
	return "", ""
}
