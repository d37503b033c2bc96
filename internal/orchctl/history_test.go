package orchctl

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// past is a service with five revisions.
func past() *fake {
	image := func(ref string) func(*api.Revision) {
		return func(r *api.Revision) { r.Template.Containers[0].Image = ref }
	}
	going := service("web", 3, updated(3, 3, 1, 0), func(s *api.Service) {
		s.Metadata.ResourceVersion = 31
		s.Status.Revision = 6
		s.Spec.Rollout.Canary = []api.CanaryStep{{Replicas: *api.Count(1)}, {Replicas: *api.Percent(50), Pause: new(api.Duration)}}
		s.Status.Rollout = api.RolloutStatus{State: api.RolloutPaused, From: 5, StartedAt: ago(12 * time.Second), Step: 1, StepAt: ago(2 * time.Second)}
	})
	return newFake(going,
		revision(2, api.RolloutComplete), revision(3, api.RolloutComplete, image("orch.local/web:2.0"), func(r *api.Revision) {
			r.Template.Containers[0].Env = []api.EnvVar{{Name: "LOG", Value: "debug"}}
			r.Images = map[string]string{"orch.local/web:2.0": "sha256:" + strings.Repeat("ab", 32)}
		}),
		revision(4, api.RolloutRolledBack, func(r *api.Revision) { r.Rollout.Why = crashed }),
		revision(5, api.RolloutComplete, image("orch.local/web:2.0"), func(r *api.Revision) { r.By, r.Cause = "orch", "rollback from revision 4: "+crashed }),
		revision(6, api.RolloutPaused, func(r *api.Revision) { r.Rollout.EndedAt, r.Cause = time.Time{}, "restart" }),
		revision(1, api.RolloutComplete, func(r *api.Revision) { r.Service.Name = "api" }))
}

func TestHistory(t *testing.T) {
	in(t, past(), func(t *testing.T, r *rig) {
		var b strings.Builder
		for _, line := range []string{"history service/web", "history web -o wide", "history service api", "history service/nothing", "get service web --revision 3", "get service/web --revision 3 -o yaml",
			"get service web --revision 3 -o json", "get service/web --revision 9", "describe service web"} {
			b.WriteString("$ orchctl " + line + "\n" + r.run(strings.Fields(line)...).String() + "\n")
		}
		golden(t, "history", b.String())
		got := r.run("history", "service/web", "-o", "yaml")
		if got.code != 0 || strings.Count(got.out, "apiVersion: orch/v1\nkind: Revision\nservice:\n  namespace: default\n  name: web\n") != 5 || !strings.Contains(got.out, "cannot open database") {
			t.Error(got)
		}
		if got := r.run("history", "service/web", "-o", "json"); got.code != 0 || strings.Count(got.out, `"kind": "Revision"`) != 5 || !strings.Contains(got.out, `"kind": "List"`) {
			t.Error(got)
		}
		old := r.run("get", "service", "web", "--revision", "3", "-o", "yaml")
		r.env.In = strings.NewReader(old.out)
		if got := r.run("apply", "-f", "-", "--wait=false"); got.code != 0 || len(r.applies) != 1 || !strings.Contains(string(r.applies[0].Objects[0].Json), "orch.local/web:2.0") {
			t.Errorf("an old revision is applied again: %s", got)
		}
	})
}

// TestDiff: what would change, in two forms, and exit codes as scripts know them.
func TestDiff(t *testing.T) {
	live := service("web", 3, all(3))
	in(t, newFake(live), func(t *testing.T, r *rig) {
		next := service("web", 5, func(s *api.Service) {
			s.Metadata.ResourceVersion = 9
			s.Spec.Containers[0].Image = "orch.local/web:2.0"
		})
		r.onApply = func(q *orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) {
			if !q.DryRun {
				t.Error("not a dry run")
			}
			a := answer("configured", next)
			return a, nil
		}
		diff := func(args ...string) result {
			r.env.In = strings.NewReader(webYAML)
			return r.run(append([]string{"diff", "-f", "-"}, args...)...)
		}
		got := diff()
		golden(t, "diff", got.String())
		r.env.Screen = func() (int, int, bool) { return 80, 24, true }
		if got := diff(); !strings.Contains(got.out, "\x1b[31m-  replicas: 3\x1b[0m\n\x1b[32m+  replicas: 5\x1b[0m\n") || !strings.HasPrefix(got.out, "\x1b[1m--- live/default/web.yaml\x1b[0m\n") {
			t.Errorf("on a terminal: %s", got)
		}
		r.env.NoColor = true
		if plain := diff(); plain.out != got.out {
			t.Errorf("with NO_COLOR: %s", plain)
		}
		if got := diff("--color", "always"); !strings.Contains(got.out, "\x1b[36m@@") {
			t.Errorf("always: %s", got)
		}
		if got := diff("--color", "sometimes"); got.code != 2 || !strings.Contains(got.err, "want auto, always or never") {
			t.Error(got)
		}
		next = service("web", 3, func(s *api.Service) { s.Metadata.ResourceVersion, s.Metadata.Generation = 1, 7 })
		if got := diff(); got.code != 0 || got.out != "" || got.err != "" {
			t.Errorf("nothing new: %s", got)
		}
		next = service("new", 1)
		if got := diff(); got.code != 1 || !strings.Contains(got.out, "--- live/default/new.yaml\n+++ applied/default/new.yaml\n@@ -0,0 +1") {
			t.Errorf("a new one: %s", got)
		}
		r.fail["Apply"] = []error{status.Error(codes.Internal, "a bug")}
		if got := diff(); got.code != 2 || got.err != "orchctl: diff: a bug\n" {
			t.Errorf("trouble: %s", got)
		}
		if got := r.run("diff", "-f", "/no/such/file"); got.code != 2 {
			t.Errorf("no manifest: %s", got)
		}
	})
}
