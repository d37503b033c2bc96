package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/orchctl/orch/agent/disk"
	"github.com/orchctl/orch/agent/plan"
)

// saveAgain is the wait after the disk refused.
const saveAgain = 5 * time.Second

func savedPath(dir string) string { return filepath.Join(dir, "assignment.json") }

// loadSaved reads the last assignment; nil where there is none.
func loadSaved(dir string) (*plan.Saved, error) {
	b, err := os.ReadFile(savedPath(dir))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read last assignment: %w", err)
	}
	var s plan.Saved
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("read last assignment %s: %w", savedPath(dir), err)
	}
	return &s, nil
}

// saver keeps the last assignment on disk. Only the newest is written.
type saver struct {
	path   string
	logger *slog.Logger
	notify chan struct{}

	mu    sync.Mutex
	saved plan.Saved
}

func newSaver(cfg Config) *saver {
	return &saver{path: savedPath(cfg.Data), logger: cfg.Logger, notify: make(chan struct{}, 1)}
}

func (s *saver) save(v plan.Saved) {
	s.mu.Lock()
	s.saved = v
	s.mu.Unlock()
	s.wake()
}

func (s *saver) wake() {
	select {
	case s.notify <- struct{}{}:
	default:
	}
}

// run writes until ctx ends, and once more then if something waits.
func (s *saver) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			select {
			case <-s.notify:
				s.write()
			default:
			}
			return nil
		case <-s.notify:
			if !s.write() {
				time.AfterFunc(saveAgain, s.wake)
			}
		}
	}
}

func (s *saver) write() bool {
	s.mu.Lock()
	v := s.saved
	s.mu.Unlock()
	js, err := json.Marshal(v)
	if err == nil {
		err = disk.WriteFile(s.path, js, 0o600)
	}
	if err != nil {
		s.logger.Error("cannot keep the assignment on disk; trying again", "err", err)
	}
	return err == nil
}
