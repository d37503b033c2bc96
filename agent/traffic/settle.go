package traffic

import (
	"maps"
	"time"
)

// settleFor is how long after the rules no longer lead to an endpoint it counts as
// out of use: what was led there before is under way. A handshake takes a round trip,
// the request that follows comes when the client gets to run, and a server that is
// told to stop closes its listener with whatever it has not yet accepted. Most of it
// is for machines that are busy: with two cores and ten that want one, clients and
// servers wait for up to 0.2 s in between. The leader waits for 2 s at most.
const settleFor = 200 * time.Millisecond

// settling are marks that are in force, and when that is told: in order, both never
// fall.
type settling struct {
	due  []settled
	last uint64 // the newest mark, told or not
}

type settled struct {
	mark uint64
	at   time.Time
	gone map[server]bool
}

// add takes a mark that is in force from now on, with the servers that it takes out
// of use.
func (s *settling) add(mark uint64, now time.Time, gone map[server]bool) {
	if mark <= s.last {
		return
	}
	s.last = mark
	at := now
	if len(gone) > 0 {
		at = now.Add(settleFor)
	}
	if n := len(s.due); n > 0 && at.Before(s.due[n-1].at) {
		at = s.due[n-1].at
	}
	s.due = append(s.due, settled{mark, at, gone})
}

// spare is told that a server is in use again.
func (s *settling) spare(again server) {
	for _, d := range s.due {
		delete(d.gone, again)
	}
}

// take gives the newest mark that is to be told now, with the servers that it and
// those before it took out of use; false: none is.
func (s *settling) take(now time.Time) (mark uint64, gone map[server]bool, ok bool) {
	gone = map[server]bool{}
	for len(s.due) > 0 && !s.due[0].at.After(now) {
		mark, ok = s.due[0].mark, true
		maps.Copy(gone, s.due[0].gone)
		s.due = s.due[1:]
	}
	return mark, gone, ok
}

// next is when the next one is to be told; false: none waits.
func (s *settling) next() (time.Time, bool) {
	if len(s.due) == 0 {
		return time.Time{}, false
	}
	return s.due[0].at, true
}
