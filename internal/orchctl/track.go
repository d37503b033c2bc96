package orchctl

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
)

// track is one service on its way to ready, as seen from here.
type track struct {
	key            api.Key
	label, outcome string
	uid            string
	version        int64 // the object's resource version after the change
	service        *api.Service
	replicas       map[string]*api.Replica
	before         map[string]bool // replicas from before the change

	began                              time.Time
	committed, placed, firstRun, ended time.Duration // since began; 0: not seen
	readyFrom                          time.Time     // of the present stretch; zero: not ready
	already                            bool          // ready before anything was done
	gone, told                         bool
	shown, shownState                  string
	shownAt                            time.Time
	pulled                             pullSeen
	standing                           standing
	suspect                            map[string]time.Time // nodes whose verdict is waited for, and since when they are; zero: not known
	now                                time.Time            // when that was looked at

	// target is the revision that is followed, 0: whichever is the newest. rolls is
	// set where it takes the place of another, byState where the rollout's own state
	// alone says that it is done.
	target         int64
	rolls, byState bool
	// rollsOut: the rollout of the target was seen under way, so that its end is the
	// end. completeFrom is since when it is complete, zero: it is not; settled: for
	// settleFor.
	rollsOut, settled bool
	completeFrom      time.Time
	fate              fate
	prior             *api.RolloutStatus // before the change; nil: not seen, or something newer was
	resumedAt         time.Time          // by the leader's clock; zero: it did not say
}

func newTrack(s *api.Service, outcome string, began, committed time.Time, before map[string]bool) *track {
	x := &track{key: s.Metadata.Key(), outcome: outcome, uid: s.Metadata.UID, version: s.Metadata.ResourceVersion, service: s,
		replicas: map[string]*api.Replica{}, before: before, suspect: map[string]time.Time{}, began: began, committed: committed.Sub(began), standing: newStanding()}
	if outcome != "scaled" { // a number holds for every revision
		x.target = s.Status.Revision
	}
	if outcome == resumed {
		x.resumedAt = s.Status.Rollout.ProgressAt
	}
	x.noteRollout()
	return x
}

// noteRollout notes that a revision takes another one's place: the first has none to take.
func (x *track) noteRollout() {
	switch st := x.service.Status; st.Rollout.State {
	case api.RolloutProgressing, api.RolloutPaused:
		x.rollsOut = x.rollsOut || x.target > 0 && st.Revision == x.target
		x.rolls = x.rolls || x.target > 1 && st.Revision == x.target
	}
}

// see takes in one sighting.
func (x *track) see(s sighting, now time.Time) {
	switch v := s.o.value.(type) {
	case *api.Service:
		if v.Metadata.Key() != x.key {
			return
		}
		if s.news == gone {
			x.gone = x.gone || v.Metadata.UID == x.uid
			return
		}
		older := v.Metadata.UID != x.uid && v.Metadata.CreatedAt.Before(x.service.Metadata.CreatedAt) || v.Metadata.UID == x.uid && (v.Metadata.ResourceVersion < x.version || v.Status.Revision < x.service.Status.Revision)
		if !older && !x.stale(v.Status.Rollout) {
			x.prior = nil
			x.service = v
			x.gone = !v.Metadata.DeletedAt.IsZero()
			x.noteRollout()
		}
	case *api.Replica:
		if v.Metadata.Namespace != x.key.Namespace || v.Spec.Service != x.key.Name {
			return
		}
		if s.news == gone {
			delete(x.replicas, s.o.key())
		} else {
			x.replicas[s.o.key()] = v
		}
	default:
		return
	}
	x.clock(now)
}

// clock notes the phases that are reached.
func (x *track) clock(now time.Time) {
	x.settle(now)
	switch {
	case !x.isReady():
		x.readyFrom = time.Time{}
	case x.readyFrom.IsZero() && x.settled:
		x.readyFrom = x.completeFrom
	case x.readyFrom.IsZero():
		x.readyFrom = now
	}
	at := max(now.Sub(x.began), time.Nanosecond)
	placed, fresh := map[int]bool{}, false
	for key, r := range x.replicas {
		if !x.counts(r) || r.Spec.Node == "" {
			continue
		}
		placed[r.Spec.Slot] = true
		if !x.before[key] {
			fresh = true
			if r.Status.Phase == api.PhaseRunning && x.firstRun == 0 {
				x.firstRun = at
			}
		}
	}
	if x.placed == 0 && fresh && len(placed) >= wanted(x.service) {
		x.placed = at
	}
}

// counts tells whether a replica is one of those that the service is to have.
func (x *track) counts(r *api.Replica) bool {
	return r.Spec.Revision == x.service.Status.Revision && r.Status.Phase.Before(api.PhaseStopping) &&
		(x.global() || r.Spec.Slot < x.service.Spec.Want())
}

func (x *track) global() bool { return x.service.Spec.Mode == api.ModeGlobal }

// slots are those that are to be filled; a global service's belong to nodes, and may
// have gaps.
func (x *track) slots() []int {
	var out []int
	if !x.global() {
		for slot := range x.service.Spec.Want() {
			out = append(out, slot)
		}
		return out
	}
	for _, r := range x.replicas {
		if r.Status.Phase.Before(api.PhaseStopping) {
			out = append(out, r.Spec.Slot)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// ready tells whether the service is as its spec wants it: everything of the
// newest revision ready, nothing else left but spares.
func (x *track) ready(now time.Time) bool {
	if x.settle(now) && x.readyFrom.IsZero() {
		x.readyFrom = x.completeFrom
	}
	if x.ended == 0 && x.isReady() {
		x.ended = max(now.Sub(x.began), time.Nanosecond)
	}
	return x.ended > 0
}

// steadyFor is how long a service without readiness probes must stay ready before
// it counts: nothing but running made it so, and a program that fails as soon as
// it starts runs for a moment too.
const steadyFor = time.Second

// steady is isReady of which more than a moment is known.
func (x *track) steady(now time.Time) bool {
	if !x.isReady() {
		return false
	}
	probed := x.byState || !slices.ContainsFunc(x.service.Spec.LongRunning(), func(c api.Container) bool { return c.ReadinessProbe == nil })
	switch stood := now.Sub(x.readyFrom); {
	case x.service.Status.Rollout.State == api.RolloutProgressing && !x.byState && x.target > 0: // a first revision; see asWanted
		if stood < x.service.Spec.MinReady()+steadyFor {
			return false
		}
	case !probed && !x.already && stood < steadyFor:
		return false
	}
	if !x.readyFrom.IsZero() && !x.told {
		x.ended = max(x.readyFrom.Sub(x.began), time.Nanosecond)
	}
	return true
}

// isReady is ready without memory: it is false again where a replica that was
// ready failed.
func (x *track) isReady() bool {
	st, want := x.service.Status, wanted(x.service)
	switch state := st.Rollout.State; {
	case x.gone:
		return false
	case x.byState && state != "":
		return state == api.RolloutComplete
	case x.target == 0 && (state == api.RolloutPaused || state == api.RolloutFailed):
		return st.Ready >= want // the old revision serves, too
	}
	return x.settled && x.target > 0 || x.asWanted()
}

// asWanted tells whether everything of the newest revision is ready, and nothing else
// left but what rests. A first revision has nothing to take the place of: it need not
// be judged to the end.
func (x *track) asWanted() bool {
	st, rests := x.service.Status, x.rests()
	first := x.target == 1 && st.Rollout.State == api.RolloutProgressing
	switch state := st.Rollout.State; {
	case state != "" && state != api.RolloutComplete && !first, st.UpdatedReady < wanted(x.service)-len(rests), st.Updated < st.Replicas-len(rests):
		return false
	}
	ready := map[int]bool{}
	for _, r := range x.replicas {
		switch {
		case x.counts(r):
			ready[r.Spec.Slot] = ready[r.Spec.Slot] || r.Status.Ready
		case r.Status.Phase.Before(api.PhaseStopping) && !r.Spec.Spare && rests[r.Spec.Slot] == "":
			return false // one too many, not told to stop yet
		}
	}
	for _, slot := range x.slots() {
		if !ready[slot] && rests[slot] == "" {
			return false
		}
	}
	return true
}

// summary tells how far the newest revision is: "2/3 ready, 1 pulling".
func (x *track) summary() string {
	want, rests := wanted(x.service), x.rests()
	best := map[int]string{} // by slot, what its filling does; "" is ready
	for _, key := range slices.Sorted(maps.Keys(x.replicas)) {
		r := x.replicas[key]
		if !x.counts(r) {
			continue
		}
		w := progressWord(r)
		if have, ok := best[r.Spec.Slot]; !ok || (have != "" && w == "") {
			best[r.Spec.Slot] = w
		}
	}
	old, turn := 0, map[int]bool{} // what is to go, and slots that wait for it
	for _, r := range x.replicas {
		if !x.counts(r) && !r.Status.Phase.Ended() && rests[r.Spec.Slot] == "" {
			old++
			turn[r.Spec.Slot] = true
		}
	}
	ready, doing := 0, map[string]int{}
	for _, slot := range x.slots() {
		w, ok := best[slot]
		switch {
		case rests[slot] != "":
			doing[rests[slot]]++
		case !ok && turn[slot]:
		case !ok:
			doing["placing"]++
		case w == "":
			ready++
		default:
			doing[w]++
		}
	}
	parts := []string{fmt.Sprintf("%d/%d ready", ready, want)}
	for _, w := range slices.SortedFunc(maps.Keys(doing), compareProgress) {
		part := fmt.Sprintf("%d %s", doing[w], w)
		if w == "pulling" {
			part += x.pulls()
		}
		parts = append(parts, part)
	}
	if old > 0 {
		parts = append(parts, fmt.Sprintf("%d to go", old))
	}
	text := strings.Join(parts, ", ")
	if ready >= want {
		text += x.awaits()
	}
	if x.rolls { // what is ready of the revision before is not what is waited for
		return fmt.Sprintf("revision %d: %s", x.service.Status.Revision, text)
	}
	return text
}

// progressOrder is the way of a replica; other words, troubles, come after.
var progressOrder = []string{"placing", "pending", "pulling", "initializing", "starting", "not ready yet"}

func compareProgress(a, b string) int {
	rank := func(w string) int {
		if i := slices.Index(progressOrder, w); i >= 0 {
			return i
		}
		return len(progressOrder)
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a, b))
}

// progressWord says what a replica does on its way; "" where it is ready.
func progressWord(r *api.Replica) string {
	switch {
	case r.Status.Ready:
		return ""
	case r.Spec.Node == "" || r.Status.Phase == api.PhasePending:
		return "pending"
	case r.Status.Phase == api.PhaseAssigned:
		return "starting"
	}
	switch w := trouble(r); {
	case w == api.ReasonPulling:
		return "pulling"
	case w == api.ReasonInitializing:
		return "initializing"
	case ended(r) != "": // whether it waits for its restart just now tells nothing
		return "failing (" + cleanText(ended(r)) + ")"
	case w != "":
		return cleanText(w)
	case r.Status.LastKnown:
		return "not heard of"
	case r.Status.Phase == api.PhaseRunning:
		return "not ready yet"
	}
	return "starting"
}

// ended is why the run of a container ended that is to be started again; "" where none
// is.
func ended(r *api.Replica) string {
	if r.Status.Phase.Ended() {
		return ""
	}
	for _, c := range r.Status.Containers {
		if x := c.LastExit; x != nil && x.Reason != "" && (c.State == api.ContainerExited || c.State == api.ContainerWaiting && (c.Reason == api.ReasonBackOff || c.Reason == x.Reason)) {
			return x.Reason
		}
	}
	return ""
}

// reasons are what the controller says is missing.
func (x *track) reasons() []string { return x.service.Status.Reasons }

// conclusion is the last line: "service/web created; 3/3 ready in 0.84s
// (committed 12ms, placed 15ms, first running 0.5s)", with the phases that were
// seen. Of a rollout it is "service/web is rolled out: revision 3, 20 replicas in
// 12.4s", of one that is held until somebody says so where that is. Below it stands
// what is otherwise than a reader would think.
func (x *track) conclusion(now time.Time) string {
	if x.fate.held {
		return rolloutLine(x.label, x.service, now)
	}
	return strings.Join(append([]string{x.outcomeLine()}, x.behind()...), "\n  ")
}

func (x *track) failure() string { return x.fate.failed }

func (x *track) tell() { x.told = true }

func (x *track) outcomeLine() string {
	switch {
	case x.byState:
		return rolledOut(x.label, x.service, tookOf(x.service.Status.Rollout))
	case x.rolls, x.settled && !x.asWanted():
		return rolledOut(x.label, x.service, max(x.ended, x.committed))
	}
	want := wanted(x.service)
	line := fmt.Sprintf("service/%s %s; %d/%d ready", x.label, x.outcome, want-len(x.rests()), want)
	if x.already {
		return line
	}
	phases := []string{"committed " + short(x.committed)}
	if x.placed > 0 {
		phases = append(phases, "placed "+short(x.placed))
	}
	if x.firstRun > 0 {
		phases = append(phases, "first running "+short(x.firstRun))
	}
	return fmt.Sprintf("%s in %s (%s)", line, short(max(x.ended, x.committed)), strings.Join(phases, ", "))
}
