package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orchctl/orch/internal/clientconfig"
	"github.com/orchctl/orch/internal/pki"
	"github.com/orchctl/orch/internal/store"
)

// believes tells whether a client with these CAs believes the controller's certificate.
func (w *world) believes(bundle []byte, cert *tls.Certificate) error {
	w.t.Helper()
	pool, err := pki.Pool(bundle)
	if err != nil {
		w.t.Fatal(err)
	}
	between := x509.NewCertPool()
	for _, der := range cert.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			w.t.Fatal(err)
		}
		between.AddCert(c)
	}
	_, err = cert.Leaf.Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, CurrentTime: w.now, DNSName: pki.ServerName,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	return err
}

// pinned tells whether one who has only the token's hash believes it.
func (w *world) pinned(token string, cert *tls.Certificate) error {
	w.t.Helper()
	tok, err := pki.ParseToken(token)
	if err != nil {
		w.t.Fatal(err)
	}
	var sent []*x509.Certificate
	for _, der := range cert.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			w.t.Fatal(err)
		}
		sent = append(sent, c)
	}
	conf := pki.PinnedJoinTLS(tok.CAHash, func() time.Time { return w.now })
	return conf.VerifyConnection(tls.ConnectionState{PeerCertificates: sent})
}

func (w *world) serving() *tls.Certificate {
	w.t.Helper()
	s, err := w.Serve("c1", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return s.Get()
}

func (w *world) join(token, name string, k *ecdsa.PrivateKey) error {
	w.t.Helper()
	_, err := w.Join(context.Background(), token, name, request(w.t, k, pki.Node, name))
	return err
}

// The way of a rotation: everybody believes the controllers all the while, and what was
// retired is worth nothing.
func TestRotateTheCA(t *testing.T) {
	for _, c := range []struct {
		name  string
		world func(*testing.T) *world
	}{
		{"of a cluster of today", newWorld},
		{"of a cluster of an earlier version", oldWorld},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := c.world(t)
			ctx := context.Background()
			old, oldBundle := w.CA(), w.Bundle()
			oldToken := w.token(pki.JoinNode, time.Hour)
			k1, k2 := key(t), key(t)
			if err := w.join(oldToken, "n1", k1); err != nil {
				t.Fatal(err)
			}
			w.mustUser("root", pki.Admin)
			alice := w.mustUser("alice", pki.Viewer)
			_, err := w.Authorities()
			if err != nil {
				t.Fatal(err)
			}
			err = w.RetireAuthority(ctx, old.Hash()[:8], true)
			refused(t, err, "it signs", "orchctl ca rotate")

			made, err := w.RotateAuthority(ctx)
			if err != nil {
				t.Fatal(err)
			}
			_, err = w.RotateAuthority(ctx)
			refused(t, err, "retire the older one first", "orchctl ca retire "+old.Hash()[:8])
			w.reopen() // what was decided is in the store
			newCA := w.CA()
			if newCA.Hash() != made.Hash || made.Hash == old.Hash() || !made.Signing {
				t.Fatalf("CA %s, made %+v", newCA.Hash(), made)
			}
			newToken := w.token(pki.JoinNode, time.Hour)
			for name, cert := range map[string]*tls.Certificate{"at once": w.serving(), "after a restart": w.serving()} {
				for who, bundle := range map[string][]byte{"an old context": oldBundle, "a new context": w.Bundle(), "the new CA alone": newCA.CertPEM} {
					if err := w.believes(bundle, cert); err != nil {
						t.Errorf("%s, %s: %v", name, who, err)
					}
				}
				for who, token := range map[string]string{"an old token": oldToken, "a new token": newToken} {
					if err := w.pinned(token, cert); err != nil {
						t.Errorf("%s, %s: %v", name, who, err)
					}
				}
			}
			if err := w.join(oldToken, "n2", k2); err != nil {
				t.Errorf("join with an old token: %v", err)
			}
			list, err := w.Authorities()
			if err != nil || len(list) != 2 || !slices.Equal(list[0].Nodes, []string{"n2"}) || !slices.Equal(list[1].Nodes, []string{"n1"}) || !slices.Equal(list[1].Users, []string{"alice", "root"}) || list[1].Signing {
				t.Errorf("CAs %+v, %v", list, err)
			}
			refused(t, w.RetireAuthority(ctx, old.Hash()[:8], false), "node n1 and users alice, root", "--replace", "--force")
			if _, err := w.Renew(ctx, request(t, k1, pki.Node, "n1")); err != nil {
				t.Fatal(err)
			}
			if _, err := w.user("root", pki.Admin, true); err != nil {
				t.Fatal(err)
			}
			refused(t, w.RetireAuthority(ctx, old.Hash()[:8], false), "used by user alice.")
			if err := w.RetireAuthority(ctx, "none", false); err == nil || !strings.Contains(err.Error(), "orchctl ca list") {
				t.Errorf("an unknown one: %v", err)
			}
			if err := w.admits(alice); err != nil {
				t.Error(err)
			}
			if err := w.RetireAuthority(ctx, old.Hash()[:8], true); err != nil {
				t.Fatal(err)
			}
			w.reopen()
			refused(t, w.admits(alice), "retired", "orchctl user create alice --role viewer --replace")
			cert := w.serving()
			if err := w.believes(w.Bundle(), cert); err != nil {
				t.Error(err)
			}
			if w.believes(oldBundle, cert) == nil || w.pinned(oldToken, cert) == nil {
				t.Error("the retired CA is still vouched for")
			}
			refused(t, w.join(oldToken, "n3", key(t)), "retired", "orchctl token create --role node")
			if err := w.join(newToken, "n3", key(t)); err != nil {
				t.Error(err)
			}
			if list, err := w.Authorities(); err != nil || len(list) != 1 || len(list[0].Nodes) != 3 || !slices.Equal(list[0].Users, []string{"root"}) {
				t.Errorf("CAs %+v, %v", list, err)
			}
			// Once more: the second CA goes as the first did.
			if _, err := w.RotateAuthority(ctx); err != nil {
				t.Fatal(err)
			}
			for _, bundle := range [][]byte{newCA.CertPEM, w.CA().CertPEM} {
				if err := w.believes(bundle, w.serving()); err != nil {
					t.Errorf("after a second rotation: %v", err)
				}
			}
		})
	}
}

// oldWorld has the store of an earlier version: its CA may sign no CA below it, and nothing
// says who signed for whom.
func oldWorld(t *testing.T) *world {
	w := newWorld(t)
	k := key(t)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(4711), Subject: pkix.Name{Organization: []string{"orch"}, CommonName: "orch CA orch"},
		URIs: []*url.URL{{Scheme: "orch", Host: "orch", Path: "/ca"}}, NotBefore: w.now.Add(-time.Hour), NotAfter: w.now.AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, err := pki.EncodeKey(k)
	if err != nil {
		t.Fatal(err)
	}
	r := w.book.ca
	r.Certificate = string(pki.EncodeCert(cert))
	if r.SealedKey, err = pki.Seal(w.seal, purposeCA, keyPEM, rand.Reader); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Txn(context.Background(), store.Txn{Then: []store.Op{store.Put(caKey, encode(r))}}); err != nil {
		t.Fatal(err)
	}
	w.reopen()
	return w
}

// A key of gossip is known to all before it is used, and used by all before the old one
// goes; a leader that dies in between leaves it to the next.
func TestRotateTheGossipKey(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorldIn(t, dir)
		before := w.GossipKey()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		type step struct {
			at   time.Duration
			keys [][]byte
		}
		var steps []step
		began := time.Now()
		follow := func(ctx context.Context) {
			w.Follow(ctx, func(tr Trust) { steps = append(steps, step{time.Since(began), tr.GossipKeys}) })
		}
		go follow(ctx)
		synctest.Wait()
		term, endTerm := context.WithCancel(ctx)
		go w.Tend(term)
		answer := make(chan string, 1)
		go func() {
			name, err := w.RotateGossipKey(ctx)
			if err != nil {
				t.Error(err)
			}
			answer <- name
		}()
		time.Sleep(gossipSettle / 2)
		_, err := w.RotateGossipKey(ctx)
		refused(t, err, "being done")
		// The leader dies, and another term begins with what the store has.
		endTerm()
		w.End()
		kvs, _, err := w.store.Range(ctx, Prefix)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Begin(kvs, w.writer); err != nil {
			t.Fatal(err)
		}
		go w.Tend(ctx)
		name := <-answer
		synctest.Wait()
		after := w.GossipKey()
		if slices.Equal(before, after) || KeyName(after) != name {
			t.Errorf("the key is %s, told %s", KeyName(after), name)
		}
		want := [][]string{{KeyName(before)}, {KeyName(before), name}, {name, KeyName(before)}, {name}}
		if len(steps) != len(want) {
			t.Fatalf("%d steps, want %d", len(steps), len(want))
		}
		for i, s := range steps {
			var got []string
			for _, k := range s.keys {
				got = append(got, KeyName(k))
			}
			if !slices.Equal(got, want[i]) {
				t.Errorf("step %d: keys %v, want %v", i, got, want[i])
			}
			if i > 1 && s.at-steps[i-1].at < gossipSettle {
				t.Errorf("step %d comes %s after the one before", i, s.at-steps[i-1].at)
			}
		}
		w.reopen()
		if !slices.Equal(w.GossipKey(), after) || w.standing.Load().moving {
			t.Error("the store has another key")
		}
	})
}

// Whoever has the key of a retired CA, and what the controllers showed while it was trusted,
// stands in for no controller: not to agents at once, and to nobody for long.
func TestARetiredCAIsNotVouchedForAnyMore(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	stolen := w.CA()
	if _, err := w.RotateAuthority(ctx); err != nil {
		t.Fatal(err)
	}
	shown, alone := w.serving(), w.CA().CertPEM
	if err := w.RetireAuthority(ctx, stolen.Hash(), true); err != nil {
		t.Fatal(err)
	}
	forged, err := issue(stolen, pki.Identity{Kind: pki.Controller, Name: "c1"}, pki.ServingValidity, w.now)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := forged.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	cert.Certificate = append([][]byte{cert.Leaf.Raw}, shown.Certificate[1:]...)
	pool, err := pki.Pool(alone)
	if err != nil {
		t.Fatal(err)
	}
	leaf, between, ca := parsed(t, cert.Certificate[0]), parsed(t, cert.Certificate[1]), parsed(t, cert.Certificate[2])
	state := tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf, between}, VerifiedChains: [][]*x509.Certificate{{leaf, between, ca}}}
	if err := pki.Direct(pki.ClientTLS(nil, pool, "", nil)).VerifyConnection(state); !errors.Is(err, pki.ErrNotVerified) {
		t.Errorf("an agent: %v", err)
	}
	user := tls.ConnectionState{PeerCertificates: state.PeerCertificates, VerifiedChains: state.VerifiedChains}
	if err := pki.ServerTLS(&pki.Source{}, w.Pool, nil).VerifyConnection(user); !errors.Is(err, pki.ErrNotVerified) {
		t.Errorf("a controller: %v", err)
	}
	w.now = w.now.Add(vouchLife + time.Second)
	if err := w.believes(alone, cert); err == nil {
		t.Error("a user believes it a day later")
	}
	if err := w.pinned(w.token(pki.JoinNode, time.Hour), cert); err == nil {
		t.Error("one who joins believes it a day later")
	}
}

func parsed(t *testing.T, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The file of the first start trusts the CA that signs, and no other that may be retired
// when a copy of it is elsewhere.
func TestTheAdminsFileTrustsTheSigningCA(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(w.dir, "config.yaml")
	write := func() string {
		t.Helper()
		if err := w.WriteAdminContext(context.Background(), path, "orch", []string{"127.0.0.1:7070"}); err != nil {
			t.Fatal(err)
		}
		c, err := clientconfig.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		return c.Contexts[0].CA
	}
	write()
	if _, err := w.RotateAuthority(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"at the rotation", "afterwards"} {
		if got := write(); got != string(w.CA().CertPEM) {
			t.Errorf("%s it trusts\n%s", when, got)
		}
	}
}
