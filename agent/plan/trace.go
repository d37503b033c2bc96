package plan

import (
	"time"

	"github.com/orchctl/orch/internal/wire"
)

// traceFor is how long what is done for a replica belongs to the trace that it was assigned
// with: as long as the leader counts it, and for less where it is ready before.
const traceFor = 10 * time.Minute

// traced is the trace that a replica was assigned with. It is text that is carried into
// effects: nothing is decided by it, and it is not kept on disk.
type traced struct {
	text  string    // a W3C traceparent; empty: none
	until time.Time // zero: nothing was done yet
	over  bool      // it was ready, or is of another life: what comes has another cause
}

// of gives the text for an effect at that time.
func (t *traced) of(now time.Time) string {
	if t.text == "" || t.over {
		return ""
	}
	if t.until.IsZero() {
		t.until = now.Add(traceFor)
	}
	if !now.Before(t.until) {
		return ""
	}
	return t.text
}

// told notes what the leader was told of the replica.
func (t *traced) told(r wire.Report) { t.over = t.over || r.Status.Ready || r.Status.Phase.Ended() }
