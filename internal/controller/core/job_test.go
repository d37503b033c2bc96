package core

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// works is a fleet whose jobs' replicas run until the test says how they end.
type works struct {
	*fleet
	ends map[api.ReplicaKey]int // exit codes
}

func newWorks(t *testing.T, nodes ...string) *works {
	w := &works{fleet: newFleet(t), ends: map[api.ReplicaKey]int{}}
	w.says = func(_ *agent, x wire.Assignment) *api.ReplicaStatus {
		if code, ended := w.ends[x.Key]; ended {
			return endedWith(x.Template, code)
		}
		return nil
	}
	for _, n := range nodes {
		w.node(n, "boot-"+n)
	}
	return w
}

// endedWith is what an agent says of a replica whose containers have all ended.
func endedWith(t *api.Template, code int) *api.ReplicaStatus {
	s := &api.ReplicaStatus{Phase: api.PhaseFailed, IP: "10.64.0.9"}
	for _, ct := range t.Containers {
		exit := &api.Exit{Code: code, Reason: api.ExitCompleted, FinishedAt: start}
		if code != 0 {
			exit.Reason, exit.Message, exit.Output = api.ExitError, fmt.Sprintf("exit code %d", code), "begin\nno such table"
		}
		s.Containers = append(s.Containers, api.ContainerStatus{Name: ct.Name, State: api.ContainerExited, Reason: exit.Reason, LastExit: exit})
	}
	return s
}

func migrate(completions, parallelism, mayFail int) *api.Job {
	j := &api.Job{Metadata: api.Metadata{Name: "migrate", Namespace: "default"},
		Spec: api.JobSpec{Completions: &completions, Parallelism: &parallelism, BackoffLimit: &mayFail,
			Template: api.Template{Containers: []api.Container{{Name: "main", Image: "db:1"}}}}}
	j.Default()
	return j
}

func (w *works) applyJob(j *api.Job) Reply {
	w.t.Helper()
	w.ticket++
	w.step(Apply{Ticket: w.ticket, Jobs: []*api.Job{j}, By: "tester"})
	w.turn()
	return w.replies[w.ticket]
}

func (w *works) job() *api.Job {
	w.t.Helper()
	j, _ := w.seen[ViewKey{api.KindJob, "default", "migrate"}].(*api.Job)
	if j == nil {
		w.t.Fatal("the job is not published")
	}
	return j
}

func (w *works) outcome(index int) *api.Outcome {
	o, _ := w.seen[ViewKey{api.KindOutcome, "default", api.OutcomeName("migrate", index)}].(*api.Outcome)
	return o
}

// tries are the live fillings, as "migrate-0 on n1", spares marked.
func (w *works) tries() []string {
	var out []string
	if s := w.core.services[api.Key{Namespace: "default", Name: "migrate"}]; s != nil {
		for _, f := range s.fillings {
			if !f.stopping && !f.void {
				out = append(out, fmt.Sprintf("%s on %s%s", f.key.Name(), f.node, map[bool]string{true: " (spare)"}[f.spare]))
			}
		}
	}
	return out
}

// end has an index's try on a node end with a code; "": wherever it is.
func (w *works) end(index int, node string, code int) {
	w.t.Helper()
	for _, name := range slices.Sorted(maps.Keys(w.agents)) {
		a := w.agents[name]
		for k := range a.holds {
			if k.Slot == index && (node == "" || node == name) {
				w.ends[k] = code
				if !a.silent {
					w.step(Status{Node: name, Session: a.session, Report: wire.StatusReport{Replicas: w.reports(a)}})
					w.turn()
				}
				return
			}
		}
	}
	w.t.Fatalf("index %d runs nowhere", index)
}

func TestJobCompletes(t *testing.T) {
	w := newWorks(t, "n1", "n2", "n3")
	if r := w.applyJob(migrate(3, 2, 0)); r.Err != nil || r.Value.(ApplyResult).Applied[0].Job == nil || r.Value.(ApplyResult).Applied[0].Outcome != "created" {
		t.Fatalf("apply: %+v", r)
	}
	if got := w.tries(); len(got) != 2 || !strings.HasPrefix(got[0], "migrate-0") || !strings.HasPrefix(got[1], "migrate-1") {
		t.Fatalf("at first run %v", got)
	}
	for _, x := range w.seen {
		switch x := x.(type) {
		case *api.Replica:
			if !x.Spec.Job {
				t.Errorf("%s does not say that it is a job's", x.Metadata.Name)
			}
		case *api.Endpoint, *api.Service:
			t.Errorf("a job has %T", x)
		}
	}
	w.end(1, "", 0)
	if o := w.outcome(1); o == nil || !o.Succeeded || o.Failures != 0 || o.Container != "main" || o.Exit.Reason != api.ExitCompleted {
		t.Fatalf("outcome of index 1: %+v", o)
	}
	if st := w.job().Status; st.Succeeded != 1 || st.Active != 2 || st.State != api.JobRunning || st.StartedAt.IsZero() {
		t.Fatalf("status %+v, tries %v", st, w.tries())
	}
	w.end(0, "", 0)
	w.end(2, "", 0)
	st := w.job().Status
	if st.State != api.JobComplete || st.Succeeded != 3 || st.Active != 0 || st.Failed != 0 || st.EndedAt.IsZero() || len(st.Reasons) != 0 {
		t.Fatalf("at last %+v", st)
	}
	if len(w.core.fillings) != 0 || w.running() != 0 {
		t.Fatalf("something is left: %v", w.tries())
	}
	w.elect()
	w.node("n1", "boot-n1")
	if st := w.job().Status; st.State != api.JobComplete || st.Succeeded != 3 {
		t.Fatalf("the next leader says %+v", st)
	}
}

func TestJobFails(t *testing.T) {
	w := newWorks(t, "n1", "n2", "n3")
	w.applyJob(migrate(2, 2, 1))
	w.end(0, "", 3)
	if got := w.tries(); len(got) != 1 {
		t.Fatalf("index 0 is tried again at once: %v", got)
	}
	failedOn := w.outcome(0).Node
	w.pass(900 * time.Millisecond)
	if got := w.tries(); len(got) != 1 {
		t.Fatalf("index 0 is tried again before its back-off: %v", got)
	}
	w.pass(200 * time.Millisecond)
	if got := w.tries(); len(got) != 2 || got[0] == "migrate-0 on "+failedOn {
		t.Fatalf("after the back-off run %v; it failed on %s", got, failedOn)
	}
	w.end(0, "", 3)
	st := w.job().Status
	if st.State != api.JobFailed || st.Failed != 2 || st.Active != 0 {
		t.Fatalf("status %+v", st)
	}
	if want := "2 tries failed, backoffLimit is 1: migrate-0 on " + w.outcome(0).Node + ": exit code 3; last output:\nbegin\nno such table"; st.Why != want {
		t.Fatalf("why: %q, want %q", st.Why, want)
	}
	if w.running() != 0 {
		t.Fatalf("the rest runs on: %v", w.tries())
	}
	w.pass(time.Minute)
	if got := w.tries(); len(got) != 0 {
		t.Fatalf("it begins again: %v", got)
	}
}

// TestJobOnOneNode: where it failed it is tried again, if nothing else is there.
func TestJobOnOneNode(t *testing.T) {
	w := newWorks(t, "n1")
	w.applyJob(migrate(1, 1, 2))
	w.end(0, "n1", 1)
	w.pass(1100 * time.Millisecond)
	if got := w.tries(); !slices.Equal(got, []string{"migrate-0 on n1"}) {
		t.Fatalf("tries %v, reasons %v", got, w.job().Status.Reasons)
	}
}

func TestJobRefusals(t *testing.T) {
	w := newWorks(t, "n1")
	w.apply("", web(1, "web:1"))
	w.applyJob(migrate(2, 1, 0))
	job := migrate(2, 1, 0)
	job.Metadata.Name = "web"
	service := web(1, "web:1")
	service.Metadata.Name = "migrate"
	other, more := migrate(2, 1, 0), migrate(3, 1, 0)
	other.Spec.Containers[0].Image = "db:2"
	ask := func(ev Event) error {
		t.Helper()
		w.ticket++
		switch x := ev.(type) {
		case Scale:
			x.Ticket = w.ticket
			ev = x
		case Rollout:
			x.Ticket = w.ticket
			ev = x
		case Delete:
			x.Ticket = w.ticket
			ev = x
		}
		w.step(ev)
		w.turn()
		return w.replies[w.ticket].Err
	}
	key := api.Key{Namespace: "default", Name: "migrate"}
	for _, x := range []struct {
		err   error
		is    error
		words string
	}{
		{w.applyJob(job).Err, ErrInvalid, "there is a service default/web"},
		{w.apply("", service).Err, ErrInvalid, "there is a job default/migrate"},
		{w.applyJob(other).Err, ErrInvalid, "a job's template cannot change: delete it first, or give it another name"},
		{w.applyJob(more).Err, ErrInvalid, "completions cannot change (2 to 3)"},
		{ask(Scale{Key: key, Replicas: 3, Current: -1}), ErrInvalid, "a job is not scaled: apply it with another parallelism"},
		{ask(Rollout{Key: key, Word: "restart"}), ErrInvalid, "a job is not rolled out"},
		{ask(Delete{Refs: []api.Ref{{Key: key}}}), ErrNotFound, "service default/migrate"},
	} {
		if !errors.Is(x.err, x.is) || !strings.Contains(fmt.Sprint(x.err), x.words) {
			t.Errorf("got %v, want %v with %q", x.err, x.is, x.words)
		}
	}
	wider := migrate(2, 2, 0)
	if r := w.applyJob(wider); r.Err != nil || r.Value.(ApplyResult).Applied[0].Outcome != "configured" || len(w.tries()) != 2 {
		t.Errorf("parallelism: %+v, tries %v", r, w.tries())
	}
	if r := w.applyJob(wider); r.Value.(ApplyResult).Applied[0].Outcome != "unchanged" {
		t.Errorf("again: %+v", r)
	}
	if err := ask(Delete{Refs: []api.Ref{{Kind: api.KindJob, Key: key}}}); err != nil {
		t.Error(err)
	}
	w.turn()
	for k := range w.seen {
		if k.Kind == api.KindJob || k.Kind == api.KindOutcome || k.Kind == api.KindRevision && strings.HasPrefix(k.Name, "migrate") {
			t.Errorf("%v is left", k)
		}
	}
	for k := range w.kv {
		if strings.Contains(k, "/migrate") {
			t.Errorf("%s is left in the store", k)
		}
	}
}
