package traffic

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/orchctl/orch/agent/disk"
	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/wire"
)

// saveEvery is the least time between two writes of the whole state: a rollout
// changes endpoints many times a second. What changes meanwhile is in a journal, so
// that a killed agent finds on disk what it had given to the kernel. The journal is
// not synced: where it can be lost, with the machine's power, the kernel's rules are
// lost as well.
const saveEvery = 2 * time.Second

// state is what lies on disk.
type state struct {
	// Sequence of the last update that is in it.
	Sequence  uint64          `json:"sequence"`
	Services  []wire.Service  `json:"services"`
	Endpoints []wire.Endpoint `json:"endpoints"`
}

// entry is one update in a journal.
type entry struct {
	Sequence uint64         `json:"sequence"`
	Update   network.Update `json:"update"`
}

// journals are the names of the two that take turns: while the whole state is
// written, updates go to the other.
func journals(path string) [2]string { return [2]string{path + ".1", path + ".2"} }

// load reads the state with the updates since, and the sequence of the last; false:
// there is none.
func load(path string) (u network.Update, last uint64, ok bool, err error) {
	p := network.NewPicture()
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return u, 0, false, fmt.Errorf("read endpoints: %w", err)
	default:
		var s state
		if err := json.Unmarshal(b, &s); err != nil {
			return u, 0, false, fmt.Errorf("read endpoints %s: %w", path, err)
		}
		p.Apply(network.Update{Complete: true, Put: s.Endpoints, Services: s.Services})
		last, ok = s.Sequence, true
	}
	var since []entry
	for _, name := range journals(path) {
		all, err := readJournal(name)
		if err != nil {
			return u, 0, false, err
		}
		since = append(since, all...)
	}
	slices.SortFunc(since, func(a, b entry) int { return cmp.Compare(a.Sequence, b.Sequence) })
	for _, e := range since {
		if e.Sequence <= last {
			continue
		}
		// What follows a gap rests on what is not there, unless it is complete itself.
		if !e.Update.Complete && (!ok || e.Sequence != last+1) {
			break
		}
		p.Apply(e.Update)
		last, ok = e.Sequence, true
	}
	return p.All(), last, ok, nil
}

// readJournal gives the updates up to the first that was not written whole.
func readJournal(name string) ([]entry, error) {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read endpoints: %w", err)
	}
	defer f.Close()
	var out []entry
	for d := json.NewDecoder(f); ; {
		var e entry
		if d.Decode(&e) != nil {
			return out, nil
		}
		out = append(out, e)
	}
}

// saver keeps the state on disk.
type saver struct {
	path   string
	logger *slog.Logger
	// all gives what there is to be kept; also is done under the same lock.
	all    func(also func()) network.Update
	notify chan struct{}
	// whole: all that the journals hold is in the state as well, but for what the
	// one in use has got since. Only then may the other be used anew.
	whole bool

	// These change only while nobody else draws.

	sequence uint64
	journal  *os.File // nil: not open yet
	which    int
}

// keep writes an update to the journal, and has the whole state written soon.
func (s *saver) keep(u network.Update) {
	s.sequence++
	if err := s.append(entry{s.sequence, u}); err != nil { // the whole state follows
		s.logger.Error("cannot keep a change of endpoints on disk", "err", err)
	}
	select {
	case s.notify <- struct{}{}:
	default:
	}
}

func (s *saver) append(e entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if s.journal == nil {
		if s.journal, err = os.OpenFile(journals(s.path)[s.which], os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
			return err
		}
	}
	_, err = s.journal.Write(append(line, '\n'))
	return err
}

// turn has what follows go to the other journal, which is emptied.
func (s *saver) turn() {
	next := 1 - s.which
	f, err := os.OpenFile(journals(s.path)[next], os.O_CREATE|os.O_TRUNC|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil { // the one in use grows on
		s.logger.Error("cannot begin a new journal of endpoints", "err", err)
		return
	}
	if s.journal != nil {
		_ = s.journal.Close() // it was written without a buffer
	}
	s.journal, s.which = f, next
}

// run writes until ctx ends, and once more then if something waits.
func (s *saver) run(ctx context.Context) error {
	defer s.all(func() {
		if s.journal != nil {
			_ = s.journal.Close() // it was written without a buffer
			s.journal = nil
		}
	})
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
	var st state
	u := s.all(func() {
		st.Sequence = s.sequence
		if s.whole {
			s.turn()
		}
	})
	st.Services, st.Endpoints = u.Services, u.Put
	b, err := json.Marshal(st)
	if err == nil {
		err = disk.WriteFile(s.path, b, 0o600)
	}
	s.whole = err == nil
	if err != nil { // the next change writes all of it
		s.logger.Error("cannot keep endpoints on disk", "err", err)
	}
}
