package api

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/session"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

const (
	// logBeginMax is how long a node may take until it says that there is something to
	// read, or that there is not: it looks at a few files.
	logBeginMax = 3 * time.Second
	// logSilenceMax is how long it may then be silent, unless lines are followed.
	logSilenceMax = 10 * time.Second
)

// pumped is how reading from a node ended.
type pumped struct {
	why   string // lines are missing, in words; empty: none are
	begun bool   // it had something to read
	away  bool   // lines are missing because the node is away
	none  bool   // there are none, and never will be
}

// pump sends what a node has.
func (l *logs) pump(x *api.Replica, open *orchv1.LogsOpen, send func(*orchv1.LogLine) bool) (p pumped) {
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel() // ends the relay
	silence := time.AfterFunc(logBeginMax, cancel)
	defer silence.Stop()
	away := func() pumped {
		return pumped{why: l.gap(x, p.begun), begun: p.begun, away: true}
	}
	relay, err := l.server.open(ctx, x.Spec.Node, &orchv1.OpenRelay{Request: &orchv1.OpenRelay_Logs{Logs: open}})
	switch {
	case l.ctx.Err() != nil:
		return p
	case errors.Is(err, session.ErrAway) || ctx.Err() != nil:
		return away()
	case err != nil:
		p.why = err.Error()
		return p
	}
	defer relay.Close()
	for {
		f, err := relay.Recv()
		silence.Stop() // whoever reads may take their time
		switch {
		case l.ctx.Err() != nil:
			return pumped{begun: p.begun}
		case err != nil:
			return away()
		case f.GetEnd() != nil:
			e := f.GetEnd()
			p.why, p.none = e.GetError(), e.GetNone()
			if p.why == "" && !p.begun {
				p.begun = true
				send(&orchv1.LogLine{Begun: true})
			}
			return p
		case f.GetLog() != nil:
			p.begun = true
			if !send(f.GetLog()) {
				return p
			}
		}
		if !open.GetFollow() {
			silence.Reset(logSilenceMax)
		}
	}
}

// gap says which lines are missing: "n2 cannot be reached since 12s: logs of web-1 are
// missing".
func (l *logs) gap(x *api.Replica, begun bool) string {
	since, from := "", ""
	if snap := l.server.cfg.View.Snapshot(); snap != nil {
		if o, ok := snap.Get(core.ViewKey{Kind: api.KindNode, Name: x.Spec.Node}); ok {
			st := o.(*api.Node).Status
			if st.Verdict != api.VerdictHealthy && !st.VerdictSince.IsZero() {
				since = fmt.Sprintf(" since %s", max(0, time.Since(st.VerdictSince)).Round(time.Second))
			}
		}
	}
	if begun {
		from = " from here on"
	}
	return fmt.Sprintf("%s cannot be reached%s: logs of %s are missing%s", x.Spec.Node, since, x.Metadata.Name, from)
}
