package orchctl

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/orchctl/orch/api"
)

// jobTrack is one job on its way to its end, as seen from here.
type jobTrack struct {
	key            api.Key
	label, outcome string
	uid            string
	version        int64 // the object's resource version after the change
	job            *api.Job
	replicas       map[string]*api.Replica

	began     time.Time
	committed time.Duration // since began
	endedAt   time.Time     // here; zero: it has not ended
	already   bool          // ended before anything was done
	gone      bool
	told      bool
	shown     string
	shownAt   time.Time
	standing  standing
}

func newJobTrack(j *api.Job, outcome string, began, committed time.Time) *jobTrack {
	x := &jobTrack{key: j.Metadata.Key(), outcome: outcome, uid: j.Metadata.UID, version: j.Metadata.ResourceVersion, job: j,
		replicas: map[string]*api.Replica{}, began: began, committed: committed.Sub(began), standing: newStanding()}
	x.clock(committed)
	return x
}

// see takes in one sighting.
func (x *jobTrack) see(s sighting, now time.Time) {
	switch v := s.o.value.(type) {
	case *api.Job:
		switch {
		case v.Metadata.Key() != x.key:
		case s.news == gone:
			x.gone = x.gone || v.Metadata.UID == x.uid
		case v.Metadata.UID != x.uid:
			x.gone = x.gone || v.Metadata.CreatedAt.After(x.job.Metadata.CreatedAt)
		case v.Metadata.ResourceVersion >= x.version && !(x.ended() && !v.Status.Ended()):
			x.job = v
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
	}
	x.clock(now)
}

func (x *jobTrack) clock(now time.Time) {
	if x.ended() && x.endedAt.IsZero() {
		x.endedAt = now
	}
}

// ended tells whether nothing more comes of the job.
func (x *jobTrack) ended() bool { return x.job.Status.Ended() }

// failure says in words why the job failed, with what it wrote last; "" if it did not.
func (x *jobTrack) failure() string {
	if x.job.Status.State != api.JobFailed {
		return ""
	}
	if x.already {
		return fmt.Sprintf("job/%s %s; it had failed before, and does not begin anew unless it is deleted: %s", x.label, x.outcome, whyText(x.job.Status.Why))
	}
	return fmt.Sprintf("job/%s failed: %s", x.label, whyText(x.job.Status.Why))
}

func (x *jobTrack) tell() { x.told = true }

// conclusion is the last line: "job/migrate created; 5/5 done in 12.4s".
func (x *jobTrack) conclusion(time.Time) string {
	line := fmt.Sprintf("job/%s %s; %d/%d done", x.label, x.outcome, x.job.Status.Succeeded, x.job.Spec.Want())
	if n := x.job.Status.Failed; n > 0 {
		line += fmt.Sprintf(", %s failed", count(n, "try"))
	}
	if x.already {
		return line
	}
	return fmt.Sprintf("%s in %s", line, short(max(x.endedAt.Sub(x.began), x.committed)))
}

// summary tells how far the job is: "2/5 done, 1 pulling, 2 run, 1 try failed".
func (x *jobTrack) summary() string {
	parts, doing := []string{fmt.Sprintf("%d/%d done", x.job.Status.Succeeded, x.job.Spec.Want())}, map[string]int{}
	for _, r := range x.replicas {
		if w := jobProgress(r); w != "" {
			doing[w]++
		}
	}
	for _, w := range slices.SortedFunc(maps.Keys(doing), compareProgress) {
		parts = append(parts, fmt.Sprintf("%d %s", doing[w], w))
	}
	if n := x.job.Status.Failed; n > 0 {
		parts = append(parts, count(n, "try")+" failed")
	}
	return strings.Join(parts, ", ")
}

// jobProgress says what a job's replica does; "" where it has ended or is stopped.
func jobProgress(r *api.Replica) string {
	switch {
	case !r.Status.Phase.Before(api.PhaseStopping):
		return ""
	case r.Status.Phase == api.PhaseRunning && r.Status.LastKnown:
		return "not heard of"
	case r.Status.Phase == api.PhaseRunning && trouble(r) == "":
		return "run"
	}
	if w := progressWord(r); w != "" {
		return w
	}
	return "run"
}

// news are lines that tell what changed since the last time.
func (x *jobTrack) news(now time.Time) []string {
	if x.ended() {
		return nil
	}
	var out []string
	if s := x.summary(); s != x.shown && now.Sub(x.shownAt) >= now.Sub(x.began)/sparse {
		x.shown, x.shownAt = s, now
		out = append(out, s)
	}
	for _, reason := range x.standing.news(x.reasons(), now) {
		out = append(out, cleanText(reason))
	}
	return out
}

// reasons are what the controller says, and of replicas that run with a command that reads
// its input how that begins.
func (x *jobTrack) reasons() []string {
	out, text := slices.Clone(x.job.Status.Reasons), inputReason(x.job)
	if text == "" {
		return out
	}
	for _, key := range slices.Sorted(maps.Keys(x.replicas)) {
		if r := x.replicas[key]; jobProgress(r) == "run" && r.Status.Phase == api.PhaseRunning {
			out = append(out, r.Metadata.Name+": "+text)
		}
	}
	return out
}

// block gives the job's lines on a screen: how far it is, and the replicas that do not
// run yet, with what each waits for.
func (x *jobTrack) block(now time.Time) []string {
	switch {
	case x.failure() != "":
		return []string{"✘ " + firstLine(x.failure())}
	case x.ended():
		return []string{fmt.Sprintf("✔ %s  %s", x.label, x.summary())}
	}
	lines := []string{fmt.Sprintf("• %s  %s  %s", x.label, now.Sub(x.began).Truncate(showEvery), x.summary())}
	var rows [][]string
	var names []string
	for _, key := range slices.Sorted(maps.Keys(x.replicas)) {
		r := x.replicas[key]
		if w := jobProgress(r); w == "" || w == "run" || len(rows) == rowsShownMax {
			continue
		}
		names = append(names, r.Metadata.Name)
		rows = append(rows, []string{r.Metadata.Name, orDash(r.Spec.Node), phaseWord(r), cleanText(replicaReason(r))})
	}
	t := newTable("", "", "", "")
	for _, row := range rows {
		for i, cell := range row {
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		lines = append(lines, "    "+t.line(row))
	}
	reasons := notAbout(foldReasons(x.reasons()), names)
	for i, r := range reasons {
		if i == reasonsShownMax {
			return append(lines, fmt.Sprintf("    and %d more", len(reasons)-i))
		}
		lines = append(lines, "    "+cleanText(r))
	}
	return lines
}
