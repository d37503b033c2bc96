package session

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// oneSession is the state of one stream.
type oneSession struct {
	s      *Session
	client orchv1.AgentsClient
	ctx    context.Context
	end    context.CancelCauseFunc
	stream grpc.BidiStreamingClient[orchv1.AgentMessage, orchv1.ControllerMessage]
	gen    uint64
	beat   atomic.Int64 // the interval between beats
	work   sync.WaitGroup
}

func (o *oneSession) interval() time.Duration { return time.Duration(o.beat.Load()) }

func (o *oneSession) run(ctx context.Context) (welcomed bool, err error) {
	o.stream, err = o.client.Session(o.ctx)
	if err != nil {
		return false, err
	}
	hello := o.s.cfg.Hello()
	if err := o.put(&orchv1.AgentMessage{Message: &orchv1.AgentMessage_Hello{Hello: hello.ToPB()}}); err != nil {
		return false, o.reason(err)
	}
	dead := time.AfterFunc(welcomeMax, func() { o.end(errors.New("the leader does not answer a hello")) })
	defer dead.Stop()
	first, err := o.get()
	if err != nil {
		return false, err
	}
	w := first.GetWelcome()
	if w == nil {
		return false, errors.New("the leader's first message is no welcome")
	}
	dead.Stop()

	o.open()
	o.s.cfg.Logger.Info("session is up", "leader", w.GetLeader())
	o.s.cfg.Handler.Connected(o.gen, welcomeOf(w))
	o.trusted(w.GetTrust())
	defer func() {
		o.close()
		o.s.cfg.Handler.Disconnected(o.gen)
	}()
	o.beat.Store(int64(beatOf(w)))
	o.work.Go(func() { o.sendLoop(ctx) })
	return true, o.receiveLoop()
}

func beatOf(w *orchv1.Welcome) time.Duration {
	if d := w.GetBeatInterval().AsDuration(); d > 0 {
		return d
	}
	return defaultBeat
}

func welcomeOf(w *orchv1.Welcome) Welcome {
	keys := w.GetTrust().GetGossipKeys()
	if len(keys) == 0 && len(w.GetGossipKey()) > 0 { // a leader of an earlier version
		keys = [][]byte{w.GetGossipKey()}
	}
	return Welcome{Leader: w.GetLeader(), Beat: beatOf(w), GossipKeys: keys, GossipPeers: w.GetGossipPeers()}
}

func (o *oneSession) trusted(t *orchv1.Trust) {
	if f := o.s.cfg.Trusted; f != nil && t != nil {
		f(Trust{CA: t.GetCa(), GossipKeys: t.GetGossipKeys()})
	}
}

// open makes this the session that Send speaks to.
func (o *oneSession) open() {
	o.s.mu.Lock()
	defer o.s.mu.Unlock()
	o.s.gen++
	o.gen, o.s.outbox, o.s.end = o.s.gen, nil, o.end
}

func (o *oneSession) close() {
	o.s.mu.Lock()
	defer o.s.mu.Unlock()
	o.s.gen++ // so that nothing more is kept for it
	o.s.outbox, o.s.end = nil, nil
}

// put sends one message, stamped.
func (o *oneSession) put(m *orchv1.AgentMessage) error {
	m.Incarnation, m.Term = o.s.cfg.Terms.Highest()
	return o.stream.Send(m)
}

// get receives one message and refuses that of a deposed leader.
func (o *oneSession) get() (*orchv1.ControllerMessage, error) {
	m, err := o.stream.Recv()
	if err != nil {
		return nil, o.reason(err)
	}
	return m, o.s.cfg.Terms.Accept(m.GetIncarnation(), m.GetTerm())
}

// reason finds why a stream ended: Send only says EOF.
func (o *oneSession) reason(err error) error {
	if cause := context.Cause(o.ctx); cause != nil {
		return cause
	}
	if errors.Is(err, io.EOF) {
		if _, e := o.stream.Recv(); e != nil && !errors.Is(e, io.EOF) {
			return e
		}
		return errors.New("the controller ended the session")
	}
	return err
}

// sendLoop beats, and sends what is in the outbox. It ends with a goodbye when
// ctx ends.
func (o *oneSession) sendLoop(ctx context.Context) {
	interval := o.interval()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	beat := &orchv1.Beat{}
	for {
		var err error
		select {
		case <-o.ctx.Done():
			return
		case <-ctx.Done():
			if err := o.stream.CloseSend(); err != nil {
				o.end(err)
			}
			return
		case <-tick.C:
			if now := o.interval(); now != interval {
				interval = now
				tick.Reset(interval)
			}
			beat = wire.BeatToPB(beat.Sequence+1, o.s.cfg.SelfCheck())
			err = o.put(&orchv1.AgentMessage{Message: &orchv1.AgentMessage_Beat{Beat: beat}})
		case <-o.s.notify:
			err = o.sendOutbox()
		}
		if err != nil {
			return // the receiving side learns why
		}
	}
}

func (o *oneSession) sendOutbox() error {
	o.s.mu.Lock()
	out := o.s.outbox
	if o.s.gen == o.gen {
		o.s.outbox = nil
	} else {
		out = nil
	}
	o.s.mu.Unlock()
	for _, m := range out {
		if err := o.put(m); err != nil {
			return err
		}
	}
	return nil
}

// receiveLoop hands on what comes until the stream ends.
func (o *oneSession) receiveLoop() error {
	link := newWatchdog(max(linkMax, linkBeats*o.interval()), func() { o.end(errors.New("nothing is heard from the leader any more")) })
	defer link.stop()
	for {
		m, err := o.get()
		if err != nil {
			return err
		}
		if o.s.cfg.Heard != nil {
			o.s.cfg.Heard()
		}
		if err := o.take(m); err != nil {
			return err
		}
		link.fed(max(linkMax, linkBeats*o.interval()))
	}
}

func (o *oneSession) take(m *orchv1.ControllerMessage) error {
	h := o.s.cfg.Handler
	switch x := m.GetMessage().(type) {
	case *orchv1.ControllerMessage_Welcome: // the fleet grew or shrank
		o.beat.Store(int64(beatOf(x.Welcome)))
		h.Welcomed(welcomeOf(x.Welcome))
		o.trusted(x.Welcome.GetTrust())
	case *orchv1.ControllerMessage_Trust:
		o.trusted(x.Trust)
	case *orchv1.ControllerMessage_Assignments:
		set, err := wire.AssignmentSetFromPB(x.Assignments)
		if err != nil {
			return err
		}
		h.Assignments(m.GetIncarnation(), set)
	case *orchv1.ControllerMessage_Endpoints:
		h.Endpoints(wire.EndpointSetFromPB(x.Endpoints))
	case *orchv1.ControllerMessage_Network:
		h.Network(wire.NetworkSetFromPB(x.Network))
	case *orchv1.ControllerMessage_Grant:
		h.Granted(wire.GrantFromPB(x.Grant))
	case *orchv1.ControllerMessage_AskWitness:
		ask := wire.Ask{ID: x.AskWitness.GetAskId(), Target: x.AskWitness.GetTarget(), Address: x.AskWitness.GetAddress(), Ports: x.AskWitness.GetPorts()}
		o.work.Go(func() {
			if answer := h.Witness(o.ctx, ask); answer != nil {
				o.s.send(o.gen, &orchv1.AgentMessage{Message: &orchv1.AgentMessage_Witness{Witness: answer}})
			}
		})
	case *orchv1.ControllerMessage_OpenRelay:
		o.work.Go(func() { o.relay(x.OpenRelay) })
	}
	return nil // beat answers, and what a newer leader may say
}
