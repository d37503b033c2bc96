package orchctl

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
)

// store has configs, secrets, jobs and volumes in all the states that are shown.
func store() *fake {
	hour := api.Duration(time.Hour)
	long := strings.Repeat("x", 100)
	web := service("web", 2, takes, all(2), func(s *api.Service) { s.Status.Revision = 3 })
	pinned := revision(3, api.RolloutComplete, func(r *api.Revision) {
		r.Template, r.Cause = web.Spec.Template, "config app version 3"
		r.Configs = map[api.ConfigRef]int64{"config/app": 3, "secret/db": 1, "secret/tokens": 7}
	})
	before := revision(2, api.RolloutComplete, func(r *api.Revision) {
		r.Template = web.Spec.Template
		r.Configs = map[api.ConfigRef]int64{"config/app": 2, "secret/db": 1, "secret/tokens": 7}
	})
	f := newFake(web, pinned, before,
		replica("web", 0, 17, "n1", running(true), of(3)), replica("web", 1, 18, "n2", running(true), of(3)),
		config("app", 3, map[string]string{"LOG": "debug", "app.ini": "[a]\nb=1\n", "long": long, "esc": "a\x1b[2Jb"}, []string{"web@3", "migrate@1"}, older("web@2"), func(c *api.Config) {
			c.BinaryData, c.Status.Keys["logo.png"] = map[string][]byte{"logo.png": {0xff, 0}}, 2048
		}),
		config("idle", 1, map[string]string{"A": "1"}, nil),
		secret("db", 1, map[string]string{"password": "hunter2", "key": "k"}, []string{"web@2", "web@3", "api@1", "batch@1", "cron@1"}),
		secret("tokens", 7, nil, []string{"web@3"}),
		job("migrate", 5, 2, done(2, 1, 2), func(j *api.Job) { j.Spec.Deadline, j.Spec.TTLAfterFinished = &hour, &hour }),
		job("import", 1, 1, done(0, 7, 0), endsAs(api.JobFailed, "7 tries failed, backoffLimit is 6: import-0 on n2: exit code 1; last output:\nno such table\x1b[2J")),
		job("report", 3, 3, done(3, 0, 0), endsAs(api.JobComplete, "")),
		job("later", 1, 1, done(0, 0, 0, "later-0 pending: 3 nodes: 3 lack 64Mi memory"), func(j *api.Job) { j.Status.StartedAt = time.Time{} }),
		replica("migrate", 2, 30, "n1", running(false), ofJob), replica("migrate", 3, 31, "n2", waits(api.ReasonConfigMissing, "secret default/db version 3 is not on this node yet", nil), ofJob),
		replica("later", 0, 0, "", pending("3 nodes: 3 lack 64Mi memory"), ofJob),
		outcome("migrate", 0, "n1", api.Exit{Reason: api.ExitCompleted}), outcome("migrate", 10, "n2", api.Exit{Reason: api.ExitCompleted}, func(o *api.Outcome) { o.Failures = 2 }),
		outcome("migrate", 3, "n2", api.Exit{Code: 3, Reason: api.ExitError, Output: "cannot open database\n"}),
		outcome("import", 0, "n2", api.Exit{Code: 137, Signal: 9, OOM: true, Reason: api.ExitOutOfMemory}),
		volume("data", "web", 0, "n1", usedBy("web-0@17")), volume("data", "web", 1, "n2", removing), volume("data", "web", 10, "n2"), volume("old", "gone", 0, "n3"),
		node("n1", api.VerdictHealthy), node("n2", api.VerdictHealthy), node("n3", api.VerdictDead),
		event(1, time.Minute, api.KindConfig, "app", api.EventNormal, "Changed", "version 3, by user alice"),
		event(2, time.Minute, api.KindJob, "migrate", api.EventNormal, "Created", "5 completions, by user alice"))
	for i := range outcomesShownMax + 2 {
		f.put(outcome("report", i, "n1", api.Exit{Reason: api.ExitCompleted}))
	}
	return f
}

func TestKindsTables(t *testing.T) {
	in(t, store(), func(t *testing.T, r *rig) {
		var b strings.Builder
		for _, line := range []string{
			"get configs", "get secrets", "get cfg -o wide", "get secret/db -o wide", "get jobs", "get jobs -o wide", "get job migrate -o name", "get outcomes --job migrate", "get outcomes --job job/migrate -o wide",
			"get outcome import@0", "get outcomes --job later", "get outcomes --job nothing", "get outcomes -n shop", "get outcomes -o name", "get volumes", "get vol data.web-0 -o name", "volume ls", "volume ls -A", "get configs,secrets,volumes -n empty", "get jobs -l app=migrate",
			"history service/web",
		} {
			b.WriteString("$ orchctl " + line + "\n" + r.run(strings.Fields(line)...).String() + "\n")
		}
		golden(t, "kinds", b.String())
	})
}

func TestKindsDescribed(t *testing.T) {
	in(t, store(), func(t *testing.T, r *rig) {
		var b strings.Builder
		for _, line := range []string{"describe config app", "describe secret db", "describe job migrate", "describe job import", "describe job later", "describe job report", "describe outcome migrate@3",
			"describe volume data.web-1", "describe volume old.gone-0", "describe service web", "describe replica web-0", "describe replica migrate-3"} {
			b.WriteString("$ orchctl " + line + "\n" + r.run(strings.Fields(line)...).String() + "\n")
		}
		golden(t, "kinds-describe", b.String())
		if strings.Contains(b.String(), "hunter2") {
			t.Error("a secret's value is shown")
		}
	})
}

func TestKindsUsage(t *testing.T) {
	in(t, newFake(), func(t *testing.T, r *rig) {
		for _, c := range []struct{ line, want string }{
			{"get outcome migrate", "outcomes are named JOB@INDEX, such as migrate@0"}, {"get jobs --job migrate", "--job is for the outcomes of a job"},
			{"get cm", `did you mean "config"?`}, {"get pvc", `did you mean "volume"?`}, {"get volumes -l a=b", "-l: volumes have no labels"},
			{"delete outcome migrate@0", "an outcome goes with its job"}, {"delete job", "name the jobs to delete, such as job/web, or give --all"}, {"delete job/migrate --all", "--all is of a type, as in `orchctl delete jobs --all`"}, {"delete --all", "say what to delete"}, {"delete replicas --all", "a replica belongs to its service"}, {"delete fleet x", "only services, jobs, configs, secrets and volumes are"},
			{"scale job/migrate --replicas 3", "only a service is scaled"}, {"rollout undo job/migrate", "jobs have no rollouts: `orchctl describe job migrate -n default`"}, {"history job/migrate", "jobs have no rollouts"}, {"rollout status job shop/migrate", "`orchctl describe job migrate -n shop`"}, {"get all", "did you mean `orchctl get services,jobs,replicas,configs,secrets,volumes`?"}, {"delete volume db-0", "they are named VOLUME.SERVICE-SLOT"}, {"volume rm db-0", `"db-0" is no volume: they are named VOLUME.SERVICE-SLOT`}, {"create secret x", "it would have no values: give --from-literal, --from-file or --from-env-file"}, {"create config x --dry-run", "it would have no values"},
			{"logs config/app", "want a replica, service/NAME or job/NAME"}, {"events --for outcome/migrate@0", "want a service, job, replica, config, secret, volume or node"},
			{"run", "name an image"}, {"run -- echo", "name an image"}, {"run busybox echo hi", "put -- before the command's own words, as in `orchctl run busybox -- echo hi`"},
			{"run -t busybox", "-t without -i"}, {"run -it busybox", "-t needs a terminal"}, {"run -d -i busybox", "-d and -i"}, {"run --command busybox", "the command is missing"},
			{"run --env NO_SUCH_VARIABLE_HERE busybox", "give NO_SUCH_VARIABLE_HERE=VALUE"}, {"run --label x busybox", "--label x: want KEY=VALUE"}, {"run --label a=1 --label a=2 busybox", "--label: a is given twice"},
			{"run --name Big busybox", "metadata.name"}, {"run Big:1", "orchctl: run: image: "},
			{"attach", "usage: orchctl attach"}, {"attach service/web", "only a job waits for somebody"},
			{"volume rm", "usage: orchctl volume rm"}, {"volume rm service/web", "is no volume"}, {"volume prune", "`orchctl volume --help` lists them"}, {"secret rotate-key now", `unexpected argument "now"`},
			{"wait job/migrate", "say what to wait for: --for complete, failed, ready or deleted"}, {"wait job/migrate --for done", `--for "done": want complete, failed, ready or deleted`}, {"wait job/migrate --for ready", "a job does not become ready: --for ready is of a service"}, {"wait jobs --for complete", "name what to wait for, such as job/web"},
			{"create config", "usage: orchctl create config NAME"}, {"create config app --from-literal x", "--from-literal: want KEY=VALUE"}, {"create secret app --from-literal a=1 --from-literal a=2", "key a is given twice"},
			{"create config app --from-file -", "standard input has no name: give KEY=-"}, {"create config app --from-file a=- --from-env-file -", "standard input can be read once"}, {"create config app --from-file /no/such", "no such file"},
			{"create config app -o yaml", "give --dry-run too"}, {"create config app --dry-run -o wide", "want yaml, json"}, {"create config App --from-literal A=1 --dry-run", "metadata.name"}, {"create configmap app", "did you mean `orchctl create config`?"},
			{"create configmap app --from-literal a=1", "did you mean `orchctl create config`?"}, {"create job app --image a", "use `orchctl run IMAGE`"}, {"create secret generic app --from-literal a=1", `leave out "generic", as in`},
			{"create config app --dry-run=client -o yaml", "--dry-run takes no value"}, {"secret ls", "did you mean `orchctl get secrets`?"}, {"config ls", "did you mean `orchctl get configs`?"}, {"job ls", "did you mean `orchctl get jobs`"},
			{"create config app --from-literal =x", "the key is missing"},
		} {
			got := r.run(strings.Fields(c.line)...)
			if got.code != 2 || !strings.HasPrefix(got.err, "orchctl: ") || !strings.Contains(got.err, c.want) || got.out != "" {
				t.Errorf("%s: %s\nwant %q and exit 2", c.line, got, c.want)
			}
		}
		if len(r.calls) > 0 {
			t.Errorf("the controller was asked: %v", r.calls)
		}
	})
}

func TestKindsComplete(t *testing.T) {
	in(t, store(), func(t *testing.T, r *rig) {
		for _, c := range []struct{ line, want string }{
			{"get job |", "import later migrate report :4"}, {"describe config/a|", "config/app :4"}, {"delete secret |", "db tokens :4"}, {"logs job/m|", "job/migrate :4"}, {"get outcome |", ":4"},
			{"get outcomes --job m|", "migrate :4"}, {"volume rm old|", "old.gone-0 :4"}, {"wait job/r|", "job/report :4"}, {"get vol|", "volume volumes :4"},
		} {
			words := strings.Split(strings.TrimSuffix(c.line, "|"), " ")
			got := r.run(append([]string{"__complete"}, words...)...)
			if have := strings.Join(strings.Fields(got.out), " "); have != c.want {
				t.Errorf("%s\ngot  %s\nwant %s", c.line, have, c.want)
			}
		}
	})
}

// TestVersionsInHistory: other values are a change like others.
func TestVersionsInHistory(t *testing.T) {
	old, now := revision(1, api.RolloutComplete), revision(1, api.RolloutComplete)
	old.Configs = map[api.ConfigRef]int64{"config/app": 2, "secret/db": 1}
	now.Configs = map[api.ConfigRef]int64{"config/app": 3, "secret/db": 1, "config/new": 1}
	if got := changeWords(old, now); got != "config app 2 -> 3" {
		t.Error(got)
	}
}

func TestSizes(t *testing.T) {
	var got []string
	for _, n := range []int{0, 1023, 1024, 1536, 3 << 20} {
		got = append(got, sizeText(n))
	}
	if text := fmt.Sprint(got); text != "[0 B 1023 B 1 KiB 1.5 KiB 3 MiB]" {
		t.Error(text)
	}
}

// TestMeant: who names a job or a service where something else is wanted is told what it is.
func TestMeant(t *testing.T) {
	in(t, newFake(job("fails", 1, 1, endsAs(api.JobFailed, "")), service("web", 2)), func(t *testing.T, r *rig) {
		for _, c := range []struct {
			words string
			err   error
			code  int
			want  string
		}{
			{"logs fails", status.Error(codes.NotFound, "replica default/fails: not found"), 1, "replica default/fails: not found\norchctl: did you mean job/fails?\n"},
			{"logs web", status.Error(codes.InvalidArgument, "replica \"web\" is ambiguous: it could be web-0, web-1"), 2, "it could be web-0, web-1\norchctl: did you mean service/web?\n"},
			{"logs none", status.Error(codes.NotFound, "replica default/none: not found"), 1, "replica default/none: not found\n"},
			{"rollout status fails", nil, 2, "orchctl: jobs have no rollouts: `orchctl describe job fails -n default` tells how it went\n"},
			{"history fails", nil, 2, "orchctl: jobs have no rollouts: `orchctl describe job fails -n default` tells how it went\n"},
			{"history none", nil, 1, "none is not there\n"},
		} {
			if c.err != nil {
				r.fail["Logs"] = []error{c.err}
			}
			if got := r.run(strings.Fields(c.words)...); got.code != c.code || !strings.HasSuffix(got.err, c.want) {
				t.Errorf("%s: %s\nwant %s", c.words, got, c.want)
			}
		}
	})
	s := &execSession{attach: true}
	if got := string(s.plain([]byte("shim: attach: somebody is attached already\n"))); got != "somebody is attached already\n" {
		t.Error(got)
	}
	if got := string(s.plain([]byte(attachRefused))); got != attachRefused { // the command's own words
		t.Error(got)
	}
}
