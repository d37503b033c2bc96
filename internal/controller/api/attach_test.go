package api

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/view"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// TestAttach: only to a container that waits for it, and with what it may do.
func TestAttach(t *testing.T) {
	shell := job("shell", "j1", api.JobRunning)
	x := shell.Object.(*api.Job)
	x.Spec.Containers = []api.Container{{Name: "log", Image: "a:1"}, {Name: "main", Image: "a:1", Stdin: true}}
	owner := job("owner", "j2", api.JobRunning)
	owner.Object.(*api.Job).Spec.Containers = []api.Container{{Name: "main", Image: "a:1", Stdin: true, SecurityContext: &api.SecurityContext{Privileged: true}}}
	w := newLogWorld()
	w.p.Put = append(w.p.Put, shell, owner)
	for _, name := range []string{"shell", "owner", "lost"} {
		w.replica("n1", name, 0, 5, api.PhaseRunning)
	}
	v := view.New()
	v.Publish(w.p)
	for _, c := range []struct {
		name, who string
		ask       *orchv1.ExecRequest
		code      codes.Code
		says      string // of a refusal; else the container
	}{
		{"the one that waits", operator, &orchv1.ExecRequest{Replica: "shell-0", Attach: true, Stdin: true, Tty: true}, codes.OK, "main"},
		{"by its name", operator, &orchv1.ExecRequest{Replica: "shell-0", Container: "main", Attach: true}, codes.OK, "main"},
		{"another", operator, &orchv1.ExecRequest{Replica: "shell-0", Container: "log", Attach: true}, codes.FailedPrecondition, "container log does not take input: its manifest does not say stdin: true"},
		{"none waits", operator, &orchv1.ExecRequest{Replica: "web-0", Attach: true}, codes.FailedPrecondition, "no container takes input"},
		{"with a command", operator, &orchv1.ExecRequest{Replica: "shell-0", Attach: true, Command: []string{"sh"}}, codes.InvalidArgument, "has its command already"},
		{"without either", operator, &orchv1.ExecRequest{Replica: "shell-0"}, codes.InvalidArgument, "no command is given"},
		{"one that owns its node", operator, &orchv1.ExecRequest{Replica: "owner-0", Attach: true}, codes.PermissionDenied, "privileged"},
		{"one that owns its node, by an admin", admin, &orchv1.ExecRequest{Replica: "owner-0", Attach: true}, codes.OK, "main"},
		{"a job that is gone", operator, &orchv1.ExecRequest{Replica: "lost-0", Attach: true}, codes.NotFound, "there is no service or job default/lost any more"},
	} {
		var asked *orchv1.ExecOpen
		a := agents{script: func(_ string, open *orchv1.OpenRelay, s *agentStream) {
			asked = open.GetExec()
			s.from <- endFrame("")
		}}
		s := New(Config{View: v, Log: slog.New(slog.DiscardHandler)})
		s.open = a.open
		p := newPipe[*orchv1.Frame](as(t.Context(), c.who), &orchv1.Frame{Frame: &orchv1.Frame_Exec{Exec: c.ask}})
		close(p.in)
		err := s.Exec(p)
		if status.Code(err) != c.code || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %s %q", c.name, err, c.code, c.says)
		}
		if c.code == codes.OK && (!asked.GetAttach() || asked.GetContainer() != c.says || asked.GetTty() != c.ask.Tty) {
			t.Errorf("%s: the node was asked for %v", c.name, asked)
		}
		if c.code != codes.OK && asked != nil {
			t.Errorf("%s: the node was asked for %v", c.name, asked)
		}
	}
}

// TestAdminOnlyJobs: a job gets no more than a service.
func TestAdminOnlyJobs(t *testing.T) {
	x := job("tuner", "", "").Object.(*api.Job)
	x.Spec.Containers[0].SecurityContext = &api.SecurityContext{Privileged: true}
	err := mayApply(as(t.Context(), operator), []api.Object{&api.Config{}, x})
	if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "apply job default/tuner: objects[1]: container c0") {
		t.Errorf("an operator: %v", err)
	}
	if err := mayApply(as(t.Context(), admin), []api.Object{&api.Config{}, x}); err != nil {
		t.Errorf("an admin: %v", err)
	}
}

// TestReadKinds: all kinds can be read; outcomes are listed about one job.
func TestReadKinds(t *testing.T) {
	w := jobWorld()
	sealed := &api.Config{TypeMeta: api.TypeMeta{Kind: api.KindSecret}, Metadata: api.Metadata{Name: "db", Namespace: "default", Labels: map[string]string{"app": "web"}},
		Data: map[string]string{"password": "swordfish"}, BinaryData: map[string][]byte{"key": []byte("swordfish")}} // somebody forgot to leave them out
	volume := &api.Volume{Metadata: api.Metadata{Name: "data.web-0", Namespace: "default"}}
	w.p.Put = append(w.p.Put, outcome("j2", 2, 22, "n1", ""), outcome("j2", 10, 23, "n1", ""),
		core.Entry{Key: core.ViewKey{Kind: api.KindSecret, Namespace: "default", Name: "db"}, Object: sealed},
		core.Entry{Key: core.ViewKey{Kind: api.KindVolume, Namespace: "default", Name: "data.web-0"}, Object: volume})
	v := view.New()
	v.Publish(w.p)
	s := New(Config{View: v})
	ref := func(kind, name string) *orchv1.Ref { return &orchv1.Ref{Kind: kind, Name: name} }
	for _, r := range []*orchv1.Ref{ref(api.KindJob, "migrate"), ref(api.KindOutcome, "migrate@1"), ref(api.KindSecret, "db"), ref(api.KindVolume, "data.web-0")} {
		o, err := s.Get(t.Context(), &orchv1.GetRequest{Ref: r})
		if err != nil || o.GetKind() != r.GetKind() || strings.Contains(string(o.GetJson()), "swordfish") || strings.Contains(string(o.GetJson()), "c3dvcmRmaXNo") {
			t.Errorf("get %v: %v, %v", r, o, err)
		}
	}
	if sealed.Data == nil {
		t.Error("a published object was changed")
	}
	for _, c := range []struct {
		r    *orchv1.ListRequest
		want string // names, or the error after "!"
	}{
		{&orchv1.ListRequest{Kind: api.KindOutcome, About: ref(api.KindJob, "migrate")}, "migrate@1 migrate@2 migrate@3 migrate@10"},
		{&orchv1.ListRequest{Kind: api.KindOutcome, About: ref(api.KindJob, "migr")}, ""},
		{&orchv1.ListRequest{Kind: api.KindOutcome}, "migrate@1 migrate@2 migrate@3 migrate@10"},
		{&orchv1.ListRequest{Kind: api.KindOutcome, About: ref(api.KindService, "web")}, "!outcomes are a job's, not of Service"},
		{&orchv1.ListRequest{Kind: api.KindOutcome, Selector: "a=b", About: ref(api.KindJob, "migrate")}, "!no labels"},
		{&orchv1.ListRequest{Kind: api.KindJob}, "migrate"},
		{&orchv1.ListRequest{Kind: api.KindSecret, Selector: "app=web"}, "db"},
		{&orchv1.ListRequest{Kind: api.KindSecret, Selector: "app=db"}, ""},
		{&orchv1.ListRequest{Kind: api.KindVolume}, "data.web-0"},
		{&orchv1.ListRequest{Kind: api.KindVolume, Selector: "a=b"}, "!no labels"},
	} {
		resp, err := s.List(t.Context(), c.r)
		var names []string
		for _, o := range resp.GetObjects() {
			var x struct{ Metadata api.Metadata }
			if err := json.Unmarshal(o.GetJson(), &x); err != nil {
				t.Fatal(err)
			}
			names = append(names, x.Metadata.Name)
			if strings.Contains(string(o.GetJson()), "swordfish") {
				t.Errorf("%v shows a value: %s", c.r, o.GetJson())
			}
		}
		if why, ok := strings.CutPrefix(c.want, "!"); ok != (err != nil) || ok && !strings.Contains(err.Error(), why) || !ok && strings.Join(names, " ") != c.want {
			t.Errorf("%v: %q, %v; want %s", c.r, names, err, c.want)
		}
	}
}
