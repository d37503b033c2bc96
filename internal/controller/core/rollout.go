package core

import (
	"fmt"
	"slices"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/store"
	"github.com/orchctl/orch/reconciler"
)

// The rollout of a service's newest revision goes through states that are kept with
// the service: a leader that follows goes on where the one before was. What it does
// not know is when one more replica counted last, so the clock of the progress
// deadline begins anew with it: a leader's end is no evidence against a revision.
//
//	          ┌── step reached ──► Paused ──┐
//	Progressing ◄──── pause ends, resumed ──┘
//	  │  │ └────────── every slot counts ──► Complete
//	  │  └── failing, nothing to go back to ──► Failed
//	  └── failing ──► RolledBack, and a new revision that repeats the last good one

// progress is what this leader knows of a rollout and does not keep.
type progress struct {
	at    time.Time // one more slot counted than ever, or the clock was set back; zero: not looked yet
	most  int       // slots that ever counted
	blind bool      // a replica could not be heard when last looked
	able  bool      // one of the revision counted
	// ended counts by slot the ends in a row of replicas of the revision that were taken
	// out again since they did not serve: what follows there is no better.
	ended map[int]int
	// spent of the deadline before the canary's step was reached: what loses it again
	// and again does not begin anew each time.
	spent time.Duration
}

// bound has a plan go as far as the rollout is let.
func (c *Core) bound(s *service, v *reconciler.View) {
	newest, spec, st := s.newest(), s.obj.Spec.Rollout, s.obj.Status.Rollout
	v.Recreate, v.MinReady = spec.Strategy == api.StrategyRecreate, s.obj.Spec.MinReady()
	if n := s.stable(); n != 0 {
		switch x := s.revisions[n]; {
		case x.root() == newest.root():
			v.Stable = newest.Number
		case len(x.volumes) > 0 && len(newest.volumes) == 0: // nothing goes back to nodes that slots are being freed from
		case x.Template.Exclusive == newest.Template.Exclusive: // else a slot would need fences that it does not have
			v.Stable = n
		}
	}
	switch st.State {
	case "", api.RolloutComplete:
		return
	}
	if st.PausedBy != "" || st.State == api.RolloutFailed {
		v.Held, v.AtMost = true, s.reached()
	}
	if n, ok := s.canary(v.Replicas); ok && (!v.Held || n < v.AtMost) {
		v.Held, v.AtMost = true, n
	}
	if n := s.beginsIn(); s.beginsAlone() && !v.Recreate && (!v.Held || v.AtMost > n) { // what recreates empties its slots first in any case
		v.Held, v.AtMost = true, n
	}
}

// reached counts the slots that have the newest revision, or will.
func (s *service) reached() int {
	slots := map[int]bool{}
	for _, f := range s.fillings {
		if !f.stopping && !f.void && s.wants(f.key.Slot) && s.runs(f) == s.obj.Status.Revision {
			slots[f.key.Slot] = true
		}
	}
	return len(slots)
}

// canary is how many of n slots the canary's step may come to; false: none is under way.
func (s *service) canary(n int) (int, bool) {
	steps, step := s.obj.Spec.Rollout.Canary, s.obj.Status.Rollout.Step
	if step < 1 || step > len(steps) {
		return 0, false
	}
	return min(n, steps[step-1].Replicas.Of(n, true)), true
}

// planRollout plans the service, taking its rollout as far as it goes now.
func (c *Core) planRollout(s *service) reconciler.Decision {
	plan := reconciler.Plan(c.viewOf(s), c.now)
	for range planRounds {
		if !c.advance(s, plan) {
			break
		}
		plan = reconciler.Plan(c.viewOf(s), c.now)
	}
	return plan
}

// planRounds bounds how often a service is planned at once: a canary without pauses
// takes two rounds a step.
const planRounds = 2*api.MaxCanarySteps + 2

// advance takes the rollout further by what was just planned, and tells whether the
// service is to be planned anew. It costs the service's fillings, as planning does.
func (c *Core) advance(s *service, plan reconciler.Decision) bool {
	st := &s.obj.Status.Rollout
	if s.deleting() || len(c.unknown) > 0 {
		return false // of nodes that are still unknown nothing is to be concluded
	}
	if st.State == api.RolloutComplete {
		return c.tryAtLast(s, plan)
	}
	c.clock(s, plan.Counted)
	switch {
	case plan.Slots == 0 && st.State == api.RolloutFailed && s.seated():
		return false // its nodes are away for a while: that mends nothing
	case plan.Counted >= plan.Slots && !s.progress.blind:
		c.complete(s, plan.Slots == 0)
		return true
	case st.PausedBy != "" || st.State == api.RolloutFailed || st.State == "":
		return false
	case c.step(s, plan):
		return true
	case st.State != api.RolloutProgressing || s.progress.blind:
		return false
	}
	if e, failed := c.failing(s); failed {
		c.fail(s, e)
		return true
	}
	return false
}

// clock keeps the progress deadline's clock: it goes only while everything of the
// service is heard.
func (c *Core) clock(s *service, counted int) {
	p := &s.progress
	blind := c.blind(s)
	if p.at.IsZero() || blind || p.blind || counted > p.most {
		p.at, p.spent = c.now, 0
	}
	p.blind, p.most = blind, max(p.most, counted)
	p.able = p.able || counted > 0
	for _, f := range s.fillings {
		if s.runs(f) == s.obj.Status.Revision {
			c.noteCounted(s, f)
			p.able = p.able || f.counted
		}
	}
}

// blind tells whether some replica of the service cannot be heard, or has no node for
// want of nodes that are heard.
func (c *Core) blind(s *service) bool {
	if len(s.refused) > 0 && c.missesNodes() {
		return true
	}
	return slices.ContainsFunc(s.fillings, func(f *filling) bool {
		return !f.stopping && (f.void || !c.heard(f) || !c.nodes[f.node].reported)
	})
}

// missesNodes tells whether a node may be back soon, or none is there. One that is dead
// is not waited for as long as there are others, nor one that has been suspect for
// missedMax.
func (c *Core) missesNodes() bool {
	well := false
	for _, n := range c.nodes {
		switch n.verdict {
		case api.VerdictUnknown, api.VerdictBack:
			return true
		case api.VerdictSuspect:
			if c.now.Sub(n.since) < missedMax {
				return true
			}
		}
		well = well || n.heard()
	}
	return !well
}

// missedMax is how long a suspect node counts as about to be back: what is silent for a
// minute is dead, mostly. One whose host answers, and nothing on it, stays suspect.
const missedMax = time.Minute

// blindLook is when a rollout that cannot be judged is looked at again: what ends that
// may be a node that has nothing of the service.
const blindLook = 5 * time.Second

// complete: every slot has the revision. If there is none, that proves nothing: the
// service has all it wants, but its revision is not one that was rolled out well.
func (c *Core) complete(s *service, untried bool) {
	st := &s.obj.Status.Rollout
	legacy := st.State == "" // written by a version that knew no rollouts
	st.State, st.EndedAt, st.Why, st.Step, st.StepAt = api.RolloutComplete, c.now, "", 0, time.Time{}
	if untried {
		c.putRollout(s)
		return
	}
	c.endRollout(s)
	if !legacy {
		c.tellRollout(s, api.EventNormal, "RolloutComplete", fmt.Sprintf("revision %d in %s", s.obj.Status.Revision, brief(c.now.Sub(st.StartedAt))))
	}
}

// tryAtLast begins the rollout anew of a revision that nothing was wanted of when it
// was complete, and now is.
func (c *Core) tryAtLast(s *service, plan reconciler.Decision) bool {
	if plan.Slots == 0 || done(s.newest().Rollout.State) {
		return false
	}
	st := &s.obj.Status.Rollout
	st.State, st.StartedAt, st.EndedAt = api.RolloutProgressing, c.now, time.Time{}
	if st.PausedBy != "" {
		st.State = api.RolloutPaused
	}
	s.progress = progress{}
	c.putRollout(s)
	return true
}

// step takes the canary further and tells whether it did.
func (c *Core) step(s *service, plan reconciler.Decision) bool {
	st, steps := &s.obj.Status.Rollout, s.obj.Spec.Rollout.Canary
	if st.Step == 0 {
		return false
	}
	want, ok := s.canary(plan.Slots)
	if !ok { // the steps were taken out of the manifest
		c.nextStep(s, 0)
		return true
	}
	pause := steps[st.Step-1].Pause
	switch {
	case st.StepAt.IsZero() && plan.Counted >= want:
		st.State, st.StepAt = api.RolloutPaused, c.now
		s.progress.spent = c.now.Sub(later(s.progress.at, c.reliefs.stalledAt))
		c.putRollout(s)
		c.tellRollout(s, api.EventNormal, "CanaryStep", fmt.Sprintf("step %d of %d: %d of %d replicas have revision %d; %s",
			st.Step, len(steps), want, plan.Slots, s.obj.Status.Revision, s.pauseWords()))
		return true
	case !st.StepAt.IsZero() && !s.progress.blind && s.readyOfNewest() < want:
		// It is no canary any more that something could be learnt from.
		st.State, st.StepAt, s.progress.at = api.RolloutProgressing, time.Time{}, c.now.Add(-s.progress.spent)
		c.putRollout(s)
		return true
	case !st.StepAt.IsZero() && pause != nil && plan.Counted >= want && !st.StepAt.Add(pause.Or(0)).After(c.now):
		c.nextStep(s, st.Step+1)
		return true
	}
	return false
}

// nextStep has the canary go on with a step; 0 or beyond the last: with all.
func (c *Core) nextStep(s *service, step int) {
	st := &s.obj.Status.Rollout
	if step > len(s.obj.Spec.Rollout.Canary) {
		step = 0
	}
	st.State, st.Step, st.StepAt = api.RolloutProgressing, step, time.Time{}
	s.progress.at = c.now
	c.putRollout(s)
}

// readyOfNewest counts slots in which the newest revision is ready, however long.
func (s *service) readyOfNewest() int {
	slots := map[int]bool{}
	for _, f := range s.fillings {
		if !f.stopping && !f.void && f.status.Ready && s.wants(f.key.Slot) && s.runs(f) == s.obj.Status.Revision {
			slots[f.key.Slot] = true
		}
	}
	return len(slots)
}

// failing tells whether the rollout has failed, and why.
func (c *Core) failing(s *service) (evidence, bool) {
	if e, at := c.hopeless(s); !at.IsZero() && !at.After(c.now) {
		return e, true
	}
	if at := c.deadline(s); at.After(c.now) {
		return evidence{}, false
	}
	e := c.stuck(s)
	e.why = fmt.Sprintf("no progress for %s: %s", brief(s.obj.Spec.Rollout.ProgressDeadline.Or(api.DefaultProgressDeadline)), e.why)
	return e, true
}

// deadline is when the rollout has failed unless one more slot counts before.
func (c *Core) deadline(s *service) time.Time {
	return later(s.progress.at, c.reliefs.stalledAt).Add(s.obj.Spec.Rollout.ProgressDeadline.Or(api.DefaultProgressDeadline))
}

// hopeless gives the first evidence against the newest revision, and from when on it
// holds; zero: there is none.
func (c *Core) hopeless(s *service) (evidence, time.Time) {
	var first evidence
	var at time.Time
	able := s.progress.able
	if able && c.anyWell(s) {
		return first, at
	}
	for _, f := range s.fillings {
		n := c.nodes[f.node]
		if f.stopping || f.void || !f.reported || s.runs(f) != s.obj.Status.Revision || n.verdict != api.VerdictHealthy || n.impaired != "" || n.damped() {
			continue
		}
		if able {
			if f.inRow+f.carried >= c.budgets.RolloutEnds && f.inRow > 0 && !c.ranWell(f) {
				return f.endsAgain(), c.now
			}
			continue
		}
		e, from := f.hopeless(c.budgets.RolloutEnds, c.budgets.RolloutImage, c.now)
		if !from.IsZero() && (at.IsZero() || from.Before(at)) {
			first, at = e, from
		}
	}
	return first, at
}

// stuck says what the rollout waits for.
func (c *Core) stuck(s *service) evidence {
	for _, f := range s.fillings {
		if f.stopping || f.status.Ready || s.runs(f) != s.obj.Status.Revision {
			continue
		}
		for _, ct := range f.status.Containers {
			if ct.Reason == "" {
				continue
			}
			e := evidence{why: fmt.Sprintf("%s on %s: %s", f.key.Name(), f.node, joinWords(ct.Reason, ct.Message))}
			if ct.LastExit != nil {
				e.output = lastLines(ct.LastExit.Output)
			}
			return e
		}
		if own := f.status.OwnReason(); own != "" {
			return evidence{why: fmt.Sprintf("%s on %s: %s", f.key.Name(), f.node, joinWords(own, f.status.Message))}
		}
	}
	if reasons := c.reasons(s); len(reasons) > 0 {
		return evidence{why: reasons[0]}
	}
	return evidence{why: "nothing says what is missing"}
}

// fail ends a rollout that failed. If it can, the service goes back to the last
// revision that was rolled out well.
func (c *Core) fail(s *service, e evidence) {
	newest := s.newest()
	to := s.revisions[s.stable()]
	auto := s.obj.Spec.Rollout.AutoRollback
	if to != nil && !same(to, newest) && (auto == nil || *auto) {
		err := c.rollBack(s, to, e)
		if err == nil {
			return
		}
		e.why += fmt.Sprintf(" (and revision %d cannot be gone back to: %v)", to.Number, err)
	}
	st := &s.obj.Status.Rollout
	st.State, st.EndedAt, st.Why = api.RolloutFailed, c.now, e.String()
	c.endRollout(s)
	c.tellRollout(s, api.EventWarning, "RolloutFailed", fmt.Sprintf("revision %d: %s", newest.Number, e.line()))
}

// byItself is who makes the revisions that nobody asked for. They repeat the one that
// would be gone back to, so none is gone back from.
const byItself = "orch"

// rollBack makes a new revision that repeats one that was rolled out well.
func (c *Core) rollBack(s *service, to *revision, e evidence) error {
	failed := s.obj.Status.Revision
	next := s.copy()
	next.repeat(to, byItself, fmt.Sprintf("rollback from revision %d: %s", failed, e.why), api.RolloutRolledBack, e.String(), c.now)
	if err := c.portConflicts([]*service{next}); err != nil {
		return err
	}
	// All at once may be too large. How the failed one went comes first: a leader that
	// finds no more than that judges it again.
	ops := next.ops()
	c.write(ops[2:]...)
	c.write(ops[:2]...)
	*s = *next // whoever plans holds it
	c.revised(s)
	c.tellRollout(s, api.EventWarning, "RolledBack", fmt.Sprintf("from revision %d to the template of revision %d (revision %d): %s", failed, to.Number, s.obj.Status.Revision, e.line()))
	return nil
}

// repeat goes back to a revision in a copy.
func (s *service) repeat(to *revision, by, cause string, ended api.RolloutState, why string, now time.Time) {
	s.obj.Spec.Template = to.Template
	s.obj.Metadata.Generation++
	s.obj.Metadata.ResourceVersion++
	s.revise(api.Revision{Template: to.Template, Images: to.Images, Configs: to.Configs, SameAs: to.root(), By: by, Cause: cause}, ended, why, now)
}

// endRollout writes how the newest revision went.
func (c *Core) endRollout(s *service) {
	s.newest().Rollout = s.obj.Status.Rollout
	s.newest().Rollout.PausedBy = "" // that is the service's, and outlasts it
	c.write(store.Put(serviceKey(s.key), object(api.KindService, &s.obj)), store.Put(revisionKey(s.key, s.obj.Status.Revision), object(api.KindRevision, &s.newest().Revision)))
	c.rolled(s)
}

// putRollout writes a rollout that goes on.
func (c *Core) putRollout(s *service) {
	c.write(store.Put(serviceKey(s.key), object(api.KindService, &s.obj)))
	c.rolled(s)
}

// rolled has what changed shown and planned for.
func (c *Core) rolled(s *service) {
	c.view.touchRevision(s.key, s.obj.Status.Revision)
	c.view.touch(s)
	c.markDirty(s)
}

func (c *Core) tellRollout(s *service, typ, reason, message string) {
	c.event(s.key.Namespace, api.KindService, s.key.Name, typ, reason, message)
}

// rolloutWake is when the rollout is to be looked at though nothing changed; zero: never.
func (c *Core) rolloutWake(s *service) time.Time {
	st, p := s.obj.Status.Rollout, s.progress
	switch {
	case st.PausedBy != "" || p.at.IsZero() || s.deleting() || len(c.unknown) > 0:
		return time.Time{} // of the unknown ones the service is told when none is left
	case st.State == api.RolloutPaused && st.Step > 0 && st.Step <= len(s.obj.Spec.Rollout.Canary):
		if pause := s.obj.Spec.Rollout.Canary[st.Step-1].Pause; pause != nil && !st.StepAt.IsZero() && st.StepAt.Add(pause.Or(0)).After(c.now) {
			return st.StepAt.Add(pause.Or(0))
		}
	case st.State == api.RolloutProgressing && p.blind:
		return c.now.Add(blindLook)
	case st.State == api.RolloutProgressing:
		_, at := c.hopeless(s)
		return earliest(at, c.deadline(s))
	}
	return time.Time{}
}

// publicRollout is the rollout as users see it: with what it waits for.
func (c *Core) publicRollout(s *service, reasons []string) api.RolloutStatus {
	st := s.obj.Status.Rollout
	switch {
	case st.State == api.RolloutPaused && st.PausedBy != "":
		st.Why = "paused by " + st.PausedBy
	case st.State == api.RolloutPaused:
		st.Why = fmt.Sprintf("canary step %d of %d: %s", st.Step, len(s.obj.Spec.Rollout.Canary), s.pauseWords())
	case st.State == api.RolloutProgressing:
		st.ProgressAt = s.progress.at
		if len(reasons) > 0 {
			st.Why = reasons[0]
		}
	}
	return st
}

// pauseWords say how long the canary's step is waited in.
func (s *service) pauseWords() string {
	st := s.obj.Status.Rollout
	if i := st.Step - 1; i >= 0 && i < len(s.obj.Spec.Rollout.Canary) {
		if pause := s.obj.Spec.Rollout.Canary[i].Pause; pause != nil {
			return "it goes on at " + st.StepAt.Add(pause.Or(0)+time.Second-1).UTC().Format("15:04:05Z")
		}
	}
	return fmt.Sprintf(`it waits for "orchctl rollout resume service/%s"`, s.key.Name)
}

// brief words how long something took.
func brief(d time.Duration) string {
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
