package orchctl

import (
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

func globally(s *api.Service) { s.Spec.Mode, s.Spec.Replicas = api.ModeGlobal, nil }

func never(s *api.Service) { s.Spec.RestartPolicy.Condition = api.RestartNever }

func endedWith(code int) func(*api.Replica) {
	return func(r *api.Replica) {
		r.Status = api.ReplicaStatus{Phase: api.PhaseStopped, Containers: []api.ContainerStatus{{Name: "main", State: api.ContainerExited, LastExit: &api.Exit{Code: code, Reason: api.ExitCompleted}}}}
	}
}

const keeps = "web-1@2 stays at revision 3: n2 takes nothing new"

// TestApplyEndsWithItsRollout: what a node keeps, what has ended by its policy, and what
// was lost since are told, and do not hold up the end.
func TestApplyEndsWithItsRollout(t *testing.T) {
	progressing, complete := rolls(4, api.RolloutProgressing), rolls(4, api.RolloutComplete)
	first, firstDone := rolls(1, api.RolloutProgressing), rolls(1, api.RolloutComplete)
	for _, c := range []struct {
		name    string
		outcome string
		before  []any
		answer  *api.Service
		then    []any // a second after the answer
		want    string
		takes   time.Duration
	}{
		{"a cordoned node keeps its own", "configured",
			[]any{service("web", 3, globally, all(3), rolls(3, api.RolloutComplete)), replica("web", 1, 2, "n2", running(true), of(3))},
			service("web", 3, globally, updated(3, 3, 0, 0), progressing),
			[]any{replica("web", 0, 4, "n1", running(true), of(4)), replica("web", 2, 5, "n3", running(true), of(4)), service("web", 3, globally, updated(3, 3, 2, 2, keeps), complete)},
			"service/web is rolled out: revision 4, 2 of 3 replicas in 1s\n  web-1 on n2 stays at revision 3: n2 takes nothing new\n", time.Second},
		{"the same, applied again", "unchanged",
			[]any{service("web", 3, globally, updated(3, 3, 2, 2, keeps), complete), replica("web", 0, 4, "n1", running(true), of(4)), replica("web", 1, 2, "n2", running(true), of(3)), replica("web", 2, 5, "n3", running(true), of(4))},
			service("web", 3, globally, updated(3, 3, 2, 2, keeps), complete), nil,
			"service/web unchanged; 2/3 ready\n  web-1 on n2 stays at revision 3: n2 takes nothing new\n", 0},
		{"it has ended, as it may", "created", nil, service("web", 1, never, first),
			[]any{replica("web", 0, 1, "n1", endedWith(0)), service("web", 1, never, updated(1, 0, 1, 0), firstDone)},
			"service/web created; 0/1 ready in 1s (committed 0ms)\n  web-0 on n1 has ended; main: Completed: exit code 0\n", time.Second},
		{"it was lost since", "configured", oldWeb(), service("web", 2, updated(2, 2, 0, 0), progressing),
			[]any{replica("web", 0, 4, "n1", running(true), of(4)), replica("web", 1, 5, "", pending("no node"), of(4)), service("web", 2, updated(2, 1, 2, 1), complete)},
			"service/web is rolled out: revision 4, 2 replicas in 1s\n  by now: 1/2 ready, 1 pending, 2 to go\n", 2 * time.Second},
		{"all of a first revision is ready", "created", nil, service("web", 1, first),
			[]any{replica("web", 0, 1, "n1", running(true)), service("web", 1, all(1), first)},
			"service/web created; 1/1 ready in 1s (committed 0ms, placed 1s, first running 1s)\n", 2 * time.Second},
	} {
		in(t, newFake(c.before...), func(t *testing.T, r *rig) {
			end := make(chan struct{})
			r.onApply = func(*orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) {
				go func() {
					defer close(end)
					script(at{time.Second, func() { r.put(c.then...) }})
				}()
				return answer(c.outcome, c.answer), nil
			}
			r.env.In = strings.NewReader(webYAML)
			began := time.Now()
			got := r.run("apply", "-f", "-", "--timeout", "1m")
			if took := time.Since(began); took < c.takes || took > c.takes+showEvery {
				t.Errorf("%s: took %s, want %s", c.name, took, c.takes)
			}
			<-end
			if got.code != 0 || got.err != "" || !strings.HasSuffix(got.out, c.want) {
				t.Errorf("%s: got\n%swant\n%s", c.name, got, c.want)
			}
		})
	}
}

// TestStatusTellsWhatStays: 3 replicas are not said to have what 2 have.
func TestStatusTellsWhatStays(t *testing.T) {
	s := service("web", 3, globally, updated(3, 3, 2, 2, keeps), rolls(4, api.RolloutComplete))
	in(t, newFake(s, replica("web", 1, 2, "n2", running(true), of(3))), func(t *testing.T, r *rig) {
		const want = "service/web is rolled out: revision 4, 2 of 3 replicas\n  web-1 on n2 stays at revision 3: n2 takes nothing new\n--- stderr\n--- exit 0\n"
		for _, watch := range []string{"--watch=true", "--watch=false"} {
			if got := r.run("rollout", "status", "web", watch); got.String() != want {
				t.Errorf("%s: got\n%swant\n%s", watch, got, want)
			}
		}
	})
}

// TestApplyWaitsForAVerdict: it says for which, and since when, and ends when the
// rollout is complete, whatever of the old revision could not be heard of since.
func TestApplyWaitsForAVerdict(t *testing.T) {
	const lost = "web-1@2 cannot be reached: n3 is suspect; bound to n3 by its volume data: nothing stands in for it"
	suspect := node("n3", api.VerdictSuspect, func(n *api.Node) { n.Status.VerdictSince = ago(10 * time.Second) })
	in(t, newFake(append(oldWeb(), suspect)...), func(t *testing.T, r *rig) {
		end := r.applyFourth(
			at{time.Second, func() {
				r.drop(replica("web", 0, 1, "n1"))
				r.put(replica("web", 0, 4, "n1", running(true), of(4)), replica("web", 1, 5, "n2", running(true), of(4)),
					service("web", 2, updated(3, 2, 2, 2, lost), rolls(4, api.RolloutProgressing)))
			}},
			at{20 * time.Second, func() { r.put(service("web", 2, updated(3, 2, 2, 2, lost), rolls(4, api.RolloutComplete))) }})
		got := r.run("apply", "-f", "-", "--timeout", "1m")
		<-end
		if n := strings.Count(got.out, "waits for the verdict"); n != 1 || !strings.Contains(got.out, "web: revision 4: 2/2 ready, 1 to go; waits for the verdict on n3 (suspect since 11s)\n") {
			t.Errorf("told %d times:\n%s", n, got)
		}
		if got.code != 0 || !strings.Contains(got.out, "service/web is rolled out: revision 4, 2 replicas in 20s\n") || r.called("Get") != 1 {
			t.Errorf("%d questions: %s", r.called("Get"), got)
		}
	})
	in(t, newFake(append(oldWeb(), suspect)...), func(t *testing.T, r *rig) {
		r.fail["Get"] = []error{unavailable("no leader")}
		end := r.applyFourth(at{time.Second, func() {
			r.put(replica("web", 0, 4, "n1", running(true), of(4)), replica("web", 1, 5, "n2", running(true), of(4)),
				service("web", 2, updated(3, 2, 2, 2, "web-1@2 is left alone on n3, which is suspect"), rolls(4, api.RolloutProgressing)))
		}})
		if got := r.run("apply", "-f", "-", "--timeout", "5s"); got.code != 1 || !strings.Contains(got.err, "service/web configured; revision 4: 2/2 ready, 2 to go; waits for the verdict on n3\n") {
			t.Error(got)
		}
		<-end
	})
}
