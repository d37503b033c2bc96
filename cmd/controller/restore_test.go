package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orchctl/orch/internal/boottime"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/identity"
	"github.com/orchctl/orch/internal/daemon"
	"github.com/orchctl/orch/internal/pki"
	"github.com/orchctl/orch/internal/secrets"
	"github.com/orchctl/orch/internal/store"
	"github.com/orchctl/orch/internal/store/etcd"
)

// atOnce writes to a store as a leader would.
type atOnce struct{ s store.Store }

func (w atOnce) Write(ctx context.Context, ops ...store.Op) (func(context.Context) error, error) {
	_, err := w.s.Txn(ctx, store.Txn{Then: ops})
	return func(context.Context) error { return nil }, err
}

// old is a controller of which there is a backup; token is good in it.
type old struct {
	data, backup string
	token        string
}

func backedUp(t *testing.T) old {
	t.Helper()
	ctx, x := t.Context(), old{data: t.TempDir(), backup: filepath.Join(t.TempDir(), "orch.db")}
	e, err := etcd.Embedded(ctx, etcd.EmbeddedConfig{Dir: filepath.Join(x.data, "etcd")})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	s := e.Store()
	if _, err := s.Txn(ctx, store.Txn{Then: []store.Op{store.Put(core.Prefix+"counters", nil)}}); err != nil {
		t.Fatal(err)
	}
	a, err := identity.Open(ctx, identity.Config{Store: s, Dir: x.data, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	lead(t, a, s)
	if x.token, err = a.CreateToken(ctx, pki.JoinNode, time.Time{}, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := secrets.OpenFile(filepath.Join(x.data, secretsKeyName), time.Now()); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(x.backup)
	if err != nil {
		t.Fatal(err)
	}
	_, err = e.Backup(ctx, f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return x
}

func lead(t *testing.T, a *identity.Authority, s store.Store) {
	t.Helper()
	kvs, _, err := s.Range(t.Context(), identity.Prefix)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Begin(kvs, atOnce{s}); err != nil {
		t.Fatal(err)
	}
}

// fresh is the data folder of a new machine, with the keys of the old one.
func (x old) fresh(t *testing.T) string {
	t.Helper()
	to := t.TempDir()
	for _, name := range []string{sealKeyName, secretsKeyName} {
		b, err := os.ReadFile(filepath.Join(x.data, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// TestRestoreRevokesTokens: one that was used up or revoked after the backup would let a
// stranger in; and it is said who else may come in again.
func TestRestoreRevokesTokens(t *testing.T) {
	x := backedUp(t)
	data := x.fresh(t)
	var out bytes.Buffer
	if err := restore(t.Context(), x.backup, data, "", &out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "revoked 1 join token") || !strings.Contains(out.String(), "may come in again") {
		t.Error(out.String())
	}
	e, err := etcd.Embedded(t.Context(), etcd.EmbeddedConfig{Dir: filepath.Join(data, "etcd")})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	a, err := identity.Open(t.Context(), identity.Config{Store: e.Store(), Dir: data, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	lead(t, a, e.Store())
	key, err := pki.NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.CSR(key, pki.Identity{Kind: pki.Node, Name: "stranger"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Join(t.Context(), x.token, "stranger", csr); !errors.Is(err, identity.ErrRefused) {
		t.Error("a token of before the restore lets nodes in:", err)
	}
}

// TestRestoreFails: where it fails, or ends halfway, no controller finds a store for which
// it does not know how long to wait.
func TestRestoreFails(t *testing.T) {
	x := backedUp(t)
	for name, c := range map[string]struct {
		spoil func(data string) error
		want  string
	}{
		"note": {func(data string) error { return os.MkdirAll(filepath.Join(data, restoredFile, "in the way"), 0o700) }, "leases last"},
		"seal key": {func(data string) error {
			os.Remove(filepath.Join(data, sealKeyName))
			_, err := pki.EnsureSealKey(filepath.Join(data, sealKeyName), strings.NewReader(strings.Repeat("k", 100)))
			return err
		}, "sealed by another"},
		"open key": {func(data string) error { return os.Chmod(filepath.Join(data, secretsKeyName), 0o644) }, secretsKeyName},
	} {
		data := x.fresh(t)
		if err := c.spoil(data); err != nil {
			t.Fatal(name, err)
		}
		if err := restore(t.Context(), x.backup, data, "", new(bytes.Buffer)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := filepath.Glob(filepath.Join(data, "etcd*")); err != nil || len(left) > 0 {
			t.Errorf("%s: left %v, %v", name, left, err)
		}
	}
}

// TestAwaitLeases: neither a clock that is set nor a reboot nor a second restore makes the
// wait shorter, and none makes it endless.
func TestAwaitLeases(t *testing.T) {
	const wait = 10 * time.Second
	r := restored{BootID: "a", Since: time.Hour, Wait: wait}
	for name, c := range map[string]struct {
		bootID string
		now    time.Duration
		want   time.Duration
	}{
		"at once":     {"a", time.Hour, wait},
		"later":       {"a", time.Hour + 4*time.Second, 6 * time.Second},
		"much later":  {"a", 2 * time.Hour, 0},
		"rebooted":    {"b", 2 * time.Hour, wait},
		"cannot tell": {"", 2 * time.Hour, wait},
	} {
		if got := r.left(c.bootID, c.now); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	data := t.TempDir()
	for _, w := range []time.Duration{time.Minute, 0} { // the second knows of no leases
		if err := noteLeases(data, w); err != nil {
			t.Fatal(err)
		}
	}
	got, err := readLeases(data)
	bootID, _ := daemon.BootID(daemon.BootIDFile)
	if left := got.left(bootID, boottime.Now()); err != nil || left < 50*time.Second {
		t.Errorf("%s are left, %v", left, err)
	}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if err := awaitLeases(t.Context(), data, slog.New(slog.DiscardHandler)); err != nil || time.Since(began) < 50*time.Second {
			t.Error(time.Since(began), err)
		}
		if err := awaitLeases(t.Context(), data, slog.New(slog.DiscardHandler)); err != nil || time.Since(began) > 70*time.Second {
			t.Error("once more:", time.Since(began), err)
		}
	})
}
