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
// node dies, or its agent, never does. And it speaks only until one replica of the
// revision has been ready: from then on the revision can work, and the rollout fails
// by its deadline alone.

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
func (f *filling) note(inherited bool, now time.Time) {
	if inherited { // what it did before this leader saw it may have been after it was ready
		f.endsBefore = map[string]int{}
		for _, ct := range f.status.Containers {
			f.endsBefore[ct.Name] = endsOf(ct)
		}
	}
	f.wasReady = f.wasReady || f.status.Ready
	switch {
	case withoutImage(f.status) == nil && !pulls(f.status):
		f.imagelessSince = time.Time{}
	case withoutImage(f.status) != nil && f.imagelessSince.IsZero():
		f.imagelessSince = now
	}
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

// withoutImage gives a container whose image is nowhere to be had; nil: there is none.
// An image that cannot be had for another reason, such as a registry that does not
// answer, says nothing about the revision.
func withoutImage(s api.ReplicaStatus) *api.ContainerStatus {
	for i, ct := range s.Containers {
		if ct.State != api.ContainerWaiting {
			continue
		}
		if ct.Reason == api.ReasonImageMissing || ct.Reason == api.ReasonImageError && strings.Contains(strings.ToLower(ct.Message), "not found") {
			return &s.Containers[i]
		}
	}
	return nil
}

// hopeless tells what speaks against the filling's revision, and from when on it does;
// zero: nothing. Whether the filling is to be asked at all is the caller's.
func (f *filling) hopeless(ends int, patience time.Duration, now time.Time) (evidence, time.Time) {
	if f.wasReady {
		return evidence{}, time.Time{}
	}
	where := fmt.Sprintf("%s on %s", f.key.Name(), f.node)
	for _, ct := range f.status.Containers {
		n := endsOf(ct) - f.endsBefore[ct.Name]
		failed := f.status.Phase == api.PhaseFailed && ct.State == api.ContainerExited && ct.LastExit != nil && ct.LastExit.Reason != api.ExitCompleted
		if n < ends && !failed {
			continue
		}
		who := where
		if len(f.status.Containers) > 1 {
			who = fmt.Sprintf("container %s of %s", ct.Name, where)
		}
		e := evidence{why: fmt.Sprintf("%s ended %d times without ever being ready", who, n)}
		if failed && n < ends {
			e.why = who + " failed and is not started again"
		}
		if x := ct.LastExit; x != nil {
			e.why, e.output = e.why+": "+orElse(x.Message, x.Reason), lastLines(x.Output)
		}
		return e, now
	}
	if ct := withoutImage(f.status); ct != nil && !f.imagelessSince.IsZero() {
		return evidence{why: fmt.Sprintf("%s: %s", where, joinWords(ct.Reason, ct.Message))}, f.imagelessSince.Add(patience)
	}
	return evidence{}, time.Time{}
}

// lastLines gives the last of what was written.
func lastLines(output string) string {
	lines := strings.Split(strings.TrimRight(output, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-outputLinesMax):], "\n")
}
