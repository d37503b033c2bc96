package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orchctl/orch/agent/ctrd"
	"github.com/orchctl/orch/agent/logs"
	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/agent/runtimetest"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// wrote appends to a container's log what one run of it has written.
func (r *rig) wrote(container, run string, lines ...string) {
	r.t.Helper()
	file := logs.File(filepath.Join(r.dir, "logs"), web0, container)
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		r.t.Fatal(err)
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	for _, line := range append([]string{"start F " + run}, lines...) {
		if _, err := fmt.Fprintln(f, time.Now().UTC().Format(time.RFC3339Nano), line); err != nil {
			r.t.Fatal(err)
		}
	}
}

// A replica with all that may stand beside its container: init container, sidecar and
// hooks, pinned images and variables, over a restart of the agent.
func TestStagesOfAReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.runtime.AddImage("init:1")
		r.runtime.OnExec(func(id string, e ctrd.ExecSpec) (int, error) {
			r.runtime.Note("%s in %s", strings.Join(e.Args, " "), id)
			return 0, nil
		})
		r.start()
		l := r.next(10)
		a := web(web0)
		a.Images = map[string]string{"web:1": runtimetest.DigestOf("web:1"), "init:1": runtimetest.DigestOf("init:1")}
		a.Template.Sysctls = map[string]string{"net.core.somaxconn": "1024"}
		a.Template.InitContainers = []api.Container{{Name: "migrate", Image: "init:1"}}
		a.Template.Sidecars = []api.Container{{Name: "proxy", Image: "web:1"}}
		main := &a.Template.Containers[0]
		main.Env = []api.EnvVar{{Name: "NODE", ValueFrom: &api.EnvSource{Field: api.FieldNode}}}
		main.Lifecycle = &api.Lifecycle{PostStart: &api.Hook{Exec: &api.ExecProbe{Command: []string{"warm", "up"}}}, PreStop: &api.Hook{Exec: &api.ExecProbe{Command: []string{"drain"}}}}
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{a}})
		l.hear(func(s wire.StatusReport) bool {
			return len(s.Replicas) == 1 && s.Replicas[0].Status.Reason == api.ReasonInitializing && s.Replicas[0].Status.Message == "init container migrate (1 of 1) runs"
		})
		r.wantTook("start default.web-0.1.migrate")
		spec := r.runtime.SpecOf("default.web-0.1.migrate")
		if spec.Container.Image != "init:1@"+runtimetest.DigestOf("init:1") || spec.Sysctls["net.core.somaxconn"] != "1024" {
			t.Errorf("made from %+v", spec)
		}

		r.restart()
		l = r.next(11)
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{a}})
		l.hear(func(s wire.StatusReport) bool { return s.Complete })
		r.wantTook()
		r.runtime.End("default.web-0.1.migrate", api.Exit{Reason: api.ExitCompleted})
		rep := l.hear(ready)
		if c := rep.Replicas[0].Status.Containers; len(c) != 2 || c[0].Name != "proxy" || c[1].Name != "main" {
			t.Errorf("the leader is told of %+v", c)
		}
		r.wantTook("start default.web-0.1.proxy", "start default.web-0.1.main", "warm up in default.web-0.1.main")
		if env := r.runtime.SpecOf("default.web-0.1.main").Container.Env; len(env) != 1 || env[0] != (api.EnvVar{Name: "NODE", Value: "n1"}) {
			t.Errorf("its variables are %v", env)
		}

		// The image's name means another now: what runs is restarted from what was meant.
		r.runtime.Retag("web:1", "sha256:other")
		a.Stopping = true
		l.assign(t, wire.AssignmentSet{Put: []wire.Assignment{a}})
		l.hear(func(s wire.StatusReport) bool { return slices.Contains(s.Gone, web0) })
		took := r.runtime.Took()
		stops := slices.DeleteFunc(took, func(s string) bool { return strings.HasPrefix(s, "remove") })
		if !slices.Equal(stops, []string{"drain in default.web-0.1.main", "stop default.web-0.1.main", "stop default.web-0.1.proxy"}) {
			t.Errorf("stopped by %q", stops)
		}
		if left := r.runtime.IDs(); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
		r.stop()
	})
}

// An image that is wanted by its digest is not replaced by what has its name.
func TestPinnedImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.runtime.Retag("web:1", "sha256:other")
		r.start()
		l := r.next(10)
		a := web(web0)
		a.Images = map[string]string{"web:1": "sha256:meant"}
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{a}})
		rep := l.hear(func(s wire.StatusReport) bool {
			return len(s.Replicas) == 1 && s.Replicas[0].Status.Reason == api.ReasonImageMissing
		})
		if m := rep.Replicas[0].Status.Message; !strings.Contains(m, "sha256:other") || !strings.Contains(m, "sha256:meant") {
			t.Errorf("told %q, want both digests", m)
		}
		r.runtime.Retag("web:1", "sha256:meant")
		time.Sleep(time.Minute)
		l.hear(ready)
		r.stop()
	})
}

func TestLastOutputIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		l := r.next(10)
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{web(web0)}})
		l.hear(ready)
		r.wrote("main", "default.web-0.1.main", "stdout F reading config", "stderr F cannot open database")
		r.runtime.Exit("default.web-0.1.main", 1)
		output := func(want string) func(wire.StatusReport) bool {
			return func(s wire.StatusReport) bool {
				if len(s.Replicas) != 1 || len(s.Replicas[0].Status.Containers) != 1 {
					return false
				}
				e := s.Replicas[0].Status.Containers[0].LastExit
				return e != nil && e.Output == want
			}
		}
		l.hear(output("reading config\ncannot open database"))

		// What it writes last is behind its end: it is waited for.
		time.Sleep(10 * time.Millisecond)
		r.wrote("main", "default.web-0.1.main_1")
		r.runtime.Exit("default.web-0.1.main_1", 1)
		time.Sleep(outputLook / 2)
		r.wrote("main", "default.web-0.1.main_1", "stderr F late words")
		l.hear(output("late words"))

		// An agent that was not there when it ended finds it, too.
		time.Sleep(time.Second)
		r.end()
		r.wrote("main", "default.web-0.1.main_2", "stdout F nobody listens")
		r.runtime.Exit("default.web-0.1.main_2", 1)
		r.start()
		l = r.next(11)
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{web(web0)}})
		l.hear(output("nobody listens"))
		r.stop()
	})
}

func TestHealthcheckIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		every := api.Duration(2 * time.Second)
		r.runtime.SetHealthcheck("web:1", &ctrd.Healthcheck{Probe: api.Probe{Exec: &api.ExecProbe{Command: []string{"ok?"}}, Interval: &every, FailureThreshold: 2}})
		var sick atomic.Bool
		r.runtime.OnExec(func(string, ctrd.ExecSpec) (int, error) {
			if sick.Load() {
				return 1, nil
			}
			return 0, nil
		})
		r.start()
		l := r.next(10)
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{web(web0)}})
		l.hear(ready)
		sick.Store(true)
		l.hear(func(s wire.StatusReport) bool {
			return len(s.Replicas) == 1 && s.Replicas[0].Status.Containers[0].LastExit != nil && s.Replicas[0].Status.Containers[0].LastExit.Reason == api.ExitLivenessFailed
		})
		r.stop()
	})
}

// resolve asks what references mean.
func (r *rig) resolve(l *leader, refs ...string) (map[string]*orchv1.ResolvedImage, *orchv1.End) {
	r.t.Helper()
	frames, end := r.relay(l, &orchv1.OpenRelay{Request: &orchv1.OpenRelay_Resolve{Resolve: &orchv1.ResolveOpen{Refs: refs}}})
	got := map[string]*orchv1.ResolvedImage{}
	for _, f := range frames {
		got[f.GetResolved().GetRef()] = f.GetResolved()
	}
	return got, end
}

func TestResolve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		l := r.next(10)
		got, end := r.resolve(l, "web:1", "none:1")
		if end.GetError() != "" || len(got) != 2 {
			t.Fatalf("%v, %v", got, end)
		}
		if x := got["web:1"]; x.GetDigest() != runtimetest.DigestOf("web:1") || x.GetError() != "" {
			t.Errorf("web:1 is %v", x)
		}
		if x := got["none:1"]; x.GetDigest() != "" || !strings.Contains(x.GetError(), "none:1 is not on this node") {
			t.Errorf("none:1 is %v", x)
		}
		if _, end := r.resolve(l, make([]string, resolveMax+1)...); !strings.Contains(end.GetError(), "at most 60") {
			t.Errorf("too many: %v", end)
		}
		r.stop()
	})
}

// hookDriver carries out hooks with a runtime whose commands do f.
func hookDriver(t *testing.T, f func(id string, e ctrd.ExecSpec) (int, error)) *driver {
	rt := newRuntime()
	rt.OnExec(f)
	return newDriver(Config{Network: newNetwork(), Traffic: runtimetest.NewTraffic(), Runtime: rt, Data: t.TempDir(), Logger: slog.New(slog.DiscardHandler)}, plan.New(plan.Config{}), newConfigs())
}

func (d *driver) hook(ctx context.Context, e plan.RunHook) (failure plan.Failure, took time.Duration) {
	began := time.Now()
	e.ID = 7
	done := d.runHook(ctx, e).(plan.Done)
	if done.ID != 7 {
		panic("the answer is not this one's")
	}
	if done.Failure != nil {
		failure = *done.Failure
	}
	return failure, time.Since(began)
}

func TestHooks(t *testing.T) {
	exec := api.Hook{Exec: &api.ExecProbe{Command: []string{"warm"}}}
	wait := api.Duration(3 * time.Second)
	away := 0
	for _, c := range []struct {
		name string
		hook api.Hook
		do   func(e ctrd.ExecSpec) (int, error)
		want plan.Failure
		took time.Duration
	}{
		{"command", exec, func(ctrd.ExecSpec) (int, error) { return 0, nil }, plan.Failure{}, 0},
		{"command that fails", exec, func(e ctrd.ExecSpec) (int, error) {
			_, err := fmt.Fprint(e.Stdout, "no cache\n")
			return 3, err
		}, plan.Failure{Reason: api.ReasonHookFailed, Message: "warm: exit code 3: no cache"}, 0},
		{"container that ended", exec, func(ctrd.ExecSpec) (int, error) { return -1, ctrd.ErrNotRunning }, plan.Failure{Reason: plan.NotRunning, Message: "container is not running"}, 0},
		{"container that is gone", exec, func(ctrd.ExecSpec) (int, error) { return -1, ctrd.ErrNotFound }, plan.Failure{Reason: plan.NotRunning, Message: "no such container"}, 0},
		{"containerd is away for a moment", exec, func(ctrd.ExecSpec) (int, error) {
			if away++; away < 3 {
				return -1, ctrd.ErrAway
			}
			return 0, nil
		}, plan.Failure{}, 2 * hookAgain},
		{"sleep", api.Hook{Sleep: &wait}, nil, plan.Failure{}, 3 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := hookDriver(t, func(_ string, e ctrd.ExecSpec) (int, error) { return c.do(e) })
				failure, took := d.hook(t.Context(), plan.RunHook{Hook: c.hook, Timeout: 10 * time.Second})
				if failure != c.want || took != c.took {
					t.Errorf("%+v after %s, want %+v after %s", failure, took, c.want, c.took)
				}
			})
		})
	}
}

func TestHookIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := hookDriver(t, func(string, ctrd.ExecSpec) (int, error) { return -1, ctrd.ErrAway })
		hour := api.Duration(time.Hour)
		if failure, took := d.hook(t.Context(), plan.RunHook{Hook: api.Hook{Sleep: &hour}, Timeout: 8 * time.Second}); failure != (plan.Failure{}) || took != 8*time.Second {
			t.Errorf("a sleep: %+v after %s", failure, took)
		}
		failure, took := d.hook(t.Context(), plan.RunHook{Hook: api.Hook{Exec: &api.ExecProbe{Command: []string{"x"}}}, Timeout: 8 * time.Second})
		if failure.Reason != api.ReasonHookFailed || took != 8*time.Second {
			t.Errorf("a containerd that stays away: %+v after %s", failure, took)
		}
	})
}

// A hook over HTTP, against real servers.
func TestHookOverHTTP(t *testing.T) {
	d := hookDriver(t, nil)
	asked := make(chan string, 8)
	serve := func(l net.Listener) {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked <- r.URL.Path
			if r.URL.Path == "/no" {
				http.Error(w, "no", http.StatusTeapot)
			}
		}))
		s.Listener.Close()
		s.Listener = l
		s.Start()
		t.Cleanup(s.Close)
	}
	listen := func(at string) (net.Listener, netip.AddrPort) {
		l, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		return l, l.Addr().(*net.TCPAddr).AddrPort()
	}
	hook := func(at netip.AddrPort, path string, patient bool, timeout time.Duration) plan.Failure {
		failure, _ := d.hook(t.Context(), plan.RunHook{Hook: api.Hook{HTTP: &api.HTTPProbe{Path: path}}, IP: at.Addr().String(), Port: int(at.Port()), Patient: patient, Timeout: timeout})
		return failure
	}
	l, at := listen("127.0.0.1:0")
	serve(l)
	if f := hook(at, "/yes", false, 5*time.Second); f != (plan.Failure{}) || <-asked != "/yes" {
		t.Errorf("%+v", f)
	}
	if f := hook(at, "/no", false, 5*time.Second); !strings.Contains(f.Message, "HTTP 418") || <-asked != "/no" {
		t.Errorf("%+v", f)
	}
	// A program that does not listen yet is waited for after its start, and only then.
	l, at = listen("127.0.0.1:0")
	l.Close()
	if f := hook(at, "/drain", false, 5*time.Second); !strings.Contains(f.Message, "connection refused") {
		t.Errorf("%+v", f)
	}
	if f := hook(at, "/warm", true, 100*time.Millisecond); !strings.Contains(f.Message, "nothing listens within 100ms") {
		t.Errorf("%+v", f)
	}
	done := make(chan plan.Failure)
	go func() { done <- hook(at, "/warm", true, 10*time.Second) }()
	l, _ = listen(at.String())
	serve(l)
	if f := <-done; f != (plan.Failure{}) || <-asked != "/warm" {
		t.Errorf("%+v", f)
	}
}

func TestFailureInPlansWords(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("start x: %w", ctrd.ErrBindRefused), api.ReasonBindRefused},
		{fmt.Errorf("pull: %w", ctrd.ErrImageMissing), api.ReasonImageMissing},
		{fmt.Errorf("pull: %w", ctrd.ErrImageError), api.ReasonImageError},
		{fmt.Errorf("start x: %w", ctrd.ErrLeaseOver), api.ReasonLeaseLost},
		{errors.New("else"), api.ReasonCreateError},
	} {
		if f := failure(c.err, api.ReasonCreateError); f.Reason != c.want || f.Message != c.err.Error() {
			t.Errorf("%v: %+v, want %s", c.err, f, c.want)
		}
	}
}

// TestHookEndsWithItsContainer: one that waits for a port does not go on when its
// container has ended, is stopped or gets the next hook; it may be another's by then.
func TestHookEndsWithItsContainer(t *testing.T) {
	hour := api.Duration(time.Hour)
	hook := plan.RunHook{ID: 7, ContainerID: "a", Hook: api.Hook{Sleep: &hour}, Timeout: time.Hour}
	for name, end := range map[string]func(context.Context, *driver){
		"stopped": func(ctx context.Context, d *driver) {
			d.hooked(ctx, plan.StopContainer{ContainerID: "a"})
		},
		"removed": func(ctx context.Context, d *driver) {
			d.hooked(ctx, plan.RemoveContainer{ContainerID: "a"})
		},
		"ended": func(ctx context.Context, d *driver) { d.handle(ctx, ended{id: "a"}) },
		"seen ended": func(ctx context.Context, d *driver) {
			d.handle(ctx, plan.Observed{Containers: []plan.Container{{ID: "a", Exit: &api.Exit{}}}})
		},
		"next": func(ctx context.Context, d *driver) {
			_, done := d.hooked(ctx, plan.RunHook{ContainerID: "a"})
			done()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := hookDriver(t, nil)
				d.timer = time.NewTimer(time.Hour)
				d.cfg.BootTime = func() time.Duration { return 0 }
				began := time.Now()
				d.do(t.Context(), hook)
				synctest.Wait()
				d.hooked(t.Context(), plan.StopContainer{ContainerID: "b"})
				synctest.Wait()
				if len(d.inbox) != 0 {
					t.Fatal("another's end has ended it")
				}
				end(t.Context(), d)
				d.work.Wait()
				if took := time.Since(began); took != 0 {
					t.Errorf("it went on for %s", took)
				}
				for ev := range d.inbox {
					if done, ok := ev.(plan.Done); ok {
						if done.ID != 7 || done.Failure == nil || done.Failure.Reason != plan.NotRunning {
							t.Errorf("%+v", done)
						}
						break
					}
				}
			})
		})
	}
}

// Who attaches gets the container whose command waits for that, and no other.
func TestAttach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.runtime.OnExec(func(id string, e ctrd.ExecSpec) (int, error) {
			if !e.Attach || !e.TTY {
				return -1, fmt.Errorf("told %+v", e)
			}
			in, err := io.ReadAll(e.Stdin)
			fmt.Fprintf(e.Stdout, "%s reads %s", id, in)
			return 5, err
		})
		r.start()
		l := r.next(10)
		a, plain := web(web0), web(api.ReplicaKey{Namespace: "default", Service: "web", Slot: 1, Epoch: 2})
		a.Template.Containers = append(a.Template.Containers, api.Container{Name: "shell", Image: "web:1", Stdin: true})
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{a, plain}})
		l.hear(ready)
		time.Sleep(time.Second)
		attach := func(o *orchv1.ExecOpen) (string, *orchv1.End) {
			o.Attach, o.Tty, o.Stdin = true, true, true
			return r.exec(l, o, "hello")
		}
		if out, end := attach(&orchv1.ExecOpen{Replica: wire.KeyToPB(web0)}); out != "default.web-0.1.shell reads hello" || end.GetExitCode() != 5 || end.GetError() != "" {
			t.Errorf("said %q and ended with %v", out, end)
		}
		for _, o := range []*orchv1.ExecOpen{{Replica: wire.KeyToPB(web0), Container: "main"}, {Replica: wire.KeyToPB(plain.Key)}} {
			if out, end := attach(o); out != "" || end.GetError() != "container main takes no attach: its manifest does not say stdin" {
				t.Errorf("said %q and ended with %v", out, end)
			}
		}
		r.stop()
	})
}
