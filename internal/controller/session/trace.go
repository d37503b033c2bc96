package session

import (
	"context"
	"slices"
	"time"

	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/wire"
)

// traced gives the set as it is sent, and tells how long it took from the core's decision
// until the session's turn; what the agent does belongs to that. It leaves the set, which
// is the core's, as it is.
func (s *Server) traced(e core.SendAssignments, queued time.Time) wire.AssignmentSet {
	set := s.opened(e)
	i := slices.IndexFunc(set.Put, func(a wire.Assignment) bool { return a.Trace != "" })
	if s.cfg.Tracer == nil || i < 0 {
		return set
	}
	set.Put = slices.Clone(set.Put)
	texts := map[string]string{} // one span of each trace
	for i := range set.Put {
		a := &set.Put[i]
		if a.Trace == "" {
			continue
		}
		text, ok := texts[a.Trace]
		if !ok {
			_, span := s.cfg.Tracer.UnderAt(context.Background(), a.Trace, "assign", queued)
			span.Set("orch.node", e.Node)
			span.Set("orch.service", a.Key.ServiceKey().String())
			if text = span.Text(); text == "" {
				text = a.Trace
			}
			span.End()
			texts[a.Trace] = text
		}
		a.Trace = text
	}
	return set
}
