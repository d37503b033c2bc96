package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// The limits of a session.
const (
	// redialMin and redialMax bound the wait between two tries. A leader that
	// took over is to be found at once; a fleet of agents must not hammer one
	// that starts.
	redialMin = 50 * time.Millisecond
	redialMax = 400 * time.Millisecond
	// connectFirst is how long the first try to connect waits for an answer; the
	// next ones, within dialMax, wait twice as long each. The kernel would ask
	// again only after a second, and a node whose link is back would wait for that.
	connectFirst = 200 * time.Millisecond
	// strangerWait is the wait after the leader said that another machine goes by this
	// node's name: that takes a person to mend.
	strangerWait = 10 * time.Second
	// dialMax is how long one controller is tried before the next.
	dialMax = time.Second
	// welcomeMax is how long the leader may take to answer a Hello: it commits
	// the node's record first.
	welcomeMax = 5 * time.Second
	// linkMax is how long nothing may be heard from the leader, which answers
	// every third beat, before the link counts as dead.
	linkMax = time.Second
	// linkBeats: where beats are rare, so many must go unanswered.
	linkBeats = 5
	// linkAgain is a second chance after linkMax: this process may have been
	// kept from running, and what came meanwhile is still to be read.
	linkAgain = 200 * time.Millisecond
	// defaultBeat is the interval where the leader names none.
	defaultBeat = 100 * time.Millisecond
	// farewellMax is how long a goodbye may take.
	farewellMax = 500 * time.Millisecond
	// windowSize is what may be under way unread, in bytes: enough for images
	// over a LAN. As it is given, gRPC does not measure the link for a better
	// one, which costs an idle session a ping for every beat.
	windowSize = 4 << 20
)

// Handler takes what the leader says. Its methods are called one at a time and
// must not wait for anything slow.
type Handler interface {
	// Connected: session gen, which rises, is up. Send takes the same number.
	Connected(gen uint64, w Welcome)
	// Welcomed: what a welcome brings has changed.
	Welcomed(w Welcome)
	// Disconnected: it ended.
	Disconnected(gen uint64)
	Assignments(incarnation string, set wire.AssignmentSet)
	Endpoints(set wire.EndpointSet)
	// Network tells where the node stands; it comes before the first assignments.
	Network(set wire.NetworkSet)
	// Granted answers a renewal.
	Granted(g wire.Grant)
	// Witness looks at a target; it is called by a goroutine of its own.
	Witness(ctx context.Context, ask wire.Ask) *orchv1.WitnessAnswer
	// Relay serves what the leader asked for; it is called by a goroutine of
	// its own and ends the relay by returning.
	Relay(ctx context.Context, open *orchv1.OpenRelay, r Relay)
}

// Relay is a stream of frames to and from whoever asked. Send may be called by
// one goroutine at a time, and so may Recv.
type Relay interface {
	Send(*orchv1.Frame) error
	Recv() (*orchv1.Frame, error)
}

// Welcome is the leader's first word.
type Welcome struct {
	Leader string
	// Beat is the time between two beats; longer where the fleet is large.
	Beat time.Duration
	// GossipKeys are all that are understood, the one to encrypt with first; nil: there is
	// no gossip, or Trust brings them.
	GossipKeys  [][]byte
	GossipPeers []string
}

// Trust is what the cluster's members know each other by.
type Trust struct {
	// CA has all CAs in PEM, the one that signs first.
	CA []byte
	// GossipKeys: see Welcome.
	GossipKeys [][]byte
}

// Config says whom to speak with and as whom.
type Config struct {
	// Controllers are tried in turn, as "host:port".
	Controllers []string
	// Credentials of a connection; New ones are asked for at every dial.
	Credentials func() (credentials.TransportCredentials, error)
	// Hello opens each session.
	Hello func() wire.Hello
	// SelfCheck is what the node knows of its own health. It must not wait.
	SelfCheck func() wire.SelfCheck
	Terms     *Terms
	Handler   Handler
	// Trusted takes what the leader says of CAs and keys, with each welcome and whenever
	// it changes. It must not wait for anything slow; nil: nobody wants to know.
	Trusted func(Trust)
	// Heard may be nil; it is called with each message of the leader.
	Heard  func()
	Logger *slog.Logger
	// DialOptions are for tests.
	DialOptions []grpc.DialOption
}

// Session keeps a stream to the leader up. Its methods may be called by any
// goroutine.
type Session struct {
	cfg Config

	mu     sync.Mutex
	gen    uint64
	outbox []*orchv1.AgentMessage
	notify chan struct{} // holds one word: there is something in the outbox
	end    context.CancelCauseFunc
}

// New makes a session; nothing is dialled before Run.
func New(cfg Config) *Session {
	return &Session{cfg: cfg, notify: make(chan struct{}, 1)}
}

// SendReport, SendAck: what is said for a session that has ended is dropped.
func (s *Session) SendReport(gen uint64, r wire.StatusReport) {
	s.send(gen, &orchv1.AgentMessage{Message: &orchv1.AgentMessage_Status{Status: r.ToPB()}})
}

// SendAck: see SendReport.
func (s *Session) SendAck(gen, assignmentSequence, endpointVersion uint64) {
	s.send(gen, &orchv1.AgentMessage{Message: &orchv1.AgentMessage_Ack{Ack: &orchv1.Ack{AssignmentSequence: assignmentSequence, EndpointVersion: endpointVersion}}})
}

// SendRenewal: see SendReport.
func (s *Session) SendRenewal(gen uint64, r wire.Renewal) {
	s.send(gen, &orchv1.AgentMessage{Message: &orchv1.AgentMessage_Renewal{Renewal: r.ToPB()}})
}

func (s *Session) send(gen uint64, m *orchv1.AgentMessage) {
	s.mu.Lock()
	if gen == s.gen {
		s.outbox = append(s.outbox, m)
	}
	s.mu.Unlock()
	select {
	case s.notify <- struct{}{}:
	default:
	}
}

// Resync ends the session, so that the next one begins with a complete set.
func (s *Session) Resync(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end != nil {
		s.end(errors.New("a complete set is needed: " + why))
	}
}

// Run dials and speaks until ctx ends; then it says goodbye. It returns nil.
func (s *Session) Run(ctx context.Context) error {
	wait := redialMin
	failures := 0
	for i := 0; ctx.Err() == nil; i++ {
		addr := s.cfg.Controllers[i%len(s.cfg.Controllers)]
		welcomed, err := s.once(ctx, addr)
		if ctx.Err() != nil {
			break
		}
		if welcomed {
			wait, failures = redialMin, 0
		}
		failures++
		// The first failure is news, and one in a while after it.
		level := slog.LevelDebug
		if failures == 1 || failures%60 == 0 {
			level = slog.LevelWarn
		}
		s.cfg.Logger.Log(ctx, level, "no session with the leader: containers run on; dialling again", "controller", addr, "err", explain(err))
		if status.Code(err) == codes.AlreadyExists {
			wait = strangerWait
		}
		jittered := wait/2 + rand.N(wait)
		select {
		case <-ctx.Done():
		case <-time.After(jittered):
		}
		wait = min(wait*2, redialMax)
	}
	return nil
}

// explain adds the remedy where there is one.
func explain(err error) error {
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied:
		return fmt.Errorf("%w (the controller does not accept this node's certificate: was the node removed, or does its data folder belong to another cluster? An empty pki folder and a fresh token join anew)", err)
	case codes.Unimplemented:
		return fmt.Errorf("%w (is that address an orch controller's?)", err)
	}
	return err
}

// dial makes a connection that gives up soon.
func dial(addr string, creds credentials.TransportCredentials, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	opts := append([]grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: redialMin, Multiplier: 2, MaxDelay: redialMax}, MinConnectTimeout: dialMax}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(wire.MessageMax), grpc.MaxCallSendMsgSize(wire.MessageMax)),
		grpc.WithDisableServiceConfig(),
		grpc.WithContextDialer(connect),
		grpc.WithInitialWindowSize(windowSize), grpc.WithInitialConnWindowSize(windowSize),
	}, more...)
	return grpc.NewClient("passthrough:///"+addr, opts...)
}

// connect makes a TCP connection, asking again where the kernel would still wait.
func connect(ctx context.Context, addr string) (net.Conn, error) {
	for wait := connectFirst; ; wait *= 2 {
		try, cancel := context.WithTimeout(ctx, wait)
		conn, err := new(net.Dialer).DialContext(try, "tcp", addr)
		timeout := try.Err() != nil
		cancel()
		if err == nil || !timeout || ctx.Err() != nil {
			return conn, err
		}
	}
}

// once is one session, from dial to end.
func (s *Session) once(ctx context.Context, addr string) (welcomed bool, err error) {
	creds, err := s.cfg.Credentials()
	if err != nil {
		return false, err
	}
	conn, err := dial(addr, creds, s.cfg.DialOptions...)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	// The stream outlives ctx by a goodbye, so it has a context of its own.
	sctx, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(farewellMax, func() { end(ctx.Err()) }) })
	defer stop()

	one := &oneSession{s: s, client: orchv1.NewAgentsClient(conn), ctx: sctx, end: end}
	defer one.work.Wait()
	defer end(nil)
	welcomed, err = one.run(ctx)
	if cause := context.Cause(sctx); cause != nil && ctx.Err() == nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return welcomed, err
}
