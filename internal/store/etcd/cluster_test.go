package etcd

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/orchctl/orch/internal/store"
)

type testCA struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCA(t *testing.T) *testCA {
	t.Helper()
	ca := &testCA{dir: t.TempDir()}
	ca.key = newKey(t)
	ca.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	ca.write(t, "ca", ca.cert, ca.key)
	return ca
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (ca *testCA) write(t *testing.T, name string, c *x509.Certificate, key *ecdsa.PrivateKey) {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, c, ca.cert, &key.PublicKey, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		name + ".crt": {Type: "CERTIFICATE", Bytes: der},
		name + ".key": {Type: "EC PRIVATE KEY", Bytes: raw},
	} {
		if err := os.WriteFile(filepath.Join(ca.dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func (ca *testCA) issue(t *testing.T, name string) TLSFiles {
	t.Helper()
	ca.write(t, name, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, newKey(t))
	in := func(f string) string { return filepath.Join(ca.dir, f) }
	return TLSFiles{CertFile: in(name + ".crt"), KeyFile: in(name + ".key"), CAFile: in("ca.crt")}
}

// freeAddr is a loopback address that was free a moment ago.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestExternalOverMutualTLS(t *testing.T) {
	ca := newCA(t)
	addr := "https://" + freeAddr(t)
	open(t, EmbeddedConfig{Dir: t.TempDir(), ClientListen: addr, ClientTLS: ca.issue(t, "server")})
	own := ca.issue(t, "client")
	s, err := Dial(t.Context(), ExternalConfig{Endpoints: []string{addr}, CertFile: own.CertFile, KeyFile: own.KeyFile, CAFile: own.CAFile})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Txn(t.Context(), store.Txn{Then: []store.Op{store.Put("a", []byte("b"))}}); err != nil {
		t.Fatal(err)
	}
	// A certificate of another CA, which even trusts the server, gets nothing.
	foreign := newCA(t).issue(t, "client")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if s, err := Dial(ctx, ExternalConfig{Endpoints: []string{addr}, CertFile: foreign.CertFile, KeyFile: foreign.KeyFile, CAFile: own.CAFile}); err == nil {
		s.Close()
		t.Fatal("a foreign certificate was let in")
	}
}

// TestThreeMembers: with a member gone, reads and writes go on at the others
// and a watch has no gap; with a quorum gone, a write is unknown.
func TestThreeMembers(t *testing.T) {
	ca := newCA(t)
	members := map[string]string{}
	for i := range 3 {
		members[fmt.Sprintf("c%d", i)] = "https://" + freeAddr(t)
	}
	servers := map[string]*EmbeddedServer{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	dir := t.TempDir()
	for name, peer := range members {
		files := ca.issue(t, name)
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			e, err := Embedded(ctx, EmbeddedConfig{
				Dir: filepath.Join(dir, name), Name: name, PeerListen: peer, PeerTLS: files, Members: members,
			})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			servers[name] = e
			mu.Unlock()
		})
	}
	wg.Wait()
	if len(servers) != 3 {
		t.FailNow()
	}
	t.Cleanup(func() {
		for _, e := range servers {
			wg.Go(func() { e.Close() })
		}
		wg.Wait()
	})
	var lead *EmbeddedServer
	var rest []*EmbeddedServer
	for _, e := range servers {
		if e.IsLeader() {
			lead = e
		} else {
			rest = append(rest, e)
		}
	}
	if lead == nil || len(rest) != 2 {
		t.Fatalf("%d of 3 members are not leader", len(rest))
	}
	put := func(key string) store.Txn { return store.Txn{Then: []store.Op{store.Put(key, []byte("v"))}} }
	rev, err := lead.Store().Txn(t.Context(), put("a"))
	if err != nil {
		t.Fatal(err)
	}
	w := rest[0].Store().Watch(t.Context(), "", rev)
	elected := []<-chan struct{}{rest[0].LeaderChanged(), rest[1].LeaderChanged()}
	if err := lead.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range elected {
		select {
		case <-c:
		case <-time.After(20 * time.Second):
			t.Fatal("no new leader was announced")
		}
	}
	if rest[0].IsLeader() == rest[1].IsLeader() {
		t.Fatalf("leader: %v and %v, want one", rest[0].IsLeader(), rest[1].IsLeader())
	}
	rev2, err := rest[1].Store().Txn(t.Context(), put("b"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []int64{rev, rev2} {
		if c := <-w.Changes(); c.Rev != want {
			t.Fatalf("change of revision %d, want %d", c.Rev, want)
		}
	}
	if _, at, err := rest[0].Store().Range(t.Context(), ""); err != nil || at < rev2 {
		t.Fatalf("read at %d (%v), want a linearizable read", at, err)
	}
	if err := rest[1].Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := rest[0].Store().Txn(ctx, put("c")); !errors.Is(err, store.ErrUnknown) {
		t.Fatalf("write without a quorum: got %v, want unknown", err)
	}
	// Leases rest on this: what writes nothing still needs the quorum's word.
	for name, confirm := range map[string]store.Txn{
		"no ops": {If: []store.Compare{store.Absent("other")}}, "nothing at all": {}, "nothing to delete": {Then: []store.Op{store.Delete("other")}},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := rest[0].Store().Txn(ctx, confirm); !errors.Is(err, store.ErrUnknown) {
			t.Errorf("%s, without a quorum: got %v, want unknown", name, err)
		}
	}
}
