package orchctl

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
)

const (
	// fateEvery and fateTries bound how often the record of a revision is asked for that
	// another took the place of: a controller that lags behind may not have its end yet.
	fateEvery = 300 * time.Millisecond
	fateTries = 5
)

// fate is how the rollout of a track's revision ended otherwise than well.
type fate struct {
	// failed says in words how it failed; empty: it did not.
	failed string
	// held: it waits for an operator's word, and there is no sense in waiting with it.
	held bool

	record *api.Revision // of the target, after another took its place
	asked  time.Time
	tries  int
	told   bool // that it was rolled back
}

// replaced tells whether another revision took the target's place.
func (x *track) replaced() bool {
	return x.target > 0 && x.service.Status.Revision > x.target && !x.gone
}

// judge looks whether the rollout has failed, or is held. It tells of a rollback as soon
// as it begins, and ends the track when that is over.
func (w *waiting) judge(ctx context.Context, x *track, now time.Time) error {
	st := x.service.Status
	switch {
	case x.fate.failed != "" || x.gone:
		return nil
	case x.replaced():
		return w.judgeReplaced(ctx, x, now)
	case x.target == 0:
		return nil
	case st.Rollout.State == api.RolloutFailed && x.stale(st.Rollout):
	case st.Rollout.State == api.RolloutFailed:
		x.fate.failed = fmt.Sprintf("service/%s revision %d could not be rolled out: %s", x.label, st.Revision, whyText(st.Rollout.Why))
	default:
		x.fate.held = endlessPause(x.service) && !x.byState && !x.stale(st.Rollout)
	}
	return nil
}

// stale tells whether a rollout that was told to go on is seen as it was before: the
// word makes no new revision that would tell, and who is asked may lag behind the leader.
// A failure is as old as its end, by the leader's own clock.
func (x *track) stale(r api.RolloutStatus) bool {
	if x.outcome != resumed {
		return false
	}
	if r.State == api.RolloutFailed && !x.resumedAt.IsZero() && r.EndedAt.Before(x.resumedAt) {
		return true
	}
	p := x.prior
	if p == nil || p.PausedBy == "" && p.State != api.RolloutPaused && p.State != api.RolloutFailed {
		return false // it did not know either what the word ended
	}
	return p.State == r.State && p.Step == r.Step && p.PausedBy == r.PausedBy && p.EndedAt.Equal(r.EndedAt)
}

func (w *waiting) judgeReplaced(ctx context.Context, x *track, now time.Time) error {
	f := &x.fate
	if f.record == nil || !over(f.record) {
		if f.tries > 0 && now.Sub(f.asked) < fateEvery {
			return nil
		}
		f.asked = now
		f.tries++
		r, err := w.t.revision(ctx, w.client, x.key, x.target)
		if err != nil && !notFound(err) {
			return err
		}
		f.record = r
		if (r == nil || !over(r)) && f.tries < fateTries {
			return nil
		}
	}
	label, st := "service/"+x.label, x.service.Status
	r := f.record
	switch {
	case r != nil && r.Rollout.State == api.RolloutComplete: // and then somebody else came
		x.target = 0
	case r == nil || r.Rollout.State != api.RolloutRolledBack:
		f.failed = fmt.Sprintf("%s: revision %d took the place of revision %d before that was rolled out", label, st.Revision, x.target)
	case st.Revision > x.target+1, st.Rollout.State == api.RolloutComplete, st.Rollout.State == api.RolloutFailed, st.Rollout.State == "":
		f.failed = rolledBack(label, r, x.service)
		if st.Revision == x.target+1 && st.Rollout.State == api.RolloutFailed {
			f.failed += fmt.Sprintf("\nthe rollback failed, too: %s", whyText(st.Rollout.Why))
		}
	case !f.told && w.screen == nil:
		f.told = true
		return w.t.printf("%s: rolled back from revision %d to revision %d's template: %s\n", x.label, x.target, r.Rollout.From, firstLine(r.Rollout.Why))
	}
	return nil
}

// over tells whether a revision's rollout has ended.
func over(r *api.Revision) bool {
	switch r.Rollout.State {
	case "", api.RolloutProgressing, api.RolloutPaused:
		return false
	}
	return true
}

// firstLine gives a reason without what a container wrote, which comes behind it.
func firstLine(s string) string {
	line, _, more := strings.Cut(s, "\n")
	if more {
		line = strings.TrimSuffix(strings.TrimSpace(line), "; last output:")
	}
	return cleanText(line)
}

// stateLine tells where a rollout is, "" where there is nothing to tell: its step and
// its pauses, beside the replicas that are counted anyway.
func (x *track) stateLine(now time.Time) string {
	st := x.service.Status
	switch {
	case !x.rolls && !x.byState || st.Revision != x.target:
		return ""
	case st.Rollout.State == api.RolloutPaused:
		return fmt.Sprintf("revision %d is %s", st.Revision, pauseText(x.service, now))
	case st.Rollout.State == api.RolloutProgressing && stepText(x.service) != "":
		return fmt.Sprintf("revision %d comes to %s", st.Revision, stepText(x.service))
	case st.Rollout.State == api.RolloutProgressing && st.Rollout.From > 0:
		return fmt.Sprintf("revision %d takes the place of revision %d", st.Revision, st.Rollout.From)
	}
	return ""
}
