package session

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/orchctl/orch/agent/agenttest"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// listener keeps what a Handler is told, in words.
type listener struct {
	mu   sync.Mutex
	gen  uint64
	told []string
}

func (l *listener) note(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told = append(l.told, s)
}

func (l *listener) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.told)
}

func (l *listener) Connected(gen uint64, w Welcome) {
	l.mu.Lock()
	l.gen = gen
	l.mu.Unlock()
	l.note("connected " + w.Leader)
}
func (l *listener) Welcomed(w Welcome)  { l.note("welcomed " + w.Leader) }
func (l *listener) Disconnected(uint64) { l.note("disconnected") }
func (l *listener) Assignments(incarnation string, set wire.AssignmentSet) {
	for _, a := range set.Put {
		l.note(incarnation + " put " + a.Key.String())
	}
}
func (l *listener) Endpoints(set wire.EndpointSet) { l.note("endpoints") }
func (l *listener) Granted(wire.Grant)             { l.note("granted") }
func (l *listener) Witness(_ context.Context, ask wire.Ask) *orchv1.WitnessAnswer {
	return &orchv1.WitnessAnswer{AskId: ask.ID, Target: ask.Target, HostAnswers: true}
}

// Network implements Handler.
func (l *listener) Network(set wire.NetworkSet) { l.note("network " + set.Subnet) }

// Relay echoes, or reads nothing until it is cancelled.
func (l *listener) Relay(ctx context.Context, open *orchv1.OpenRelay, r Relay) {
	if open.GetId() == "deaf" {
		<-ctx.Done()
		l.note("relay cancelled")
		return
	}
	for {
		f, err := r.Recv()
		if err != nil {
			l.note("relay over")
			return
		}
		if err := r.Send(&orchv1.Frame{Frame: &orchv1.Frame_Stdout{Stdout: f.GetStdin()}}); err != nil {
			return
		}
	}
}

type rig struct {
	t       *testing.T
	c       *agenttest.Controller
	l       *listener
	s       *Session
	terms   *Terms
	dir     string
	cancel  context.CancelFunc
	stopped chan error
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, c: agenttest.New(t), dir: t.TempDir()}
	r.c.Serve(nil)
	return r
}

func (r *rig) run() {
	r.t.Helper()
	var err error
	if r.terms, err = OpenTerms(r.dir); err != nil {
		r.t.Fatal(err)
	}
	r.l = &listener{}
	r.s = New(Config{Controllers: []string{"c1:7070"}, Terms: r.terms, Handler: r.l, Logger: slog.New(slog.DiscardHandler),
		Credentials: func() (credentials.TransportCredentials, error) { return insecure.NewCredentials(), nil },
		Hello:       func() wire.Hello { return wire.Hello{BootID: "b", Address: "10.0.0.1", StoreRevision: 7} },
		SelfCheck:   func() wire.SelfCheck { return wire.SelfCheck{} }, DialOptions: r.c.DialOptions()})
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.stopped = cancel, make(chan error, 1)
	go func() { r.stopped <- r.s.Run(ctx) }()
}

func (r *rig) stop() {
	r.cancel()
	if err := <-r.stopped; err != nil {
		r.t.Errorf("run: %v", err)
	}
	r.c.Stop()
}

var web0 = api.ReplicaKey{Namespace: "default", Service: "web", Slot: 0, Epoch: 1}

func put(k api.ReplicaKey) *orchv1.ControllerMessage {
	return &orchv1.ControllerMessage{Message: &orchv1.ControllerMessage_Assignments{Assignments: &orchv1.AssignmentSet{
		Complete: true, Sequence: 1, Put: []*orchv1.Assignment{{Key: wire.KeyToPB(k), Revision: 1, Template: []byte(`{"containers":[]}`)}}}}}
}

func (r *rig) wantTold(want ...string) {
	r.t.Helper()
	synctest.Wait()
	if got := r.l.all(); !slices.Equal(got, want) {
		r.t.Errorf("told %q, want %q", got, want)
	}
}

func TestHelloThenSetsAndReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.run()
		s := r.c.NextSession()
		if s.Hello.GetBootId() != "b" || s.Hello.GetStoreRevision() != 7 {
			t.Errorf("hello %v", s.Hello)
		}
		s.Say(&orchv1.ControllerMessage{Message: &orchv1.ControllerMessage_Network{Network: &orchv1.NetworkSet{Complete: true, Subnet: "10.64.3.0/24"}}})
		s.Say(put(web0))
		r.wantTold("connected c1", "network 10.64.3.0/24", "A put default/web-0@1")
		r.s.SendReport(r.l.gen, wire.StatusReport{Complete: true})
		r.s.SendReport(r.l.gen-1, wire.StatusReport{Orphans: []string{"of an older session"}})
		r.s.SendAck(r.l.gen, 3, 4)
		m := s.Hear(func(m *orchv1.AgentMessage) bool { return m.GetStatus() != nil })
		if !m.GetStatus().GetComplete() || m.GetIncarnation() != "A" || m.GetTerm() != 1 {
			t.Errorf("report %v", m)
		}
		if m := s.Hear(func(*orchv1.AgentMessage) bool { return true }); m.GetAck().GetAssignmentSequence() != 3 || m.GetAck().GetEndpointVersion() != 4 {
			t.Errorf("ack %v", m)
		}
		s.Say(&orchv1.ControllerMessage{Message: &orchv1.ControllerMessage_AskWitness{AskWitness: &orchv1.AskWitness{AskId: 9, Target: "n2"}}})
		if m := s.Hear(func(m *orchv1.AgentMessage) bool { return true }); m.GetWitness().GetAskId() != 9 {
			t.Errorf("witness %v", m)
		}
		// A minute of beats and answers: the link holds.
		time.Sleep(time.Minute)
		r.stop()
		if err := <-s.Ended; !errors.Is(err, io.EOF) {
			t.Errorf("the session ended with %v, want a goodbye", err)
		}
	})
}

func TestDeposedIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.c.SetTerm(5)
		r.run()
		s := r.c.NextSession()
		old := put(web0)
		old.Incarnation, old.Term = "A", 4
		s.Say(old)
		r.wantTold("connected c1", "disconnected")
		// Over a restart of the agent, too.
		r.cancel()
		<-r.stopped
		r.c.SetTerm(4)
		r.run()
		time.Sleep(5 * time.Second)
		r.wantTold()
		// A higher term is taken up, and told upwards.
		r.c.SetTerm(6)
		time.Sleep(2 * time.Second)
		r.wantTold("connected c1")
		if inc, term := r.terms.Highest(); inc != "A" || term != 6 {
			t.Errorf("highest is %s, %d", inc, term)
		}
		r.stop()
	})
}

func TestIncarnations(t *testing.T) {
	terms, err := OpenTerms(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		incarnation string
		term        uint64
		deposed     bool
		bad         bool
	}{
		{"A", 5, false, false}, {"A", 5, false, false}, {"A", 4, true, true}, {"B", 1, false, false}, {"A", 9, true, true},
		{"B", 2, false, false}, {"B", 1, true, true}, {"", 3, false, true}, {"B", 0, true, true}, {"C", 0, false, true},
	} {
		if x.term == 0 {
			x.deposed = false
		}
		err := terms.Accept(x.incarnation, x.term)
		if (err != nil) != x.bad || errors.Is(err, ErrDeposed) != x.deposed {
			t.Errorf("%s %d: %v", x.incarnation, x.term, err)
		}
		again, e := OpenTerms(terms.path[:len(terms.path)-len("/session.json")])
		if e != nil || again.seen.Incarnation != terms.seen.Incarnation || again.seen.Term != terms.seen.Term || !slices.Equal(again.seen.Retired, terms.seen.Retired) {
			t.Errorf("on disk is %+v, %v, want %+v", again.seen, e, terms.seen)
		}
	}
}

func TestGarbageEndsTheSession(t *testing.T) {
	for name, m := range map[string]*orchv1.ControllerMessage{
		"no incarnation": {Incarnation: "", Term: 7, Message: put(web0).Message},
		"no term":        {Incarnation: "A", Term: 0, Message: put(web0).Message},
		"no JSON": {Message: &orchv1.ControllerMessage_Assignments{Assignments: &orchv1.AssignmentSet{Complete: true, Put: []*orchv1.Assignment{
			{Key: wire.KeyToPB(web0), Template: []byte("{")}}}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.run()
				r.c.NextSession().Say(m)
				r.c.NextSession() // the next one
				r.wantTold("connected c1", "disconnected", "connected c1")
				r.stop()
			})
		})
	}
}

func TestNothingBeforeAWelcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.c.Greet = func(*orchv1.AgentMessage) *orchv1.ControllerMessage { return put(web0) }
		r.run()
		r.c.NextSession()
		r.c.NextSession()
		r.wantTold()
		r.stop()
	})
}

func TestDeadLinkIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.c.Mute = true
		r.run()
		r.c.NextSession()
		synctest.Wait()
		began := time.Now()
		r.c.NextSession()
		if took := time.Since(began); took < linkMax || took > 2*linkMax {
			t.Errorf("a dead link was noticed after %s", took)
		}
		r.stop()
	})
}

func TestLeaderReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.run()
		r.c.NextSession()
		r.wantTold("connected c1")
		r.c.Stop()
		time.Sleep(10 * time.Second)
		r.c.Serve(nil)
		began := time.Now()
		r.c.NextSession()
		if took := time.Since(began); took > 2*redialMax {
			t.Errorf("the leader was found after %s", took)
		}
		r.wantTold("connected c1", "disconnected", "connected c1")
		r.stop()
	})
}

func TestResync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.run()
		r.c.NextSession()
		synctest.Wait()
		r.s.Resync("a set is missing")
		r.c.NextSession()
		r.wantTold("connected c1", "disconnected", "connected c1")
		r.stop()
	})
}

func TestBeatsFollowTheWelcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.run()
		s := r.c.NextSession()
		s.Say(&orchv1.ControllerMessage{Message: &orchv1.ControllerMessage_Welcome{Welcome: &orchv1.Welcome{Leader: "c1", BeatInterval: durationpb.New(2 * time.Second)}}})
		time.Sleep(time.Minute) // far more than linkMax between two answers
		r.wantTold("connected c1", "welcomed c1")
		r.stop()
	})
}

func TestRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.run()
		s := r.c.NextSession()
		s.Say(&orchv1.ControllerMessage{Message: &orchv1.ControllerMessage_OpenRelay{OpenRelay: &orchv1.OpenRelay{Id: "r1"}}})
		relay := <-r.c.Relays
		if relay.ID != "r1" {
			t.Errorf("relay %q", relay.ID)
		}
		if err := relay.Stream.Send(&orchv1.Frame{Frame: &orchv1.Frame_Stdin{Stdin: []byte("hi")}}); err != nil {
			t.Fatal(err)
		}
		if f, err := relay.Stream.Recv(); err != nil || string(f.GetStdout()) != "hi" {
			t.Errorf("echo %v, %v", f, err)
		}
		relay.Close()
		synctest.Wait()
		r.wantTold("connected c1", "relay over")
		r.stop()
	})
}

// A command that reads no input must be ended when its user goes, also with
// input on its way.
func TestARelayThatNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.run()
		s := r.c.NextSession()
		s.Say(&orchv1.ControllerMessage{Message: &orchv1.ControllerMessage_OpenRelay{OpenRelay: &orchv1.OpenRelay{Id: "deaf"}}})
		relay := <-r.c.Relays
		for range 3 {
			if err := relay.Stream.Send(&orchv1.Frame{Frame: &orchv1.Frame_Stdin{Stdin: []byte("hi")}}); err != nil {
				t.Fatal(err)
			}
		}
		relay.Close()
		time.Sleep(2 * relayLook)
		r.wantTold("connected c1", "relay cancelled")
		r.stop()
	})
}
