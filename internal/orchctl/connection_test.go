package orchctl

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// certify signs a certificate for 127.0.0.1; by nil signs itself.
func certify(t *testing.T, by *tls.Certificate, from, to time.Time) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"}, NotBefore: from, NotAfter: to,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: by == nil, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	parent, signer := x, any(key)
	if by != nil {
		parent, signer = by.Leaf, by.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, x, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// TestConnectionFailures against listeners that fail as real ones do: each is told with
// what to do, and with the addresses.
func TestConnectionFailures(t *testing.T) {
	now := time.Now()
	ca := certify(t, nil, now.Add(-time.Hour), now.Add(time.Hour))
	other := certify(t, nil, now.Add(-time.Hour), now.Add(time.Hour))
	roots := x509.NewCertPool()
	roots.AddCert(ca.Leaf)
	listen := func(wrap func(net.Listener) net.Listener, do func(net.Conn)) func(*testing.T) string {
		return func(t *testing.T) string {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
			at := l.Addr().String()
			l = wrap(l)
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go func() { defer c.Close(); do(c) }()
				}
			}()
			return at
		}
	}
	shake := func(c net.Conn) {
		if x, ok := c.(*tls.Conn); ok && x.Handshake() == nil {
			_, _ = x.Read(make([]byte, 1))
		}
	}
	with := func(cert tls.Certificate) func(net.Listener) net.Listener {
		return func(l net.Listener) net.Listener {
			return tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}})
		}
	}
	plain := func(l net.Listener) net.Listener { return l }
	for name, c := range map[string]struct {
		listen func(*testing.T) string
		want   string
	}{
		"nobody listens": {func(t *testing.T) string {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			return l.Addr().String()
		}, "nothing listens there: is the controller running"},
		"another cluster": {listen(with(certify(t, &other, now.Add(-time.Hour), now.Add(time.Hour))), shake), "another cluster answers there"},
		"expired":         {listen(with(certify(t, &ca, now.Add(-2*time.Hour), now.Add(-time.Hour))), shake), "past its end, or a clock is wrong"},
		"not yet":         {listen(with(certify(t, &ca, now.Add(time.Hour), now.Add(2*time.Hour))), shake), "clock is wrong"},
		"no TLS":          {listen(plain, func(c net.Conn) { _, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) }), "speaks no TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			at := c.listen(t)
			r := newRig(t, newFake(), func(context.Context) (grpc.ClientConnInterface, func() error, error) {
				conn, err := grpc.NewClient("passthrough:///"+at, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots})))
				if err != nil {
					return nil, nil, err
				}
				return conn, conn.Close, nil
			})
			got := r.run("get", "services", "--request-timeout", "2s")
			if got.code != 1 || !strings.Contains(got.err, c.want) || !strings.Contains(got.err, "10.0.0.1:7070") {
				t.Errorf("%s\nwant %q", got, c.want)
			}
		})
	}
}
