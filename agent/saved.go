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

// saver keeps the last assignment on disk, and the Configs that it takes values of. Only
// the newest is written.
type saver struct {
	dir    string
	logger *slog.Logger
	notify chan struct{}

	mu    sync.Mutex
	saved plan.Saved
	// configs to be written; nil: they are there.
	configs *savedConfigs
}

func newSaver(cfg Config) *saver {
	return &saver{dir: cfg.Data, logger: cfg.Logger, notify: make(chan struct{}, 1)}
}

// save has an assignment written, and configs where they are not nil.
func (s *saver) save(v plan.Saved, configs *savedConfigs) {
	s.mu.Lock()
	s.saved = v
	if configs != nil {
		s.configs = configs
	}
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
	v, configs := s.saved, s.configs
	s.mu.Unlock()
	var err error
	if configs != nil { // before the assignment that needs them
		err = writeJSON(savedConfigsPath(s.dir), configs)
	}
	if err == nil {
		s.mu.Lock()
		if s.configs == configs {
			s.configs = nil
		}
		s.mu.Unlock()
	}
	if err = errors.Join(err, writeJSON(savedPath(s.dir), v)); err != nil {
		s.logger.Error("cannot keep the assignment on disk; trying again", "err", err)
	}
	return err == nil
}

// writeJSON writes for root's eyes only.
func writeJSON(path string, v any) error {
	js, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return disk.WriteFile(path, js, 0o600)
}
