package controller

import "time"

// sleptMin: two clocks that are not read at one instant may seem to part by as
// long as the process was kept waiting in between.
const sleptMin = 100 * time.Millisecond

// sleep finds out that the machine was suspended. A leader that was has missed
// what it would else have noticed by its clock: above all that another leads by
// now, so that what it last heard of a quorum is not fresh.
type sleep struct {
	sinceBoot func() time.Duration // nil: nobody looks
	began     time.Time
	apart     time.Duration // by how much the two clocks differ
}

func newSleep(sinceBoot func() time.Duration) *sleep {
	s := &sleep{sinceBoot: sinceBoot, began: time.Now()}
	if sinceBoot != nil {
		s.apart = sinceBoot() - time.Since(s.began)
	}
	return s
}

// slept is how long the machine was suspended since this was last asked.
func (s *sleep) slept() time.Duration {
	if s.sinceBoot == nil {
		return 0
	}
	apart := s.sinceBoot() - time.Since(s.began)
	slept := apart - s.apart
	if slept < sleptMin {
		return 0
	}
	s.apart = apart
	return slept
}
