package mem

import (
	"context"
	"time"

	"github.com/orchctl/orch/internal/store"
)

// Call names what a delay is asked for.
type Call uint8

const (
	CallTxn Call = iota + 1
	CallRange
)

type fault struct {
	err   error
	apply bool // do the transaction although an error is answered
}

// FailNext makes the next transaction fail with err, unwritten. Several calls
// queue up.
func (s *Store) FailNext(err error) { s.addFault(fault{err: err}) }

// UnknownNext makes the next transaction answer store.ErrUnknown, written or
// not. A written one still obeys its compares.
func (s *Store) UnknownNext(applied bool) {
	s.addFault(fault{err: store.ErrUnknown, apply: applied})
}

// SetDelay makes each call wait before it takes effect, for as long as f says;
// nil ends that. A transaction whose context ends meanwhile is not written and
// answers store.ErrUnknown.
func (s *Store) SetDelay(f func(Call) time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delay = f
}

func (s *Store) addFault(f fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, f)
}

// takeFault returns the next fault, if any; s.mu is held.
func (s *Store) takeFault() (fault, bool) {
	if len(s.faults) == 0 {
		return fault{}, false
	}
	f := s.faults[0]
	s.faults = s.faults[1:]
	return f, true
}

func (s *Store) wait(ctx context.Context, c Call) error {
	s.mu.Lock()
	f := s.delay
	s.mu.Unlock()
	if f == nil {
		return nil
	}
	d := f(c)
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closed:
		return store.ErrClosed
	}
}
