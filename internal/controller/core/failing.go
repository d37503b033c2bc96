package core

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
)

// What speaks against a revision is only what its own replicas do where nothing else
// can be blamed for it: on a node that is heard, works and is not just back. That a
// node dies, or its agent, never does, nor what was done while neither was heard, nor
// that a lease ended.
//
// Until one replica of the revision has counted (was ready for MinReady), each that ends
// again and again speaks against it: that it was ready for a moment in between says
// nothing, for what has no readiness probe always is. From then on the revision can
// work: then it takes that one ends again and again and none of the others runs well,
// which a bad node would not explain; else the rollout fails by its deadline alone.

// outputLinesMax of what a failed container wrote last are told: the error is there,
// mostly, and a person reads no more of it in a status.
const outputLinesMax = 10

// evidence is why a rollout is hopeless, in one line, with what was written last.
type evidence struct {
	why    string
	output string
}

// String gives both: "web-2 on n1 ended 3 times: exit code 1; last output:\n...".
func (e evidence) String() string {
	if e.output == "" {
		return e.why
	}
	return e.why + "; last output:\n" + e.output
}

// line gives both in one line, with the last of the output.
func (e evidence) line() string {
	if e.output == "" {
		return e.why
	}
	lines := strings.Split(e.output, "\n")
	return fmt.Sprintf("%s; last output: %s", e.why, lines[len(lines)-1])
}

// note keeps what a report says that later ones may not.
func (f *filling) note(unseen bool, now time.Time) {
	if unseen || leaseEnded(f.status) { // what it did unseen may have been after it counted, or the node's doing
		f.endsBefore = map[string]int{}
		for _, ct := range f.status.Containers {
			f.endsBefore[ct.Name] = endsOf(ct)
		}
	}
	f.wasReady = f.wasReady || f.status.Ready
	switch {
	case unstartable(f.status) == nil && !pulls(f.status):
		f.unstartableSince = time.Time{}
	case unstartable(f.status) != nil && f.unstartableSince.IsZero():
		f.unstartableSince = now
	}
}

// leaseEnded tells whether a container was ended by its lease's end, and not by itself.
func leaseEnded(s api.ReplicaStatus) bool {
	return slices.ContainsFunc(s.Containers, func(ct api.ContainerStatus) bool {
		return ct.LastExit != nil && ct.LastExit.Reason == api.ReasonLeaseLost
	})
}

// noteCounted keeps that a replica was ready for as long as makes it count; it is asked
// before anything ends that.
func (c *Core) noteCounted(s *service, f *filling) {
	f.counted = f.counted || f.status.Ready && !f.readySince.IsZero() && c.now.Sub(f.readySince) >= s.obj.Spec.MinReady()
}

// carry keeps how often a replica of the newest revision ended that is taken out, for
// the next one in its slot.
func (c *Core) carry(s *service, f *filling) {
	if f.job || s.runs(f) != s.obj.Status.Revision || !f.reported || c.verdictOf(f) != api.VerdictHealthy || f.status.Ready {
		return
	}
	n := f.inRow
	for _, ct := range f.status.Containers { // a restart is told only once it begins
		if x := ct.LastExit; x != nil && ct.State != api.ContainerRunning && x.Reason != api.ExitCompleted && x.Reason != api.ReasonLeaseLost {
			n = max(n, 1)
		}
	}
	if n += f.carried; n == 0 {
		return
	}
	if s.progress.ended == nil {
		s.progress.ended = map[int]int{}
	}
	s.progress.ended[f.key.Slot] = n
}

// anyWell tells whether a replica of the newest revision counted, serves, and has not
// ended again and again: that speaks for the revision.
func (c *Core) anyWell(s *service) bool {
	return slices.ContainsFunc(s.fillings, func(f *filling) bool {
		return !f.stopping && !f.void && f.counted && f.status.Ready && (f.inRow+f.carried == 0 || c.ranWell(f)) && s.runs(f) == s.obj.Status.Revision
	})
}

// pulls tells whether an image is being pulled, perhaps once more: what was said of it
// before may well be said again.
func pulls(s api.ReplicaStatus) bool {
	return slices.ContainsFunc(s.Containers, func(ct api.ContainerStatus) bool {
		return ct.State == api.ContainerWaiting && (ct.Reason == api.ReasonPulling || ct.Reason == "")
	})
}

// endsOf counts how often a container has ended.
func endsOf(ct api.ContainerStatus) int {
	if ct.State == api.ContainerExited && ct.LastExit != nil {
		return ct.Restarts + 1
	}
	return ct.Restarts
}

// unstartable gives a container that cannot even be started: its image is nowhere to be
// had, its command or its user is not in there, its node refuses a mount. nil: there is
// none. An image that cannot be had for another reason, such as a registry that does
// not answer, says nothing about the revision.
func unstartable(s api.ReplicaStatus) *api.ContainerStatus {
	for i, ct := range s.Containers {
		if ct.State != api.ContainerWaiting {
			continue
		}
		switch {
		case ct.Reason == api.ReasonImageMissing, ct.Reason == api.ReasonBindRefused,
			ct.Reason == api.ReasonImageError && strings.Contains(strings.ToLower(ct.Message), "not found"),
			ct.LastExit != nil && ct.LastExit.Reason == api.ExitStartFailed:
			return &s.Containers[i]
		}
	}
	return nil
}

// hopeless tells what speaks against the filling's revision, and from when on it does;
// zero: nothing. Whether the filling is to be asked at all is the caller's.
func (f *filling) hopeless(ends int, patience time.Duration, now time.Time) (evidence, time.Time) {
	if f.counted {
		return evidence{}, time.Time{}
	}
	never := "ever being ready"
	if f.wasReady {
		never = "being ready for long enough to count"
	}
	where := fmt.Sprintf("%s on %s", f.key.Name(), f.node)
	over := endedFirst(f.status)
	for i, ct := range f.status.Containers {
		n := endsOf(ct) - f.endsBefore[ct.Name]
		failed := f.status.Phase == api.PhaseFailed && i == over && ct.LastExit.Reason != api.ExitCompleted
		if n < ends && !failed {
			continue
		}
		who := where
		if len(f.status.Containers) > 1 {
			who = fmt.Sprintf("container %s of %s", ct.Name, where)
		}
		e := evidence{why: fmt.Sprintf("%s ended %d times without %s", who, n, never)}
		if failed && n < ends {
			e.why = who + " failed and is not started again"
		}
		if x := ct.LastExit; x != nil {
			e.why, e.output = e.why+": "+orElse(x.Message, x.Reason), lastLines(x.Output)
		}
		return e, now
	}
	if f.wasReady {
		return evidence{}, time.Time{}
	}
	if ct := unstartable(f.status); ct != nil && !f.unstartableSince.IsZero() {
		reason, message := ct.Reason, ct.Message
		if x := ct.LastExit; x != nil && x.Reason == api.ExitStartFailed {
			reason, message = x.Reason, x.Message
		}
		return evidence{why: fmt.Sprintf("%s: %s", where, joinWords(reason, message))}, f.unstartableSince.Add(patience)
	}
	return evidence{}, time.Time{}
}

// endedFirst is the container with whose end a replica's began: the others were told to
// follow it. -1: none has ended.
func endedFirst(s api.ReplicaStatus) int {
	first := -1
	for i, ct := range s.Containers {
		if ct.State == api.ContainerExited && ct.LastExit != nil &&
			(first < 0 || ct.LastExit.FinishedAt.Before(s.Containers[first].LastExit.FinishedAt)) {
			first = i
		}
	}
	return first
}

// endsAgain says of a replica that counted that it ends again and again.
func (f *filling) endsAgain() evidence {
	e := evidence{why: fmt.Sprintf("%s on %s ended %d times in a row, and no other replica of the revision runs well", f.key.Name(), f.node, f.inRow+f.carried)}
	for _, ct := range f.status.Containers {
		if x := ct.LastExit; x != nil && x.Reason != api.ExitCompleted {
			e.why, e.output = e.why+": "+orElse(x.Message, x.Reason), lastLines(x.Output)
			break
		}
	}
	return e
}

// lastLines gives the last of what was written.
func lastLines(output string) string {
	lines := strings.Split(strings.TrimRight(output, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-outputLinesMax):], "\n")
}
