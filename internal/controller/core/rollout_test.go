package core

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// trouble makes all replicas of a revision say something other than that they are well.
func (f *fleet) trouble(revision int64, s api.ReplicaStatus) {
	f.says = func(_ *agent, x wire.Assignment) *api.ReplicaStatus {
		if x.Revision != revision {
			return nil
		}
		return &s
	}
	f.reportEach()
}

// reportEach has every agent that is heard report anew.
func (f *fleet) reportEach() {
	f.t.Helper()
	for _, n := range []string{"n1", "n2", "n3", "n4"} {
		if a := f.agents[n]; a != nil && !a.silent && a.session != 0 {
			f.reportAll(a)
		}
	}
}

func crashed(times int) api.ReplicaStatus {
	return api.ReplicaStatus{Phase: api.PhaseRunning, Containers: []api.ContainerStatus{{Name: "main", State: api.ContainerWaiting, Reason: api.ReasonBackOff, Restarts: times,
		LastExit: &api.Exit{Code: 1, Reason: api.ExitError, Message: "exit code 1", Output: "reading /etc/web.conf\npanic: no such file"}}}}
}

func hangs() api.ReplicaStatus {
	return api.ReplicaStatus{Phase: api.PhaseRunning, Containers: []api.ContainerStatus{{Name: "main", State: api.ContainerRunning, Reason: "NotReady", Message: "the readiness probe gets no answer"}}}
}

// unstarted is how a replica looks whose container could not be started.
func unstarted(why string) api.ReplicaStatus {
	s := imageless(api.ReasonBackOff, "restarts 4s after its end")
	s.Containers[0].LastExit = &api.Exit{Code: 128, Reason: api.ExitStartFailed, Message: why}
	return s
}

func imageless(reason, message string) api.ReplicaStatus {
	return api.ReplicaStatus{Phase: api.PhasePreparing, Containers: []api.ContainerStatus{{Name: "main", State: api.ContainerWaiting, Reason: reason, Message: message}}}
}

// rolled is a fleet of three nodes with a service of four replicas, well at revision 1.
func rolledFleet(t *testing.T, set ...func(*api.ServiceSpec)) *fleet {
	t.Helper()
	f := newFleet(t)
	for _, n := range []string{"n1", "n2", "n3"} {
		f.node(n, "b")
	}
	f.mustApply(4, "app:1", set...)
	f.mustRollout(1, api.RolloutComplete)
	return f
}

func (f *fleet) mustApply(replicas int, image string, set ...func(*api.ServiceSpec)) {
	f.t.Helper()
	s := web(replicas, image)
	for _, do := range set {
		do(&s.Spec)
	}
	if r := f.apply("", s); r.Err != nil {
		f.t.Fatal(r.Err)
	}
}

func (f *fleet) roll() api.RolloutStatus {
	f.t.Helper()
	return f.service("web").Status.Rollout
}

func (f *fleet) mustRollout(revision int64, state api.RolloutState) {
	f.t.Helper()
	if s := f.service("web").Status; s.Revision != revision || s.Rollout.State != state {
		f.t.Fatalf("revision %d is %s (%s), want revision %d to be %s; %+v", s.Revision, s.Rollout.State, s.Rollout.Why, revision, state, s)
	}
}

func (f *fleet) revisionNo(n int64) *api.Revision {
	f.t.Helper()
	r, _ := f.seen[ViewKey{api.KindRevision, "default", fmt.Sprintf("web@%d", n)}].(*api.Revision)
	if r == nil {
		f.t.Fatalf("revision %d is not published", n)
	}
	return r
}

func (f *fleet) order(word string, revision int64) Reply {
	f.t.Helper()
	f.ticket++
	f.step(Rollout{Ticket: f.ticket, Key: api.Key{Namespace: "default", Name: "web"}, Word: word, Revision: revision, By: "user alice", Images: map[string]string{"app:1": "sha256:two"}})
	f.turn()
	return f.replies[f.ticket]
}

func (f *fleet) mustOrder(word string) {
	f.t.Helper()
	if r := f.order(word, 0); r.Err != nil {
		f.t.Fatalf("%s: %v", word, r.Err)
	}
}

// told gives the messages of the service's events of a reason.
func (f *fleet) told(reason string) []string {
	var out []string
	for _, e := range f.core.history.of["default"] {
		if e.Kind == api.KindService && e.Reason == reason {
			out = append(out, e.Message)
		}
	}
	return out
}

// runs counts replicas that agents hold by the revision with which they were placed.
func (f *fleet) placedWith(revision int64) int {
	n := 0
	for _, a := range f.agents {
		for _, x := range a.holds {
			if x.Revision == revision && !x.Stopping {
				n++
			}
		}
	}
	return n
}

func canary(steps ...api.CanaryStep) func(*api.ServiceSpec) {
	return func(s *api.ServiceSpec) { s.Rollout.Canary = steps }
}

func bounds(surge, unavailable int) func(*api.ServiceSpec) {
	return func(s *api.ServiceSpec) {
		s.Rollout.MaxSurge, s.Rollout.MaxUnavailable = api.Count(surge), api.Count(unavailable)
	}
}

func held(s *api.ServiceSpec) {
	no := false
	s.Rollout.AutoRollback = &no
}

func within(d time.Duration) func(*api.ServiceSpec) {
	x := api.Duration(d)
	return func(s *api.ServiceSpec) { s.Rollout.ProgressDeadline = &x }
}

func TestRolloutCompletes(t *testing.T) {
	f := rolledFleet(t)
	if r := f.revisionNo(1); r.Rollout.State != api.RolloutComplete || r.By != "tester" || r.Cause != "apply" || r.Rollout.StartedAt != start || r.Rollout.EndedAt.IsZero() {
		t.Errorf("revision 1: %+v", r)
	}
	f.now = f.now.Add(time.Minute)
	f.mustApply(4, "app:2")
	f.pass(time.Second)
	f.mustRollout(2, api.RolloutComplete)
	if r := f.revisionNo(2); r.Rollout.From != 1 || r.Rollout.State != api.RolloutComplete {
		t.Errorf("revision 2: %+v", r)
	}
	if got := f.told("RolloutComplete"); len(got) != 2 || !strings.HasPrefix(got[1], "revision 2 in ") {
		t.Errorf("told %q", got)
	}
	f.mustApply(4, "app:2", bounds(2, 0)) // no new revision, and no new rollout
	f.mustRollout(2, api.RolloutComplete)
	f.elect()
	f.mustRollout(2, api.RolloutComplete)
	if f.revisionNo(1).Rollout.EndedAt.IsZero() || f.placedWith(2) != 4 {
		t.Errorf("after another leader took over: %+v", f.revisionNo(1).Rollout)
	}
}

// TestWhatSpeaksAgainstARevision: rows are what the replicas of the new revision do,
// and what comes of it within 15 s.
func TestWhatSpeaksAgainstARevision(t *testing.T) {
	for _, c := range []struct {
		name  string
		says  api.ReplicaStatus
		impd  bool
		pulls bool
		state api.RolloutState // of revision 2, or of the service if that goes on
		why   string
	}{
		{name: "it ended three times", says: crashed(3), state: api.RolloutRolledBack,
			why: "web-0 on n1 ended 3 times without ever being ready: exit code 1; last output:\nreading /etc/web.conf\npanic: no such file"},
		{name: "twice may be chance", says: crashed(2), state: api.RolloutProgressing},
		{name: "it hangs", says: hangs(), state: api.RolloutProgressing},
		{name: "its image is missing", says: imageless(api.ReasonImageMissing, "app:2 is not there"), state: api.RolloutRolledBack, why: "web-0 on n1: ImageMissing: app:2 is not there"},
		{name: "its image is not found", says: imageless(api.ReasonImageError, "app:2: Not Found"), state: api.RolloutRolledBack, why: "web-0 on n1: ImageError: app:2: Not Found"},
		{name: "its command is not there", says: unstarted("exec: no such file"), state: api.RolloutRolledBack, why: "web-0 on n1: StartFailed: exec: no such file"},
		{name: "its node refuses a mount", says: imageless(api.ReasonBindRefused, "n1 does not allow it"), state: api.RolloutRolledBack, why: "web-0 on n1: BindRefused: n1 does not allow it"},
		{name: "the registry does not answer", says: imageless(api.ReasonImageError, "dial tcp: timeout"), state: api.RolloutProgressing},
		{name: "its image is tried again and again", says: imageless(api.ReasonImageMissing, "app:2 is not there"), pulls: true, state: api.RolloutRolledBack, why: "web-0 on n1: ImageMissing: app:2 is not there"},
		{name: "it failed for good", state: api.RolloutRolledBack, why: "web-0 on n1 failed and is not started again: exit code 7",
			says: api.ReplicaStatus{Phase: api.PhaseFailed, Containers: []api.ContainerStatus{{Name: "main", State: api.ContainerExited, LastExit: &api.Exit{Code: 7, Reason: api.ExitError, Message: "exit code 7"}}}}},
		{name: "all nodes are impaired", says: crashed(3), impd: true, state: api.RolloutProgressing},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := rolledFleet(t, bounds(1, 0))
			if c.impd {
				for _, n := range f.core.nodes {
					n.impaired = "its disk does not answer"
				}
			}
			f.trouble(2, c.says)
			f.mustApply(4, "app:2", bounds(1, 0))
			for range 8 {
				if c.pulls {
					f.trouble(2, imageless(api.ReasonPulling, "0 of 3 MiB"))
					f.trouble(2, c.says)
				}
				f.pass(2 * time.Second)
			}
			if c.state == api.RolloutProgressing {
				f.mustRollout(2, c.state)
				f.mustReady("web", 4)
				return
			}
			f.mustRollout(3, api.RolloutComplete)
			r := f.revisionNo(2)
			if r.Rollout.State != c.state || strings.ReplaceAll(strings.ReplaceAll(r.Rollout.Why, "n2", "n1"), "n3", "n1") != c.why {
				t.Errorf("revision 2 is %s: %q", r.Rollout.State, r.Rollout.Why)
			}
			if r := f.revisionNo(3); r.By != "orch" || r.SameAs != 1 || !strings.HasPrefix(r.Cause, "rollback from revision 2: web-0 on") || strings.Contains(r.Cause, "\n") {
				t.Errorf("revision 3: %+v", r)
			}
			if s := f.service("web"); s.Spec.Containers[0].Image != "app:1" || s.Metadata.Generation != 3 || s.Status.Updated != 4 {
				t.Errorf("service %+v", s)
			}
			f.mustReady("web", 4)
			if f.placedWith(1) != 4 || f.placedWith(2)+f.placedWith(3) != 0 {
				t.Errorf("what was well was replaced: %d of revision 1, %d of 2, %d of 3", f.placedWith(1), f.placedWith(2), f.placedWith(3))
			}
			if got := f.told("RolledBack"); len(got) != 1 || strings.Contains(got[0], "\n") || !strings.HasPrefix(got[0], "from revision 2 to the template of revision 1 (revision 3): ") {
				t.Errorf("told %q", got)
			}
		})
	}
}

func TestProgressDeadline(t *testing.T) {
	minute := within(time.Minute)
	f := rolledFleet(t, bounds(1, 0))
	f.trouble(2, hangs())
	f.mustApply(4, "app:2", bounds(1, 0), minute)
	f.pass(59 * time.Second)
	f.mustRollout(2, api.RolloutProgressing)
	f.pass(2 * time.Second)
	f.mustRollout(3, api.RolloutComplete)
	if why := f.revisionNo(2).Rollout.Why; !strings.HasPrefix(why, "no progress for 1m0s: web-0 on n") || !strings.HasSuffix(why, "NotReady: the readiness probe gets no answer") {
		t.Errorf("why %q", why)
	}
}

// TestNodeDeathIsNoEvidence: the clock stands as long as a replica cannot be heard.
func TestNodeDeathIsNoEvidence(t *testing.T) {
	f := rolledFleet(t, bounds(1, 0))
	f.trouble(2, hangs())
	f.mustApply(4, "app:2", bounds(1, 0), within(30*time.Second))
	f.pass(20 * time.Second)
	f.agents["n2"].silent = true
	f.pass(40 * time.Second)
	f.mustRollout(2, api.RolloutProgressing)
	f.node("n2", "another boot")
	f.pass(25 * time.Second)
	f.mustRollout(2, api.RolloutProgressing)
	f.mustReady("web", 4) // what was lost was filled with what is well
	f.pass(10 * time.Second)
	f.mustRollout(3, api.RolloutComplete)
}

// TestNoNodeIsNoEvidence: a revision that has nowhere to go as all nodes are gone is not
// given up for it.
func TestNoNodeIsNoEvidence(t *testing.T) {
	f := rolledFleet(t, bounds(1, 0))
	f.trouble(2, hangs())
	f.mustApply(4, "app:2", bounds(1, 0), within(30*time.Second))
	for _, n := range []string{"n1", "n2", "n3"} {
		f.agents[n].silent = true
		f.agents[n].holds = map[api.ReplicaKey]wire.Assignment{}
		f.word(n, "dead")
	}
	f.pass(5 * time.Minute)
	f.mustRollout(2, api.RolloutProgressing)
	f.says = nil
	for _, n := range []string{"n1", "n2", "n3"} {
		f.node(n, "another boot")
	}
	f.pass(5 * time.Second)
	f.mustRollout(2, api.RolloutComplete)
	f.mustReady("web", 4)
}

// TestWhatIsLostIsFilledWithWhatIsWell: a revision that was never ready gets no slot
// because a node died.
func TestWhatIsLostIsFilledWithWhatIsWell(t *testing.T) {
	f := rolledFleet(t, bounds(1, 0))
	f.trouble(2, hangs())
	f.mustApply(4, "app:2", bounds(1, 0))
	if f.placedWith(2) != 1 {
		t.Fatalf("%d of revision 2", f.placedWith(2))
	}
	victim := f.home("web", 3)
	lost := 0
	for _, x := range f.core.services[api.Key{Namespace: "default", Name: "web"}].fillings {
		if x.node == victim && x.revision == 1 {
			lost++
		}
	}
	f.agents[victim].silent = true
	f.agents[victim].holds = map[api.ReplicaKey]wire.Assignment{}
	f.word(victim, "dead")
	f.pass(5 * time.Second)
	f.mustReady("web", 4)
	if lost == 0 || f.placedWith(1) != 4 || f.placedWith(2) > 1 {
		t.Errorf("%d lost; %d of revision 1, %d of revision 2", lost, f.placedWith(1), f.placedWith(2))
	}
}

func TestLeaderDeathMidRollout(t *testing.T) {
	f := rolledFleet(t, bounds(1, 0))
	f.trouble(2, crashed(2))
	f.mustApply(4, "app:2", bounds(1, 0), within(30*time.Second))
	f.pass(29 * time.Second)
	f.elect()
	for _, n := range []string{"n1", "n2", "n3"} {
		f.node(n, "b")
	}
	f.pass(25 * time.Second) // the clock began anew
	f.mustRollout(2, api.RolloutProgressing)
	f.trouble(2, crashed(4)) // twice since this leader saw it
	f.mustRollout(2, api.RolloutProgressing)
	f.trouble(2, crashed(5))
	f.mustRollout(3, api.RolloutComplete)
}

func TestFirstRevisionThatFailsOnlySaysSo(t *testing.T) {
	f := newFleet(t)
	f.node("n1", "b")
	f.trouble(1, crashed(3))
	f.mustApply(2, "app:1")
	f.pass(time.Second)
	f.mustRollout(1, api.RolloutFailed)
	if got := f.told("RolloutFailed"); len(got) != 1 || !strings.HasSuffix(got[0], "exit code 1; last output: panic: no such file") {
		t.Errorf("told %q", got)
	}
	f.mustApply(3, "app:1")
	if f.placedWith(1) != 3 {
		t.Errorf("%d run: nothing is held", f.placedWith(1))
	}
	f.says = nil
	f.reportEach()
	f.mustRollout(1, api.RolloutComplete) // it was mended from outside
}

// TestRollbackOfARollback: what was made by itself and fails is left.
func TestRollbackOfARollback(t *testing.T) {
	f := rolledFleet(t, bounds(0, 4))
	f.trouble(2, crashed(3))
	f.says = func(a *agent, x wire.Assignment) *api.ReplicaStatus {
		if x.Revision == 1 {
			return nil
		}
		s := crashed(3)
		return &s
	}
	f.mustApply(4, "app:2", bounds(0, 4), within(10*time.Second))
	f.pass(2 * time.Second)
	f.mustRollout(3, api.RolloutFailed)
	if f.revisionNo(2).Rollout.State != api.RolloutRolledBack {
		t.Errorf("revision 2: %+v", f.revisionNo(2).Rollout)
	}
	f.pass(20 * time.Second)
	f.mustRollout(3, api.RolloutFailed)
}

func TestWithoutAutoRollback(t *testing.T) {
	f := rolledFleet(t, bounds(1, 1))
	f.trouble(2, crashed(3))
	f.mustApply(4, "app:2", bounds(1, 1), held)
	f.pass(time.Second)
	f.mustRollout(2, api.RolloutFailed)
	if ready := f.service("web").Status.Ready; ready < 3 {
		t.Errorf("%d ready", ready)
	}
	f.pass(time.Minute)
	if n := f.placedWith(2); n > 2 || f.service("web").Status.Ready < 3 {
		t.Errorf("%d of revision 2, %+v", n, f.service("web").Status)
	}
	f.says = nil
	f.reportEach()
	f.mustRollout(2, api.RolloutFailed) // some are well now, but nobody said to go on
	f.mustOrder("resume")
	f.pass(2 * time.Second)
	f.mustRollout(2, api.RolloutComplete)
}

func TestCanary(t *testing.T) {
	soon := api.Duration(10 * time.Second)
	steps := canary(api.CanaryStep{Replicas: *api.Count(1), Pause: &soon}, api.CanaryStep{Replicas: *api.Percent(50)})
	f := rolledFleet(t, steps, bounds(1, 0))
	if f.roll().Step != 0 {
		t.Error("the first revision is no canary")
	}
	f.mustApply(4, "app:2", steps, bounds(1, 0), within(20*time.Second))
	f.mustRollout(2, api.RolloutPaused)
	if st := f.roll(); st.Step != 1 || st.StepAt.IsZero() || f.placedWith(2) != 1 || !strings.HasPrefix(st.Why, "canary step 1 of 2: it goes on at 12:00:1") {
		t.Fatalf("%d of revision 2; %+v", f.placedWith(2), st)
	}
	at := f.roll().StepAt
	f.pass(5 * time.Second)
	f.elect() // the pause goes on
	for _, n := range []string{"n1", "n2", "n3"} {
		f.node(n, "b")
	}
	if f.roll().StepAt != at {
		t.Errorf("the pause began anew: %+v", f.roll())
	}
	f.pass(5*time.Second + 100*time.Millisecond)
	f.pass(time.Second)
	f.mustRollout(2, api.RolloutPaused)
	if st := f.roll(); st.Step != 2 || f.placedWith(2) != 2 || !strings.HasSuffix(st.Why, `it waits for "orchctl rollout resume service/web"`) {
		t.Fatalf("%d of revision 2; %+v", f.placedWith(2), st)
	}
	f.pass(time.Minute) // a pause is not against the deadline
	f.mustRollout(2, api.RolloutPaused)
	f.mustOrder("resume")
	f.pass(time.Second)
	f.mustRollout(2, api.RolloutComplete)
	if got := f.told("CanaryStep"); len(got) != 2 || !strings.HasPrefix(got[1], "step 2 of 2: 2 of 4 replicas have revision 2; it waits") {
		t.Errorf("told %q", got)
	}
}

// TestCanaryThatIsLostComesAgain, and no other gets further by it.
func TestCanaryThatIsLostComesAgain(t *testing.T) {
	steps := canary(api.CanaryStep{Replicas: *api.Count(1)})
	f := rolledFleet(t, bounds(1, 0))
	f.mustApply(4, "app:2", steps, bounds(1, 0))
	victim := f.home("web", 0)
	f.agents[victim].silent = true
	f.agents[victim].holds = map[api.ReplicaKey]wire.Assignment{}
	f.word(victim, "dead")
	f.pass(3 * time.Second)
	f.mustReady("web", 4)
	if f.placedWith(2) != 1 || f.placedWith(1) != 3 {
		t.Errorf("%d of revision 2, %d of 1: %+v", f.placedWith(2), f.placedWith(1), f.roll())
	}
}

func TestPauseByHand(t *testing.T) {
	f := rolledFleet(t, bounds(1, 0))
	f.mustOrder("pause") // the next one
	f.mustApply(4, "app:2", bounds(1, 0), within(10*time.Second))
	f.pass(time.Minute)
	f.mustRollout(2, api.RolloutPaused)
	if f.placedWith(2) != 0 || f.roll().Why != "paused by user alice" {
		t.Errorf("%d of revision 2, %+v", f.placedWith(2), f.roll())
	}
	if err := f.order("restart", 0).Err; err == nil || err.Error() != "service default/web: its rollout is paused by user alice: resume it first" || !errors.Is(err, ErrBusy) {
		t.Errorf("restart: %v", err)
	}
	f.mustApply(6, "app:2", bounds(1, 0), within(time.Minute)) // what is new has what is well
	if f.placedWith(1) != 6 {
		t.Errorf("%d of revision 1", f.placedWith(1))
	}
	f.mustApply(6, "app:3", bounds(1, 0), within(time.Minute))
	f.mustRollout(3, api.RolloutPaused)
	if r := f.revisionNo(2).Rollout; r.State != api.RolloutSuperseded || r.PausedBy != "" || r.Why != "revision 3 took its place" {
		t.Errorf("revision 2: %+v", r)
	}
	f.elect()
	for _, n := range []string{"n1", "n2", "n3"} {
		f.node(n, "b")
	}
	f.pass(2 * time.Second)
	f.mustRollout(3, api.RolloutPaused)
	f.mustOrder("resume")
	f.pass(3 * time.Second)
	f.mustRollout(3, api.RolloutComplete)
	if len(f.told("Paused")) != 1 || len(f.told("Resumed")) != 1 {
		t.Errorf("paused %q, resumed %q", f.told("Paused"), f.told("Resumed"))
	}
	if err := f.order("resume", 0).Err; err == nil || err.Error() != "service default/web: its rollout is not paused" {
		t.Errorf("resume: %v", err)
	}
}

func TestUndoAndRestart(t *testing.T) {
	f := rolledFleet(t, bounds(1, 0))
	if err := f.order("undo", 0).Err; err == nil || err.Error() != "service default/web: nothing to undo to: no earlier revision was rolled out well" {
		t.Errorf("undo: %v", err)
	}
	f.mustOrder("restart")
	f.pass(2 * time.Second)
	f.mustRollout(2, api.RolloutComplete)
	if r := f.revisionNo(2); r.Cause != "restart" || r.By != "user alice" || r.Images["app:1"] != "sha256:two" || f.placedWith(2) != 4 {
		t.Errorf("restarted: %+v, %d of it", r, f.placedWith(2))
	}
	f.mustApply(4, "app:2", bounds(1, 0))
	f.pass(2 * time.Second)
	f.mustRollout(3, api.RolloutComplete)
	f.mustOrder("undo")
	f.pass(2 * time.Second)
	f.mustRollout(4, api.RolloutComplete)
	if r := f.revisionNo(4); r.SameAs != 2 || r.Cause != "undo to revision 2" || r.Images["app:1"] != "sha256:two" || f.service("web").Spec.Containers[0].Image != "app:1" {
		t.Errorf("undone: %+v", r)
	}
	if err := f.order("undo", 9).Err; err == nil || !strings.HasSuffix(err.Error(), "there is no revision 9 any more or yet: it has 1, 2, 3, 4") {
		t.Errorf("undo to 9: %v", err)
	}
	if r := f.order("undo", 2); r.Err != nil || r.Value.(ApplyResult).Applied[0].Outcome != "unchanged" {
		t.Errorf("undo to what is so: %+v", r)
	}
	if err := f.order("stop", 0).Err; !errors.Is(err, ErrInvalid) {
		t.Errorf("stop: %v", err)
	}
}

// TestWhatWasNeverTriedIsNotWell: with no replicas any revision is complete. It is tried
// when some are wanted, and what was well before is gone back to.
func TestWhatWasNeverTriedIsNotWell(t *testing.T) {
	f := rolledFleet(t, bounds(1, 0))
	f.mustApply(0, "app:2", bounds(1, 0))
	f.pass(2 * time.Second)
	f.mustRollout(2, api.RolloutComplete)
	f.elect()
	for _, n := range []string{"n1", "n2", "n3"} {
		f.node(n, "b")
	}
	f.trouble(2, crashed(0))
	f.mustApply(2, "app:2", bounds(1, 0))
	f.mustRollout(2, api.RolloutProgressing)
	f.trouble(2, crashed(3))
	f.pass(2 * time.Second)
	f.mustRollout(3, api.RolloutComplete)
	if r := f.revisionNo(3); r.SameAs != 1 {
		t.Errorf("went back to %+v", r)
	}
	f.mustReady("web", 2)
	f.mustApply(0, "app:4", bounds(1, 0))
	f.pass(2 * time.Second)
	f.mustApply(2, "app:5", bounds(1, 0))
	f.pass(2 * time.Second)
	f.mustRollout(5, api.RolloutComplete)
	if r := f.revisionNo(4).Rollout; r.State != api.RolloutSuperseded {
		t.Errorf("revision 4 was never tried, and is %+v", r)
	}
}

// TestUndoToWhatWasNeverWell goes in steps as any other.
func TestUndoToWhatWasNeverWell(t *testing.T) {
	step := canary(api.CanaryStep{Replicas: *api.Count(1)})
	f := rolledFleet(t, bounds(1, 0))
	f.mustApply(4, "app:2", bounds(1, 0), step)
	f.mustApply(4, "app:1", bounds(1, 0), step)
	if f.roll().Step != 1 {
		t.Fatalf("applied, not repeated: %+v", f.roll())
	}
	for _, x := range []struct {
		to   int64
		want int
	}{{2, 1}, {1, 0}} {
		if r := f.order("undo", x.to); r.Err != nil {
			t.Fatal(r.Err)
		}
		if got := f.roll().Step; got != x.want {
			t.Errorf("undo to revision %d: step %d, want %d", x.to, got, x.want)
		}
	}
}

// TestUndoMidwayReplacesOnlyWhatIsOther.
func TestUndoMidwayReplacesOnlyWhatIsOther(t *testing.T) {
	f := rolledFleet(t, bounds(1, 0))
	f.mustApply(4, "app:2", bounds(1, 0), canary(api.CanaryStep{Replicas: *api.Count(1)}))
	f.mustOrder("undo")
	f.pass(2 * time.Second)
	f.mustRollout(3, api.RolloutComplete)
	if f.placedWith(1) != 3 || f.placedWith(3) != 1 {
		t.Errorf("%d of revision 1, %d of 3", f.placedWith(1), f.placedWith(3))
	}
	for k, x := range f.seen {
		if r, ok := x.(*api.Replica); ok && r.Spec.Revision != 3 {
			t.Errorf("%s is shown with revision %d", k.Name, r.Spec.Revision)
		}
	}
}

func TestMinReady(t *testing.T) {
	ten := api.Duration(10 * time.Second)
	slow := func(s *api.ServiceSpec) { s.Rollout.MinReady = &ten }
	f := rolledFleet(t, bounds(1, 0))
	f.mustApply(2, "app:1", bounds(1, 0))
	f.mustApply(2, "app:2", bounds(1, 0), slow)
	f.pass(9 * time.Second)
	if f.placedWith(2) != 1 || f.placedWith(1) != 2 {
		t.Errorf("%d of revision 2 and %d of 1 before it counts", f.placedWith(2), f.placedWith(1))
	}
	f.pass(9 * time.Second)
	f.mustRollout(2, api.RolloutProgressing)
	f.pass(4 * time.Second)
	f.mustRollout(2, api.RolloutComplete)
}

func TestRecreate(t *testing.T) {
	f := rolledFleet(t, func(s *api.ServiceSpec) { s.Rollout.Strategy = api.StrategyRecreate })
	f.agents["n2"].silent = true // for a moment: what is there may run
	f.mustApply(4, "app:2", func(s *api.ServiceSpec) { s.Rollout.Strategy = api.StrategyRecreate })
	f.pass(200 * time.Millisecond)
	if f.placedWith(2) != 0 {
		t.Errorf("%d of revision 2 beside what may run", f.placedWith(2))
	}
	f.node("n2", "b")
	f.pass(3 * time.Second)
	f.mustRollout(2, api.RolloutComplete)
}

// TestServiceOfAnOlderVersion is judged by nothing, and becomes what can be gone back to.
func TestServiceOfAnOlderVersion(t *testing.T) {
	f := rolledFleet(t, bounds(1, 0), within(10*time.Second))
	key := api.Key{Namespace: "default", Name: "web"}
	s := f.core.services[key]
	s.obj.Status.Rollout = api.RolloutStatus{}
	old := api.Revision{Service: key, UID: s.obj.Metadata.UID, Number: 1, Template: s.obj.Spec.Template, CreatedAt: start}
	f.kv[serviceKey(key)] = object(api.KindService, &s.obj)
	f.kv[revisionKey(key, 1)] = object("Revision", &old)
	f.trouble(1, crashed(5))
	f.elect()
	for _, n := range []string{"n1", "n2", "n3"} {
		f.node(n, "b")
	}
	f.pass(30 * time.Second)
	f.mustRollout(1, "")
	f.says = nil
	f.reportEach()
	f.mustRollout(1, api.RolloutComplete)
	if n := len(f.told("RolloutComplete")); n != 1 {
		t.Errorf("told %d times", n)
	}
	f.trouble(2, crashed(3))
	f.mustApply(4, "app:2", bounds(1, 0))
	f.pass(time.Second)
	f.mustRollout(3, api.RolloutComplete)
}

// TestStableIsKept: however many revisions fail after it.
func TestStableIsKept(t *testing.T) {
	f := newFleet(t)
	f.conf.RevisionHistory = 3
	f.elect()
	for _, n := range []string{"n1", "n2", "n3"} {
		f.node(n, "b")
	}
	f.mustApply(2, "app:1", bounds(0, 2), held)
	f.says = func(_ *agent, x wire.Assignment) *api.ReplicaStatus {
		if x.Revision == 1 {
			return nil
		}
		s := crashed(3)
		return &s
	}
	for i := range 6 {
		f.mustApply(2, fmt.Sprintf("app:%d", i+2), bounds(0, 2), held)
		f.pass(time.Second)
	}
	f.mustRollout(7, api.RolloutFailed)
	if n := f.placedWith(1); n != 0 { // nothing but its outcome keeps it
		t.Fatalf("%d run revision 1", n)
	}
	if r := f.revisionNo(1); r.Rollout.State != api.RolloutComplete {
		t.Errorf("revision 1: %+v", r)
	}
	var kept []string
	for k := range f.seen {
		if k.Kind == api.KindRevision {
			kept = append(kept, k.Name)
		}
	}
	slices.Sort(kept)
	if !slices.Contains(kept, "web@7") || slices.Contains(kept, "web@2") {
		t.Errorf("kept %q", kept)
	}
	f.delete("web")
	f.pass(time.Second)
	for k := range f.seen {
		if k.Kind == api.KindRevision {
			t.Errorf("%s is left", k.Name)
		}
	}
}

func TestImagesAreKeptWithTheRevision(t *testing.T) {
	f := newFleet(t)
	f.node("n1", "b")
	f.ticket++
	f.step(Apply{Ticket: f.ticket, Services: []*api.Service{web(1, "app:1")}, Images: map[string]string{"app:1": "sha256:one", "other:1": "sha256:no"}, By: "tester"})
	f.turn()
	if r := f.revisionNo(1); len(r.Images) != 1 || r.Images["app:1"] != "sha256:one" {
		t.Errorf("images %v", r.Images)
	}
	for _, x := range f.agents["n1"].holds {
		if x.Images["app:1"] != "sha256:one" {
			t.Errorf("the agent was told %v", x.Images)
		}
	}
}
