package ctrd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/orchctl/orch/agent/images"
	"github.com/orchctl/orch/agent/netdev"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

func TestRunsAndTells(t *testing.T) {
	s := spec("out=hello", "err=oops", "exit=3")
	s.IP, s.NetNS = "10.64.1.9", ""
	o := start(t, s)
	if o.Replica != s.Replica || o.Container != "main" || o.Revision != 7 || o.Incarnation != "inc-1" || o.SpecHash != "hash" || o.IP != "10.64.1.9" || o.ImageID == "" || o.Grace != 3*time.Second {
		t.Errorf("observed %+v", o)
	}
	e := ended(t, o.ID)
	if e.Code != 3 || e.Reason != api.ExitError || e.OOM || e.Signal != 0 || time.Since(e.FinishedAt) > time.Minute {
		t.Errorf("exit %+v", e)
	}
	prints(t, s, "stdout hello", "stderr oops")
	if got := observe(t, o.ID); got.Running || got.Exit == nil || *got.Exit != e || got.StartedAt != o.StartedAt {
		t.Errorf("listed %+v, started %+v", got, o)
	}
	// The run happened: the same Start tells so instead of running it again.
	again, err := env.r.Start(t.Context(), s)
	if err != nil || again.Running || again.Exit == nil {
		t.Errorf("second Start: %+v, %v", again, err)
	}
}

func TestImageAndSpecTogether(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(*ContainerSpec)
		want []string
	}{
		{"image's command", func(*ContainerSpec) {}, []string{"stdout from the image"}},
		{"args replace the image's", func(s *ContainerSpec) { s.Container.Args = []string{"out=mine", "cwd"} }, []string{"stdout mine", "stdout /work"}},
		{"command replaces all", func(s *ContainerSpec) { s.Container.Command = []string{"/probe", "out=cmd"} }, []string{"stdout cmd"}},
		{"env", func(s *ContainerSpec) {
			s.Env = []api.EnvVar{{Name: "EXTRA", Value: "e"}, {Name: "BOTH", Value: "extra"}}
			s.Container.Env = []api.EnvVar{{Name: "BOTH", Value: "mine"}}
			s.Container.Args = []string{"env=FROM", "env=BOTH", "env=EXTRA", "env=HOSTNAME"}
		}, []string{"stdout image", "stdout mine", "stdout e", "stdout web-2"}},
		{"files", func(s *ContainerSpec) {
			s.ResolvConf, s.IP = filepath.Join(env.dir, "resolv.conf"), "10.64.1.9"
			if err := os.WriteFile(s.ResolvConf, []byte("nameserver 10.64.1.1\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			s.Container.WorkingDir = "/tmp"
			s.Container.Args = []string{"cat=/etc/resolv.conf", "cat=/etc/hostname", "host", "cat=/etc/hosts", "cwd"}
		}, []string{"stdout nameserver 10.64.1.1", "stdout web-2", "stdout web-2", "stdout 127.0.0.1\tlocalhost", "stdout ::1\tlocalhost ip6-localhost", "stdout 10.64.1.9\tweb-2", "stdout /tmp"}},
		{"privileges", func(s *ContainerSpec) { s.Container.Args = []string{"caps", "touch=/proc/sys/kernel/domainname"} }, []string{"stdout CapEff:\t00000000800405fb", "stdout NoNewPrivs:\t1", "stdout Seccomp:\t2", "stdout open /proc/sys/kernel/domainname: read-only file system"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := spec()
			c.set(&s)
			o := start(t, s)
			if e := ended(t, o.ID); e.Reason != api.ExitCompleted {
				t.Errorf("exit %+v", e)
			}
			prints(t, s, c.want...)
		})
	}
}

func TestLimitsReachTheKernel(t *testing.T) {
	s := spec("wait=0")
	s.Container.Resources = api.Resources{
		Requests: api.ResourceList{api.CPU: 250},
		Limits:   api.ResourceList{api.CPU: 500, api.Memory: api.Whole(64 << 20), api.Pids: api.Whole(77)},
	}
	o := start(t, s)
	files := map[string]string{
		"cpu/%s/cpu.shares": "256", "cpu/%s/cpu.cfs_quota_us": "50000", "memory/%s/memory.limit_in_bytes": "67108864",
		"memory/%s/memory.memsw.limit_in_bytes": "67108864", "pids/%s/pids.max": "77",
	}
	if cgroupV2() {
		files = map[string]string{"%s/cpu.max": "50000 100000", "%s/memory.max": "67108864", "%s/pids.max": "77"}
	}
	for f, want := range files {
		b, err := os.ReadFile("/sys/fs/cgroup/" + fmt.Sprintf(f, env.parent+"/"+o.ID))
		if err != nil || strings.TrimSpace(string(b)) != want {
			t.Errorf("%s is %q, %v; want %s", f, b, err, want)
		}
	}
}

func TestEnds(t *testing.T) {
	events := env.r.Events(t.Context())
	if e := <-events; e != (Reconnected{}) {
		t.Fatalf("first event %#v", e)
	}
	for _, c := range []struct {
		name string
		spec ContainerSpec
		mem  int64 // MiB
		want api.Exit
	}{
		{"completed", spec("exit=0"), 0, api.Exit{Reason: api.ExitCompleted}},
		{"signal", spec("signal=9"), 0, api.Exit{Code: 137, Signal: 9, Reason: api.ExitSignaled, Message: "ended by signal 9 (SIGKILL)"}},
		{"out of memory", spec("eat=200"), 32, api.Exit{Code: 137, Signal: 9, OOM: true, Reason: api.ExitOutOfMemory, Message: "killed for want of memory (limit 32Mi, peak 32Mi)"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.mem > 0 {
				c.spec.Container.Resources.Limits = api.ResourceList{api.Memory: api.Whole(c.mem << 20)}
			}
			if c.name == "signal" { // a first process is immune to its own signals
				c.spec.Container.Args = []string{"wait=0"}
			}
			o := start(t, c.spec)
			if c.name == "signal" {
				if err := syscall.Kill(int(o.Pid), syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
			got := ended(t, o.ID)
			got.FinishedAt = time.Time{}
			if got != c.want {
				t.Errorf("listed  %+v\nwant    %+v", got, c.want)
			}
			for e := range events {
				if _, ok := e.(OOM); ok { // before the exit or after it
					continue
				}
				x := e.(Exited)
				x.Exit.FinishedAt = time.Time{}
				if x.ID != o.ID || x.Exit != c.want {
					t.Errorf("event %+v\nwant  %+v", x, c.want)
				}
				break
			}
		})
	}
}

func TestStartFailed(t *testing.T) {
	s := spec()
	s.Container.Command = []string{"/no/such/program"}
	_, err := env.r.Start(t.Context(), s)
	var se *StartError
	if !errors.As(err, &se) || se.Exit.Reason != api.ExitStartFailed || !strings.HasPrefix(se.Exit.Message, `exec: "/no/such/program": stat /no/such/program: no such file or directory`) {
		t.Fatalf("start: %v", err)
	}
	remove(t, s.ID())
	// The retry must not trip over leftovers.
	s.Container.Command = []string{"/probe", "exit=0"}
	start(t, s)
}

func TestStop(t *testing.T) {
	for _, c := range []struct {
		name  string
		step  string
		grace time.Duration
		why   string
		least time.Duration
		want  api.Exit
	}{
		{"gently", "wait=0", 10 * time.Second, "scaled down", 0, api.Exit{Reason: api.ExitCompleted}},
		{"with its exit code", "wait=4", 10 * time.Second, "scaled down", 0, api.Exit{Code: 4, Reason: "Killed", Message: "stopped (scaled down); exit code 4"}},
		{"after grace", "deaf", 300 * time.Millisecond, "scaled down", 300 * time.Millisecond, api.Exit{Code: 137, Signal: 9, Reason: "Killed", Message: "stopped (scaled down); signal 9 (SIGKILL)"}},
		{"at once", "deaf", 0, "", 0, api.Exit{Code: 137, Signal: 9, Reason: api.ExitSignaled, Message: "ended by signal 9 (SIGKILL)"}},
		{"startup", "wait=1", 10 * time.Second, api.ExitStartupFailed, 0, api.Exit{Code: 1, Reason: api.ExitStartupFailed, Message: "stopped because its startup probe failed; exit code 1"}},
		{"liveness", "wait=1", 10 * time.Second, api.ExitLivenessFailed, 0, api.Exit{Code: 1, Reason: api.ExitLivenessFailed, Message: "stopped because its liveness probe failed; exit code 1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := spec(c.step)
			o := start(t, s)
			prints(t, s, "stdout waiting")
			if c.name == "after grace" { // the image's own signal is SIGQUIT, to which a Go program listens
				if err := env.r.label(env.r.in(t.Context()), mustGet(t, o.ID), labelStopSignal, "TERM"); err != nil {
					t.Fatal(err)
				}
			}
			began := time.Now()
			if err := env.r.Stop(t.Context(), o.ID, c.grace, c.why); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took < c.least || took > c.least+5*time.Second {
				t.Errorf("took %s", took)
			}
			got := ended(t, o.ID)
			got.FinishedAt = time.Time{}
			if got != c.want {
				t.Errorf("exit %+v, want %+v", got, c.want)
			}
			if strings.HasPrefix(c.step, "wait") {
				prints(t, s, "stdout waiting", "stdout got quit")
			}
			if err := env.r.Stop(t.Context(), o.ID, time.Second, ""); err != nil {
				t.Errorf("second Stop: %v", err)
			}
		})
	}
	if err := env.r.Stop(t.Context(), "nobody", time.Second, ""); err != nil {
		t.Errorf("Stop of nobody: %v", err)
	}
}

func TestExec(t *testing.T) {
	s := spec("wait=0")
	s.Container.Env = []api.EnvVar{{Name: "WHO", Value: "container"}}
	o := start(t, s)
	run := func(e ExecSpec) (string, string, int, error) {
		var out, errs bytes.Buffer
		e.Stdout, e.Stderr = &out, &errs
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		code, err := env.r.Exec(ctx, o.ID, e)
		return out.String(), errs.String(), code, err
	}
	out, errs, code, err := run(ExecSpec{Args: []string{"/probe", "env=WHO", "env=X", "cwd", "echo", "exit=5"}, Stdin: strings.NewReader("a\nb\n"),
		Env: []api.EnvVar{{Name: "X", Value: "y"}}, WorkDir: "/tmp"})
	if out != "container\ny\n/tmp\n<a>\n<b>\n" || errs != "2 lines\n" || code != 5 || err != nil {
		t.Errorf("exec: %q %q %d %v", out, errs, code, err)
	}
	resize := make(chan Size, 1)
	resize <- Size{Width: 132, Height: 43}
	out, _, code, err = run(ExecSpec{Args: []string{"/probe", "tty"}, TTY: true, Resize: resize, Stdin: neverReader{}})
	if out != "tty 132x43\r\n" || code != 0 || err != nil {
		t.Errorf("exec with TTY: %q %d %v", out, code, err)
	}
	_, _, _, err = run(ExecSpec{Args: []string{"/nope"}})
	if err == nil || !strings.Contains(err.Error(), `exec: "/nope": stat /nope: no such file or directory`) {
		t.Errorf("exec of nothing: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := env.r.Exec(ctx, o.ID, ExecSpec{Args: []string{"/probe", "deaf"}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("exec that is cut off: %v", err)
	}
	if _, err := env.r.Exec(t.Context(), "nobody", ExecSpec{Args: []string{"/x"}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("exec in nobody: %v", err)
	}
	if err := env.r.Stop(t.Context(), o.ID, time.Second, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := env.r.Exec(t.Context(), o.ID, ExecSpec{Args: []string{"/x"}}); !errors.Is(err, ErrNotRunning) {
		t.Errorf("exec in an ended one: %v", err)
	}
}

// neverReader is a terminal at which nobody types.
type neverReader struct{}

func (neverReader) Read([]byte) (int, error) { select {} }

// TestAdoption kills containerd and puts a new client in the old one's place:
// the containers must not notice, and stay known.
func TestAdoption(t *testing.T) {
	// Two containers of one replica share a shim; the first to be started is
	// removed before, for the shim was named after it.
	first, second, gone := spec("wait=0"), spec("tick=20ms"), spec("wait=7")
	second.Replica = first.Replica
	second.Container.Name = "side"
	start(t, first)
	o := start(t, second)
	g := start(t, gone)
	remove(t, first.ID())

	events := env.r.Events(t.Context())
	if e := <-events; e != (Reconnected{}) {
		t.Fatalf("first event %#v", e)
	}
	if err := env.ctrd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	env.ctrd.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	if err := env.r.Ping(ctx); err == nil {
		t.Error("a dead containerd answers")
	}
	cancel()
	// One ends while nobody looks, another is stopped meanwhile.
	if err := syscall.Kill(int(g.Pid), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	startContainerd()
	if e := <-events; e != (Reconnected{}) {
		t.Fatalf("event after the break %#v", e)
	}
	t.Logf("reconnected %s after containerd's start", time.Since(began).Round(time.Millisecond))

	r, err := Dial(t.Context(), testConfig()) // a new agent
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := r.Start(t.Context(), second)
	if err != nil || got != o {
		t.Errorf("adopted %+v, %v\nstarted %+v", got, err, o)
	}
	n := len(output(t, second))
	eventually(t, func() error {
		if len(output(t, second)) <= n+3 {
			return errors.New("its output does not go on")
		}
		return nil
	})
	code := 7
	if env.forgets {
		code = lostCode
	}
	if e := ended(t, gone.ID()); e.Code != code || e.Reason != api.ExitError {
		t.Errorf("the one that ended meanwhile: %+v", e)
	}
	if err := r.Stop(t.Context(), o.ID, 0, ""); err != nil {
		t.Fatal(err)
	}
	for e := range events {
		if x, ok := e.(Exited); ok && x.ID == o.ID {
			break
		}
	}
}

// TestStopOverRestart restarts containerd while Stop waits for a container.
func TestStopOverRestart(t *testing.T) {
	s := spec("deaf")
	o := start(t, s)
	prints(t, s, "stdout waiting")
	done := make(chan error, 1)
	if err := env.r.label(env.r.in(t.Context()), mustGet(t, o.ID), labelStopSignal, "TERM"); err != nil {
		t.Fatal(err)
	}
	go func() { done <- env.r.Stop(t.Context(), o.ID, time.Second, "moved") }()
	eventually(t, func() error {
		if mustGet(t, o.ID).Labels[labelStopWhy] != "moved" {
			return errors.New("not stopping yet")
		}
		return nil
	})
	env.ctrd.Process.Kill()
	env.ctrd.Wait()
	startContainerd()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { return env.r.Ping(t.Context()) })
	if e := ended(t, o.ID); e.Signal != 9 || e.Reason != "Killed" {
		t.Errorf("exit %+v", e)
	}
}

// TestLostShim kills what stands between containerd and the container.
func TestLostShim(t *testing.T) {
	o := start(t, spec("wait=0"))
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", o.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var shim int
	fmt.Sscan(strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))[1], &shim)
	if err := syscall.Kill(shim, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e := ended(t, o.ID); e.Reason != api.ExitError && e.Reason != api.ExitSignaled {
		t.Errorf("exit %+v", e)
	}
}

func TestHalfMadeIsMadeAnew(t *testing.T) {
	s := spec("wait=0")
	ctx := env.r.in(t.Context())
	t.Cleanup(func() { remove(t, s.ID()) })
	img, err := env.r.find(ctx, testImage)
	if err != nil {
		t.Fatal(err)
	}
	m, err := env.r.meta(ctx, img)
	if err != nil {
		t.Fatal(err)
	}
	// As after a crash between the snapshot and the container, then between
	// the container and its process.
	if _, err := env.r.client.SnapshotService("overlayfs").Prepare(ctx, s.ID(), m.parent); err != nil {
		t.Fatal(err)
	}
	if o, err := env.r.Start(ctx, s); err != nil || !o.Running {
		t.Fatalf("over a snapshot: %+v, %v", o, err)
	}
	if err := env.r.deleteTask(ctx, s.ID()); err != nil {
		t.Fatal(err)
	}
	if got := observe(t, s.ID()); got.Exit == nil || got.Exit.Code != lostCode {
		t.Errorf("without process after a start: %+v", got)
	}
	if err := env.r.label(ctx, mustGet(t, s.ID()), labelStarted, ""); err != nil {
		t.Fatal(err)
	}
	if got := observe(t, s.ID()); got.Running || got.Exit != nil {
		t.Errorf("half-made: %+v", got)
	}
	if o, err := env.r.Start(ctx, s); err != nil || !o.Running {
		t.Fatalf("over a container: %+v, %v", o, err)
	}
}

func TestImages(t *testing.T) {
	ctx := t.Context()
	_, err := env.r.EnsureImage(ctx, ImageWant{Ref: "orch.test/absent:1@sha256:" + strings.Repeat("0", 64)}, nil)
	if !errors.Is(err, ErrRegistryUnreachable) || !strings.Contains(err.Error(), "is not on this node, and registry orch.test cannot be asked") {
		t.Errorf("no registry: %v", err)
	}
	if _, err := env.r.EnsureImage(ctx, ImageWant{Ref: "Bad Name"}, nil); !errors.Is(err, ErrImageError) {
		t.Errorf("bad name: %v", err)
	}
	if _, err := env.r.EnsureImage(ctx, ImageWant{Ref: "sha256:" + strings.Repeat("0", 64)}, nil); !errors.Is(err, ErrImageMissing) {
		t.Errorf("absent digest: %v", err)
	}
	local, err := env.r.EnsureImage(ctx, ImageWant{Ref: testImage}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{local.ID, "orch.test/other@" + local.ID} {
		if got, err := env.r.EnsureImage(ctx, ImageWant{Ref: ref}, nil); err != nil || got.ID != local.ID {
			t.Errorf("EnsureImage(%s): %+v, %v", ref, got, err)
		}
	}
	list, err := env.r.Images(ctx)
	if err != nil || !slices.ContainsFunc(list, func(i images.Image) bool {
		return slices.Contains(i.Refs, testImage) && i.Digest == local.ID && i.Size > 100<<10 && i.Origin == images.Loaded
	}) {
		t.Errorf("Images: %+v, %v", list, err)
	}

	srv := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "http://")
	other, err := pack(v1Config("out=pulled"))
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.ParseReference(host + "/team/app:2")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, other); err != nil {
		t.Fatal(err)
	}
	digest, err := other.Digest()
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	got, err := env.r.EnsureImage(ctx, ImageWant{Ref: host + "/team/app:2"}, func(p Progress) { told = append(told, p.Message) })
	if err != nil || got.ID != digest.String() || len(told) == 0 {
		t.Fatalf("pull by tag: %+v, %v, told %q", got, err, told)
	}
	if _, err := env.r.EnsureImage(ctx, ImageWant{Ref: host + "/team/app:3"}, nil); !errors.Is(err, ErrImageMissing) || !strings.Contains(err.Error(), "registry "+host+" does not have ") {
		t.Errorf("absent tag: %v", err)
	}
	s := spec()
	s.Container.Image = host + "/team/app@" + digest.String()
	o := start(t, s) // found by digest under its tag's name
	ended(t, o.ID)
	prints(t, s, "stdout pulled")

	third, err := pack(v1Config("out=third"))
	if err != nil {
		t.Fatal(err)
	}
	d3, err := third.Digest()
	if err != nil {
		t.Fatal(err)
	}
	ref3 := host + "/team/third@" + d3.String()
	pushed, err := name.ParseReference(ref3)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(pushed, third); err != nil {
		t.Fatal(err)
	}
	if got, err := env.r.EnsureImage(ctx, ImageWant{Ref: ref3}, nil); err != nil || got.ID != d3.String() {
		t.Errorf("pull by digest: %+v, %v", got, err)
	}

	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }))
	defer broken.Close()
	if _, err := env.r.EnsureImage(ctx, ImageWant{Ref: strings.TrimPrefix(broken.URL, "http://") + "/a:1"}, nil); !errors.Is(err, ErrRegistryUnreachable) || !strings.Contains(err.Error(), "has a fault of its own (500") {
		t.Errorf("broken registry: %v", err)
	}
	if _, err := env.r.ImportImage(ctx, strings.NewReader("no archive")); !errors.Is(err, ErrImageError) {
		t.Errorf("import of garbage: %v", err)
	}
	s = spec()
	s.Container.Image = "orch.test/never:1"
	if _, err := env.r.Start(ctx, s); !errors.Is(err, ErrImageMissing) {
		t.Errorf("start without image: %v", err)
	}
	remove(t, s.ID())
}

// TestInNetwork puts a container into a replica's network and reaches it there;
// it reads and writes the files that it was given. Afterwards neither package has
// left anything.
func TestInNetwork(t *testing.T) {
	dir := t.TempDir()
	n := networkIn(t, dir)
	s := spec("cat=/etc/resolv.conf", "touch=/etc/hosts", "cat=/etc/hosts", "serve=80")
	a, err := n.Setup(t.Context(), s.Replica, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // after the container's removal
		if err := n.Leave(context.Background()); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(dir + "/netns"); err != nil || len(left) > 0 {
			t.Errorf("namespaces are left: %v, %v", left, err)
		}
	})
	files := n.Files(s.Replica)
	s.NetNS, s.IP, s.ResolvConf, s.Hosts = a.NetNS, a.IP.String(), files.ResolvConf, files.Hosts
	o := start(t, s)
	prints(t, s, "stdout nameserver 10.64.9.1", "stdout search default.orch.internal orch.internal", "stdout options ndots:2 timeout:2", "stdout xserving")
	c, err := net.DialTimeout("tcp", a.IP.String()+":80", 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	c.Close()
	if string(b) != "web-2" || err != nil {
		t.Errorf("%s says %q, %v", a.IP, b, err)
	}
	if got := observe(t, o.ID); got.NetNS != a.NetNS || got.IP != a.IP.String() {
		t.Errorf("observed %+v", got)
	}
}

func networkIn(t *testing.T, dir string) *netdev.Network {
	t.Helper()
	n, err := netdev.New(netdev.Config{StateDir: dir + "/state", NetNSDir: dir + "/netns", Address: netip.MustParseAddr("127.0.0.1")})
	if err == nil {
		err = n.Configure(t.Context(), wire.NetworkSet{Complete: true, Cluster: "10.64.0.0/10", Services: "10.128.0.0/14", Subnet: "10.64.9.0/24"})
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestInHostNetwork: its ports are the node's own, low ones too.
func TestInHostNetwork(t *testing.T) {
	n := networkIn(t, t.TempDir())
	s := spec("cat=/etc/hosts", "serve=81")
	a, err := n.Setup(t.Context(), s.Replica, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Leave(context.Background()); err != nil {
			t.Error(err)
		}
	})
	files := n.Files(s.Replica)
	s.NetNS, s.IP, s.ResolvConf, s.Hosts, s.HostNetwork = a.NetNS, a.IP.String(), files.ResolvConf, files.Hosts, true
	start(t, s)
	prints(t, s, "stdout 127.0.0.1\tlocalhost", "stdout ::1\tlocalhost ip6-localhost ip6-loopback", "stdout 127.0.0.1\tweb-2.web.default.orch.internal web-2", "stdout serving")
	c, err := net.DialTimeout("tcp", "127.0.0.1:81", 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	c.Close()
	if string(b) != "web-2" || err != nil {
		t.Errorf("it says %q, %v", b, err)
	}
}

// TestLogProcessIsSmall: there is one per container.
func TestLogProcessIsSmall(t *testing.T) {
	if st, err := os.Stat(env.shim); err != nil || st.Size() > 3<<20 {
		t.Errorf("the shim program: %v bytes, %v; want at most 3 MiB", st.Size(), err)
	}
	s := spec("long=1000000", "wait=0")
	start(t, s)
	eventually(t, func() error {
		if out := output(t, s); len(out) == 0 || out[len(out)-1] != "stdout waiting" {
			return errors.New("not written yet")
		}
		return nil
	})
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	found := 0
	for _, p := range procs {
		b, _ := os.ReadFile(p)
		if !bytes.Contains(b, []byte("log\x00"+env.dir+"/logs/"+"default/web-2@"+fmt.Sprint(s.Replica.Epoch)+"/")) {
			continue
		}
		found++
		status, _ := os.ReadFile(filepath.Join(filepath.Dir(p), "status"))
		var anon int
		for line := range strings.Lines(string(status)) {
			if strings.HasPrefix(line, "RssAnon:") || strings.HasPrefix(line, "VmRSS:") {
				t.Log(strings.TrimSpace(line))
			}
			fmt.Sscanf(line, "RssAnon: %d", &anon)
		}
		if anon == 0 || anon > 3<<10 {
			t.Errorf("it holds %d KiB of its own, want at most 3 MiB", anon)
		}
	}
	if found != 1 {
		t.Errorf("%d log processes, want 1", found)
	}
}

func TestLongLinesAndRestarts(t *testing.T) {
	s := spec("long=40000", "out=end")
	ended(t, start(t, s).ID)
	prints(t, s, "stdout "+strings.Repeat("x", 40000), "stdout end")
	s.Attempt = 1
	s.Container.Args = []string{"out=again"}
	ended(t, start(t, s).ID)
	prints(t, s, "stdout "+strings.Repeat("x", 40000), "stdout end", "stdout again")
	remove(t, s.ID())
	if out := output(t, s); len(out) != 3 {
		t.Errorf("the log went with the container: %q", out)
	}
}

func TestStartConcurrently(t *testing.T) {
	const n = 8
	errs := make(chan error, 2*n)
	for range n {
		s := spec("wait=0")
		t.Cleanup(func() { remove(t, s.ID()) })
		for range 2 { // twice at once: one must adopt the other's
			go func() {
				o, err := env.r.Start(t.Context(), s)
				if err == nil && !o.Running {
					err = fmt.Errorf("%+v", o)
				}
				errs <- err
			}()
		}
	}
	for range 2 * n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func TestDialFails(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	cfg := testConfig()
	cfg.Address = filepath.Join(t.TempDir(), "none.sock")
	if _, err := Dial(ctx, cfg); err == nil || !strings.Contains(err.Error(), cfg.Address) {
		t.Errorf("Dial: %v", err)
	}
	v, err := env.r.Version(t.Context())
	if err != nil || !strings.HasPrefix(v, "containerd 1.") && !strings.HasPrefix(v, "containerd 2.") && !strings.HasPrefix(v, "containerd v") {
		t.Errorf("Version: %q, %v", v, err)
	}
}
