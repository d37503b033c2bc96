package etcd

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/internal/store"
	"github.com/orchctl/orch/internal/store/storetest"
)

// testPage makes the suite's large ranges take several pages.
const testPage = 1000

func open(t testing.TB, c EmbeddedConfig) *EmbeddedServer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	e, err := Embedded(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return e
}

// socketDir is a folder with a path short enough for a unix socket.
func socketDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "orch-etcd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestConformanceEmbedded(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		return open(t, EmbeddedConfig{Dir: t.TempDir(), RangePage: testPage}).Store()
	})
}

func TestConformanceExternal(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		socket := "unix://" + filepath.Join(socketDir(t), "c")
		open(t, EmbeddedConfig{Dir: t.TempDir(), ClientListen: socket})
		s, err := Dial(t.Context(), ExternalConfig{Endpoints: []string{socket}, RangePage: testPage})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	})
}

// tcpListeners counts this process's listening TCP sockets.
func tcpListeners(t *testing.T) (tcp int) {
	t.Helper()
	own := map[string]bool{}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		link, _ := os.Readlink("/proc/self/fd/" + fd.Name())
		if inode, ok := strings.CutPrefix(link, "socket:["); ok {
			own[strings.TrimSuffix(inode, "]")] = true
		}
	}
	for _, file := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(data), "\n") {
			f := strings.Fields(line)
			if len(f) > 9 && f[3] == "0A" && own[f[9]] { // 0A: LISTEN
				tcp++
			}
		}
	}
	return tcp
}

func TestSoleMemberListensNowhere(t *testing.T) {
	canary, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if n := tcpListeners(t); n != 1 {
		t.Fatalf("the count sees %d listeners, want the canary", n)
	}
	canary.Close()
	dir := filepath.Join(t.TempDir(), "data")
	e := open(t, EmbeddedConfig{Dir: dir})
	if !e.IsLeader() {
		t.Error("a sole member is not the leader")
	}
	if n := tcpListeners(t); n != 0 {
		t.Errorf("%d TCP listeners, want none", n)
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("data folder has mode %v (%v), want 0700", info.Mode(), err)
	}
	used, quota := e.Usage()
	if used <= 0 || quota != QuotaDefault {
		t.Errorf("usage %d of %d", used, quota)
	}
}

func TestRefusedAddresses(t *testing.T) {
	for _, c := range []struct {
		name string
		conf EmbeddedConfig
		want string
	}{
		{"no folder", EmbeddedConfig{}, "no data folder"},
		{"plain client", EmbeddedConfig{ClientListen: "http://127.0.0.1:0"}, "never listens without mutual TLS"},
		{"client without certificate", EmbeddedConfig{ClientListen: "https://127.0.0.1:0"}, "are all needed"},
		{"plain peer", EmbeddedConfig{PeerListen: "http://127.0.0.1:0"}, "never listens without mutual TLS"},
		{"peer socket", EmbeddedConfig{PeerListen: "unix:///tmp/x"}, "never listens without mutual TLS"},
		{"relative socket", EmbeddedConfig{ClientListen: "unix://a/b"}, "absolute"},
		{"name not a member", EmbeddedConfig{Members: map[string]string{"x": "https://127.0.0.1:1"}}, "not among the members"},
		{"members without peer address", EmbeddedConfig{Name: "x", Members: map[string]string{"x": "https://127.0.0.1:1", "y": "https://127.0.0.1:2"}}, "need a peer address"},
	} {
		if c.name != "no folder" {
			c.conf.Dir = filepath.Join(t.TempDir(), "never")
		}
		_, err := Embedded(t.Context(), c.conf)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
		if _, err := os.Stat(c.conf.Dir); c.conf.Dir != "" && err == nil {
			t.Errorf("%s: the refused folder was made", c.name)
		}
	}
	for _, end := range []string{"http://127.0.0.1:1", "127.0.0.1:1", "https://127.0.0.1:1"} {
		if _, err := Dial(t.Context(), ExternalConfig{Endpoints: []string{end}}); err == nil || !strings.Contains(err.Error(), end) {
			t.Errorf("dial %s: got %v", end, err)
		}
	}
}

func TestFolderInUse(t *testing.T) {
	dir := t.TempDir()
	e := open(t, EmbeddedConfig{Dir: dir})
	_, err := Embedded(t.Context(), EmbeddedConfig{Dir: dir})
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "data folder "+dir+" is in use by another controller") {
		t.Fatalf("got %v", err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, EmbeddedConfig{Dir: dir})
}

func TestDamagedDatabase(t *testing.T) {
	dir := t.TempDir()
	open(t, EmbeddedConfig{Dir: dir}).Close()
	db := filepath.Join(dir, "member", "snap", "db")
	if err := os.WriteFile(db, make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Embedded(t.Context(), EmbeddedConfig{Dir: dir})
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), db) {
		t.Fatalf("got %v", err)
	}
	// The refusal gave the folder free again.
	if _, err := Embedded(t.Context(), EmbeddedConfig{Dir: dir}); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("again: got %v", err)
	}
}

func TestDamagedLog(t *testing.T) {
	dir := t.TempDir()
	e := open(t, EmbeddedConfig{Dir: dir})
	if _, err := e.Store().Txn(t.Context(), store.Txn{Then: []store.Op{store.Put("a", []byte("b"))}}); err != nil {
		t.Fatal(err)
	}
	e.Close()
	logs, err := filepath.Glob(filepath.Join(dir, "member", "wal", "*.wal"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("no log files: %v", err)
	}
	for _, l := range logs {
		f, err := os.OpenFile(l, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("this is not a log at all"), 40); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if e, err := Embedded(t.Context(), EmbeddedConfig{Dir: dir}); err == nil {
		e.Close()
		t.Fatal("a damaged log was opened")
	} else if !errors.Is(err, ErrCorrupt) {
		t.Fatalf("got %v", err)
	}
}

func TestNoSpaceIsSaidAndReclaimed(t *testing.T) {
	e := open(t, EmbeddedConfig{Dir: t.TempDir(), QuotaBytes: 1 << 20})
	value := make([]byte, 256<<10)
	for i := range 64 {
		_, err := e.Store().Txn(t.Context(), store.Txn{Then: []store.Op{store.Put(string(rune('a'+i)), value)}})
		if err == nil {
			continue
		}
		if !errors.Is(err, store.ErrNoSpace) || !errors.Is(err, store.ErrUnknown) {
			t.Fatalf("got %v, want no space, outcome unknown", err)
		}
		// Deletions still go through: that is the way out.
		for k := range i + 1 {
			if _, err := e.Store().Txn(t.Context(), store.Txn{Then: []store.Op{store.Delete(string(rune('a' + k)))}}); err != nil {
				t.Fatalf("delete in a full store: %v", err)
			}
		}
		if err := e.Reclaim(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Store().Txn(t.Context(), store.Txn{Then: []store.Op{store.Put("a", value)}}); err != nil {
			t.Fatalf("write after reclaiming: %v", err)
		}
		if used, quota := e.Usage(); used >= quota {
			t.Errorf("usage %d of %d after reclaiming", used, quota)
		}
		return
	}
	t.Fatal("16 MiB went into a quota of 1 MiB")
}

func TestStartWithoutQuorum(t *testing.T) {
	// A member of a cluster of two whose other never comes has no quorum.
	ca := newCA(t)
	files := ca.issue(t, "c1")
	peer := "https://" + freeAddr(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := Embedded(ctx, EmbeddedConfig{
		Dir: t.TempDir(), Name: "c1", PeerListen: peer, PeerTLS: files,
		Members: map[string]string{"c1": peer, "c2": "https://" + freeAddr(t)},
	})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no quorum") {
		t.Fatalf("got %v, want no quorum", err)
	}
}

func TestLogGoesToSlog(t *testing.T) {
	var out strings.Builder
	lg := zapLogger(slog.New(slog.NewTextHandler(&out, nil)))
	lg.Info("quiet")
	lg.Warn("simple token is not cryptographically signed")
	lg.Named("x").With().Warn("slow disk")
	if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `level=WARN msg="etcd: slow disk"`) {
		t.Fatalf("log is %q", got)
	}
	defer func() {
		if recover() == nil {
			t.Fatal("a fatal line must panic, not exit")
		}
	}()
	lg.Fatal("end")
}

func BenchmarkTxn1000Puts(b *testing.B) {
	s := open(b, EmbeddedConfig{Dir: b.TempDir()}).Store()
	value := make([]byte, 100)
	ops := make([]store.Op, 1000)
	for i := range ops {
		ops[i] = store.Put("/orch/placement/"+string(rune('a'+i%26))+"/"+string(rune('0'+i)), value)
	}
	b.ResetTimer()
	for range b.N {
		if _, err := s.Txn(b.Context(), store.Txn{Then: ops}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "puts/s")
}
