package audit

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/orchctl/orch/internal/pki"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// word is what must never come into a line.
const word = "s3cr3t-w0rd"

type rig struct {
	*Log
	out bytes.Buffer
	log strings.Builder
	now time.Time
}

func newRig(t *testing.T, change func(*Config)) *rig {
	t.Helper()
	r := &rig{now: noon}
	cfg := Config{Path: Stdout, Out: &r.out, Now: func() time.Time { r.now = r.now.Add(time.Millisecond); return r.now },
		Logger: slog.New(slog.NewTextHandler(&r.log, nil))}
	if change != nil {
		change(&cfg)
	}
	var err error
	if r.Log, err = Open(cfg); err != nil {
		t.Fatal(err)
	}
	return r
}

// lines takes what was written until now.
func (r *rig) lines(t *testing.T) []Line {
	t.Helper()
	var out []Line
	for dec := json.NewDecoder(&r.out); ; {
		var x Line
		if err := dec.Decode(&x); err == io.EOF {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		out = append(out, x)
	}
}

var testCA = func() *pki.CA {
	ca, err := pki.NewCA("orch", time.Now(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return ca
}()

// as is a call by somebody; the zero identity has no certificate.
func as(id pki.Identity) context.Context {
	p := &peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 7), Port: 4711}, AuthInfo: credentials.TLSInfo{}}
	if id.Kind != "" {
		key, err := pki.NewKey(rand.Reader)
		if err != nil {
			panic(err)
		}
		csr, err := pki.CSR(key, id)
		if err != nil {
			panic(err)
		}
		text, err := testCA.Sign(csr, id, time.Hour, time.Now())
		if err != nil {
			panic(err)
		}
		block, _ := pem.Decode(text)
		leaf, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			panic(err)
		}
		p.AuthInfo = credentials.TLSInfo{State: tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}, VerifiedChains: [][]*x509.Certificate{{leaf}}}}
	}
	return peer.NewContext(context.Background(), p)
}

var alice = pki.Identity{Kind: pki.User, Name: "alice", Role: pki.Admin}

// fakeStream gives what it is asked for and takes all that it is sent.
type fakeStream struct {
	ctx context.Context
	in  []any
}

func (s *fakeStream) SetHeader(metadata.MD) error  { return nil }
func (s *fakeStream) SendHeader(metadata.MD) error { return nil }
func (s *fakeStream) SetTrailer(metadata.MD)       {}
func (s *fakeStream) Context() context.Context     { return s.ctx }
func (s *fakeStream) SendMsg(any) error            { return nil }
func (s *fakeStream) RecvMsg(m any) error {
	if len(s.in) == 0 {
		return io.EOF
	}
	reflect.ValueOf(m).Elem().Set(reflect.ValueOf(s.in[0]).Elem())
	s.in = s.in[1:]
	return nil
}

// call runs a method the way a server does: messages in, messages out, an error.
func (r *rig) call(ctx context.Context, name string, streams bool, in, out []any, err error) error {
	if !streams {
		var req any = &orchv1.VersionRequest{}
		if len(in) > 0 {
			req = in[0]
		}
		_, got := r.Unary(ctx, req, &grpc.UnaryServerInfo{FullMethod: name}, func(context.Context, any) (any, error) {
			if err != nil || len(out) == 0 {
				return nil, err
			}
			return out[0], nil
		})
		return got
	}
	return r.Stream(nil, &fakeStream{ctx: ctx, in: in}, &grpc.StreamServerInfo{FullMethod: name}, func(_ any, st grpc.ServerStream) error {
		for _, m := range in {
			if rerr := st.RecvMsg(reflect.New(reflect.TypeOf(m).Elem()).Interface()); rerr != nil {
				return rerr
			}
		}
		for _, m := range out {
			if serr := st.SendMsg(m); serr != nil {
				return serr
			}
		}
		return err
	})
}

// methodsOfAPI are all methods, and whether they stream.
func methodsOfAPI() map[string]bool {
	out := map[string]bool{}
	for _, d := range []grpc.ServiceDesc{orchv1.Orch_ServiceDesc, orchv1.Agents_ServiceDesc} {
		for _, m := range d.Methods {
			out["/"+d.ServiceName+"/"+m.MethodName] = false
		}
		for _, s := range d.Streams {
			out["/"+d.ServiceName+"/"+s.StreamName] = true
		}
	}
	return out
}

func secretObject() *orchv1.Object {
	return &orchv1.Object{Kind: "Secret", Json: []byte(`{"metadata":{"name":"db","labels":{"a":"` + word + `"}},"data":{"password":"` + word + `"}}`)}
}

func token(t *testing.T) (text, id string) {
	t.Helper()
	text, record, err := pki.NewToken(testCA, pki.JoinNode, noon, noon.Add(time.Hour), 0, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return text, record.ID
}

func csrOf(t *testing.T, id pki.Identity) []byte {
	t.Helper()
	key, err := pki.NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.CSR(key, id)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

// TestEveryMethodIsKnown: each method of both services is a read without a line, or
// a change whose line says what it was about. None can be forgotten: a new one fails
// here until it has a row.
func TestEveryMethodIsKnown(t *testing.T) {
	made, madeID := token(t)
	type row struct {
		in, out         []any
		objects, detail string
	}
	in := func(m ...any) []any { return m }
	ns := "prod"
	table := map[string]row{
		"Orch/Apply": {in: in(&orchv1.ApplyRequest{RequestId: "r1", Objects: []*orchv1.Object{{Kind: "Service", Json: []byte(`{"metadata":{"name":"web","namespace":"prod"}}`)}, secretObject(), {Kind: "Job", Json: []byte(word)}}}),
			out:     in(&orchv1.ApplyResponse{Applied: []*orchv1.Applied{{Outcome: "created"}, {Outcome: "unchanged", Object: secretObject(), Plan: []string{word}}}}),
			objects: "Service prod/web, Secret default/db, Job (unreadable)", detail: "1 created; 1 unchanged"},
		"Orch/Scale":     {in: in(&orchv1.ScaleRequest{Namespace: ns, Name: "web", Replicas: 5}), out: in(&orchv1.ApplyResponse{}), objects: "Service prod/web", detail: "scale to 5"},
		"Orch/Delete":    {in: in(&orchv1.DeleteRequest{Refs: []*orchv1.Ref{{Kind: "Service", Name: "web"}, {Kind: "Job", Namespace: ns, Name: "j"}}}), out: in(&orchv1.DeleteResponse{Deleted: []*orchv1.Ref{{}}, Missing: []*orchv1.Ref{{}}}), objects: "Service default/web, Job prod/j", detail: "1 deleted; 1 missing"},
		"Orch/Rollout":   {in: in(&orchv1.RolloutRequest{Name: "web", Word: "undo", Revision: 3}), objects: "Service default/web", detail: "undo to revision 3"},
		"Orch/Rebalance": {in: in(&orchv1.RebalanceRequest{}), out: in(&orchv1.RebalanceResponse{Moves: []*orchv1.Move{{Namespace: ns, Replica: "web-0"}}}), objects: "Replica prod/web-0", detail: "1 moves"},
		"Orch/NodeWord":  {in: in(&orchv1.NodeWordRequest{Node: "n1", Word: "drain", Deadline: durationpb.New(5 * time.Minute), Force: true}), objects: "Node n1", detail: "drain, deadline 5m0s; forced"},
		"Orch/Exec": {in: in(&orchv1.Frame{Frame: &orchv1.Frame_Exec{Exec: &orchv1.ExecRequest{Replica: "web-0", Container: "main", Command: []string{"sh", "-c", "rm -rf /data"}}}}, &orchv1.Frame{Frame: &orchv1.Frame_Stdin{Stdin: []byte(word)}}),
			out:     in(&orchv1.Frame{Frame: &orchv1.Frame_Stdout{Stdout: []byte(word)}}, &orchv1.Frame{Frame: &orchv1.Frame_End{End: &orchv1.End{ExitCode: 3}}}),
			objects: "Replica default/web-0", detail: `exec sh -c "rm -rf /data"; container main; ended with code 3`},
		"Orch/PortForward": {in: in(&orchv1.Frame{Frame: &orchv1.Frame_PortForward{PortForward: &orchv1.PortForwardRequest{Service: "web", Port: "http"}}}, &orchv1.Frame{Frame: &orchv1.Frame_Data{Data: []byte(word)}}), objects: "Service default/web", detail: "port http"},
		"Orch/LoadImage": {in: in(&orchv1.LoadImageRequest{Data: []byte(word)}), out: in(&orchv1.LoadImageProgress{Node: "n1", State: "sending"}, &orchv1.LoadImageProgress{Node: "n1", State: "loaded", Refs: []string{"web:1"}}, &orchv1.LoadImageProgress{Node: "n2", State: "failed", Message: word}),
			objects: "Image web:1", detail: "failed n2; loaded n1"},
		"Orch/PullImage":   {in: in(&orchv1.PullImageRequest{Ref: "web:1", Nodes: []string{"n1"}, PullSecrets: []string{"reg"}}), out: in(&orchv1.ImageProgress{Node: "n1", State: "pulling"}, &orchv1.ImageProgress{Node: "n1", State: "done"}), objects: "Image web:1, Secret default/reg", detail: "nodes n1; done n1"},
		"Orch/RemoveImage": {in: in(&orchv1.RemoveImageRequest{Ref: "web:1", Force: true}), out: in(&orchv1.ImageProgress{Node: "n1", State: "kept"}), objects: "Image web:1", detail: "all nodes; forced; kept n1"},
		"Orch/CreateToken": {in: in(&orchv1.CreateTokenRequest{Role: "node", Expires: timestamppb.New(noon), MaxUses: 2}), out: in(&orchv1.CreateTokenResponse{Token: made}), objects: "Token " + madeID, detail: "role node, until 2026-11-22T12:00:00Z, 2 uses"},
		"Orch/RevokeToken": {in: in(&orchv1.RevokeTokenRequest{Id: "abc"}), objects: "Token abc"},
		"Orch/CreateUser":  {in: in(&orchv1.CreateUserRequest{Name: "bob", Role: "viewer", Csr: []byte(word), Replace: true}), out: in(&orchv1.CreateUserResponse{Certificate: []byte(word)}), objects: "User bob", detail: "role viewer, replaces the one of that name"},
		"Orch/RemoveUser":  {in: in(&orchv1.RemoveUserRequest{Name: "bob"}), objects: "User bob"},
		"Orch/RotateAuthority": {in: in(&orchv1.RotateAuthorityRequest{}), out: in(&orchv1.RotateAuthorityResponse{Authority: &orchv1.Authority{Hash: "beef"}}),
			objects: "Authority beef"},
		"Orch/RetireAuthority": {in: in(&orchv1.RetireAuthorityRequest{Hash: "beef", Force: true}), objects: "Authority beef", detail: "forced"},
		"Orch/RotateGossipKey": {in: in(&orchv1.RotateGossipKeyRequest{}), out: in(&orchv1.RotateGossipKeyResponse{Key: "cafe"}), objects: "GossipKey cafe"},
		"Orch/RotateSecretKey": {in: in(&orchv1.RotateSecretKeyRequest{}), out: in(&orchv1.RotateSecretKeyResponse{Key: "k2", Versions: 4}), objects: "SecretKey k2", detail: "4 versions encrypted anew"},
		"Orch/Backup":          {in: in(&orchv1.BackupRequest{}), out: in(&orchv1.BackupChunk{Data: []byte(word)}), objects: "Store", detail: "a copy of all of it"},
		"Agents/Join":          {in: in(&orchv1.JoinRequest{Token: made, Name: "n5", Csr: []byte(word)}), out: in(&orchv1.JoinResponse{Certificate: []byte(word)}), objects: "Node n5, Token " + madeID},
		"Agents/Renew":         {in: in(&orchv1.RenewRequest{Csr: csrOf(t, pki.Identity{Kind: pki.Node, Name: "n5"})}), objects: "Node n5"},
	}
	secret := made[strings.LastIndex(made, ".")+1:]
	all := methodsOfAPI()
	for full, streams := range all {
		short := strings.TrimPrefix(full, "/orch.v1.")
		x, changes := table[short]
		m, known := methods[full]
		if !known {
			t.Errorf("%s: say in describe.go what it is", short)
			continue
		}
		if changes != (m.kind == change) {
			t.Errorf("%s: a change: %v by the table here, %v by describe.go", short, changes, m.kind == change)
			continue
		}
		if changes && m.asked == nil && m.told == nil {
			t.Errorf("%s: its line tells nothing", short)
		}
		t.Run(short, func(t *testing.T) {
			for _, end := range []struct {
				err  error
				want Outcome
			}{{nil, OK}, {status.Error(codes.FailedPrecondition, "no"), Refused}, {status.Error(codes.Unavailable, "away"), Failed}, {status.Error(codes.PermissionDenied, "not you"), Refused}, {errors.New("odd"), Failed}} {
				r := newRig(t, nil)
				out := x.out
				if end.err != nil {
					out = nil
				}
				if err := r.call(as(alice), full, streams, x.in, out, end.err); !errors.Is(err, end.err) {
					t.Fatalf("the call: %v", err)
				}
				raw := r.out.String()
				if strings.Contains(raw, word) || strings.Contains(raw, secret) {
					t.Fatalf("a secret is in %s", raw)
				}
				got := r.lines(t)
				forbidden := status.Code(end.err) == codes.PermissionDenied
				if !changes && !forbidden {
					if len(got) != 0 {
						t.Fatalf("a read has a line: %+v", got)
					}
					continue
				}
				if m.long {
					if len(got) != 2 || got[0].Outcome != Begun || got[0].Call == "" || got[0].Call != got[1].Call {
						t.Fatalf("want a line of its beginning and one of its end: %+v", got)
					}
					got = got[1:]
				}
				if len(got) != 1 {
					t.Fatalf("%v: %d lines, want one: %+v", end.err, len(got), got)
				}
				l := got[0]
				if l.Outcome != end.want || l.Method != strings.TrimPrefix(full, "/") || l.Who != (Who{"user", "alice", "admin"}) || l.From != "10.0.0.7:4711" || l.TookMS <= 0 || l.Time.IsZero() {
					t.Errorf("%v: %+v", end.err, l)
				}
				if end.err != nil {
					if l.Code != status.Code(end.err).String() || l.Message == "" {
						t.Errorf("%v: code %q, message %q", end.err, l.Code, l.Message)
					}
					continue
				}
				if o := strings.Join(l.Objects, ", "); o != x.objects || l.Detail != x.detail {
					t.Errorf("objects %q, detail %q\n   want %q, detail %q", o, l.Detail, x.objects, x.detail)
				}
			}
		})
	}
	for full := range methods {
		if _, ok := all[full]; !ok {
			t.Errorf("%s is described and does not exist", full)
		}
	}
	// One that nobody described is a change all the same.
	r := newRig(t, nil)
	if err := r.call(as(alice), "/orch.v1.Orch/Invented", false, nil, nil, nil); err != nil {
		t.Fatal(err)
	}
	if got := r.lines(t); len(got) != 1 || got[0].Outcome != OK {
		t.Errorf("an unknown method: %+v", got)
	}
}

func TestDryRunsAndRetries(t *testing.T) {
	r := newRig(t, nil)
	const apply = "/orch.v1.Orch/Apply"
	for _, x := range []*orchv1.ApplyRequest{{DryRun: true}, {RequestId: "a"}, {RequestId: "a"}, {RequestId: "b"}, {}, {}} {
		if err := r.call(as(alice), apply, false, []any{x}, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.call(as(pki.Identity{Kind: pki.User, Name: "bob", Role: pki.Operator}), apply, false, []any{&orchv1.ApplyRequest{RequestId: "a"}}, nil, nil); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range r.lines(t) {
		got = append(got, fmt.Sprintf("%s %q %v", l.Who.Name, l.RequestID, l.Retry))
	}
	want := []string{`alice "a" false`, `alice "a" true`, `alice "b" false`, `alice "" false`, `alice "" false`, `bob "a" false`}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestNote(t *testing.T) {
	r := newRig(t, nil)
	_, err := r.Unary(as(alice), &orchv1.ScaleRequest{Name: "web", Replicas: 5}, &grpc.UnaryServerInfo{FullMethod: orchv1.Orch_Scale_FullMethodName},
		func(ctx context.Context, _ any) (any, error) {
			Note(ctx, "from %d", 3)
			return nil, nil
		})
	if err != nil {
		t.Fatal(err)
	}
	if got := r.lines(t); len(got) != 1 || got[0].Detail != "scale to 5; from 3" {
		t.Errorf("%+v", got)
	}
	Note(context.Background(), "nobody listens")
}

// TestGate: what the gate refuses has a line, whatever the method; what it lets
// through has none of its own.
func TestGate(t *testing.T) {
	r := newRig(t, nil)
	deny := status.Error(codes.PermissionDenied, "user eve (viewer) may not do this")
	gate := r.Tap(func(ctx context.Context, info *tap.Info) (context.Context, error) {
		if strings.HasSuffix(info.FullMethodName, "/Version") {
			return ctx, nil
		}
		return ctx, deny
	})
	eve := as(pki.Identity{Kind: pki.User, Name: "eve", Role: pki.Viewer})
	for _, m := range []string{orchv1.Orch_Version_FullMethodName, orchv1.Orch_Delete_FullMethodName, orchv1.Orch_ListTokens_FullMethodName, "/orch.v1.Orch/Invented"} {
		if _, err := gate(eve, &tap.Info{FullMethodName: m}); (err == nil) != strings.HasSuffix(m, "/Version") {
			t.Fatal(err)
		}
	}
	var got []string
	for _, l := range r.lines(t) {
		got = append(got, l.Who.Name+" "+l.Method+" "+string(l.Outcome)+" "+l.Code)
	}
	want := []string{"eve orch.v1.Orch/Delete refused PermissionDenied", "eve orch.v1.Orch/ListTokens refused PermissionDenied", "eve orch.v1.Orch/Invented refused PermissionDenied"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// TestStrangersDoNotFill: who has no certificate can write some lines a minute, and
// what was left out is counted; users have all of theirs.
func TestStrangersDoNotFill(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Now = nil })
	r.cfg.Now = func() time.Time { return r.now }
	join := []any{&orchv1.JoinRequest{Name: "n5", Token: "guess"}}
	no := status.Error(codes.FailedPrecondition, "no")
	for range 1000 {
		_ = r.call(as(pki.Identity{}), orchv1.Agents_Join_FullMethodName, false, join, nil, no)
	}
	for range 2 * noiseLines {
		_ = r.call(as(alice), orchv1.Orch_Apply_FullMethodName, false, []any{&orchv1.ApplyRequest{}}, nil, no)
	}
	r.now = r.now.Add(noiseSpan)
	_ = r.call(as(pki.Identity{}), orchv1.Agents_Join_FullMethodName, false, join, nil, no)
	got := r.lines(t)
	if len(got) != noiseLines+2*noiseLines+1 {
		t.Fatalf("%d lines", len(got))
	}
	last := got[len(got)-1]
	if last.LeftOut != 1000-noiseLines || last.Detail != "what it gave is no token" || last.Objects[0] != "Node n5" {
		t.Errorf("the last: %+v", last)
	}
	for i := range 3 * sourcesMax { // many hosts
		r.noise.admit(fmt.Sprint(i), r.now)
	}
	if n := len(r.noise.sources); n > sourcesMax+1 {
		t.Errorf("%d sources are remembered", n)
	}
}

// TestTheForbiddenDoNotFill: nor can a user who may not do what he tries, again and again.
func TestTheForbiddenDoNotFill(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Now = nil })
	r.cfg.Now = func() time.Time { return r.now }
	for range 1000 {
		_ = r.call(as(alice), orchv1.Orch_ListTokens_FullMethodName, false, nil, nil, status.Error(codes.PermissionDenied, "no"))
	}
	_ = r.call(as(alice), orchv1.Orch_Apply_FullMethodName, false, []any{&orchv1.ApplyRequest{}}, nil, nil)
	r.now = r.now.Add(noiseSpan)
	_ = r.call(as(alice), orchv1.Orch_ListTokens_FullMethodName, false, nil, nil, status.Error(codes.PermissionDenied, "no"))
	got := r.lines(t)
	if len(got) != noiseLines+2 || got[noiseLines].Outcome != OK || got[noiseLines+1].LeftOut != 1000-noiseLines {
		t.Errorf("%d lines, the last: %+v", len(got), got[len(got)-1])
	}
}

// TestGoesOnBehindATornLine: what a full disk or a power cut left of a line takes no other
// with it when the controller starts again.
func TestGoesOnBehindATornLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	if err := os.WriteFile(path, []byte("{\"time\":\"2026-11"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		l, err := Open(Config{Path: path, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(l.Write(Line{Method: "m", Outcome: OK}), l.Close()); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if err != nil || len(lines) != 3 || !json.Valid([]byte(lines[1])) || !json.Valid([]byte(lines[2])) {
		t.Errorf("%q, %v", lines, err)
	}
}

// full is a disk without room.
type full struct {
	room bool
	got  bytes.Buffer
}

func (f *full) Write(p []byte) (int, error) {
	if f.room {
		return f.got.Write(p)
	}
	n, _ := f.got.Write(p[:len(p)/2])
	return n, errors.New("no space left on device")
}

func TestDiskIsFull(t *testing.T) {
	for _, required := range []bool{false, true} {
		disk := &full{}
		r := newRig(t, func(c *Config) { c.Out, c.Required = disk, required })
		done := 0
		change := func() error {
			_, err := r.Unary(as(alice), &orchv1.ScaleRequest{Name: "web"}, &grpc.UnaryServerInfo{FullMethod: orchv1.Orch_Scale_FullMethodName},
				func(context.Context, any) (any, error) { done++; return nil, nil })
			return err
		}
		for range 3 {
			err := change()
			if (err != nil) != required {
				t.Fatalf("required %v: %v", required, err)
			}
			if required && (status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "no space left") || !strings.Contains(err.Error(), "--audit-required")) {
				t.Fatal(err)
			}
		}
		if required != (done == 0) {
			t.Errorf("required %v: %d were done", required, done)
		}
		if n := strings.Count(r.log.String(), "\n"); n != 1 || !strings.Contains(r.log.String(), "level=ERROR") {
			t.Errorf("the daemon's log was told %d times: %s", n, r.log.String())
		}
		if written, failed := r.Counts(); written != 0 || failed < 3 {
			t.Errorf("%d written, %d failed", written, failed)
		}
		disk.room = true
		if err := change(); err != nil {
			t.Fatal(err)
		}
		// What was cut off spoils no line but its own.
		good := 0
		for line := range strings.Lines(disk.got.String()) {
			if json.Valid([]byte(line)) {
				good++
			}
		}
		if want := map[bool]int{false: 1, true: 2}[required]; good != want {
			t.Errorf("required %v: %d whole lines, want %d:\n%s", required, good, want, disk.got.String())
		}
	}
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sub", "audit.log")
	r := newRig(t, func(c *Config) { c.Path = path })
	if err := r.Write(Line{Method: "x", Outcome: OK, Message: strings.Repeat("ü", textMax)}); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	again := newRig(t, func(c *Config) { c.Path = path })
	if err := again.Write(Line{Method: "y", Outcome: OK}); err != nil {
		t.Fatal(err)
	}
	again.Close()
	b, err := os.ReadFile(path)
	if err != nil || bytes.Count(b, []byte("\n")) != 2 || len(b) > textMax+1000 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if _, err := Open(Config{Path: dir}); err == nil || !strings.Contains(err.Error(), "--audit-log") {
		t.Errorf("a folder as the log: %v", err)
	}
	off := newRig(t, func(c *Config) { c.Path = Off })
	if err := off.call(as(alice), orchv1.Orch_Apply_FullMethodName, false, []any{&orchv1.ApplyRequest{}}, nil, nil); err != nil || off.out.Len() != 0 {
		t.Errorf("off: %v, %s", err, off.out.String())
	}
}
