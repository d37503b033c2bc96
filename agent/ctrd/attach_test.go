package ctrd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
)

// waiting is a container whose command waits for an attach.
func waiting(args ...string) ContainerSpec {
	s := spec(args...)
	s.Container.Stdin = true
	return s
}

// attached is an attach that is under way.
type attached struct {
	mu   sync.Mutex
	out  bytes.Buffer
	errs bytes.Buffer
	code int
	err  error
	done chan struct{}
}

// Write takes what the command prints.
func (a *attached) Write(b []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.out.Write(b)
}

func (a *attached) printed() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.out.String()
}

func attachTo(ctx context.Context, id string, e ExecSpec) *attached {
	a := &attached{done: make(chan struct{})}
	e.Attach, e.Stdout, e.Stderr = true, a, &a.errs
	go func() {
		defer close(a.done)
		a.code, a.err = env.r.Exec(ctx, id, e)
	}()
	return a
}

func (a *attached) wait(t *testing.T) {
	t.Helper()
	select {
	case <-a.done:
	case <-time.After(30 * time.Second):
		t.Fatalf("the attach does not end; printed %q", a.printed())
	}
}

func (a *attached) prints(t *testing.T, want string) {
	t.Helper()
	eventually(t, func() error {
		if got := a.printed(); got != want {
			return fmt.Errorf("printed %q, want %q", got, want)
		}
		return nil
	})
}

const (
	toPipes    = "stderr shim: somebody attached: what the command writes goes to them, not into this log"
	toTerminal = "stderr shim: somebody attached with a terminal: what the command writes goes there, not into this log"
)

func TestAttach(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(*ContainerSpec)
	}{
		{"root", func(*ContainerSpec) {}},
		{"a user with secrets, on a root that is read-only", func(s *ContainerSpec) {
			s.Container.SecurityContext = &api.SecurityContext{User: "app", ReadOnlyRoot: true, Capabilities: api.Capabilities{Drop: []string{"ALL"}}}
			s.SecretEnv = []api.EnvVar{{Name: "WHO", Value: "secret"}}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := waiting("env=WHO", "cwd", "orphan", "alone", "echo", "exit=5")
			c.set(&s)
			o := start(t, s)
			if !o.Running || len(output(t, s)) > 0 {
				t.Fatalf("it did not wait: %+v, %q", o, output(t, s))
			}
			a := attachTo(t.Context(), o.ID, ExecSpec{Stdin: strings.NewReader("a\nb\n")})
			a.wait(t)
			who := ""
			if len(s.SecretEnv) > 0 {
				who = "secret"
			}
			if want := who + "\n/work\nothers: 0\n<a>\n<b>\n"; a.printed() != want || a.errs.String() != "2 lines\n" || a.code != 5 || a.err != nil {
				t.Errorf("attach: %q, %q, code %d, %v; want %q", a.printed(), a.errs.String(), a.code, a.err, want)
			}
			if e := ended(t, o.ID); e.Code != 5 || e.Reason != api.ExitError {
				t.Errorf("exit %+v", e)
			}
			prints(t, s, toPipes)
		})
	}
}

func TestAttachTerminal(t *testing.T) {
	s := waiting("controls", "tty", "env=TERM", "echo", "exit=3")
	o := start(t, s)
	in, keys := io.Pipe()
	defer keys.Close()
	resize := make(chan Size, 1)
	resize <- Size{Width: 99, Height: 33}
	a := attachTo(t.Context(), o.ID, ExecSpec{TTY: true, Stdin: in, Resize: resize})
	a.prints(t, "controlling terminal\r\ntty 99x33\r\nxterm\r\n")
	if _, err := keys.Write([]byte("hi\n\x04")); err != nil { // Ctrl-D ends the input
		t.Fatal(err)
	}
	a.wait(t)
	if want := "controlling terminal\r\ntty 99x33\r\nxterm\r\nhi\r\n<hi>\r\n1 lines\r\n"; a.printed() != want || a.code != 3 || a.err != nil {
		t.Errorf("attach: %q, code %d, %v", a.printed(), a.code, a.err)
	}
	if e := ended(t, o.ID); e.Code != 3 {
		t.Errorf("exit %+v", e)
	}
	prints(t, s, toTerminal)

	// Ctrl-C is the command's.
	s = waiting("ready", "sleep")
	o = start(t, s)
	in, keys = io.Pipe()
	defer keys.Close()
	a = attachTo(t.Context(), o.ID, ExecSpec{TTY: true, Stdin: in})
	a.prints(t, "ready\r\n")
	if _, err := keys.Write([]byte{3}); err != nil {
		t.Fatal(err)
	}
	a.wait(t)
	if a.code != 130 || a.err != nil {
		t.Errorf("after Ctrl-C: %q, code %d, %v", a.printed(), a.code, a.err)
	}
	if e := ended(t, o.ID); e.Code != 130 {
		t.Errorf("exit %+v", e)
	}
}

func TestAttachTwice(t *testing.T) {
	s := waiting("wait=0")
	o := start(t, s)
	a := attachTo(t.Context(), o.ID, ExecSpec{})
	a.prints(t, "waiting\n")
	second := attachTo(t.Context(), o.ID, ExecSpec{})
	second.wait(t)
	if second.code != 125 || second.err != nil || second.errs.String() != "shim: attach: somebody is attached already\n" {
		t.Errorf("second attach: code %d, %v, %q", second.code, second.err, second.errs.String())
	}
	// Other commands run beside it.
	var out bytes.Buffer
	if code, err := env.r.Exec(t.Context(), o.ID, ExecSpec{Args: []string{"/probe", "out=beside"}, Stdout: &out}); code != 0 || err != nil || out.String() != "beside\n" {
		t.Errorf("exec beside: %q, %d, %v", out.String(), code, err)
	}
	// A stop is the command's: its first process passes it on.
	if err := env.r.Stop(t.Context(), o.ID, 10*time.Second, "scaled down"); err != nil {
		t.Fatal(err)
	}
	a.wait(t)
	if a.printed() != "waiting\ngot quit\n" || a.code != 0 || a.err != nil {
		t.Errorf("after a stop: %q, code %d, %v", a.printed(), a.code, a.err)
	}
	if _, err := env.r.Exec(t.Context(), o.ID, ExecSpec{Attach: true}); !errors.Is(err, ErrNotRunning) {
		t.Errorf("attach to an ended one: %v", err)
	}
	o = start(t, spec("wait=0"))
	if _, err := env.r.Exec(t.Context(), o.ID, ExecSpec{Attach: true}); !errors.Is(err, ErrNoAttach) {
		t.Errorf("attach to one that does not wait for it: %v", err)
	}
}

// TestAttachLeaves: whoever hangs up ends the input, and the command hears of it.
func TestAttachLeaves(t *testing.T) {
	for _, tty := range []bool{false, true} {
		t.Run(fmt.Sprint("tty ", tty), func(t *testing.T) {
			dir := t.TempDir()
			s := waiting("hup=/v/note", "drain", "sleeps=1s", "exit=6")
			if tty { // containerd's shim keeps the terminal
				s.Container.Args = []string{"hup=/v/note", "sleeps=1s", "exit=6"}
			}
			s.Container.Mounts = []api.Mount{{Path: "/v", Volume: "v"}}
			s.Volumes = map[string]string{"v": dir + "/v"}
			o := start(t, s)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			a := attachTo(ctx, o.ID, ExecSpec{TTY: tty, Stdin: neverReader{}})
			eventually(t, func() error {
				if !strings.HasPrefix(a.printed(), "waiting") {
					return errors.New("not yet")
				}
				return nil
			})
			cancel()
			a.wait(t)
			if !errors.Is(a.err, context.Canceled) {
				t.Errorf("attach: %d, %v", a.code, a.err)
			}
			eventually(t, func() error {
				b, err := os.ReadFile(dir + "/v/note")
				if err == nil && string(b) != "hung up\n" {
					err = fmt.Errorf("it noted %q", b)
				}
				return err
			})
			again := attachTo(t.Context(), o.ID, ExecSpec{})
			again.wait(t)
			if again.code != 125 || !strings.Contains(again.errs.String(), "has been attached to, and is not a second time") {
				t.Errorf("another attach: %d, %v, %q", again.code, again.err, again.errs.String())
			}
			if e := ended(t, o.ID); e.Code != 6 {
				t.Errorf("exit %+v", e)
			}
		})
	}
}

func TestNobodyAttaches(t *testing.T) {
	cfg := testConfig()
	cfg.AttachWithin = 300 * time.Millisecond
	r, err := Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s := waiting("out=never")
	id := s.ID()
	t.Cleanup(func() { remove(t, id) })
	if _, err := r.Start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if e := ended(t, id); e.Code != 125 {
		t.Errorf("exit %+v", e)
	}
	prints(t, s, "stderr shim: nobody attached within 300ms: the command was not started")

	// One that waits is stopped at once.
	s = waiting("out=never")
	o := start(t, s)
	eventually(t, func() error {
		_, err := os.Stat(fmt.Sprintf("/proc/%d/root%s", o.Pid, insideSocket))
		return err
	})
	began := time.Now()
	if err := env.r.Stop(t.Context(), o.ID, 20*time.Second, "deleted"); err != nil {
		t.Fatal(err)
	}
	if e := ended(t, o.ID); e.Signal != 3 || time.Since(began) > 10*time.Second {
		t.Errorf("exit %+v after %s", e, time.Since(began))
	}
	s = waiting()
	s.Container.Command = []string{"missing"}
	var se *StartError
	if _, err := env.r.Start(t.Context(), s); !errors.As(err, &se) || se.Exit.Message != `exec: "missing": executable file not found in $PATH` {
		t.Errorf("a command that is not there: %v", err)
	}
	remove(t, s.ID())
}
