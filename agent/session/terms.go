package session

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/orchctl/orch/agent/disk"
)

// retiredMax is how many replaced incarnations are remembered. Each is a
// restore of a backup: nobody has done more than a few within a node's life.
const retiredMax = 16

// ErrDeposed: the message is of a leader whose time is over.
var ErrDeposed = errors.New("message of a deposed leader")

// Terms keeps the highest (incarnation, term) seen, on disk. It is safe for
// concurrent use.
type Terms struct {
	path string

	mu   sync.Mutex
	seen seen
}

type seen struct {
	Incarnation string `json:"incarnation"`
	Term        uint64 `json:"term"`
	// Retired are incarnations that another one replaced.
	Retired []string `json:"retired,omitempty"`
}

// OpenTerms reads what was seen, from a file in dir that need not exist. One
// that cannot be read is an error: without it a deposed leader could be obeyed.
func OpenTerms(dir string) (*Terms, error) {
	t := &Terms{path: filepath.Join(dir, "session.json")}
	b, err := os.ReadFile(t.path)
	if errors.Is(err, os.ErrNotExist) {
		return t, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &t.seen)
	}
	if err != nil {
		return nil, fmt.Errorf("read the highest term seen: %w; if the disk was damaged, remove %s", err, t.path)
	}
	return t, nil
}

// Highest gives what messages up carry.
func (t *Terms) Highest() (incarnation string, term uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.seen.Incarnation, t.seen.Term
}

// Accept takes note of a message's (incarnation, term) before the message is
// looked at; what is new is on disk when it returns. ErrDeposed refuses it.
func (t *Terms) Accept(incarnation string, term uint64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if incarnation == t.seen.Incarnation && term == t.seen.Term && incarnation != "" {
		return nil
	}
	next := t.seen
	switch {
	case incarnation == "" || term == 0:
		return errors.New("message without incarnation or term")
	case incarnation == t.seen.Incarnation:
		if term < t.seen.Term {
			return fmt.Errorf("%w: term %d, but %d was seen", ErrDeposed, term, t.seen.Term)
		}
	case slices.Contains(t.seen.Retired, incarnation):
		return fmt.Errorf("%w: incarnation %s was replaced by %s", ErrDeposed, incarnation, t.seen.Incarnation)
	case t.seen.Incarnation != "":
		next.Retired = append(slices.Clone(next.Retired), t.seen.Incarnation)
		next.Retired = next.Retired[max(0, len(next.Retired)-retiredMax):]
	}
	next.Incarnation, next.Term = incarnation, term
	js, err := json.Marshal(next)
	if err == nil {
		err = disk.WriteFile(t.path, js, 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep term %d: %w", term, err)
	}
	t.seen = next
	return nil
}
