package session

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/counts"
	"github.com/orchctl/orch/internal/controller/identity"
	"github.com/orchctl/orch/internal/tracing"
	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

const (
	// queueMax is how many messages may wait for an agent: what a burst of
	// placements makes while the agent is busy for a second.
	queueMax = 1024
	// answerEvery: every so many beats are answered. An agent takes the link for
	// dead after a second without any, so three are seldom enough to save the
	// leader most of the cost of an idle fleet, and often enough to lose one.
	answerEvery = 3
	// helloTimeout is how long a new session may stay silent.
	helloTimeout = 5 * time.Second
	// messagesPerSecond and messagesBurst bound what one agent can make the
	// leader do: ten beats a second and batched reports need a tenth of it.
	messagesPerSecond, messagesBurst = 500, 2000
	// joinsPerSecond bounds what strangers can make the CA do.
	joinsPerSecond, joinsBurst = 200, 1000
)

// Term is one leader's time, as sessions need it.
type Term interface {
	Incarnation() string
	Number() uint64
	// Tell hands an event to the leader's core; it waits for room there. An
	// error means that the term is over, or ctx.
	Tell(ctx context.Context, ev core.Event) error
	// Over is closed when the term ends.
	Over() <-chan struct{}
}

// Leadership is whether this controller leads.
type Leadership interface {
	// Term gives the term that this controller leads, or an error if it does not.
	Term() (Term, error)
	// Doubt is called when somebody has seen a higher term; it looks into the
	// store whether ours is over, and if so ends it.
	Doubt(ctx context.Context, t Term, seen uint64)
}

// Identities says who may be a node.
type Identities interface {
	Join(ctx context.Context, token, name string, csr []byte) ([]byte, error)
	Renew(ctx context.Context, csr []byte) ([]byte, error)
	Bound(node string, cert *x509.Certificate) error
}

// Config is what a Server needs. All but Opened is required, and OpenConfig where there
// are no Configs.
type Config struct {
	Leadership Leadership
	Identities Identities
	// Bundle gives all CAs in PEM, which go with every certificate.
	Bundle func() []byte
	// Welcome gives what a new session is told, but for the beat interval.
	Welcome func() *orchv1.Welcome
	// BeatInterval for a fleet as large as it is now.
	BeatInterval func() time.Duration
	// Opened is run beside every new session, under a context that ends with it.
	Opened func(ctx context.Context, node string, cert *x509.Certificate)
	// OpenConfig gives the values of a Config or Secret from its payload. Its error must
	// not tell of them.
	OpenConfig func(wire.ConfigVersion) (map[string][]byte, error)
	// Tracer may be nil.
	Tracer *tracing.Tracer
	// Counts may be nil: nothing is counted.
	Counts *counts.Set
	Log    *slog.Logger
}

// Server serves orch.v1.Agents. Make it with New.
type Server struct {
	orchv1.UnimplementedAgentsServer
	cfg     Config
	joins   *rate.Limiter
	opens   opens
	running sync.WaitGroup

	mu       sync.Mutex
	ids      uint64              // of sessions: each is higher than the one before
	sessions map[string]*session // by node
	relays   relays

	endpoints shared
}

// New makes a server without sessions.
func New(cfg Config) *Server {
	return &Server{cfg: cfg, joins: rate.NewLimiter(joinsPerSecond, joinsBurst), sessions: map[string]*session{}, relays: newRelays()}
}

// Wait returns when every goroutine of every session has ended; to be called
// once the gRPC server has stopped.
func (s *Server) Wait() { s.running.Wait() }

// Join implements orch.v1.Agents.
func (s *Server) Join(ctx context.Context, r *orchv1.JoinRequest) (*orchv1.JoinResponse, error) {
	if !s.joins.Allow() {
		return nil, status.Error(codes.ResourceExhausted, "too many joins at once; try again in a second")
	}
	cert, err := s.cfg.Identities.Join(ctx, r.GetToken(), r.GetName(), r.GetCsr())
	if err != nil {
		s.cfg.Log.Info("join refused", "name", clip(r.GetName()), "why", err)
		return nil, identityError(err)
	}
	return &orchv1.JoinResponse{Certificate: cert, Ca: s.cfg.Bundle()}, nil
}

// Renew implements orch.v1.Agents.
func (s *Server) Renew(ctx context.Context, r *orchv1.RenewRequest) (*orchv1.JoinResponse, error) {
	if !s.joins.Allow() {
		return nil, status.Error(codes.ResourceExhausted, "too many renewals at once; try again in a second")
	}
	cert, err := s.cfg.Identities.Renew(ctx, r.GetCsr())
	if err != nil {
		return nil, identityError(err)
	}
	return &orchv1.JoinResponse{Certificate: cert, Ca: s.cfg.Bundle()}, nil
}

// clipBytes is enough of a stranger's text for a log line.
const clipBytes = 80

func clip(s string) string { return s[:min(len(s), clipBytes)] }

// identityError gives an error its status code.
func identityError(err error) error {
	code := codes.Internal
	switch {
	case errors.Is(err, identity.ErrNotLeading):
		code = codes.Unavailable
	case errors.Is(err, identity.ErrInvalid):
		code = codes.InvalidArgument
	case errors.Is(err, identity.ErrNameTaken):
		code = codes.AlreadyExists
	case errors.Is(err, identity.ErrRefused):
		code = codes.PermissionDenied
	default:
		if st, ok := status.FromError(err); ok {
			return st.Err()
		}
	}
	return status.Error(code, err.Error())
}

// Assign, Endpoints and Ask queue what the core wants said; they never wait.
// What is for a session that is not there any more is dropped: the next one
// begins with a complete set.
func (s *Server) Assign(e core.SendAssignments) {
	queued := time.Now()
	s.enqueue(e.Node, e.Session, func() (*orchv1.ControllerMessage, error) {
		pb, err := s.traced(e, queued).ToPB()
		if err != nil {
			return nil, err
		}
		return &orchv1.ControllerMessage{Message: &orchv1.ControllerMessage_Assignments{Assignments: pb}}, nil
	})
}

// Endpoints: see Assign. The core gives one set to all sessions that are to have it.
func (s *Server) Endpoints(e core.SendEndpoints) {
	ready := s.endpoints.of(e.Set)
	s.enqueue(e.Node, e.Session, func() (*orchv1.ControllerMessage, error) {
		return &orchv1.ControllerMessage{Message: &orchv1.ControllerMessage_Endpoints{Endpoints: ready()}}, nil
	})
}

// Network: see Assign. The core's list of peers has all nodes; the session's own is
// left out here, so that one list does for all.
func (s *Server) Network(e core.SendNetwork) {
	s.enqueue(e.Node, e.Session, func() (*orchv1.ControllerMessage, error) {
		pb := e.Set.ToPB()
		pb.Put = slices.DeleteFunc(pb.Put, func(p *orchv1.Peer) bool { return p.GetNode() == e.Node })
		return &orchv1.ControllerMessage{Message: &orchv1.ControllerMessage_Network{Network: pb}}, nil
	})
}

// Grant: see Assign.
func (s *Server) Grant(e core.SendGrant) {
	s.enqueue(e.Node, e.Session, func() (*orchv1.ControllerMessage, error) {
		return &orchv1.ControllerMessage{Message: &orchv1.ControllerMessage_Grant{Grant: e.Grant.ToPB()}}, nil
	})
}

// Ask: see Assign.
func (s *Server) Ask(e core.AskWitness) {
	s.enqueue(e.Observer, e.Session, func() (*orchv1.ControllerMessage, error) {
		return &orchv1.ControllerMessage{Message: &orchv1.ControllerMessage_AskWitness{AskWitness: &orchv1.AskWitness{
			AskId: e.Ask.ID, Target: e.Ask.Target, Address: e.Ask.Address, Ports: e.Ask.Ports}}}, nil
	})
}

// Welcome tells every session the beat interval again, after the fleet grew or
// shrank past a bound.
func (s *Server) Welcome() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.sessions {
		x.enqueue(s.welcome)
	}
}

func (s *Server) welcome() (*orchv1.ControllerMessage, error) {
	w := s.cfg.Welcome()
	w.BeatInterval = durationpb.New(s.cfg.BeatInterval())
	return &orchv1.ControllerMessage{Message: &orchv1.ControllerMessage_Welcome{Welcome: w}}, nil
}

// Trust tells every session what the cluster's members know each other by now.
func (s *Server) Trust(t *orchv1.Trust) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.sessions {
		x.enqueue(func() (*orchv1.ControllerMessage, error) {
			return &orchv1.ControllerMessage{Message: &orchv1.ControllerMessage_Trust{Trust: t}}, nil
		})
	}
}

// Close ends a session.
func (s *Server) Close(e core.CloseSession) {
	if x := s.find(e.Node, e.Session); x != nil {
		x.end(status.Error(codes.FailedPrecondition, e.Why))
	}
}

// Count is how many sessions there are.
func (s *Server) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}

// Has tells whether the node has a session.
func (s *Server) Has(node string) bool { return s.find(node, 0) != nil }

// find gives the node's session; id 0 is whichever there is.
func (s *Server) find(node string, id uint64) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.sessions[node]; x != nil && (id == 0 || x.id == id) {
		return x
	}
	return nil
}

func (s *Server) enqueue(node string, id uint64, message message) {
	if x := s.find(node, id); x != nil {
		x.enqueue(message)
	}
}

// Nodes are those that have a session, with the certificate that they came with.
func (s *Server) Nodes() map[string]*x509.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]*x509.Certificate, len(s.sessions))
	for name, x := range s.sessions {
		out[name] = x.caller.Certificate
	}
	return out
}

// register makes x its node's session; one before it ends, and has the lower id,
// which tells the core when it hears of them the other way round. False: x itself
// has ended meanwhile.
func (s *Server) register(x *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x.ctx.Err() != nil {
		return false
	}
	if old := s.sessions[x.node]; old != nil {
		old.end(status.Error(codes.Aborted, fmt.Sprintf("node %s opened another session", x.node)))
	}
	s.ids++
	x.id, s.sessions[x.node] = s.ids, x
	return true
}

func (s *Server) unregister(x *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions[x.node] == x {
		delete(s.sessions, x.node)
	}
}
