package sim

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
)

// outcomeKey names an index of a job.
type outcomeKey struct {
	job   api.Key
	index int
}

// run is what truly became of one replica of a job, whoever was told.
type run struct {
	started map[string]bool
	ended   map[string]api.Exit
	// bad: one of its containers ended otherwise than well, by itself.
	bad bool
}

// work is what the ledger keeps of jobs.
type work struct {
	runs map[api.ReplicaKey]*run
	// succeeded are the epochs by which indexes were completed, by the job's UID; tries
	// all replicas that were ever placed for it; begun when it was created.
	succeeded map[string]map[int]uint64
	tries     map[string][]api.ReplicaKey
	begun     map[string]int64
	endedAt   map[string]int64
}

func newWork() work {
	return work{map[api.ReplicaKey]*run{}, map[string]map[int]uint64{}, map[string][]api.ReplicaKey{}, map[string]int64{}, map[string]int64{}}
}

func (g *ledger) runOf(k api.ReplicaKey) *run {
	if g.runs[k] == nil {
		g.runs[k] = &run{started: map[string]bool{}, ended: map[string]api.Exit{}}
	}
	return g.runs[k]
}

// isJob tells a replica of a job, also of one that is gone.
func (g *ledger) isJob(k api.ReplicaKey) bool { return g.runs[k] != nil }

// begins: what has begun once for a job does not begin again: it is made anew.
func (g *ledger) begins(h *host, e plan.StartContainer, c *container) {
	if !g.isJob(e.Replica) {
		return
	}
	r := g.runOf(e.Replica)
	if r.started[c.Name] {
		g.w.violate("jobs", "%s starts %s again, which was started before", h.name, c.ID)
	}
	r.started[c.Name] = true
}

// ends keeps how a container of a job came to its end.
func (g *ledger) endsRun(c *container) {
	if !g.isJob(c.Replica) {
		return
	}
	r := g.runOf(c.Replica)
	r.ended[c.Name] = *c.Exit
	if c.Exit.Code != 0 && (c.cause == "" || c.cause == api.ExitHookFailed) {
		r.bad = true
	}
}

// endedWell tells whether all that a job's replica is there for ended with code 0.
func (g *ledger) wentWell(k api.ReplicaKey) bool {
	r, t := g.runs[k], g.templates[k]
	return r != nil && t != nil && !slices.ContainsFunc(t.Containers, func(c api.Container) bool {
		exit, over := r.ended[c.Name]
		return !over || exit.Code != 0
	})
}

// badRuns counts the tries of a job that truly failed; of one index, or with -1 of all.
func (g *ledger) badRuns(uid string, index int) (n int) {
	for _, k := range g.tries[uid] {
		if (index < 0 || k.Slot == index) && g.runs[k].bad {
			n++
		}
	}
	return n
}

// decidedJobs holds what a leader decides of jobs against what is so.
func (g *ledger) decidedJobs(l *lead, after picture, changes []change) {
	for _, c := range changes {
		switch {
		case c.kind == kindOutcome:
			g.outcomeWritten(after, c)
		case c.kind == kindJob && c.job != nil:
			g.jobWritten(l, after, c)
		case c.kind != kindPlacement || c.placement == nil:
		default:
			old, known := g.pic.placements[c.replica]
			j := after.jobs[c.replica.ServiceKey()]
			switch {
			case j == nil && g.pic.jobs[c.replica.ServiceKey()] == nil && !g.isJob(c.replica):
			case !known:
				g.triesIndex(l, after, c.replica, j)
			case c.placement.stopping && !old.stopping:
				g.stopsTry(l, after, c.replica, *c.placement)
			}
		}
	}
}

// triesIndex: an index is tried only while it is not completed, and at most so many at
// once as the job wants.
func (g *ledger) triesIndex(l *lead, after picture, k api.ReplicaKey, j *api.Job) {
	g.runOf(k)
	if j == nil {
		g.w.violate("jobs", "%s is placed, and there is no such job", k)
		return
	}
	uid := j.Metadata.UID
	g.tries[uid] = append(g.tries[uid], k)
	if epoch, over := g.succeeded[uid][k.Slot]; over {
		g.w.violate("jobs", "%s is placed, though index %d was completed by epoch %d", k, k.Slot, epoch)
	}
	if k.Slot >= j.Spec.Want() {
		g.w.violate("jobs", "%s is placed, the job has %d indexes", k, j.Spec.Want())
	}
	old := g.pic.jobs[k.ServiceKey()]
	if old != nil && old.Metadata.UID == uid && (!old.Metadata.DeletedAt.IsZero() || old.Status.Ended()) {
		g.w.violate("jobs", "%s is placed, though its job is %s, or being deleted", k, old.Status.State)
	}
	most := j.Spec.AtOnce()
	if old != nil && old.Metadata.UID == uid {
		most = max(most, old.Spec.AtOnce())
	}
	active := map[int]bool{}
	for _, o := range after.of(k.ServiceKey()) {
		if p := after.placements[o]; !p.stopping && !l.know.dead[p.node] {
			active[o.Slot] = true
		}
	}
	if len(active) > most && !slices.ContainsFunc(g.pic.of(k.ServiceKey()), func(o api.ReplicaKey) bool {
		return o.Slot == k.Slot && !g.pic.placements[o].stopping
	}) {
		g.w.violate("jobs", "%s is placed, the %dth index at once: at most %d may be", k, len(active), most)
	}
}

// stopsTry: I5. What works for a job is stopped only when that is over, or another works
// in its place.
func (g *ledger) stopsTry(l *lead, after picture, k api.ReplicaKey, p placement) {
	j := after.jobs[k.ServiceKey()]
	if j == nil || !j.Metadata.DeletedAt.IsZero() || j.Status.Ended() {
		return
	}
	if o := after.outcomes[outcomeKey{k.ServiceKey(), k.Slot}]; o != nil && o.Succeeded {
		return
	}
	if s := l.know.status[k]; s != nil && s.phase.Ended() || g.overdue(after, p.node) {
		return
	}
	for _, pic := range []picture{g.pic, after} {
		for _, o := range pic.of(k.ServiceKey()) {
			if o != k && o.Slot == k.Slot && !pic.placements[o].stopping {
				return
			}
		}
	}
	g.w.violate("I5", "%s is told to stop, though its job goes on and it has not ended", k)
}

// outcomeWritten: a success is one that really was, comes with the stop of its replica,
// and never changes.
func (g *ledger) outcomeWritten(after picture, c change) {
	old, now := g.pic.outcomes[c.outcomeKey()], c.outcome
	if now == nil {
		return
	}
	if old != nil && old.JobUID == now.JobUID && old.Succeeded && (!now.Succeeded || old.Epoch != now.Epoch) {
		g.w.violate("jobs", "index %d of %s was completed by epoch %d, and is rewritten: %+v", c.index, c.key, old.Epoch, *now)
	}
	if n := g.badRuns(now.JobUID, c.index); now.Failures > n {
		g.w.violate("jobs", "index %d of %s is said to have failed %d times, it did %d times", c.index, c.key, now.Failures, n)
	}
	if !now.Succeeded || old != nil && old.JobUID == now.JobUID && old.Succeeded {
		return
	}
	g.w.res.Completions++
	k := api.ReplicaKey{Namespace: c.key.Namespace, Service: c.key.Name, Slot: c.index, Epoch: now.Epoch}
	if j := after.jobs[c.key]; j == nil || j.Metadata.UID != now.JobUID {
		g.w.violate("jobs", "an outcome of %s is written for another job: %+v", c.key, *now)
	}
	if !g.wentWell(k) || g.placed[k] != now.Node {
		g.w.violate("jobs", "%s is said to have completed its index on %s; it was placed on %s, and ended so: %+v", k, now.Node, g.placed[k], g.runs[k])
	}
	if p, still := after.placements[k]; still && !p.stopping {
		g.w.violate("jobs", "the success of %s is written without its stop", k)
	}
	if g.succeeded[now.JobUID] == nil {
		g.succeeded[now.JobUID] = map[int]uint64{}
	}
}

// clocksDiffer is by how much two controllers' clocks may, and a tenth for drift.
const clocksDiffer = 5 * time.Second

// jobWritten: a job is complete when all its indexes are, and has failed when more tries
// did than may, or its deadline has passed.
func (g *ledger) jobWritten(l *lead, after picture, c change) {
	old, now := g.pic.jobs[c.key], c.job
	same := old != nil && old.Metadata.UID == now.Metadata.UID
	if !same {
		g.begun[now.Metadata.UID] = max(l.openAt, 1)
	}
	if same && !sameTemplate(&old.Spec.Template, &now.Spec.Template) {
		g.w.violate("jobs", "the template of %s was changed", c.key)
	}
	if same && old.Status.Ended() && old.Status.State != now.Status.State {
		g.w.violate("jobs", "job %s was %s and is %s", c.key, old.Status.State, now.Status.State)
	}
	if !now.Status.Ended() || same && old.Status.Ended() {
		return
	}
	g.endedAt[now.Metadata.UID] = g.w.clock
	if now.Status.State == api.JobComplete {
		g.w.res.JobsComplete++
		for i := range now.Spec.Want() {
			if o := after.outcomes[outcomeKey{c.key, i}]; o == nil || !o.Succeeded || o.JobUID != now.Metadata.UID {
				g.w.violate("jobs", "job %s is said to be complete, and index %d is not: %+v", c.key, i, o)
			}
		}
		return
	}
	g.w.res.JobsFailed++
	most := now.Spec.MayFail()
	late := func(j *api.Job) bool {
		return j.Spec.Deadline != nil && g.w.clock-g.begun[now.Metadata.UID] >= int64(j.Spec.Deadline.Or(0))*deadlineShare/100-int64(clocksDiffer)
	}
	over := late(now)
	if same {
		most, over = min(most, old.Spec.MayFail()), over || late(old)
	}
	if n := g.badRuns(now.Metadata.UID, -1); n <= most && !over {
		g.w.violate("jobs", "job %s is said to have failed (%s), though %d of its tries did, %d may, and its deadline has not passed", c.key, now.Status.Why, n, most)
	}
	if now.Status.Why == "" {
		g.w.violate("jobs", "job %s has failed, and does not say why", c.key)
	}
}

// jobsWritten takes up what is written of jobs, and that what was acknowledged stays.
func (g *ledger) jobsWritten(c change) {
	switch {
	case c.kind == kindOutcome && c.outcome != nil && c.outcome.Succeeded:
		if g.succeeded[c.outcome.JobUID] == nil {
			g.succeeded[c.outcome.JobUID] = map[int]uint64{}
		}
		g.succeeded[c.outcome.JobUID][c.index] = c.outcome.Epoch
	case c.kind == kindOutcome && c.outcome == nil:
		if old, j := g.pic.outcomes[c.outcomeKey()], g.pic.jobs[c.key]; old != nil && old.Succeeded && j != nil && j.Metadata.UID == old.JobUID && j.Metadata.DeletedAt.IsZero() && !j.Status.Ended() && !g.w.asksToDeleteJob(c.key) {
			g.w.violate("jobs", "the outcome of index %d of %s is gone, and the job is not", c.index, c.key)
		}
	case c.kind == kindJob && c.job == nil:
		if old := g.pic.jobs[c.key]; old != nil && old.Metadata.DeletedAt.IsZero() && !g.w.asksToDeleteJob(c.key) && !(old.Status.Ended() && (old.Spec.TTLAfterFinished != nil || g.w.ownerOf(api.KindJob, c.key.Name).pending != nil)) { // a time to live may come with its end
			g.w.violate("I2", "job %s is gone, though nobody deleted it", c.key)
		}
	}
}

func (w *world) asksToDeleteJob(key api.Key) bool {
	o := w.ownerOf(api.KindJob, key.Name)
	return o != nil && o.pending != nil && o.pending.deletes
}

// manifest makes up a job.
func (o *owner) manifest() *api.Job {
	r := o.w.r.owners
	o.version++
	image := "work"
	if chance(r, 0.45) {
		image = pick(r, []string{"flaky", "flaky", "flaky", "flaky", "fails", "broken", "missing", "hangs"})
	}
	small := api.Resources{Requests: api.ResourceList{api.CPU: 50, api.Memory: api.Whole(1 << 20)}}
	t := api.Template{Containers: []api.Container{{Name: "main", Image: fmt.Sprintf("%s:%d", image, o.version),
		Resources: api.Resources{Requests: api.ResourceList{api.CPU: api.Quantity(100 * (1 + r.IntN(6))), api.Memory: api.Whole(64 << 20)}}}}}
	if chance(r, 0.2) {
		t.Containers = append(t.Containers, api.Container{Name: "also", Image: "work:also", Resources: small})
	}
	if chance(r, 0.2) {
		t.InitContainers = append(t.InitContainers, api.Container{Name: "init1", Image: pick(r, []string{"init", "init", "fitful"}), Resources: small})
	}
	if chance(r, 0.2) {
		t.Sidecars = append(t.Sidecars, api.Container{Name: "car1", Image: "good:car", Resources: small})
	}
	grace := api.Duration(between(r, 0, 2*time.Second).Round(time.Millisecond))
	t.TerminationGracePeriod = &grace
	backOff, most := api.Duration(between(r, 100*time.Millisecond, time.Second).Round(time.Millisecond)), api.Duration(2*time.Second)
	t.RestartPolicy = api.RestartPolicy{BackOff: &backOff, MaxBackOff: &most}
	o.w.takesValues(&t)
	completions := 1 + r.IntN(6)
	j := &api.Job{Metadata: api.Metadata{Name: o.key.Name, Namespace: o.key.Namespace}, Spec: api.JobSpec{Completions: &completions, Template: t}}
	o.bounds(j)
	j.Default()
	if problems := api.Validate(j); len(problems) > 0 {
		o.w.violate("sim", "a made-up job is invalid: %v", problems)
	}
	return j
}

// bounds draws what of a job may change.
func (o *owner) bounds(j *api.Job) {
	r := o.w.r.owners
	parallelism, limit := 1+r.IntN(3), r.IntN(4)
	j.Spec.Parallelism, j.Spec.BackoffLimit, j.Spec.Deadline, j.Spec.TTLAfterFinished = &parallelism, &limit, nil, nil
	lasting := func(least, most time.Duration) *api.Duration {
		d := api.Duration(between(r, least, most).Round(time.Millisecond))
		return &d
	}
	if chance(r, 0.25) {
		j.Spec.Deadline = lasting(2*time.Second, 30*time.Second)
	}
	if chance(r, 0.25) {
		j.Spec.TTLAfterFinished = lasting(0, 8*time.Second)
	}
}

func (o *owner) askJob() {
	w, r := o.w, o.w.r.owners
	n := r.IntN(100)
	j := w.ledger.pic.jobs[o.key]
	have := o.job
	if j == nil {
		have = nil
	}
	copied := func() *api.Job {
		x := cloneOf(have)
		x.Metadata.ResourceVersion, x.Metadata.UID, x.Status = 0, "", api.JobStatus{}
		return &x
	}
	apply := func(words string, j *api.Job, dry, refused bool) {
		images := w.tell(&j.Spec.Template)
		o.send(&request{words: words, taken: func(e core.Reply) bool { return o.jobApplied(j, dry, refused, e) }, make: func(t uint64) core.Event {
			ev := core.Apply{Ticket: t, Jobs: []*api.Job{j}, DryRun: dry, RequestID: o.pending.id, By: "owner", Images: images}
			if dry {
				ev.RequestID = ""
			}
			return ev
		}})
	}
	switch {
	case have == nil:
		x := o.manifest()
		apply(fmt.Sprintf("apply job %s: %d x %s, %d at once, %d may fail", o.key.Name, x.Spec.Want(), x.Spec.Containers[0].Image, x.Spec.AtOnce(), x.Spec.MayFail()), x, n < 8, false)
	case n < 12:
		apply("apply job "+o.key.Name+" unchanged", copied(), false, false)
	case n < 35:
		x := copied()
		o.bounds(x)
		apply(fmt.Sprintf("apply job %s: %d at once, %d may fail", o.key.Name, x.Spec.AtOnce(), x.Spec.MayFail()), x, n < 15, false)
	case n < 42:
		x := copied()
		x.Spec.Containers[0].Image += "x"
		apply("apply job "+o.key.Name+" with another template", x, false, true)
	case n < 80 && j.Status.Ended() || n >= 85:
		o.send(&request{deletes: true, words: "delete job " + o.key.Name, taken: o.jobDeleted, make: func(t uint64) core.Event {
			return core.Delete{Ticket: t, Refs: []api.Ref{{Kind: api.KindJob, Key: o.key}}, IgnoreMissing: true, RequestID: o.pending.id, By: "owner"}
		}})
	}
}

func (o *owner) jobApplied(j *api.Job, dry, refused bool, e core.Reply) (again bool) {
	w := o.w
	switch {
	case errors.Is(e.Err, core.ErrBusy):
		return true
	case errors.Is(e.Err, core.ErrInvalid) && refused:
		w.say("an owner is refused: %v", e.Err)
	case errors.Is(e.Err, core.ErrInvalid) && w.ledger.isLacking(&j.Spec.Template, e.Err):
		w.res.ConfigsRefused++
		w.say("an owner is refused: %v", e.Err)
		if !w.ledger.lackedSince(&j.Spec.Template, o.pending.asked) {
			w.violate("pins", "%s is refused, though all that it takes is there: %v", o.pending.words, e.Err)
		}
	case e.Err != nil:
		w.violate("sim", "an owner is refused: %s: %v", o.pending.words, e.Err)
	case dry:
	default:
		o.job = j
		if a, ok := e.Value.(core.ApplyResult); !ok || len(a.Applied) != 1 || a.Applied[0].Job == nil && (o.pending.tries == 1 || w.ledger.pic.jobs[o.key] != nil) {
			w.violate("I2", "%s is answered with %+v", o.pending.words, e.Value)
		}
	}
	return false
}

func (o *owner) jobDeleted(e core.Reply) (again bool) {
	switch {
	case errors.Is(e.Err, core.ErrBusy):
		return true
	case e.Err != nil:
		o.w.violate("sim", "an owner is refused: %s: %v", o.pending.words, e.Err)
	default:
		o.job = nil
	}
	return false
}

// jobUnsettled says what of a job is not as it has to be once faults are over: it has
// ended, as its tries did, or says what it waits for.
func (w *world) jobUnsettled(l *lead, key api.Key) string {
	pic := w.ledger.pic
	j, r := pic.jobs[key], pic.revisions[revisionKey{key, 1}]
	unheard := slices.ContainsFunc(pic.of(key), func(k api.ReplicaKey) bool { return w.unheard(pic.placements[k]) })
	if unheard {
		return ""
	}
	if !j.Metadata.DeletedAt.IsZero() {
		return fmt.Sprintf("job %s is still being deleted", key)
	}
	seen, _ := l.view[core.ViewKey{Kind: api.KindJob, Namespace: key.Namespace, Name: key.Name}].(*api.Job)
	if seen == nil || r == nil {
		return fmt.Sprintf("job %s is not published, or has no revision", key)
	}
	over := 0
	for i := range j.Spec.Want() {
		if o := pic.outcomes[outcomeKey{key, i}]; o != nil && o.Succeeded {
			over++
		}
	}
	if seen.Status.Succeeded != over || seen.Status.State != j.Status.State {
		return fmt.Sprintf("job %s says %+v, and %d of its indexes are completed", key, seen.Status, over)
	}
	if j.Status.Ended() {
		if left := pic.of(key); len(left) > 0 {
			return fmt.Sprintf("job %s is %s, and %v are left of it", key, j.Status.State, left)
		}
		if j.Spec.TTLAfterFinished != nil {
			return fmt.Sprintf("job %s is %s, and is not removed after %s", key, j.Status.State, j.Spec.TTLAfterFinished)
		}
		return ""
	}
	if j.Spec.Deadline != nil {
		return fmt.Sprintf("job %s goes on past its deadline of %s", key, j.Spec.Deadline)
	}
	if w.fullFor(r) && len(seen.Status.Reasons) > 0 {
		return ""
	}
	active := 0
	for _, k := range pic.of(key) {
		if p := pic.placements[k]; !p.stopping && !p.spare {
			active++
		}
	}
	switch {
	case imageless(r.template) && len(seen.Status.Reasons) == 0 && active == 0:
		return fmt.Sprintf("job %s has no image, and does not say what it waits for", key)
	case imageless(r.template):
		return ""
	case behaviorOf(r.template.Containers[0].Image).ends || behaviorOf(r.template.Containers[0].Image).startFails:
		return fmt.Sprintf("job %s goes on: %+v, %v", key, seen.Status, pic.of(key))
	}
	if want := min(j.Spec.AtOnce(), j.Spec.Want()-over); active < want {
		return fmt.Sprintf("job %s has %d replicas at work, %d should be: %v", key, active, want, seen.Status.Reasons)
	}
	for _, k := range pic.of(key) {
		if what := w.notRunning(k, &api.Template{Containers: r.template.Containers[:1]}); what != "" {
			return what
		}
	}
	return ""
}

// ownersUnsettled: what owners were told is so.
func (w *world) ownersUnsettled() string {
	for _, o := range w.owners {
		if o.pending != nil && (o.kind != api.KindJob || !w.waitsForMute(o.key)) {
			return "an owner waits for an answer to " + o.pending.words
		}
		switch j := w.ledger.pic.jobs[o.key]; {
		case o.kind != api.KindJob:
			if what := o.configMissed(); what != "" {
				return what
			}
		case o.job == nil && j != nil && j.Metadata.DeletedAt.IsZero():
			return fmt.Sprintf("job %s is there, though its delete was acknowledged", o.key)
		case o.job != nil && j == nil && o.job.Spec.TTLAfterFinished == nil:
			return fmt.Sprintf("job %s is not there, though its apply was acknowledged", o.key)
		case o.job != nil && j != nil && (j.Spec.AtOnce() != o.job.Spec.AtOnce() || j.Spec.MayFail() != o.job.Spec.MayFail()):
			return fmt.Sprintf("job %s has other bounds than were acknowledged", o.key)
		}
	}
	return ""
}
