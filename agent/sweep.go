package agent

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/orchctl/orch/agent/logs"
	"github.com/orchctl/orch/api"
)

const (
	// logsKept is how long the output of a replica that is gone can still be
	// read: long enough to look why it went.
	logsKept = time.Hour
	// sweepEvery is the time between two looks for older ones.
	sweepEvery = 10 * time.Minute
	// goneMark lies in the folder of a replica that is gone; its age counts.
	goneMark = ".gone"
)

// forgetLogs marks a gone replica's output, to be removed later.
func forgetLogs(logDir string, k api.ReplicaKey, logger *slog.Logger) {
	err := os.WriteFile(filepath.Join(logs.Dir(logDir, k), goneMark), nil, 0o600)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // it never wrote anything
		logger.Warn("cannot mark the output of a replica that is gone", "replica", k, "err", err)
	}
}

// sweepLogs removes the output of replicas that are gone long enough.
func sweepLogs(ctx context.Context, logDir string, logger *slog.Logger) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if err := sweepOnce(logDir, time.Now()); err != nil {
			logger.Warn("cannot remove old output", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func sweepOnce(logDir string, now time.Time) error {
	marks, err := filepath.Glob(filepath.Join(logDir, "*", "*", goneMark))
	if err != nil {
		return err
	}
	var errs []error
	for _, mark := range marks {
		info, err := os.Stat(mark)
		if err != nil || now.Sub(info.ModTime()) < logsKept {
			continue
		}
		errs = append(errs, os.RemoveAll(filepath.Dir(mark)))
		_ = os.Remove(filepath.Dir(filepath.Dir(mark))) // the namespace's folder, if it is empty
	}
	return errors.Join(errs...)
}
