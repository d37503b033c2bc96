package controller

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/commit"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/evidence"
	"github.com/orchctl/orch/internal/liveness"
	"github.com/orchctl/orch/internal/wire"
)

// carry does what the core wants done, in order. Nothing in here waits.
func (l *loop) carry(ctx context.Context, effects []core.Effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case core.Commit:
			l.committing = true
			l.term.traces.commits(len(e.Ops))
			if err := l.commits.Submit(commit.Batch{Seq: e.Seq, Ops: e.Ops}); err != nil {
				l.err = err
			}
		case core.Reply:
			l.term.traces.answered(e)
			l.term.reply(e, l.rev)
		case core.SendAssignments:
			l.c.sessions.Assign(e)
		case core.SendEndpoints:
			l.c.sessions.Endpoints(e)
		case core.SendNetwork:
			l.c.sessions.Network(e)
		case core.SendGrant:
			l.c.sessions.Grant(e)
		case core.AskWitness:
			if e.Observer == liveness.LeaderObserver {
				l.look(ctx, e.Ask)
			} else {
				l.c.sessions.Ask(e)
			}
		case core.CloseSession:
			l.c.sessions.Close(e)
		case core.Publish:
			l.c.view.Publish(e)
			l.count(e)
		default:
			l.err = fmt.Errorf("the core wants %T, which this driver does not know", e)
		}
	}
}

// count keeps the fleet's size; where it changes the beat interval, sessions are
// told.
func (l *loop) count(p core.Publish) {
	for _, e := range p.Put {
		if e.Key.Kind == api.KindNode {
			l.nodes[e.Key.Name] = true
		}
	}
	for _, k := range p.Gone {
		if k.Kind == api.KindNode {
			delete(l.nodes, k.Name)
		}
	}
	l.c.fleet.Store(int64(len(l.nodes)))
	if now := l.c.beatInterval(); now != l.interval {
		l.interval = now
		l.c.sessions.Welcome()
	}
}

// look is the leader's own look at a host.
func (l *loop) look(ctx context.Context, ask wire.Ask) {
	target, err := targetOf(ask)
	if err != nil {
		l.c.cfg.Log.Warn("look at node", "node", ask.Target, "error", err)
		return
	}
	select {
	case l.looks <- struct{}{}:
	default:
		l.c.cfg.Log.Warn("too many looks at once", "node", ask.Target, "limit", looksMax)
		return
	}
	l.looking.Go(func() {
		defer func() { <-l.looks }()
		r := l.c.cfg.Prober.Probe(ctx, target, ask.Timeout)
		if ctx.Err() != nil {
			return
		}
		told := l.term.Tell(ctx, core.Witnessed{Observer: liveness.LeaderObserver, Target: ask.Target, AskID: ask.ID,
			HostAnswers: r.HostAnswers, PortsAsked: r.PortsAsked, PortsAnswered: r.PortsAnswered, How: r.How})
		if told != nil {
			l.c.cfg.Log.Debug("a look came too late", "node", ask.Target)
		}
	})
}

func targetOf(ask wire.Ask) (evidence.Target, error) {
	addr, err := netip.ParseAddr(ask.Address)
	if err != nil {
		return evidence.Target{}, err
	}
	t := evidence.Target{Addr: addr}
	for _, p := range ask.Ports {
		at, err := netip.ParseAddrPort(p)
		if err != nil {
			return evidence.Target{}, err
		}
		t.Ports = append(t.Ports, at.Port())
	}
	return t, nil
}
