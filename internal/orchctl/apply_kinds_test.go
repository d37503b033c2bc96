package orchctl

import (
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

const configYAML = `apiVersion: orch/v1
kind: Config
metadata: {name: app}
data: {LOG: info, NEW: "1"}
`

const jobYAML = `apiVersion: orch/v1
kind: Job
metadata: {name: migrate}
spec:
  completions: 5
  parallelism: 2
  containers: [{name: main, image: "orch.local/migrate:1.0"}]
`

// migration is the life of a job, from nothing to its end.
func (r *rig) migration(last *api.Job) chan struct{} {
	end := make(chan struct{})
	r.onApply = func(*orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) {
		time.Sleep(12 * time.Millisecond)
		go func() {
			defer close(end)
			pull := func(x *api.Replica) { waits(api.ReasonPulling, "", nil)(x) }
			script(
				at{150 * time.Millisecond, func() {
					r.put(replica("migrate", 0, 1, "n1", pull, ofJob), replica("migrate", 1, 2, "n2", pull, ofJob), job("migrate", 5, 2, done(0, 0, 2)))
				}},
				at{450 * time.Millisecond, func() {
					r.put(replica("migrate", 0, 1, "n1", running(true), ofJob), replica("migrate", 1, 2, "n2", running(true), ofJob))
				}},
				at{2450 * time.Millisecond, func() {
					r.drop(replica("migrate", 0, 1, "n1", ofJob))
					r.put(job("migrate", 5, 2, done(3, 1, 1, "migrate-4 pending: 3 nodes: 3 lack 64Mi memory")), replica("migrate", 4, 3, "", pending("3 nodes: 3 lack 64Mi memory"), ofJob))
				}},
				at{4450 * time.Millisecond, func() {
					r.drop(replica("migrate", 1, 2, "n2", ofJob))
					r.drop(replica("migrate", 4, 3, "", ofJob))
					r.put(last)
				}},
			)
		}()
		return answersOf("created", job("migrate", 5, 2, done(0, 0, 0))), nil
	}
	r.env.In = strings.NewReader(jobYAML)
	return end
}

// TestApplyJob: it is followed to its end, which is the apply's.
func TestApplyJob(t *testing.T) {
	in(t, newFake(), func(t *testing.T, r *rig) {
		end := r.migration(job("migrate", 5, 2, done(5, 1, 0), endsAs(api.JobComplete, "")))
		got := r.run("apply", "-f", "-")
		<-end
		golden(t, "job-apply", got.String())
	})
	in(t, newFake(), func(t *testing.T, r *rig) {
		end := r.migration(job("migrate", 5, 2, done(3, 7, 0), endsAs(api.JobFailed, "7 tries failed, backoffLimit is 6: migrate-3 on n2: exit code 3; last output:\ncannot open\x1b[2J database")))
		r.env.Screen = func() (int, int, bool) { return 100, 24, true }
		got := r.run("apply", "-f", "-")
		<-end
		if want := "orchctl: job/migrate failed: 7 tries failed, backoffLimit is 6: migrate-3 on n2: exit code 3; last output:\n    cannot open [2J database\n"; got.code != 1 || got.err != want {
			t.Errorf("%s\nwant %s", got, want)
		}
		for _, want := range []string{"• migrate  400ms  0/5 done, 2 pulling\n    migrate-0   n1   Pulling\n    migrate-1   n2   Pulling\n", "0/5 done, 2 run\n", "3/5 done, 1 pending, 1 run, 1 try failed\n    migrate-4   -   Pending   3 nodes: 3 lack 64Mi memory\n"} {
			if !strings.Contains(got.out, want) {
				t.Errorf("not drawn: %q in\n%q", want, got.out)
			}
		}
	})
	in(t, newFake(), func(t *testing.T, r *rig) {
		end := r.migration(job("migrate", 5, 2, done(4, 1, 1)))
		got := r.run("apply", "-f", "-", "--timeout", "3s")
		<-end
		if want := "orchctl: not ready within 3s\n  job/migrate created; 3/5 done, 1 pending, 1 run, 1 try failed\n    migrate-4 pending: 3 nodes: 3 lack 64Mi memory\nwhat was applied stays, and orch goes on with it; `orchctl describe job migrate -n default` tells more\n"; got.code != 1 || got.err != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	})
	in(t, newFake(), func(t *testing.T, r *rig) {
		end := r.migration(job("migrate", 5, 2, done(5, 1, 0), endsAs(api.JobComplete, "")))
		got := r.run("apply", "-f", "-", "--wait=false")
		<-end
		if got.code != 0 || got.out != "job/migrate created\n" {
			t.Error(got)
		}
	})
}

// TestApplyJobAgain: of one that has ended its end is told at once, a failure as one;
// one that is deleted meanwhile never ends.
func TestApplyJobAgain(t *testing.T) {
	for _, c := range []struct {
		job  *api.Job
		code int
		want string
	}{
		{job("migrate", 5, 2, done(5, 1, 0), endsAs(api.JobComplete, "")), 0, "job/migrate unchanged; 5/5 done, 1 try failed\n"},
		{job("migrate", 5, 2, done(4, 1, 0), endsAs(api.JobFailed, "its deadline of 1h is over")), 1, "job/migrate unchanged; it had failed before, and does not begin anew unless it is deleted: its deadline of 1h is over\n"},
	} {
		in(t, newFake(c.job), func(t *testing.T, r *rig) {
			r.onApply = func(*orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) { return answersOf("unchanged", c.job), nil }
			r.env.In = strings.NewReader(jobYAML)
			if got := r.run("apply", "-f", "-"); got.code != c.code || !strings.HasSuffix(got.out+got.err, c.want) {
				t.Errorf("%s\nwant %s", got, c.want)
			}
		})
	}
	in(t, newFake(), func(t *testing.T, r *rig) {
		r.onApply = func(*orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) {
			time.AfterFunc(time.Second, func() { r.put(job("migrate", 5, 2)); r.drop(job("migrate", 5, 2)) })
			return answersOf("created", job("migrate", 5, 2)), nil
		}
		r.env.In = strings.NewReader(jobYAML)
		if got := r.run("apply", "-f", "-"); got.code != 1 || !strings.Contains(got.err, "job/migrate was deleted meanwhile") {
			t.Error(got)
		}
	})
}

// TestApplyRevises: a service that takes what changed is followed, though its manifest is
// in none of the files; a failure of it is the apply's.
func TestApplyRevises(t *testing.T) {
	uses := func(s *api.Service) { takes(s) }
	changed := config("app", 3, map[string]string{"LOG": "info"}, []string{"web@4", "migrate@1"}, older("web@3"))
	world := func() *fake {
		return newFake(append(oldWeb(), job("migrate", 1, 1, done(1, 0, 0), endsAs(api.JobComplete, "")), service("api", 1, all(1)))...)
	}
	apply := func(r *rig, steps ...at) chan struct{} {
		end := make(chan struct{})
		r.onApply = func(q *orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) {
			if q.Objects[0].Kind != api.KindConfig {
				t.Errorf("applied %v", q.Objects)
			}
			go func() {
				defer close(end)
				script(steps...)
			}()
			return answersOf("configured", changed, "unchanged", job("migrate", 1, 1, done(1, 0, 0), endsAs(api.JobComplete, ""))), nil
		}
		r.env.In = strings.NewReader(configYAML + "---\n" + jobYAML)
		return end
	}
	newer := func(c ...func(*api.Service)) *api.Service {
		s := service("web", 2, append([]func(*api.Service){uses}, c...)...)
		s.Metadata.ResourceVersion = 9
		return s
	}
	in(t, world(), func(t *testing.T, r *rig) {
		end := apply(r,
			at{150 * time.Millisecond, func() {
				r.put(newer(updated(3, 2, 1, 0), rolls(4, api.RolloutProgressing)), replica("web", 0, 3, "n3", of(4)))
			}},
			at{1150 * time.Millisecond, func() {
				r.put(replica("web", 0, 3, "n3", of(4), running(true)), replica("web", 1, 4, "n1", of(4), running(true)))
				r.drop(replica("web", 0, 1, "n1"))
				r.drop(replica("web", 1, 2, "n2"))
				r.put(newer(updated(2, 2, 2, 2), rolls(4, api.RolloutComplete)))
			}},
		)
		got := r.run("apply", "-f", "-")
		<-end
		golden(t, "config-apply", got.String())
	})
	in(t, world(), func(t *testing.T, r *rig) {
		end := apply(r)
		got := r.run("apply", "-f", "-", "--wait=false")
		<-end
		if want := "config/app configured (version 3)\njob/migrate unchanged\nservice/web revision 4: config app version 3\n"; got.code != 0 || got.out != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	})
	in(t, world(), func(t *testing.T, r *rig) {
		end := apply(r, at{150 * time.Millisecond, func() {
			r.put(newer(updated(2, 2, 0, 0), rolls(4, api.RolloutFailed, func(x *api.RolloutStatus) { x.Why = crashed })))
		}})
		got := r.run("apply", "-f", "-")
		<-end
		if got.code != 1 || !strings.Contains(got.err, "service/web revision 4 could not be rolled out: web-0 on n3 ended 3 times") {
			t.Error(got)
		}
	})
}

// TestApplyWentBack: where the users of a Config went back behind its new version, the
// apply ends with what to mend; who runs with what is told of those alone that went back.
func TestApplyWentBack(t *testing.T) {
	changed := config("app", 2, map[string]string{"LOG": "info"}, []string{"web@4", "api@2"}, older("web@3", "api@1"))
	in(t, newFake(append(oldWeb(), service("api", 1, all(1)), replica("api", 0, 7, "n1", running(true)))...), func(t *testing.T, r *rig) {
		end := make(chan struct{})
		r.onApply = func(*orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) {
			go func() {
				defer close(end)
				script(at{150 * time.Millisecond, func() {
					r.put(revision(4, api.RolloutRolledBack, func(x *api.Revision) {
						x.Rollout.Why, x.Configs = crashed, map[api.ConfigRef]int64{"config/app": 2}
					}), service("web", 2, all(2), rolls(5, api.RolloutComplete)), replica("api", 0, 8, "n1", running(true), of(2)), service("api", 1, updated(1, 1, 1, 1), rolls(2, api.RolloutComplete)))
					r.drop(replica("api", 0, 7, "n1"))
				}})
			}()
			return answersOf("configured", changed), nil
		}
		r.env.In = strings.NewReader(configYAML)
		got := r.run("apply", "-f", "-")
		<-end
		if want := "\nconfig/app stays at version 2: mend its values and apply again; web runs with version 1\n"; got.code != 1 || !strings.HasSuffix(got.err, want) || !strings.Contains(got.err, "service/web was rolled back from revision 4") {
			t.Errorf("%s\nwant %s", got, want)
		}
	})
}

// TestLeftBehind: the names are bounded, and those of a service that failed without going
// back are not among them.
func TestLeftBehind(t *testing.T) {
	w := &waiting{}
	c := secret("db", 3, nil, nil)
	for i, name := range []string{"aa", "bb", "cc", "dd", "ee", "stuck", "other"} {
		version := map[bool]int64{true: 1, false: 2}[name == "ee"]
		c.Status.Versions = append(c.Status.Versions, api.ConfigVersion{Number: version, Users: []string{name + "@3"}})
		s := service(name, 1, rolls(5, api.RolloutComplete))
		record := revision(4, api.RolloutRolledBack, func(x *api.Revision) { x.Configs = map[api.ConfigRef]int64{"secret/db": 3} })
		if name == "stuck" {
			record.Rollout.State = api.RolloutFailed
		}
		if name == "other" {
			record.Configs = map[api.ConfigRef]int64{"config/db": 3}
		}
		w.tracks = append(w.tracks, &track{key: s.Metadata.Key(), label: name, target: 4, service: s, fate: fate{failed: "it did", record: record}})
		if i == 0 && len(w.leftBehind()) > 0 {
			t.Error("nothing was changed")
		}
	}
	w.configs = []*api.Config{c}
	if got := strings.Join(w.leftBehind(), "\n"); got != "secret/db stays at version 3: mend its values and apply again; ee runs with version 1; aa, bb, cc and 1 more run with version 2" {
		t.Error(got)
	}
	if got := fewOf(configUsers(config("app", 2, nil, []string{"web@4", "api@2"}, older("web@3", "web@5", "cron@1")))); got != "api,cron (version 1),web (version 1)" {
		t.Error(got)
	}
}

// TestJobWaitsForSomebody: a job whose command reads its input says how to begin it.
func TestJobWaitsForSomebody(t *testing.T) {
	stdin := func(j *api.Job) { j.Spec.Containers[0].Stdin = true }
	waits := "its command begins when somebody attaches: orchctl attach job/shell -n default"
	shell := job("shell", 1, 1, done(0, 0, 1), stdin)
	in(t, newFake(shell, replica("shell", 0, 3, "n1", running(false), ofJob)), func(t *testing.T, r *rig) {
		for _, words := range []string{"get job shell -o wide", "describe job shell"} {
			if got := r.run(strings.Fields(words)...); got.code != 0 || !strings.Contains(got.out, waits) {
				t.Errorf("%s: %s", words, got)
			}
		}
		r.onApply = func(*orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) { return answersOf("created", shell), nil }
		r.env.In = strings.NewReader(jobYAML)
		if got := r.run("apply", "-f", "-", "--timeout", "3s"); got.code != 1 || strings.Count(got.out, "shell: shell-0: "+waits+"\n") != 1 {
			t.Error(got)
		}
		x := newJobTrack(shell, "created", epoch, epoch)
		if text := strings.Join(x.block(epoch), "\n"); strings.Contains(text, "attach") {
			t.Errorf("nothing of it runs: %s", text)
		}
		x.replicas["a"] = replica("shell", 0, 3, "n1", running(false), ofJob)
		if text := strings.Join(x.block(epoch), "\n"); !strings.HasSuffix(text, "\n    shell-0: "+waits) {
			t.Error(text)
		}
	})
	ended := job("shell", 1, 1, done(1, 0, 0), stdin, endsAs(api.JobComplete, ""))
	if got := jobReason(ended); got != "" {
		t.Errorf("it has ended: %s", got)
	}
}

// TestApplyInOrder: all kinds in one go, told in the order of the files where nothing
// takes its time.
func TestApplyInOrder(t *testing.T) {
	in(t, newFake(), func(t *testing.T, r *rig) {
		r.env.In = strings.NewReader(webYAML + "---\n" + configYAML + "---\napiVersion: orch/v1\nkind: Secret\nmetadata: {name: db}\ndata: {password: hunter2}\n---\n" + jobYAML)
		got := r.run("apply", "-f", "-", "--wait=false")
		if want := "service/web created\nconfig/app created\nsecret/db created\njob/migrate created\n"; got.code != 0 || got.out != want || got.err != "" {
			t.Errorf("%s\nwant %s", got, want)
		}
		if len(r.applies) != 1 || len(r.applies[0].Objects) != 4 {
			t.Errorf("%v", r.applies)
		}
		r.onApply = func(q *orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) {
			a := answersOf("configured", config("app", 3, map[string]string{"LOG": "info"}, []string{"web@4"}))
			a.Applied[0].Plan = []string{"key LOG changes", "service default/web gets revision 4: config app version 3"}
			return a, nil
		}
		r.env.In = strings.NewReader(configYAML)
		if got := r.run("apply", "-f", "-", "--dry-run"); got.out != "config/app configured (version 3) (dry run)\n  key LOG changes\n  service default/web gets revision 4: config app version 3\n" {
			t.Errorf("a dry run: %s", got)
		}
	})
}

// TestDiffConfig: a config as a patch, a secret without its values, and what comes of it.
func TestDiffConfig(t *testing.T) {
	live := config("app", 2, map[string]string{"LOG": "debug", "OLD": "x"}, []string{"web@3"})
	kept := secret("db", 1, map[string]string{"password": "hunter2", "user": "orch", "old": "x"}, nil)
	in(t, newFake(live, kept, job("migrate", 5, 2)), func(t *testing.T, r *rig) {
		r.onApply = func(q *orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) {
			next := config("app", 3, map[string]string{"LOG": "info", "NEW": "1"}, []string{"web@4"})
			a := answersOf("configured", next, "configured", secret("db", 2, map[string]string{"password": "hunter3", "user": "orch", "new": "y"}, nil),
				"configured", job("migrate", 5, 3), "created", config("fresh", 1, map[string]string{"A": "1"}, nil), "unchanged", live)
			a.Applied[0].Plan = []string{"key LOG changes", "key NEW is new", "key OLD goes", "service default/web gets revision 4: config app version 3"}
			a.Applied[1].Plan = []string{"key new is new", "key old goes", "key password changes", "service default/web gets revision 4: secret db version 2"}
			return a, nil
		}
		r.env.In = strings.NewReader("apiVersion: orch/v1\nkind: Secret\nmetadata: {name: db}\ndata: {password: hunter3, user: orch, new: \"yes\"}\n")
		got := r.run("diff", "-f", "-")
		golden(t, "config-diff", got.String())
		if strings.Contains(got.out, "hunter") {
			t.Error("a value is shown")
		}
	})
}

// TestDeleteKinds: volumes go after what may have them mounted; what is used is refused by
// the controller, whose words are told.
func TestDeleteKinds(t *testing.T) {
	refs := func(q *orchv1.DeleteRequest) string {
		var out []string
		for _, x := range q.Refs {
			out = append(out, x.Kind+"/"+x.Name)
		}
		return strings.Join(out, " ")
	}
	in(t, store(), func(t *testing.T, r *rig) {
		r.onDelete = func() {
			switch len(r.deletes) {
			case 1:
				r.drop(service("web", 2))
				r.drop(job("migrate", 5, 2))
			case 2:
				r.put(volume("data", "web", 0, "n1", removing))
				time.AfterFunc(time.Second, func() { r.drop(volume("data", "web", 0, "n1")) })
			}
		}
		got := r.run("delete", "volume/data.web-0", "config/app", "service/web", "job/migrate", "secret/db")
		if want := "config/app deleted\nservice/web deleted; its volume is kept: data.web-10 (orchctl volume rm)\njob/migrate deleted\nsecret/db deleted\nvolume/data.web-0 deleted\n"; got.code != 0 || got.out != want || got.err != "orchctl: what was in data.web-0 on n1 is lost\n" {
			t.Errorf("%s\nwant %s", got, want)
		}
		if len(r.deletes) != 2 || refs(r.deletes[0]) != "Config/app Service/web Job/migrate Secret/db" || refs(r.deletes[1]) != "Volume/data.web-0" {
			t.Errorf("%v", r.deletes)
		}
		if got := r.run("delete", "job/report", "volume/nothing.web-0"); got.code != 1 || len(r.deletes) != 2 || !strings.Contains(got.err, "nothing was deleted") {
			t.Errorf("a volume is missing: %s", got)
		}
		r.fail["Delete"] = []error{status.Error(codes.FailedPrecondition, "config default/idle is used by service web (container main, env A): change or delete what uses it first")}
		if got := r.run("delete", "config", "idle"); got.code != 1 || !strings.Contains(got.err, "is used by service web (container main, env A)") {
			t.Error(got)
		}
		if got := r.run("delete", "secret", "tokens", "--wait=false"); got.code != 0 || got.out != "secret/tokens deleted\n" {
			t.Error(got)
		}
	})
}

// TestVolumesKept: the delete of a service names what outlives it, and no more than a line
// has room for.
func TestVolumesKept(t *testing.T) {
	in(t, newFake(service("db", 6), service("web", 1), service("cache", 1, inShop), volume("data", "other", 0, "n1"), volume("data", "cache", 0, "n1", func(v *api.Volume) { v.Metadata.Namespace = "shop" })), func(t *testing.T, r *rig) {
		for i := range 5 {
			r.put(volume("data", "db", i, "n1"))
		}
		r.put(volume("data", "db", 5, "n1", removing))
		for _, c := range []struct{ words, want string }{
			{"delete service db --wait=false", "service/db is being deleted; its volumes are kept: data.db-0, data.db-1, data.db-2 and 2 more (orchctl volume rm)\n"},
			{"delete service web --wait=false", "service/web is being deleted\n"},
			{"delete service shop/cache --wait=false", "service/shop/cache is being deleted; its volume is kept: shop/data.cache-0 (orchctl volume rm)\n"},
		} {
			if got := r.run(strings.Fields(c.words)...); got.code != 0 || got.out != c.want {
				t.Errorf("%s: %s", c.words, got)
			}
		}
		r.onDelete = func() {
			r.drop(service("db", 6))
			r.drop(volume("data", "db", 2, "n1"))
			r.drop(volume("data", "db", 3, "n1"))
			r.drop(volume("data", "db", 4, "n1"))
		}
		if got := r.run("delete", "service/db"); got.code != 0 || got.out != "service/db deleted; its volumes are kept: data.db-0, data.db-1 (orchctl volume rm)\n" {
			t.Error(got)
		}
	})
}

// TestVolumeRemove: what is lost is said; that of a dead node is given up.
func TestVolumeRemove(t *testing.T) {
	in(t, store(), func(t *testing.T, r *rig) {
		r.onDelete = func() { r.put(volume("old", "gone", 0, "n3", removing)) }
		got := r.run("volume", "rm", "old.gone-0")
		if want := (result{"volume/old.gone-0 is given up; n3 is Dead, and removes what is in it when it is back\n", "orchctl: what was in old.gone-0 on n3 is lost\n", 0}); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
		r.onDelete = func() {
			r.put(volume("data", "web", 10, "n2", removing))
			time.AfterFunc(time.Second, func() { r.drop(volume("data", "web", 10, "n2")) })
		}
		if got := r.run("volume", "rm", "volume/data.web-10"); got.code != 0 || got.out != "volume/data.web-10 deleted\n" {
			t.Error(got)
		}
		r.onDelete = func() { r.put(volume("data", "web", 0, "n1", removing)) }
		if got := r.run("volume", "rm", "data.web-0", "--timeout", "2s"); got.code != 1 || !strings.Contains(got.err, "not gone within 2s: volume/data.web-0 is still being deleted") || !strings.Contains(got.err, "`orchctl get volumes -n default`") {
			t.Error(got)
		}
		if got := r.run("volume", "rm", "data.no-0"); got.code != 1 || !strings.Contains(got.err, "nothing was removed") {
			t.Error(got)
		}
	})
}

// TestPruneKinds: all kinds that manifests declare, in one delete.
func TestPruneKinds(t *testing.T) {
	labelled := func(m *api.Metadata) { m.Labels = map[string]string{"set": "site"} }
	conf := func(c *api.Config) { labelled(&c.Metadata) }
	in(t, newFake(service("web", 1, inSet, all(1)), replica("web", 0, 1, "n1", running(true)), config("web", 1, map[string]string{"A": "1"}, nil, conf), secret("old", 1, map[string]string{"A": "1"}, nil, conf),
		config("other", 1, nil, nil), job("old", 1, 1, func(j *api.Job) { labelled(&j.Metadata) }, endsAs(api.JobComplete, ""))), func(t *testing.T, r *rig) {
		r.onApply = func(*orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) {
			return answersOf("unchanged", service("web", 1, inSet, all(1))), nil
		}
		r.onDelete = func() { r.drop(job("old", 1, 1)) }
		dir := folder(t, strings.Split(siteYAML, "---\n")[0])
		if got := r.run("apply", "-f", dir, "--prune", "-l", "set=site", "--dry-run"); !strings.HasSuffix(got.out, "would be deleted: config/web (1 key, 3h)\nwould be deleted: job/old (Complete, 10m)\nwould be deleted: secret/old (1 key, 3h)\n") {
			t.Error(got)
		}
		if got := r.run("apply", "-f", dir, "--prune", "-l", "set=site", "--yes"); got.code != 0 || !strings.HasSuffix(got.out, "config/web deleted\njob/old deleted\nsecret/old deleted\n") || len(r.deletes) != 1 {
			t.Errorf("%s, %v", got, r.deletes)
		}
	})
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"app.ini": "a = 1\n", "logo.png": "\xff\x00", "vars.env": "# what it needs\nA=1\n\nB=x = y \r\n", "bad.env": "A=1\nB\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	in(t, newFake(config("there", 1, nil, nil)), func(t *testing.T, r *rig) {
		r.env.In = strings.NewReader("s3cret\n")
		got := r.run("create", "config", "app", "--from-literal", "LOG=a=b", "--from-file", file("app.ini"), "--from-file", "pic="+file("logo.png"), "--from-file", "word=-", "--from-env-file", file("vars.env"), "--label", "set=site", "--dry-run", "-o", "yaml")
		golden(t, "create", got.String())
		if len(r.calls) > 0 {
			t.Errorf("the controller was asked: %v", r.calls)
		}
		r.env.In = strings.NewReader(got.out) // apply takes it
		if got := r.run("apply", "-f", "-"); got.code != 0 || got.out != "config/app created\n" {
			t.Error(got)
		}
		if got := r.run("create", "secret", "db", "--from-literal", "password=hunter2"); got != (result{out: "secret/db created\n"}) {
			t.Error(got)
		}
		if o := r.applies[1].Objects[0]; o.Kind != api.KindSecret || !strings.Contains(string(o.Json), `"password":"hunter2"`) {
			t.Errorf("sent %s", o.Json)
		}
		if got := r.run("create", "config", "there", "--from-literal", "A=1"); got.code != 1 || len(r.applies) != 2 || !strings.Contains(got.err, "create config/there: it exists already: change it with `orchctl apply`") {
			t.Error(got)
		}
		if got := r.run("create", "config", "all", "--from-file", dir, "--dry-run", "-o", "json"); got.code != 0 || strings.Count(got.out, `.env"`) != 2 || !strings.Contains(got.out, `"app.ini": "a = 1\n"`) {
			t.Errorf("a folder: %s", got)
		}
		for _, c := range []struct{ line, want string }{
			{"--from-env-file " + file("bad.env"), "bad.env:2: want NAME=VALUE"}, {"--from-file a=" + dir, "a folder has several values"},
			{"--from-literal a/b=1", "a/b"}, {"--from-file " + file("app.ini") + " --from-literal app.ini=1", "key app.ini is given twice"},
		} {
			if got := r.run(append([]string{"create", "config", "x", "--dry-run"}, strings.Fields(c.line)...)...); got.code != 2 || !strings.Contains(got.err, c.want) {
				t.Errorf("%s: %s\nwant %q", c.line, got, c.want)
			}
		}
		r.env.In = strings.NewReader(strings.Repeat("x", api.MaxConfigBytes+1))
		if got := r.run("create", "config", "x", "--from-file", "a=-"); got.code != 2 || !strings.Contains(got.err, "more than 500000 bytes") {
			t.Error(got)
		}
	})
}

func TestRotateKey(t *testing.T) {
	in(t, newFake(), func(t *testing.T, r *rig) {
		if got := r.run("secret", "rotate-key"); got != (result{out: "secrets are encrypted with key 77aa now: 12 versions encrypted anew\n"}) {
			t.Error(got)
		}
		r.fail["RotateSecretKey"] = []error{unavailable("no leader")}
		if got := r.run("secret", "rotate-key"); got.code != 1 || r.called("RotateSecretKey") != 2 {
			t.Errorf("it was repeated: %s", got)
		}
		r.fail["RotateSecretKey"] = []error{status.Error(codes.PermissionDenied, "no")}
		if got := r.run("secret", "rotate-key"); got.code != 1 || !strings.Contains(got.err, "the role admin (") {
			t.Error(got)
		}
	})
}

func TestWaitFor(t *testing.T) {
	in(t, store(), func(t *testing.T, r *rig) {
		for _, c := range []struct {
			line string
			code int
			want string
		}{
			{"wait job/report --for complete", 0, "job/report is complete\n"},
			{"wait job/report job/import --for=condition=Complete", 1, "job/report is complete\norchctl: job/import failed: 7 tries failed, backoffLimit is 6: import-0 on n2: exit code 1; last output:\n    no such table [2J\n"},
			{"wait job/import --for failed", 0, "job/import is failed\n"},
			{"wait job/report --for failed", 1, "orchctl: job/report is complete\n"},
			{"wait service/web --for ready", 0, "service/web is ready\n"},
			{"wait service/no --for delete", 0, "service/no is deleted\n"},
			{"wait service/no --for ready", 1, "orchctl: service/no is not there\n"},
			{"wait job/migrate --for complete --timeout 2s", 1, "orchctl: job/migrate is not complete within 2s: 2/5 done\n"},
			{"wait config/app --for deleted --timeout 2s", 1, "orchctl: config/app is not deleted within 2s: it is still there\n"},
		} {
			if got := r.run(strings.Fields(c.line)...); got.code != c.code || got.out+got.err != c.want {
				t.Errorf("%s: %s\nwant %s", c.line, got, c.want)
			}
		}
		time.AfterFunc(3*time.Second, func() { r.put(job("migrate", 5, 2, done(5, 1, 0), endsAs(api.JobComplete, ""))) })
		began := time.Now()
		if got := r.run("wait", "job/migrate", "--for", "complete"); got.code != 0 || time.Since(began) != 3*time.Second {
			t.Errorf("after %s: %s", time.Since(began), got)
		}
	})
}
