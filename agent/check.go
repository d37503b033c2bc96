package agent

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/orchctl/orch/agent/disk"
	"github.com/orchctl/orch/internal/wire"
)

const (
	// checkEvery is the time between two self-checks: the beat carries the age
	// of the last good one, and each costs an fsync.
	checkEvery = 3 * time.Second
	// checkMax is how long one may take before it counts as failed.
	checkMax = 10 * time.Second
)

// selfCheck finds out whether the node can work, not only beat: a round trip to
// containerd and a write to the disk.
type selfCheck struct {
	runtime Runtime
	path    string
	logger  *slog.Logger
	good    atomic.Pointer[time.Time] // with a monotonic reading
}

func newSelfCheck(cfg Config) *selfCheck {
	s := &selfCheck{runtime: cfg.Runtime, path: filepath.Join(cfg.Data, "self-check"), logger: cfg.Logger}
	now := time.Now()
	s.good.Store(&now)
	return s
}

// state goes with beats. It touches no disk.
func (s *selfCheck) state() wire.SelfCheck {
	return wire.SelfCheck{Age: time.Since(*s.good.Load())}
}

// run checks until ctx ends.
func (s *selfCheck) run(ctx context.Context) error {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	failing := false
	for {
		err := s.once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			now := time.Now()
			s.good.Store(&now)
		}
		if (err != nil) != failing {
			failing = err != nil
			if failing {
				s.logger.Warn("this node cannot work: its self-check fails", "err", err)
			} else {
				s.logger.Info("the self-check is good again")
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *selfCheck) once(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkMax)
	defer cancel()
	if err := s.runtime.Ping(ctx); err != nil {
		return err
	}
	return disk.WriteFile(s.path, []byte("ok\n"), 0o600)
}
