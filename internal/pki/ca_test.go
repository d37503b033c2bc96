package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestNewCA(t *testing.T) {
	ca := newCA(t, "prod")
	if got, want := ca.cert.NotAfter, t0.AddDate(10, 0, 0); !got.Equal(want) {
		t.Errorf("ends %v, want %v", got, want)
	}
	back := ok(ParseCA(ca.CertPEM, ca.KeyPEM))(t)
	if back.Hash() != ca.Hash() || back.Cluster != "prod" || len(ca.Hash()) != 64 {
		t.Errorf("came back as %v, want %v", back, ca)
	}
	if newCA(t, "prod").Hash() == ca.Hash() {
		t.Error("two CAs have one key")
	}
	for _, format := range []string{"%v", "%+v", "%#v"} {
		if s := fmt.Sprintf(format, ca); strings.Contains(s, "PRIVATE") || len(s) > 200 {
			t.Errorf("%s prints %s", format, s)
		}
	}
	for name, want := range map[string]string{
		"":                      `make CA: cluster name "" is empty`,
		"a.b":                   "has a dot: want one label",
		"Prod":                  `has 'P' at byte 0`,
		strings.Repeat("a", 64): "has 64 bytes, at most 63",
	} {
		_, err := NewCA(name, t0, rand.Reader)
		wantErr(t, err, want)
	}
	_, err := NewCA("prod", t0, bytes.NewReader(nil))
	wantErr(t, err, "make CA of prod: draw serial number: EOF")
}

func TestParseCARefuses(t *testing.T) {
	ca, other := newCA(t, "prod"), newCA(t, "prod")
	leaf := bundle(t, ca, node("n1"), t0)
	rogue := func(u string, isCA bool) []byte {
		key := newKey(t)
		tmpl := &x509.Certificate{SerialNumber: ok(newSerial(rand.Reader))(t), NotBefore: t0, NotAfter: t0.AddDate(1, 0, 0),
			IsCA: isCA, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, URIs: []*url.URL{ok(url.Parse(u))(t)}}
		der := ok(x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key))(t)
		return pem.EncodeToMemory(&pem.Block{Type: pemCert, Bytes: der})
	}
	rsaDER := ok(x509.MarshalPKCS8PrivateKey(ok(rsa.GenerateKey(rand.Reader, 2048))(t)))(t)
	p384 := ok(EncodeKey(ok(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))(t)))(t)
	for _, c := range []struct {
		name      string
		cert, key []byte
		want      string
	}{
		{"empty", nil, ca.KeyPEM, `parse CA: parse certificate: no "CERTIFICATE" block in PEM`},
		{"key as certificate", ca.KeyPEM, ca.KeyPEM, `parse certificate: found a "PRIVATE KEY" block in PEM`},
		{"garbage", pem.EncodeToMemory(&pem.Block{Type: pemCert, Bytes: []byte("x")}), ca.KeyPEM, "parse certificate: x509:"},
		{"leaf", leaf.Cert, leaf.Key, "the certificate is not a CA"},
		{"self-signed leaf", rogue("orch://prod/ca", false), ca.KeyPEM, "the certificate is not a CA"},
		{"foreign naming", rogue("orch://prod/other", true), ca.KeyPEM, "does not name its cluster as orch://<cluster>/ca"},
		{"no cluster", rogue("orch:///ca", true), ca.KeyPEM, "does not name its cluster"},
		{"other key", ca.CertPEM, other.KeyPEM, "parse CA of prod: the key does not belong to the certificate"},
		{"no key", ca.CertPEM, nil, `parse key: no "PRIVATE KEY" block in PEM`},
		{"garbage key", ca.CertPEM, pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: []byte("x")}), "parse key: asn1:"},
		{"rsa key", ca.CertPEM, pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: rsaDER}), "want ECDSA P-256, have another kind"},
		{"p384 key", ca.CertPEM, p384, "want ECDSA P-256, have another kind"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseCA(c.cert, c.key)
			wantErr(t, err, c.want)
		})
	}
}

func TestSign(t *testing.T) {
	ca := newCA(t, "prod")
	cert := ok(ParseCert(bundle(t, ca, controller("c1"), t0, "10.0.0.7", "fd00::1", "c1.example.org", ServerName).Cert))(t)
	if want := []string{ServerName, "c1.example.org"}; !reflect.DeepEqual(cert.DNSNames, want) {
		t.Errorf("DNS names %q, want %q", cert.DNSNames, want)
	}
	if got := fmt.Sprint(cert.IPAddresses); got != "[10.0.0.7 fd00::1]" {
		t.Errorf("addresses %s", got)
	}
	if !cert.NotBefore.Equal(t0.Add(-Backdate)) || !cert.NotAfter.Equal(t0.Add(24*time.Hour)) {
		t.Errorf("valid %v to %v", cert.NotBefore, cert.NotAfter)
	}
	for _, id := range []Identity{node("n1"), user("alice", Admin)} {
		cert := ok(ParseCert(bundle(t, ca, id, t0).Cert))(t)
		if len(cert.DNSNames) > 0 || !reflect.DeepEqual(cert.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) {
			t.Errorf("%s can serve: %q %v", id, cert.DNSNames, cert.ExtKeyUsage)
		}
	}
	// The last certificates of a CA end with it.
	late := ca.cert.NotAfter.Add(-time.Hour)
	if cert := ok(ParseCert(bundle(t, ca, node("n1"), late).Cert))(t); !cert.NotAfter.Equal(ca.cert.NotAfter) {
		t.Errorf("ends %v, after its CA", cert.NotAfter)
	}
	asPEM := pem.EncodeToMemory(&pem.Block{Type: pemCSR, Bytes: ok(CSR(newKey(t), node("n1")))(t)})
	ok(ca.Sign(asPEM, node("n1"), time.Hour, t0))(t)
}

// TestSignIgnoresExtras: a request cannot smuggle in names of a controller.
func TestSignIgnoresExtras(t *testing.T) {
	ca := newCA(t, "prod")
	der := ok(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		URIs: []*url.URL{node("n1").uri("")}, DNSNames: []string{ServerName},
	}, newKey(t)))(t)
	cert := ok(ParseCert(ok(ca.Sign(der, node("n1"), time.Hour, t0))(t)))(t)
	if len(cert.DNSNames) != 0 {
		t.Errorf("DNS names %q came from the request", cert.DNSNames)
	}
}

func TestSignRefuses(t *testing.T) {
	ca := newCA(t, "prod")
	good := ok(CSR(newKey(t), node("n1")))(t)
	forController := ok(CSR(newKey(t), controller("c1")))(t)
	tampered := bytes.Clone(good)
	tampered[len(tampered)-1] ^= 1
	rsaCSR := ok(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{URIs: []*url.URL{node("n1").uri("")}},
		ok(rsa.GenerateKey(rand.Reader, 2048))(t)))(t)
	nameless := ok(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, newKey(t)))(t)
	for _, c := range []struct {
		name  string
		csr   []byte
		id    Identity
		life  time.Duration
		now   time.Time
		hosts []string
		want  string
	}{
		{"bad identity", good, node("N1"), time.Hour, t0, nil, "sign certificate: no valid identity: name"},
		{"other name", good, node("n2"), time.Hour, t0, nil, "sign certificate of node n2: the request asks for node n1"},
		{"other kind", good, controller("n1"), time.Hour, t0, nil, "sign certificate of controller n1: the request asks for node n1"},
		{"no life", good, node("n1"), 0, t0, nil, "validity 0s: want more than zero"},
		{"before the CA", good, node("n1"), time.Hour, t0.Add(-time.Hour), nil, "the CA is valid only from 2026-03-01T11:55:00Z"},
		{"after the CA", good, node("n1"), time.Hour, t0.AddDate(10, 0, 0), nil, "the CA expired at 2036-03-01T12:00:00Z"},
		{"hosts of a node", good, node("n1"), time.Hour, t0, []string{ServerName}, `host names ["controller.orch.internal"]: only controllers have them`},
		{"bad host", forController, controller("c1"), time.Hour, t0, []string{"*.org"}, `host name "*.org" has '*' at byte 0`},
		{"tampered", tampered, node("n1"), time.Hour, t0, nil, "the sender does not own the key"},
		{"rsa", rsaCSR, node("n1"), time.Hour, t0, nil, "key: want ECDSA P-256 or Ed25519, have RSA"},
		{"nameless", nameless, node("n1"), time.Hour, t0, nil, "the request has 0 URI names, want 1"},
		{"garbage", []byte("hello"), node("n1"), time.Hour, t0, nil, "parse certificate request:"},
		{"huge", make([]byte, csrBytesMax+1), node("n1"), time.Hour, t0, nil, "16385 bytes, at most 16384"},
		{"certificate", ca.CertPEM, node("n1"), time.Hour, t0, nil, `found a "CERTIFICATE" block in PEM, want "CERTIFICATE REQUEST"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ca.Sign(c.csr, c.id, c.life, c.now, c.hosts...)
			wantErr(t, err, c.want)
		})
	}
	_, err := CSR(newKey(t), user("alice", ""))
	wantErr(t, err, "request certificate: no valid identity")
}

func TestRenewAt(t *testing.T) {
	ca := newCA(t, "prod")
	seen := map[time.Time]bool{}
	for i := range 20 {
		cert := ok(ParseCert(bundle(t, ca, node(fmt.Sprintf("n%d", i)), t0).Cert))(t)
		life := cert.NotAfter.Sub(cert.NotBefore)
		at := RenewAt(cert)
		if lo, hi := cert.NotBefore.Add(life/3*2-life/10), cert.NotBefore.Add(life/3*2); at.Before(lo) || at.After(hi) {
			t.Errorf("n%d renews at %v, want %v to %v", i, at, lo, hi)
		}
		if again := RenewAt(ok(ParseCert(EncodeCert(cert)))(t)); !again.Equal(at) {
			t.Errorf("n%d renews at %v and at %v", i, at, again)
		}
		seen[at] = true
	}
	if len(seen) < 18 {
		t.Errorf("20 nodes renew at %d times only", len(seen))
	}
	if at := RenewAt(&x509.Certificate{NotBefore: t0, NotAfter: t0}); !at.Equal(t0) {
		t.Errorf("a life of nothing renews at %v", at)
	}
}

func TestRenewable(t *testing.T) {
	ca, foreign := newCA(t, "prod"), newCA(t, "prod")
	b := bundle(t, ca, node("n1"), t0) // until t0+24h
	cert, key := ok(ParseCert(b.Cert))(t), ok(ParseKey(b.Key))(t)
	csr := ok(CSR(key, node("n1")))(t)
	end := cert.NotAfter
	for _, c := range []struct {
		name string
		ca   *CA
		csr  []byte
		now  time.Time
		want string
	}{
		{"in its life", ca, csr, t0.Add(time.Hour), ""},
		{"just expired", ca, csr, end.Add(RenewGrace), ""},
		{"long expired", ca, csr, end.Add(RenewGrace + 1), "renew certificate of node n1: it expired at 2026-03-02T12:00:00Z, more than 336h0m0s ago: join again"},
		{"not yet valid", ca, csr, t0.Add(-time.Hour), "not yet valid"},
		{"foreign CA", foreign, csr, t0, "signed by unknown authority"},
		{"other name", ca, ok(CSR(key, node("n2")))(t), t0, "the request asks for node n2"},
		{"other key", ca, ok(CSR(newKey(t), node("n1")))(t), t0, "the request has another key"},
		{"garbage", ca, nil, t0, "parse certificate request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			id, err := c.ca.Renewable(cert, c.csr, c.now)
			wantErr(t, err, c.want)
			if err == nil && id != node("n1") {
				t.Errorf("renews as %v", id)
			}
		})
	}
	_, err := ca.Renewable(nil, csr, t0)
	wantErr(t, err, "renew certificate: no certificate")
}
