package session

import (
	"context"
	"crypto/rand"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/agent/agenttest"
	"github.com/orchctl/orch/internal/pki"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// authority is a cluster's CA with a controller that signs.
type authority struct {
	t  *testing.T
	ca *pki.CA
	c  *agenttest.Controller
}

func newAuthority(t *testing.T, cluster string) *authority {
	t.Helper()
	now := time.Now()
	ca, err := pki.NewCA(cluster, now, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	files := pki.Files{Dir: t.TempDir()}
	key, err := files.EnsureKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	self := pki.Identity{Kind: pki.Controller, Name: "c1"}
	csr, err := pki.CSR(key, self)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Sign(csr, self, pki.ServingValidity, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := files.SaveCert(ca.CertPEM, cert); err != nil {
		t.Fatal(err)
	}
	b, err := files.Load()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := b.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	var src pki.Source
	src.Set(pair)
	a := &authority{t: t, ca: ca, c: agenttest.New(t)}
	a.c.OnJoin = func(r *orchv1.JoinRequest) (*orchv1.JoinResponse, error) {
		return a.sign(r.GetCsr(), pki.ServingValidity)
	}
	a.c.Serve(credentials.NewTLS(pki.ServerTLS(&src, ca.Pool, nil)))
	t.Cleanup(a.c.Stop)
	return a
}

func (a *authority) sign(csr []byte, validity time.Duration) (*orchv1.JoinResponse, error) {
	req, err := pki.ParseCSR(csr)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	cert, err := a.ca.Sign(csr, req.Identity, validity, time.Now())
	if err != nil {
		return nil, err
	}
	return &orchv1.JoinResponse{Certificate: cert, Ca: a.ca.CertPEM}, nil
}

func (a *authority) token() string {
	text, _, err := pki.NewToken(a.ca, pki.JoinNode, time.Now(), time.Now().Add(time.Hour), 0, rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return text
}

func open(t *testing.T, dir, name string, a *authority) (*Identity, bool, error) {
	t.Helper()
	return OpenIdentity(dir, name, slog.New(slog.DiscardHandler), a.c.DialOptions()...)
}

func TestJoinAndRenew(t *testing.T) {
	a := newAuthority(t, "one")
	dir := t.TempDir()
	id, joined, err := open(t, dir, "n1", a)
	if err != nil || joined {
		t.Fatalf("joined %v, %v", joined, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := id.Join(ctx, []string{"c1:7070"}, a.token()); err != nil {
		t.Fatal(err)
	}
	again, joined, err := open(t, dir, "n1", a)
	if err != nil || !joined {
		t.Fatalf("joined %v, %v", joined, err)
	}
	if _, _, err := open(t, dir, "n2", a); err == nil || !strings.Contains(err.Error(), "not of node n2") {
		t.Errorf("another name: %v", err)
	}
	// Renewal comes with the certificate that it has, and keeps the key.
	before := again.source.Get().Leaf
	var caller pki.Identity
	a.c.OnRenew = func(ctx context.Context, r *orchv1.RenewRequest) (*orchv1.JoinResponse, error) {
		p, _ := peer.FromContext(ctx)
		caller, err = pki.IdentityFromState(p.AuthInfo.(credentials.TLSInfo).State)
		if err != nil {
			return nil, err
		}
		return a.sign(r.GetCsr(), 2*pki.ServingValidity)
	}
	if err := again.Renew(ctx, []string{"c1:7070"}); err != nil {
		t.Fatal(err)
	}
	after := again.source.Get().Leaf
	if caller.Name != "n1" || !after.NotAfter.After(before.NotAfter) || pki.PublicKeyHash(after) != pki.PublicKeyHash(before) {
		t.Errorf("renewed by %v, ends %s, before %s", caller, after.NotAfter, before.NotAfter)
	}
}

func TestJoinRefused(t *testing.T) {
	a, other := newAuthority(t, "one"), newAuthority(t, "two")
	refuse := func(c codes.Code, why string) func(*orchv1.JoinRequest) (*orchv1.JoinResponse, error) {
		return func(*orchv1.JoinRequest) (*orchv1.JoinResponse, error) { return nil, status.Error(c, why) }
	}
	for name, x := range map[string]struct {
		token  string
		onJoin func(*orchv1.JoinRequest) (*orchv1.JoinResponse, error)
		want   string
	}{
		"no token":          {"hello", nil, "orchctl token create --role node"},
		"another cluster's": {other.token(), nil, "does not belong to the token's cluster"},
		"expired":           {a.token(), refuse(codes.PermissionDenied, "expired"), "expired"},
		"name taken":        {a.token(), refuse(codes.AlreadyExists, "name n1 is bound to another key"), "bound to another key"},
		"another CA": {a.token(), func(r *orchv1.JoinRequest) (*orchv1.JoinResponse, error) {
			return other.sign(r.GetCsr(), time.Hour)
		}, "does not belong to the token's cluster"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			id, _, err := open(t, t.TempDir(), "n1", a)
			if err != nil {
				t.Fatal(err)
			}
			a.c.OnJoin = x.onJoin
			if err := id.Join(ctx, []string{"c1:7070"}, x.token); err == nil || !strings.Contains(err.Error(), x.want) || strings.Contains(err.Error(), x.token) {
				t.Errorf("got %v, want %q in it", err, x.want)
			}
		})
	}
}

// A clock that is set, or a machine that was suspended, does not let the certificate end.
func TestRenewalFollowsTheClock(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t, "one")
		id, _, err := open(t, dir, "n1", a)
		if err != nil {
			t.Fatal(err)
		}
		if err := id.Join(t.Context(), []string{"c1:7070"}, a.token()); err != nil {
			t.Fatal(err)
		}
		var renewals atomic.Int64
		a.c.OnRenew = func(_ context.Context, r *orchv1.RenewRequest) (*orchv1.JoinResponse, error) {
			renewals.Add(1)
			return a.sign(r.GetCsr(), 3*pki.ServingValidity)
		}
		var jump atomic.Int64
		id.now = func() time.Time { return time.Now().Add(time.Duration(jump.Load())) }
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- id.Run(ctx, []string{"c1:7070"}) }()
		time.Sleep(10 * clockLook)
		if n := renewals.Load(); n > 0 {
			t.Errorf("%d renewals without need", n)
		}
		jump.Store(int64(pki.ServingValidity - time.Hour))
		time.Sleep(2 * clockLook)
		if n := renewals.Load(); n != 1 {
			t.Errorf("%d renewals an hour before its end", n)
		}
		cancel()
		<-done
	})
}
