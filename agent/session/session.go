package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// The limits of a session.
const (
	// redialMin and redialMax bound the wait between two tries. A leader that
	// took over is to be found at once; a fleet of agents must not hammer one
	// that starts.
	redialMin = 50 * time.Millisecond
	redialMax = time.Second
	// dialMax is how long one controller is tried before the next.
	dialMax = time.Second
	// welcomeMax is how long the leader may take to answer a Hello: it commits
	// the node's record first.
	welcomeMax = 5 * time.Second
	// linkMax is how long nothing may be heard from the leader, which answers
	// every beat, before the link counts as dead.
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
	// messageMax is the largest message in bytes: a complete set of a node's
	// assignments, whose templates have up to 256 KiB each.
	messageMax = 64 << 20
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
	Leader      string
	GossipKey   []byte
	GossipPeers []string
}

// Config says whom to speak with and as whom.
type Config struct {
	// Controllers are tried in turn, as "host:port".
	Controllers []string
	// Credentials of a connection; New ones are asked for at every dial.
	Credentials func() (credentials.TransportCredentials, error)
	// Hello opens each session.
	Hello func() wire.Hello
	// SelfCheckAge is the time since the last good self-check.
	SelfCheckAge func() time.Duration
	Terms        *Terms
	Handler      Handler
	Logger       *slog.Logger
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
		return fmt.Errorf("%w (the controller does not accept this node's certificate: was the node removed, or does its data folder belong to another cluster? An empty data folder and a fresh token join anew)", err)
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
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(messageMax), grpc.MaxCallSendMsgSize(messageMax)),
		grpc.WithDisableServiceConfig(),
		grpc.WithInitialWindowSize(windowSize), grpc.WithInitialConnWindowSize(windowSize),
	}, more...)
	return grpc.NewClient("passthrough:///"+addr, opts...)
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
	return Welcome{Leader: w.GetLeader(), GossipKey: w.GetGossipKey(), GossipPeers: w.GetGossipPeers()}
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
			beat = &orchv1.Beat{Sequence: beat.Sequence + 1, SelfCheckAge: durationpb.New(o.s.cfg.SelfCheckAge())}
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
	case *orchv1.ControllerMessage_Assignments:
		set, err := wire.AssignmentSetFromPB(x.Assignments)
		if err != nil {
			return err
		}
		h.Assignments(m.GetIncarnation(), set)
	case *orchv1.ControllerMessage_Endpoints:
		h.Endpoints(wire.EndpointSetFromPB(x.Endpoints))
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

// relay opens the stream that was asked for and has it served.
func (o *oneSession) relay(open *orchv1.OpenRelay) {
	ctx, cancel := context.WithCancel(o.ctx)
	defer cancel()
	stream, err := o.client.Relay(ctx)
	if err == nil {
		err = stream.Send(&orchv1.Frame{Frame: &orchv1.Frame_OpenId{OpenId: open.GetId()}})
	}
	if err != nil {
		o.s.cfg.Logger.Warn("cannot open a relay", "relay", open.GetId(), "err", err)
		return
	}
	r := &relayed{stream: stream, frames: make(chan *orchv1.Frame), over: make(chan struct{})}
	o.work.Go(func() {
		defer cancel() // whoever asked is gone
		r.pump()
	})
	o.s.cfg.Handler.Relay(ctx, open, r)
	if stream.CloseSend() != nil {
		return
	}
	// The last frames are on their way until the other side ends the stream.
	farewell := time.NewTimer(farewellMax)
	defer farewell.Stop()
	for {
		select {
		case <-r.frames:
		case <-r.over:
			return
		case <-farewell.C:
			return
		}
	}
}

// relayed is a stream with one reader, which notices its end even while nobody
// asks for frames.
type relayed struct {
	stream grpc.BidiStreamingClient[orchv1.Frame, orchv1.Frame]
	frames chan *orchv1.Frame
	over   chan struct{}
	err    error // set before over is closed
}

func (r *relayed) Send(f *orchv1.Frame) error { return r.stream.Send(f) }

func (r *relayed) Recv() (*orchv1.Frame, error) {
	select {
	case f := <-r.frames:
		return f, nil
	case <-r.over:
		return nil, r.err
	}
}

func (r *relayed) pump() {
	defer close(r.over)
	for {
		f, err := r.stream.Recv()
		if err != nil {
			r.err = err
			return
		}
		select {
		case r.frames <- f:
		case <-r.stream.Context().Done():
			r.err = r.stream.Context().Err()
			return
		}
	}
}

// watchdog calls bite when it was not fed for so long, and once again as long
// as linkAgain after that.
type watchdog struct {
	mu      sync.Mutex
	timer   *time.Timer
	warned  bool
	stopped bool
}

func newWatchdog(silence time.Duration, bite func()) *watchdog {
	w := &watchdog{}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(silence, func() {
		w.mu.Lock()
		again := !w.warned && !w.stopped
		if again {
			w.warned = true
			w.timer.Reset(linkAgain)
		}
		quiet := w.stopped
		w.mu.Unlock()
		if !again && !quiet {
			bite()
		}
	})
	return w
}

// fed allows the next silence.
func (w *watchdog) fed(silence time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.warned = false
	w.timer.Reset(silence)
}

func (w *watchdog) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	w.timer.Stop()
}
