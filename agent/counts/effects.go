package counts

import (
	"slices"
	"time"

	"github.com/orchctl/orch/agent/plan"
)

// The phases of a replica's start. Create and start are the runtime's to tell.
const (
	PhaseImage   = "image"
	PhaseNetwork = "network"
	PhaseCreate  = "create"
	PhaseStart   = "start"
)

var effectKinds = []string{"observe", "image", "network", "start", "hook", "stop", "remove", "teardown", "prune", "remove_volume", "other"}

func kindOf(e plan.Effect) string {
	switch e.(type) {
	case plan.Observe:
		return "observe"
	case plan.EnsureImage:
		return "image"
	case plan.SetupNetwork:
		return "network"
	case plan.StartContainer:
		return "start"
	case plan.RunHook:
		return "hook"
	case plan.StopContainer:
		return "stop"
	case plan.RemoveContainer:
		return "remove"
	case plan.TeardownNetwork:
		return "teardown"
	case plan.PruneNetworks:
		return "prune"
	case plan.RemoveVolume:
		return "remove_volume"
	}
	return "other"
}

// Began counts an effect that takes time; ended is called with its answer.
func (s *Set) Began(e plan.Effect) (ended func(plan.Event)) {
	if s == nil {
		return func(plan.Event) {}
	}
	kind, began := kindOf(e), time.Now()
	s.inFlight.WithLabelValues(kind).Inc()
	if x, ok := e.(plan.StartContainer); ok && x.Attempt > 0 {
		s.restarts.Inc()
	}
	return func(answer plan.Event) {
		took := time.Since(began)
		s.inFlight.WithLabelValues(kind).Dec()
		s.effects.WithLabelValues(kind).Observe(took.Seconds())
		if failed(answer) {
			s.failures.WithLabelValues(kind).Inc()
			return
		}
		switch e.(type) {
		case plan.EnsureImage:
			s.Phase(PhaseImage, took)
		case plan.SetupNetwork:
			s.Phase(PhaseNetwork, took)
		}
	}
}

func failed(answer plan.Event) bool {
	switch x := answer.(type) {
	case plan.Done:
		return x.Failure != nil
	case plan.Observed:
		return x.Err != ""
	}
	return false
}

// Phase counts a phase of a start that worked.
func (s *Set) Phase(phase string, took time.Duration) {
	if s != nil {
		s.phases.WithLabelValues(phase).Observe(took.Seconds())
	}
}

// The outcomes of a pull.
const (
	PullOK          = "ok"
	PullMissing     = "missing"
	PullDenied      = "denied"
	PullUnreachable = "unreachable"
	PullError       = "error"
)

var pullOutcomes = []string{PullOK, PullMissing, PullDenied, PullUnreachable, PullError}

// Pulled counts a pull from a registry and the bytes that it fetched.
func (s *Set) Pulled(outcome string, bytes int64, took time.Duration) {
	if s == nil {
		return
	}
	if !slices.Contains(pullOutcomes, outcome) {
		outcome = PullError
	}
	s.pulls[outcome].Inc()
	s.pulled.Add(float64(max(0, bytes)))
	if outcome == PullOK {
		s.pull.Observe(took.Seconds())
	}
}

// Collected counts images that were removed to make room, and what that freed.
func (s *Set) Collected(images int, bytes int64) {
	if s != nil {
		s.collected.Add(float64(max(0, images)))
		s.freed.Add(float64(max(0, bytes)))
	}
}

// Ruled counts a change of the kernel's rules.
func (s *Set) Ruled(took time.Duration, err error) {
	switch {
	case s == nil:
	case err != nil:
		s.ruleFailures.Inc()
	default:
		s.rules.Observe(took.Seconds())
	}
}

const rcodes = 7

// rcodeWords are the rcodes that a server here or an upstream gives; the last is all others.
var rcodeWords = [rcodes]string{"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "OTHER"}

// Answered counts an answer to a question for a name.
func (s *Set) Answered(rcode int) {
	if s == nil {
		return
	}
	if rcode < 0 || rcode >= rcodes-1 {
		rcode = rcodes - 1
	}
	s.answers[rcode].Inc()
}
