package e2e

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/e2e/rig"
	"github.com/orchctl/orch/internal/follow"
	"github.com/orchctl/orch/internal/ociimage"
)

// TestRollouts: what is promised of rollouts while every node is well. All at once,
// each with a service of its own: they mostly wait.
func TestRollouts(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"crash": crashRollsBack, "hang": hangRollsBack, "missing": missingImageRollsBack, "kept": noRollbackWhereNoneIsWanted,
		"canary": canary, "words": words, "recreate": recreate, "digest": digestIsPinned,
		"elsewhere": triedElsewhere,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}

// rolling makes a service whose replicas are restarted soon after an end, so that a
// crash is known for one in a second; args are those of the web program.
func rolling(name string, replicas int, rollout, args string) string {
	return service(name, replicas, "  rollout: {"+rollout+"}\n  restartPolicy: {backOff: 200ms}", httpProbe+"\n      args: ["+args+"]")
}

// applyFailing begins to apply what cannot be rolled out; said waits for the end and
// gives what orchctl said.
func applyFailing(t *testing.T, yaml string) (said func() string) {
	t.Helper()
	var out, errs string
	code, done := 0, make(chan struct{})
	go func() {
		defer close(done)
		out, errs, code = fleet.OrchctlIn(t.Context(), strings.NewReader(yaml), "apply", "-f", "-", "--timeout", "60s")
	}()
	return func() string {
		t.Helper()
		<-done
		if code != 1 {
			t.Errorf("apply of what cannot be rolled out: exit %d, want 1\n%s%s", code, out, errs)
		}
		return out + errs
	}
}

// lowest fails the test if fewer than floor replicas were ready at any time between
// now and its call.
func lowest(t *testing.T, name string, floor int) (check func()) {
	t.Helper()
	stop, err := fleet.Lowest(t.Context(), name)
	must(t, err)
	return func() {
		t.Helper()
		low, err := stop()
		must(t, err)
		if low < floor {
			t.Errorf("only %d replicas of %s were ready at some time, want at least %d", low, name, floor)
		}
	}
}

func contains(t *testing.T, what, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%s does not say %q:\n%s", what, w, text)
		}
	}
}

// stays fails the test if a condition that holds ceases to within d.
func stays(t *testing.T, d time.Duration, what string, cond func() error) {
	t.Helper()
	var broken error
	err := rig.Until(t.Context(), d, what, func() error {
		if broken = cond(); broken != nil {
			return nil
		}
		return errors.New("it holds")
	})
	if broken != nil || err == nil {
		t.Errorf("%s did not last: %v", what, broken)
	}
}

func orchctl(t *testing.T, args ...string) string {
	t.Helper()
	out, errs, code := fleet.Orchctl(t.Context(), args...)
	if code != 0 {
		t.Fatalf("orchctl %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// rolledBack checks that revision 2 of a service was taken back and revision 3 is
// what revision 1 was, rolled out; why are words that must be said of revision 2.
func rolledBack(t *testing.T, name string, replicas int, why ...string) {
	t.Helper()
	ctx := t.Context()
	must(t, fleet.WaitRollout(ctx, name, 3, api.RolloutComplete, 20*time.Second))
	must(t, fleet.WaitReady(ctx, name, replicas, 20*time.Second))
	all, err := fleet.Revisions(ctx, name)
	must(t, err)
	var states []api.RolloutState
	for _, r := range all {
		states = append(states, r.Rollout.State)
	}
	if want := []api.RolloutState{api.RolloutComplete, api.RolloutRolledBack, api.RolloutComplete}; !slices.Equal(states, want) {
		t.Fatalf("revisions of %s are %v, want %v", name, states, want)
	}
	contains(t, "why revision 2 was rolled back", all[1].Rollout.Why, why...)
	if all[2].By != "orch" {
		t.Errorf("revision 3 was made by %q", all[2].By)
	}
	contains(t, "the cause of revision 3", all[2].Cause, "rollback from revision 2")
	if got, want := all[2], all[0]; !reflect.DeepEqual(got.Template, want.Template) || !maps.Equal(got.Images, want.Images) {
		t.Errorf("revision 3 is not what revision 1 was:\n%+v\n%+v", got, want)
	}
	contains(t, "orchctl history", orchctl(t, "history", "service/"+name), "RolledBack", "rollback from revision 2")
	contains(t, "the events", orchctl(t, "events", "-A"), "RolledBack")
}

func crashRollsBack(t *testing.T) {
	apply(t, "crash", rolling("crash", 3, "", ""))
	floor := lowest(t, "crash", 3)
	began := time.Now()
	said := applyFailing(t, rolling("crash", 3, "", "-crash-after, 0s"))()
	t.Logf("rolled back %s after the apply", time.Since(began).Round(time.Millisecond))
	contains(t, "apply", said, "rolled back", "cannot open database", "code 3")
	rolledBack(t, "crash", 3, "cannot open database", "code 3")
	floor()
}

func hangRollsBack(t *testing.T) {
	apply(t, "hang", rolling("hang", 3, "progressDeadline: 5s", ""))
	floor := lowest(t, "hang", 3)
	began := time.Now()
	said := applyFailing(t, rolling("hang", 3, "progressDeadline: 5s", "-never-ready"))()
	if took := time.Since(began); took < 5*time.Second {
		t.Errorf("rolled back after %s, before its deadline of 5 s", took)
	}
	contains(t, "apply", said, "rolled back")
	rolledBack(t, "hang", 3, "no progress for 5s: hang-")
	floor()
}

func missingImageRollsBack(t *testing.T) {
	const missing = "orch.local/nothing:2"
	first := rolling("missing-image", 3, "", "")
	apply(t, "missing-image", first)
	floor := lowest(t, "missing-image", 3)
	began := time.Now()
	said := applyFailing(t, strings.Replace(first, "orch.local/web:1.0", missing, 1))
	must(t, rig.Until(t.Context(), 3*time.Second, "the missing image to be told", func() error {
		s, err := fleet.Service(t.Context(), "missing-image")
		if err != nil {
			return err
		}
		if text := s.Status.Rollout.Why + strings.Join(s.Status.Reasons, "; "); !strings.Contains(text, missing) {
			return fmt.Errorf("the service says %q", text)
		}
		return nil
	}))
	t.Logf("told %s after the apply", time.Since(began).Round(time.Millisecond))
	contains(t, "apply", said(), "rolled back", missing)
	rolledBack(t, "missing-image", 3, missing)
	floor()
}

// noRollbackWhereNoneIsWanted: what serves goes on.
func noRollbackWhereNoneIsWanted(t *testing.T) {
	ctx := t.Context()
	apply(t, "kept", rolling("kept", 3, "autoRollback: false", ""))
	floor := lowest(t, "kept", 3)
	contains(t, "apply", applyFailing(t, rolling("kept", 3, "autoRollback: false", "-crash-after, 0s"))(), "cannot open database")
	must(t, fleet.WaitRollout(ctx, "kept", 2, api.RolloutFailed, 10*time.Second))
	out, errs, code := fleet.Orchctl(ctx, "rollout", "status", "service/kept")
	if code != 1 {
		t.Errorf("rollout status of a failed rollout: exit %d, want 1\n%s%s", code, out, errs)
	}
	must(t, fleet.Must(ctx, "rollout", "undo", "service/kept"))
	must(t, fleet.WaitRollout(ctx, "kept", 3, api.RolloutComplete, 20*time.Second))
	floor()
}

// canary: the first step ends by itself, the second waits for a word.
func canary(t *testing.T) {
	const steps = "canary: [{replicas: 1, pause: 1s}, {replicas: 50%}]"
	ctx := t.Context()
	apply(t, "canary", rolling("canary", 4, steps, ""))
	must(t, fleet.WaitRollout(ctx, "canary", 1, api.RolloutComplete, 10*time.Second)) // the first revision knows no steps
	floor := lowest(t, "canary", 3)
	most := map[int]int{} // replicas of revision 2 that were seen at once, by step
	stop, err := fleet.Watch(ctx, func(v *follow.View) {
		s := v.Services[api.Key{Namespace: api.DefaultNamespace, Name: "canary"}]
		if s.Status.Rollout.Step > 0 {
			most[s.Status.Rollout.Step] = max(most[s.Status.Rollout.Step], s.Status.Updated)
		}
	})
	must(t, err)
	must(t, fleet.ApplyText(ctx, rolling("canary", 4, steps, "-quiet"), false))
	began := time.Now()
	must(t, rig.Until(ctx, 15*time.Second, "the second step to wait", func() error {
		s, err := fleet.Service(ctx, "canary")
		if err != nil {
			return err
		}
		if r := s.Status.Rollout; r.State != api.RolloutPaused || r.Step != 2 || s.Status.UpdatedReady != 2 {
			return fmt.Errorf("step %d is %s, %d updated", r.Step, r.State, s.Status.UpdatedReady)
		}
		return nil
	}))
	if took := time.Since(began); took < time.Second {
		t.Errorf("the second step came %s after the first, which pauses for 1 s", took)
	}
	stays(t, time.Second, "the second step, which only a word ends", func() error {
		s, err := fleet.Service(ctx, "canary")
		if err == nil && (s.Status.Rollout.State != api.RolloutPaused || s.Status.Updated != 2) {
			err = fmt.Errorf("it is %s, %d updated", s.Status.Rollout.State, s.Status.Updated)
		}
		return err
	})
	must(t, fleet.Must(ctx, "rollout", "resume", "service/canary"))
	must(t, fleet.WaitRollout(ctx, "canary", 2, api.RolloutComplete, 15*time.Second))
	must(t, fleet.WaitReady(ctx, "canary", 4, 10*time.Second))
	must(t, stop())
	if most[1] != 1 || most[2] != 2 {
		t.Errorf("replicas with the new revision in each step: %v, want 1 and 2", most)
	}
	floor()
}

// words: pause, an apply while paused, resume, undo, restart.
func words(t *testing.T) {
	const bounds = "maxSurge: 1, maxUnavailable: 0, minReady: 300ms"
	ctx := t.Context()
	apply(t, "words", rolling("words", 3, bounds, ""))
	must(t, fleet.WaitRollout(ctx, "words", 1, api.RolloutComplete, 10*time.Second))
	floor := lowest(t, "words", 3)
	updated := func() (int, *api.Service) {
		s, err := fleet.Service(ctx, "words")
		must(t, err)
		return s.Status.Updated, s
	}
	must(t, fleet.ApplyText(ctx, rolling("words", 3, bounds, "-quiet"), false))
	must(t, rig.Until(ctx, 10*time.Second, "the first replica of revision 2", func() error {
		if n, _ := updated(); n == 0 {
			return errors.New("none has it")
		}
		return nil
	}))
	must(t, fleet.Must(ctx, "rollout", "pause", "service/words"))
	must(t, fleet.WaitRollout(ctx, "words", 2, api.RolloutPaused, 2*time.Second))
	if n, s := updated(); n == 0 || n == 3 || s.Status.Rollout.PausedBy == "" {
		t.Errorf("paused by %q with %d of 3 updated", s.Status.Rollout.PausedBy, n)
	}
	must(t, fleet.ApplyText(ctx, rolling("words", 3, bounds, "-quiet, -load"), false))
	must(t, fleet.WaitRollout(ctx, "words", 3, api.RolloutPaused, 2*time.Second))
	must(t, fleet.Must(ctx, "rollout", "resume", "service/words"))
	must(t, fleet.WaitRollout(ctx, "words", 3, api.RolloutComplete, 20*time.Second))

	must(t, fleet.Must(ctx, "rollout", "undo", "service/words"))
	must(t, fleet.WaitRollout(ctx, "words", 4, api.RolloutComplete, 20*time.Second))
	// Revision 2 was never complete, so that one step back is revision 1.
	all, err := fleet.Revisions(ctx, "words")
	must(t, err)
	if got := all[3].Template.Containers[0].Args; len(got) != 0 || all[1].Rollout.State != api.RolloutSuperseded {
		t.Errorf("undone to %v, from which revision 1 has none; revision 2 is %s", got, all[1].Rollout.State)
	}
	must(t, fleet.Must(ctx, "rollout", "undo", "service/words", "--to-revision", "2"))
	must(t, fleet.WaitRollout(ctx, "words", 5, api.RolloutComplete, 20*time.Second))
	before := epochs(t, "words")
	must(t, fleet.Must(ctx, "rollout", "restart", "service/words"))
	must(t, fleet.WaitRollout(ctx, "words", 6, api.RolloutComplete, 20*time.Second))
	for slot, epoch := range epochs(t, "words") {
		if epoch == before[slot] {
			t.Errorf("words-%d was not restarted", slot)
		}
	}
	last, err := fleet.Revision(ctx, "words", 6)
	must(t, err)
	if got := last.Template.Containers[0].Args; !slices.Equal(got, []string{"-quiet"}) || last.Cause != "restart" {
		t.Errorf("revision 6 has %v by cause %q, want what revision 2 had, by restart", got, last.Cause)
	}
	_, errs, code := fleet.Orchctl(ctx, "rollout", "undo", "service/words", "--to-revision", "99")
	if code != 1 || !strings.Contains(errs, "99") {
		t.Errorf("undo to a revision that never was: exit %d: %s", code, errs)
	}
	floor()
}

// epochs gives those of a service's replicas that run, by slot.
func epochs(t *testing.T, name string) map[int]uint64 {
	t.Helper()
	out := map[int]uint64{}
	for _, r := range replicas(t, name) {
		if !r.Status.Phase.Ended() && r.Status.Phase != api.PhaseStopping {
			out[r.Spec.Slot] = r.Spec.Epoch
		}
	}
	return out
}

// recreate: nothing of the new revision beside anything of the old.
func recreate(t *testing.T) {
	ctx := t.Context()
	apply(t, "recreate", rolling("recreate", 3, "strategy: recreate", ""))
	beside := ""
	stop, err := fleet.Watch(ctx, func(v *follow.View) {
		revisions := map[int64]string{}
		for _, all := range v.Of("recreate") {
			for _, r := range all {
				if p := r.Status.Phase; !p.Ended() && !p.Before(api.PhasePreparing) {
					revisions[r.Spec.Revision] = fmt.Sprintf("%s@%d is %s", r.Metadata.Name, r.Spec.Epoch, p)
				}
			}
		}
		if len(revisions) > 1 {
			beside = fmt.Sprint(revisions)
		}
	})
	must(t, err)
	must(t, fleet.ApplyText(ctx, rolling("recreate", 3, "strategy: recreate", "-quiet"), true))
	must(t, fleet.WaitRollout(ctx, "recreate", 2, api.RolloutComplete, 10*time.Second))
	must(t, stop())
	if beside != "" {
		t.Errorf("replicas of two revisions were there at once: %s", beside)
	}
}

// otherImage packs the web program as an image of that name, told apart by its VERSION,
// and from every other run's: nodes keep what was pinned.
func otherImage(t *testing.T, ref, version string) string {
	t.Helper()
	bin, err := os.ReadFile(filepath.Join(rig.Root(), "bin", "web"))
	must(t, err)
	f, err := os.Create(filepath.Join(t.TempDir(), version+".tar"))
	must(t, err)
	must(t, ociimage.Pack(f, ociimage.Options{Ref: ref, Files: map[string]ociimage.File{"/bin/web": {Data: bin, Mode: 0o755}},
		Entrypoint: []string{"/bin/web"}, Env: []string{"VERSION=" + version, "MADE=" + time.Now().Format(time.RFC3339Nano)}, User: "65534:65534"}))
	must(t, f.Close())
	return f.Name()
}

// digestIsPinned: a tag that means something else now does not change what runs; a
// restart takes what it means now.
func digestIsPinned(t *testing.T) {
	const ref = "orch.local/moved:1.0"
	ctx := t.Context()
	// Brought past orch: what is loaded is brought again to a node that lacks it.
	one := otherImage(t, ref, "one")
	for _, n := range nodes {
		must(t, fleet.ImportImage(ctx, n, one))
	}
	yaml := strings.Replace(service("moved", 1, "", httpProbe), "orch.local/web:1.0", ref, 1)
	apply(t, "moved", yaml)
	first, err := fleet.Revision(ctx, "moved", 1)
	must(t, err)
	pinned := first.Images[ref]
	if !strings.HasPrefix(pinned, "sha256:") {
		t.Fatalf("revision 1 pins %v", first.Images)
	}
	home := replicas(t, "moved")[0].Spec.Node
	other := otherImage(t, ref, "two")
	for _, n := range nodes {
		if n != home {
			must(t, fleet.ImportImage(ctx, n, other))
		}
	}
	must(t, fleet.ApplyText(ctx, yaml, true)) // the same: no new revision, though a tag moved
	must(t, fleet.Must(ctx, "scale", "service/moved", "--replicas", "3", "--wait=false"))
	must(t, rig.Until(ctx, 25*time.Second, "two nodes to refuse the other image", func() error {
		refused := 0
		for _, r := range replicas(t, "moved") {
			text := r.Status.Message
			for _, c := range r.Status.Containers {
				text += c.Message
			}
			if strings.Contains(text, pinned) && !r.Status.Ready {
				refused++
			}
			if r.Spec.Node != home && r.Status.Ready {
				t.Fatalf("%s runs on %s, which has another image", r.Metadata.Name, r.Spec.Node)
			}
		}
		if refused != 2 {
			return fmt.Errorf("%d do", refused)
		}
		return nil
	}))
	if s, err := fleet.Service(ctx, "moved"); err != nil || s.Status.Revision != 1 {
		t.Errorf("the service has revision %d, want 1: %v", s.Status.Revision, err)
	}
	must(t, fleet.ImportImage(ctx, home, other))
	must(t, fleet.Must(ctx, "rollout", "restart", "service/moved"))
	must(t, fleet.WaitReady(ctx, "moved", 3, 20*time.Second))
	second, err := fleet.Revision(ctx, "moved", 2)
	must(t, err)
	if now := second.Images[ref]; now == pinned || now == "" {
		t.Errorf("after a restart %s means %q, as before", ref, now)
	}
	for slot := range 3 {
		contains(t, "the environment of a restarted replica", orchctl(t, "exec", fmt.Sprintf("moved-%d", slot), "--", "/bin/web", "-cat", "/proc/1/environ"), "VERSION=two\n")
	}
}

// triedElsewhere: a replica that ends again and again, while others are well on other
// nodes, is moved to another node; it is said why.
func triedElsewhere(t *testing.T) {
	ctx := t.Context()
	apply(t, "elsewhere", service("elsewhere", 3, "  restartPolicy: {backOff: 10ms, maxBackOff: 50ms}", httpProbe))
	first := replicas(t, "elsewhere")[0]
	must(t, rig.Until(ctx, 20*time.Second, "elsewhere-0 to be tried on another node", func() error {
		ends := 0
		for _, r := range replicas(t, "elsewhere") {
			if r.Spec.Slot == 0 && r.Spec.Node != first.Spec.Node && r.Status.Ready {
				return nil
			}
			if r.Spec.Epoch == first.Spec.Epoch {
				ends = r.Status.Restarts
			}
		}
		// It may be between two runs just now.
		err := fleet.KillContainer(ctx, first.Spec.Node, fmt.Sprintf("elsewhere-0.%d.main", first.Spec.Epoch))
		return fmt.Errorf("it was restarted %d times; killed: %v", ends, err)
	}))
	contains(t, "the events", orchctl(t, "events", "-A"), fmt.Sprintf("times in a row on %s, and elsewhere-", first.Spec.Node))
	must(t, fleet.WaitReady(ctx, "elsewhere", 3, 15*time.Second))
}

// TestRolloutOutlivesANode: the death of a node in the middle is not taken for the
// new revision's fault. Each node's port can be had once, so that nothing stands in
// for what is lost, and the rollout stands still for longer than its deadline.
func TestRolloutOutlivesANode(t *testing.T) {
	const deadline = 4 * time.Second
	ctx := t.Context()
	yaml := func(args string) string {
		return service("web", 3, fmt.Sprintf("  rollout: {maxSurge: 0, maxUnavailable: 1, minReady: 500ms, progressDeadline: %s}", deadline), hostPort(8086)+"\n      args: ["+args+"]")
	}
	apply(t, "web", yaml(""))
	must(t, fleet.WaitRollout(ctx, "web", 1, api.RolloutComplete, 20*time.Second))
	must(t, fleet.ApplyText(ctx, yaml("-quiet"), false))
	must(t, rig.Until(ctx, 15*time.Second, "the first replica of revision 2", func() error {
		if s, err := fleet.Service(ctx, "web"); err != nil || s.Status.UpdatedReady < 1 {
			return fmt.Errorf("not yet: %v", err)
		}
		return nil
	}))
	must(t, fleet.Lab.KillNode(ctx, "n3"))
	must(t, fleet.WaitNode(ctx, "n3", api.VerdictSuspect, 5*time.Second))
	stays(t, deadline+time.Second, "the rollout, without a node", func() error {
		s, err := fleet.Service(ctx, "web")
		if err == nil && (s.Status.Revision != 2 || s.Status.Rollout.State != api.RolloutProgressing) {
			err = fmt.Errorf("revision %d is %s: %s", s.Status.Revision, s.Status.Rollout.State, s.Status.Rollout.Why)
		}
		return err
	})
	must(t, fleet.Lab.StartNode(ctx, "n3"))
	must(t, fleet.WaitNode(ctx, "n3", api.VerdictHealthy, 20*time.Second))
	must(t, fleet.WaitRollout(ctx, "web", 2, api.RolloutComplete, 40*time.Second))
	must(t, fleet.WaitReady(ctx, "web", 3, 20*time.Second))
	onlyTwo(t)
}

// onlyTwo checks that revision 2 of web was rolled out and nothing was taken back.
func onlyTwo(t *testing.T) {
	t.Helper()
	all, err := fleet.Revisions(t.Context(), "web")
	must(t, err)
	if len(all) != 2 || all[1].Rollout.State != api.RolloutComplete {
		t.Errorf("the revisions are %+v", all)
	}
}

// TestRolloutOutlivesTheController: a canary's step and its pause are kept, and what
// comes after them goes on.
func TestRolloutOutlivesTheController(t *testing.T) {
	const steps = "maxSurge: 1, maxUnavailable: 0, minReady: 300ms, canary: [{replicas: 2}]"
	ctx := t.Context()
	apply(t, "web", rolling("web", 6, steps, ""))
	must(t, fleet.WaitRollout(ctx, "web", 1, api.RolloutComplete, 20*time.Second))
	must(t, fleet.ApplyText(ctx, rolling("web", 6, steps, "-quiet"), false))
	must(t, fleet.WaitRollout(ctx, "web", 2, api.RolloutPaused, 20*time.Second))
	again := func() {
		must(t, fleet.Lab.StopController(ctx, sigkill))
		must(t, fleet.Lab.StartController(ctx))
		must(t, rig.Until(ctx, 20*time.Second, "the controller to answer", func() error { _, err := fleet.Service(ctx, "web"); return err }))
	}
	must(t, rig.Until(ctx, 15*time.Second, "what was replaced to be gone", func() error {
		if n := len(containers(t)); n != 6 {
			return fmt.Errorf("%d containers run", n)
		}
		return nil
	}))
	before := containers(t)
	again()
	must(t, fleet.WaitRollout(ctx, "web", 2, api.RolloutPaused, 20*time.Second))
	must(t, fleet.WaitNodes(ctx, len(nodes)))
	if s, err := fleet.Service(ctx, "web"); err != nil || s.Status.Rollout.Step != 1 || s.Status.Updated != 2 {
		t.Errorf("after the controller's death: step %d, %d updated; %v", s.Status.Rollout.Step, s.Status.Updated, err)
	}
	sameContainers(t, before)
	must(t, fleet.Must(ctx, "rollout", "resume", "service/web", "--wait=false"))
	must(t, rig.Until(ctx, 10*time.Second, "a third replica of revision 2", func() error {
		if s, err := fleet.Service(ctx, "web"); err != nil || s.Status.Updated < 3 {
			return fmt.Errorf("not yet: %v", err)
		}
		return nil
	}))
	again()
	must(t, fleet.WaitRollout(ctx, "web", 2, api.RolloutComplete, 30*time.Second))
	must(t, fleet.WaitReady(ctx, "web", 6, 20*time.Second))
	onlyTwo(t)
}
