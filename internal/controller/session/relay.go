package session

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// relayTimeout is how long an agent may take to open a relay that it was asked
// for, and to say which one it is.
const relayTimeout = 5 * time.Second

// ErrAway: the node has no session, so nothing can be had from it.
var ErrAway = errors.New("the node is away")

// relays are those that agents were asked for and have not opened yet.
type relays struct {
	mu      sync.Mutex
	awaited map[string]*Relay // by id
}

func newRelays() relays { return relays{awaited: map[string]*Relay{}} }

// Relay is a stream that an agent opened when asked to. One goroutine may send
// while another receives. It ends with Close or with the context that it was
// opened under.
type Relay struct {
	node   string
	opened chan struct{} // closed when stream is set
	stream orchv1.Agents_RelayServer
	once   sync.Once
	done   chan struct{}
}

// Send sends a frame to the agent; it waits while the agent does not read.
func (r *Relay) Send(f *orchv1.Frame) error { return r.stream.Send(f) }

// Recv gives the next frame of the agent; io.EOF after the last.
func (r *Relay) Recv() (*orchv1.Frame, error) { return r.stream.Recv() }

// Close ends the relay; Send and Recv return.
func (r *Relay) Close() { r.once.Do(func() { close(r.done) }) }

// Open asks the node's agent for a relay and waits until it is there. The
// relay's id is filled in. The error wraps ErrAway where the node has no session.
func (s *Server) Open(ctx context.Context, node string, what *orchv1.OpenRelay) (*Relay, error) {
	x := s.find(node, 0)
	if x == nil {
		return nil, fmt.Errorf("reach node %s: %w", node, ErrAway)
	}
	r := &Relay{node: node, opened: make(chan struct{}), done: make(chan struct{})}
	id := rand.Text()
	s.relays.put(id, r)
	defer s.relays.drop(id)

	open := &orchv1.OpenRelay{Id: id, Request: what.GetRequest()}
	x.enqueue(func() (*orchv1.ControllerMessage, error) {
		return &orchv1.ControllerMessage{Message: &orchv1.ControllerMessage_OpenRelay{OpenRelay: open}}, nil
	})
	timer := time.NewTimer(relayTimeout)
	defer timer.Stop()
	var err error
	select {
	case <-r.opened:
		context.AfterFunc(ctx, r.Close)
		return r, nil
	case <-x.ctx.Done():
		err = fmt.Errorf("reach node %s: %w: its session ended", node, ErrAway)
	case <-timer.C:
		err = fmt.Errorf("reach node %s: %w: its agent did not answer within %s", node, ErrAway, relayTimeout)
	case <-ctx.Done():
		err = ctx.Err()
	}
	r.Close() // an agent that comes too late is turned away
	return nil, err
}

func (rs *relays) put(id string, r *Relay) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.awaited[id] = r
}

func (rs *relays) drop(id string) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	delete(rs.awaited, id)
}

// claim gives the awaited relay to the node that was asked for it, once.
func (rs *relays) claim(id, node string) *Relay {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r := rs.awaited[id]
	if r == nil || r.node != node {
		return nil
	}
	delete(rs.awaited, id)
	return r
}

// Relay implements orch.v1.Agents.
func (s *Server) Relay(st orchv1.Agents_RelayServer) error {
	caller, err := nodeOf(st.Context())
	if err != nil {
		return err
	}
	first := make(chan string, 1)
	failed := make(chan error, 1)
	s.running.Go(func() {
		f, err := st.Recv()
		if err != nil {
			failed <- err
			return
		}
		first <- f.GetOpenId()
	})
	timer := time.NewTimer(relayTimeout)
	defer timer.Stop()
	var r *Relay
	select {
	case id := <-first:
		if r = s.relays.claim(id, caller.Name); r == nil {
			return status.Error(codes.NotFound, "nobody waits for this relay")
		}
	case err := <-failed:
		if errors.Is(err, io.EOF) {
			return status.Error(codes.InvalidArgument, "the first frame of a relay is its id")
		}
		return err
	case <-timer.C:
		return status.Error(codes.DeadlineExceeded, fmt.Sprintf("no relay id within %s", relayTimeout))
	}
	r.stream = st
	close(r.opened)
	select {
	case <-r.done:
	case <-st.Context().Done():
	}
	return nil
}
