package session

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/identity"
	"github.com/orchctl/orch/internal/pki"
	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// lead is a leadership of one term that writes down what it is told.
type lead struct {
	mu    sync.Mutex
	told  []core.Event
	over  chan struct{}
	doubt uint64
}

func (l *lead) Incarnation() string   { return "inc" }
func (l *lead) Number() uint64        { return 3 }
func (l *lead) Over() <-chan struct{} { return l.over }
func (l *lead) Term() (Term, error)   { return l, nil }
func (l *lead) Join(context.Context, string, string, []byte) ([]byte, error) {
	return nil, identity.ErrRefused
}
func (l *lead) Renew(context.Context, []byte) ([]byte, error) { return nil, identity.ErrRefused }
func (l *lead) Bound(string, *x509.Certificate) error         { return nil }
func (l *lead) Doubt(_ context.Context, _ Term, seen uint64)  { l.doubt = seen }
func (l *lead) Tell(_ context.Context, ev core.Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told = append(l.told, ev)
	return nil
}

func (l *lead) events() []core.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.told
}

// line is an agent's end of a stream. Without a reader Send waits for ever.
type line struct {
	grpc.ServerStream
	ctx  context.Context
	up   chan *orchv1.AgentMessage // closed: the agent ended its side
	down chan *orchv1.ControllerMessage
}

func (l *line) Context() context.Context { return l.ctx }

func (l *line) Recv() (*orchv1.AgentMessage, error) {
	select {
	case m, ok := <-l.up:
		if !ok {
			return nil, io.EOF
		}
		return m, nil
	case <-l.ctx.Done():
		return nil, l.ctx.Err()
	}
}

func (l *line) Send(m *orchv1.ControllerMessage) error {
	select {
	case l.down <- m:
		return nil
	case <-l.ctx.Done():
		return l.ctx.Err()
	}
}

var hello = &orchv1.AgentMessage{Message: &orchv1.AgentMessage_Hello{Hello: &orchv1.Hello{BootId: "b", Address: "10.0.0.1"}}}

func certificate(t *testing.T) *x509.Certificate {
	t.Helper()
	id := pki.Identity{Kind: pki.Node, Name: "n1"}
	ca, err := pki.NewCA("orch", time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, _ := pki.NewKey(rand.Reader)
	csr, err := pki.CSR(key, id)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := ca.Sign(csr, id, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := pki.ParseCert(pem)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// bench is a server with one agent dialled in.
type bench struct {
	*Server
	lead  *lead
	line  *line
	ended chan error
	hang  context.CancelFunc
}

func (b *bench) open(cert *x509.Certificate) {
	ctx := peer.NewContext(context.Background(), &peer.Peer{AuthInfo: credentials.TLSInfo{State: tls.ConnectionState{
		PeerCertificates: []*x509.Certificate{cert}, VerifiedChains: [][]*x509.Certificate{{cert}}}}})
	ctx, b.hang = context.WithCancel(ctx)
	b.line = &line{ctx: ctx, up: make(chan *orchv1.AgentMessage), down: make(chan *orchv1.ControllerMessage)}
	b.ended = make(chan error, 1)
	st, ended, hang := b.line, b.ended, b.hang
	go func() {
		err := b.Session(st)
		hang() // as gRPC does when a handler has returned
		ended <- err
	}()
}

func newBench() *bench {
	l := &lead{over: make(chan struct{})}
	return &bench{lead: l, Server: New(Config{Leadership: l, Identities: l, Welcome: func() *orchv1.Welcome { return &orchv1.Welcome{Leader: "c1"} },
		BeatInterval: func() time.Duration { return time.Second }, Log: slog.New(slog.DiscardHandler)})}
}

// bubble runs f in virtual time with an agent dialled in, and sees to it that
// every goroutine of the session ends.
func bubble(t *testing.T, f func(t *testing.T, b *bench)) {
	cert := certificate(t)
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		b.open(cert)
		f(t, b)
		b.Wait()
	})
}

func ends(t *testing.T, b *bench, want codes.Code) {
	t.Helper()
	if err := <-b.ended; status.Code(err) != want {
		t.Errorf("ended with %v, want %s", err, want)
	}
}

func TestAnAgentThatNeverReads(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.line.up <- hello
		synctest.Wait()
		id := b.lead.events()[0].(core.SessionOpened).Session
		for range queueMax + 2 { // one is in the writer's hand
			b.Assign(core.SendAssignments{Node: "n1", Session: id, Set: wire.AssignmentSet{Complete: true}})
		}
		ends(t, b, codes.ResourceExhausted)
		synctest.Wait()
		if got := b.lead.events(); len(got) != 2 || got[1] != (core.SessionClosed{Node: "n1", Session: id}) {
			t.Errorf("told %v", got)
		}
		if b.Has("n1") {
			t.Error("it still counts as a session")
		}
	})
}

func TestASilentAgent(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		began := time.Now()
		ends(t, b, codes.DeadlineExceeded)
		if d := time.Since(began); d != helloTimeout {
			t.Errorf("after %s, want %s", d, helloTimeout)
		}
		synctest.Wait()
		if got := b.lead.events(); len(got) != 0 {
			t.Errorf("told %v", got)
		}
	})
}

func TestTheTermEnds(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.line.up <- hello
		w := <-b.line.down
		if w.Term != 3 || w.Incarnation != "inc" || w.GetWelcome().GetBeatInterval().AsDuration() != time.Second {
			t.Errorf("welcome %v", w)
		}
		close(b.lead.over)
		ends(t, b, codes.Unavailable)
	})
}

func TestWhatAgentsSay(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		go func() {
			for {
				select {
				case <-b.line.down:
				case <-b.line.ctx.Done():
					return
				}
			}
		}()
		b.line.up <- hello
		b.line.up <- &orchv1.AgentMessage{Message: &orchv1.AgentMessage_Beat{Beat: &orchv1.Beat{Sequence: 9}}}
		b.line.up <- &orchv1.AgentMessage{Message: &orchv1.AgentMessage_Witness{Witness: &orchv1.WitnessAnswer{AskId: 4, Target: "n2", HostAnswers: true}}}
		b.line.up <- &orchv1.AgentMessage{Message: &orchv1.AgentMessage_Status{Status: &orchv1.StatusReport{Complete: true}}}
		b.line.up <- &orchv1.AgentMessage{Message: &orchv1.AgentMessage_Ack{Ack: &orchv1.Ack{EndpointVersion: 7}}}
		close(b.line.up)
		ends(t, b, codes.OK)
		synctest.Wait()
		got := b.lead.events()
		if len(got) != 6 {
			t.Fatalf("told %v", got)
		}
		id := got[0].(core.SessionOpened).Session
		if x := got[1].(core.Beat); x.Node != "n1" || x.Session != id || x.Seq != 9 {
			t.Errorf("beat %+v", x)
		}
		if x := got[2].(core.Witnessed); x.Observer != "n1" || x.Target != "n2" || x.AskID != 4 || !x.HostAnswers {
			t.Errorf("witness %+v", x)
		}
		if x := got[3].(core.Status); !x.Report.Complete {
			t.Errorf("status %+v", x)
		}
		if x := got[4].(core.Acked); x != (core.Acked{Node: "n1", Session: id, EndpointVersion: 7}) {
			t.Errorf("ack %+v", x)
		}
		if x := got[5].(core.SessionClosed); x.Session != id || !x.Graceful {
			t.Errorf("end %+v", x)
		}
	})
}

// One list of peers serves all sessions: each leaves its own node out.
func TestTheNetworkOfANode(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.line.up <- hello
		<-b.line.down // the Welcome
		synctest.Wait()
		id := b.lead.events()[0].(core.SessionOpened).Session
		n1, n2 := wire.Peer{Node: "n1", Address: "10.0.0.1", Subnet: "10.64.0.0/24"}, wire.Peer{Node: "n2", Address: "10.0.0.2", Subnet: "10.64.1.0/24"}
		set := wire.NetworkSet{Complete: true, Cluster: "10.64.0.0/10", Services: "10.128.0.0/14", Subnet: n1.Subnet, Routes: wire.RoutesAuto, Put: []wire.Peer{n1, n2}}
		b.Network(core.SendNetwork{Node: "n1", Session: id + 1, Set: set}) // of another session
		for range 2 {
			b.Network(core.SendNetwork{Node: "n1", Session: id, Set: set})
			want := set
			want.Put = []wire.Peer{n2}
			if got := wire.NetworkSetFromPB((<-b.line.down).GetNetwork()); !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		}
		if !slices.Equal(set.Put, []wire.Peer{n1, n2}) {
			t.Errorf("the shared list is %v now", set.Put)
		}
		b.hang()
		<-b.ended
	})
}

// One set of endpoints is made ready once, however many sessions are to have it.
func TestEndpointsOfManySessions(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.line.up <- hello
		<-b.line.down // the Welcome
		synctest.Wait()
		id := b.lead.events()[0].(core.SessionOpened).Session
		send := func(set wire.EndpointSet) *orchv1.EndpointSet {
			b.Endpoints(core.SendEndpoints{Node: "n1", Session: id, Set: set})
			got := (<-b.line.down).GetEndpoints()
			if !reflect.DeepEqual(wire.EndpointSetFromPB(got), set) {
				t.Errorf("got %+v, want %+v", got, set)
			}
			return got
		}
		one := wire.EndpointSet{Version: 7, Put: []wire.Endpoint{{Replica: api.ReplicaKey{Namespace: "default", Service: "web"}, Node: "n1", IP: "10.64.0.2"}}}
		first := send(one)
		if again := send(one); again != first {
			t.Error("the same set was made ready twice")
		}
		for _, change := range []func(*wire.EndpointSet){
			func(s *wire.EndpointSet) { s.Version++ },
			func(s *wire.EndpointSet) { s.Complete = true },
			func(s *wire.EndpointSet) { s.Put = []wire.Endpoint{{Node: "n2"}} },
			func(s *wire.EndpointSet) { s.Drop = []api.ReplicaKey{{Service: "a"}} },
			func(s *wire.EndpointSet) { s.Keep = []api.ReplicaKey{{Service: "b"}} },
			func(s *wire.EndpointSet) { s.Services = []wire.Service{{Key: api.Key{Name: "c"}}} },
			func(s *wire.EndpointSet) { s.DropServices = []api.Key{{Name: "d"}} },
		} {
			send(one)
			other := one
			change(&other)
			send(other)
		}
		b.hang()
		<-b.ended
	})
}

func TestAHigherTermIsDoubted(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.line.up <- &orchv1.AgentMessage{Incarnation: "inc", Term: 4, Message: hello.Message}
		ends(t, b, codes.Unavailable)
		if b.lead.doubt != 4 {
			t.Errorf("doubt %d, want 4", b.lead.doubt)
		}
	})
	// Terms of another life of the store say nothing.
	bubble(t, func(t *testing.T, b *bench) {
		b.line.up <- &orchv1.AgentMessage{Incarnation: "old", Term: 4, Message: hello.Message}
		synctest.Wait()
		if len(b.lead.events()) != 1 || b.lead.doubt != 0 {
			t.Errorf("told %v, doubt %d", b.lead.events(), b.lead.doubt)
		}
		b.hang()
		<-b.ended
	})
}

// An agent that floods is slowed down, not the leader.
func TestAFlood(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.line.up <- hello
		began := time.Now()
		for range messagesBurst + messagesPerSecond {
			b.line.up <- &orchv1.AgentMessage{Message: &orchv1.AgentMessage_Ack{Ack: &orchv1.Ack{}}}
		}
		if d := time.Since(began); d < 900*time.Millisecond {
			t.Errorf("taken in %s, want about a second", d)
		}
		b.hang()
		<-b.ended
	})
}

func TestRelays(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		ctx := context.Background()
		if _, err := b.Open(ctx, "n2", &orchv1.OpenRelay{}); !errors.Is(err, ErrAway) {
			t.Errorf("to a node without a session: %v", err)
		}
		b.line.up <- hello
		<-b.line.down
		go func() { <-b.line.down }() // the OpenRelay, which the agent ignores
		began := time.Now()
		if _, err := b.Open(ctx, "n1", &orchv1.OpenRelay{}); !errors.Is(err, ErrAway) || time.Since(began) != relayTimeout {
			t.Errorf("to an agent that does not answer: %v after %s", err, time.Since(began))
		}
		b.relays.put("x", &Relay{node: "n1"})
		if b.relays.claim("x", "n2") != nil {
			t.Error("another node took the relay")
		}
		if b.relays.claim("x", "n1") == nil || b.relays.claim("x", "n1") != nil {
			t.Error("a relay is to be claimed once")
		}
		b.hang()
		<-b.ended
	})
}
