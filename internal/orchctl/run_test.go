package orchctl

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// runJob is the job that the rig's first request id names.
const runJob = "hello-estx1"

// once has the fake carry a job of `run` out: it pulls for a second, runs for two, prints
// two lines and ends as last says, with an outcome unless that is nil.
func (r *rig) once(last func(*api.Job), o *api.Outcome) (applied *[]*api.Job) {
	applied = &[]*api.Job{}
	over := make(chan struct{})
	r.onApply = func(q *orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) {
		j := &api.Job{}
		if err := json.Unmarshal(q.Objects[0].Json, j); err != nil {
			return nil, err
		}
		*applied = append(*applied, j)
		name := j.Metadata.Name
		now := job(name, 1, 1, func(x *api.Job) { x.Spec.Template = j.Spec.Template })
		answer := answersOf("created", now)
		go func() {
			pull := func(x *api.Replica) { waits(api.ReasonPulling, "", nil)(x) }
			script(
				at{100 * time.Millisecond, func() { r.put(now, replica(name, 0, 1, "n2", ofJob)) }},
				at{200 * time.Millisecond, func() { r.put(replica(name, 0, 1, "n2", pull, ofJob)) }},
				at{time.Second, func() { r.put(replica(name, 0, 1, "n2", running(true), ofJob)) }},
				at{3 * time.Second, func() {
					if last == nil {
						return
					}
					r.drop(replica(name, 0, 1, "n2", ofJob))
					if o != nil {
						o.Metadata.Name, o.Job, o.JobUID = api.OutcomeName(name, 0), name, "uid-"+name
						time.AfterFunc(500*time.Millisecond, func() { r.put(o) }) // who is asked lags behind
					}
					r.put(job(name, 1, 1, last))
					close(over)
				}},
			)
		}()
		return answer, nil
	}
	r.onLogs = func(q *orchv1.LogsRequest, s orchv1.Orch_LogsServer) error {
		if !q.Follow || !strings.HasPrefix(q.Service, "hello") || q.Tail != -1 {
			r.t.Errorf("logs asked for %v", q)
		}
		say := func(at time.Duration, text string) error {
			l := line(0, at, text)
			l.Replica.Service = q.Service
			return s.Send(l)
		}
		time.Sleep(time.Second)
		if err := say(time.Second, "one"); err != nil {
			return err
		}
		select {
		case <-over:
		case <-s.Context().Done():
			return s.Context().Err()
		}
		time.Sleep(200 * time.Millisecond) // the last lines come after the end
		l := line(0, 2*time.Second, "oops")
		l.Replica.Service, l.Stream = q.Service, "stderr"
		return errors.Join(s.Send(l), s.Send(&orchv1.LogLine{Note: "it is gone from n2", Replica: l.Replica}), say(3*time.Second, "two"))
	}
	return applied
}

func (r *rig) deleted() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, q := range r.deletes {
		for _, x := range q.Refs {
			out = append(out, x.Kind+" "+x.Namespace+"/"+x.Name)
		}
	}
	return strings.Join(out, ", ")
}

const image = "registry.local:5000/tools/hello:1.0"

func TestRun(t *testing.T) {
	in(t, newFake(), func(t *testing.T, r *rig) {
		t.Setenv("ORCH_TEST_HERE", "yes")
		jobs := r.once(func(j *api.Job) { done(1, 0, 0)(j); endsAs(api.JobComplete, "")(j) }, nil)
		began := time.Now()
		got := r.run("run", "--rm", "-e", "A=1=2", "-e", "ORCH_TEST_HERE", "--label", "set=site", "--node-selector", "disk=ssd", "orch.local/hello:1.0", "--", "echo", "-n", "x")
		if want := (result{"one\ntwo\n", "-- job/" + runJob + " created --\n-- placed on n2 --\n-- n2 pulls orch.local/hello:1.0 --\noops\n-- " + runJob + "-0: it is gone from n2 --\n", 0}); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
		if took := time.Since(began); took < 3200*time.Millisecond || took > 4*time.Second {
			t.Errorf("took %s", took)
		}
		if got := r.deleted(); got != "Job default/"+runJob {
			t.Errorf("deleted %s", got)
		}
		j := (*jobs)[0]
		c := j.Spec.Containers[0]
		if j.Metadata.Name != runJob || j.Spec.Want() != 1 || j.Spec.MayFail() != 0 || c.Image != "orch.local/hello:1.0" || strings.Join(c.Args, "|") != "echo|-n|x" || c.Command != nil || c.Stdin ||
			j.Metadata.Labels["set"] != "site" || j.Spec.NodeSelector["disk"] != "ssd" || time.Duration(*j.Spec.TTLAfterFinished) != runKept ||
			len(c.Env) != 2 || c.Env[0].Value != "1=2" || c.Env[1].Value != "yes" {
			t.Errorf("applied %+v", j)
		}
	})
}

// TestRunOfTwo: who runs a job of the very same name and words at the same time has not
// made it, and does not delete it.
func TestRunOfTwo(t *testing.T) {
	in(t, newFake(), func(t *testing.T, r *rig) {
		r.onApply = func(*orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) {
			return answersOf("unchanged", job("mine", 1, 1)), nil
		}
		if got := r.run("run", "--rm", "--name", "mine", "orch.local/hello:1.0"); got.code != 1 || !strings.Contains(got.err, "job/mine exists already") {
			t.Errorf("got %s", got)
		}
		if got := r.deleted(); got != "" {
			t.Errorf("deleted %s", got)
		}
	})
}

// TestRunEnds: its end is orchctl's, and what no command said is told.
func TestRunEnds(t *testing.T) {
	failed := func(why string) func(*api.Job) {
		return func(j *api.Job) { done(0, 1, 0)(j); endsAs(api.JobFailed, why)(j) }
	}
	for name, c := range map[string]struct {
		last func(*api.Job)
		o    *api.Outcome
		code int
		err  string
	}{
		"a code":    {failed("1 try failed"), outcome("hello", 0, "n2", api.Exit{Code: 7, Reason: api.ExitError}), 7, ""},
		"a signal":  {failed("1 try failed"), outcome("hello", 0, "n2", api.Exit{Code: 137, Signal: 9, OOM: true, Reason: api.ExitOutOfMemory}), 137, "orchctl: job/hello-1: main: OutOfMemory: signal 9, out of memory\n"},
		"no start":  {failed("1 try failed"), outcome("hello", 0, "n2", api.Exit{Code: 127, Reason: api.ExitStartFailed, Message: "no such file"}), 127, "orchctl: job/hello-1: main: " + api.ExitStartFailed + ": exit code 127: no such file\n"},
		"no try":    {func(j *api.Job) { endsAs(api.JobFailed, "its deadline of 1h is over")(j) }, nil, 1, "orchctl: job/hello-1 failed: its deadline of 1h is over\n"},
		"no answer": {failed("1 try failed: hello-1-0 on n2: exit code 1"), nil, 1, "orchctl: job/hello-1 failed: 1 try failed: hello-1-0 on n2: exit code 1\n"},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, newFake(), func(t *testing.T, r *rig) {
				r.once(c.last, c.o)
				got := r.run("run", "-q", "--name", "hello-1", image)
				if want := (result{"one\ntwo\n", "oops\n" + c.err, c.code}); got != want {
					t.Errorf("%s\nwant %s", got, want)
				}
				if got := r.deleted(); got != "" {
					t.Errorf("deleted %s", got)
				}
			})
		})
	}
}

// TestRunInterrupted: nobody waits for it any more, and so it is stopped.
func TestRunInterrupted(t *testing.T) {
	for _, after := range []time.Duration{5 * time.Millisecond, 150 * time.Millisecond, 2 * time.Second} {
		in(t, newFake(), func(t *testing.T, r *rig) {
			r.once(nil, nil)
			if apply := r.onApply; after < 10*time.Millisecond {
				r.onApply = func(q *orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) {
					time.Sleep(50 * time.Millisecond)
					return apply(q)
				}
			}
			ctx, cancel := contextOf(t)
			time.AfterFunc(after, cancel)
			got := r.runCtx(ctx, "run", "orch.local/hello:1.0")
			if got.code != 130 || !strings.HasSuffix(got.err, "orchctl: interrupted: job/"+runJob+" is stopped and deleted\n") || r.deleted() != "Job default/"+runJob {
				t.Errorf("after %s: %s, deleted %s", after, got, r.deleted())
			}
			time.Sleep(5 * time.Second) // the script's rest
		})
	}
}

func TestRunDetached(t *testing.T) {
	in(t, newFake(job("taken", 1, 1)), func(t *testing.T, r *rig) {
		jobs := r.once(nil, nil)
		if got := r.run("run", "-d", "--rm", "--command", "orch.local/hello:1.0", "--", "sleep", "9"); got != (result{out: "job/" + runJob + "\n"}) {
			t.Error(got)
		}
		if j := (*jobs)[0]; *j.Spec.TTLAfterFinished != 0 || strings.Join(j.Spec.Containers[0].Command, " ") != "sleep 9" || j.Spec.Containers[0].Args != nil {
			t.Errorf("applied %+v", j)
		}
		if got := r.run("run", "--name", "taken", "orch.local/hello:1.0"); got.code != 1 || !strings.Contains(got.err, "job/taken exists already: delete it first, or give another --name") || len(*jobs) != 1 {
			t.Error(got)
		}
		r.fail["Apply"] = []error{status.Error(codes.PermissionDenied, "user eve (viewer) may not do this")}
		if got := r.run("run", "orch.local/hello:1.0"); got.code != 1 || !strings.Contains(got.err, "the role operator or admin") {
			t.Error(got)
		}
		time.Sleep(5 * time.Second) // the script's rest
	})
}

// TestRunCannotStart: a slip in the image's name is told, not waited for.
func TestRunCannotStart(t *testing.T) {
	in(t, newFake(), func(t *testing.T, r *rig) {
		r.onApply = func(*orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) {
			missing := waits(api.ReasonImageMissing, "orch.local/no:1 is not on this node", nil)
			answer := answersOf("created", job("no", 1, 1))
			go script(
				at{time.Second, func() { r.put(job("no", 1, 1), replica("no", 0, 1, "n2", missing, ofJob)) }},
				at{4 * time.Second, func() { r.put(replica("no", 0, 1, "n2", waits(api.ReasonPulling, "", nil), ofJob)) }},
				at{5 * time.Second, func() { r.put(replica("no", 0, 1, "n2", missing, ofJob)) }},
			)
			return answer, nil
		}
		r.onLogs = func(_ *orchv1.LogsRequest, s orchv1.Orch_LogsServer) error {
			<-s.Context().Done()
			return s.Context().Err()
		}
		began := time.Now()
		got := r.run("run", "-q", "--rm", "--name", "no", "orch.local/no:1")
		if want := (result{"", "orchctl: run: no-0 on n2: main: orch.local/no:1 is not on this node; job/no is deleted\n", 1}); got != want || r.deleted() != "Job default/no" {
			t.Errorf("%s\nwant %s\ndeleted %s", got, want, r.deleted())
		}
		if took := time.Since(began); took < 11*time.Second || took > 12*time.Second {
			t.Errorf("took %s", took)
		}
	})
}

// TestRunAttaches: with -i the command starts when orchctl is attached, and ends orchctl.
func TestRunAttaches(t *testing.T) {
	in(t, newFake(), func(t *testing.T, r *rig) {
		jobs := r.once(nil, nil)
		var first *orchv1.ExecRequest
		r.onExec = func(s orchv1.Orch_ExecServer) error {
			for {
				f, err := s.Recv()
				if err != nil {
					return err
				}
				switch x := f.GetFrame().(type) {
				case *orchv1.Frame_Exec:
					first = x.Exec
				case *orchv1.Frame_Stdin:
					if err := s.Send(stdout(strings.ToUpper(string(x.Stdin)))); err != nil {
						return err
					}
				case *orchv1.Frame_StdinClosed:
					return s.Send(end(3, ""))
				}
			}
		}
		r.env.In = strings.NewReader("hello\n")
		got := r.run("run", "--rm", "-i", "-q", "orch.local/hello:1.0", "--", "cat")
		if want := (result{"HELLO\n", "", 3}); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
		if !first.Attach || !first.Stdin || first.Tty || first.Replica != runJob+"-0@1" || len(first.Command) > 0 || !(*jobs)[0].Spec.Containers[0].Stdin {
			t.Errorf("asked for %v", first)
		}
		if r.deleted() != "Job default/"+runJob || r.called("Logs") != 0 {
			t.Errorf("deleted %s; %v", r.deleted(), r.calls)
		}
		r.fail["Exec"] = []error{status.Error(codes.FailedPrecondition, "somebody else is attached")}
		if got := r.run("run", "-i", "-q", "--name", "other", "orch.local/hello:1.0"); got.code != 1 || !strings.Contains(got.err, "somebody else is attached") || !strings.Contains(got.err, "job/other stays; `orchctl describe job other -n default`") {
			t.Error(got)
		}
		time.Sleep(5 * time.Second) // the script's rest
	})
}

func TestAttach(t *testing.T) {
	waiting := func(j *api.Job) {
		j.Spec.Containers = append([]api.Container{{Name: "side", Image: "a:1"}}, j.Spec.Containers...)
		j.Spec.Containers[1].Stdin = true
	}
	f := newFake(job("shell", 2, 2, waiting), replica("shell", 0, 7, "n1", running(true), ofJob), replica("shell", 1, 8, "n2", pending("no room"), ofJob),
		job("many", 2, 2, waiting), replica("many", 0, 7, "n1", running(true), ofJob), replica("many", 1, 9, "n1", running(true), ofJob),
		job("none", 1, 1, waiting), service("web", 1), replica("web", 0, 3, "n1", running(true)))
	in(t, f, func(t *testing.T, r *rig) {
		var first *orchv1.ExecRequest
		r.onExec = func(s orchv1.Orch_ExecServer) error {
			f, err := s.Recv()
			first = f.GetExec()
			if err != nil {
				return err
			}
			return frames(s, stdout("$ "), end(0, ""))
		}
		r.env.In = io.LimitReader(strings.NewReader(""), 0)
		for _, arg := range []string{"job/shell", "shell-0", "replica/shell-0"} {
			got := r.run("attach", arg)
			if got != (result{out: "$ "}) || !first.Attach || !first.Stdin || first.Tty || first.Container != "main" || first.Replica != "shell-0@7" {
				t.Errorf("%s: %s, asked for %v", arg, got, first)
			}
		}
		for _, c := range []struct {
			arg, want string
			code      int
		}{
			{"job/many", "2 of its replicas run, name one of them: many-0, many-1", 2}, {"job/none", "none of its replicas runs; `orchctl describe job/none -n default`", 1},
			{"web-0", "none of its containers waits for somebody", 1}, {"job/no", "job no is not there", 1},
		} {
			if got := r.run("attach", c.arg); got.code != c.code || !strings.Contains(got.err, c.want) {
				t.Errorf("%s: %s\nwant %s", c.arg, got, c.want)
			}
		}
	})
}

// TestRunName: of any image a name that a job may have.
func TestRunName(t *testing.T) {
	for image, want := range map[string]string{
		"busybox": "busybox-est-7", "registry.local:5000/a/My_Tool:v1@sha256:00": "my-tool-est-7", "3scale:1": "scale-est-7", "x/..": "run-est-7",
		strings.Repeat("long-", 20): strings.TrimSuffix(strings.Repeat("long-", 7)[:34], "-") + "-est-7",
	} {
		got := runName(image, "request-7")
		if want = strings.Replace(want, "est-7", "estx7", 1); got != want {
			t.Errorf("%s: %s, want %s", image, got, want)
		}
		j := &api.Job{Metadata: api.Metadata{Name: got}, Spec: api.JobSpec{Template: api.Template{Containers: []api.Container{{Name: "main", Image: "a:1"}}}}}
		j.Default()
		if err := api.Validate(j).Err(); err != nil {
			t.Errorf("%s: %v", got, err)
		}
	}
}

// TestLogsOfAJob: all of its indexes.
func TestLogsOfAJob(t *testing.T) {
	in(t, store(), func(t *testing.T, r *rig) {
		r.onLogs = func(q *orchv1.LogsRequest, s orchv1.Orch_LogsServer) error {
			if q.Service != "migrate" || q.Replica != "" || q.Previous {
				t.Errorf("asked for %v", q)
			}
			l := line(3, time.Second, "three")
			l.Replica.Service = "migrate"
			return s.Send(l)
		}
		if got := r.run("logs", "job/migrate"); got != (result{out: "[migrate-3] three\n"}) {
			t.Error(got)
		}
		if got := r.run("logs", "job/nothing"); got.code != 1 || !strings.Contains(got.err, "job nothing is not there") {
			t.Error(got)
		}
	})
}
