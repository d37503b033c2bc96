package reconciler

import (
	"fmt"
	"time"

	"github.com/orchctl/orch/api"
)

// waitingMax bounds the lines of Decision.Waiting: a person reads the first few,
// and a large service that starts would fill its status with thousands.
const waitingMax = 20 // lines, one more says how many were left out

// waiting describes what stands between the service and its wanted state, given
// that the plan is applied. What the plan creates is left to the one who places it.
func (p *planner) waiting() []string {
	var lines []string
	turns, held := 0, 0
	for _, s := range p.slots {
		for _, f := range s.fillings {
			if line := p.obstacle(s, f); line != "" {
				lines = append(lines, line)
			}
		}
		if line := p.fenceLine(s); line != "" {
			lines = append(lines, line)
		}
		switch {
		case s.number >= p.Replicas || !p.rollable(s):
		case p.mayReach(s):
			turns++
		default:
			held++
		}
	}
	if turns > 0 {
		surge := fmt.Sprintf("; surge %d, at most %d", p.surge(), p.MaxSurge)
		if p.Exclusive {
			surge = ""
		}
		lines = append(lines, fmt.Sprintf("slots that wait for their turn: %d (available %d, at least %d%s)", turns, p.available(), p.floor(), surge))
	}
	if held > 0 {
		lines = append(lines, fmt.Sprintf("slots that keep their revision for now: %d (revision %d is in %d, at most %d)", held, p.Revision, p.reach.reached, p.AtMost))
	}
	if more := len(lines) - waitingMax; more > 0 {
		lines = append(lines[:waitingMax:waitingMax], fmt.Sprintf("and %d more", more))
	}
	return lines
}

// obstacle says what about one filling is not as it should be; "" for nothing,
// or for an old filling that only waits for its turn.
func (p *planner) obstacle(s *slot, f *Filling) string {
	settled := f.ready() && f.Revision == p.Revision && len(s.live()) == 1
	switch {
	case f.Key.Epoch == 0:
		return ""
	case f.Stopping:
		return fmt.Sprintf("%s is stopping on %s%s", f.name(), f.Node, unheard(f))
	case f.relieved() && !f.ended():
		return fmt.Sprintf("%s is to be relieved on %s: %s", f.name(), f.Node, f.Relieve)
	case f.suspect():
		return fmt.Sprintf("%s cannot be reached: %s is suspect", f.name(), f.Node)
	case f.heard() && !f.known():
		return fmt.Sprintf("%s is not yet reported by %s", f.name(), f.Node)
	case f.ended():
		return fmt.Sprintf("%s has ended (%s) on %s%s", f.name(), f.Phase, f.Node, unheard(f))
	case !f.ready():
		return fmt.Sprintf("%s is not ready on %s%s", f.name(), f.Node, unheard(f))
	case !f.Stopping && !p.mature(f):
		return fmt.Sprintf("%s is ready on %s, and counts from %s", f.name(), f.Node, f.ReadySince.Add(p.MinReady+time.Second-1).UTC().Format("15:04:05Z"))
	case f.Spare && p.staysBeside(s, f):
		return fmt.Sprintf("%s stays beside the incumbent, whose node comes and goes", f.name())
	case !f.heard() && !settled:
		return fmt.Sprintf("%s is left alone on %s%s", f.name(), f.Node, unheard(f))
	}
	return ""
}

// unheard says why the rest of a line may be out of date; "" if it is not.
func unheard(f *Filling) string {
	switch {
	case f.heard():
		return ""
	case f.suspect():
		return ", which is suspect"
	case f.Verdict == api.VerdictAgentLost:
		return ", whose agent is lost"
	}
	return ", which has not been heard yet"
}
