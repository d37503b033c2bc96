package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orchctl/orch/internal/clientconfig"
	"github.com/orchctl/orch/internal/pki"
)

func userRequest(t *testing.T, k *ecdsa.PrivateKey, name string, role pki.Role) []byte {
	t.Helper()
	csr, err := pki.CSR(k, pki.Identity{Kind: pki.User, Name: name, Role: role})
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

// user makes a user and gives the certificate.
func (w *world) user(name string, role pki.Role, replace bool) (*x509.Certificate, error) {
	w.t.Helper()
	pem, err := w.CreateUser(context.Background(), NewUser{Name: name, Role: role, CSR: userRequest(w.t, key(w.t), name, role), Replace: replace, By: "user root"})
	if err != nil {
		return nil, err
	}
	cert, err := pki.ParseCert(pem)
	if err != nil {
		w.t.Fatal(err)
	}
	return cert, nil
}

func (w *world) mustUser(name string, role pki.Role) *x509.Certificate {
	w.t.Helper()
	cert, err := w.user(name, role, false)
	if err != nil {
		w.t.Fatal(err)
	}
	return cert
}

func (w *world) admits(cert *x509.Certificate) error {
	id, err := pki.IdentityOf(cert)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.Admit(id, cert)
}

// refused wants a refusal with these words.
func refused(t *testing.T, err error, words ...string) {
	t.Helper()
	if !errors.Is(err, ErrRefused) {
		t.Errorf("got %v, want a refusal", err)
		return
	}
	for _, x := range words {
		if !strings.Contains(err.Error(), x) {
			t.Errorf("%q is not in: %v", x, err)
		}
	}
}

func TestUsers(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	root := w.mustUser("root", pki.Admin)
	alice := w.mustUser("alice", pki.Viewer)
	for _, cert := range []*x509.Certificate{root, alice} {
		if err := w.admits(cert); err != nil {
			t.Error(err)
		}
	}
	if !alice.NotAfter.Equal(w.now.Add(pki.UserValidity).Truncate(time.Second).UTC()) {
		t.Errorf("it ends at %s", alice.NotAfter)
	}
	if _, err := w.user("alice", pki.Viewer, false); !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "--replace") {
		t.Errorf("a second alice: %v", err)
	}
	// A retry, whose answer was lost, is answered again.
	k := key(t)
	retry := NewUser{Name: "bob", Role: pki.Operator, CSR: userRequest(t, k, "bob", pki.Operator)}
	for range 2 {
		if _, err := w.CreateUser(ctx, retry); err != nil {
			t.Error(err)
		}
	}
	again, err := w.user("alice", pki.Operator, true)
	if err != nil {
		t.Fatal(err)
	}
	refused(t, w.admits(alice), "alice", "newer certificate", "orchctl user create alice --role operator --replace")
	if err := w.admits(again); err != nil {
		t.Error(err)
	}
	// What the CA signed and the book does not know is worth nothing.
	pem, err := w.CA().Sign(userRequest(t, key(t), "mallory", pki.Admin), pki.Identity{Kind: pki.User, Name: "mallory", Role: pki.Admin}, time.Hour, w.now)
	if err != nil {
		t.Fatal(err)
	}
	mallory, _ := pki.ParseCert(pem)
	refused(t, w.admits(mallory), "no such user")

	w.reopen()
	list, err := w.Users()
	if err != nil || len(list) != 3 || list[0].Name != "alice" || list[0].Role != pki.Operator || list[0].By != "user root" || list[2].Name != "root" {
		t.Errorf("users %+v, %v", list, err)
	}
	var ended error
	release := w.Hold(pki.Identity{Kind: pki.User, Name: "alice", Role: pki.Operator}, again, func(err error) { ended = err })
	defer release()
	releaseOther := w.Hold(pki.Identity{Kind: pki.User, Name: "root", Role: pki.Admin}, root, func(err error) { t.Errorf("root's call ends: %v", err) })
	if known, err := w.RemoveUser(ctx, "alice", "root"); !known || err != nil {
		t.Errorf("remove alice: %v, %v", known, err)
	}
	refused(t, w.admits(again), "no such user any more", "orchctl user create alice")
	refused(t, ended, "alice")
	if known, err := w.RemoveUser(ctx, "alice", "root"); known || err != nil {
		t.Errorf("remove alice again: %v, %v", known, err)
	}
	_, err = w.RemoveUser(ctx, "root", "bob")
	refused(t, err, "last admin", "orchctl user create NAME --role admin")
	_, err = w.user("root", pki.Viewer, true)
	refused(t, err, "last admin")
	w.mustUser("second", pki.Admin)
	_, err = w.RemoveUser(ctx, "second", "second")
	refused(t, err, "that is you")

	releaseOther()
	w.now = w.now.Add(pki.UserValidity + time.Second)
	refused(t, w.admits(root), "expired", "orchctl user create root --role admin --replace")
	// Admins whose certificates are over are no admins to rely on.
	w.mustUser("third", pki.Admin)
	_, err = w.RemoveUser(ctx, "third", "bob")
	refused(t, err, "last admin")

	for _, bad := range []NewUser{
		{Name: "x", Role: "king", CSR: userRequest(t, k, "bob", pki.Operator)},
		{Name: "Ä", Role: pki.Viewer, CSR: userRequest(t, k, "bob", pki.Operator)},
		{Name: "carol", Role: pki.Viewer, CSR: userRequest(t, k, "bob", pki.Operator)},
		{Name: "bob", Role: pki.Admin, CSR: userRequest(t, k, "bob", pki.Operator)},
		{Name: "carol", Role: pki.Viewer, CSR: []byte("no request")},
		{Name: "carol", Role: pki.Viewer, CSR: userRequest(t, k, "carol", pki.Viewer), Expires: w.now.Add(-time.Second)},
		{Name: "carol", Role: pki.Viewer, CSR: userRequest(t, k, "carol", pki.Viewer), Expires: w.now.Add(userLifeMax + time.Hour)},
	} {
		if _, err := w.CreateUser(ctx, bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s %s: %v", bad.Name, bad.Role, err)
		}
	}
}

// Without the lead a controller knows the users that it read last, and nobody else.
func TestUsersWithoutTheLead(t *testing.T) {
	w := newWorld(t)
	root, alice := w.mustUser("root", pki.Admin), w.mustUser("alice", pki.Viewer)
	w.End()
	if err := w.admits(alice); err != nil {
		t.Error(err)
	}
	other, err := Open(context.Background(), w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Admit(pki.Identity{Kind: pki.User, Name: "alice", Role: pki.Viewer}, alice); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- other.Run(ctx) }()
	w.reopen() // leads again
	if _, err := w.RemoveUser(ctx, "alice", "root"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.RotateAuthority(ctx); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		err = other.Admit(pki.Identity{Kind: pki.User, Name: "alice", Role: pki.Viewer}, alice)
		if err != nil && other.CA().Hash() == w.CA().Hash() {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it learns nothing: %v, CA %s", err, other.CA().Hash())
		}
	}
	if !errors.Is(err, ErrNotLeading) { // it may be too new to be known
		t.Errorf("alice: %v", err)
	}
	if err := other.Admit(pki.Identity{Kind: pki.User, Name: "root", Role: pki.Admin}, root); err != nil {
		t.Errorf("root: %v", err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// The admin's file: adopted from a cluster without a book, left alone when the user was
// removed, made anew when it is not there.
func TestAdminFile(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "config.yaml")
	write := func() (clientconfig.Context, *x509.Certificate) {
		t.Helper()
		if err := w.WriteAdminContext(ctx, path, "orch", []string{"a:1"}); err != nil {
			t.Fatal(err)
		}
		c, err := clientconfig.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		x, err := c.Context("orch")
		if err != nil {
			t.Fatal(err)
		}
		cert, err := pki.ParseCert([]byte(x.Certificate))
		if err != nil {
			t.Fatal(err)
		}
		return x, cert
	}
	// As a controller of a version without a book wrote it.
	id := pki.Identity{Kind: pki.User, Name: "admin", Role: pki.Admin}
	k := key(t)
	pem, err := w.CA().Sign(userRequest(t, k, "admin", pki.Admin), id, pki.UserValidity, w.now)
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, err := pki.EncodeKey(k)
	if err != nil {
		t.Fatal(err)
	}
	if err := clientconfig.Merge(path, clientconfig.Context{Name: "orch", Controllers: []string{"a:1"}, CA: string(w.Bundle()), Certificate: string(pem), Key: string(keyPEM)}); err != nil {
		t.Fatal(err)
	}
	if x, cert := write(); x.Certificate != string(pem) || w.admits(cert) != nil {
		t.Errorf("the file of an earlier version: %v", w.admits(cert))
	}
	// A new CA: a new certificate; the old one is good until the CA is retired.
	_, before := write()
	if _, err := w.RotateAuthority(ctx); err != nil {
		t.Fatal(err)
	}
	x, after := write()
	if w.admits(before) != nil || w.admits(after) != nil || after.Equal(before) || after.CheckSignatureFrom(w.CA().Certificate()) != nil || x.CA != string(w.CA().CertPEM) {
		t.Errorf("after a rotation: %v, %v", w.admits(before), w.admits(after))
	}
	if err := w.RetireAuthority(ctx, w.standing.Load().older.Hash(), false); err != nil {
		t.Fatal(err)
	}
	refused(t, w.admits(before), "retired")
	if y, cert := write(); !cert.Equal(after) || y.CA != string(w.CA().CertPEM) {
		t.Error("the file does not have just the new CA, or another key")
	}
	// Moved elsewhere, it stays good there.
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	if _, cert := write(); w.admits(after) != nil || w.admits(cert) != nil || cert.Equal(after) {
		t.Error("a second file is not as good as the first")
	}
	w.mustUser("root", pki.Admin)
	if _, err := w.RemoveUser(ctx, "admin", "root"); err != nil {
		t.Fatal(err)
	}
	had, _ := write()
	if x, cert := write(); x.Certificate != had.Certificate || w.admits(cert) == nil {
		t.Error("a removed admin is back")
	}
	w.now = w.now.Add(pki.UserValidity + time.Hour)
	if x, _ := write(); x.Certificate != had.Certificate {
		t.Error("a removed admin is back when the certificate in the file has ended")
	}
}

// What another leader wrote while this controller still took itself for the leader is known
// to it soon after its term: its watch has seen that already, and passed it over.
func TestAnEndedTermTakesWhatTheNextLeaderWrote(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorldIn(t, dir)
		w.mustUser("root", pki.Admin)
		alice := w.mustUser("alice", pki.Viewer)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go w.Run(ctx)
		synctest.Wait()
		deposed := w.Authority
		w.reopen() // another controller, which leads
		if _, err := w.RemoveUser(ctx, "alice", "root"); err != nil {
			t.Fatal(err)
		}
		if _, err := w.RotateAuthority(ctx); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		id := pki.Identity{Kind: pki.User, Name: "alice", Role: pki.Viewer}
		if err := deposed.Admit(id, alice); err != nil {
			t.Fatalf("before the term ends: %v", err)
		}
		deposed.End()
		synctest.Wait()
		if err := deposed.Admit(id, alice); err == nil {
			t.Error("a removed user is still let in")
		}
		if deposed.CA().Hash() != w.CA().Hash() {
			t.Error("the new CA is not known")
		}
	})
}
