package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/etcdutl/v3/snapshot"

	"github.com/orchctl/orch/internal/store"
)

var (
	// ErrNotEmpty: there is a store already where one was to be restored.
	ErrNotEmpty = errors.New("there is a store already")
	// ErrNoBackup: the file is no whole snapshot of an etcd.
	ErrNoBackup = errors.New("not a whole backup")
)

// Backup writes a snapshot of everything in the store, of one moment, in the form that
// etcdutl reads too; its own checksum ends it. Writes go on meanwhile. It gives the
// number of bytes.
func (s *Store) Backup(ctx context.Context, w io.Writer) (int64, error) {
	if s.closed.Err() != nil {
		return 0, fmt.Errorf("back up the store: %w", store.ErrClosed)
	}
	r, err := s.client.SnapshotWithVersion(ctx)
	if err != nil {
		return 0, fmt.Errorf("back up the store: %w", err)
	}
	defer r.Snapshot.Close()
	n, err := io.Copy(w, r.Snapshot)
	if err != nil {
		return n, fmt.Errorf("back up the store: %w", err)
	}
	return n, nil
}

// Restore makes the data folder of a sole member from a backup, and has edit change
// what is in it before anybody else can read it. Where it fails nothing is left in
// dir. Errors wrap ErrNotEmpty, where dir holds something, and ErrNoBackup.
func Restore(ctx context.Context, file, dir string, log *slog.Logger, edit func(context.Context, store.Store) error) (err error) {
	if list, err := os.ReadDir(dir); err == nil && len(list) > 0 {
		return fmt.Errorf("restore into %s: %w", dir, ErrNotEmpty)
	}
	if f, err := os.Open(file); err != nil {
		return fmt.Errorf("restore: %w", err)
	} else if err := f.Close(); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	// Beside its place until it is whole, on the same file system.
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	at := dir + ".restoring"
	if err := os.RemoveAll(at); err != nil {
		return fmt.Errorf("restore: remove what an earlier try left: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(at))
		}
	}()
	conf := EmbeddedConfig{Dir: at, Log: log}
	member, err := conf.embedConfig()
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if err := unpack(log, snapshot.RestoreConfig{SnapshotPath: file, Name: member.Name, OutputDataDir: at, PeerURLs: []string{member.AdvertisePeerUrls[0].String()},
		InitialCluster: member.InitialCluster, InitialClusterToken: member.InitialClusterToken}); err != nil {
		return fmt.Errorf("restore %s: %w", file, err)
	}
	e, err := Embedded(ctx, conf)
	if err != nil {
		return fmt.Errorf("restore %s: %w", file, err)
	}
	err = edit(ctx, e.Store())
	e.Close()
	if err != nil {
		return fmt.Errorf("restore %s: %w", file, err)
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) { // it is empty
		return fmt.Errorf("restore: %w", err)
	}
	return os.Rename(at, dir)
}

// unpack turns the panics with which etcd meets a file that is none of its own into
// an error.
func unpack(log *slog.Logger, c snapshot.RestoreConfig) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", ErrNoBackup, r)
		}
	}()
	if err := snapshot.NewV3(zapLogger(orDiscard(log))).Restore(c); err != nil {
		return fmt.Errorf("%w: %w", ErrNoBackup, err)
	}
	return nil
}
