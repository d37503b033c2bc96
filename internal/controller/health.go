package controller

import (
	"context"
	"time"

	"github.com/orchctl/orch/internal/controller/counts"
	"github.com/orchctl/orch/internal/controller/election"
)

// Sources are what is read of the controller for its metrics and checks.
func (c *Controller) Sources() counts.Sources {
	return counts.Sources{
		View: c.view,
		Leads: func() (uint64, bool) {
			s := c.Status()
			return s.Term, s.Leading
		},
		Inbox: func() int {
			if t := c.current(); t != nil {
				return len(t.inbox)
			}
			return 0
		},
		Sessions: c.sessions.Count,
		Working: func() time.Time {
			if since := c.working.Load(); since != 0 {
				return time.Unix(0, since)
			}
			return time.Time{}
		},
		Reach: func(ctx context.Context) error {
			_, _, err := election.Current(ctx, c.cfg.Store)
			return err
		},
	}
}
