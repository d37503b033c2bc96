package bubble

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// lateMax is how late a message may be that a session still takes: a session
// whose link is silent ends after little more than a second.
const lateMax = 5 * time.Second

// routes is whom a node sends traffic to, as follows from what passed over its
// sessions: what its agent was told and what it acknowledged.
type routes struct {
	n *node

	mu    sync.Mutex
	term  uint64 // the highest that its agents ever sent
	live  *stream
	now   map[api.ReplicaKey]wire.Endpoint // outlives streams and lives: the agent keeps what it has until a complete set comes
	since time.Time                        // when the live stream had its complete set
}

// stream is one session as its agent sees it.
type stream struct {
	grpc.ClientStream
	r        *routes
	l        *agentLife
	term     uint64
	version  uint64 // of the last endpoint set
	complete bool
	acked    uint64
	stale    bool // it brought a term that is over
	// withdrawn are the endpoints that it took away, and with which version.
	withdrawn map[api.ReplicaKey]uint64
}

func newRoutes(n *node) *routes { return &routes{n: n, now: map[api.ReplicaKey]wire.Endpoint{}} }

// intercept looks at the sessions of one life.
func (r *routes) intercept(l *agentLife) grpc.StreamClientInterceptor {
	r.mu.Lock()
	clear(r.now) // an agent that starts knows what it led traffic to last
	for _, e := range r.n.traffic.Endpoints() {
		r.now[e.Replica] = e
	}
	r.live = nil
	r.mu.Unlock()
	return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		s, err := streamer(ctx, desc, cc, method, opts...)
		if err != nil || !strings.HasSuffix(method, "/Session") {
			return s, err
		}
		return &stream{ClientStream: s, r: r, l: l, withdrawn: map[api.ReplicaKey]uint64{}}, nil
	}
}

// SendMsg looks at what the agent says.
func (s *stream) SendMsg(m any) error {
	if msg, ok := m.(*orchv1.AgentMessage); ok {
		s.said(msg)
	}
	return s.ClientStream.SendMsg(m)
}

func (s *stream) said(m *orchv1.AgentMessage) {
	r := s.r
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.GetTerm() < r.term {
		r.n.w.violate("I9", "the agent of %s says that the highest term it has seen is %d; it was %d", r.n.name, m.GetTerm(), r.term)
	}
	r.term = m.GetTerm()
	ack := m.GetAck()
	if ack == nil {
		return
	}
	switch v := ack.GetEndpointVersion(); {
	case s.stale:
		r.n.w.violate("I9", "the agent of %s acknowledges sets of term %d, which is over", r.n.name, s.term)
	case v > s.version:
		r.n.w.violate("I8", "the agent of %s acknowledges endpoint version %d, it was told %d", r.n.name, v, s.version)
	case v < s.acked:
		r.n.w.violate("I8", "the agent of %s acknowledges endpoint version %d after %d", r.n.name, v, s.acked)
	default:
		s.acked = v
		for _, e := range r.n.traffic.Endpoints() {
			if at := s.withdrawn[e.Replica]; at > 0 && at <= v {
				r.n.w.violate("I8", "the agent of %s acknowledges version %d and sends traffic to %s, which version %d withdrew", r.n.name, v, e.Replica, at)
			}
		}
	}
}

// RecvMsg looks at what the agent is told.
func (s *stream) RecvMsg(m any) error {
	if err := s.ClientStream.RecvMsg(m); err != nil {
		s.r.mu.Lock()
		if s.r.live == s {
			s.r.live = nil
		}
		s.r.mu.Unlock()
		return err
	}
	if msg, ok := m.(*orchv1.ControllerMessage); ok {
		s.told(msg)
	}
	return nil
}

func (s *stream) told(m *orchv1.ControllerMessage) {
	r := s.r
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.term = m.GetTerm(); s.term < r.term {
		s.stale = true
	}
	pb := m.GetEndpoints()
	if pb == nil || s.stale {
		return
	}
	set := wire.EndpointSetFromPB(pb)
	if set.Version <= s.version && s.complete {
		r.n.w.violate("I8", "%s is told endpoint version %d after %d", r.n.name, set.Version, s.version)
	}
	if s.version = set.Version; !set.Complete && !s.complete {
		return
	}
	before := maps.Clone(r.now)
	defer func() {
		for k := range before {
			if _, ok := r.now[k]; !ok {
				s.withdrawn[k] = set.Version
			}
		}
		for k := range r.now {
			delete(s.withdrawn, k)
		}
	}()
	if set.Complete {
		s.complete, r.live, r.since = true, s, time.Now()
		r.now = map[api.ReplicaKey]wire.Endpoint{}
		for _, k := range set.Keep {
			if e, ok := before[k]; ok {
				r.now[k] = e
			}
		}
	}
	for _, e := range set.Put {
		r.n.w.routed(r.n, e)
		r.now[e.Replica] = e
	}
	for _, k := range set.Drop {
		delete(r.now, k)
	}
}

// routed: I8. Nobody is told to send traffic to what is being removed.
func (w *world) routed(n *node, e wire.Endpoint) {
	w.etcd.look(func(g *ledger) {
		if at, gone := g.goneAt[e.Replica]; gone && time.Since(at) > lateMax {
			w.violate("I8", "%s is told to send traffic to %s, whose removal is committed since %s", n.name, e.Replica, time.Since(at))
		}
		if _, was := g.boots[e.Replica]; !was {
			w.violate("I8", "%s is told to send traffic to %s, which was never placed", n.name, e.Replica)
		}
	})
}

// current gives the endpoints of a session that has told all, and since when it
// has; nil without one.
func (r *routes) current() (_ []wire.Endpoint, since time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.live == nil {
		return nil, time.Time{}
	}
	out := []wire.Endpoint{}
	for _, e := range r.now {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b wire.Endpoint) int { return compareReplicas(a.Replica, b.Replica) })
	return out, r.since
}
