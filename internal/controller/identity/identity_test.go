package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orchctl/orch/internal/clientconfig"
	"github.com/orchctl/orch/internal/pki"
	"github.com/orchctl/orch/internal/store"
	"github.com/orchctl/orch/internal/store/mem"
)

// direct writes at once, or fails with err.
type direct struct {
	store store.Store
	err   error
}

func (d *direct) Write(ctx context.Context, ops ...store.Op) (func(context.Context) error, error) {
	if d.err != nil {
		return nil, d.err
	}
	_, err := d.store.Txn(ctx, store.Txn{Then: ops})
	return func(context.Context) error { return err }, nil
}

type world struct {
	*Authority
	t      *testing.T
	store  *mem.Store
	writer *direct
	now    time.Time
	dir    string
}

func newWorld(t *testing.T) *world { return newWorldIn(t, t.TempDir()) }

func newWorldIn(t *testing.T, dir string) *world {
	w := &world{t: t, store: mem.New(), now: time.Now(), dir: dir}
	w.writer = &direct{store: w.store}
	w.reopen()
	return w
}

// reopen is a restart of the controller.
func (w *world) reopen() {
	w.t.Helper()
	var err error
	w.Authority, err = Open(context.Background(), Config{Store: w.store, Dir: w.dir, Now: func() time.Time { return w.now }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		w.t.Fatal(err)
	}
	kvs, _, err := w.store.Range(context.Background(), Prefix)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.Begin(kvs, w.writer); err != nil {
		w.t.Fatal(err)
	}
}

func key(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := pki.NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func request(t *testing.T, k *ecdsa.PrivateKey, kind pki.Kind, name string) []byte {
	t.Helper()
	csr, err := pki.CSR(k, pki.Identity{Kind: kind, Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

func (w *world) token(role pki.JoinRole, life time.Duration) string {
	w.t.Helper()
	text, err := w.CreateToken(context.Background(), role, w.now.Add(life), 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return text
}

func TestTheFirstMakesTheCA(t *testing.T) {
	w := newWorld(t)
	hash, gossip := w.CA().Hash(), string(w.GossipKey())
	w.reopen()
	if w.CA().Hash() != hash || string(w.GossipKey()) != gossip || len(gossip) != gossipKeyBytes {
		t.Error("a restart made another CA or gossip key")
	}
	// Another controller that lacks the seal key must not go on.
	_, err := Open(context.Background(), Config{Store: w.store, Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if !errors.Is(err, pki.ErrSealed) || !strings.Contains(err.Error(), "seal.key") {
		t.Errorf("without the seal key: %v", err)
	}
	kvs, _, _ := w.store.Range(context.Background(), "")
	for _, kv := range kvs {
		if strings.Contains(string(kv.Value), "PRIVATE KEY") {
			t.Errorf("%s holds a key in the clear", kv.Key)
		}
	}
	if info, err := os.Stat(filepath.Join(w.dir, sealKeyFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("seal key: %v, %v", info, err)
	}
}

func TestJoinErrors(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	good := w.token(pki.JoinNode, time.Hour)
	short := w.token(pki.JoinNode, time.Minute)
	other := newWorld(t)
	k := key(t)
	w.now = w.now.Add(2 * time.Minute)
	flip := func(s string) string {
		last := "a"
		if strings.HasSuffix(s, "a") {
			last = "q" // the other spelling of the last bits is refused as damaged
		}
		return s[:len(s)-10] + "aaaaaaaaa" + last
	}
	for _, c := range []struct {
		name, token, node string
		csr               []byte
		want              error
	}{
		{"no token", "", "n1", request(t, k, pki.Node, "n1"), ErrInvalid},
		{"another cluster's", other.token(pki.JoinNode, time.Hour), "n1", request(t, k, pki.Node, "n1"), ErrRefused},
		{"expired", short, "n1", request(t, k, pki.Node, "n1"), pki.ErrTokenExpired},
		{"wrong secret", flip(good), "n1", request(t, k, pki.Node, "n1"), nil},
		{"no request", good, "n1", nil, ErrInvalid},
		{"another name", good, "n1", request(t, k, pki.Node, "n2"), ErrInvalid},
		{"as a controller", good, "n1", request(t, k, pki.Controller, "n1"), ErrInvalid},
		{"reserved", good, "leader", request(t, k, pki.Node, "leader"), ErrInvalid},
		{"no name", good, "", request(t, k, pki.Node, "n1"), ErrInvalid},
		{"a controller's token", w.token(pki.JoinController, time.Hour), "c2", request(t, k, pki.Controller, "c2"), ErrRefused},
	} {
		cert, err := w.Join(ctx, c.token, c.node, c.csr)
		if err == nil || cert != nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if len(w.book.names) != 0 {
		t.Errorf("names are bound: %v", w.book.names)
	}
	// A write that fails gives no certificate.
	w.writer.err = errors.New("lost")
	if cert, err := w.Join(ctx, good, "n1", request(t, k, pki.Node, "n1")); err == nil || cert != nil {
		t.Errorf("join whose write failed: %v", err)
	}
	w.End()
	if _, err := w.Join(ctx, good, "n1", request(t, k, pki.Node, "n1")); !errors.Is(err, ErrNotLeading) {
		t.Errorf("join without a leader: %v", err)
	}
}

func TestRenewal(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	k := key(t)
	pem, err := w.Join(ctx, w.token(pki.JoinNode, time.Hour), "n1", request(t, k, pki.Node, "n1"))
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := pki.ParseCert(pem)
	if err := w.Bound("n1", cert); err != nil {
		t.Error(err)
	}
	w.now = w.now.Add(pki.ServingValidity + pki.RenewGrace - time.Hour)
	w.reopen()
	if _, err := w.Renew(ctx, request(t, k, pki.Node, "n1")); err != nil {
		t.Errorf("within the grace: %v", err)
	}
	if _, err := w.Renew(ctx, request(t, key(t), pki.Node, "n1")); !errors.Is(err, ErrRefused) {
		t.Errorf("with another key: %v", err)
	}
	w.now = w.now.Add(pki.ServingValidity + pki.RenewGrace + time.Hour)
	if _, err := w.Renew(ctx, request(t, k, pki.Node, "n1")); !errors.Is(err, ErrRefused) {
		t.Errorf("after the grace: %v", err)
	}
	if known, err := w.Forget(ctx, "n1"); !known || err != nil {
		t.Errorf("forget: %v, %v", known, err)
	}
	if err := w.Bound("n1", cert); !errors.Is(err, ErrRefused) {
		t.Errorf("a removed node: %v", err)
	}
}

func TestFiles(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	token, admin := filepath.Join(t.TempDir(), "deep", "token"), filepath.Join(t.TempDir(), "config.yaml")
	write := func() (string, clientconfig.Context) {
		t.Helper()
		if err := errors.Join(w.WriteToken(ctx, token, pki.JoinNode), w.WriteAdminContext(context.Background(), admin, "orch", []string{"unix:///x", "a:1"})); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(token)
		if err != nil {
			t.Fatal(err)
		}
		c, err := clientconfig.Load(admin)
		if err != nil {
			t.Fatal(err)
		}
		x, err := c.Context("")
		if err != nil {
			t.Fatal(err)
		}
		return string(text), x
	}
	text, x := write()
	if _, err := w.Join(ctx, text, "n1", request(t, key(t), pki.Node, "n1")); err != nil {
		t.Errorf("join with the file's token: %v", err)
	}
	w.reopen()
	if again, y := write(); again != text || y.Certificate != x.Certificate {
		t.Error("a restart replaced what was still good")
	}
	w.now = w.now.Add(tokenFileLife - time.Hour)
	if again, y := write(); again == text || y.Certificate != x.Certificate {
		t.Error("a token about to expire stayed, or the admin's certificate went")
	}
	w.now = w.now.Add(pki.UserValidity - adminLeft)
	if _, y := write(); y.Certificate == x.Certificate {
		t.Error("an admin's certificate about to expire stayed")
	}
	for _, path := range []string{token, admin} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	// Another cluster in its place: the context is this one's again.
	w2 := newWorld(t)
	if err := w2.WriteAdminContext(context.Background(), admin, "orch", []string{"b:1"}); err != nil {
		t.Fatal(err)
	}
	c, _ := clientconfig.Load(admin)
	if y, _ := c.Context("orch"); y.CA != string(w2.CA().CertPEM) {
		t.Error("the context is still the other cluster's")
	}
}

func TestServingCertificate(t *testing.T) {
	w := newWorld(t)
	s, err := w.Serve("c1", []string{"10.0.0.1", "Host.Example", "not a name", "fe80::1%eth0"})
	if err != nil {
		t.Fatal(err)
	}
	leaf := s.Get().Leaf
	for _, h := range []string{pki.ServerName, "10.0.0.1", "host.example"} {
		if err := leaf.VerifyHostname(h); err != nil {
			t.Error(err)
		}
	}
	if id, err := pki.IdentityOf(leaf); err != nil || id.Kind != pki.Controller {
		t.Errorf("identity %v, %v", id, err)
	}
	if err := s.renew(); err != nil || s.Get().Leaf.SerialNumber.Cmp(leaf.SerialNumber) == 0 {
		t.Errorf("renewal: %v", err)
	}
}

// A caller that is gone leaves no gap between the book and the store.
func TestAGoneCallersRevocationHolds(t *testing.T) {
	w := newWorld(t)
	text := w.token(pki.JoinNode, time.Hour)
	tok, err := pki.ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	w.RevokeToken(ctx, tok.ID) // whether it says so or not, all know the same afterwards
	w.reopen()
	if _, err := w.Join(context.Background(), text, "n1", request(t, key(t), pki.Node, "n1")); !errors.Is(err, ErrRefused) {
		t.Errorf("a revoked token joins after a restart: %v", err)
	}
}

// A clock that is set, or a machine that was suspended, does not leave a controller with a
// certificate that has ended.
func TestServingFollowsTheClock(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorldIn(t, dir)
		var jump atomic.Int64
		w.cfg.Now = func() time.Time { return time.Now().Add(time.Duration(jump.Load())) }
		s, err := w.Serve("c1", nil)
		if err != nil {
			t.Fatal(err)
		}
		before := s.Get()
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		time.Sleep(10 * clockLook)
		synctest.Wait()
		if s.Get() != before {
			t.Error("renewed without need")
		}
		jump.Store(int64(pki.ServingValidity - time.Hour))
		time.Sleep(2 * clockLook)
		synctest.Wait()
		if s.Get() == before {
			t.Error("an hour before its end it is not renewed")
		}
		cancel()
		<-done
	})
}

// What a stranger brings gets into no error in full, for errors are logged.
func TestALongNameIsCut(t *testing.T) {
	w := newWorld(t)
	_, err := w.Join(context.Background(), w.token(pki.JoinNode, time.Hour), strings.Repeat("n", 1<<20), request(t, key(t), pki.Node, "n1"))
	if !errors.Is(err, ErrInvalid) || len(err.Error()) > 1<<10 {
		t.Errorf("%d bytes: %.200v", len(err.Error()), err)
	}
}

func TestTheBookOfNamesIsBounded(t *testing.T) {
	w := newWorld(t)
	k, token := key(t), w.token(pki.JoinNode, time.Hour)
	if err := w.join(token, "n1", k); err != nil {
		t.Fatal(err)
	}
	for i := range namesMax - 1 {
		w.book.names[fmt.Sprint("x", i)] = nameRecord{}
	}
	refused(t, w.join(token, "n2", key(t)), "revoke the token", "orchctl node remove")
	if err := w.join(token, "n1", k); err != nil {
		t.Errorf("one that joined before: %v", err)
	}
}
