package orchctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

const (
	// exitInterrupted is what a shell says of a command that an interrupt ended.
	exitInterrupted = 130
	// signalled is what a shell adds to the number of the signal that ended a command.
	signalled = 128
	// cleanupTimeout bounds the delete of a job after an interrupt, or of run --rm.
	cleanupTimeout = 10 * time.Second
	// lastLines is how long the end of the log is waited for after the end of its job.
	lastLines = 5 * time.Second
	// startPatience is how long a replica that cannot be started is waited for: as long as a
	// rollout waits for one.
	startPatience = 10 * time.Second
	// outcomeTries and outcomeEvery bound how often is asked how a job ended: who is asked
	// may lag behind the leader.
	outcomeTries, outcomeEvery = 10, 200 * time.Millisecond
)

// runOnce follows one job of `run`.
type runOnce struct {
	t      *tool
	client orchv1.OrchClient
	r      launching
	key    api.Key
	track  *jobTrack
	screen *os.File
	said   map[string]bool
	// stuck is since when the replica cannot be started; zero: it can.
	stuck time.Time
	// attached are replicas that were attached to, by key.
	attached map[string]bool
	logs     chan error // of the log that is followed; nil: not yet
	stopLogs context.CancelFunc
}

func (t *tool) run(ctx context.Context, r launching) error {
	j, err := t.job(r)
	if err != nil {
		return err
	}
	screen, err := t.terminal(r.executing)
	if err != nil {
		return err
	}
	sent, err := onWire(j)
	if err != nil {
		return err
	}
	client, err := t.connect(ctx, "run", true)
	if err != nil {
		return err
	}
	if err := t.isFree(ctx, client, j); err != nil {
		return err
	}
	x := &runOnce{t: t, client: client, r: r, key: j.Metadata.Key(), screen: screen, said: map[string]bool{}, attached: map[string]bool{}, stopLogs: func() {}}
	watching, stop := context.WithCancel(ctx)
	feed := t.feed(watching, client, listsOf([]string{j.Metadata.Namespace}, api.KindJob, api.KindReplica))
	defer feed.wait()
	defer stop()
	request := &orchv1.ApplyRequest{Objects: []*orchv1.Object{sent}, MustNotExist: true, RequestId: t.RequestID()}
	answer, err := change(ctx, t, "run", operator, func(ctx context.Context) (*orchv1.ApplyResponse, error) { return client.Apply(ctx, request) })
	if err != nil && ctx.Err() != nil {
		return x.interrupted(ctx)
	}
	if err != nil {
		return err
	}
	list, err := appliedObjects(answer)
	if err != nil {
		return err
	}
	for _, o := range list {
		if v, ok := o.value.(*api.Job); ok {
			if o.outcome != "created" { // somebody was faster: it is theirs, to delete, too
				return jobExists(v.Metadata)
			}
			now := t.Now()
			x.track = newJobTrack(v, o.outcome, now, now)
			for _, line := range o.plan {
				t.warnf("job/%s: %s", v.Metadata.Name, cleanText(line))
			}
		}
	}
	if x.track == nil {
		return fmt.Errorf("run: the controller answered without the job")
	}
	if r.detach {
		return t.printf("job/%s\n", x.key.Name)
	}
	x.say("job/%s created", x.key.Name)
	err = x.follow(ctx, feed)
	if ctx.Err() != nil {
		return x.interrupted(ctx)
	}
	if x.r.rm {
		if err := x.delete(ctx); err != nil {
			t.warnf("job/%s could not be deleted: %v; it goes by itself %s after its end", x.key.Name, err, short(runKept))
		}
	}
	return err
}

// isFree refuses a name that another job has: run makes a new one.
func (t *tool) isFree(ctx context.Context, client orchv1.OrchClient, j *api.Job) error {
	m := j.Metadata
	_, missing, err := t.fetch(ctx, client, listing{}, []target{{api.KindJob, m.Namespace, m.Name}})
	if err == nil && missing == nil {
		return jobExists(m)
	}
	return err
}

func jobExists(m api.Metadata) error {
	return fmt.Errorf("run: job/%s exists already: delete it first, or give another --name", m.Name)
}

// say tells on standard error how far it is, each thing once.
func (x *runOnce) say(format string, args ...any) {
	text := cleanText(fmt.Sprintf(format, args...))
	if !x.r.quiet && !x.said[text] {
		x.said[text] = true
		fmt.Fprintf(x.t.Err, "-- %s --\n", text)
	}
}

// follow shows what the job prints, or attaches to it, until it has ended.
func (x *runOnce) follow(ctx context.Context, f *feed) error {
	tick := time.NewTicker(showEvery)
	defer tick.Stop()
	defer func() { x.stopLogs() }()
	for {
		if x.track.ended() {
			x.awaitLogs(ctx)
			return x.result(ctx)
		}
		if x.track.gone {
			return fmt.Errorf("run: job/%s was deleted meanwhile", x.key.Name)
		}
		if r := x.runs(); r != nil && x.r.stdin {
			x.attached[replicaKey(r)] = true
			return x.attachTo(ctx, r)
		} else if r != nil && x.logs == nil {
			x.followLogs(ctx)
		}
		select {
		case s := <-f.ch:
			if s.err != nil {
				return fmt.Errorf("run: job/%s cannot be followed any more: %w\nit goes on; `orchctl logs -f job/%s -n %s` shows what it prints", x.key.Name, s.err, x.key.Name, x.key.Namespace)
			}
			x.track.see(s, x.t.Now())
			x.progress()
		case <-tick.C:
			why := x.cannotStart(x.t.Now())
			if why != "" {
				return x.giveUp(ctx, why)
			}
			for _, reason := range x.track.standing.news(x.track.job.Status.Reasons, x.t.Now()) {
				if x.stuck.IsZero() || !aboutReplica.MatchString(reason) { // what it is given up for is told then
					x.say("%s", reason)
				}
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func replicaKey(r *api.Replica) string { return object{kind: api.KindReplica, value: r}.key() }

// progress tells where the replica is, and what it waits for.
func (x *runOnce) progress() {
	for _, r := range x.track.replicas {
		if r.Spec.Node == "" || !r.Status.Phase.Before(api.PhaseStopping) {
			continue
		}
		x.say("placed on %s", r.Spec.Node)
		if w := trouble(r); w == api.ReasonPulling {
			x.say("%s pulls %s", r.Spec.Node, x.r.image)
		}
	}
}

// unstartable are what a node says of a replica that it cannot start.
var unstartable = regexp.MustCompile(`\b(` + strings.Join([]string{api.ReasonImageMissing, api.ReasonRegistryUnreachable, api.ReasonImageError, api.ReasonCreateError, api.ReasonBindRefused, api.ReasonConfigError, api.ReasonVolumeError}, "|") + `)\b`)

// cannotStart tells what keeps the replica from starting, once that has stood for a while;
// a node tries on, but who waits before a terminal rather mends the command line.
func (x *runOnce) cannotStart(now time.Time) string {
	for _, r := range x.track.replicas {
		if r.Status.Phase != api.PhasePreparing {
			continue
		}
		w := trouble(r)
		switch {
		case !unstartable.MatchString(w) && w != api.ReasonPulling && !strings.HasPrefix(w, api.ReasonBackOff):
		case w == api.ReasonPulling: // the next try, which may go well
			return ""
		default:
			if x.stuck.IsZero() {
				x.stuck = now
			}
			if now.Sub(x.stuck) < startPatience {
				return ""
			}
			return fmt.Sprintf("%s on %s: %s", r.Metadata.Name, r.Spec.Node, replicaReason(r))
		}
	}
	x.stuck = time.Time{}
	return ""
}

// runs gives the replica that can be attached to, or whose log can be read: one whose
// container runs, or has run.
func (x *runOnce) runs() *api.Replica {
	for _, r := range x.track.replicas {
		if r.Spec.Node == "" || x.attached[replicaKey(r)] {
			continue
		}
		switch {
		case !x.r.stdin:
			return r // the log comes when there is one
		case r.Status.Phase == api.PhaseRunning && !r.Status.LastKnown:
			return r
		}
	}
	return nil
}

// followLogs prints what the job prints; the stream ends with it.
func (x *runOnce) followLogs(ctx context.Context) {
	ctx, x.stopLogs = context.WithCancel(ctx)
	x.logs = make(chan error, 1)
	request := &orchv1.LogsRequest{Namespace: x.key.Namespace, Service: x.key.Name, Follow: true, Tail: -1}
	p := newLogPrinter(x.t, logging{follow: true, tail: -1})
	p.errs, p.quiet = x.t.Err, x.r.quiet
	go func() {
		doing := "logs of job/" + x.key.Name
		for range outcomeTries {
			err := p.run(ctx, x.client, request, doing)
			if !notFound(err) { // who is asked may not know the job yet
				x.logs <- err
				return
			}
			select {
			case <-time.After(outcomeEvery):
			case <-ctx.Done():
			}
		}
		x.logs <- nil
	}()
}

// awaitLogs waits until all that was printed is here.
func (x *runOnce) awaitLogs(ctx context.Context) {
	if x.r.stdin {
		return
	}
	if x.logs == nil {
		x.followLogs(ctx)
	}
	select {
	case err := <-x.logs:
		if err != nil && ctx.Err() == nil {
			x.t.report(err)
		}
	case <-time.After(lastLines):
		x.stopLogs()
		<-x.logs
	case <-ctx.Done():
		x.stopLogs()
		<-x.logs
	}
}

// attachTo gives the job its standard streams, and ends as it does.
func (x *runOnce) attachTo(ctx context.Context, r *api.Replica) error {
	doing := "attach to job/" + x.key.Name
	err := x.t.session(ctx, x.client, attachTo(r, ""), x.r.executing, x.screen, doing)
	var call *callError
	if errors.As(err, &call) && ctx.Err() == nil && !x.r.rm {
		x.t.report(err)
		return fmt.Errorf("job/%s stays; `orchctl describe job %s -n %s` tells what became of it", x.key.Name, x.key.Name, x.key.Namespace)
	}
	return err
}

// giveUp deletes what cannot be started.
func (x *runOnce) giveUp(ctx context.Context, why string) error {
	if err := x.delete(ctx); err != nil {
		return fmt.Errorf("run: %s; job/%s could not be deleted: %w", cleanText(why), x.key.Name, err)
	}
	x.r.rm = false // done
	return fmt.Errorf("run: %s; job/%s is deleted", cleanText(why), x.key.Name)
}

// result gives the command's exit code, and says why it is what no command gave.
func (x *runOnce) result(ctx context.Context) error {
	st := x.track.job.Status
	if st.State == api.JobComplete {
		return nil
	}
	o, err := x.outcome(ctx)
	if err != nil {
		return err
	}
	failed := fmt.Errorf("job/%s failed: %s", x.key.Name, whyText(st.Why))
	switch {
	case o == nil || o.Succeeded:
		return failed
	case o.Exit.Signal != 0:
		x.t.warnf("job/%s: %s", x.key.Name, cleanText(outcomeWhy(o)))
		return exitStatus(signalled + o.Exit.Signal)
	case o.Exit.Code == 0:
		return failed
	case o.Exit.Reason != api.ExitError && o.Exit.Reason != "":
		x.t.warnf("job/%s: %s", x.key.Name, cleanText(outcomeWhy(o)))
	}
	return exitStatus(o.Exit.Code)
}

// outcome asks how the job's only index ended; nil: nothing of it did.
func (x *runOnce) outcome(ctx context.Context) (*api.Outcome, error) {
	for try := 1; ; try++ {
		found, missing, err := x.t.fetch(ctx, x.client, listing{}, []target{{api.KindOutcome, x.key.Namespace, api.OutcomeName(x.key.Name, 0)}})
		if err != nil {
			return nil, err
		}
		if missing == nil {
			if o, ok := found[0].value.(*api.Outcome); ok && o.JobUID == x.track.uid {
				return o, nil
			}
		}
		if try == outcomeTries || x.track.job.Status.Failed == 0 {
			return nil, nil
		}
		select {
		case <-time.After(outcomeEvery):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// interrupted stops the job: nobody waits for it any more.
func (x *runOnce) interrupted(ctx context.Context) error {
	if err := x.delete(ctx); err != nil {
		x.t.warnf("interrupted; job/%s could not be stopped: %v", x.key.Name, err)
	} else {
		x.t.warnf("interrupted: job/%s is stopped and deleted", x.key.Name)
	}
	return exitStatus(exitInterrupted)
}

// delete deletes the job, also where ctx has ended.
func (x *runOnce) delete(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	request := &orchv1.DeleteRequest{RequestId: x.t.RequestID(), IgnoreMissing: true, Refs: []*orchv1.Ref{target{api.KindJob, x.key.Namespace, x.key.Name}.ref()}}
	_, err := change(ctx, x.t, "delete job/"+x.key.Name, operator, func(ctx context.Context) (*orchv1.DeleteResponse, error) { return x.client.Delete(ctx, request) })
	return err
}
