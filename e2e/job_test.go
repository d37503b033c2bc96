package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/e2e/rig"
)

// TestJobs: what is promised of jobs while every node is well. All at once, each with a
// job of its own.
func TestJobs(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"complete": jobCompletes, "fails": jobFails, "tries-again": jobTriesAgain, "deadline": jobDeadline, "ttl": jobTTL, "deleted": jobDeleted,
		"run": runOnce, "run-stdin": runReads, "run-fails": runFails,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}

// job makes a manifest of the web image; spec is YAML of the job's spec, args are those
// of the web program.
func job(name, spec, args string) string {
	return fmt.Sprintf(`apiVersion: orch/v1
kind: Job
metadata: {name: %s}
spec:
  %s
  restartPolicy: {backOff: 200ms}
  containers: [{name: main, image: "orch.local/web:1.0", args: [%s]}]
`, name, spec, args)
}

func jobOf(t *testing.T, name string) (*api.Job, error) {
	t.Helper()
	all, err := rig.List[api.Job](t.Context(), fleet, api.KindJob, api.DefaultNamespace)
	if err != nil {
		return nil, err
	}
	for _, j := range all {
		if j.Metadata.Name == name {
			return &j, nil
		}
	}
	return nil, fmt.Errorf("there is no job %s", name)
}

// ends waits for a job's end.
func ends(t *testing.T, name string, state api.JobState, within time.Duration) *api.Job {
	t.Helper()
	var last *api.Job
	must(t, rig.Until(t.Context(), within, "job "+name+" to be "+string(state), func() error {
		j, err := jobOf(t, name)
		if err != nil {
			return err
		}
		if last = j; j.Status.State != state {
			return fmt.Errorf("it is %s: %d done, %d run, %d failed: %s %s", j.Status.State, j.Status.Succeeded, j.Status.Active, j.Status.Failed, j.Status.Why, strings.Join(j.Status.Reasons, "; "))
		}
		return nil
	}))
	return last
}

func outcomes(t *testing.T, name string) []api.Outcome {
	t.Helper()
	all, err := fleet.Outcomes(t.Context(), name)
	must(t, err)
	return all
}

// completed checks that each index of a job was completed, once.
func completed(t *testing.T, name string, indexes int) []api.Outcome {
	t.Helper()
	all := outcomes(t, name)
	done := map[int]bool{}
	var out []api.Outcome
	for _, o := range all {
		if !o.Succeeded || done[o.Index] || o.Index < 0 || o.Index >= indexes {
			t.Errorf("outcome %+v", o)
		}
		done[o.Index] = true
		out = append(out, o)
	}
	if len(done) != indexes {
		t.Errorf("%d indexes of %s are completed, want %d", len(done), name, indexes)
	}
	return out
}

func jobCompletes(t *testing.T) {
	ctx := t.Context()
	removeLater(t, "job/five")
	dir := folder(t)
	yaml := job("five", "completions: 5\n  parallelism: 2", fmt.Sprintf(`-note, "%s/ran=x", -exit, "0", -wait, 300ms`, dir))
	yaml = strings.Replace(yaml, "args:", fmt.Sprintf("mounts: [{path: %s, bind: %s}], args:", dir, dir), 1)
	most, err := fleet.Most(ctx, "five")
	must(t, err)
	out, errs, code := fleet.OrchctlIn(ctx, strings.NewReader(yaml), "apply", "-f", "-", "--timeout", "60s")
	if code != 0 {
		t.Fatalf("apply: exit %d\n%s%s", code, out, errs)
	}
	contains(t, "apply", out+errs, "job/five", "5/5")
	atOnce, err := most()
	must(t, err)
	if atOnce != 2 {
		t.Errorf("%d replicas ran at once, want 2", atOnce)
	}
	j := ends(t, "five", api.JobComplete, time.Second)
	if s := j.Status; s.Succeeded != 5 || s.Failed != 0 || s.Active != 0 {
		t.Errorf("status %+v", s)
	}
	completed(t, "five", 5)
	if n := len(lines(t, dir+"/ran")); n != 5 {
		t.Errorf("%d containers were started, want 5", n)
	}
	contains(t, "get", orchctl(t, "get", "jobs"), "five", "5/5", "Complete")
	contains(t, "describe", orchctl(t, "describe", "job", "five"), "Complete", "exit code 0")
	contains(t, "logs", orchctl(t, "logs", "job/five"), "ending with code 0")
	contains(t, "apply again", orchctl(t, "apply", "-f", write(t, yaml)), "unchanged")
	_, errs, code = fleet.OrchctlIn(ctx, strings.NewReader(strings.Replace(yaml, "300ms", "301ms", 1)), "apply", "-f", "-")
	if code != 2 {
		t.Errorf("apply of another template: exit %d, want 2", code)
	}
	contains(t, "apply of another template", errs, "template cannot change")
	_, errs, code = fleet.OrchctlIn(ctx, strings.NewReader(service("five", 1, "", httpProbe)), "apply", "-f", "-")
	if code != 2 {
		t.Errorf("apply of a service of a job's name: exit %d, want 2", code)
	}
	contains(t, "apply of a service of a job's name", errs, "job", "five")
	must(t, rig.Until(ctx, 20*time.Second, "its containers to be gone", func() error {
		for name := range containers(t) {
			if strings.Contains(name, "five-") {
				return fmt.Errorf("%s is there", name)
			}
		}
		return nil
	}))
}

func jobFails(t *testing.T) {
	removeLater(t, "job/fails")
	out, errs, code := fleet.OrchctlIn(t.Context(), strings.NewReader(job("fails", "backoffLimit: 2", `-exit, "7"`)), "apply", "-f", "-", "--timeout", "60s")
	if code != 1 {
		t.Errorf("apply of a job that fails: exit %d, want 1", code)
	}
	contains(t, "apply", out+errs, "exit code 7", "ending with code 7")
	j := ends(t, "fails", api.JobFailed, time.Second)
	if j.Status.Failed != 3 || j.Status.Succeeded != 0 || !strings.Contains(j.Status.Why, "exit code 7") {
		t.Errorf("status %+v", j.Status)
	}
	contains(t, "describe", orchctl(t, "describe", "job", "fails"), "Failed", "exit code 7")
}

// jobTriesAgain: what fails once is done all the same.
func jobTriesAgain(t *testing.T) {
	removeLater(t, "job/again")
	dir := folder(t)
	// The file cannot be printed until somebody has made it.
	yaml := job("again", "backoffLimit: 100", "-cat, "+dir+"/made")
	yaml = strings.Replace(yaml, "args:", fmt.Sprintf("mounts: [{path: %s, bind: %s}], args:", dir, dir), 1)
	must(t, fleet.ApplyText(t.Context(), yaml, false))
	must(t, rig.Until(t.Context(), 20*time.Second, "two tries to fail", func() error {
		if j, err := jobOf(t, "again"); err != nil || j.Status.Failed < 2 {
			return fmt.Errorf("not yet: %v", err)
		}
		return nil
	}))
	followed := make(chan string, 1)
	go func() { // it ends with the job
		out, errs, code := fleet.Orchctl(t.Context(), "logs", "-f", "job/again")
		followed <- fmt.Sprintf("%s%s exit %d", out, errs, code)
	}()
	must(t, os.WriteFile(dir+"/made", []byte("at last\n"), 0o644))
	j := ends(t, "again", api.JobComplete, 30*time.Second)
	if o := completed(t, "again", 1); len(o) == 1 && (o[0].Failures != j.Status.Failed || o[0].Failures < 2) {
		t.Errorf("outcome %+v of status %+v", o[0], j.Status)
	}
	contains(t, "logs", orchctl(t, "logs", "job/again"), "at last")
	select {
	case said := <-followed:
		contains(t, "followed logs", said, "at last", "exit 0")
	case <-time.After(runMax):
		t.Error("logs -f of a job that has ended goes on")
	}
}

func jobDeadline(t *testing.T) {
	removeLater(t, "job/late")
	out, errs, code := fleet.OrchctlIn(t.Context(), strings.NewReader(job("late", "deadline: 2s", `-exit, "0", -wait, 1h`)), "apply", "-f", "-", "--timeout", "60s")
	if code != 1 {
		t.Errorf("apply of a job beyond its deadline: exit %d, want 1", code)
	}
	contains(t, "apply", out+errs, "deadline")
	if j := ends(t, "late", api.JobFailed, time.Second); !strings.Contains(j.Status.Why, "deadline") || j.Status.Failed != 0 {
		t.Errorf("status %+v", j.Status)
	}
	must(t, rig.Until(t.Context(), 20*time.Second, "its replica to be gone", func() error {
		if n := len(replicas(t, "late")); n > 0 {
			return fmt.Errorf("%d are there", n)
		}
		return nil
	}))
}

func jobTTL(t *testing.T) {
	must(t, fleet.ApplyText(t.Context(), job("brief", "ttlAfterFinished: 1s", `-exit, "0"`), true))
	must(t, rig.Until(t.Context(), 20*time.Second, "the job to be gone", func() error {
		if _, err := jobOf(t, "brief"); err == nil {
			return fmt.Errorf("it is there")
		}
		return nil
	}))
	if left := outcomes(t, "brief"); len(left) > 0 {
		t.Errorf("its outcome is left: %+v", left)
	}
}

func jobDeleted(t *testing.T) {
	must(t, fleet.ApplyText(t.Context(), job("doomed", "completions: 3\n  parallelism: 3", `-exit, "0", -wait, 1h`), false))
	must(t, rig.Until(t.Context(), 20*time.Second, "its replicas to run", func() error {
		if j, err := jobOf(t, "doomed"); err != nil || j.Status.Active != 3 {
			return fmt.Errorf("not yet: %v", err)
		}
		return nil
	}))
	must(t, fleet.Must(t.Context(), "delete", "job/doomed"))
	if _, err := jobOf(t, "doomed"); err == nil {
		t.Error("delete came back, and the job is there")
	}
}

// runMax is more than anything takes that is run once here.
const runMax = 30 * time.Second

func runOnce(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), runMax)
	defer cancel()
	out, errs, code := fleet.Orchctl(ctx, "run", "--rm", "--name", "once", "orch.local/web:1.0", "--", "-exit", "0", "-wait", "200ms")
	if code != 0 || strings.TrimSpace(out) != "ending with code 0" {
		t.Errorf("run: exit %d, printed %q\n%s", code, out, errs)
	}
	if _, err := jobOf(t, "once"); err == nil {
		t.Error("run --rm left its job")
	}
}

func runFails(t *testing.T) {
	removeLater(t, "job/sour")
	ctx, cancel := context.WithTimeout(t.Context(), runMax)
	defer cancel()
	out, errs, code := fleet.Orchctl(ctx, "run", "--name", "sour", "orch.local/web:1.0", "--", "-exit", "42")
	if code != 42 {
		t.Errorf("run of what ends with 42: exit %d, printed %q\n%s", code, out, errs)
	}
	if j, err := jobOf(t, "sour"); err != nil || j.Status.State != api.JobFailed {
		t.Errorf("run without --rm left %+v, %v", j, err)
	}
}

// runReads: what is typed arrives, and the end of it too.
func runReads(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), runMax)
	defer cancel()
	out, errs, code := fleet.OrchctlIn(ctx, strings.NewReader("to whom it may concern\n"), "run", "--rm", "-i", "--name", "reads", "orch.local/web:1.0", "--", "-cat", "/dev/stdin")
	if code != 0 || out != "to whom it may concern\n" {
		t.Errorf("run -i: exit %d, printed %q\n%s", code, out, errs)
	}
}

// TestJobOutlivesANode: a node dies with two of a job's replicas; the job completes all its
// indexes, each counted once, and those that were done are not done again.
func TestJobOutlivesANode(t *testing.T) {
	ctx := t.Context()
	removeLater(t, "job/hardy")
	must(t, fleet.ApplyText(ctx, job("hardy", "completions: 9\n  parallelism: 6", `-exit, "0", -wait, 2s`), false))
	var node string
	must(t, rig.Until(ctx, 30*time.Second, "six replicas to run after some were done", func() error {
		j, err := jobOf(t, "hardy")
		if err != nil || j.Status.Succeeded == 0 {
			return fmt.Errorf("not yet: %v", err)
		}
		for _, r := range replicas(t, "hardy") {
			if r.Status.Phase == api.PhaseRunning {
				node = r.Spec.Node
				return nil
			}
		}
		return fmt.Errorf("none runs")
	}))
	must(t, fleet.Lab.KillNode(ctx, node))
	j := ends(t, "hardy", api.JobComplete, 60*time.Second)
	if j.Status.Succeeded != 9 || j.Status.Failed != 0 {
		t.Errorf("status %+v: the death of a node is no failure of the job", j.Status)
	}
	before := completed(t, "hardy", 9)
	must(t, fleet.Lab.StartNode(ctx, node))
	must(t, fleet.WaitNode(ctx, node, api.VerdictHealthy, 20*time.Second))
	must(t, rig.Until(ctx, 20*time.Second, "nothing of the job to run", func() error {
		if n := len(replicas(t, "hardy")); n > 0 {
			return fmt.Errorf("%d replicas are there", n)
		}
		return nil
	}))
	after := completed(t, "hardy", 9)
	for i := range after {
		if len(before) == len(after) && after[i].Epoch != before[i].Epoch {
			t.Errorf("outcome %+v was %+v", after[i], before[i])
		}
	}
}

// TestJobOutlivesTheController: the controller is killed again and again while a job runs.
func TestJobOutlivesTheController(t *testing.T) {
	ctx := t.Context()
	removeLater(t, "job/steady")
	dir := folder(t)
	yaml := job("steady", "completions: 12\n  parallelism: 3", fmt.Sprintf(`-note, "%s/ran=x", -exit, "0", -wait, 700ms`, dir))
	yaml = strings.Replace(yaml, "args:", fmt.Sprintf("mounts: [{path: %s, bind: %s}], args:", dir, dir), 1)
	must(t, fleet.ApplyText(ctx, yaml, false))
	for range 3 {
		time.Sleep(900 * time.Millisecond) // somewhere in the middle of something
		must(t, fleet.Lab.StopController(ctx, sigkill))
		must(t, fleet.Lab.StartController(ctx))
		must(t, fleet.WaitNodes(ctx, len(nodes)))
	}
	j := ends(t, "steady", api.JobComplete, 60*time.Second)
	if j.Status.Succeeded != 12 || j.Status.Failed != 0 {
		t.Errorf("status %+v", j.Status)
	}
	completed(t, "steady", 12)
	if n := len(lines(t, dir+"/ran")); n != 12 {
		t.Errorf("%d containers were started, want 12: no node was lost", n)
	}
}
