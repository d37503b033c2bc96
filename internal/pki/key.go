package pki

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"net/url"
)

const (
	pemCert    = "CERTIFICATE"
	pemKey     = "PRIVATE KEY"
	pemCSR     = "CERTIFICATE REQUEST"
	pemSealKey = "ORCH SEAL KEY"

	csrBytesMax = 16 << 10 // bytes: a P-256 request has about 500; it comes from a stranger
)

// NewKey makes an ECDSA P-256 key. rnd is for the shape of the interface: the
// standard library draws keys from the system's source whatever is passed.
func NewKey(rnd io.Reader) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rnd)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return key, nil
}

// EncodeKey is the key as PKCS #8 in PEM.
func EncodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}), nil
}

// ParseKey reads what EncodeKey wrote.
func ParseKey(keyPEM []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(keyPEM)
	if block == nil || block.Type != pemKey {
		return nil, fmt.Errorf("parse key: no %q block in PEM", pemKey)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("parse key: want ECDSA P-256, have another kind")
	}
	return key, nil
}

// EncodeCert is a certificate in PEM.
func EncodeCert(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCert, Bytes: cert.Raw})
}

// ParseCert reads the first certificate of a PEM text.
func ParseCert(certPEM []byte) (*x509.Certificate, error) {
	certs, err := parseCerts(certPEM)
	if err != nil {
		return nil, err
	}
	return certs[0], nil
}

// parseCerts reads all certificates of a PEM text: at least one.
func parseCerts(certPEM []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for block, rest := pem.Decode(certPEM); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != pemCert {
			return nil, fmt.Errorf("parse certificate: found a %q block in PEM", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse certificate: %w", err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("parse certificate: no %q block in PEM", pemCert)
	}
	return certs, nil
}

// CSR asks, in DER, for a certificate of id for key, and proves ownership of
// key. The name is a wish: what is signed is for the CA's caller to decide.
func CSR(key *ecdsa.PrivateKey, id Identity) ([]byte, error) {
	if err := id.Validate(); err != nil {
		return nil, fmt.Errorf("request certificate: %w", err)
	}
	u := id.uri("")
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: commonName(id.Name)},
		URIs:    []*url.URL{u},
	}, key)
	if err != nil {
		return nil, fmt.Errorf("request certificate for %s: %w", id, err)
	}
	return der, nil
}

// Request is what a certificate request asks for.
type Request struct {
	Identity Identity // asked for, not granted
	KeyHash  string   // equals PublicKeyHash of the certificate that Sign would make
}

// ParseCSR reads a request in DER or PEM and checks its proof of ownership.
func ParseCSR(csr []byte) (Request, error) {
	req, id, err := parseCSR(csr)
	if err != nil {
		return Request{}, err
	}
	return Request{Identity: id, KeyHash: spkiHash(req.RawSubjectPublicKeyInfo)}, nil
}

func parseCSR(csr []byte) (*x509.CertificateRequest, Identity, error) {
	fail := func(err error) (*x509.CertificateRequest, Identity, error) {
		return nil, Identity{}, fmt.Errorf("parse certificate request: %w", err)
	}
	if len(csr) > csrBytesMax {
		return fail(fmt.Errorf("%d bytes, at most %d", len(csr), csrBytesMax))
	}
	if block, _ := pem.Decode(csr); block != nil {
		if block.Type != pemCSR {
			return fail(fmt.Errorf("found a %q block in PEM, want %q", block.Type, pemCSR))
		}
		csr = block.Bytes
	}
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return fail(err)
	}
	if !goodKey(req.PublicKey) {
		return fail(fmt.Errorf("key: want ECDSA P-256 or Ed25519, have %s", req.PublicKeyAlgorithm))
	}
	if err := req.CheckSignature(); err != nil {
		return fail(fmt.Errorf("the sender does not own the key: %w", err))
	}
	if len(req.URIs) != 1 {
		return fail(fmt.Errorf("%w: the request has %d URI names, want 1", ErrIdentity, len(req.URIs)))
	}
	id, _, err := parseURI(req.URIs[0])
	if err != nil {
		return fail(err)
	}
	return req, id, nil
}

// goodKey: a certificate on a weak key is a lie told by the CA.
func goodKey(pub any) bool {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		return k.Curve == elliptic.P256()
	case ed25519.PublicKey:
		return true
	}
	return false
}

// commonName fits a name into the 64 bytes that X.520 allows. It is for people.
func commonName(name string) string { return name[:min(len(name), 64)] }
