package counts

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/internal/metrics"
)

var errStarting = errors.New("the agent starts")

// Live is what /healthz asks: an agent that fails it is to be started again, which
// touches no container.
func (s *Set) Live() []metrics.Check {
	if s == nil {
		return nil
	}
	return []metrics.Check{{Name: "loop", Try: func(ctx context.Context) (string, error) {
		if s.sources.Load() == nil {
			return errStarting.Error(), nil
		}
		began := time.Now()
		if _, err := s.tally(ctx); err != nil {
			return "", err
		}
		return "it turned within " + time.Since(began).Round(time.Microsecond).String(), nil
	}}}
}

// Ready is what /readyz asks. An agent without a session goes on with what it was told,
// and is ready; one that was never told all in its life is not.
func (s *Set) Ready() []metrics.Check {
	return append(s.Live(),
		metrics.Check{Name: "session", Try: func(context.Context) (string, error) {
			since := time.Duration(0)
			if at := s.since.Load(); at != 0 {
				since = time.Since(time.Unix(0, at)).Round(time.Second)
			}
			if leader := s.leader.Load(); leader != nil {
				return fmt.Sprintf("with leader %s for %s", *leader, since), nil
			}
			if s.since.Load() == 0 {
				return "none yet: what ran before goes on, as it was last told", nil
			}
			return fmt.Sprintf("none for %s: the node goes on as it was last told", since), nil
		}},
		metrics.Check{Name: "assignments", Try: func(ctx context.Context) (string, error) {
			t, err := s.tally(ctx)
			switch {
			case err != nil:
				return "", err
			case !t.Taken:
				return "", errors.New("no complete set was taken yet: the agent has had no session in its present life; its log says why")
			case !t.Whole:
				return "as last told, before the session ended", nil
			}
			replicas := 0
			for _, n := range t.Replicas {
				replicas += n
			}
			return fmt.Sprintf("%d replicas", replicas), nil
		}},
		metrics.Check{Name: "containerd", Try: func(context.Context) (string, error) {
			src := s.sources.Load()
			if src == nil {
				return "", errStarting
			}
			if failing := src.Runtime(); failing != "" {
				return "", fmt.Errorf("%s: is containerd up, and its disk not full?", failing)
			}
			return "it answers", nil
		}},
	)
}

func (s *Set) tally(ctx context.Context) (plan.Tally, error) {
	src := s.sources.Load()
	if src == nil {
		return plan.Tally{}, errStarting
	}
	ctx, cancel := context.WithTimeout(ctx, tallyTimeout)
	defer cancel()
	t, err := src.Tally(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("the agent's loop gave no answer within %s: look at its cpu use and its log, and start the agent again; containers run on", tallyTimeout)
	}
	return t, err
}
