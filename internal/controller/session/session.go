package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/counts"
	"github.com/orchctl/orch/internal/controller/identity"
	"github.com/orchctl/orch/internal/pki"
	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// message makes what is sent: conversion costs time that is the session's, not
// the leader's.
type message func() (*orchv1.ControllerMessage, error)

type stream interface {
	Send(*orchv1.ControllerMessage) error
	Recv() (*orchv1.AgentMessage, error)
	Context() context.Context
}

// session is one agent's stream.
type session struct {
	server *Server
	id     uint64 // given by register
	node   string
	caller identity.Caller
	term   Term
	queue  chan message
	// ctx ends with the session; its cause is why.
	ctx   context.Context
	end   context.CancelCauseFunc
	hello chan struct{} // closed when the Hello came
	// said is the Hello, and since when it came; both are set before register.
	said  wire.Hello
	since time.Time
	// heard is when something came last, counted from began.
	began time.Time
	heard atomic.Int64
	beats *counts.Beats // for reading's goroutine
}

// enqueue never waits.
func (x *session) enqueue(m message) {
	select {
	case x.queue <- m:
	default:
		x.end(status.Error(codes.ResourceExhausted, fmt.Sprintf("the agent does not read: %d messages wait for it", queueMax)))
	}
}

// Session implements orch.v1.Agents.
func (s *Server) Session(st orchv1.Agents_SessionServer) error {
	caller, err := nodeOf(st.Context())
	if err != nil {
		return err
	}
	if err := s.cfg.Identities.Bound(caller.Name, caller.Certificate); err != nil {
		return identityError(err)
	}
	term, err := s.cfg.Leadership.Term()
	if err != nil {
		return err
	}
	if !s.opens.allow(caller.Name) {
		return status.Errorf(codes.ResourceExhausted, "node %s opens sessions too often: at most %d in a row, then one every %s", caller.Name, opensBurst, opensEvery)
	}
	x := &session{server: s, node: caller.Name, caller: caller, term: term,
		queue: make(chan message, queueMax), hello: make(chan struct{}), began: time.Now()}
	x.ctx, x.end = context.WithCancelCause(st.Context())

	// Both may stay in a Send or Recv until this has returned and the stream's
	// context ends; Wait waits for them.
	s.running.Go(func() { x.read(st) })
	s.running.Go(func() { x.end(x.write(st)) })
	x.await()
	s.unregister(x)

	why := context.Cause(x.ctx)
	s.cfg.Log.Info("session closed", "node", x.node, "session", x.id, "why", why)
	if errors.Is(why, io.EOF) {
		return nil
	}
	return why
}

// await returns when the session has ended.
func (x *session) await() {
	timer := time.NewTimer(helloTimeout)
	defer timer.Stop()
	hello := x.hello
	for {
		select {
		case <-x.ctx.Done():
			return
		case <-x.term.Over():
			x.end(status.Error(codes.Unavailable, "leader changed; dial again"))
		case <-hello:
			hello = nil
			timer.Stop()
		case <-timer.C:
			x.end(status.Error(codes.DeadlineExceeded, fmt.Sprintf("no Hello within %s", helloTimeout)))
		}
	}
}

// write sends what is queued until the session ends.
func (x *session) write(st stream) error {
	for {
		select {
		case m := <-x.queue:
			pb, err := m()
			if err != nil {
				return status.Error(codes.Internal, err.Error())
			}
			pb.Incarnation, pb.Term = x.term.Incarnation(), x.term.Number()
			if err := st.Send(pb); err != nil {
				return err
			}
			x.server.cfg.Counts.Sent(pb)
		case <-x.ctx.Done():
			return context.Cause(x.ctx)
		}
	}
}

// read tells the core what the agent says. Both ends of a session are told from
// here, so that they are told in order.
func (x *session) read(st stream) {
	err := x.receive(st)
	x.end(err)
	select {
	case <-x.hello:
	default:
		return
	}
	closed := core.SessionClosed{Node: x.node, Session: x.id, Graceful: errors.Is(context.Cause(x.ctx), io.EOF)}
	x.server.cfg.Counts.Closed(closed.Graceful)
	// Not under x.ctx, which is over: the core must hear of it, or the term ends.
	if err := x.term.Tell(context.WithoutCancel(x.ctx), closed); err != nil {
		x.server.cfg.Log.Debug("the term ended before the session", "node", x.node)
	}
}

func (x *session) receive(st stream) error {
	limit := rate.NewLimiter(messagesPerSecond, messagesBurst)
	opened := false
	for {
		m, err := st.Recv()
		if err != nil {
			return err
		}
		x.hear()
		x.server.cfg.Counts.Received(m)
		if err := limit.Wait(x.ctx); err != nil {
			return err
		}
		if m.GetIncarnation() == x.term.Incarnation() && m.GetTerm() > x.term.Number() {
			x.server.cfg.Leadership.Doubt(x.ctx, x.term, m.GetTerm())
			return status.Error(codes.Unavailable, fmt.Sprintf("node %s has seen term %d, this leader's is %d", x.node, m.GetTerm(), x.term.Number()))
		}
		hello := m.GetHello()
		switch {
		case !opened && hello == nil:
			err = status.Error(codes.InvalidArgument, "the first message of a session is a Hello")
		case opened && hello != nil:
			err = status.Error(codes.InvalidArgument, "a session has one Hello")
		case !opened:
			opened = true
			err = x.open(hello)
		default:
			err = x.take(m)
		}
		if err != nil {
			return err
		}
	}
}

func (x *session) open(pb *orchv1.Hello) error {
	h := wire.HelloFromPB(pb)
	if err := checkHello(h); err != nil {
		return status.Error(codes.InvalidArgument, fmt.Sprintf("Hello of node %s: %v", x.node, err))
	}
	x.said, x.since = h, time.Now()
	if err := x.server.unlessCloned(x); err != nil {
		return err
	}
	// The node may have been removed since the stream was opened.
	if err := x.server.cfg.Identities.Bound(x.node, x.caller.Certificate); err != nil {
		return identityError(err)
	}
	if !x.server.register(x) {
		return context.Cause(x.ctx)
	}
	x.enqueue(x.server.welcome)
	close(x.hello)
	x.beats = x.server.cfg.Counts.Opened(x.node)
	x.server.cfg.Log.Info("session open", "node", x.node, "session", x.id, "address", h.Address, "version", h.Version)
	if err := x.term.Tell(x.ctx, core.SessionOpened{Node: x.node, Session: x.id, Hello: h}); err != nil {
		return err
	}
	if f := x.server.cfg.Opened; f != nil {
		x.server.running.Go(func() { f(x.ctx, x.node, x.caller.Certificate) })
	}
	return nil
}

func (x *session) take(m *orchv1.AgentMessage) error {
	switch m := m.GetMessage().(type) {
	case *orchv1.AgentMessage_Status:
		report := wire.StatusReportFromPB(m.Status)
		if err := checkReport(&report); err != nil {
			return status.Error(codes.InvalidArgument, fmt.Sprintf("report of node %s: %v", x.node, err))
		}
		return x.term.Tell(x.ctx, core.Status{Node: x.node, Session: x.id, Report: report})
	case *orchv1.AgentMessage_Beat:
		seq := m.Beat.GetSequence()
		x.beats.Came(time.Now(), x.server.cfg.BeatInterval())
		if seq%answerEvery == 1 {
			x.enqueue(func() (*orchv1.ControllerMessage, error) {
				return &orchv1.ControllerMessage{Message: &orchv1.ControllerMessage_BeatAnswer{BeatAnswer: &orchv1.Beat{Sequence: seq}}}, nil
			})
		}
		return x.term.Tell(x.ctx, core.Beat{Node: x.node, Session: x.id, Seq: seq, Check: checkOf(m.Beat)})
	case *orchv1.AgentMessage_Witness:
		w := m.Witness
		return x.term.Tell(x.ctx, core.Witnessed{Observer: x.node, Target: w.GetTarget(), AskID: w.GetAskId(), HostAnswers: w.GetHostAnswers(),
			PortsAsked: int(w.GetPortsAsked()), PortsAnswered: int(w.GetPortsAnswered()), How: cut(w.GetHow(), wordBytes)})
	case *orchv1.AgentMessage_Renewal:
		r := wire.RenewalFromPB(m.Renewal)
		if len(r.Keys) > renewalMax {
			return status.Error(codes.InvalidArgument, fmt.Sprintf("a renewal of %d leases: at most %d", len(r.Keys), renewalMax))
		}
		return x.term.Tell(x.ctx, core.Renew{Node: x.node, Session: x.id, Renewal: r})
	case *orchv1.AgentMessage_Ack:
		return x.term.Tell(x.ctx, core.Acked{Node: x.node, Session: x.id, EndpointVersion: m.Ack.GetEndpointVersion()})
	default:
		return status.Error(codes.InvalidArgument, "a message without content")
	}
}

// nodeOf refuses callers that are no nodes.
func nodeOf(ctx context.Context) (identity.Caller, error) {
	c, err := identity.CallerOf(ctx)
	if err != nil {
		return identity.Caller{}, status.Error(codes.Unauthenticated, err.Error())
	}
	if c.Kind != pki.Node {
		return identity.Caller{}, status.Error(codes.PermissionDenied, fmt.Sprintf("%s is no node", c.Identity))
	}
	return c, nil
}
