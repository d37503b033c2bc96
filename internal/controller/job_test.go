package controller_test

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	orchapi "github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/pki"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

func job(name string, completions int, change ...func(*orchapi.Job)) *orchv1.Object {
	j := &orchapi.Job{TypeMeta: orchapi.TypeMeta{APIVersion: orchapi.Version, Kind: orchapi.KindJob}, Metadata: orchapi.Metadata{Name: name},
		Spec: orchapi.JobSpec{Completions: &completions, Parallelism: &completions, Template: orchapi.Template{Containers: []orchapi.Container{{Name: "main", Image: "orch.local/web:1.0"}}}}}
	for _, f := range change {
		f(j)
	}
	js, err := json.Marshal(j)
	if err != nil {
		panic(err)
	}
	return &orchv1.Object{Kind: orchapi.KindJob, Json: js}
}

func (r *rig) jobStatus(name string) orchapi.JobStatus {
	r.t.Helper()
	o, err := r.admin.Get(r.ctx, &orchv1.GetRequest{Ref: &orchv1.Ref{Kind: orchapi.KindJob, Name: name}})
	if err != nil {
		r.t.Fatal(err)
	}
	var j orchapi.Job
	if err := json.Unmarshal(o.Json, &j); err != nil {
		r.t.Fatal(err)
	}
	return j.Status
}

func (r *rig) logsOf(service string, follow bool) string {
	r.t.Helper()
	st, err := r.admin.Logs(r.ctx, &orchv1.LogsRequest{Service: service, Tail: -1, Follow: follow})
	var out strings.Builder
	for err == nil {
		var line *orchv1.LogLine
		if line, err = st.Recv(); err == nil {
			fmt.Fprintf(&out, "%d: %s%s%s\n", line.GetReplica().GetSlot(), line.Text, line.Note, line.Gap)
		}
	}
	if err != io.EOF {
		r.t.Errorf("logs of %s: %v", service, err)
	}
	return out.String()
}

// TestAJobsWay: from its apply to its outcomes, over a node that takes a secret.
func TestAJobsWay(t *testing.T) {
	r := newRig(t)
	a := r.agent("n1")
	a.logs = func(_ *orchv1.LogsOpen, _ func(*orchv1.LogLine)) bool { return true } // an empty file
	a.mu.Lock()
	a.exit = &orchapi.Exit{Reason: "Completed", Output: "all is migrated", FinishedAt: time.Now()}
	a.mu.Unlock()
	password := func(j *orchapi.Job) {
		j.Spec.Containers[0].Env = []orchapi.EnvVar{{Name: "PASSWORD", ValueFrom: &orchapi.EnvSource{Secret: &orchapi.KeyRef{Name: "db", Key: "password"}}}}
	}
	objects := []*orchv1.Object{job("migrate", 3, password), secret("db", map[string]string{"password": swordfish})}
	dry, err := r.admin.Apply(r.ctx, &orchv1.ApplyRequest{DryRun: true, Objects: objects})
	if err != nil || outcomes(dry) != "Job created, Secret created" {
		t.Errorf("dry run: %v, %v", dry, err)
	}
	if got := outcomes(r.apply(&orchv1.ApplyRequest{Objects: objects})); got != "Job created, Secret created" {
		t.Errorf("applied %s", got)
	}
	r.logsOf("migrate", true) // to its end
	r.eventually("the job is complete", func() bool { return r.jobStatus("migrate").State == orchapi.JobComplete })
	if s := r.jobStatus("migrate"); s.Succeeded != 3 || s.Failed != 0 {
		t.Errorf("status %+v", s)
	}
	if got := a.value("secret/db", 1, "password"); got != swordfish {
		t.Errorf("n1 got %q", got)
	}
	list, err := r.admin.List(r.ctx, &orchv1.ListRequest{Kind: orchapi.KindOutcome, About: &orchv1.Ref{Kind: orchapi.KindJob, Name: "migrate"}})
	if err != nil || len(list.Objects) != 3 {
		t.Errorf("outcomes: %v, %v", list, err)
	}
	// What has ended is read without asking for it by name.
	a.cancel()
	r.eventually("n1 has no session", func() bool { return !r.ctl.Sessions().Has("n1") })
	got := r.logsOf("migrate", false)
	for i := range 3 {
		if !strings.Contains(got, fmt.Sprintf("%d: all is migrated\n", i)) {
			t.Errorf("logs lack index %d:\n%s", i, got)
		}
	}
	if got := outcomes(r.apply(&orchv1.ApplyRequest{Objects: objects})); got != "Job unchanged, Secret unchanged" {
		t.Errorf("again: %s", got)
	}
	_, err = r.admin.Apply(r.ctx, &orchv1.ApplyRequest{Objects: []*orchv1.Object{job("migrate", 3)}})
	want(t, err, codes.InvalidArgument, "template cannot change")
	_, err = r.admin.Apply(r.ctx, &orchv1.ApplyRequest{Objects: []*orchv1.Object{service("migrate", 1)}})
	want(t, err, codes.InvalidArgument, "migrate")
	if _, err := r.admin.Delete(r.ctx, &orchv1.DeleteRequest{Refs: []*orchv1.Ref{{Kind: orchapi.KindJob, Name: "migrate"}}}); err != nil {
		t.Error(err)
	}
	r.eventually("the job is gone", func() bool {
		_, err := r.admin.Get(r.ctx, &orchv1.GetRequest{Ref: &orchv1.Ref{Kind: orchapi.KindJob, Name: "migrate"}})
		return err != nil
	})
	_, err = r.admin.Delete(r.ctx, &orchv1.DeleteRequest{Refs: []*orchv1.Ref{{Kind: orchapi.KindJob, Name: "migrate"}}})
	want(t, err, codes.NotFound, "job default/migrate")
}

// TestAJobThatFails says why, with the last that it wrote.
func TestAJobThatFails(t *testing.T) {
	r := newRig(t)
	a := r.agent("n1")
	a.mu.Lock()
	a.exit = &orchapi.Exit{Code: 3, Reason: "Error", Output: "no such table", FinishedAt: time.Now()}
	a.mu.Unlock()
	operator := orchv1.NewOrchClient(r.dial(r.credentials(r.authority.CA(), user(pki.Operator), time.Hour)))
	once := func(j *orchapi.Job) { j.Spec.BackoffLimit = new(int) }
	if _, err := operator.Apply(r.ctx, &orchv1.ApplyRequest{Objects: []*orchv1.Object{job("migrate", 1, once)}}); err != nil {
		t.Fatal(err)
	}
	r.eventually("the job has failed", func() bool { return r.jobStatus("migrate").State == orchapi.JobFailed })
	if why := r.jobStatus("migrate").Why; !strings.Contains(why, "no such table") {
		t.Errorf("why: %s", why)
	}
	_, err := operator.Apply(r.ctx, &orchv1.ApplyRequest{Objects: []*orchv1.Object{job("owner", 1, func(j *orchapi.Job) {
		j.Spec.Containers[0].SecurityContext = &orchapi.SecurityContext{Privileged: true}
	})}})
	want(t, err, codes.PermissionDenied, "apply job default/owner")
}
