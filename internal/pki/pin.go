package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// ErrPin: the server's CA is not the one that the join token names.
var ErrPin = errors.New("the server's CA is not the join token's")

// PinnedJoinTLS is the first contact of one who has a join token and nothing
// else. The server sends its CA beside its own certificate; the CA must have the
// token's hash, and the server's certificate must be signed by it, be valid now
// and be a controller's. All of TLS's own checks are replaced by that, so the
// connection has no verified chain and IdentityFromState says ErrNotVerified.
// clock nil is the system's.
func PinnedJoinTLS(caHash string, clock func() time.Time) *tls.Config {
	if clock == nil {
		clock = time.Now
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		Time:               clock,
		ServerName:         ServerName,
		InsecureSkipVerify: true, // VerifyConnection below is stricter than what this turns off
		VerifyConnection: func(cs tls.ConnectionState) error {
			if err := verifyPinned(cs.PeerCertificates, caHash, clock()); err != nil {
				return fmt.Errorf("verify server by join token: %w", err)
			}
			return nil
		},
	}
}

// verifyPinned decides on the certificates that a server sent, its own first.
func verifyPinned(sent []*x509.Certificate, caHash string, now time.Time) error {
	if len(sent) == 0 {
		return ErrNoCertificate
	}
	ca, err := pinnedCA(sent[1:], caHash)
	if err != nil {
		return err
	}
	leaf, roots, between := sent[0], x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(ca)
	for _, c := range sent[1:] { // a CA of the cluster may vouch for the one that signed
		between.AddCert(c)
	}
	opts := x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	if _, err := leaf.Verify(opts); err != nil {
		return err
	}
	id, err := IdentityOf(leaf)
	if err != nil {
		return err
	}
	if id.Kind != Controller {
		return fmt.Errorf("%w: it is %s", ErrNotController, id)
	}
	opts.DNSName, opts.KeyUsages = ServerName, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	_, err = leaf.Verify(opts)
	return err
}

// pinnedCA finds the CA of that hash among what was sent.
func pinnedCA(sent []*x509.Certificate, caHash string) (*x509.Certificate, error) {
	if len(sent) == 0 {
		return nil, fmt.Errorf("%w: it sent none", ErrPin)
	}
	var err error
	for _, c := range sent {
		if PublicKeyHash(c) != caHash {
			continue
		}
		if err = selfSigned(c); err == nil {
			return c, nil
		}
	}
	if err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%w: its hash is %s, the token's is %s: another cluster, a token older than the cluster's CA, or somebody in between",
		ErrPin, PublicKeyHash(sent[len(sent)-1]), caHash)
}

// CheckPin refuses CAs in PEM, as a join's answer brings them, of which none is the
// token's. Errors wrap ErrPin where the hashes differ.
func CheckPin(caPEM []byte, caHash string) error {
	certs, err := parseCAs(caPEM)
	if err != nil {
		return fmt.Errorf("check CA: %w", err)
	}
	if _, err := pinnedCA(certs, caHash); err != nil {
		return fmt.Errorf("check CA: %w", err)
	}
	return nil
}
