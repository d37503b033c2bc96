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

// reasonNotReady is told of a container that runs while its readiness probe fails.
const reasonNotReady = "ReadinessFailed"

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
	if len(c.changed) == 0 && len(c.gone) == 0 {
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
		if now := r.told(); r.sent == nil || !reflect.DeepEqual(*r.sent, now) {
			r.sent = &now
			rep.Replicas = append(rep.Replicas, now)
		}
	}
	rep.Gone = slices.SortedFunc(maps.Keys(c.gone), compareKeys)
	clear(c.changed)
	clear(c.gone)
	if len(rep.Replicas) > 0 || len(rep.Gone) > 0 {
		c.reported = c.now
		c.emit(Report{rep})
	}
}

func (c *Core) reportAll() {
	rep := wire.StatusReport{Complete: true, Taken: c.ack.AssignmentSequence, Orphans: c.orphans()}
	for _, k := range c.sortedKeys() {
		r := c.replicas[k]
		if r.gone {
			c.gone[k] = true
			continue
		}
		now := r.told()
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

// told is what the leader is to know of a replica.
func (r *replica) told() wire.Report {
	s := api.ReplicaStatus{Phase: r.phase, IP: r.net.IP, StartedAt: r.startedAt}
	s.Ready = r.phase == api.PhaseRunning && !r.going
	for _, x := range r.runs {
		cs := x.told()
		s.Restarts += cs.Restarts
		s.Ready = s.Ready && cs.Ready
		if s.Reason == "" && cs.Reason != "" {
			s.Reason, s.Message = cs.Reason, cs.Message
			if len(r.runs) > 1 && cs.Message != "" {
				s.Message = cs.Name + ": " + cs.Message
			}
		}
		s.Containers = append(s.Containers, cs)
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
	return wire.Report{Key: r.key, Revision: r.revision, Status: s}
}

func (x *run) told() api.ContainerStatus {
	cs := api.ContainerStatus{Name: x.spec.Name, ID: x.id, State: api.ContainerWaiting, Ready: x.ready(), Restarts: x.attempt,
		StartedAt: x.startedAt, ImageID: x.imageID}
	if x.lastExit != nil {
		e := *x.lastExit
		cs.LastExit = &e
	}
	switch {
	case x.state == running || x.state == stopping || x.state == stopped:
		cs.State = api.ContainerRunning
		if x.readiness.message != "" {
			cs.Reason, cs.Message = reasonNotReady, x.readiness.message
		}
		if x.sick != "" {
			cs.Reason, cs.Message = api.ExitLivenessFailed, x.sick
		}
	case x.final || (x.r.going && (x.state == ended || x.lastExit != nil)):
		cs.State = api.ContainerExited
		if x.lastExit != nil { // else it was stopped, and nobody told how it ended
			cs.Reason, cs.Message = x.lastExit.Reason, x.lastExit.Message
		}
	case x.image != nil && x.image.retry.failure != nil && x.pulling == "":
		cs.Reason, cs.Message = x.image.retry.failure.Reason, x.image.retry.failure.Message
	case x.pulling != "":
		cs.Reason, cs.Message = api.ReasonPulling, x.pulling
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
	if x.r.lost != "" && !x.final {
		cs.Reason, cs.Message = api.ReasonLeaseLost, x.r.lost
	}
	if f := x.failing.failure; f != nil {
		cs.Reason, cs.Message = f.Reason, f.Message
	}
	return cs
}
