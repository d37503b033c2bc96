package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// ErrNotController: the server holds a certificate of the cluster, but not a
// controller's.
var ErrNotController = errors.New("the server is not a controller")

// CertSource gives the certificate to present at this moment; nil is none.
type CertSource interface {
	Get() *tls.Certificate
}

// Source is a certificate that can be swapped while connections are made with
// it. The zero value holds none. Safe for concurrent use.
type Source struct {
	cert atomic.Pointer[tls.Certificate]
}

// Set makes cert what new connections present; nil takes it away. cert must not
// change afterwards.
func (s *Source) Set(cert *tls.Certificate) { s.cert.Store(cert) }

// Get is the certificate last set, or nil.
func (s *Source) Get() *tls.Certificate { return s.cert.Load() }

// nextProtos is what gRPC speaks over TLS.
var nextProtos = []string{"h2"}

// ServerTLS is a controller's side: TLS 1.3, the certificate read from src and the CAs
// from trusted at every handshake. A client without a certificate gets in, so that it can
// join (IdentityFromState then says ErrNoCertificate); one with a certificate that none of
// the CAs signed, that is not valid now or that names nobody is refused. clock nil
// is the system's.
func ServerTLS(src CertSource, trusted func() *x509.CertPool, clock func() time.Time) *tls.Config {
	conf := &tls.Config{
		MinVersion: tls.VersionTLS13,
		Time:       clock,
		NextProtos: nextProtos,
		ClientAuth: tls.VerifyClientCertIfGiven,
		// A resumed session would skip the look at the certificate.
		SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if cert := src.Get(); cert != nil {
				return cert, nil
			}
			return nil, fmt.Errorf("serve TLS: %w", ErrNoCertificate)
		},
		VerifyConnection: func(cs tls.ConnectionState) error {
			_, err := IdentityFromState(cs)
			if errors.Is(err, ErrNoCertificate) {
				return nil
			}
			if err == nil {
				err = direct(cs)
			}
			return err
		},
	}
	outer := conf.Clone()
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		now := conf.Clone()
		now.ClientCAs = trusted()
		return now, nil
	}
	return outer
}

// Direct makes a configuration of ClientTLS refuse a server whose CA is only vouched for by
// one that is trusted: for those who are told all CAs, and when one is retired.
func Direct(conf *tls.Config) *tls.Config {
	verify := conf.VerifyConnection
	conf.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := verify(cs); err != nil {
			return err
		}
		return direct(cs)
	}
	return conf
}

// direct wants a certificate that a trusted CA signed itself.
func direct(cs tls.ConnectionState) error {
	for _, chain := range cs.VerifiedChains {
		if len(chain) == 2 {
			return nil
		}
	}
	return fmt.Errorf("%w: its CA is not one that is trusted, but only vouched for by one", ErrNotVerified)
}

// ClientTLS is the side of an agent, a user or another controller: TLS 1.3, the
// certificate read from src at every handshake (src nil, or empty: none is
// sent). The server must hold a controller's certificate of ca for serverName;
// "" is ServerName. clock nil is the system's.
func ClientTLS(src CertSource, ca *x509.CertPool, serverName string, clock func() time.Time) *tls.Config {
	if serverName == "" {
		serverName = ServerName
	}
	if ca == nil {
		ca = x509.NewCertPool() // nil would mean the system's roots: trust nobody instead
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		Time:       clock,
		RootCAs:    ca,
		ServerName: serverName,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if src != nil {
				if cert := src.Get(); cert != nil {
					return cert, nil
				}
			}
			return &tls.Certificate{}, nil
		},
		VerifyConnection: func(cs tls.ConnectionState) error {
			id, err := IdentityFromState(cs)
			if err != nil {
				return fmt.Errorf("verify server: %w", err)
			}
			if id.Kind != Controller {
				return fmt.Errorf("verify server: %w: it is %s", ErrNotController, id)
			}
			return nil
		},
	}
}

// IdentityFromState is who is at the other end. Only what TLS verified against
// the cluster's CA counts: without a certificate the error is ErrNoCertificate,
// with one that was not verified ErrNotVerified, with one that names nobody
// ErrIdentity.
func IdentityFromState(cs tls.ConnectionState) (Identity, error) {
	if len(cs.PeerCertificates) == 0 {
		return Identity{}, ErrNoCertificate
	}
	if len(cs.VerifiedChains) == 0 || len(cs.VerifiedChains[0]) == 0 {
		return Identity{}, ErrNotVerified
	}
	return IdentityOf(cs.VerifiedChains[0][0])
}

// CAs reads the CAs of a PEM text, all of one cluster.
func CAs(caPEM []byte) ([]*x509.Certificate, error) {
	certs, err := parseCAs(caPEM)
	if err != nil {
		return nil, fmt.Errorf("read CA: %w", err)
	}
	return certs, nil
}

// Issuer is that CA of a PEM text which signed the certificate.
func Issuer(caPEM []byte, cert *x509.Certificate) (*x509.Certificate, error) {
	cas, err := CAs(caPEM)
	if err != nil {
		return nil, err
	}
	return issuer(cert, cas)
}

// IssuerHash is the hash of Issuer.
func IssuerHash(caPEM []byte, cert *x509.Certificate) (string, error) {
	ca, err := Issuer(caPEM, cert)
	if err != nil {
		return "", err
	}
	return PublicKeyHash(ca), nil
}

// Pool trusts the CA certificates of a PEM text and nothing else.
func Pool(caPEM []byte) (*x509.CertPool, error) {
	certs, err := parseCerts(caPEM)
	if err != nil {
		return nil, fmt.Errorf("read CA: %w", err)
	}
	pool := x509.NewCertPool()
	for _, c := range certs {
		if err := selfSigned(c); err != nil {
			return nil, fmt.Errorf("read CA: %w", err)
		}
		pool.AddCert(c)
	}
	return pool, nil
}
