package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/view"
	"github.com/orchctl/orch/internal/pki"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// leader notes what it is told.
type leader struct{ told []core.Event }

func (l *leader) Ask(_ context.Context, event func(uint64) core.Event) (controller.Answer, error) {
	l.told = append(l.told, event(7))
	return controller.Answer{}, nil
}

func (l *leader) Status() controller.Status { return controller.Status{} }

func verdict(node string, seq uint64, to api.Verdict) core.Entry {
	r := &api.VerdictRecord{Seq: seq, Node: node, From: api.VerdictHealthy, To: to, Why: "silent"}
	return core.Entry{Key: core.ViewKey{Kind: api.KindVerdict, Name: fmt.Sprintf("%s/%d", node, seq)}, Object: r}
}

// TestVerdictsAndFleet: they are read like nodes, outside of namespaces, a node's
// verdicts in their order and without those of its neighbours by name.
func TestVerdictsAndFleet(t *testing.T) {
	v := view.New()
	v.Publish(core.Publish{Put: []core.Entry{verdict("n1", 9, api.VerdictSuspect), verdict("n1", 10, api.VerdictBack), verdict("n01", 11, api.VerdictSuspect),
		verdict("n10", 12, api.VerdictSuspect), verdict("n2", 2, api.VerdictDead),
		{Key: core.ViewKey{Kind: api.KindFleet, Name: "fleet"}, Object: &api.Fleet{Status: api.FleetStatus{Spares: 3}}}}})
	s := New(Config{View: v})
	node := func(name string) *orchv1.Ref { return &orchv1.Ref{Kind: api.KindNode, Name: name} }
	for _, c := range []struct {
		r    *orchv1.ListRequest
		want string // the sequence numbers, or the error after "!"
	}{
		{&orchv1.ListRequest{Kind: api.KindVerdict, About: node("n1")}, "9 10"},
		{&orchv1.ListRequest{Kind: api.KindVerdict, About: node("n1"), Namespace: "default"}, "9 10"},
		{&orchv1.ListRequest{Kind: api.KindVerdict, About: node("n01")}, "11"},
		{&orchv1.ListRequest{Kind: api.KindVerdict, About: node("n")}, ""},
		{&orchv1.ListRequest{Kind: api.KindVerdict, Namespace: "default"}, "9 10 11 2 12"},
		{&orchv1.ListRequest{Kind: api.KindVerdict, About: node("")}, "!verdicts are about nodes"},
		{&orchv1.ListRequest{Kind: api.KindVerdict, About: &orchv1.Ref{Kind: api.KindService, Name: "web"}}, "!verdicts are about nodes"},
		{&orchv1.ListRequest{Kind: api.KindVerdict, Selector: "a=b"}, "!no labels"},
		{&orchv1.ListRequest{Kind: api.KindFleet, Selector: "a=b"}, "!no labels"},
		{&orchv1.ListRequest{Kind: api.KindFleet, About: node("n1")}, "!only events, verdicts, endpoints, revisions and outcomes"},
	} {
		answer, err := s.List(t.Context(), c.r)
		var seqs []string
		for _, o := range answer.GetObjects() {
			var r api.VerdictRecord
			if err := json.Unmarshal(o.Json, &r); err != nil || o.Kind != api.KindVerdict {
				t.Fatal(o, err)
			}
			seqs = append(seqs, fmt.Sprint(r.Seq))
		}
		got := strings.Join(seqs, " ")
		if want, bad := strings.CutPrefix(c.want, "!"); bad {
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), want) {
				t.Errorf("%v: error %v, want %s", c.r, err, want)
			}
		} else if err != nil || got != c.want {
			t.Errorf("%v: got %s, %v; want %s", c.r, got, err, c.want)
		}
	}
	for _, ref := range []*orchv1.Ref{{Kind: api.KindVerdict, Name: "n2/2"}, {Kind: api.KindVerdict, Namespace: "shop", Name: "n2/2"}, {Kind: api.KindFleet, Namespace: "shop", Name: "fleet"}} {
		if o, err := s.Get(t.Context(), &orchv1.GetRequest{Ref: ref}); err != nil || o.Kind != ref.Kind {
			t.Errorf("get %v: %v, %v", ref, o, err)
		}
	}
	if _, err := s.Get(t.Context(), &orchv1.GetRequest{Ref: &orchv1.Ref{Kind: api.KindVerdict, Name: "n2/3"}}); status.Code(err) != codes.NotFound {
		t.Errorf("a verdict that is not there: %v", err)
	}
}

func as(ctx context.Context, id string) context.Context {
	u, err := url.Parse("orch://lab/" + id)
	if err != nil {
		panic(err)
	}
	cert := &x509.Certificate{URIs: []*url.URL{u}}
	return peer.NewContext(ctx, &peer.Peer{AuthInfo: credentials.TLSInfo{State: tls.ConnectionState{
		PeerCertificates: []*x509.Certificate{cert}, VerifiedChains: [][]*x509.Certificate{{cert}}}}})
}

// TestThaw: it is said of the fleet, and only by who may void replicas.
func TestThaw(t *testing.T) {
	l := &leader{}
	s := New(Config{Leader: l})
	for _, c := range []struct {
		who  string
		r    *orchv1.NodeWordRequest
		code codes.Code
	}{
		{"user/bob?role=operator", &orchv1.NodeWordRequest{Word: "thaw"}, codes.PermissionDenied},
		{"user/bob?role=operator", &orchv1.NodeWordRequest{Word: "dead", Node: "n1"}, codes.PermissionDenied},
		{"user/eve?role=" + string(pki.Admin), &orchv1.NodeWordRequest{Word: "thaw", Node: "n1"}, codes.InvalidArgument},
		{"user/eve?role=admin", &orchv1.NodeWordRequest{Word: "thaw", Force: true}, codes.InvalidArgument},
		{"user/eve?role=admin", &orchv1.NodeWordRequest{Word: "thaw"}, codes.OK},
	} {
		if _, err := s.NodeWord(as(t.Context(), c.who), c.r); status.Code(err) != c.code {
			t.Errorf("%s says %v: %v, want %s", c.who, c.r, err, c.code)
		}
	}
	if _, err := s.NodeWord(as(t.Context(), "user/eve?role=admin"), &orchv1.NodeWordRequest{Word: "dead", Node: "n1"}); err != nil {
		t.Error(err)
	}
	if _, err := s.NodeWord(as(t.Context(), "user/bob?role=operator"), &orchv1.NodeWordRequest{Word: "cordon", Node: "n1"}); err != nil {
		t.Error(err)
	}
	want := []core.Event{core.Thaw{Ticket: 7, By: "eve"}, core.NodeWord{Ticket: 7, Node: "n1", Word: "dead", By: "eve"}, core.NodeWord{Ticket: 7, Node: "n1", Word: "cordon", By: "user bob"}}
	if !slices.Equal(l.told, want) {
		t.Errorf("told %v, want %v", l.told, want)
	}
}
