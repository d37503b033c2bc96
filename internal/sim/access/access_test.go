// Package access runs a controller's identities and sessions against an agent's, over TLS
// and in virtual time, for as long as certificates last.
package access

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/test/bufconn"

	"github.com/orchctl/orch/agent/session"
	"github.com/orchctl/orch/internal/controller/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/identity"
	server "github.com/orchctl/orch/internal/controller/session"
	"github.com/orchctl/orch/internal/pki"
	"github.com/orchctl/orch/internal/store"
	"github.com/orchctl/orch/internal/store/mem"
	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

const (
	day = 24 * time.Hour
	// beat is seldom, or two lifetimes would be fifty million beats.
	beat = 10 * time.Minute
	// skew is how far the controller's clock is ahead of the node's.
	skew = 4 * time.Minute
)

// clock is the controller's.
func clock() time.Time { return time.Now().Add(skew) }

// writer commits at once.
type writer struct{ store store.Store }

func (w writer) Write(ctx context.Context, ops ...store.Op) (func(context.Context) error, error) {
	_, err := w.store.Txn(ctx, store.Txn{Then: ops})
	return func(context.Context) error { return err }, nil
}

// leader is one endless term of which nobody hears.
type leader struct{ over chan struct{} }

func (l leader) Incarnation() string                        { return "inc" }
func (l leader) Number() uint64                             { return 1 }
func (l leader) Over() <-chan struct{}                      { return l.over }
func (l leader) Tell(context.Context, core.Event) error     { return nil }
func (l leader) Term() (server.Term, error)                 { return l, nil }
func (l leader) Doubt(context.Context, server.Term, uint64) {}
func (l leader) welcome(a *identity.Authority) *orchv1.Welcome {
	t, _ := a.Trust()
	return &orchv1.Welcome{Leader: "c1", Trust: &orchv1.Trust{Ca: t.CA, GossipKeys: t.GossipKeys}}
}

// agent counts what its session is told.
type agent struct {
	session.Handler // the rest is never called
	mu              sync.Mutex
	opened, closed  int
	keys            [][]byte
	beats           int
}

func (a *agent) Connected(uint64, session.Welcome) { a.count(func() { a.opened++ }) }
func (a *agent) Welcomed(session.Welcome)          {}
func (a *agent) Disconnected(uint64)               { a.count(func() { a.closed++ }) }
func (a *agent) count(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

func (a *agent) sessions() (opened, closed int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.opened, a.closed
}

// world is a controller and a node.
type world struct {
	t         *testing.T
	ctx       context.Context
	store     *mem.Store
	authority *identity.Authority
	serving   *identity.Serving
	sessions  *server.Server
	listener  *bufconn.Listener // nil while the controller is away
	stop      func()
	mu        sync.Mutex
	conns     []net.Conn

	node   *session.Identity
	agent  *agent
	renew  func() (stop func()) // looks after the node's certificate until stop
	speak  func() (stop func()) // keeps a session up until stop
	mute   func()               // stops what speak began
	asleep func()               // stops what renew began
	log    strings.Builder
	logMu  sync.Mutex
}

func (w *world) Write(p []byte) (int, error) {
	w.logMu.Lock()
	defer w.logMu.Unlock()
	return w.log.Write(p)
}

func (w *world) said() string {
	w.logMu.Lock()
	defer w.logMu.Unlock()
	return w.log.String()
}

// serve starts what a controller serves with.
func (w *world) serve() {
	w.t.Helper()
	listener := bufconn.Listen(1 << 16)
	gate := &api.Gate{Users: w.authority}
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(pki.ServerTLS(w.serving, w.authority.Pool, clock))), grpc.InTapHandle(gate.Admit), grpc.ChainStreamInterceptor(gate.Stream))
	w.sessions = server.New(server.Config{Leadership: leader{make(chan struct{})}, Identities: w.authority, Bundle: w.authority.Bundle,
		Welcome: func() *orchv1.Welcome { return leader{}.welcome(w.authority) }, BeatInterval: func() time.Duration { return beat }, Log: slog.New(slog.DiscardHandler)})
	orchv1.RegisterAgentsServer(s, w.sessions)
	var running sync.WaitGroup
	running.Go(func() { _ = s.Serve(listener) })
	sessions := w.sessions
	w.mu.Lock()
	w.listener = listener
	w.mu.Unlock()
	w.stop = func() {
		w.mu.Lock()
		w.listener = nil
		w.mu.Unlock()
		s.Stop()
		sessions.Wait()
		running.Wait()
	}
}

// dial leads to the controller, wherever it is.
func (w *world) dial(ctx context.Context, _ string) (net.Conn, error) {
	w.mu.Lock()
	l := w.listener
	w.mu.Unlock()
	if l == nil {
		return nil, errors.New("connection refused")
	}
	conn, err := l.DialContext(ctx)
	if err == nil {
		w.mu.Lock()
		w.conns = append(w.conns, conn)
		w.mu.Unlock()
	}
	return conn, err
}

// cut ends every connection.
func (w *world) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}

// in runs f beside a controller and a node with a session.
func in(t *testing.T, f func(w *world)) {
	ctlDir, nodeDir, termDir := t.TempDir(), t.TempDir(), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		w := &world{t: t, ctx: ctx, store: mem.New(), agent: &agent{}}
		log := slog.New(slog.NewTextHandler(w, nil))
		var err error
		if w.authority, err = identity.Open(ctx, identity.Config{Store: w.store, Dir: ctlDir, Now: clock, Log: slog.New(slog.DiscardHandler)}); err != nil {
			t.Fatal(err)
		}
		kvs, _, err := w.store.Range(ctx, identity.Prefix)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.authority.Begin(kvs, writer{w.store}); err != nil {
			t.Fatal(err)
		}
		if w.serving, err = w.authority.Serve("c1", nil); err != nil {
			t.Fatal(err)
		}
		w.serve()
		var running sync.WaitGroup
		running.Go(func() { _ = w.serving.Run(ctx) })
		running.Go(func() { w.authority.Tend(ctx) })
		running.Go(func() {
			_ = w.authority.Follow(ctx, func(tr identity.Trust) {
				w.mu.Lock()
				away := w.listener == nil
				w.mu.Unlock()
				if !away {
					w.sessions.Trust(&orchv1.Trust{Ca: tr.CA, GossipKeys: tr.GossipKeys})
				}
			})
		})
		token, err := w.authority.CreateToken(ctx, pki.JoinNode, time.Time{}, 1)
		if err != nil {
			t.Fatal(err)
		}
		at := []string{"c1:7070"}
		if w.node, _, err = session.OpenIdentity(nodeDir, "n1", log, grpc.WithContextDialer(w.dial)); err != nil {
			t.Fatal(err)
		}
		if err := w.node.Join(ctx, at, token); err != nil {
			t.Fatal(err)
		}
		terms, err := session.OpenTerms(termDir)
		if err != nil {
			t.Fatal(err)
		}
		s := session.New(session.Config{Controllers: at, Credentials: w.node.Credentials, Hello: func() wire.Hello { return wire.Hello{BootID: "b", Address: "10.0.0.1"} },
			SelfCheck: func() wire.SelfCheck {
				w.agent.count(func() { w.agent.beats++ })
				return wire.SelfCheck{}
			},
			Terms: terms, Handler: w.agent, Logger: log, DialOptions: []grpc.DialOption{grpc.WithContextDialer(w.dial)},
			Trusted: func(tr session.Trust) {
				w.agent.count(func() { w.agent.keys = tr.GossipKeys })
				w.node.Trust(tr.CA)
			}})
		until := func(run func(context.Context) error) func() func() {
			return func() func() {
				ctx, cancel := context.WithCancel(ctx)
				var one sync.WaitGroup
				one.Go(func() { _ = run(ctx) })
				return func() {
					cancel()
					one.Wait()
				}
			}
		}
		w.renew, w.speak = until(func(ctx context.Context) error { return w.node.Run(ctx, at) }), until(s.Run)
		w.asleep, w.mute = w.renew(), w.speak()
		time.Sleep(time.Minute)
		w.wantSessions(1, 0)
		f(w)
		w.mute()
		w.asleep()
		cancel()
		w.stop()
		running.Wait()
		if err := w.store.Close(); err != nil {
			t.Error(err)
		}
	})
}

func (w *world) wantSessions(opened, closed int) {
	w.t.Helper()
	synctest.Wait()
	if o, c := w.agent.sessions(); o != opened || c != closed {
		w.t.Fatalf("%d sessions were opened and %d closed, want %d and %d:\n%s", o, c, opened, closed, w.said())
	}
}

// ends is when the node's certificate ends, as a new connection presents it.
func (w *world) ends() time.Time {
	w.t.Helper()
	var seen time.Time
	conn, err := w.dial(w.ctx, "")
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	creds, err := w.node.Credentials()
	if err != nil {
		w.t.Fatal(err)
	}
	wrapped, info, err := creds.ClientHandshake(w.ctx, pki.ServerName, conn)
	if err != nil {
		w.t.Fatal(err)
	}
	defer wrapped.Close()
	if state := info.(credentials.TLSInfo).State; state.PeerCertificates[0].NotAfter.Before(clock()) {
		w.t.Errorf("the controller's certificate has ended at %s, it is %s", state.PeerCertificates[0].NotAfter, clock())
	}
	for _, x := range mustAuthorities(w) {
		if slices.Contains(x.Nodes, "n1") {
			seen = x.Expires
		}
	}
	return seen
}

func mustAuthorities(w *world) []identity.AuthorityInfo {
	w.t.Helper()
	list, err := w.authority.Authorities()
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

// Over more than two lifetimes of certificates, with beats all the while, the session is
// the first one; what was presented when it began has long ended. New connections are made
// with what is new.
func TestTwoLifetimes(t *testing.T) {
	in(t, func(w *world) {
		for range 65 {
			time.Sleep(day)
			w.wantSessions(1, 0)
			w.ends() // a handshake that succeeds, each day
		}
		if n := strings.Count(w.said(), "certificate renewed"); n < 3 || n > 4 {
			t.Errorf("renewed %d times in 65 days", n)
		}
		w.agent.mu.Lock()
		beats := w.agent.beats
		w.agent.mu.Unlock()
		if beats < 65*24*5 {
			t.Errorf("%d beats", beats)
		}
		w.cut()
		time.Sleep(time.Minute)
		w.wantSessions(2, 1)
	})
}

// The controller is away when the certificate is to be renewed, and until after its end.
// (Meanwhile the node does not dial for a session: it would be millions of times.)
func TestTheControllerIsAway(t *testing.T) {
	in(t, func(w *world) {
		w.mute()
		w.stop()
		time.Sleep(pki.ServingValidity + time.Hour)
		w.serve()
		w.mute = w.speak()
		time.Sleep(2 * time.Minute)
		w.wantSessions(2, 1)
		if n := strings.Count(w.said(), "certificate renewed"); n != 1 {
			t.Errorf("renewed %d times", n)
		}
	})
}

// The node is off when its certificate ends.
func TestTheNodeIsOff(t *testing.T) {
	for _, c := range []struct {
		name   string
		away   time.Duration
		renews bool
	}{
		{"within the grace", pki.ServingValidity + pki.RenewGrace - day, true},
		{"after it", pki.ServingValidity + pki.RenewGrace + day, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			in(t, func(w *world) {
				w.mute()
				w.asleep()
				time.Sleep(c.away)
				w.wantSessions(1, 1)
				w.asleep, w.mute = w.renew(), w.speak()
				time.Sleep(20 * time.Second)
				if c.renews {
					w.wantSessions(2, 1)
					return
				}
				w.wantSessions(1, 1)
				time.Sleep(time.Minute)
				for _, word := range []string{"more than 336h0m0s ago: join again", "an empty pki folder and a fresh token join anew"} {
					if !strings.Contains(strings.ToLower(w.said()), strings.ToLower(word)) {
						t.Errorf("%q is not said", word)
					}
				}
			})
		})
	}
}

// A new CA and a new key of gossip reach the node within seconds, over the session that it
// has, which stays; the old CA can be retired then.
func TestRotations(t *testing.T) {
	in(t, func(w *world) {
		old := w.authority.CA().Hash()
		if _, err := w.authority.RotateAuthority(w.ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if list := mustAuthorities(w); len(list) != 2 || !slices.Equal(list[0].Nodes, []string{"n1"}) {
			t.Fatalf("CAs %+v\n%s", list, w.said())
		}
		w.wantSessions(1, 0)
		if err := w.authority.RetireAuthority(w.ctx, old, false); err != nil {
			t.Fatal(err)
		}
		if _, err := w.authority.RotateGossipKey(w.ctx); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		w.agent.mu.Lock()
		keys := w.agent.keys
		w.agent.mu.Unlock()
		if len(keys) != 1 || !slices.Equal(keys[0], w.authority.GossipKey()) {
			t.Errorf("the agent has %d keys", len(keys))
		}
		w.wantSessions(1, 0)
		w.cut()
		time.Sleep(time.Minute)
		w.wantSessions(2, 1)
		if n := strings.Count(w.said(), "certificate renewed"); n != 1 {
			t.Errorf("renewed %d times", n)
		}
	})
}

// A node that was away while the CA changed comes back by the old one, and is given the new.
func TestAwayWhileTheCAChanges(t *testing.T) {
	in(t, func(w *world) {
		w.mute()
		if _, err := w.authority.RotateAuthority(w.ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(day)
		w.mute = w.speak()
		time.Sleep(20 * time.Second)
		w.wantSessions(2, 1)
		if list := mustAuthorities(w); !slices.Equal(list[0].Nodes, []string{"n1"}) {
			t.Errorf("CAs %+v\n%s", list, w.said())
		}
	})
}

// A CA is retired by force while a node with its certificate has a session: it was told of
// the new one, and is given a certificate by its key.
func TestRetiredByForce(t *testing.T) {
	in(t, func(w *world) {
		old := w.authority.CA().Hash()
		if _, err := w.authority.RotateAuthority(w.ctx); err != nil {
			t.Fatal(err)
		}
		if err := w.authority.RetireAuthority(w.ctx, old, true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		w.wantSessions(1, 0)
		w.cut()
		time.Sleep(time.Minute)
		w.wantSessions(2, 1)
	})
}
