package audit

import (
	"sync"
	"time"
)

// requestsKept is how many request ids are known again: clients retry within seconds.
const requestsKept = 1000

// seen is a bounded memory of request ids.
type seen struct {
	mu    sync.Mutex
	known map[string]bool
	order []string
}

func newSeen() *seen { return &seen{known: map[string]bool{}} }

// again tells whether the id was seen before, and remembers it.
func (s *seen) again(who Who, id string) bool {
	if id == "" {
		return false
	}
	id = who.Kind + "/" + who.Name + "/" + id
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known[id] {
		return true
	}
	s.known[id] = true
	if s.order = append(s.order, id); len(s.order) > requestsKept {
		delete(s.known, s.order[0])
		s.order = s.order[1:]
	}
	return false
}

const (
	// noiseLines of one source are written in noiseSpan, the rest is counted: who
	// has no certificate, or a node's, or is a user and may not, must not push what
	// users did out of the log.
	noiseLines = 20
	noiseSpan  = time.Minute
	// sourcesMax bounds the memory of sources. Beyond it all the others are one.
	sourcesMax = 1000
)

// noise bounds the lines of those who are no users.
type noise struct {
	mu      sync.Mutex
	sources map[string]*source
}

type source struct {
	since   time.Time
	lines   int
	leftOut int
}

func newNoise() *noise { return &noise{sources: map[string]*source{}} }

// admit tells whether one more line of this source is to be written, and how many
// were left out since the last one.
func (n *noise) admit(from string, now time.Time) (ok bool, leftOut int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.sources[from]
	if s == nil {
		if len(n.sources) >= sourcesMax {
			n.forget(now)
		}
		if len(n.sources) >= sourcesMax {
			from = ""
		}
		if s = n.sources[from]; s == nil {
			s = &source{since: now}
			n.sources[from] = s
		}
	}
	if now.Sub(s.since) >= noiseSpan {
		s.since, s.lines = now, 0
	}
	if s.lines >= noiseLines {
		s.leftOut++
		return false, 0
	}
	s.lines++
	leftOut, s.leftOut = s.leftOut, 0
	return true, leftOut
}

// forget drops sources that were quiet.
func (n *noise) forget(now time.Time) {
	for from, s := range n.sources {
		if from != "" && now.Sub(s.since) >= noiseSpan {
			delete(n.sources, from)
		}
	}
}
