package orchctl

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

func contextOf(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithCancel(t.Context())
}

func unavailable(why string) error { return status.Error(codes.Unavailable, why) }

const webYAML = `apiVersion: orch/v1
kind: Service
metadata: {name: web}
spec:
  replicas: 3
  containers: [{name: main, image: "orch.local/web:1.0"}]
`

// answer is an apply's response for one service.
func answer(outcome string, s *api.Service) *orchv1.ApplyResponse {
	return &orchv1.ApplyResponse{Applied: []*orchv1.Applied{{Object: objectOf(s).wire(), Outcome: outcome}}}
}

// at runs steps at times after the apply's answer.
type at struct {
	after time.Duration
	do    func()
}

func script(steps ...at) {
	began := time.Now()
	for _, s := range steps {
		time.Sleep(time.Until(began.Add(s.after)))
		s.do()
	}
}

// roll is the life of a new service, from nothing to three ready replicas.
func (r *rig) roll(end chan struct{}) func(*orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) {
	return func(*orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) {
		time.Sleep(12 * time.Millisecond) // the commit
		go func() {
			defer close(end)
			why := "web-2 pending: 3 nodes: 2 lack 64Mi memory, 1 cordoned"
			pull := func(rep *api.Replica) { waits(api.ReasonPulling, "", nil)(rep) }
			script(
				at{3 * time.Millisecond, func() {
					r.put(replica("web", 0, 1, "n1"), replica("web", 1, 2, "n2"), service("web", 3, counts(2, 0, why)))
				}},
				at{30 * time.Millisecond, func() { r.put(replica("web", 2, 0, "", pending(why))) }},
				at{250 * time.Millisecond, func() { r.put(replica("web", 0, 1, "n1", pull), replica("web", 1, 2, "n2", pull)) }},
				at{450 * time.Millisecond, func() { r.put(replica("web", 0, 1, "n1", running(false))) }},
				at{850 * time.Millisecond, func() {
					r.put(replica("web", 0, 1, "n1", running(true)), replica("web", 1, 2, "n2", running(true)), service("web", 3, counts(2, 2, why)))
				}},
				at{2330 * time.Millisecond, func() {
					r.drop(replica("web", 2, 0, ""))
					r.put(replica("web", 2, 3, "n3"), service("web", 3, counts(3, 2)))
				}},
				at{2888 * time.Millisecond, func() { r.put(replica("web", 2, 3, "n3", running(true)), service("web", 3, all(3))) }},
			)
		}()
		return answer("created", service("web", 3)), nil
	}
}

func TestApplyShowsProgress(t *testing.T) {
	in(t, newFake(), func(t *testing.T, r *rig) {
		end := make(chan struct{})
		r.onApply = r.roll(end)
		r.env.In = strings.NewReader(webYAML)
		got := r.run("apply", "-f", "-")
		<-end
		golden(t, "apply", got.String())
	})
}

func TestApplyRedrawsOnATerminal(t *testing.T) {
	in(t, newFake(), func(t *testing.T, r *rig) {
		end := make(chan struct{})
		r.onApply = r.roll(end)
		r.env.Screen = func() (int, int, bool) { return 60, 24, true }
		r.env.In = strings.NewReader(webYAML)
		got := r.run("apply", "-f", "-")
		<-end
		last := got.out[strings.LastIndex(got.out, "\x1b[J")+len("\x1b[J"):]
		if got.code != 0 || last != "service/web created; 3/3 ready in 2.9s (committed 12ms, placed 2.34s, first running 0.46s)\n" {
			t.Errorf("what stays on the screen:\n%s", last)
		}
		if !strings.Contains(got.out, "• web  400ms  0/3 ready, 1 pending, 2 pulling\n") || !strings.Contains(got.out, "    web-2   -    Pending    web-2 pending: 3 nodes: 2 lack…\n") {
			t.Errorf("drawn:\n%q", got.out)
		}
	})
}

// TestApplyOfANewRevision: what ran before does not count.
func TestApplyOfANewRevision(t *testing.T) {
	old := []any{service("web", 2, all(2)), replica("web", 0, 1, "n1", running(true)), replica("web", 1, 2, "n2", running(true))}
	second := func(r *api.Replica) { r.Spec.Revision = 2 }
	status := func(replicas, ready, updated, updatedReady int) *api.Service {
		s := service("web", 2)
		s.Metadata.ResourceVersion = 2
		s.Status = api.ServiceStatus{Revision: 2, Replicas: replicas, Ready: ready, Updated: updated, UpdatedReady: updatedReady}
		return s
	}
	in(t, newFake(old...), func(t *testing.T, r *rig) {
		end := make(chan struct{})
		r.onApply = func(*orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) {
			go func() {
				defer close(end)
				script(
					at{150 * time.Millisecond, func() { r.put(status(3, 2, 1, 0), replica("web", 0, 3, "n3", second)) }},
					at{350 * time.Millisecond, func() {
						r.put(replica("web", 0, 3, "n3", running(true), second), replica("web", 1, 4, "n1", second), status(4, 2, 2, 1))
					}},
					at{550 * time.Millisecond, func() {
						r.put(replica("web", 1, 4, "n1", running(true), second), status(4, 2, 2, 2))
					}},
					at{750 * time.Millisecond, func() {
						r.drop(old[1])
						r.drop(old[2])
						r.put(status(2, 2, 2, 2))
					}},
				)
			}()
			return answer("configured", status(2, 2, 0, 0)), nil
		}
		r.env.In = strings.NewReader(webYAML)
		got := r.run("apply", "-f", "-")
		<-end
		golden(t, "apply-revision", got.String())
	})
}

func TestApplyOfNothingNew(t *testing.T) {
	f := newFake(service("web", 1, all(1)), replica("web", 0, 1, "n1", running(true)))
	in(t, f, func(t *testing.T, r *rig) {
		r.onApply = func(*orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) {
			return answer("unchanged", service("web", 1, all(1))), nil
		}
		r.env.In = strings.NewReader(webYAML)
		if got := r.run("apply", "-f", "-"); got.out != "service/web unchanged; 1/1 ready\n" || got.code != 0 {
			t.Error(got)
		}
	})
}

// stuck is an apply whose service never gets ready.
func (r *rig) stuck(*orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) {
	go func() {
		time.Sleep(50 * time.Millisecond)
		r.put(replica("web", 0, 1, "n1", running(true)), replica("web", 1, 2, "n2", running(true)), replica("web", 2, 3, "n2", waits(api.ReasonImageMissing, "", nil)),
			service("web", 3, counts(3, 2, "web-2 on n2: ImageMissing: no such image")))
	}()
	return answer("created", service("web", 3)), nil
}

func TestApplyTimesOut(t *testing.T) {
	in(t, newFake(), func(t *testing.T, r *rig) {
		r.onApply = r.stuck
		r.env.In = strings.NewReader(webYAML)
		got := r.run("apply", "-f", "-", "--timeout", "3s")
		golden(t, "apply-timeout", got.String())
		if got.code != 1 {
			t.Errorf("exit %d", got.code)
		}
	})
}

func TestApplyInterrupted(t *testing.T) {
	in(t, newFake(), func(t *testing.T, r *rig) {
		r.onApply = r.stuck
		r.env.In = strings.NewReader(webYAML)
		ctx, cancel := contextOf(t)
		time.AfterFunc(1500*time.Millisecond, cancel)
		got := r.runCtx(ctx, "apply", "-f", "-")
		if got.code != 1 || !strings.Contains(got.err, "orchctl: interrupted\n  service/web created; 2/3 ready, 1 ImageMissing\n") ||
			!strings.Contains(got.err, "what was applied stays, and orch goes on with it") {
			t.Error(got)
		}
		if len(r.deletes) > 0 {
			t.Error("an interrupt deleted the service")
		}
	})
}

// TestApplyOfAServiceThatFailsAgain: who was ready once is no success while
// others are waited for.
func TestApplyOfAServiceThatFailsAgain(t *testing.T) {
	in(t, newFake(), func(t *testing.T, r *rig) {
		r.onApply = func(*orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) {
			go script(
				at{100 * time.Millisecond, func() { r.put(replica("api", 0, 1, "n1", running(true)), service("api", 1, all(1))) }},
				at{900 * time.Millisecond, func() {
					r.put(replica("api", 0, 1, "n1", waits(api.ReasonBackOff, "", &api.Exit{Code: 3, Reason: api.ExitError})), service("api", 1, counts(1, 0, "api-0 on n1: BackOff")))
				}},
				at{1200 * time.Millisecond, func() { r.put(replica("web", 0, 2, "n1", running(true)), service("web", 1, all(1))) }},
			)
			first := answer("created", service("api", 1))
			first.Applied = append(first.Applied, answer("created", service("web", 1)).Applied...)
			return first, nil
		}
		r.env.In = strings.NewReader(webYAML)
		got := r.run("apply", "-f", "-", "--timeout", "3s")
		if got.code != 1 || !strings.Contains(got.err, "  service/api created, was ready; 0/1 ready, 1 failing (Error)\n    api-0 on n1: BackOff\n") ||
			strings.Contains(got.err, "service/web") || strings.Count(got.out, "service/api created; 1/1 ready") != 1 {
			t.Error(got)
		}
	})
}

func TestApplyOfADeletedService(t *testing.T) {
	in(t, newFake(), func(t *testing.T, r *rig) {
		r.onApply = func(*orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) {
			time.AfterFunc(time.Second, func() { r.put(service("web", 3)); r.drop(service("web", 3)) })
			return answer("created", service("web", 3)), nil
		}
		r.env.In = strings.NewReader(webYAML)
		if got := r.run("apply", "-f", "-"); got.code != 1 || !strings.Contains(got.err, "service/web was deleted meanwhile") {
			t.Error(got)
		}
	})
}

// TestApplyIsRepeated: a leader's change is bridged, under one request id.
func TestApplyIsRepeated(t *testing.T) {
	in(t, newFake(), func(t *testing.T, r *rig) {
		r.fail["Apply"] = []error{unavailable("no leader"), unavailable("no leader"), unavailable("no leader"), unavailable("no leader"), unavailable("no leader")}
		r.env.In = strings.NewReader(webYAML)
		got := r.run("apply", "-f", "-", "--wait=false")
		if got.code != 0 || got.out != "service/web created\n" || !strings.Contains(got.err, "no leader answers; trying again (no leader)") {
			t.Error(got)
		}
		if len(r.applies) != 6 {
			t.Fatalf("%d tries", len(r.applies))
		}
		for _, a := range r.applies {
			if a.RequestId == "" || a.RequestId != r.applies[0].RequestId {
				t.Errorf("request ids %q and %q", r.applies[0].RequestId, a.RequestId)
			}
		}
	})
	in(t, newFake(), func(t *testing.T, r *rig) {
		for range 1000 {
			r.fail["Apply"] = append(r.fail["Apply"], unavailable("no leader"))
		}
		r.env.In = strings.NewReader(webYAML)
		began := time.Now()
		got := r.run("apply", "-f", "-", "--wait=false", "--request-timeout", "10s")
		if took := time.Since(began); got.code != 1 || took > 10*time.Second || took < 8*time.Second || len(r.applies) > 20 {
			t.Errorf("%d tries in %s: %s", len(r.applies), took, got)
		}
	})
}

func TestDryRun(t *testing.T) {
	in(t, newFake(), func(t *testing.T, r *rig) {
		r.onApply = func(q *orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) {
			if !q.DryRun {
				t.Error("not a dry run")
			}
			a := answer("created", service("web", 3))
			a.Applied[0].Plan = []string{"create web-0 on n1", "create web-1 on n2"}
			return a, nil
		}
		r.env.In = strings.NewReader(webYAML)
		if got := r.run("apply", "-f", "-", "--dry-run"); got.code != 0 || got.out != "service/web created (dry run)\n  create web-0 on n1\n  create web-1 on n2\n" {
			t.Error(got)
		}
	})
}

func TestBrokenManifests(t *testing.T) {
	in(t, newFake(), func(t *testing.T, r *rig) {
		dir := t.TempDir()
		for name, text := range map[string]string{"a.yaml": webYAML, "b.yaml": strings.Replace(strings.Replace(webYAML, "name: web", "name: api", 1), "replicas: 3", "replcas: 3", 1), "c.yaml": strings.Replace(webYAML, "name: web", "name: Web_", 1)} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got := r.run("apply", "-f", dir)
		if got.code != 2 || !strings.Contains(got.err, "b.yaml:5:3: ") || !strings.Contains(got.err, `did you mean "replicas"`) || !strings.Contains(got.err, "c.yaml:3:18: ") ||
			!strings.HasSuffix(got.err, "orchctl: 2 problems in the manifests: nothing was applied\n") {
			t.Error(got)
		}
		if got := r.run("apply", "-f", filepath.Join(dir, "none.yaml")); got.code != 2 || !strings.Contains(got.err, "none.yaml: cannot be read: no such file") {
			t.Error(got)
		}
		if len(r.calls) > 0 {
			t.Errorf("the controller was asked: %v", r.calls)
		}
	})
}

// TestNamespaces: the context's namespace is a default, -n a demand.
func TestNamespaces(t *testing.T) {
	in(t, newFake(), func(t *testing.T, r *rig) {
		real := r.env.Cluster
		r.env.Cluster = func(a, b string) (Cluster, error) {
			c, err := real(a, b)
			c.Namespace = "shop"
			return c, err
		}
		there := strings.Replace(webYAML, "{name: web}", "{name: api, namespace: other}", 1)
		r.env.In = strings.NewReader(webYAML + "---\n" + there)
		if got := r.run("apply", "-f", "-", "--wait=false"); got.code != 0 {
			t.Fatal(got)
		}
		var spaces []string
		for _, o := range r.applies[0].Objects {
			var s api.Service
			if err := json.Unmarshal(o.Json, &s); err != nil {
				t.Fatal(err)
			}
			spaces = append(spaces, s.Metadata.Namespace)
		}
		if strings.Join(spaces, " ") != "shop other" {
			t.Errorf("namespaces %v", spaces)
		}
		r.env.In = strings.NewReader(there)
		if got := r.run("apply", "-f", "-", "-n", "shop"); got.code != 2 || !strings.Contains(got.err, `namespace "shop" was asked for`) {
			t.Error(got)
		}
	})
}

func TestScale(t *testing.T) {
	f := newFake(service("web", 1, all(1)), replica("web", 0, 1, "n1", running(true)))
	in(t, f, func(t *testing.T, r *rig) {
		var asked *orchv1.ScaleRequest
		var onScale func(*orchv1.ScaleRequest) (*orchv1.ApplyResponse, error)
		r.onScale = func(q *orchv1.ScaleRequest) (*orchv1.ApplyResponse, error) {
			asked = q
			if q.CurrentReplicas >= 0 && q.CurrentReplicas != 1 {
				return nil, status.Errorf(codes.FailedPrecondition, "service default/web: it has 1 replicas, not %d", q.CurrentReplicas)
			}
			two := func(s *api.Service) { s.Metadata.ResourceVersion = 2 }
			time.AfterFunc(500*time.Millisecond, func() { r.put(replica("web", 1, 2, "n2", running(true)), service("web", 2, all(2), two)) })
			return answer("configured", service("web", 2, counts(1, 1), two)), nil
		}
		r.fail["Scale"] = []error{unavailable("no leader")}
		if got := r.run("scale", "service/web", "--replicas", "2"); got.code != 0 || got.out != "service/web scaled to 2 replicas\n" || asked.CurrentReplicas != -1 || asked.RequestId == "" {
			t.Error(got, asked)
		}
		r.onScale, onScale = func(*orchv1.ScaleRequest) (*orchv1.ApplyResponse, error) {
			return answer("unchanged", service("web", 1)), nil
		}, r.onScale
		if got := r.run("scale", "web", "--replicas", "1"); got.out != "service/web unchanged: it has 1 replica\n" || got.code != 0 {
			t.Error(got)
		}
		r.onScale = onScale
		if got := r.run("scale", "svc", "web", "--replicas", "2", "--current-replicas", "3"); got.code != 1 || got.err != "orchctl: scale service/web: service default/web: it has 1 replicas, not 3\n" {
			t.Error(got)
		}
		if got := r.run("scale", "web", "--replicas", "2", "--wait"); got.code != 0 || !strings.Contains(got.out, "service/web scaled; 2/2 ready in 0.5s") {
			t.Error(got)
		}
		synctest.Wait()
	})
}

func TestDelete(t *testing.T) {
	in(t, newFake(service("web", 1), service("api", 1)), func(t *testing.T, r *rig) {
		dying := service("web", 1, func(s *api.Service) {
			s.Metadata.DeletedAt = time.Now()
			s.Status.Reasons = []string{"being deleted: 1 replicas are left"}
		})
		r.put(dying)
		got := r.run("delete", "service", "web", "--timeout", "2s")
		if got.code != 1 || !strings.Contains(got.err, "not gone within 2s: service/web is still being deleted\n  being deleted: 1 replicas are left\n") {
			t.Error(got)
		}
		time.AfterFunc(time.Second, func() { r.drop(dying) })
		if got := r.run("delete", "service/web"); got.code != 0 || got.out != "service/web deleted\n" {
			t.Error(got)
		}
		if got := r.run("delete", "service/web"); got.code != 1 || !strings.Contains(got.err, "service web: not found; nothing was deleted") {
			t.Error(got)
		}
		r.env.In = strings.NewReader(webYAML)
		if got := r.run("delete", "-f", "-", "--ignore-not-found"); got.code != 0 || got.out != "" {
			t.Error(got)
		}
		r.fail["Delete"] = []error{unavailable("no leader")} // and the try was done all the same
		if got := r.run("delete", "service/web"); got.code != 0 || got.out != "service/web is not there any more, or never was\n" {
			t.Error(got)
		}
		if got := r.run("delete", "replica/web-0"); got.code != 2 || !strings.Contains(got.err, "scale the service") {
			t.Error(got)
		}
		if got := r.run("delete", "svc", "api", "--wait=false"); got.code != 0 || got.out != "service/api is being deleted\n" {
			t.Error(got)
		}
	})
}
