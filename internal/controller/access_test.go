package controller_test

import (
	"crypto/rand"
	"crypto/tls"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/internal/pki"
	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// Who comes with the wrong certificate, or none, gets nowhere.
func TestCertificates(t *testing.T) {
	r := newRig(t)
	foreign, err := pki.NewCA("orch", time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	self := r.authority.CA()
	node := pki.Identity{Kind: pki.Node, Name: "n1"}
	for _, c := range []struct {
		name            string
		conf            *tls.Config
		version, create codes.Code // of Orch.Version, Orch.CreateToken
		session         codes.Code // of Agents.Session
	}{
		{"none", r.stranger(), codes.Unauthenticated, codes.Unauthenticated, codes.Unauthenticated},
		{"foreign", r.credentials(foreign, user(pki.Admin), time.Hour), codes.Unavailable, codes.Unavailable, codes.Unavailable},
		{"expired", r.credentials(self, user(pki.Admin), -time.Second), codes.Unavailable, codes.Unavailable, codes.Unavailable},
		{"viewer", r.credentials(self, user(pki.Viewer), time.Hour), codes.OK, codes.PermissionDenied, codes.PermissionDenied},
		{"operator", r.credentials(self, user(pki.Operator), time.Hour), codes.OK, codes.PermissionDenied, codes.PermissionDenied},
		{"admin", r.credentials(self, user(pki.Admin), time.Hour), codes.OK, codes.OK, codes.PermissionDenied},
		{"node that never joined", r.credentials(self, node, time.Hour), codes.PermissionDenied, codes.PermissionDenied, codes.PermissionDenied},
		{"controller", r.credentials(self, pki.Identity{Kind: pki.Controller, Name: "c2"}, time.Hour), codes.PermissionDenied, codes.PermissionDenied, codes.PermissionDenied},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := r.dial(c.conf)
			_, err := orchv1.NewOrchClient(conn).Version(r.ctx, &orchv1.VersionRequest{})
			if status.Code(err) != c.version {
				t.Errorf("version: got %v, want %s", err, c.version)
			}
			_, err = orchv1.NewOrchClient(conn).CreateToken(r.ctx, &orchv1.CreateTokenRequest{Role: "node"})
			if status.Code(err) != c.create {
				t.Errorf("create token: got %v, want %s", err, c.create)
			}
			st, err := orchv1.NewAgentsClient(conn).Session(r.ctx)
			if err == nil {
				_, err = st.Recv()
			}
			if status.Code(err) != c.session {
				t.Errorf("session: got %v, want %s", err, c.session)
			}
		})
	}
}

func TestNodeWords(t *testing.T) {
	r := newRig(t)
	a := r.agent("n1")
	operator := orchv1.NewOrchClient(r.dial(r.credentials(r.authority.CA(), user(pki.Operator), time.Hour)))
	for _, word := range []string{"cordon", "uncordon"} {
		if _, err := operator.NodeWord(r.ctx, &orchv1.NodeWordRequest{Node: "n1", Word: word}); err != nil {
			t.Errorf("%s: %v", word, err)
		}
	}
	for _, word := range []string{"dead", "remove"} {
		_, err := operator.NodeWord(r.ctx, &orchv1.NodeWordRequest{Node: "n1", Word: word})
		want(t, err, codes.PermissionDenied, "admin")
	}
	_, err := r.admin.NodeWord(r.ctx, &orchv1.NodeWordRequest{Node: "n1", Word: "bless"})
	want(t, err, codes.InvalidArgument)
	_, err = r.admin.NodeWord(r.ctx, &orchv1.NodeWordRequest{Node: "n9", Word: "remove"})
	want(t, err, codes.NotFound)
	_, err = r.admin.NodeWord(r.ctx, &orchv1.NodeWordRequest{Node: "n1", Word: "remove"})
	want(t, err, codes.FailedPrecondition)
	a.cancel()
	slow, err := orchv1.NewAgentsClient(a.conn).Session(r.ctx) // opened, and says Hello only afterwards
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.admin.NodeWord(r.ctx, &orchv1.NodeWordRequest{Node: "n1", Word: "dead", Force: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.admin.NodeWord(r.ctx, &orchv1.NodeWordRequest{Node: "n1", Word: "remove"}); err != nil {
		t.Fatal(err)
	}
	hello := wire.Hello{BootID: "boot", Address: "127.0.0.1"}
	if err := slow.Send(&orchv1.AgentMessage{Message: &orchv1.AgentMessage_Hello{Hello: hello.ToPB()}}); err != nil {
		t.Fatal(err)
	}
	_, err = slow.Recv()
	want(t, err, codes.PermissionDenied, "removed")
	// Its certificate lasts for weeks, but the name is not its own any more.
	st, err := orchv1.NewAgentsClient(a.conn).Session(r.ctx)
	if err == nil {
		_, err = st.Recv()
	}
	want(t, err, codes.PermissionDenied, "removed")
	// Another machine may have the name now.
	if _, err := r.join(r.token(), "n1", newKey(t)); err != nil {
		t.Errorf("join under the freed name: %v", err)
	}
}

func TestJoins(t *testing.T) {
	r := newRig(t)
	key, tok := newKey(t), r.token()
	if _, err := r.join(tok, "n1", key); err != nil {
		t.Fatal(err)
	}
	if _, err := r.join(tok, "n1", key); err != nil {
		t.Errorf("a retry with the same key: %v", err)
	}
	_, err := r.join(tok, "n1", newKey(t))
	want(t, err, codes.AlreadyExists, "n1", "orchctl node remove n1")

	list, err := r.admin.ListTokens(r.ctx, &orchv1.ListTokensRequest{})
	if err != nil || len(list.Tokens) != 1 || list.Tokens[0].Uses != 1 {
		t.Errorf("tokens: %v, %v; want one, used once", list, err)
	}
	// What a term knew of tokens and names, the next one knows.
	r.store.UnknownNext(false)
	r.admin.CreateToken(r.ctx, &orchv1.CreateTokenRequest{Role: "node"})
	r.eventually("another term leads", func() bool { s := r.ctl.Status(); return s.Leading && s.Term == 2 })
	_, err = r.join(tok, "n1", newKey(t))
	want(t, err, codes.AlreadyExists)

	for id := range 2 { // twice: revoking again is no error
		if _, err := r.admin.RevokeToken(r.ctx, &orchv1.RevokeTokenRequest{Id: list.Tokens[0].Id}); err != nil {
			t.Errorf("revoke %d: %v", id, err)
		}
	}
	_, err = r.join(tok, "n2", newKey(t))
	want(t, err, codes.PermissionDenied, "revoked", "orchctl token create --role node")
	_, err = r.admin.RevokeToken(r.ctx, &orchv1.RevokeTokenRequest{Id: "nothing"})
	want(t, err, codes.NotFound)

	ctl, err := r.admin.CreateToken(r.ctx, &orchv1.CreateTokenRequest{Role: "controller"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.join(ctl.Token, "c2", newKey(t))
	want(t, err, codes.PermissionDenied, "is for a controller, and this is a node", "orchctl token create --role node")
	_, err = r.admin.CreateToken(r.ctx, &orchv1.CreateTokenRequest{Role: "king"})
	want(t, err, codes.InvalidArgument)
	_, err = r.join("orch1.nonsense", "n3", newKey(t))
	want(t, err, codes.InvalidArgument)
	_, err = r.join(r.token(), "leader", newKey(t))
	want(t, err, codes.InvalidArgument)
}
