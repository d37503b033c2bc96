package pki

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/url"
	"testing"
	"time"
)

// present sends a certificate and then just what the test wants, not its own CA.
func present(cert *tls.Certificate, extra ...*x509.Certificate) *Source {
	c := *cert
	c.Certificate = [][]byte{cert.Certificate[0]}
	for _, e := range extra {
		c.Certificate = append(c.Certificate, e.Raw)
	}
	s := &Source{}
	s.Set(&c)
	return s
}

func TestMutualTLS(t *testing.T) {
	ca := newCA(t, "prod")
	foreign := newCA(t, "prod")
	server := ServerTLS(source(t, bundle(t, ca, controller("c1"), t0)), ca.Pool, at(t0))
	nameless := forge(t, ca, func(c *x509.Certificate) { c.URIs = nil })
	noClient := forge(t, ca, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	for _, c := range []struct {
		name       string
		src        CertSource
		who        Identity // wanted if no error is
		is         error    // of IdentityFromState at the server
		serverWant string
		clientWant string
	}{
		{"node", source(t, bundle(t, ca, node("n1"), t0)), node("n1"), nil, "", ""},
		{"user", source(t, bundle(t, ca, user("alice", Viewer), t0)), user("alice", Viewer), nil, "", ""},
		{"controller", source(t, bundle(t, ca, controller("c2"), t0)), controller("c2"), nil, "", ""},
		{"no source", nil, Identity{}, ErrNoCertificate, "", ""},
		{"empty source", &Source{}, Identity{}, ErrNoCertificate, "", ""},
		{"foreign CA", source(t, bundle(t, foreign, node("n1"), t0)), Identity{}, nil, "unknown authority", "unknown certificate authority"},
		{"nameless", present(nameless), Identity{}, nil, "no valid identity: the certificate has 0 URI names, want 1", "bad certificate"},
		{"not for clients", present(noClient), Identity{}, nil, "incompatible key usage", "bad certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			seen, serverErr, clientErr := shake(t, server, ClientTLS(c.src, ca.Pool(), "", at(t0)))
			wantErr(t, serverErr, c.serverWant)
			wantErr(t, clientErr, c.clientWant)
			if serverErr != nil {
				return
			}
			if seen.Version != tls.VersionTLS13 {
				t.Errorf("TLS version %x", seen.Version)
			}
			id, err := IdentityFromState(seen)
			if id != c.who || !errors.Is(err, c.is) {
				t.Errorf("the server sees %v, %v; want %v, %v", id, err, c.who, c.is)
			}
		})
	}
}

func TestServerRefusesWrongTime(t *testing.T) {
	ca := newCA(t, "prod")
	client := ClientTLS(source(t, bundle(t, ca, node("n1"), t0)), ca.Pool(), "", at(t0))
	for _, c := range []struct {
		name, want string
		now        time.Time
	}{
		{"just before its end", "", t0.Add(24 * time.Hour)},
		{"expired", "certificate has expired or is not yet valid: current time 2026-03-02T12:00:01Z is after 2026-03-02T12:00:00Z", t0.Add(24*time.Hour + time.Second)},
		{"within the Backdate", "", t0.Add(-Backdate)},
		{"not yet valid", "current time 2026-03-01T11:54:59Z is before 2026-03-01T11:55:00Z", t0.Add(-Backdate - time.Second)},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := ServerTLS(source(t, bundle(t, ca, controller("c1"), t0)), ca.Pool, at(c.now))
			_, serverErr, clientErr := shake(t, server, client)
			wantErr(t, serverErr, c.want)
			if (clientErr == nil) != (c.want == "") {
				t.Errorf("client: %v", clientErr)
			}
		})
	}
}

func TestClientRefusesServer(t *testing.T) {
	ca, foreign := newCA(t, "prod"), newCA(t, "prod")
	disguised := forge(t, ca, func(c *x509.Certificate) { c.URIs = []*url.URL{node("n1").uri("prod")} })
	nameless := forge(t, ca, func(c *x509.Certificate) { c.URIs = nil })
	for _, c := range []struct {
		name string
		src  *Source
		now  time.Time
		want string
	}{
		{"good", source(t, bundle(t, ca, controller("c1"), t0)), t0, ""},
		{"foreign CA", source(t, bundle(t, foreign, controller("c1"), t0)), t0, "signed by unknown authority"},
		{"expired", source(t, bundle(t, ca, controller("c1"), t0)), t0.Add(25 * time.Hour), "is after 2026-03-02T12:00:00Z"},
		{"not yet valid", source(t, bundle(t, ca, controller("c1"), t0.Add(time.Hour))), t0, "is before 2026-03-01T12:55:00Z"},
		{"node", source(t, bundle(t, ca, node("n1"), t0)), t0, "certificate is not valid for any names, but wanted to match controller.orch.internal"},
		{"user", source(t, bundle(t, ca, user("alice", Admin), t0)), t0, "is not valid for any names"},
		{"node with a server's names", present(disguised), t0, "verify server: the server is not a controller: it is node n1"},
		{"nameless server", present(nameless), t0, "verify server: no valid identity"},
		{"no certificate", &Source{}, t0, "internal error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := ServerTLS(c.src, ca.Pool, at(t0))
			_, serverErr, err := shake(t, server, ClientTLS(nil, ca.Pool(), "", at(c.now)))
			wantErr(t, err, c.want)
			if (serverErr == nil) != (c.want == "") {
				t.Errorf("server: %v", serverErr)
			}
		})
	}
	t.Run("no pool trusts nobody", func(t *testing.T) {
		server := ServerTLS(source(t, bundle(t, ca, controller("c1"), t0)), ca.Pool, at(t0))
		client := ClientTLS(nil, nil, "", at(t0))
		if client.RootCAs == nil { // which is how crypto/tls spells the system's roots
			t.Error("without a pool the system's roots are trusted")
		}
		_, _, err := shake(t, server, client)
		wantErr(t, err, "signed by unknown authority")
	})
	t.Run("by address", func(t *testing.T) {
		server := ServerTLS(source(t, bundle(t, ca, controller("c1"), t0, "10.0.0.7")), ca.Pool, at(t0))
		_, _, err := shake(t, server, ClientTLS(nil, ca.Pool(), "10.0.0.7", at(t0)))
		wantErr(t, err, "")
		_, _, err = shake(t, server, ClientTLS(nil, ca.Pool(), "10.0.0.8", at(t0)))
		wantErr(t, err, "not 10.0.0.8")
	})
	t.Run("TLS 1.2", func(t *testing.T) {
		old := ClientTLS(nil, ca.Pool(), "", at(t0))
		old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
		_, _, err := shake(t, ServerTLS(source(t, bundle(t, ca, controller("c1"), t0)), ca.Pool, at(t0)), old)
		wantErr(t, err, "protocol version not supported")
	})
}

// TestRotation: both sides present what was last set, with no new configuration.
func TestRotation(t *testing.T) {
	ca := newCA(t, "prod")
	later := t0.Add(48 * time.Hour) // the first certificates are over by then
	now := t0
	clock := func() time.Time { return now }
	serverSrc, clientSrc := source(t, bundle(t, ca, controller("c1"), t0)), source(t, bundle(t, ca, node("n1"), t0))
	server, client := ServerTLS(serverSrc, ca.Pool, clock), ClientTLS(clientSrc, ca.Pool(), "", clock)
	_, _, err := shake(t, server, client)
	wantErr(t, err, "")
	now = later
	_, _, err = shake(t, server, client)
	wantErr(t, err, "expired")
	serverSrc.Set(ok(bundle(t, ca, controller("c1"), later).Certificate())(t))
	_, serverErr, _ := shake(t, server, client)
	wantErr(t, serverErr, "expired")
	clientSrc.Set(ok(bundle(t, ca, node("n1"), later).Certificate())(t))
	_, serverErr, err = shake(t, server, client)
	wantErr(t, serverErr, "")
	wantErr(t, err, "")
	clientSrc.Set(nil)
	if seen, _, _ := shake(t, server, client); len(seen.PeerCertificates) != 0 {
		t.Error("a certificate that was taken away is presented")
	}
}

func TestPinnedJoin(t *testing.T) {
	ca, mitm := newCA(t, "prod"), newCA(t, "prod")
	genuine := ok(bundle(t, ca, controller("c1"), t0).Certificate())(t)
	evil := ok(bundle(t, mitm, controller("c1"), t0).Certificate())(t)
	asNode := ok(bundle(t, ca, node("n1"), t0).Certificate())(t)
	disguised := forge(t, ca, func(c *x509.Certificate) { c.URIs = []*url.URL{node("n1").uri("prod")} })
	clientOnly := forge(t, ca, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
	otherName := forge(t, ca, func(c *x509.Certificate) { c.DNSNames = []string{"example.org"} })
	nameless := forge(t, ca, func(c *x509.Certificate) { c.URIs = nil })

	// The CA's public key in a certificate that the CA's key did not sign: its hash
	// is right, everything else is the forger's.
	dressed := *ca.cert
	dressed.NotAfter = t0.AddDate(90, 0, 0)
	dressedDER := ok(x509.CreateCertificate(rand.Reader, &dressed, mitm.cert, ca.key.Public(), mitm.key))(t)
	dressedCA := ok(x509.ParseCertificate(dressedDER))(t)

	for _, c := range []struct {
		name string
		src  *Source
		now  time.Time
		want string
	}{
		{"genuine", present(genuine, ca.cert), t0, ""},
		{"as a bundle presents it", source(t, bundle(t, ca, controller("c2"), t0)), t0, ""},
		{"man in the middle, own CA", present(evil, mitm.cert), t0, "its hash is " + mitm.Hash() + ", the token's is " + ca.Hash() + ": another cluster, a token older than the cluster's CA, or somebody in between"},
		{"man in the middle shows the true CA", present(evil, ca.cert), t0, "signed by unknown authority"},
		{"man in the middle shows both", present(evil, mitm.cert, ca.cert), t0, "signed by unknown authority"},
		{"no CA sent", present(genuine), t0, "verify server by join token: the server's CA is not the join token's: it sent none"},
		{"dressed-up CA", present(genuine, dressedCA), t0, "the CA is not signed by itself"},
		{"node as controller", present(asNode, ca.cert), t0, "the server is not a controller: it is node n1"},
		{"user as controller", present(ok(bundle(t, ca, user("eve", Admin), t0).Certificate())(t), ca.cert), t0, "the server is not a controller: it is user eve (admin)"},
		{"node with a server's names", present(disguised, ca.cert), t0, "the server is not a controller: it is node n1"},
		{"not for servers", present(clientOnly, ca.cert), t0, "incompatible key usage"},
		{"other DNS name", present(otherName, ca.cert), t0, "not controller.orch.internal"},
		{"nameless", present(nameless, ca.cert), t0, "no valid identity"},
		{"expired", present(genuine, ca.cert), t0.Add(25 * time.Hour), "is after 2026-03-02T12:00:00Z"},
		{"not yet valid", present(genuine, ca.cert), t0.Add(-time.Hour), "is before 2026-03-01T11:55:00Z"},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := ServerTLS(c.src, ca.Pool, at(t0))
			seen, serverErr, err := shake(t, server, PinnedJoinTLS(ca.Hash(), at(c.now)))
			wantErr(t, err, c.want)
			if (serverErr == nil) != (c.want == "") {
				t.Errorf("server: %v", serverErr)
			}
			if _, err := IdentityFromState(seen); !errors.Is(err, ErrNoCertificate) {
				t.Errorf("the joiner is seen as %v", err)
			}
		})
	}
	if err := verifyPinned(nil, ca.Hash(), t0); !errors.Is(err, ErrNoCertificate) {
		t.Errorf("nothing sent: %v", err)
	}
}

// TestPinIsOfTheRoot: a server whose own key has the pinned hash is no CA.
func TestPinIsOfTheRoot(t *testing.T) {
	ca := newCA(t, "prod")
	cert := ok(bundle(t, ca, controller("c1"), t0).Certificate())(t)
	_, _, err := shake(t, ServerTLS(present(cert, cert.Leaf), ca.Pool, at(t0)), PinnedJoinTLS(PublicKeyHash(cert.Leaf), at(t0)))
	wantErr(t, err, "the certificate is not a CA")
}

func TestCheckPin(t *testing.T) {
	ca, other := newCA(t, "prod"), newCA(t, "prod")
	wantErr(t, CheckPin(ca.CertPEM, ca.Hash()), "")
	err := CheckPin(other.CertPEM, ca.Hash())
	wantErr(t, err, "check CA: the server's CA is not the join token's: its hash is "+other.Hash())
	if !errors.Is(err, ErrPin) {
		t.Errorf("%v is not ErrPin", err)
	}
	wantErr(t, CheckPin(nil, ca.Hash()), "check CA: parse certificate")
	_, err = Pool(bundle(t, ca, node("n1"), t0).Cert)
	wantErr(t, err, "read CA: the certificate is not a CA")
	_, err = Pool(nil)
	wantErr(t, err, "read CA: parse certificate")
}
