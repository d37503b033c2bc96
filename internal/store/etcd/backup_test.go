package etcd

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/orchctl/orch/internal/store"
)

// TestBackup: what is restored is what was there, with what was to be changed in it.
func TestBackup(t *testing.T) {
	ctx := t.Context()
	e, err := Embedded(ctx, EmbeddedConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for _, op := range []store.Op{store.Put("/a", []byte("1")), store.Put("/b", []byte("2"))} {
		if _, err := e.Store().Txn(ctx, store.Txn{Then: []store.Op{op}}); err != nil {
			t.Fatal(err)
		}
	}
	var backup bytes.Buffer
	n, err := e.store.Backup(ctx, &backup)
	if err != nil || n != int64(backup.Len()) {
		t.Fatal(n, err)
	}
	if _, err := e.Store().Txn(ctx, store.Txn{Then: []store.Op{store.Put("/later", nil)}}); err != nil {
		t.Fatal(err)
	}
	file, dir := filepath.Join(t.TempDir(), "backup"), filepath.Join(t.TempDir(), "controller", "etcd")
	if err := os.WriteFile(file, backup.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}

	gone := errors.New("the editor gives up")
	if err := Restore(ctx, file, dir, nil, func(context.Context, store.Store) error { return gone }); !errors.Is(err, gone) {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(dir + "*"); err != nil || len(left) > 0 {
		t.Fatal("a restore that failed left", left, err)
	}
	edit := func(ctx context.Context, s store.Store) error {
		_, err := s.Txn(ctx, store.Txn{Then: []store.Op{store.Delete("/b"), store.Put("/c", []byte("3"))}})
		return err
	}
	if err := Restore(ctx, file, dir, nil, edit); err != nil {
		t.Fatal(err)
	}
	again, err := Embedded(ctx, EmbeddedConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	kvs, _, err := again.Store().Range(ctx, "/")
	if err != nil || len(kvs) != 2 || kvs[0].Key != "/a" || string(kvs[0].Value) != "1" || kvs[1].Key != "/c" {
		t.Fatalf("restored: %v, %v", kvs, err)
	}

	if err := Restore(ctx, file, dir, nil, edit); !errors.Is(err, ErrNotEmpty) {
		t.Error("over a store that is there:", err)
	}
	for what, b := range map[string][]byte{"cut": backup.Bytes()[:backup.Len()-100], "empty": nil, "other": bytes.Repeat([]byte("no etcd\n"), 1000)} {
		bad := filepath.Join(t.TempDir(), what)
		if err := os.WriteFile(bad, b, 0o600); err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(t.TempDir(), "etcd")
		if err := Restore(ctx, bad, to, nil, edit); !errors.Is(err, ErrNoBackup) {
			t.Errorf("%s: %v", what, err)
		}
		if left, err := filepath.Glob(to + "*"); err != nil || len(left) > 0 {
			t.Errorf("%s: left %v, %v", what, left, err)
		}
	}
	bent := bytes.Clone(backup.Bytes())
	bent[len(bent)/2] ^= 0xff
	if err := os.WriteFile(file, bent, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Restore(ctx, file, filepath.Join(t.TempDir(), "etcd"), nil, edit); !errors.Is(err, ErrNoBackup) {
		t.Error("a bent byte:", err)
	}
}
