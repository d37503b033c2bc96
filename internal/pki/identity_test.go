package pki

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/url"
	"strings"
	"testing"
)

func TestRoleAllows(t *testing.T) {
	roles := []Role{Viewer, Operator, Admin}
	for i, have := range roles {
		for j, need := range roles {
			if got := have.Allows(need); got != (i >= j) {
				t.Errorf("%s allows %s: %v", have, need, got)
			}
		}
	}
	for _, odd := range []Role{"", "root", "Admin"} {
		if odd.Allows(Viewer) || odd.Allows(odd) || Admin.Allows(odd) {
			t.Errorf("role %q allows or is allowed something", odd)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		id   Identity
		want string
	}{
		{node("n1"), ""},
		{node("db-1.rack2.example.org"), ""},
		{user("alice@example.org", Viewer), ""},
		{user("a_b", Admin), ""},
		{node(strings.Repeat("a", 253)), ""},
		{node(""), `no valid identity: name "" of a node is empty`},
		{node(strings.Repeat("a", 254)), "has 254 bytes, at most 253"},
		{node("N1"), `has 'N' at byte 0: want lower-case letters, digits, '-' and '.'`},
		{node("n1/../c1"), `has '/' at byte 2`},
		{node("n_1"), `has '_' at byte 1`},
		{node("n1?role=admin"), `has '?' at byte 2`},
		{node("n\x001"), `has '\x00' at byte 1`},
		{node("-n1"), "must begin and end with a letter or digit"},
		{node("n1."), "must begin and end with a letter or digit"},
		{node("a..b"), "has an empty part between two dots"},
		{Identity{Kind: Node, Name: "n1", Role: Admin}, `node "n1" has role "admin": only users have one`},
		{Identity{Kind: Controller, Name: "c1", Role: Viewer}, `controller "c1" has role "viewer": only users have one`},
		{user("alice", ""), `user "alice" has role "": want viewer, operator or admin`},
		{user("alice", "root"), `user "alice" has role "root": want viewer, operator or admin`},
		{Identity{Kind: "ca", Name: "x"}, `kind "ca": want node, controller or user`},
		{Identity{}, `kind "": want node, controller or user`},
	} {
		err := c.id.Validate()
		wantErr(t, err, c.want)
		if err != nil && !errors.Is(err, ErrIdentity) {
			t.Errorf("%v is not ErrIdentity", err)
		}
	}
}

func TestIdentityOf(t *testing.T) {
	ca := newCA(t, "prod")
	for _, id := range []Identity{node("n1"), controller("c1"), user("alice@example.org", Operator)} {
		cert := ok(ParseCert(bundle(t, ca, id, t0).Cert))(t)
		if got := ok(IdentityOf(cert))(t); got != id {
			t.Errorf("identity %v, want %v", got, id)
		}
	}
	for _, c := range []struct{ uris, want string }{
		{"", "the certificate has 0 URI names, want 1"},
		{"orch://prod/node/n1 orch://prod/node/n2", "the certificate has 2 URI names, want 1"},
		{"spiffe://prod/node/n1", `"spiffe://prod/node/n1" does not begin with orch://`},
		{"orch:///node/n1", `"orch:///node/n1" names no cluster`},
		{"orch:/node/n1", `is not spelt "orch:///node/n1"`},
		{"orch://pr.od/node/n1", `cluster "pr.od" has a dot: want one label`},
		{"orch://prod:1/node/n1", `cluster "prod:1" has ':' at byte 4`},
		{"orch://root@prod/node/n1", `is not spelt "orch://prod/node/n1"`},
		{"orch://prod/node/%6e1", `"orch://prod/node/%6e1" is not spelt "orch://prod/node/n1"`},
		{"orch://prod//node/n1", `kind ""`},
		{"orch://prod/node/n1/", `has '/' at byte 2`},
		{"orch://prod/node/n1?", `is not spelt "orch://prod/node/n1"`},
		{"orch://prod/node/n1#x", `is not spelt "orch://prod/node/n1"`},
		{"orch://prod/user/alice", `user "alice" has role ""`},
		{"orch://prod/user/alice?admin", `is not spelt "orch://prod/user/alice?role=admin"`},
		{"orch://prod/user/alice?role=viewer&role=admin", `has role "viewer&role=admin"`},
		{"orch://prod/node/n1?role=admin", `node "n1" has role "admin": only users have one`},
		{"orch://prod/ca", `kind "ca"`},
	} {
		cert := &x509.Certificate{}
		for f := range strings.FieldsSeq(c.uris) {
			cert.URIs = append(cert.URIs, ok(url.Parse(f))(t))
		}
		_, err := IdentityOf(cert)
		wantErr(t, err, c.want)
		if !errors.Is(err, ErrIdentity) {
			t.Errorf("%s: %v is not ErrIdentity", c.uris, err)
		}
	}
	_, err := IdentityOf(ca.Certificate())
	wantErr(t, err, "the certificate is a CA")
	if _, err := IdentityOf(nil); !errors.Is(err, ErrNoCertificate) {
		t.Errorf("nil certificate: %v", err)
	}
}

func TestIdentityFromState(t *testing.T) {
	ca := newCA(t, "prod")
	cert := ok(ParseCert(bundle(t, ca, node("n1"), t0).Cert))(t)
	stranger := &x509.Certificate{}
	for _, c := range []struct {
		name string
		cs   tls.ConnectionState
		want error
	}{
		{"nothing", tls.ConnectionState{}, ErrNoCertificate},
		{"unverified", tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}, ErrNotVerified},
		{"empty chain", tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}, VerifiedChains: [][]*x509.Certificate{{}}}, ErrNotVerified},
		{"nameless", tls.ConnectionState{PeerCertificates: []*x509.Certificate{stranger}, VerifiedChains: [][]*x509.Certificate{{stranger}}}, ErrIdentity},
		{"verified", tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}, VerifiedChains: [][]*x509.Certificate{{cert, ca.cert}}}, nil},
	} {
		id, err := IdentityFromState(c.cs)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if (id == node("n1")) != (c.want == nil) {
			t.Errorf("%s: identity %v", c.name, id)
		}
	}
}

// FuzzIdentityOf: no text reads as an identity unless it is that identity's one
// spelling, and no certificate crashes the reader.
func FuzzIdentityOf(f *testing.F) {
	ca := newCA(f, "prod")
	for _, id := range []Identity{node("n1"), user("alice", Admin)} {
		f.Add("orch://prod/node/n1", ok(ParseCert(bundle(f, ca, id, t0).Cert))(f).Raw)
	}
	f.Add("orch://prod/user/a@b?role=viewer", ca.cert.Raw)
	f.Add("orch://p%72od/node/n1#", []byte{0x30})
	f.Fuzz(func(t *testing.T, text string, der []byte) {
		if cert, err := x509.ParseCertificate(der); err == nil {
			if id, err := IdentityOf(cert); err == nil && id.Validate() != nil {
				t.Errorf("identity %v is not valid", id)
			}
		}
		u, err := url.Parse(text)
		if err != nil {
			return
		}
		id, cluster, err := identityOf(&x509.Certificate{URIs: []*url.URL{u}})
		if err != nil {
			return
		}
		if id.Validate() != nil || cluster == "" || id.uri(cluster).String() != u.String() {
			t.Errorf("%q read as %v of %q", text, id, cluster)
		}
		again, err := url.Parse(id.uri(cluster).String())
		if err != nil {
			t.Fatal(err)
		}
		if back, _, err := parseURI(again); err != nil || back != id {
			t.Errorf("%v comes back as %v, %v", id, back, err)
		}
	})
}

func TestKeyHashBindsTheKey(t *testing.T) {
	ca, key := newCA(t, "prod"), newKey(t)
	csr := ok(CSR(key, node("n1")))(t)
	req := ok(ParseCSR(csr))(t)
	first := ok(ParseCert(ok(ca.Sign(csr, node("n1"), ServingValidity, t0))(t)))(t)
	next := ok(ParseCert(ok(ca.Sign(ok(CSR(key, node("n1")))(t), node("n1"), ServingValidity, t0.Add(ServingValidity)))(t)))(t)
	other := ok(ParseCSR(ok(CSR(ok(NewKey(rand.Reader))(t), node("n1")))(t)))(t)
	if h := PublicKeyHash(first); h != req.KeyHash || h != PublicKeyHash(next) || h == other.KeyHash || len(h) != 64 {
		t.Errorf("hashes: request %s, first %s, next %s, other key %s", req.KeyHash, h, PublicKeyHash(next), other.KeyHash)
	}
}
