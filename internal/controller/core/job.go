package core

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/store"
	"github.com/orchctl/orch/reconciler"
)

// A job is a service with an end: its slots are indexes, its one revision never changes,
// and it has no traffic and no rollout. What fills a slot is placed, sent, stood in for
// and relieved as a service's replica is. It lies under keys of its own: the job, and an
// outcome for each index of which a try has ended.
//
// A completion is counted once. The outcome is written in the transaction that marks its
// filling as stopping; so no leader finds one without the other, what an agent says again
// of a filling that stops is not heard, and an index that has its outcome is given no
// filling any more.

// job is what a service has beside itself that is one.
type job struct {
	obj      api.Job // durable; of Status: State, Why, StartedAt and EndedAt
	outcomes map[int]*api.Outcome
	done     reconciler.Indexes
	open     map[int]bool // indexes that have failed and are not completed
	failures int
}

func newJob() *job { return &job{outcomes: map[int]*api.Outcome{}, open: map[int]bool{}} }

// count takes an outcome in the place of the one before. What is published is never
// changed: x is the job's from now on.
func (j *job) count(x *api.Outcome) {
	if old := j.outcomes[x.Index]; old != nil {
		j.failures -= old.Failures
	}
	j.outcomes[x.Index] = x
	j.failures += x.Failures
	if x.Succeeded {
		j.done.Add(x.Index)
		delete(j.open, x.Index)
	} else {
		j.open[x.Index] = true
	}
}

// ended tells whether nothing more is to come of the job.
func (j *job) ended() bool { return j.obj.Status.Ended() }

// asService is what a job has in common with services.
func (j *job) asService() api.Service {
	x := &j.obj
	n := x.Spec.Want()
	return api.Service{TypeMeta: x.TypeMeta, Metadata: x.Metadata, Status: api.ServiceStatus{Revision: 1},
		Spec: api.ServiceSpec{Replicas: &n, Priority: x.Spec.Priority, Headless: true, Template: x.Spec.Template}}
}

// jobChanged takes over into the service what changed of its job.
func (s *service) jobChanged() { s.obj = s.job.asService() }

// kind is api.KindService or api.KindJob.
func (s *service) kind() string {
	if s.job != nil {
		return api.KindJob
	}
	return api.KindService
}

// title names it in words: "service default/web", "job default/migrate".
func (s *service) title() string { return api.Ref{Kind: s.kind(), Key: s.key}.String() }

// record is the op that writes the service or job itself.
func (s *service) record() store.Op {
	if s.job != nil {
		return store.Put(jobKey(s.key), object(api.KindJob, &s.job.obj))
	}
	return store.Put(serviceKey(s.key), object(api.KindService, &s.obj))
}

func (c *Core) loadJob(key api.Key, value []byte) error {
	s := c.serviceOf(key)
	s.makeJob()
	if err := openEnvelope(value, &s.job.obj); err != nil {
		return err
	}
	s.jobChanged()
	return nil
}

func (c *Core) loadOutcome(key api.Key, value []byte) error {
	x := &api.Outcome{}
	if err := openEnvelope(value, x); err != nil {
		return err
	}
	s := c.serviceOf(key)
	s.makeJob()
	s.job.count(x)
	c.view.touchOutcome(key, x.Index)
	return nil
}

func (s *service) makeJob() {
	if s.job == nil {
		s.job = newJob()
	}
}

// prepareJob makes what a job would be after the apply, in a copy.
func (c *Core) prepareJob(want *api.Job, d *draft, ev Apply) (*service, string, error) {
	key := want.Metadata.Key()
	have := c.services[key]
	if err := have.mayBe(api.KindJob, want.Metadata); err != nil {
		return nil, "", err
	}
	m := want.Metadata
	if have == nil {
		pins, err := c.pins(api.Ref{Kind: api.KindJob, Key: key}, &want.Spec.Template, d.configs)
		if err != nil {
			return nil, "", err
		}
		next := newService(key)
		next.job = newJob()
		next.job.obj = api.Job{Metadata: api.Metadata{Name: key.Name, Namespace: key.Namespace, Labels: m.Labels, Annotations: m.Annotations,
			UID: c.newUID(ev.DryRun), CreatedAt: c.now, Generation: 1, ResourceVersion: 1}, Spec: want.Spec, Status: api.JobStatus{State: api.JobRunning}}
		next.job.obj.TypeMeta = api.TypeMeta{APIVersion: api.Version, Kind: api.KindJob}
		next.jobChanged()
		next.addRevision(&api.Revision{Service: key, UID: next.obj.Metadata.UID, Number: 1, Template: want.Spec.Template, CreatedAt: c.now, By: ev.By, Cause: "apply",
			Images: imagesOf(&want.Spec.Template, ev.Images, nil), Configs: pins})
		next.fresh = true
		return next, "created", nil
	}
	next := have.copy()
	obj := have.job.obj
	switch {
	case have.deleting():
		return nil, "", fmt.Errorf("job %s is being deleted: %w: apply again when it is gone", key, ErrBusy)
	case !sameJSON(obj.Spec.Template, want.Spec.Template):
		return nil, "", say(ErrInvalid, "job %s: a job's template cannot change: delete it first, or give it another name", key)
	case obj.Spec.Want() != want.Spec.Want():
		return nil, "", say(ErrInvalid, "job %s: a job's completions cannot change (%d to %d): delete it first, or give it another name", key, obj.Spec.Want(), want.Spec.Want())
	}
	obj.Metadata.Labels, obj.Metadata.Annotations = m.Labels, m.Annotations
	sameSpec := sameJSON(have.job.obj.Spec, want.Spec)
	if sameSpec && sameJSON(have.job.obj.Metadata, obj.Metadata) {
		return have, "unchanged", nil
	}
	if !sameSpec {
		obj.Metadata.Generation++
	}
	obj.Metadata.ResourceVersion++
	obj.Spec = want.Spec
	of := *have.job
	of.obj = obj
	next.job = &of
	next.jobChanged()
	return next, "configured", nil
}

// jobView gives the reconciler what it needs of a job. It costs what fills its indexes,
// and those that failed.
func (c *Core) jobView(s *service) reconciler.JobView {
	j := s.job
	spec := &j.obj.Spec
	v := reconciler.JobView{Job: s.key, Deleting: s.deleting(), State: j.obj.Status.State, Completions: spec.Want(), Parallelism: spec.AtOnce(), MayFail: spec.MayFail(),
		BackOff: spec.RestartPolicy.BackOff.Or(api.DefaultBackOff), MaxBackOff: spec.RestartPolicy.MaxBackOff.Or(api.DefaultMaxBackOff),
		Done: j.done, Failures: j.failures}
	v.MaxBackOff = max(v.BackOff, v.MaxBackOff)
	if s.beginsAlone() {
		v.Parallelism = min(v.Parallelism, 1)
	}
	if spec.Deadline != nil {
		v.Deadline = j.obj.Metadata.CreatedAt.Add(spec.Deadline.Or(0))
	}
	for _, i := range slices.Sorted(maps.Keys(j.open)) {
		x := j.outcomes[i]
		v.Failed = append(v.Failed, reconciler.FailedIndex{Index: i, Failures: x.Failures, At: x.Metadata.CreatedAt, Node: x.Node})
	}
	for _, f := range s.fillings {
		x := reconciler.Filling{Key: f.key, Revision: f.revision, Node: f.node, Verdict: c.verdictOf(f), Phase: f.status.Phase, Ready: f.status.Ready,
			Stopping: f.stopping, Spare: f.spare, Relieve: f.relieve}
		if f.status.Phase.Ended() {
			_, _, x.Succeeded = s.newest().howEnded(f.status)
		}
		if n := c.nodes[f.node]; n != nil {
			x.Damped, x.Overdue = n.damped(), c.overdue(n)
			if _, ails := c.ailsFrom(n); ails == "" && !f.reported {
				x.Relieve = ""
			}
		}
		if !f.reported && (x.Verdict == api.VerdictBack || x.Phase.Ended()) { // what it last said does not count; it is about to speak
			x.Phase, x.Ready, x.Succeeded = api.PhaseAssigned, false, false
		}
		v.Fillings = append(v.Fillings, x)
	}
	return v
}

// howEnded tells of a try that has ended whether it ended well, which container decided
// that, and how it did: the first of Containers, or the first that did not end well.
func (r *revision) howEnded(st api.ReplicaStatus) (container string, exit api.Exit, well bool) {
	t := &r.Template
	ends := map[string]*api.Exit{}
	for _, x := range st.Containers {
		if x.State == api.ContainerExited && x.LastExit != nil {
			ends[x.Name] = x.LastExit
		}
	}
	first := t.Containers[0].Name
	if !slices.ContainsFunc(t.Containers, func(ct api.Container) bool { return !endedWell(ends[ct.Name]) }) {
		return first, *ends[first], true // a sidecar that was stopped when they had ended did not decide it
	}
	var worst *api.Exit
	for _, ct := range t.AllContainers() {
		x := ends[ct.Name]
		if x != nil && !endedWell(x) && (worst == nil || x.FinishedAt.Before(worst.FinishedAt)) {
			container, worst = ct.Name, x
		}
	}
	if worst == nil {
		return first, api.Exit{Reason: api.ExitError, Code: codeUnknown, Message: orElse(st.Message, "nobody told how it ended")}, false
	}
	return container, *worst, false
}

// codeUnknown is the exit code of what ended without anybody seeing how.
const codeUnknown = -1

func endedWell(x *api.Exit) bool {
	return x != nil && x.Code == 0 && x.Signal == 0 && !x.OOM && (x.Reason == "" || x.Reason == api.ExitCompleted)
}

// planJob carries out what of a job needs no node, and gives what does. It is planned
// again by wake, if that is not zero.
func (c *Core) planJob(s *service, wake time.Time) []reconciler.Action {
	c.pinLate(s)
	c.settleReliefs(s)
	plan := reconciler.PlanJob(c.jobView(s), c.now)
	s.waiting, s.budgeted, s.held = plan.Waiting, nil, map[string]int{}
	if s.beginsAlone() && s.job.obj.Spec.AtOnce() > 1 {
		s.waiting = append([]string{s.pinWords()}, s.waiting...)
	}
	s.refusedBefore, s.refused = s.refused, map[int]refusal{}
	delete(c.blocked, s.key)
	delete(c.spending.short, s.key)
	for _, x := range plan.Ends {
		c.endTry(s, c.fillings[x.Key])
		if len(s.reliefs) > 0 { // what relieved it, or was relieved by it, may be over
			c.markDirty(s)
		}
	}
	c.concludeJob(s, plan)
	for _, a := range plan.Actions {
		if a.Op == reconciler.Remove {
			c.noteRemoval(s, c.fillings[a.Key], a)
		}
	}
	var creates []reconciler.Action
	for _, a := range plan.Actions {
		switch {
		case a.Op == reconciler.Create && !a.Spare && len(c.unknown) > 0: // the first agents to return would get everything
			c.blocked[s.key] = true
			s.waiting = append(s.waiting, "some nodes have not reported to this leader yet")
		case a.Op == reconciler.Create && a.Relief && c.frozen.on:
			c.blocked[s.key] = true
			s.waiting = append(s.waiting, "nothing is relieved while verdicts are frozen")
		case a.Op == reconciler.Create:
			creates = append(creates, a)
		default:
			c.carryOut(s, c.fillings[a.Key], a)
		}
	}
	s.waiting = slices.Compact(s.waiting)
	if wake = earliest(earliest(wake, plan.Wake), c.expire(s)); wake.IsZero() {
		delete(c.wakes, s.key)
	} else {
		c.wakes[s.key] = wake
	}
	return creates
}

// endTry writes how a try ended, together with the stop of its filling.
func (c *Core) endTry(s *service, f *filling) {
	container, exit, well := s.newest().howEnded(f.status)
	if well {
		exit.Output = "" // thousands of outcomes are to be small, and nobody asks why
	}
	out := &api.Outcome{TypeMeta: api.TypeMeta{APIVersion: api.Version, Kind: api.KindOutcome},
		Metadata: api.Metadata{Name: api.OutcomeName(s.key.Name, f.key.Slot), Namespace: s.key.Namespace, Labels: s.obj.Metadata.Labels, CreatedAt: c.now},
		Job:      s.key.Name, JobUID: s.obj.Metadata.UID, Index: f.key.Slot, Succeeded: well,
		Epoch: f.key.Epoch, Node: f.node, Container: container, Exit: exit, StartedAt: f.status.StartedAt}
	if old := s.job.outcomes[out.Index]; old != nil {
		out.Failures = old.Failures
	}
	if !out.Succeeded {
		out.Failures++
	}
	s.job.count(out)
	f.stopping, f.why = true, "it has ended: "+exit.Words()
	c.write(store.Put(outcomeKey(s.key, out.Index), object(api.KindOutcome, out)), store.Put(placementKey(f.key), f.record()))
	c.view.touchOutcome(s.key, out.Index)
	c.view.touchFilling(f)
	c.handOver(f)
	if out.Succeeded {
		c.event(s.key.Namespace, api.KindJob, s.key.Name, api.EventNormal, "Completed", fmt.Sprintf("index %d completed on %s", out.Index, f.node))
		return
	}
	c.event(s.key.Namespace, api.KindJob, s.key.Name, api.EventWarning, "TryFailed",
		fmt.Sprintf("index %d, %s (%d failed so far, backoffLimit is %d)", out.Index, triedOn(out).line(), s.job.failures, s.job.obj.Spec.MayFail()))
}

// triedOn says how a try failed, and where.
func triedOn(x *api.Outcome) evidence {
	e := evidence{why: fmt.Sprintf("%s-%d on %s: %s", x.Job, x.Index, x.Node, x.Exit.Words())}
	if x.Exit.Output != "" {
		e.output = lastLines(x.Exit.Output)
	}
	return e
}

// concludeJob writes that the job is over, once it is.
func (c *Core) concludeJob(s *service, plan reconciler.JobDecision) {
	st := &s.job.obj.Status
	if plan.State == st.State {
		return
	}
	st.State, st.EndedAt = plan.State, c.now
	line := fmt.Sprintf("%s in %s", count(s.job.obj.Spec.Want(), "index", "indexes"), brief(c.now.Sub(s.job.obj.Metadata.CreatedAt)))
	typ, reason := api.EventNormal, "Complete"
	if plan.State == api.JobFailed {
		typ, reason = api.EventWarning, "Failed"
		e := evidence{why: plan.Why}
		if last := s.job.lastFailed(); last != nil {
			how := triedOn(last)
			e = evidence{e.why + ": " + how.why, how.output}
		}
		st.Why, line = e.String(), e.line()
	}
	c.putJob(s)
	c.event(s.key.Namespace, api.KindJob, s.key.Name, typ, reason, line)
}

// lastFailed is the outcome of an index that failed last and was not completed since;
// nil: there is none.
func (j *job) lastFailed() *api.Outcome {
	var last *api.Outcome
	for _, i := range slices.Sorted(maps.Keys(j.open)) {
		if x := j.outcomes[i]; last == nil || x.Metadata.CreatedAt.After(last.Metadata.CreatedAt) {
			last = x
		}
	}
	return last
}

// expire begins to delete a job whose time after its end is over, and gives when that is
// to come; zero: never, or it is being deleted.
func (c *Core) expire(s *service) time.Time {
	ttl := s.job.obj.Spec.TTLAfterFinished
	if ttl == nil || !s.job.ended() || s.deleting() {
		return time.Time{}
	}
	if at := s.job.obj.Status.EndedAt.Add(ttl.Or(0)); at.After(c.now) {
		return at
	}
	*s = *s.deletedAt(c.now)
	c.putJob(s)
	c.event(s.key.Namespace, api.KindJob, s.key.Name, api.EventNormal, "Deleting", "its ttlAfterFinished has passed")
	c.markDirty(s)
	return c.now
}

// putJob writes a job to which something happened that nobody applied.
func (c *Core) putJob(s *service) {
	s.jobChanged()
	c.write(s.record())
	c.view.touch(s)
}

// begunJob notes when the first replica of a job was placed.
func (c *Core) begunJob(s *service) {
	if st := &s.job.obj.Status; st.StartedAt.IsZero() {
		st.StartedAt = c.now
		c.putJob(s)
	}
}

// forgetOutcomes deletes what a job leaves, before the job itself: those of a large one
// take several transactions, and the next leader goes on where one ends.
func (c *Core) forgetOutcomes(s *service) {
	for some := range slices.Chunk(slices.Sorted(maps.Keys(s.job.outcomes)), outcomesAtOnce) {
		var ops []store.Op
		for _, i := range some {
			ops = append(ops, store.Delete(outcomeKey(s.key, i)))
			c.view.touchOutcome(s.key, i)
		}
		c.write(ops...)
	}
}

// outcomesAtOnce are deleted in one write: fewer than any store's transaction holds.
const outcomesAtOnce = 50

// publicJob is the job as it is published.
func (c *Core) publicJob(s *service) *api.Job {
	out := s.job.obj
	st := &out.Status
	active := map[int]bool{}
	for _, f := range s.fillings {
		if !f.stopping && !f.void {
			active[f.key.Slot] = true
		}
	}
	st.Active, st.Succeeded, st.Failed = len(active), s.job.done.Count(), s.job.failures
	st.Reasons = c.reasons(s)
	return &out
}

// publishOutcomes shows what changed of jobs' outcomes.
func (c *Core) publishOutcomes() {
	for _, key := range slices.SortedFunc(maps.Keys(c.view.outcomes), compareKeys) {
		s := c.services[key]
		for _, i := range slices.Sorted(maps.Keys(c.view.outcomes[key])) {
			if s == nil || s.job == nil || s.job.outcomes[i] == nil {
				c.view.gone(outcomeViewKey(key, i))
			} else {
				c.view.put(outcomeViewKey(key, i), s.job.outcomes[i])
			}
		}
	}
	clear(c.view.outcomes)
}

func outcomeViewKey(key api.Key, index int) ViewKey {
	return ViewKey{api.KindOutcome, key.Namespace, api.OutcomeName(key.Name, index)}
}
