package orchctl

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// ago is a time before the bubble's begin.
func ago(d time.Duration) time.Time { return epoch.Add(-d) }

// rolls sets a service's newest revision and how its rollout stands.
func rolls(revision int64, state api.RolloutState, change ...func(*api.RolloutStatus)) func(*api.Service) {
	return func(s *api.Service) {
		s.Status.Revision = revision
		s.Metadata.ResourceVersion = revision
		s.Status.Rollout = api.RolloutStatus{State: state, From: revision - 1, StartedAt: epoch}
		for _, c := range change {
			c(&s.Status.Rollout)
		}
	}
}

// of gives a replica a revision.
func of(revision int64) func(*api.Replica) {
	return func(r *api.Replica) { r.Spec.Revision = revision }
}

func updated(replicas, ready, updated, updatedReady int, reasons ...string) func(*api.Service) {
	return func(s *api.Service) {
		s.Status.Replicas, s.Status.Ready, s.Status.Updated, s.Status.UpdatedReady, s.Status.Reasons = replicas, ready, updated, updatedReady, reasons
	}
}

// revision makes one of web's.
func revision(n int64, state api.RolloutState, change ...func(*api.Revision)) *api.Revision {
	s := service("web", 3)
	r := &api.Revision{Service: s.Metadata.Key(), UID: s.Metadata.UID, Number: n, Template: s.Spec.Template, By: "user alice", Cause: "apply",
		CreatedAt: ago(time.Hour).Add(time.Duration(n) * time.Minute), Rollout: api.RolloutStatus{State: state, From: n - 1}}
	r.Template.Containers = slices.Clone(r.Template.Containers)
	r.Template.Containers[0].Image = fmt.Sprintf("orch.local/web:%d.0", n)
	r.Rollout.StartedAt, r.Rollout.EndedAt = r.CreatedAt, r.CreatedAt.Add(12400*time.Millisecond)
	for _, c := range change {
		c(r)
	}
	return r
}

const crashed = "web-0 on n3 ended 3 times: exit code 1; last output:\nstarting\x1b[2J\ncannot open database"

// oldWeb are two ready replicas of the third revision.
func oldWeb() []any {
	return []any{service("web", 2, all(2), rolls(3, api.RolloutComplete)), replica("web", 0, 1, "n1", running(true), of(3)), replica("web", 1, 2, "n2", running(true), of(3))}
}

// applies answers an apply with web's fourth revision, and then does steps.
func (r *rig) applyFourth(steps ...at) (end chan struct{}) {
	end = make(chan struct{})
	r.onApply = func(*orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) {
		go func() {
			defer close(end)
			script(steps...)
		}()
		return answer("configured", service("web", 2, updated(2, 2, 0, 0), rolls(4, api.RolloutProgressing))), nil
	}
	r.env.In = strings.NewReader(webYAML)
	return end
}

// TestApplyOfARollout: what is said line by line, and how it ends.
func TestApplyOfARollout(t *testing.T) {
	old := oldWeb()
	in(t, newFake(old...), func(t *testing.T, r *rig) {
		end := r.applyFourth(
			at{150 * time.Millisecond, func() {
				r.put(service("web", 2, updated(3, 2, 1, 0), rolls(4, api.RolloutProgressing)), replica("web", 0, 3, "n3", of(4), waits(api.ReasonPulling, "12% of 120 MiB", nil)))
			}},
			at{1350 * time.Millisecond, func() { r.put(replica("web", 0, 3, "n3", running(true), of(4))) }},
			at{1450 * time.Millisecond, func() {
				r.put(replica("web", 0, 1, "n1", running(true), of(3), func(x *api.Replica) { x.Status.Phase = api.PhaseStopping }), replica("web", 1, 4, "n1", of(4)),
					service("web", 2, updated(2, 2, 2, 1), rolls(4, api.RolloutProgressing)))
			}},
			at{2350 * time.Millisecond, func() {
				r.drop(old[1])
				r.drop(old[2])
				r.put(replica("web", 1, 4, "n1", running(true), of(4)), service("web", 2, updated(2, 2, 2, 2), rolls(4, api.RolloutComplete)))
			}})
		got := r.run("apply", "-f", "-")
		<-end
		golden(t, "rollout-apply", got.String())
	})
}

// TestApplyIsRolledBack: apply tells of the rollback as it begins, waits for it, and
// fails with why and the last output.
func TestApplyIsRolledBack(t *testing.T) {
	back := func(s *api.Service) { s.Status.Rollout.From = 3 }
	record := revision(4, api.RolloutRolledBack, func(r *api.Revision) { r.Rollout.Why = crashed })
	for _, c := range []struct {
		name, want string
		end        api.RolloutState
	}{
		{"back", "", api.RolloutComplete},
		{"back-fails", "", api.RolloutFailed},
	} {
		in(t, newFake(oldWeb()...), func(t *testing.T, r *rig) {
			end := r.applyFourth(
				at{150 * time.Millisecond, func() {
					r.put(service("web", 2, updated(3, 2, 1, 0, "web-0 on n3: BackOff: again in 1s"), rolls(4, api.RolloutProgressing)), replica("web", 0, 3, "n3", of(4), waits(api.ReasonBackOff, "again in 1s", &api.Exit{Code: 1, Reason: api.ExitError})))
				}},
				at{1550 * time.Millisecond, func() {
					r.put(service("web", 2, updated(3, 2, 1, 0, "web-0 on n3: BackOff: again in 2s"), rolls(4, api.RolloutProgressing)))
				}},
				at{3150 * time.Millisecond, func() {
					r.put(record, service("web", 2, updated(2, 2, 0, 0), rolls(5, api.RolloutProgressing), back))
				}},
				at{3950 * time.Millisecond, func() {
					r.drop(replica("web", 0, 3, "n3"))
					r.put(service("web", 2, all(2), rolls(5, c.end, func(x *api.RolloutStatus) { x.From, x.Why = 3, "no progress for 10m" })))
				}})
			got := r.run("apply", "-f", "-")
			<-end
			golden(t, "rollout-"+c.name, got.String())
			if got.code != 1 {
				t.Errorf("exit %d", got.code)
			}
		})
	}
}

// TestApplyEnds: the other ways in which a followed rollout ends.
func TestApplyEnds(t *testing.T) {
	canary := func(pause ...*api.Duration) func(*api.Service) {
		return func(s *api.Service) {
			for i, p := range pause {
				s.Spec.Rollout.Canary = append(s.Spec.Rollout.Canary, api.CanaryStep{Replicas: *api.Count(i + 1), Pause: p})
			}
		}
	}
	minute := api.Duration(time.Minute)
	paused := func(x *api.RolloutStatus) { x.Step, x.StepAt = 1, epoch.Add(time.Second) }
	for _, c := range []struct {
		name string
		then []any // what is put after a second
		want result
	}{
		{"it fails and nothing takes its place", []any{service("web", 2, updated(3, 2, 1, 0), rolls(4, api.RolloutFailed, func(x *api.RolloutStatus) { x.Why = "no progress for 5s" }))},
			result{err: "orchctl: service/web revision 4 could not be rolled out: no progress for 5s\n", code: 1}},
		{"somebody else applies", []any{revision(4, api.RolloutSuperseded), service("web", 2, updated(3, 2, 1, 0), rolls(5, api.RolloutProgressing))},
			result{err: "orchctl: service/web: revision 5 took the place of revision 4 before that was rolled out\n", code: 1}},
		{"its record is gone", []any{service("web", 2, updated(3, 2, 1, 0), rolls(9, api.RolloutProgressing))},
			result{err: "orchctl: service/web: revision 9 took the place of revision 4 before that was rolled out\n", code: 1}},
		{"it waits for an operator", []any{service("web", 2, updated(3, 2, 1, 1), canary(nil, nil), rolls(4, api.RolloutPaused, paused))},
			result{out: "service/web: revision 4 is paused at step 1 of 2: 1 of 2 replicas have it, 1 of them ready; `orchctl rollout resume service/web` goes on\n"}},
		{"alice paused it", []any{service("web", 2, updated(3, 2, 1, 1), rolls(4, api.RolloutPaused, func(x *api.RolloutStatus) { x.PausedBy = "user alice" }))},
			result{out: "service/web: revision 4 is paused by user alice: 1 of 2 replicas have it, 1 of them ready; `orchctl rollout resume service/web` goes on\n"}},
		{"a pause goes by", []any{service("web", 2, updated(3, 2, 1, 1), canary(&minute), rolls(4, api.RolloutPaused, paused))},
			result{out: "web: revision 4 is paused at step 1 of 1 for 1m more\n", err: "orchctl: not ready within 5s\n", code: 1}},
		{"it was complete before another came", []any{revision(4, api.RolloutComplete), service("web", 2, all(2), rolls(5, api.RolloutComplete)),
			replica("web", 0, 1, "n1", running(true), of(5)), replica("web", 1, 2, "n2", running(true), of(5))},
			result{out: "service/web is rolled out: revision 5, 2 replicas in"}},
	} {
		in(t, newFake(oldWeb()...), func(t *testing.T, r *rig) {
			end := r.applyFourth(at{time.Second, func() { r.put(c.then...) }})
			got := r.run("apply", "-f", "-", "--timeout", "5s")
			<-end
			if got.code != c.want.code || !strings.Contains(got.out, c.want.out) || !strings.HasPrefix(got.err, c.want.err) || c.want.err == "" && got.err != "" {
				t.Errorf("%s: %s", c.name, got)
			}
		})
	}
}

// TestApplyOfSeveral: one that fails does not hide how the others ended.
func TestApplyOfSeveral(t *testing.T) {
	in(t, newFake(oldWeb()...), func(t *testing.T, r *rig) {
		r.onApply = func(*orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) {
			go script(
				at{time.Second, func() {
					r.put(service("web", 2, updated(2, 2, 1, 0), rolls(4, api.RolloutFailed, func(x *api.RolloutStatus) { x.Why = "no progress for 1s" })))
				}},
				at{3 * time.Second, func() { r.put(replica("api", 0, 9, "n1", running(true)), service("api", 1, all(1))) }})
			a := answer("configured", service("web", 2, updated(2, 2, 0, 0), rolls(4, api.RolloutProgressing)))
			a.Applied = append(a.Applied, answer("created", service("api", 1)).Applied...)
			return a, nil
		}
		r.env.In = strings.NewReader(webYAML)
		if got := r.run("apply", "-f", "-"); got.code != 1 || got.err != "orchctl: service/web revision 4 could not be rolled out: no progress for 1s\n" || !strings.Contains(got.out, "service/api created; 1/1 ready in 3s") {
			t.Error(got)
		}
		script(at{4 * time.Second, func() {}})
	})
}

// TestApplyTellsOnce: of many replicas with one trouble it is told once, and warnings of
// the controller are passed on.
func TestApplyTellsOnce(t *testing.T) {
	in(t, newFake(), func(t *testing.T, r *rig) {
		missing := `ImageMissing: no image "orch.local/web:9": not found`
		r.onApply = func(*orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) {
			go func() {
				time.Sleep(100 * time.Millisecond)
				r.put(service("web", 3, counts(3, 0, "web-0 on n1: "+missing, "web-1 on n2: "+missing)))
				time.Sleep(2 * time.Second)
				r.put(service("web", 3, counts(3, 0, "web-1 on n2: "+missing, "web-2 on n1: "+missing, "web-0 on n1: "+missing)))
			}()
			a := answer("created", service("web", 3))
			a.Applied[0].Plan = []string{"image orch.local/web:9 is not pinned to a digest"}
			return a, nil
		}
		r.env.In = strings.NewReader(webYAML)
		got := r.run("apply", "-f", "-", "--timeout", "6s")
		golden(t, "rollout-missing", got.String())
		if strings.Count(got.out, "ImageMissing") != 1 || strings.Count(got.err, "ImageMissing") != 1 {
			t.Error(got)
		}
	})
}

// TestRolloutOnATerminal: replicas of both revisions, and what each waits for.
func TestRolloutOnATerminal(t *testing.T) {
	s := service("web", 12, updated(13, 11, 2, 1, "web-2 on n3: Pulling", "web-1@21 is not ready on n2", "no subnet is free"), rolls(4, api.RolloutProgressing, func(x *api.RolloutStatus) { x.Step = 1 }),
		func(s *api.Service) { s.Spec.Rollout.Canary = []api.CanaryStep{{Replicas: *api.Count(3)}} })
	x := newTrack(s, "configured", epoch, epoch, nil)
	see := func(r *api.Replica) { x.see(sighting{put, objectOf(r), nil}, epoch) }
	for i := range 12 {
		see(replica("web", i, uint64(i+1), "n1", running(true), of(3), func(r *api.Replica) {
			if i < 2 {
				r.Status.Phase, r.Status.Message = api.PhaseStopping, "revision 4 took its place"
			}
		}))
	}
	see(replica("web", 0, 20, "n2", running(true), of(4)))
	see(replica("web", 1, 21, "n2", running(false), of(4), func(r *api.Replica) {
		r.Status.Containers[0].Message = "GET /healthz: 503"
	}))
	see(replica("web", 2, 22, "n3", waits(api.ReasonPulling, "42% of 120 MiB", nil), of(4)))
	x.label = "web"
	var out syncBuffer
	b := &block{t: &tool{Env: Env{Out: &out, Screen: func() (int, int, bool) { return 100, 30, true }}}}
	if err := b.draw([]*track{x}, nil, epoch.Add(12400*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	golden(t, "rollout-screen", out.String())
	for i := 3; i < 12; i++ { // more than there is room for
		see(replica("web", i, uint64(30+i), "n3", waits(api.ReasonPulling, "", nil), of(4)))
	}
	lines, _ := x.rows()
	if len(lines) != rowsShownMax+2 || lines[rowsShownMax] != "    and 5 replicas more on their way" {
		t.Errorf("%d lines:\n%s", len(lines), strings.Join(lines, "\n"))
	}
}

// TestRolloutWords: what is sent, and what is said after it.
func TestRolloutWords(t *testing.T) {
	in(t, newFake(oldWeb()...), func(t *testing.T, r *rig) {
		var asked []string
		r.onRoll = func(q *orchv1.RolloutRequest) (*orchv1.ApplyResponse, error) {
			asked = append(asked, fmt.Sprintf("%s %s/%s %d %s", q.Word, q.Namespace, q.Name, q.Revision, q.RequestId))
			switch q.Word {
			case "undo":
				if q.Revision == 9 {
					return nil, status.Error(codes.NotFound, "service default/web: no revision 9 is kept")
				}
				time.AfterFunc(time.Second, func() {
					r.put(replica("web", 0, 1, "n1", running(true), of(4)), replica("web", 1, 2, "n2", running(true), of(4)), service("web", 2, all(2), rolls(4, api.RolloutComplete)))
				})
				return answer("configured", service("web", 2, updated(2, 2, 0, 0), rolls(4, api.RolloutProgressing))), nil
			case "restart":
				a := answer("configured", service("web", 2, rolls(4, api.RolloutProgressing)))
				a.Applied[0].Plan = []string{"image web:1 is not pinned to a digest"}
				return a, nil
			}
			return answer("configured", service("web", 2, all(2), rolls(3, api.RolloutComplete))), nil
		}
		r.fail["Rollout"] = []error{unavailable("no leader")}
		if got := r.run("rollout", "pause", "service/web"); got.String() != "service/web paused\n--- stderr\n--- exit 0\n" {
			t.Error(got)
		}
		if got := r.run("rollout", "resume", "web"); got.String() != "service/web resumed; 2/2 ready in 0ms (committed 0ms)\n--- stderr\n--- exit 0\n" {
			t.Error(got)
		}
		if got := r.run("rollout", "restart", "svc", "web", "--wait=false"); got.String() != "service/web restarted\n  image web:1 is not pinned to a digest\n--- stderr\n--- exit 0\n" {
			t.Error(got)
		}
		if got := r.run("rollout", "undo", "service/web", "--to-revision", "9"); got.code != 1 || got.err != "orchctl: rollout undo service/web: service default/web: no revision 9 is kept\n" {
			t.Error(got)
		}
		if got := r.run("rollout", "undo", "service/web", "-n", "default"); got.code != 0 || !strings.HasSuffix(got.out, "service/web is rolled out: revision 4, 2 replicas in 1s\n") {
			t.Error(got)
		}
		want := "pause default/web 0 request-1, resume default/web 0 request-2, restart default/web 0 request-3, undo default/web 9 request-4, undo default/web 0 request-5"
		if got := strings.Join(asked, ", "); got != want {
			t.Errorf("asked %s\nwant %s", got, want)
		}
	})
}

// TestResume: what is seen as it was before does not end the wait; the next step does.
func TestResume(t *testing.T) {
	at := func(step int) *api.Service {
		return service("web", 2, updated(3, 2, step, step), rolls(4, api.RolloutPaused, func(x *api.RolloutStatus) { x.Step, x.StepAt = step, epoch }),
			func(s *api.Service) {
				s.Spec.Rollout.Canary = []api.CanaryStep{{Replicas: *api.Count(1)}, {Replicas: *api.Count(2)}}
			})
	}
	in(t, newFake(at(1), revision(4, api.RolloutPaused), revision(3, api.RolloutComplete)), func(t *testing.T, r *rig) {
		r.onRoll = func(*orchv1.RolloutRequest) (*orchv1.ApplyResponse, error) {
			time.AfterFunc(time.Second, func() { r.put(at(2)) })
			return answer("configured", at(1)), nil
		}
		got := r.run("rollout", "resume", "service/web")
		if got.code != 0 || !strings.HasSuffix(got.out, "service/web: revision 4 is paused at step 2 of 2: 2 of 2 replicas have it, 2 of them ready; `orchctl rollout resume service/web` goes on\n") {
			t.Error(got)
		}
		for _, line := range []string{"rollout undo web --to-revision ", "get service web --revision ", "rollout status service/web --revision "} {
			if got := r.run(append(append([]string{"__complete"}, strings.Fields(line)...), "")...); strings.Join(strings.Fields(got.out), " ") != "4 3 :36" {
				t.Errorf("%s: %s", line, got)
			}
		}
	})
}

// TestResumeOfAFailure: the failure that the word ended is not taken for the rollout's
// end, though it is seen again after the answer; one that comes later is.
func TestResumeOfAFailure(t *testing.T) {
	failed := func(end time.Time) *api.Service {
		return service("web", 2, updated(3, 2, 1, 0), rolls(4, api.RolloutFailed, func(x *api.RolloutStatus) { x.EndedAt, x.Why = end, "no progress for 5s" }))
	}
	goesOn := service("web", 2, updated(3, 2, 1, 0), rolls(4, api.RolloutProgressing, func(x *api.RolloutStatus) { x.ProgressAt = epoch }))
	for _, c := range []struct {
		before, end *api.Service
		want        result
	}{
		{failed(ago(time.Minute)), service("web", 2, all(2), rolls(4, api.RolloutComplete)), result{out: "service/web is rolled out: revision 4, 2 replicas in 2s\n"}},
		{failed(ago(time.Minute)), failed(epoch.Add(2 * time.Second)), result{err: "orchctl: service/web revision 4 could not be rolled out: no progress for 5s\n", code: 1}},
		// Who is asked did not know of the failure yet.
		{service("web", 2, updated(3, 2, 1, 0), rolls(4, api.RolloutProgressing, func(x *api.RolloutStatus) { x.ProgressAt = ago(time.Hour) })),
			service("web", 2, all(2), rolls(4, api.RolloutComplete)), result{out: "service/web is rolled out: revision 4, 2 replicas in 2s\n"}},
	} {
		in(t, newFake(c.before), func(t *testing.T, r *rig) {
			r.onRoll = func(*orchv1.RolloutRequest) (*orchv1.ApplyResponse, error) {
				go script(
					at{100 * time.Millisecond, func() { r.put(failed(ago(time.Minute))) }},
					at{time.Second, func() { r.put(goesOn) }},
					at{2 * time.Second, func() {
						r.put(replica("web", 0, 1, "n1", running(true), of(4)), replica("web", 1, 2, "n2", running(true), of(4)), c.end)
					}})
				return answer("configured", goesOn), nil
			}
			got := r.run("rollout", "resume", "web")
			if got.code != c.want.code || !strings.HasSuffix(got.out, c.want.out) || got.err != c.want.err {
				t.Error(got)
			}
			script(at{3 * time.Second, func() {}})
		})
	}
}

func TestRolloutStatus(t *testing.T) {
	took := func(x *api.RolloutStatus) {
		x.StartedAt, x.EndedAt = ago(time.Minute), ago(time.Minute).Add(12400*time.Millisecond)
	}
	for _, c := range []struct {
		line string
		web  *api.Service
		want string
	}{
		{"service/web", service("web", 20, all(20), rolls(3, api.RolloutComplete, took)), "service/web is rolled out: revision 3, 20 replicas in 12.4s\n--- stderr\n--- exit 0\n"},
		{"service/web --watch=false", service("web", 1, all(1), rolls(3, api.RolloutComplete, took)), "service/web is rolled out: revision 3, 1 replica in 12.4s\n--- stderr\n--- exit 0\n"},
		// It counts as rolled out though one of them has failed since.
		{"web", service("web", 2, counts(2, 1), rolls(3, api.RolloutComplete, took)), "service/web is rolled out: revision 3, 2 replicas in 12.4s\n--- stderr\n--- exit 0\n"},
		{"web --watch=false", service("web", 20, updated(21, 20, 3, 2), rolls(4, api.RolloutProgressing, func(x *api.RolloutStatus) { x.StartedAt, x.Why = ago(12*time.Second), "web-2 is not ready" })),
			"service/web: revision 4 is being rolled out for 12s: 3 of 20 replicas have it, 2 of them ready; web-2 is not ready\n--- stderr\n--- exit 0\n"},
		{"web --watch=false", service("web", 2, updated(2, 2, 1, 0), rolls(4, api.RolloutFailed, func(x *api.RolloutStatus) { x.Why = crashed })),
			"--- stderr\norchctl: service/web revision 4 could not be rolled out: web-0 on n3 ended 3 times: exit code 1; last output:\n    starting [2J\n    cannot open database\n--- exit 1\n"},
		{"web", service("web", 2, updated(2, 2, 1, 0), rolls(4, api.RolloutFailed)), "--- stderr\norchctl: service/web revision 4 could not be rolled out: why is not known\n--- exit 1\n"},
		{"web --timeout 2s", service("web", 2, updated(3, 2, 1, 0, "web-0 on n3: Pulling"), rolls(4, api.RolloutPaused, func(x *api.RolloutStatus) { x.PausedBy = "user alice" })),
			"web: revision 4 is paused by user alice\nweb: revision 4: 0/2 ready, 2 placing\nweb: web-0 on n3: Pulling\n--- stderr\norchctl: not ready within 2s\n  service/web revision 4: 0/2 ready, 2 placing\n    web-0 on n3: Pulling\nwhat was applied stays, and orch goes on with it; `orchctl describe service web -n default` tells more\n--- exit 1\n"},
		{"web --revision 3", service("web", 2, all(2), rolls(6, api.RolloutComplete)), "service/web revision 3 was rolled out in 12.4s; the newest is 6 now\n--- stderr\n--- exit 0\n"},
		{"web --revision 4", service("web", 2, all(2), rolls(5, api.RolloutComplete)), "--- stderr\norchctl: service/web was rolled back from revision 4 to revision 3's template (revision 5): web-0 on n3 ended 3 times: exit code 1; last output:\n    starting [2J\n    cannot open database\n--- exit 1\n"},
		{"web --revision 2", service("web", 2, all(2), rolls(5, api.RolloutComplete)), "--- stderr\norchctl: service/web: revision 2 was not rolled out: another took its place; the newest is 5\n--- exit 1\n"},
		{"web --revision 1", service("web", 2, all(2), rolls(5, api.RolloutComplete)), "--- stderr\norchctl: service/web: no revision 1 is kept; the newest is 5\n--- exit 1\n"},
		{"api", service("web", 2), "--- stderr\norchctl: get service/api: service api is not there\n--- exit 1\n"},
	} {
		in(t, newFake(c.web, revision(2, api.RolloutSuperseded), revision(3, api.RolloutComplete), revision(4, api.RolloutRolledBack, func(r *api.Revision) { r.Rollout.Why = crashed })), func(t *testing.T, r *rig) {
			if got := r.run(append([]string{"rollout", "status"}, strings.Fields(c.line)...)...); got.String() != c.want {
				t.Errorf("%s: got\n%swant\n%s", c.line, got, c.want)
			}
		})
	}
}

// TestStatusFollows: it waits for the end, whoever began it.
func TestStatusFollows(t *testing.T) {
	in(t, newFake(service("web", 2, updated(2, 2, 0, 0), rolls(4, api.RolloutProgressing))), func(t *testing.T, r *rig) {
		time.AfterFunc(time.Minute, func() {
			r.put(service("web", 2, all(2), rolls(4, api.RolloutComplete, func(x *api.RolloutStatus) { x.StartedAt, x.EndedAt = epoch, epoch.Add(time.Minute) })))
		})
		if got := r.run("rollout", "status", "service/web"); got.code != 0 || !strings.HasSuffix(got.out, "service/web is rolled out: revision 4, 2 replicas in 1m\n") || strings.Count(got.out, "\n") > 4 {
			t.Error(got)
		}
	})
}

// TestGlobalAndRollouts: columns that are there only where they tell something.
func TestGlobalAndRollouts(t *testing.T) {
	global := service("log", 1, all(4), func(s *api.Service) { s.Spec.Mode, s.Spec.Replicas = api.ModeGlobal, nil })
	in(t, newFake(global, service("web", 3, updated(4, 3, 1, 0), rolls(4, api.RolloutProgressing)), service("db", 1, all(1), rolls(1, api.RolloutComplete))), func(t *testing.T, r *rig) {
		golden(t, "global", r.run("get", "services").String()+r.run("get", "service", "db").String())
	})
}

// TestGlobalIsReady: slots with gaps, for nodes come and go.
func TestGlobalIsReady(t *testing.T) {
	s := service("log", 1, all(2), func(s *api.Service) { s.Spec.Mode, s.Spec.Replicas = api.ModeGlobal, nil })
	for _, c := range []struct {
		replicas []*api.Replica
		want     bool
		says     string
	}{
		{[]*api.Replica{replica("log", 0, 1, "n1", running(true)), replica("log", 7, 2, "n2", running(true))}, true, "2/2 ready"},
		{[]*api.Replica{replica("log", 0, 1, "n1", running(true)), replica("log", 7, 2, "n2", running(false))}, false, "1/2 ready, 1 not ready yet"},
		{[]*api.Replica{replica("log", 0, 1, "n1", running(true)), replica("log", 7, 2, "", pending("1 node: 1 lacks cpu"))}, false, "1/2 ready, 1 pending"},
	} {
		x := newTrack(s, "created", epoch, epoch, nil)
		for _, r := range c.replicas {
			x.see(sighting{put, objectOf(r), nil}, epoch)
		}
		if got := x.isReady(); got != c.want || x.summary() != c.says {
			t.Errorf("ready is %v: %s, want %s", got, x.summary(), c.says)
		}
	}
}

func TestFoldReasons(t *testing.T) {
	for _, c := range []struct{ in, want []string }{
		{nil, nil},
		{[]string{"web-0 on n1: BackOff: again in 4s"}, []string{"web-0 on n1: BackOff: again in 4s"}},
		{[]string{"web-0 on n1: BackOff: again in 4s", "no VIP", "web-1 on n2: BackOff: again in 1.5s", "web-2 on n2: Pulling: 3 MiB", "web-3 on n2: Pulling: 42% of 120MiB"},
			[]string{"web-0 on n1 (and 1 more): BackOff: again in 4s", "no VIP", "web-2 on n2: Pulling: 3 MiB", "web-3 on n2: Pulling: 42% of 120MiB"}},
		{[]string{"web-0 pending: 3 nodes: 3 unschedulable", "web-1 pending: 3 nodes: 3 unschedulable", "web-2 on n1: 3 nodes: 3 unschedulable"},
			[]string{"web-0 pending (and 1 more): 3 nodes: 3 unschedulable", "web-2 on n1: 3 nodes: 3 unschedulable"}},
		{[]string{"web-2@24 is not ready on n1", "web-3@23 is not ready on n2", "web-4@25 is not running on n1"}, []string{"web-2@24 is not ready on n1 (and 1 more)", "web-4@25 is not running on n1"}},
		{[]string{"web-1 pending: 2 nodes: 2 unschedulable", "web-2 pending: 3 nodes: 3 unschedulable"}, []string{"web-1 pending: 2 nodes: 2 unschedulable", "web-2 pending: 3 nodes: 3 unschedulable"}},
	} {
		if got := foldReasons(c.in); !slices.Equal(got, c.want) {
			t.Errorf("%q: got %q, want %q", c.in, got, c.want)
		}
	}
}
