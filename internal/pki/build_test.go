package pki

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"
)

// t0 is the beginning of every test's world.
var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

func node(name string) Identity            { return Identity{Kind: Node, Name: name} }
func controller(name string) Identity      { return Identity{Kind: Controller, Name: name} }
func user(name string, role Role) Identity { return Identity{Kind: User, Name: name, Role: role} }
func ok[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newCA(t testing.TB, cluster string) *CA {
	t.Helper()
	return ok(NewCA(cluster, t0, rand.Reader))(t)
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	return ok(NewKey(rand.Reader))(t)
}

// bundle is id's credentials of ca, made at now for a day.
func bundle(t testing.TB, ca *CA, id Identity, now time.Time, hosts ...string) Bundle {
	t.Helper()
	key := newKey(t)
	csr := ok(CSR(key, id))(t)
	cert := ok(ca.Sign(csr, id, 24*time.Hour, now, hosts...))(t)
	return Bundle{CA: ca.CertPEM, Cert: cert, Key: ok(EncodeKey(key))(t)}
}

func source(t testing.TB, b Bundle) *Source {
	t.Helper()
	s := &Source{}
	s.Set(ok(b.Certificate())(t))
	return s
}

// forge has ca's key sign whatever the test wants, past all checks of Sign.
func forge(t testing.TB, ca *CA, change func(*x509.Certificate)) *tls.Certificate {
	t.Helper()
	key := newKey(t)
	tmpl := &x509.Certificate{
		SerialNumber: ok(newSerial(rand.Reader))(t),
		Subject:      pkix.Name{CommonName: "forged"},
		URIs:         []*url.URL{controller("c1").uri(ca.Cluster)},
		DNSNames:     []string{ServerName},
		NotBefore:    t0.Add(-time.Hour), NotAfter: t0.Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	change(tmpl)
	der := ok(x509.CreateCertificate(rand.Reader, tmpl, ca.cert, key.Public(), ca.key))(t)
	return &tls.Certificate{Certificate: [][]byte{der, ca.cert.Raw}, PrivateKey: key, Leaf: ok(x509.ParseCertificate(der))(t)}
}

func wantErr(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Fatalf("error %v, want none", err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Fatalf("error %v\nwant  %s", err, want)
	}
}

// shake connects client and server over a pipe and passes one byte each way, so
// that a refusal after TLS 1.3's early finish reaches the client too.
func shake(t *testing.T, server, client *tls.Config) (seen tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	a, b := net.Pipe()
	deadline := time.Now().Add(20 * time.Second)
	a.SetDeadline(deadline)
	b.SetDeadline(deadline)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer a.Close()
		conn := tls.Server(a, server)
		if serverErr = conn.Handshake(); serverErr != nil {
			return
		}
		seen = conn.ConnectionState()
		one := make([]byte, 1)
		if _, serverErr = conn.Read(one); serverErr == nil {
			_, serverErr = conn.Write(one)
		}
	}()
	conn := tls.Client(b, client)
	clientErr = conn.Handshake()
	if clientErr == nil {
		one := []byte{1}
		// The write may fail because the server hung up; the read then tells why.
		writeErr := make(chan error, 1)
		go func() { _, err := conn.Write(one); writeErr <- err }()
		_, clientErr = conn.Read(make([]byte, 1))
		b.Close()
		<-writeErr
	}
	b.Close()
	<-done
	return seen, serverErr, clientErr
}
