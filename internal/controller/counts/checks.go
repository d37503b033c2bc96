package counts

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/orchctl/orch/internal/metrics"
)

// stuckAfter is how long the loop may be at work without a break until the controller
// counts as stuck: it pauses after each 512 events, which take milliseconds.
const stuckAfter = 10 * time.Second

var errStarting = errors.New("the controller starts")

// Live is what /healthz asks: a controller that fails it is to be started again.
func (s *Set) Live() []metrics.Check {
	if s == nil {
		return nil
	}
	return []metrics.Check{{Name: "loop", Try: func(context.Context) (string, error) {
		src := s.sources.Load()
		if src == nil {
			return "the controller starts", nil
		}
		since := src.Working()
		if since.IsZero() {
			return "it waits for work", nil
		}
		busy := time.Since(since).Round(time.Millisecond)
		if busy > stuckAfter {
			return "", fmt.Errorf("the leader's loop has been at work for %s without a break: look at its cpu use and its log, and start the controller again", busy)
		}
		return "at work for " + busy.String(), nil
	}}}
}

// Ready is what /readyz asks: a controller that fails it serves no changes now.
func (s *Set) Ready() []metrics.Check {
	return append(s.Live(),
		metrics.Check{Name: "leader", Try: s.check(func(_ context.Context, src *Sources) (string, error) {
			term, leads := src.Leads()
			if !leads {
				return "", errors.New("this controller does not lead, and knows of no other that does: its log says why")
			}
			return fmt.Sprintf("it leads term %d", term), nil
		})},
		metrics.Check{Name: "store", Try: s.check(func(ctx context.Context, src *Sources) (string, error) {
			began := time.Now()
			if err := src.Reach(ctx); err != nil {
				return "", fmt.Errorf("the store does not answer: %w; is etcd up, and its disk not full?", err)
			}
			return "it answers within " + time.Since(began).Round(time.Millisecond/10).String(), nil
		})},
		metrics.Check{Name: "view", Try: s.check(func(_ context.Context, src *Sources) (string, error) {
			snapshot := src.View.Snapshot()
			switch {
			case snapshot == nil:
				return "", errors.New("nothing was published yet")
			case !snapshot.StaleSince.IsZero():
				return "", fmt.Errorf("what users read is stale since %s: nobody leads", snapshot.StaleSince.UTC().Format("15:04:05 UTC"))
			}
			return "it is current", nil
		})},
	)
}

func (s *Set) check(try func(context.Context, *Sources) (string, error)) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		src := s.sources.Load()
		if src == nil {
			return "", errStarting
		}
		return try(ctx, src)
	}
}
