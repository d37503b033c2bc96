package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/boottime"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/election"
	"github.com/orchctl/orch/internal/controller/identity"
	"github.com/orchctl/orch/internal/daemon"
	"github.com/orchctl/orch/internal/secrets"
	"github.com/orchctl/orch/internal/store"
	"github.com/orchctl/orch/internal/store/etcd"
)

const (
	sealKeyName    = "seal.key" // see identity.Open
	secretsKeyName = "secrets.key"
	// restoredFile in the data folder says until when a restored controller waits.
	restoredFile = "restored.json"
)

// restored is what restoredFile holds: leases last that the cluster's last leader may have
// granted, Wait long from Since. It is told by the clock that leases are measured by: that
// of the day may be set meanwhile.
type restored struct {
	BootID string        `json:"bootID"` // of the machine's life that Since is of
	Since  time.Duration `json:"since"`  // see boottime.Now
	Wait   time.Duration `json:"wait"`
}

// left is how much of the wait is left; all of it where that cannot be told.
func (r restored) left(bootID string, now time.Duration) time.Duration {
	if r.BootID == "" || r.BootID != bootID || now < r.Since {
		return r.Wait
	}
	return max(0, r.Wait-(now-r.Since))
}

func restoreCommand() *cobra.Command {
	var data, secretsKey string
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make the data folder of a controller from a backup",
		Long: `Make the data folder of a controller from a backup that "orchctl backup" wrote. The folder
must hold the keys of the controller that is gone, ` + sealKeyName + ` and ` + secretsKeyName + `, and no store.
That controller must not run any more.

The restored store is a new life of the cluster: nodes go on with what the backup knows,
in place, and leave alone what it does not know, as orphans ("orchctl describe node").`,
		Example: `  controller restore /backup/orch-2026-11-22.db
  controller restore --data /srv/orch /backup/orch-2026-11-22.db`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return daemon.Usagef("restore: want one file, as \"orchctl backup\" wrote it")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return restore(cmd.Context(), args[0], data, secretsKey, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&data, "data", defaultData, "`folder` of etcd's data, keys and images")
	cmd.Flags().StringVar(&secretsKey, "secrets-key", "", "`file` of the keys that Secrets are encrypted with (default <data>/"+secretsKeyName+")")
	return cmd
}

// restore leaves no store in the data folder where it fails.
func restore(ctx context.Context, file, data, secretsKey string, out io.Writer) error {
	data, err := filepath.Abs(data)
	if err != nil {
		return err
	}
	if secretsKey == "" {
		secretsKey = filepath.Join(data, secretsKeyName)
	}
	if info, err := os.Stat(file); err != nil {
		return fmt.Errorf("restore: %w", err)
	} else if info.IsDir() {
		return fmt.Errorf("restore: %s is a folder: want the file that \"orchctl backup\" wrote", file)
	}
	for _, key := range []struct{ path, what string }{
		{filepath.Join(data, sealKeyName), "without it the cluster's own key in the backup cannot be read, and no node could come back"},
		{secretsKey, "without it no Secret in the backup can be read"},
	} {
		if _, err := os.Stat(key.path); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("restore: %s is missing: %s; copy it there from the old controller's data folder, or from its backup", key.path, key.what)
		} else if err != nil {
			return fmt.Errorf("restore: %w", err)
		}
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if _, err := secrets.OpenFile(secretsKey, time.Now()); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	var wait time.Duration
	var who identity.Revived
	err = etcd.Restore(ctx, file, filepath.Join(data, "etcd"), log, func(ctx context.Context, s store.Store) error {
		kvs, _, err := s.Range(ctx, core.Prefix)
		if err != nil {
			return err
		}
		known, _, err := s.Range(ctx, identity.Prefix)
		if err != nil {
			return err
		}
		if len(kvs) == 0 || len(known) == 0 {
			return errors.New("there is nothing of orch in it below /orch/: want what \"orchctl backup\" wrote, of a cluster without --etcd-prefix")
		}
		if _, err := identity.Open(ctx, identity.Config{Store: s, Dir: data, Log: log}); err != nil { // is it the right key?
			return err
		}
		now := time.Now()
		ops, w, err := core.Restored(kvs, now)
		if err != nil {
			return err
		}
		revoked, revived, err := identity.Restored(known, now)
		if err != nil {
			return err
		}
		// The next start gives the store an incarnation that it never had.
		ops = append(append(ops, revoked...), store.Delete(election.IncarnationKey))
		for part := range slices.Chunk(ops, s.Limits().MaxOps) {
			if _, err := s.Txn(ctx, store.Txn{Then: part}); err != nil {
				return err
			}
		}
		wait, who = w, revived
		// Before the store is there: a controller that finds it must wait, whatever
		// becomes of this program. Without a store it only delays a start.
		return noteLeases(data, w)
	})
	switch {
	case errors.Is(err, etcd.ErrNotEmpty):
		return fmt.Errorf("%w: move %s away first, if you mean it", err, filepath.Join(data, "etcd"))
	case errors.Is(err, etcd.ErrInUse):
		return fmt.Errorf("%w: stop that controller first", err)
	case err != nil:
		return err
	}
	fmt.Fprintf(out, "restored %s into %s\n", file, data)
	if wait > 0 {
		fmt.Fprintf(out, "there are exclusive or leased services: the controller will wait until %s before it leads, for leases of before may last until then\n",
			time.Now().Add(wait).Format(time.TimeOnly))
	}
	fmt.Fprintf(out, "if services were made exclusive or given a longer lease since the backup, it does not know those leases: then start the controller %s after the old one ended\n", api.MaxLease)
	fmt.Fprintf(out, "revoked %d join tokens, for they may have been used up or revoked since: \"orchctl token create\" makes others; nodes that joined since have to join again\n", who.Tokens)
	fmt.Fprintf(out, "may come in again, also where they were removed since: users %s; nodes %s: see \"orchctl user remove\" and \"orchctl node remove\"\n", listed(who.Users), listed(who.Nodes))
	fmt.Fprintln(out, "start the controller now; \"orchctl get nodes\" shows nodes coming back, \"orchctl describe node\" what they run that the backup does not know")
	return nil
}

// listed names some of them.
func listed(names []string) string {
	const most = 20
	switch n := len(names); {
	case n == 0:
		return "none"
	case n > most:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), n-most)
	}
	return strings.Join(names, ", ")
}

// noteLeases writes restoredFile. What is left of the wait of an earlier restore counts too.
func noteLeases(data string, wait time.Duration) error {
	bootID, _ := daemon.BootID(daemon.BootIDFile) // without it the wait is longer than need be
	now := boottime.Now()
	if before, err := readLeases(data); err == nil {
		wait = max(wait, before.left(bootID, now))
	}
	b, err := json.Marshal(restored{BootID: bootID, Since: now, Wait: wait})
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(data, "."+restoredFile+".*.tmp") // 0600 from the start
	if err != nil {
		return fmt.Errorf("note until when leases last: %w", err)
	}
	defer os.Remove(tmp.Name()) // gone already if renamed
	_, err = tmp.Write(append(b, '\n'))
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("note until when leases last: %w", err)
	}
	if err := os.Rename(tmp.Name(), filepath.Join(data, restoredFile)); err != nil {
		return fmt.Errorf("note until when leases last: %w", err)
	}
	return nil
}

// readLeases reads restoredFile; it wraps fs.ErrNotExist where nothing was restored.
func readLeases(data string) (r restored, err error) {
	path := filepath.Join(data, restoredFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return r, fmt.Errorf("read until when leases last: %w", err)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("read until when leases last, in %s: %w: wait %s since the old controller ended, then remove that file", path, err, api.MaxLease)
	}
	return r, nil
}

// awaitLeases holds a restored controller back until leases of before have ended.
func awaitLeases(ctx context.Context, data string, log *slog.Logger) error {
	r, err := readLeases(data)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	bootID, _ := daemon.BootID(daemon.BootIDFile) // without it the whole wait is waited
	if left := r.left(bootID, boottime.Now()); left > 0 {
		log.Info("restored from a backup: waiting until leases of before have ended", "wait", left.Round(time.Second))
		if err := daemon.Waits(left, "restored from a backup: waits until leases of before have ended"); err != nil {
			return err
		}
		select {
		case <-time.After(left):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return os.Remove(filepath.Join(data, restoredFile))
}
