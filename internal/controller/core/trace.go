package core

import "time"

// traceFor is how long after a change what follows from it belongs to its trace: longer
// than people look at one apply, and no collector has a trace grow for hours.
const traceFor = 10 * time.Minute

// traced is the trace of a service's newest change. It is text that is carried: nothing is
// decided by it, and it ends with the term.
type traced struct {
	text  string // a W3C traceparent; empty: nobody traces
	until time.Time
	// given are the slots whose filling is there because of the change, or was before it
	// and stays: who comes next comes for another reason.
	given map[int]bool
}

// trace begins, or without a text ends, the trace of a service that was just changed.
func (c *Core) trace(s *service, text string) {
	s.traced = traced{}
	if text == "" {
		return
	}
	s.traced = traced{text: text, until: c.now.Add(traceFor), given: map[int]bool{}}
	for _, f := range s.fillings {
		if !f.stopping && !f.void && s.runs(f) == s.obj.Status.Revision {
			s.traced.given[f.key.Slot] = true
		}
	}
}

// traceOf gives the trace of a filling that is placed now; empty: it has another cause than
// the service's newest change.
func (c *Core) traceOf(s *service, f *filling) string {
	t := s.traced
	if t.text == "" || f.spare || t.given[f.key.Slot] || !c.now.Before(t.until) || s.runs(f) != s.obj.Status.Revision {
		return ""
	}
	t.given[f.key.Slot] = true
	return t.text
}

// traceTold gives the trace that goes with a filling's assignment: a session that begins
// later need not hear of it.
func (c *Core) traceTold(f *filling) string {
	if f.trace == "" || !c.now.Before(f.placedAt.Add(traceFor)) {
		return ""
	}
	return f.trace
}
