package pki

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"time"
)

const (
	// CAYears is the CA's life.
	CAYears = 10
	// ServingValidity is the life that nodes and controllers get: they renew by
	// themselves, and a stolen key is worth nothing soon.
	ServingValidity = 30 * 24 * time.Hour
	// UserValidity is the life that a user's certificate gets: a person renews it by hand.
	UserValidity = 365 * 24 * time.Hour
	// RenewGrace is how long after its end a certificate may still renew: a node
	// that was off over a holiday needs no admin.
	RenewGrace = 14 * 24 * time.Hour

	// Backdate is how much earlier certificates begin: clocks of a fleet differ.
	Backdate = 5 * time.Minute

	serialBits = 128 // enough that serials never meet, below the 20 bytes of RFC 5280
)

// CA is a cluster's certificate authority. It does not change after it was made
// and is safe for concurrent use. KeyPEM is secret: keep it sealed (see Files.SaveCA).
type CA struct {
	Cluster string
	CertPEM []byte
	KeyPEM  []byte `json:"-"`

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// String names the CA without its key.
func (ca *CA) String() string { return "CA of " + ca.Cluster + " " + ca.Hash() }

// GoString keeps the key out of %#v too.
func (ca *CA) GoString() string { return ca.String() }

// NewCA makes a cluster's CA, valid for CAYears from now. clusterName is one DNS
// label. rnd feeds the serial number.
func NewCA(clusterName string, now time.Time, rnd io.Reader) (*CA, error) {
	if why := clusterFault(clusterName); why != "" {
		return nil, fmt.Errorf("make CA: cluster name %q %s", clusterName, why)
	}
	key, err := NewKey(rnd)
	if err != nil {
		return nil, fmt.Errorf("make CA of %s: %w", clusterName, err)
	}
	serial, err := newSerial(rnd)
	if err != nil {
		return nil, fmt.Errorf("make CA of %s: %w", clusterName, err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("make CA of %s: %w", clusterName, err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial,
		// The key's hash tells the CAs of one cluster apart, for programs that go by names.
		Subject: pkix.Name{Organization: []string{clusterName}, CommonName: commonName("orch CA " + clusterName),
			SerialNumber: spkiHash(public)[:16]},
		URIs:                  []*url.URL{caURI(clusterName)},
		NotBefore:             now.Add(-Backdate),
		NotAfter:              now.AddDate(CAYears, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            1, // what it signs signs nothing, but for the CA before it; see Vouch
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make CA of %s: %w", clusterName, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make CA of %s: %w", clusterName, err)
	}
	keyPEM, err := EncodeKey(key)
	if err != nil {
		return nil, fmt.Errorf("make CA of %s: %w", clusterName, err)
	}
	return &CA{Cluster: clusterName, CertPEM: EncodeCert(cert), KeyPEM: keyPEM, cert: cert, key: key}, nil
}

// ParseCA reads a CA and checks that certificate and key belong together. An
// expired one is read: Sign refuses then.
func ParseCA(certPEM, keyPEM []byte) (*CA, error) {
	cert, cluster, err := parseCACert(certPEM)
	if err != nil {
		return nil, fmt.Errorf("parse CA: %w", err)
	}
	key, err := ParseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("parse CA of %s: %w", cluster, err)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("parse CA of %s: the key does not belong to the certificate", cluster)
	}
	return &CA{Cluster: cluster, CertPEM: EncodeCert(cert), KeyPEM: keyPEM, cert: cert, key: key}, nil
}

// parseCACert reads one self-signed CA certificate of ours and its cluster.
func parseCACert(certPEM []byte) (*x509.Certificate, string, error) {
	cert, err := ParseCert(certPEM)
	if err != nil {
		return nil, "", err
	}
	cluster, err := clusterOf(cert)
	return cert, cluster, err
}

// parseCAs reads all CAs of a PEM text; they are of one cluster.
func parseCAs(caPEM []byte) ([]*x509.Certificate, error) {
	certs, err := parseCerts(caPEM)
	if err != nil {
		return nil, err
	}
	first := ""
	for i, c := range certs {
		cluster, err := clusterOf(c)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			first = cluster
		} else if cluster != first {
			return nil, fmt.Errorf("there are CAs of the clusters %s and %s", first, cluster)
		}
	}
	return certs, nil
}

// clusterOf checks that a certificate is a self-signed CA of ours.
func clusterOf(cert *x509.Certificate) (string, error) {
	if err := selfSigned(cert); err != nil {
		return "", err
	}
	if len(cert.URIs) != 1 || cert.URIs[0].String() != caURI(cert.URIs[0].Host).String() || clusterFault(cert.URIs[0].Host) != "" {
		return "", fmt.Errorf("the certificate does not name its cluster as %s://<cluster>/ca", scheme)
	}
	return cert.URIs[0].Host, nil
}

// selfSigned refuses what is not a CA that vouches for itself. Without the
// signature anybody could dress up the CA's public key with other limits.
func selfSigned(cert *x509.Certificate) error {
	if !cert.BasicConstraintsValid || !cert.IsCA {
		return fmt.Errorf("the certificate is not a CA")
	}
	if err := cert.CheckSignatureFrom(cert); err != nil {
		return fmt.Errorf("the CA is not signed by itself: %w", err)
	}
	return nil
}

func caURI(cluster string) *url.URL { return &url.URL{Scheme: scheme, Host: cluster, Path: "/ca"} }

// Vouch signs the key of an older CA of the cluster for so long: who trusts only this CA then
// believes what that one signed. Nothing takes it back: everybody sees it, and who has the
// older key may show it when that CA is retired, until it ends.
func (ca *CA) Vouch(older *CA, validity time.Duration, now time.Time) (*x509.Certificate, error) {
	fail := func(err error) (*x509.Certificate, error) {
		return nil, fmt.Errorf("vouch for the CA %s: %w", older.Hash(), err)
	}
	if ca.Cluster != older.Cluster {
		return fail(fmt.Errorf("it is of the cluster %s, not of %s", older.Cluster, ca.Cluster))
	}
	serial, err := newSerial(rand.Reader)
	if err != nil {
		return fail(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               older.cert.Subject,
		RawSubject:            older.cert.RawSubject,
		SubjectKeyId:          older.cert.SubjectKeyId,
		URIs:                  older.cert.URIs,
		NotBefore:             latest(now.Add(-Backdate), latest(ca.cert.NotBefore, older.cert.NotBefore)),
		NotAfter:              earliest(now.Add(validity), earliest(ca.cert.NotAfter, older.cert.NotAfter)),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true, // what it signs signs nothing
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, older.cert.PublicKey, ca.key)
	if err != nil {
		return fail(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return fail(err)
	}
	return cert, nil
}

// Hash is the hex SHA-256 of the CA's SubjectPublicKeyInfo: the pin in join tokens.
func (ca *CA) Hash() string { return PublicKeyHash(ca.cert) }

// Certificate is the CA's certificate. Callers do not change it.
func (ca *CA) Certificate() *x509.Certificate { return ca.cert }

// Pool trusts this CA and nothing else.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

// Sign makes a certificate, in PEM, of id for the key of csr (DER or PEM). The
// request must ask for just this identity; all else in it is ignored. Life is
// from five minutes before now until now+validity, but never beyond the CA's
// own. hosts are further DNS names and IP addresses, for controllers only;
// ServerName is always among a controller's.
func (ca *CA) Sign(csr []byte, id Identity, validity time.Duration, now time.Time, hosts ...string) ([]byte, error) {
	if err := id.Validate(); err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	fail := func(err error) ([]byte, error) { return nil, fmt.Errorf("sign certificate of %s: %w", id, err) }
	req, asked, err := parseCSR(csr)
	if err != nil {
		return fail(err)
	}
	switch {
	case asked != id:
		return fail(fmt.Errorf("the request asks for %s", asked))
	case validity <= 0:
		return fail(fmt.Errorf("validity %s: want more than zero", validity))
	case now.Before(ca.cert.NotBefore):
		return fail(fmt.Errorf("the CA is valid only from %s", stamp(ca.cert.NotBefore)))
	case !now.Before(ca.cert.NotAfter):
		return fail(fmt.Errorf("the CA expired at %s", stamp(ca.cert.NotAfter)))
	case len(hosts) > 0 && id.Kind != Controller:
		return fail(fmt.Errorf("host names %q: only controllers have them", hosts))
	}
	serial, err := newSerial(rand.Reader)
	if err != nil {
		return fail(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{ca.Cluster}, CommonName: commonName(id.Name)},
		URIs:                  []*url.URL{id.uri(ca.Cluster)},
		NotBefore:             latest(now.Add(-Backdate), ca.cert.NotBefore),
		NotAfter:              earliest(now.Add(validity), ca.cert.NotAfter),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	if id.Kind == Controller {
		if err := addServer(tmpl, hosts); err != nil {
			return fail(err)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, req.PublicKey, ca.key)
	if err != nil {
		return fail(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return fail(err)
	}
	return EncodeCert(cert), nil
}

// addServer gives a controller what a client checks. Agents serve nothing, so
// that no node's key can stand in for a controller.
func addServer(tmpl *x509.Certificate, hosts []string) error {
	tmpl.ExtKeyUsage = append(tmpl.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	tmpl.DNSNames = []string{ServerName}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
			continue
		}
		if why := nameFault(h, nameMax, false); why != "" {
			return fmt.Errorf("host name %q %s", h, why)
		}
		if h != ServerName {
			tmpl.DNSNames = append(tmpl.DNSNames, h)
		}
	}
	return nil
}

func newSerial(rnd io.Reader) (*big.Int, error) {
	buf := make([]byte, serialBits/8)
	if _, err := io.ReadFull(rnd, buf); err != nil {
		return nil, fmt.Errorf("draw serial number: %w", err)
	}
	n := new(big.Int).SetBytes(buf)
	return n.Add(n, big.NewInt(1)), nil // zero is not a serial number
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// stamp is how times look in messages.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
