package orchctl

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// inSet puts a service into what --prune -l set=site chooses.
func inSet(s *api.Service) {
	s.Metadata.Labels["set"], s.Metadata.UID = "site", "uid-"+s.Metadata.Namespace+"-"+s.Metadata.Name
}

func inShop(s *api.Service) { s.Metadata.Namespace = "shop" }

// siteYAML declares web, and ledger of namespace shop.
const siteYAML = `apiVersion: orch/v1
kind: Service
metadata: {name: web, labels: {set: site}}
spec:
  containers: [{name: main, image: "orch.local/web:1.0"}]
---
apiVersion: orch/v1
kind: Service
metadata: {name: ledger, namespace: shop, labels: {set: site}}
spec:
  containers: [{name: main, image: "orch.local/web:1.0"}]
`

// site has what siteYAML declares, what it no longer declares in both of its
// namespaces, and what --prune is not to touch.
func site() *fake {
	old := func(s *api.Service) { s.Metadata.CreatedAt = epoch.Add(-12 * 24 * time.Hour) }
	return newFake(
		service("web", 1, inSet, all(1)), replica("web", 0, 1, "n1", running(true)), service("ledger", 1, inShop, inSet, all(1)),
		replica("ledger", 0, 2, "n1", running(true), func(r *api.Replica) { r.Metadata.Namespace = "shop" }),
		service("old", 3, inSet, old), service("web", 2, inShop, inSet), // a name of another namespace's file
		service("logs", 2, inSet, func(s *api.Service) { s.Spec.Mode, s.Status.Replicas = api.ModeGlobal, 4 }),
		service("other", 1), service("going", 1, inSet, func(s *api.Service) { s.Metadata.DeletedAt = epoch }),
		service("away", 1, inSet, func(s *api.Service) { s.Metadata.Namespace = "lab" }),
	)
}

// unchanged answers applies of siteYAML: nothing is new, all is ready.
func (r *rig) unchanged() {
	r.onApply = func(*orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) {
		out := answer("unchanged", service("web", 1, inSet, all(1)))
		out.Applied = append(out.Applied, answer("unchanged", service("ledger", 1, inShop, inSet, all(1))).Applied...)
		return out, nil
	}
}

// folder writes siteYAML where -f finds it.
func folder(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "site.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestPrune: what it says, asks and deletes, with and without a terminal.
func TestPrune(t *testing.T) {
	dir := folder(t, siteYAML)
	in(t, site(), func(t *testing.T, r *rig) {
		r.unchanged()
		var b strings.Builder
		say := func(args string) result {
			got := r.run(append([]string{"apply", "-f", dir, "--prune", "-l", "set=site"}, strings.Fields(args)...)...)
			b.WriteString(strings.TrimRight("$ orchctl apply -f site --prune -l set=site "+args, " ") + "\n" + strings.ReplaceAll(got.String(), "[y/N] ", "[y/N] \n") + "\n")
			return got
		}
		untouched := func(applies int) {
			t.Helper()
			if len(r.deletes) > 0 || len(r.applies) != applies {
				t.Errorf("%d applies, %d deletes; want %d and none", len(r.applies), len(r.deletes), applies)
			}
		}
		say("--dry-run")
		if untouched(1); !r.applies[0].DryRun {
			t.Error("a dry run was none")
		}
		say("")
		untouched(1)
		r.env.Asks = func() bool { return true }
		for _, said := range []string{"n\n", "\n", "", "yes, please\n"} {
			r.env.In = strings.NewReader(said)
			if got := r.run("apply", "-f", dir, "--prune", "-l", "set=site"); got.code != 1 || !strings.HasSuffix(got.err, "orchctl: not confirmed: nothing was applied, and nothing deleted\n") {
				t.Errorf("%q: %s", said, got)
			}
			untouched(1)
		}
		r.env.In = strings.NewReader("Y\n")
		dying := func(s *api.Service) { s.Metadata.DeletedAt = time.Now() }
		r.onDelete = func() {
			r.put(service("old", 3, inSet, dying), service("logs", 1, inSet, dying), service("web", 2, inShop, inSet, dying))
			time.AfterFunc(2*time.Second, func() {
				r.drop(service("old", 3, inSet))
				r.drop(service("logs", 1, inSet))
				r.drop(service("web", 2, inShop, inSet))
			})
		}
		began := time.Now()
		say("")
		if took := time.Since(began); took < 2*time.Second {
			t.Errorf("it waited for %s until all was gone", took)
		}
		var refs []string
		for _, x := range r.deletes[0].Refs {
			refs = append(refs, x.Kind+" "+x.Namespace+"/"+x.Name)
		}
		if got := strings.Join(refs, ", "); got != "Service default/logs, Service default/old, Service shop/web" || len(r.deletes) != 1 {
			t.Errorf("%d deletes, of %s", len(r.deletes), got)
		}
		r.onDelete = nil
		if d := r.deletes[0]; !d.IgnoreMissing || d.RequestId == "" || d.RequestId == r.applies[1].RequestId {
			t.Errorf("the delete is %v, the apply's id %s", d, r.applies[1].RequestId)
		}
		say("") // nothing is left to ask about
		r.put(service("old", 3, inSet))
		say("--yes --wait=false")
		if len(r.deletes) != 2 {
			t.Errorf("%d deletes", len(r.deletes))
		}
		golden(t, "prune", b.String())
	})
}

// TestPruneInNamespace: --namespace is the only one that is looked at.
func TestPruneInNamespace(t *testing.T) {
	in(t, site(), func(t *testing.T, r *rig) {
		r.unchanged()
		r.env.In = strings.NewReader(strings.Split(siteYAML, "---\n")[0])
		got := r.run("apply", "-f", "-", "-n", "shop", "--prune", "-l", "set=site", "--dry-run")
		if want := "would be deleted: service/ledger (1 replica, 90m)\n"; got.code != 0 || !strings.HasSuffix(got.out, "\n"+want) || strings.Count(got.out, "would be") != 1 {
			t.Errorf("%s, want %q", got, want)
		}
		// Who gives the manifests on standard input cannot give the answer there.
		r.env.In, r.env.Asks = strings.NewReader(strings.Split(siteYAML, "---\n")[0]+"---\n"), func() bool { return true }
		if got := r.run("apply", "-f", "-", "--prune", "-l", "set=site"); got.code != 2 || !strings.Contains(got.err, "--prune needs --yes where nobody can be asked; nothing was applied\nwill be deleted: service/logs (4 replicas, 90m)\n") {
			t.Error(got)
		}
		if len(r.deletes) > 0 {
			t.Errorf("deleted %v", r.deletes)
		}
	})
}

// TestPruneNeedsItsLabels: what the selector would never find again is not applied.
func TestPruneNeedsItsLabels(t *testing.T) {
	in(t, site(), func(t *testing.T, r *rig) {
		r.env.In = strings.NewReader(siteYAML + "---\n" + webYAML[:strings.Index(webYAML, "web")] + "plain" + webYAML[strings.Index(webYAML, "web")+3:])
		got := r.run("apply", "-f", "-", "--prune", "-l", "set=site", "--yes")
		want := "<stdin>:13: document 3: metadata.labels: service/plain does not match -l set=site, so that --prune would not delete it when it is in no file any more: give it these labels, or apply it by itself\n" +
			"orchctl: 1 problem in the manifests: nothing was applied\n"
		if got.code != 2 || got.err != want || got.out != "" || len(r.calls) > 0 {
			t.Errorf("%s%v\nwant %s", got, r.calls, want)
		}
	})
}

// TestPruneOfAFailedApply deletes nothing, and says so, whatever has failed.
func TestPruneOfAFailedApply(t *testing.T) {
	dir := folder(t, siteYAML)
	line := []string{"apply", "-f", dir, "--prune", "-l", "set=site", "--yes", "--timeout", "2s"}
	const stays = "orchctl: nothing was deleted: service/logs, service/old, service/shop/web\n"
	for name, c := range map[string]struct {
		set  func(*rig)
		code int
		want string
	}{
		"refused": {func(r *rig) {
			r.fail["Apply"] = []error{status.Error(codes.InvalidArgument, "port 80 is taken")}
		}, 2, "orchctl: apply: port 80 is taken\n"},
		"not ready": {func(r *rig) {
			r.onApply = func(*orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) {
				return answer("configured", service("web", 3, inSet, func(s *api.Service) { s.Metadata.ResourceVersion = 2 })), nil
			}
		}, 1, "orchctl: not ready within 2s\n"},
		"no leader afterwards": {func(r *rig) {
			r.onApply = func(*orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) {
				r.mu.Lock()
				defer r.mu.Unlock()
				for range 1000 {
					r.fail["List"] = append(r.fail["List"], unavailable("no leader"))
				}
				return answer("unchanged", service("web", 1, inSet, all(1))), nil
			}
		}, 1, "orchctl: list what --prune would delete: no leader\n"},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, site(), func(t *testing.T, r *rig) {
				c.set(r)
				got := r.run(line...)
				if got.code != c.code || !strings.Contains(got.err, c.want) || !strings.HasSuffix(got.err, stays) || len(r.deletes) > 0 {
					t.Errorf("%s%d deletes; want exit %d, %q, %q", got, len(r.deletes), c.code, c.want, stays)
				}
			})
		})
	}
	// What cannot be known before is not even applied.
	in(t, site(), func(t *testing.T, r *rig) {
		for range 1000 {
			r.fail["List"] = append(r.fail["List"], unavailable("no leader"))
		}
		if got := r.run(line...); got.code != 1 || len(r.applies) > 0 || !strings.Contains(got.err, "orchctl: list what --prune would delete: no leader\n") {
			t.Errorf("%d applies: %s", len(r.applies), got)
		}
	})
}

// TestPruneInterrupted: at the question, nothing has happened.
func TestPruneInterrupted(t *testing.T) {
	dir := folder(t, siteYAML)
	in(t, site(), func(t *testing.T, r *rig) {
		in, keys := io.Pipe()
		defer keys.Close()
		r.env.In, r.env.Asks = in, func() bool { return true }
		ctx, cancel := contextOf(t)
		time.AfterFunc(time.Second, cancel)
		got := r.runCtx(ctx, "apply", "-f", dir, "--prune", "-l", "set=site")
		if got.code != 1 || !strings.HasSuffix(got.err, "\norchctl: interrupted: nothing was applied, and nothing deleted\n") || len(r.applies)+len(r.deletes) > 0 {
			t.Error(got)
		}
	})
}

// TestPruneLeavesWhatChanged: what was made anew, or was taken out of the selector,
// between the question and the delete, was not agreed to.
func TestPruneLeavesWhatChanged(t *testing.T) {
	dir := folder(t, siteYAML)
	in(t, site(), func(t *testing.T, r *rig) {
		r.unchanged()
		done := r.onApply
		r.onApply = func(q *orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) {
			r.put(service("old", 3, inSet, func(s *api.Service) { s.Metadata.UID = "made-anew" }), service("logs", 1), service("new", 1, inSet))
			return done(q)
		}
		got := r.run("apply", "-f", dir, "--prune", "-l", "set=site", "--yes", "--wait=false")
		want := "orchctl: service/logs is left alone: it was changed or deleted meanwhile\norchctl: service/old is left alone: it was changed or deleted meanwhile\n"
		if got.code != 0 || got.err != want || !strings.HasSuffix(got.out, "service/shop/web is being deleted\n") || len(r.deletes) != 1 || len(r.deletes[0].Refs) != 1 {
			t.Errorf("%s%v\nwant %s", got, r.deletes, want)
		}
	})
}
