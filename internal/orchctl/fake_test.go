package orchctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// fake is a controller that does what a test scripts.
type fake struct {
	orchv1.UnimplementedOrchServer
	mu       sync.Mutex
	objects  map[string]object
	watchers map[chan *orchv1.WatchEvent]*orchv1.ListRequest
	// fail gives the errors of a method's next calls, first to last.
	fail  map[string][]error
	calls []string
	// lacks are kinds that it does not know.
	lacks []string
	// applies are the requests as they came.
	applies []*orchv1.ApplyRequest
	onApply func(*orchv1.ApplyRequest) (*orchv1.ApplyResponse, error)
	onScale func(*orchv1.ScaleRequest) (*orchv1.ApplyResponse, error)
	onRoll  func(*orchv1.RolloutRequest) (*orchv1.ApplyResponse, error)
	onExec  func(orchv1.Orch_ExecServer) error
	onLogs  func(*orchv1.LogsRequest, orchv1.Orch_LogsServer) error
	onImage func(orchv1.Orch_LoadImageServer) error
	onNode  func(*orchv1.NodeWordRequest) error
	// onForward gets a connection's frames, the request first.
	onForward   func(orchv1.Orch_PortForwardServer) error
	onNetCheck  func(*orchv1.NetCheckRequest) []*orchv1.NetCheckResult
	onUsage     func(*orchv1.UsageRequest) []*orchv1.NodeUsage
	onRebalance func(*orchv1.RebalanceRequest) *orchv1.RebalanceResponse
	deletes     []*orchv1.DeleteRequest
	onDelete    func() // after each; nil changes nothing
	tokens      []*orchv1.Token
	users       []*orchv1.User
	authorities []*orchv1.Authority
	retired     []string
	onUser      func(*orchv1.CreateUserRequest) (*orchv1.CreateUserResponse, error)
	asked       []*orchv1.CreateTokenRequest
	fits        []*orchv1.NodeFit
	broken      chan struct{} // closed and remade to break all watches
}

func newFake(objects ...any) *fake {
	f := &fake{objects: map[string]object{}, watchers: map[chan *orchv1.WatchEvent]*orchv1.ListRequest{}, fail: map[string][]error{}}
	for _, o := range objects {
		x := objectOf(o)
		f.objects[x.key()] = x
	}
	return f
}

func objectOf(v any) object {
	kind := strings.TrimPrefix(fmt.Sprintf("%T", v), "*api.")
	meta := func(m *api.TypeMeta) { *m = api.TypeMeta{APIVersion: api.Version, Kind: kind} }
	switch x := v.(type) {
	case *api.Service:
		meta(&x.TypeMeta)
	case *api.Job:
		meta(&x.TypeMeta)
	case *api.Config:
		kind = x.ObjectKind()
		meta(&x.TypeMeta)
	case *api.Volume:
		meta(&x.TypeMeta)
	case *api.Outcome:
		meta(&x.TypeMeta)
	case *api.Replica:
		meta(&x.TypeMeta)
	case *api.Node:
		meta(&x.TypeMeta)
	case *api.Endpoint:
		meta(&x.TypeMeta)
	case *api.VerdictRecord:
		kind = api.KindVerdict
	case *api.Fleet:
		meta(&x.TypeMeta)
	}
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	o, err := decode(&orchv1.Object{Kind: kind, Json: raw})
	if err != nil {
		panic(err)
	}
	return o
}

func (o object) wire() *orchv1.Object { return &orchv1.Object{Kind: o.kind, Json: o.raw} }

// call notes a call and gives its scripted error.
func (f *fake) call(method string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, method)
	if list := f.fail[method]; len(list) > 0 {
		f.fail[method] = list[1:]
		return list[0]
	}
	return nil
}

func (f *fake) called(method string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, c := range f.calls {
		if c == method {
			n++
		}
	}
	return n
}

func matches(l *orchv1.ListRequest, o object) bool {
	if l.GetKind() != o.kind || (l.GetNamespace() != "" && o.namespace() != l.GetNamespace()) {
		return false
	}
	if e, ok := o.value.(*api.Event); ok && l.GetAbout() != nil {
		return e.Kind == l.About.Kind && e.Name == l.About.Name && e.Namespace == l.About.Namespace
	}
	if v, ok := o.value.(*api.VerdictRecord); ok && l.GetAbout() != nil {
		return l.About.Kind == api.KindNode && v.Node == l.About.Name
	}
	if r, ok := o.value.(*api.Revision); ok {
		return l.GetAbout().GetKind() == api.KindService && r.Service.Name == l.About.Name && r.Service.Namespace == l.About.Namespace
	}
	if e, ok := o.value.(*api.Endpoint); ok && l.GetAbout() != nil {
		return e.Metadata.Namespace == l.About.Namespace && (l.About.Kind == api.KindService && e.Status.Service == l.About.Name || l.About.Kind == api.KindReplica && (e.Status.Replica == l.About.Name || e.Metadata.Name == l.About.Name))
	}
	if x, ok := o.value.(*api.Outcome); ok && l.GetAbout() != nil {
		return l.GetAbout().GetKind() == api.KindJob && x.Job == l.About.Name && x.Metadata.Namespace == l.About.Namespace
	}
	var labels map[string]string
	if m := o.metadata(); m != nil {
		labels = m.Labels
	}
	sel, err := api.ParseSelector(l.GetSelector())
	return err == nil && sel.Matches(labels)
}

// put and drop change what is there and tell the watchers.
func (f *fake) put(objects ...any) {
	for _, v := range objects {
		o := objectOf(v)
		f.mu.Lock()
		f.objects[o.key()] = o
		f.tell(orchv1.WatchEvent_PUT, o)
		f.mu.Unlock()
	}
}

func (f *fake) drop(v any) {
	o := objectOf(v)
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.objects, o.key())
	f.tell(orchv1.WatchEvent_GONE, o)
}

func (f *fake) tell(typ orchv1.WatchEvent_Type, o object) {
	for ch, l := range f.watchers {
		if matches(l, o) {
			ch <- &orchv1.WatchEvent{Type: typ, Object: o.wire()}
		}
	}
}

// breakWatches ends all watches as a lost leader does.
func (f *fake) breakWatches() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.broken)
	f.broken = make(chan struct{})
}

func (f *fake) sorted(l *orchv1.ListRequest) []object {
	var list []object
	for _, o := range f.objects {
		if matches(l, o) {
			list = append(list, o)
		}
	}
	slices.SortFunc(list, func(a, b object) int { return -compareObjects(a, b) }) // orchctl is to sort
	return list
}

func (f *fake) List(_ context.Context, l *orchv1.ListRequest) (*orchv1.ListResponse, error) {
	if err := f.call("List"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if slices.Contains(f.lacks, l.GetKind()) {
		return nil, status.Errorf(codes.InvalidArgument, "unknown kind %q", l.GetKind())
	}
	out := &orchv1.ListResponse{}
	for _, o := range f.sorted(l) {
		out.Objects = append(out.Objects, o.wire())
	}
	return out, nil
}

// Get resolves unambiguous beginnings, as the controller does.
func (f *fake) Get(_ context.Context, r *orchv1.GetRequest) (*orchv1.Object, error) {
	if err := f.call("Get"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var near []object
	for _, o := range f.objects {
		if o.kind != r.Ref.Kind || o.namespace() != r.Ref.Namespace {
			continue
		}
		if o.name() == r.Ref.Name {
			return o.wire(), nil
		}
		if o.kind == api.KindReplica && strings.HasPrefix(o.name(), r.Ref.Name) {
			near = append(near, o)
		}
	}
	slices.SortFunc(near, compareObjects)
	switch len(near) {
	case 0:
		return nil, status.Errorf(codes.NotFound, "%s %s is not there", word(r.Ref.Kind), r.Ref.Name)
	case 1:
		return near[0].wire(), nil
	}
	var names []string
	for _, o := range near {
		names = append(names, o.name())
	}
	return nil, status.Errorf(codes.InvalidArgument, "%q is ambiguous: %s", r.Ref.Name, strings.Join(names, ", "))
}

func (f *fake) Watch(r *orchv1.WatchRequest, s orchv1.Orch_WatchServer) error {
	if err := f.call("Watch"); err != nil {
		return err
	}
	ch := make(chan *orchv1.WatchEvent, 1000)
	f.mu.Lock()
	for _, o := range f.sorted(r.List) {
		ch <- &orchv1.WatchEvent{Type: orchv1.WatchEvent_PUT, Object: o.wire()}
	}
	ch <- &orchv1.WatchEvent{Type: orchv1.WatchEvent_SYNCED}
	f.watchers[ch] = r.List
	broken := f.broken
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.watchers, ch)
	}()
	for {
		select {
		case <-s.Context().Done():
			return s.Context().Err()
		case <-broken:
			return status.Error(codes.Unavailable, "the leader has resigned")
		case ev := <-ch:
			if err := s.Send(ev); err != nil {
				return err
			}
		}
	}
}

func (f *fake) Apply(_ context.Context, r *orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) {
	f.mu.Lock()
	f.applies = append(f.applies, r)
	f.mu.Unlock()
	if err := f.call("Apply"); err != nil {
		return nil, err
	}
	if f.onApply != nil {
		return f.onApply(r)
	}
	out := &orchv1.ApplyResponse{}
	for _, o := range r.Objects {
		out.Applied = append(out.Applied, &orchv1.Applied{Object: o, Outcome: "created"})
	}
	return out, nil
}

func (f *fake) Scale(_ context.Context, r *orchv1.ScaleRequest) (*orchv1.ApplyResponse, error) {
	if err := f.call("Scale"); err != nil {
		return nil, err
	}
	return f.onScale(r)
}

func (f *fake) Rollout(_ context.Context, r *orchv1.RolloutRequest) (*orchv1.ApplyResponse, error) {
	if err := f.call("Rollout"); err != nil {
		return nil, err
	}
	return f.onRoll(r)
}

func (f *fake) Delete(_ context.Context, r *orchv1.DeleteRequest) (*orchv1.DeleteResponse, error) {
	if err := f.call("Delete"); err != nil {
		return nil, err
	}
	if f.onDelete != nil && !r.DryRun {
		defer f.onDelete()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.deletes = append(f.deletes, r)
	out := &orchv1.DeleteResponse{}
	for _, ref := range r.Refs {
		if _, ok := f.objects[ref.Kind+"/"+ref.Namespace+"/"+ref.Name]; ok {
			out.Deleted = append(out.Deleted, ref)
		} else {
			out.Missing = append(out.Missing, ref)
		}
	}
	if len(out.Missing) > 0 && !r.IgnoreMissing {
		return nil, status.Errorf(codes.NotFound, "service %s: not found; nothing was deleted", out.Missing[0].Name)
	}
	return out, nil
}

func (f *fake) Explain(context.Context, *orchv1.ExplainRequest) (*orchv1.ExplainResponse, error) {
	return &orchv1.ExplainResponse{Nodes: f.fits}, f.call("Explain")
}

func (f *fake) Exec(s orchv1.Orch_ExecServer) error {
	if err := f.call("Exec"); err != nil {
		return err
	}
	return f.onExec(s)
}

func (f *fake) Logs(r *orchv1.LogsRequest, s orchv1.Orch_LogsServer) error {
	if err := f.call("Logs"); err != nil {
		return err
	}
	return f.onLogs(r, s)
}

func (f *fake) LoadImage(s orchv1.Orch_LoadImageServer) error {
	if err := f.call("LoadImage"); err != nil {
		return err
	}
	return f.onImage(s)
}

func (f *fake) NodeWord(_ context.Context, r *orchv1.NodeWordRequest) (*orchv1.NodeWordResponse, error) {
	if err := f.call("NodeWord"); err != nil {
		return nil, err
	}
	return &orchv1.NodeWordResponse{}, f.onNode(r)
}

func (f *fake) PortForward(s orchv1.Orch_PortForwardServer) error {
	if err := f.call("PortForward"); err != nil {
		return err
	}
	return f.onForward(s)
}

func (f *fake) NetCheck(r *orchv1.NetCheckRequest, s grpc.ServerStreamingServer[orchv1.NetCheckResult]) error {
	if err := f.call("NetCheck"); err != nil {
		return err
	}
	for _, x := range f.onNetCheck(r) {
		if err := s.Send(x); err != nil {
			return err
		}
	}
	return f.call("NetCheck's end")
}

func (f *fake) Usage(r *orchv1.UsageRequest, s grpc.ServerStreamingServer[orchv1.NodeUsage]) error {
	if err := f.call("Usage"); err != nil {
		return err
	}
	for _, x := range f.onUsage(r) {
		if err := s.Send(x); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) Rebalance(_ context.Context, r *orchv1.RebalanceRequest) (*orchv1.RebalanceResponse, error) {
	if err := f.call("Rebalance"); err != nil {
		return nil, err
	}
	return f.onRebalance(r), nil
}

func (f *fake) CreateToken(_ context.Context, r *orchv1.CreateTokenRequest) (*orchv1.CreateTokenResponse, error) {
	if err := f.call("CreateToken"); err != nil {
		return nil, err
	}
	f.asked = append(f.asked, r)
	return &orchv1.CreateTokenResponse{Token: "orch-" + r.Role + "-secret"}, nil
}

func (f *fake) ListTokens(context.Context, *orchv1.ListTokensRequest) (*orchv1.ListTokensResponse, error) {
	return &orchv1.ListTokensResponse{Tokens: f.tokens}, f.call("ListTokens")
}

func (f *fake) RevokeToken(_ context.Context, r *orchv1.RevokeTokenRequest) (*orchv1.RevokeTokenResponse, error) {
	if err := f.call("RevokeToken"); err != nil {
		return nil, err
	}
	n := len(f.tokens)
	f.tokens = slices.DeleteFunc(f.tokens, func(k *orchv1.Token) bool { return k.Id == r.Id })
	if len(f.tokens) == n {
		return nil, status.Errorf(codes.NotFound, "token %s is not there", r.Id)
	}
	return &orchv1.RevokeTokenResponse{}, nil
}

func (f *fake) CreateUser(_ context.Context, r *orchv1.CreateUserRequest) (*orchv1.CreateUserResponse, error) {
	if err := f.call("CreateUser"); err != nil {
		return nil, err
	}
	return f.onUser(r)
}

func (f *fake) ListUsers(context.Context, *orchv1.ListUsersRequest) (*orchv1.ListUsersResponse, error) {
	return &orchv1.ListUsersResponse{Users: f.users}, f.call("ListUsers")
}

func (f *fake) RemoveUser(_ context.Context, r *orchv1.RemoveUserRequest) (*orchv1.RemoveUserResponse, error) {
	if err := f.call("RemoveUser"); err != nil {
		return nil, err
	}
	n := len(f.users)
	f.users = slices.DeleteFunc(f.users, func(u *orchv1.User) bool { return u.Name == r.Name })
	if len(f.users) == n {
		return nil, status.Errorf(codes.NotFound, "user %s: not found", r.Name)
	}
	return &orchv1.RemoveUserResponse{}, nil
}

func (f *fake) ListAuthorities(context.Context, *orchv1.ListAuthoritiesRequest) (*orchv1.ListAuthoritiesResponse, error) {
	return &orchv1.ListAuthoritiesResponse{Authorities: f.authorities}, f.call("ListAuthorities")
}

func (f *fake) RotateAuthority(context.Context, *orchv1.RotateAuthorityRequest) (*orchv1.RotateAuthorityResponse, error) {
	return &orchv1.RotateAuthorityResponse{Authority: f.authorities[0]}, f.call("RotateAuthority")
}

func (f *fake) RetireAuthority(_ context.Context, r *orchv1.RetireAuthorityRequest) (*orchv1.RetireAuthorityResponse, error) {
	f.retired = append(f.retired, fmt.Sprintf("%s %v", r.GetHash(), r.GetForce()))
	return &orchv1.RetireAuthorityResponse{}, f.call("RetireAuthority")
}

func (f *fake) RotateGossipKey(context.Context, *orchv1.RotateGossipKeyRequest) (*orchv1.RotateGossipKeyResponse, error) {
	return &orchv1.RotateGossipKeyResponse{Key: "66bb"}, f.call("RotateGossipKey")
}

func (f *fake) RotateSecretKey(context.Context, *orchv1.RotateSecretKeyRequest) (*orchv1.RotateSecretKeyResponse, error) {
	return &orchv1.RotateSecretKeyResponse{Key: "77aa", Versions: 12}, f.call("RotateSecretKey")
}

func (f *fake) Version(context.Context, *orchv1.VersionRequest) (*orchv1.VersionResponse, error) {
	return &orchv1.VersionResponse{Version: "v0.1.0", Leader: "c1", Term: 7, Incarnation: "5f3a", Nodes: 3}, f.call("Version")
}

// serve answers until stop.
func (f *fake) serve() (dial func(context.Context) (grpc.ClientConnInterface, func() error, error), stop func()) {
	f.broken = make(chan struct{}) // here, for a channel belongs to the bubble that made it
	l := bufconn.Listen(1 << 20)
	s := grpc.NewServer()
	orchv1.RegisterOrchServer(s, f)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	return func(context.Context) (grpc.ClientConnInterface, func() error, error) {
			conn, err := grpc.NewClient("passthrough:///fake", grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
			if err != nil {
				return nil, nil, err
			}
			return conn, conn.Close, nil
		}, func() {
			s.Stop()
			<-done
		}
}

// result is what one command line did.
type result struct {
	out, err string
	code     int
}

func (r result) String() string {
	return fmt.Sprintf("%s--- stderr\n%s--- exit %d\n", r.out, r.err, r.code)
}

// rig is orchctl before a fake.
type rig struct {
	*fake
	t    *testing.T
	env  Env
	dial func(context.Context) (grpc.ClientConnInterface, func() error, error)
	n    int
}

// in runs a test before a fake, in virtual time.
func in(t *testing.T, f *fake, do func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		dial, stop := f.serve()
		defer stop()
		do(t, newRig(t, f, dial))
	})
}

func newRig(t *testing.T, f *fake, dial func(context.Context) (grpc.ClientConnInterface, func() error, error)) *rig {
	r := &rig{fake: f, t: t, dial: dial}
	r.env = Env{In: strings.NewReader(""), Now: time.Now, Screen: func() (int, int, bool) { return 0, 0, false }, Asks: func() bool { return false },
		RequestID: func() string { r.n++; return "request-" + strconv.Itoa(r.n) },
		Cluster: func(_, name string) (Cluster, error) {
			return Cluster{Name: "test", Addresses: []string{"10.0.0.1:7070"}, Dial: r.dial}, nil
		}}
	return r
}

func (r *rig) run(args ...string) result { return r.runCtx(r.t.Context(), args...) }

func (r *rig) runCtx(ctx context.Context, args ...string) result {
	var out, errs syncBuffer
	env := r.env
	env.Out, env.Err = &out, &errs
	code := Run(ctx, env, args)
	return result{out.String(), errs.String(), code}
}

// syncBuffer may be written by several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

var _ io.Writer = (*syncBuffer)(nil)

// golden compares with a file of testdata; -update rewrites it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(path, []byte(got), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (-update rewrites it)\n--- got\n%s--- want\n%s", path, got, want)
	}
}
