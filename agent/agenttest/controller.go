// Package agenttest is a leader for tests of agents: it says what it is told to
// say and keeps what it hears.
//
// It owns a gRPC server on an in-memory listener. Invariant: it decides nothing.
//
//	test ──Say──► Controller ◄──bufconn──► agent
//	     ◄─Hear──
package agenttest

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// HearMax is how long Hear waits; beside virtual time it is never used up.
const HearMax = 20 * time.Second

// Controller is a leader. Its fields are set before Serve.
type Controller struct {
	orchv1.UnimplementedAgentsServer
	Incarnation string
	// Mute leaves beats unanswered.
	Mute bool
	// OnJoin and OnRenew answer those calls; nil refuses.
	OnJoin  func(*orchv1.JoinRequest) (*orchv1.JoinResponse, error)
	OnRenew func(context.Context, *orchv1.RenewRequest) (*orchv1.JoinResponse, error)
	// Greet replaces the welcome; nil greets as usual.
	Greet func(*orchv1.AgentMessage) *orchv1.ControllerMessage

	t        *testing.T
	term     atomic.Uint64
	listener atomic.Pointer[bufconn.Listener]
	server   *grpc.Server
	Sessions chan *Session
	Relays   chan *Relay
}

// Session is one agent's stream.
type Session struct {
	t     *testing.T
	c     *Controller
	Hello *orchv1.Hello
	heard chan *orchv1.AgentMessage // all but beats
	// Ended gives how the stream ended, once: io.EOF after a goodbye.
	Ended  chan error
	end    chan struct{}
	once   sync.Once
	sendMu sync.Mutex
	stream orchv1.Agents_SessionServer
}

// Relay is a stream that the agent opened.
type Relay struct {
	ID     string
	Stream orchv1.Agents_RelayServer
	done   chan struct{}
}

// Close ends the relay.
func (r *Relay) Close() { close(r.done) }

// New makes a leader of incarnation A, term 1. Serve starts it.
func New(t *testing.T) *Controller {
	c := &Controller{t: t, Incarnation: "A", Sessions: make(chan *Session, 64), Relays: make(chan *Relay, 64)}
	c.SetTerm(1)
	return c
}

// SetTerm is the leader's term from now on.
func (c *Controller) SetTerm(n uint64) { c.term.Store(n) }

// Serve answers until Stop; creds nil means no TLS.
func (c *Controller) Serve(creds credentials.TransportCredentials) {
	if creds == nil {
		creds = insecure.NewCredentials()
	}
	listener := bufconn.Listen(1 << 20)
	c.listener.Store(listener)
	c.server = grpc.NewServer(grpc.Creds(creds))
	orchv1.RegisterAgentsServer(c.server, c)
	server := c.server
	go func() {
		if err := server.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			c.t.Errorf("serve: %v", err)
		}
	}()
}

// Stop ends everything at once, as a kill would.
func (c *Controller) Stop() { c.server.Stop() }

// DialOptions lead an agent here, wherever it dials.
func (c *Controller) DialOptions() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return c.listener.Load().DialContext(ctx) })}
}

// Join implements orch.v1.Agents.
func (c *Controller) Join(_ context.Context, r *orchv1.JoinRequest) (*orchv1.JoinResponse, error) {
	if c.OnJoin == nil {
		return nil, errors.New("nobody joins here")
	}
	return c.OnJoin(r)
}

// Renew implements orch.v1.Agents.
func (c *Controller) Renew(ctx context.Context, r *orchv1.RenewRequest) (*orchv1.JoinResponse, error) {
	if c.OnRenew == nil {
		return nil, errors.New("nothing is renewed here")
	}
	return c.OnRenew(ctx, r)
}

// Session implements orch.v1.Agents.
func (c *Controller) Session(st orchv1.Agents_SessionServer) error {
	first, err := st.Recv()
	if err != nil {
		return err
	}
	s := &Session{t: c.t, c: c, Hello: first.GetHello(), heard: make(chan *orchv1.AgentMessage, 1024), Ended: make(chan error, 1), end: make(chan struct{}), stream: st}
	welcome := &orchv1.ControllerMessage{Message: &orchv1.ControllerMessage_Welcome{Welcome: &orchv1.Welcome{Leader: "c1", BeatInterval: durationpb.New(100 * time.Millisecond)}}}
	if c.Greet != nil {
		welcome = c.Greet(first)
	}
	s.Say(welcome)
	c.Sessions <- s
	go s.hear()
	select {
	case <-s.end:
	case <-st.Context().Done():
	}
	return nil
}

func (s *Session) hear() {
	for {
		m, err := s.stream.Recv()
		if err != nil {
			s.Ended <- err
			s.Close()
			return
		}
		if b := m.GetBeat(); b != nil {
			if !s.c.Mute {
				s.say(&orchv1.ControllerMessage{Message: &orchv1.ControllerMessage_BeatAnswer{BeatAnswer: b}})
			}
			continue
		}
		s.heard <- m
	}
}

// Close ends the session from this side.
func (s *Session) Close() { s.once.Do(func() { close(s.end) }) }

// Say sends a message with the leader's incarnation and term, unless it has
// its own.
func (s *Session) Say(m *orchv1.ControllerMessage) {
	if err := s.say(m); err != nil && !errors.Is(err, io.EOF) {
		s.t.Logf("say: %v", err)
	}
}

func (s *Session) say(m *orchv1.ControllerMessage) error {
	if m.Incarnation == "" && m.Term == 0 {
		m.Incarnation, m.Term = s.c.Incarnation, s.c.term.Load()
	}
	s.sendMu.Lock()
	defer s.sendMu.Unlock()
	return s.stream.Send(m)
}

// Hear gives the next message that is no beat and that want takes.
func (s *Session) Hear(want func(*orchv1.AgentMessage) bool) *orchv1.AgentMessage {
	s.t.Helper()
	timer := time.NewTimer(HearMax)
	defer timer.Stop()
	for {
		select {
		case m := <-s.heard:
			if want(m) {
				return m
			}
		case <-timer.C:
			s.t.Fatalf("the agent did not say what was waited for")
		}
	}
}

// Heard gives all that was said and not asked for yet, but beats.
func (s *Session) Heard() []*orchv1.AgentMessage {
	var out []*orchv1.AgentMessage
	for {
		select {
		case m := <-s.heard:
			out = append(out, m)
		default:
			return out
		}
	}
}

// NextSession waits for an agent's stream.
func (c *Controller) NextSession() *Session {
	c.t.Helper()
	select {
	case s := <-c.Sessions:
		return s
	case <-time.After(HearMax):
		c.t.Fatal("no agent opened a session")
		return nil
	}
}

// Relay implements orch.v1.Agents.
func (c *Controller) Relay(st orchv1.Agents_RelayServer) error {
	f, err := st.Recv()
	if err != nil {
		return err
	}
	r := &Relay{ID: f.GetOpenId(), Stream: st, done: make(chan struct{})}
	c.Relays <- r
	select {
	case <-r.done:
	case <-st.Context().Done():
	}
	return nil
}
