package controller_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	orchapi "github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller"
	"github.com/orchctl/orch/internal/controller/api"
	"github.com/orchctl/orch/internal/controller/election"
	"github.com/orchctl/orch/internal/controller/identity"
	"github.com/orchctl/orch/internal/controller/images"
	"github.com/orchctl/orch/internal/evidence"
	"github.com/orchctl/orch/internal/pki"
	"github.com/orchctl/orch/internal/secrets"
	"github.com/orchctl/orch/internal/store/mem"
	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// patience bounds every wait; it is reached only by a failure.
const patience = 20 * time.Second

// deaf answers no probe.
type deaf struct{}

func (deaf) Probe(context.Context, evidence.Target, time.Duration) evidence.Result {
	return evidence.Result{}
}

// record keeps what is logged, and passes it on.
type record struct {
	more io.Writer

	mu   sync.Mutex
	text strings.Builder
}

// Write implements io.Writer.
func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	r.text.Write(p)
	r.mu.Unlock()
	return r.more.Write(p)
}

// String is all that was logged until now.
func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// rig is a controller over the in-memory store, with clients over bufconn.
type rig struct {
	t         *testing.T
	ctx       context.Context
	store     *mem.Store
	authority *identity.Authority
	ctl       *controller.Controller
	listener  *bufconn.Listener
	images    *images.Sender
	secrets   *secrets.Keyring
	dir       string // of the authority
	keyFile   string
	log       *record
	admin     orchv1.OrchClient
	users     map[pki.Identity]*tls.Config
	stop      func() // ends the controller; it may be called again
}

func newRig(t *testing.T) *rig {
	t.Helper()
	return rigOn(t, mem.New(), t.TempDir(), filepath.Join(t.TempDir(), "secrets.key"))
}

// rigOn is a controller with what another one has left.
func rigOn(t *testing.T, st *mem.Store, dir, keyFile string) *rig {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &rig{t: t, ctx: ctx, store: st, dir: dir, keyFile: keyFile, listener: bufconn.Listen(1 << 16), users: map[pki.Identity]*tls.Config{}}
	r.log = &record{more: t.Output()}
	log := slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	if r.secrets, err = secrets.OpenFile(r.keyFile, time.Now()); err != nil {
		t.Fatal(err)
	}
	if r.authority, err = identity.Open(ctx, identity.Config{Store: r.store, Dir: dir, Log: log}); err != nil {
		t.Fatal(err)
	}
	shelf, err := images.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	sender := images.NewSender(shelf, func() images.Relays { return r.ctl.Sessions() }, log)
	r.images = sender
	r.ctl = controller.New(controller.Config{Name: "c1", Store: r.store, Eligible: election.Sole(), Authority: r.authority,
		Prober: deaf{}, NewID: rand.Text, SessionOpened: sender.Offer, Secrets: r.secrets, Log: log})
	serving, err := r.authority.Serve("c1", nil)
	if err != nil {
		t.Fatal(err)
	}
	gate := &api.Gate{Users: r.authority}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(pki.ServerTLS(serving, r.authority.Pool, nil))),
		grpc.InTapHandle(gate.Admit), grpc.ChainStreamInterceptor(gate.Stream), grpc.MaxRecvMsgSize(api.MessageMax))
	orchv1.RegisterAgentsServer(server, r.ctl.Sessions())
	orchv1.RegisterOrchServer(server, api.New(api.Config{Leader: r.ctl, View: r.ctl.View(), Access: r.authority, Nodes: r.ctl.Sessions(), Images: sender, Secrets: r.secrets, Log: log}))
	var running sync.WaitGroup
	running.Go(func() { server.Serve(r.listener) })
	running.Go(func() { r.ctl.Run(ctx) })
	r.stop = sync.OnceFunc(func() {
		cancel()
		server.Stop()
		r.ctl.Sessions().Wait()
		running.Wait()
	})
	t.Cleanup(r.stop)
	wait, done := context.WithTimeout(ctx, patience)
	defer done()
	if err := r.ctl.Lead(wait); err != nil {
		t.Fatalf("it does not lead: %v", err)
	}
	r.admin = orchv1.NewOrchClient(r.dial(r.credentials(r.authority.CA(), user(pki.Admin), time.Hour)))
	return r
}

func user(r pki.Role) pki.Identity {
	return pki.Identity{Kind: pki.User, Name: string(r), Role: r}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := pki.NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// credentials are id's of ca, made so that they end after life from now; a
// negative life makes them expired.
func (r *rig) credentials(ca *pki.CA, id pki.Identity, life time.Duration) *tls.Config {
	r.t.Helper()
	key := newKey(r.t)
	csr, err := pki.CSR(key, id)
	if err != nil {
		r.t.Fatal(err)
	}
	if id.Kind == pki.User && life > 0 && ca == r.authority.CA() {
		if known, ok := r.users[id]; ok {
			return known
		}
		cert, err := r.authority.CreateUser(r.ctx, identity.NewUser{Name: id.Name, Role: id.Role, CSR: csr, Expires: time.Now().Add(life), Replace: true})
		if err != nil {
			r.t.Fatal(err)
		}
		r.users[id] = r.tls(ca, cert, key)
		return r.users[id]
	}
	now := time.Now()
	if life < 0 {
		now, life = now.Add(life-time.Minute), time.Minute
	}
	cert, err := ca.Sign(csr, id, life, now)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.tls(ca, cert, key)
}

func (r *rig) tls(ca *pki.CA, certPEM []byte, key *ecdsa.PrivateKey) *tls.Config {
	r.t.Helper()
	keyPEM, err := pki.EncodeKey(key)
	if err != nil {
		r.t.Fatal(err)
	}
	cert, err := pki.Bundle{CA: ca.CertPEM, Cert: certPEM, Key: keyPEM}.Certificate()
	if err != nil {
		r.t.Fatal(err)
	}
	source := &pki.Source{}
	source.Set(cert)
	return pki.ClientTLS(source, r.authority.CA().Pool(), "", nil)
}

// stranger has no certificate.
func (r *rig) stranger() *tls.Config {
	return pki.ClientTLS(nil, r.authority.CA().Pool(), "", nil)
}

func (r *rig) dial(conf *tls.Config) *grpc.ClientConn {
	r.t.Helper()
	conn, err := grpc.NewClient("passthrough:///c1", grpc.WithTransportCredentials(credentials.NewTLS(conf)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return r.listener.DialContext(ctx) }))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	return conn
}

func (r *rig) token() string {
	r.t.Helper()
	tok, err := r.authority.CreateToken(r.ctx, pki.JoinNode, time.Time{}, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	return tok
}

// join asks for a node's certificate.
func (r *rig) join(token, name string, key *ecdsa.PrivateKey) ([]byte, error) {
	r.t.Helper()
	csr, err := pki.CSR(key, pki.Identity{Kind: pki.Node, Name: name})
	if err != nil {
		r.t.Fatal(err)
	}
	resp, err := orchv1.NewAgentsClient(r.dial(r.stranger())).Join(r.ctx, &orchv1.JoinRequest{Token: token, Name: name, Csr: csr})
	return resp.GetCertificate(), err
}

// agent is a node that runs whatever it is told, at once.
type agent struct {
	r     *rig
	name  string
	conn  *grpc.ClientConn
	image chan []byte // archives that were brought
	// logs, where it is set, answers a relay of logs; false breaks the relay off.
	logs func(*orchv1.LogsOpen, func(*orchv1.LogLine)) bool
	// exit, where it is set, is how each container ends as soon as it is started.
	exit   *orchapi.Exit
	cancel context.CancelFunc

	mu       sync.Mutex
	holds    map[orchapi.ReplicaKey]wire.Assignment
	values   map[wire.ConfigKey]map[string][]byte // all that ever came
	started  map[orchapi.ReplicaKey]int
	sessions int
	broke    atomic.Bool // it left one image in the middle
	breaks   atomic.Int32
}

func (r *rig) agent(name string) *agent {
	r.t.Helper()
	key := newKey(r.t)
	cert, err := r.join(r.token(), name, key)
	if err != nil {
		r.t.Fatal(err)
	}
	a := &agent{r: r, name: name, conn: r.dial(r.tls(r.authority.CA(), cert, key)), image: make(chan []byte, 8),
		holds: map[orchapi.ReplicaKey]wire.Assignment{}, values: map[wire.ConfigKey]map[string][]byte{}, started: map[orchapi.ReplicaKey]int{}}
	ctx, cancel := context.WithCancel(r.ctx)
	a.cancel = cancel
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			err := a.session(ctx)
			r.t.Logf("%s: session ended: %v", name, err)
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
	r.t.Cleanup(func() { cancel(); running.Wait() })
	r.eventually(name+" is healthy", func() bool { return r.verdict(name) == orchapi.VerdictHealthy })
	return a
}

func (r *rig) verdict(node string) orchapi.Verdict {
	o, err := r.admin.Get(r.ctx, &orchv1.GetRequest{Ref: &orchv1.Ref{Kind: orchapi.KindNode, Name: node}})
	if err != nil {
		return ""
	}
	var n orchapi.Node
	if err := json.Unmarshal(o.Json, &n); err != nil {
		r.t.Fatal(err)
	}
	return n.Status.Verdict
}

func (a *agent) session(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	st, err := orchv1.NewAgentsClient(a.conn).Session(ctx)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	send := func(m *orchv1.AgentMessage) {
		mu.Lock()
		defer mu.Unlock()
		st.Send(m)
	}
	hello := wire.Hello{BootID: "boot-" + a.name, Address: "10.0.0.1", Capacity: orchapi.ResourceList{orchapi.CPU: orchapi.Whole(8), orchapi.Memory: orchapi.Whole(16 << 30)}}
	send(&orchv1.AgentMessage{Message: &orchv1.AgentMessage_Hello{Hello: hello.ToPB()}})
	a.mu.Lock()
	a.sessions++
	a.mu.Unlock()
	go func() {
		for seq := uint64(1); ctx.Err() == nil; seq++ {
			send(&orchv1.AgentMessage{Message: &orchv1.AgentMessage_Beat{Beat: &orchv1.Beat{Sequence: seq}}})
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
	for {
		m, err := st.Recv()
		if err != nil {
			return err
		}
		switch x := m.GetMessage().(type) {
		case *orchv1.ControllerMessage_Assignments:
			send(&orchv1.AgentMessage{Message: &orchv1.AgentMessage_Status{Status: a.assign(x.Assignments).ToPB()}})
		case *orchv1.ControllerMessage_Endpoints:
			send(&orchv1.AgentMessage{Message: &orchv1.AgentMessage_Ack{Ack: &orchv1.Ack{EndpointVersion: x.Endpoints.GetVersion()}}})
		case *orchv1.ControllerMessage_OpenRelay:
			go a.relay(ctx, x.OpenRelay)
		}
	}
}

// assign does what the set says and reports everything.
func (a *agent) assign(pb *orchv1.AssignmentSet) wire.StatusReport {
	set, err := wire.AssignmentSetFromPB(pb)
	if err != nil {
		a.r.t.Error(err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, v := range set.Configs {
		a.values[v.ConfigKey] = v.Values
	}
	report := wire.StatusReport{Complete: true, Taken: set.Sequence, VolumesGone: set.RemoveVolumes}
	for _, x := range set.Put {
		if x.Stopping {
			delete(a.holds, x.Key)
			report.Gone = append(report.Gone, x.Key)
			continue
		}
		if _, ok := a.holds[x.Key]; !ok {
			a.started[x.Key]++
		}
		a.holds[x.Key] = x
	}
	for _, k := range set.Drop {
		delete(a.holds, k)
	}
	if set.Complete {
		for k := range a.holds {
			if !slices.ContainsFunc(set.Put, func(x wire.Assignment) bool { return x.Key == k }) {
				delete(a.holds, k)
			}
		}
	}
	for k, x := range a.holds {
		report.Replicas = append(report.Replicas, wire.Report{Key: k, Revision: x.Revision, Status: a.status()})
	}
	return report
}

func (a *agent) status() orchapi.ReplicaStatus {
	if a.exit == nil {
		return orchapi.ReplicaStatus{Phase: orchapi.PhaseRunning, Ready: true, IP: "10.64.0.2"}
	}
	s := orchapi.ReplicaStatus{Phase: orchapi.PhaseStopped, Containers: []orchapi.ContainerStatus{{Name: "main", State: orchapi.ContainerExited, LastExit: a.exit}}}
	if a.exit.Code != 0 {
		s.Phase = orchapi.PhaseFailed
	}
	return s
}

// value gives what came of one key of a Config or Secret.
func (a *agent) value(ref orchapi.ConfigRef, version int64, key string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return string(a.values[wire.ConfigKey{Namespace: orchapi.DefaultNamespace, Ref: ref, Version: version}][key])
}

func (a *agent) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.holds)
}

// relay answers logs with two lines, exec by echoing, images by keeping them.
func (a *agent) relay(ctx context.Context, open *orchv1.OpenRelay) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	st, err := orchv1.NewAgentsClient(a.conn).Relay(ctx)
	if err != nil {
		return
	}
	st.Send(&orchv1.Frame{Frame: &orchv1.Frame_OpenId{OpenId: open.GetId()}})
	end := &orchv1.End{}
	switch x := open.GetRequest().(type) {
	case *orchv1.OpenRelay_Logs:
		if a.logs != nil {
			if !a.logs(x.Logs, func(l *orchv1.LogLine) { st.Send(&orchv1.Frame{Frame: &orchv1.Frame_Log{Log: l}}) }) {
				return
			}
			break
		}
		key := wire.KeyFromPB(x.Logs.GetReplica())
		for i := range 2 {
			when := wire.TimeToPB(time.Unix(int64(100*i+key.Slot), 0))
			st.Send(&orchv1.Frame{Frame: &orchv1.Frame_Log{Log: &orchv1.LogLine{Time: when, Stream: "stdout", Text: fmt.Appendf(nil, "%s line %d", key.Name(), i)}}})
		}
	case *orchv1.OpenRelay_Exec:
		for {
			f, err := st.Recv()
			if err != nil || f.GetStdinClosed() {
				break
			}
			st.Send(&orchv1.Frame{Frame: &orchv1.Frame_Stdout{Stdout: f.GetStdin()}})
		}
		end.ExitCode = 7
	case *orchv1.OpenRelay_Image:
		var data []byte
		for {
			f, err := st.Recv()
			if err != nil || f.GetDataEnd() {
				break
			}
			data = append(data, f.GetData()...)
		}
		if strings.HasPrefix(string(data), "frail") && a.name == "n1" && a.broke.CompareAndSwap(false, true) {
			return
		}
		if strings.HasPrefix(string(data), "brittle") && a.name == "n1" {
			a.breaks.Add(1)
			return
		}
		if strings.HasPrefix(string(data), "bad") {
			end.Error = "no OCI layout"
		} else {
			end.Refs = []string{"orch.local/web:1.0"}
		}
		a.image <- data
	}
	st.Send(&orchv1.Frame{Frame: &orchv1.Frame_End{End: end}})
	st.CloseSend()
	for err == nil {
		_, err = st.Recv()
	}
}

func service(name string, replicas int, change ...func(*orchapi.Service)) *orchv1.Object {
	s := &orchapi.Service{TypeMeta: orchapi.TypeMeta{APIVersion: orchapi.Version, Kind: orchapi.KindService}, Metadata: orchapi.Metadata{Name: name},
		Spec: orchapi.ServiceSpec{Replicas: &replicas, Template: orchapi.Template{Containers: []orchapi.Container{{Name: "main", Image: "orch.local/web:1.0"}}}}}
	for _, f := range change {
		f(s)
	}
	js, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return &orchv1.Object{Kind: orchapi.KindService, Json: js}
}

// apply retries while there is no leader, as clients do.
func (r *rig) apply(req *orchv1.ApplyRequest) *orchv1.ApplyResponse {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	for {
		resp, err := r.admin.Apply(ctx, req)
		if status.Code(err) == codes.Unavailable {
			continue
		}
		if err != nil {
			r.t.Fatal(err)
		}
		return resp
	}
}

func (r *rig) get(name string) *orchapi.Service {
	r.t.Helper()
	o, err := r.admin.Get(r.ctx, &orchv1.GetRequest{Ref: &orchv1.Ref{Kind: orchapi.KindService, Name: name}})
	if err != nil {
		return &orchapi.Service{}
	}
	s := &orchapi.Service{}
	if err := json.Unmarshal(o.Json, s); err != nil {
		r.t.Fatal(err)
	}
	return s
}

// eventually polls until ok, or fails with what is said.
func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			r.t.Fatalf("not within %s: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (r *rig) ready(name string, n int) {
	r.t.Helper()
	r.eventually(fmt.Sprintf("%s has %d ready replicas", name, n), func() bool { return r.get(name).Status.Ready == n })
}

func want(t *testing.T, err error, code codes.Code, parts ...string) {
	t.Helper()
	if status.Code(err) != code {
		t.Errorf("got %v, want %s", err, code)
		return
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("%v: does not say %q", err, p)
		}
	}
}
