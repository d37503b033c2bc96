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
	"time"

	"github.com/spf13/cobra"

	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/election"
	"github.com/orchctl/orch/internal/daemon"
	"github.com/orchctl/orch/internal/store"
	"github.com/orchctl/orch/internal/store/etcd"
)

const (
	sealKeyName    = "seal.key" // see identity.Open
	secretsKeyName = "secrets.key"
	// restoredFile in the data folder says until when a restored controller waits.
	restoredFile = "restored.json"
)

// restored is what restoredFile holds.
type restored struct {
	// LeasesUntil is when all leases have ended that the cluster's last leader may have
	// granted: exclusive replicas that the backup does not know may run until then.
	LeasesUntil time.Time `json:"leasesUntil"`
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

// restore leaves the data folder as it was where it fails.
func restore(ctx context.Context, file, data, secretsKey string, out io.Writer) error {
	data, err := filepath.Abs(data)
	if err != nil {
		return err
	}
	if secretsKey == "" {
		secretsKey = filepath.Join(data, secretsKeyName)
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
	var wait time.Duration
	err = etcd.Restore(ctx, file, filepath.Join(data, "etcd"), log, func(ctx context.Context, s store.Store) error {
		kvs, _, err := s.Range(ctx, core.Prefix)
		if err != nil {
			return err
		}
		if len(kvs) == 0 {
			return errors.New("there is nothing of orch in it")
		}
		ops, w, err := core.Restored(kvs)
		if err != nil {
			return err
		}
		wait = w
		// The next start gives the store an incarnation that it never had.
		_, err = s.Txn(ctx, store.Txn{Then: append(ops, store.Delete(election.IncarnationKey))})
		return err
	})
	switch {
	case errors.Is(err, etcd.ErrNotEmpty):
		return fmt.Errorf("%w: move %s away first, if you mean it", err, filepath.Join(data, "etcd"))
	case errors.Is(err, etcd.ErrInUse):
		return fmt.Errorf("%w: stop that controller first", err)
	case err != nil:
		return err
	}
	if err := writeRestored(data, restored{LeasesUntil: time.Now().Add(wait)}); err != nil {
		return err
	}
	fmt.Fprintf(out, "restored %s into %s\n", file, data)
	if wait > 0 {
		fmt.Fprintf(out, "there are exclusive or leased services: the controller will wait until %s before it leads, for leases of before may last until then\n",
			time.Now().Add(wait).Format(time.TimeOnly))
	}
	fmt.Fprintln(out, "start the controller now; \"orchctl get nodes\" shows nodes coming back, \"orchctl describe node\" what they run that the backup does not know")
	return nil
}

func writeRestored(data string, r restored) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := filepath.Join(data, restoredFile)
	if err := os.WriteFile(path+".new", append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	return os.Rename(path+".new", path)
}

// awaitLeases holds a restored controller back until leases of before have ended.
func awaitLeases(ctx context.Context, data string, log *slog.Logger) error {
	path := filepath.Join(data, restoredFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read until when leases last: %w", err)
	}
	var r restored
	if err := json.Unmarshal(b, &r); err != nil {
		return fmt.Errorf("read until when leases last, in %s: %w", path, err)
	}
	if left := time.Until(r.LeasesUntil); left > 0 {
		log.Info("restored from a backup: waiting until leases of before have ended", "wait", left.Round(time.Second))
		select {
		case <-time.After(left):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return os.Remove(path)
}
