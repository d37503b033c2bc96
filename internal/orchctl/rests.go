package orchctl

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
)

// settleFor is how long the replicas are waited for that belong to a rollout's end:
// they are told on another stream than the service. What is otherwise after it is no
// matter of the rollout any more.
const settleFor = time.Second

// settle notes since when the rollout is complete, and tells whether it has settled.
func (x *track) settle(now time.Time) bool {
	if st := x.service.Status; x.rollsOut && x.completeFrom.IsZero() && st.Revision == x.target && st.Rollout.State == api.RolloutComplete {
		x.completeFrom = now
	}
	x.settled = !x.completeFrom.IsZero() && now.Sub(x.completeFrom) >= settleFor
	return x.settled
}

// staying is what the controller says of a replica of a node that takes nothing new.
var staying = regexp.MustCompile(`^(\S+-[0-9]+)(?:@[0-9]+)? (stays at revision [0-9]+: (\S+) takes nothing new)$`)

// stays tells what keeps its revision for good, by replica.
func stays(s *api.Service) map[string]string {
	out := map[string]string{}
	for _, reason := range s.Status.Reasons {
		if m := staying.FindStringSubmatch(reason); m != nil {
			out[m[1]] = cleanText(m[1] + " on " + m[3] + " " + m[2])
		}
	}
	return out
}

// rests gives the slots to which nothing comes though they are not ready with the
// newest revision, and why in a word: a node that takes nothing new keeps what it has,
// and what ended may be not to be started again.
func (x *track) rests() map[int]string {
	st, again := x.service.Status, x.service.Spec.RestartPolicy.Condition
	mayEnd := again == api.RestartNever || again == api.RestartOnFailure
	stay := stays(x.service)
	if len(stay) == 0 && !mayEnd { // mostly so, and asked with each sighting
		return nil
	}
	out, live := map[int]string{}, map[int]bool{}
	for _, r := range x.replicas {
		live[r.Spec.Slot] = live[r.Spec.Slot] || x.counts(r)
	}
	for _, r := range x.replicas {
		switch _, said := stay[r.Metadata.Name]; {
		case live[r.Spec.Slot]:
		case said && r.Spec.Revision < st.Revision && r.Status.Phase.Before(api.PhaseStopping):
			out[r.Spec.Slot] = fmt.Sprintf("stays at revision %d", r.Spec.Revision)
		case mayEnd && x.endedForGood(r):
			out[r.Spec.Slot] = "ended"
		}
	}
	return out
}

// endedForGood tells whether a replica of a revision that was rolled out has ended.
func (x *track) endedForGood(r *api.Replica) bool {
	st := x.service.Status
	return st.Rollout.State == api.RolloutComplete && r.Spec.Revision == st.Revision && r.Status.Phase.Ended() && (x.global() || r.Spec.Slot < x.service.Spec.Want())
}

// behind tells what a rollout that is complete left as it was, and what has ended since.
func (x *track) behind() []string {
	stay, rests := stays(x.service), x.rests()
	var out []string
	for _, name := range slices.Sorted(maps.Keys(stay)) {
		out = append(out, stay[name])
	}
	for _, key := range slices.SortedFunc(maps.Keys(x.replicas), x.bySlot) {
		r := x.replicas[key]
		if rests[r.Spec.Slot] != "ended" || !x.endedForGood(r) {
			continue
		}
		line := fmt.Sprintf("%s on %s has ended", r.Metadata.Name, orDash(r.Spec.Node))
		for _, c := range r.Status.Containers {
			if c.LastExit != nil {
				line += fmt.Sprintf("; %s: %s", c.Name, exitText(c.LastExit))
			}
		}
		out = append(out, cleanText(line))
	}
	if len(out) == 0 && x.settled && !x.byState && !x.asWanted() {
		out = append(out, "by now: "+strings.TrimPrefix(x.summary(), fmt.Sprintf("revision %d: ", x.service.Status.Revision)))
	}
	return out
}
