package traffic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/orchctl/orch/agent/disk"
	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/wire"
)

// saveEvery is the least time between two writes: a rollout changes endpoints many
// times a second, and what lies on disk is only a start.
const saveEvery = 2 * time.Second

// state is what lies on disk.
type state struct {
	Services  []wire.Service  `json:"services"`
	Endpoints []wire.Endpoint `json:"endpoints"`
}

// load reads the state; false: there is none.
func load(path string) (network.Update, bool, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return network.Update{}, false, nil
	}
	if err != nil {
		return network.Update{}, false, fmt.Errorf("read endpoints: %w", err)
	}
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return network.Update{}, false, fmt.Errorf("read endpoints %s: %w", path, err)
	}
	return network.Update{Complete: true, Put: s.Endpoints, Services: s.Services}, true, nil
}

// saver keeps the state on disk.
type saver struct {
	path   string
	logger *slog.Logger
	all    func() network.Update // what there is to be kept
	notify chan struct{}
}

// save has what is there now written soon.
func (s *saver) save() {
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
			s.write()
		}
		select {
		case <-ctx.Done():
		case <-time.After(saveEvery):
		}
	}
}

func (s *saver) write() {
	u := s.all()
	b, err := json.Marshal(state{Services: u.Services, Endpoints: u.Put})
	if err == nil {
		err = disk.WriteFile(s.path, b, 0o600)
	}
	if err != nil { // the next change writes all of it
		s.logger.Error("cannot keep endpoints on disk", "err", err)
	}
}
