package election_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/orchctl/orch/internal/controller/commit"
	"github.com/orchctl/orch/internal/controller/election"
	"github.com/orchctl/orch/internal/store"
	"github.com/orchctl/orch/internal/store/etcd"
)

func open(t *testing.T, dir string) *etcd.EmbeddedServer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	e, err := etcd.Embedded(ctx, etcd.EmbeddedConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func TestContendersOverEtcd(t *testing.T) {
	e := open(t, t.TempDir())
	s := e.Store()
	type started struct {
		lease election.Lease
		ctx   context.Context
	}
	ctx, cancel := context.WithCancel(t.Context())
	leads, done := make(chan started, 10), make(chan error, 1)
	go func() {
		done <- election.Run(ctx, election.Config{
			Store: s, ID: "a", Eligible: election.WhenEtcdLeads(e), Log: discard,
			Backoff: func(int) time.Duration { return time.Hour }, // once deposed it stays away
		}, func(ctx context.Context, l election.Lease) error {
			leads <- started{l, ctx}
			<-ctx.Done()
			return ctx.Err()
		})
	}()
	a := <-leads
	driver := func(l election.Lease) func(seq uint64) commit.Result {
		d := commit.New(s, l.Fence(), commit.Config{Log: discard})
		go d.Run(ctx)
		return func(seq uint64) commit.Result {
			if err := d.Submit(commit.Batch{Seq: seq, Ops: []store.Op{store.Put("/orch/x/"+l.ID, nil)}}); err != nil {
				t.Fatal(err)
			}
			return <-d.Results()
		}
	}
	commitA := driver(a.lease)
	if r := commitA(1); r.Err != nil {
		t.Fatal(r.Err)
	}
	b := seize(t, s, "b")
	if r := commitA(2); !errors.Is(r.Err, commit.ErrDeposed) || r.Seq != 2 || r.Rev != 0 {
		t.Fatalf("the deposed leader's commit: %+v", r)
	}
	if r := driver(b)(1); r.Err != nil {
		t.Fatal(r.Err)
	}
	select {
	case <-a.ctx.Done():
		if cause := context.Cause(a.ctx); !errors.Is(cause, election.ErrDeposed) {
			t.Errorf("the term's context ended with %v", cause)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the deposed leader did not learn")
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("run: %v", err)
	}
}

// TestPowerCutRaisesTerm opens a copy of the data folder, taken while etcd
// runs: what a disk holds after a power cut.
func TestPowerCutRaisesTerm(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir).Store()
	life, err := election.Incarnation(t.Context(), s, func() string { return "first" })
	if err != nil {
		t.Fatal(err)
	}
	old := seize(t, s, "a")
	if _, err := s.Txn(t.Context(), store.Txn{
		If: []store.Compare{old.Fence()}, Then: []store.Op{store.Put("/orch/x", []byte("kept"))},
	}); err != nil {
		t.Fatal(err)
	}
	after := filepath.Join(t.TempDir(), "after")
	copyTree(t, filepath.Join(dir, "member"), filepath.Join(after, "member"))

	s = open(t, after).Store()
	l := seize(t, s, "a")
	if l.Term != old.Term+1 {
		t.Errorf("term %d after term %d", l.Term, old.Term)
	}
	if again, err := election.Incarnation(t.Context(), s, func() string { return "second" }); err != nil || again != life {
		t.Errorf("incarnation %q (%v), want %q: the cluster's life goes on", again, err, life)
	}
	kvs, _, err := s.Range(t.Context(), "/orch/x")
	if err != nil || len(kvs) != 1 || string(kvs[0].Value) != "kept" {
		t.Errorf("found %v (%v)", kvs, err)
	}
	if _, err := s.Txn(t.Context(), store.Txn{If: []store.Compare{old.Fence()}}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("the old fence: %v", err)
	}
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(from, path)
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		in, err := os.Open(path)
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := os.Create(filepath.Join(to, rel))
		if err != nil {
			return err
		}
		if _, err := io.Copy(out, in); err != nil {
			return err
		}
		return out.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
}
