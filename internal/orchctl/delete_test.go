package orchctl

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
)

// TestDeleteAsks: what cannot be undone, and all of a type, go after a yes; nothing goes
// after anything else.
func TestDeleteAsks(t *testing.T) {
	for name, c := range map[string]struct {
		line, said   string // said "-": there is no terminal
		code         int
		deleted, err string
	}{
		"volume":                  {"delete volume data.web-0 --wait=false", "y\n", 0, "Volume/data.web-0", "  volume/data.web-0\nwhat is in data.web-0 on n1 will be lost\ndelete it? [y/N] orchctl: what was in data.web-0 on n1 is lost\n"},
		"volume, no":              {"delete volume data.web-0", "\n", 1, "", "orchctl: not confirmed: nothing was deleted\n"},
		"volume rm, no":           {"volume rm data.web-0", "n\n", 1, "", "orchctl: not confirmed: nothing was deleted\n"},
		"volume --yes":            {"volume rm data.web-0 -y --wait=false", "", 0, "Volume/data.web-0", "orchctl: what was in data.web-0 on n1 is lost\n"},
		"volume, nobody to ask":   {"volume rm data.web-0 --wait=false", "-", 0, "Volume/data.web-0", "orchctl: what was in data.web-0 on n1 is lost\n"},
		"a service is not asked":  {"delete service web --wait=false", "", 0, "Service/web", ""},
		"all":                     {"delete jobs,configs --all --wait=false", "yes\n", 0, "Job/import Job/later Job/migrate Job/report Config/app Config/idle", "delete these 6? [y/N] "},
		"all, no":                 {"delete jobs --all", "no\n", 1, "", "delete these 4? [y/N] orchctl: not confirmed: nothing was deleted\n"},
		"all, nobody to ask":      {"delete jobs --all", "-", 2, "", "orchctl: --all needs --yes where nobody can be asked; nothing was deleted\n  job/import\n"},
		"all, none":               {"delete services --all -n empty", "", 0, "", "No services in namespace empty.\n"},
		"all --yes":               {"delete secrets --all --yes", "-", 0, "Secret/db Secret/tokens", ""},
		"dry run":                 {"delete service/web job/migrate --dry-run", "-", 0, "", ""},
		"dry run with its volume": {"delete service/web volume/data.web-0 --dry-run", "-", 0, "", "orchctl: volume/data.web-0 would be deleted afterwards, if nothing uses it then\n"},
		"dry run of all":          {"delete jobs --all --dry-run", "-", 0, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, store(), func(t *testing.T, r *rig) {
				r.env.In = strings.NewReader(c.said)
				r.env.Asks = func() bool { return c.said != "-" }
				got := r.run(strings.Fields(c.line)...)
				deleted, dry := []string{}, strings.Contains(c.line, "--dry-run")
				for _, d := range r.deletes {
					for _, ref := range d.Refs {
						if d.DryRun != dry {
							t.Errorf("a request with DryRun %v", d.DryRun)
						}
						if !d.DryRun {
							deleted = append(deleted, ref.Kind+"/"+ref.Name)
						}
					}
				}
				if got.code != c.code || strings.Join(deleted, " ") != c.deleted || !strings.Contains(got.err, c.err) || c.err == "" && got.err != "" {
					t.Errorf("%s\ndeleted %v", got, deleted)
				}
				if dry && (len(r.deletes) != 1 || !strings.Contains(got.out, "would be deleted\n")) {
					t.Errorf("%s", got)
				}
			})
		})
	}
	in(t, store(), func(t *testing.T, r *rig) {
		r.fail["Delete"] = []error{status.Error(codes.FailedPrecondition, "config default/idle is used by service web (container main, env A): change or delete what uses it first")}
		if got := r.run("delete", "config", "idle", "--dry-run"); got.code != 1 || !strings.Contains(got.err, "is used by service web") {
			t.Error(got)
		}
	})
}

// TestCreateIsRefusedByTheController: between our look and the apply somebody else may
// have made it.
func TestCreateIsRefusedByTheController(t *testing.T) {
	in(t, newFake(), func(t *testing.T, r *rig) {
		r.fail["Apply"] = []error{status.Error(codes.FailedPrecondition, "config default/app exists already: change it with an apply, or delete it first")}
		if got := r.run("create", "config", "app", "--from-literal", "A=1"); got.code != 1 || !strings.Contains(got.err, "exists already") {
			t.Error(got)
		}
		got := r.run("create", "config", "app", "--from-literal", "A=1")
		if got.code != 0 || len(r.applies) == 0 || !r.applies[len(r.applies)-1].MustNotExist || r.applies[len(r.applies)-1].Objects[0].Kind != api.KindConfig {
			t.Errorf("%s, %v", got, r.applies)
		}
	})
}
