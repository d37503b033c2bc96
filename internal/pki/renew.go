package pki

import (
	"crypto/x509"
	"fmt"
	"hash/fnv"
	"time"
)

// RenewAt is when the holder of cert asks for its next one: at two thirds of its
// life, less up to a tenth of its life by a hash of its name, so that a fleet
// which joined at once does not renew at once. The same certificate always gives
// the same time.
func RenewAt(cert *x509.Certificate) time.Time {
	life := cert.NotAfter.Sub(cert.NotBefore)
	at := cert.NotBefore.Add(life / 3 * 2)
	spread := life / 10
	if spread <= 0 {
		return at
	}
	h := fnv.New64a()
	if len(cert.URIs) > 0 {
		h.Write([]byte(cert.URIs[0].String()))
	} else {
		h.Write([]byte(cert.Subject.String()))
	}
	return at.Add(-time.Duration(h.Sum64() % uint64(spread)))
}

// Renewable decides whether the holder of cert may have another one for csr: the
// CA signed it, it is valid or ended at most RenewGrace ago, and csr asks for the
// same name with the same key. It returns the identity to sign. It serves nodes
// whose certificate has just expired and who therefore come without one; whether
// the name was taken away meanwhile is for the caller to know.
func (ca *CA) Renewable(cert *x509.Certificate, csr []byte, now time.Time) (Identity, error) {
	id, err := IdentityOf(cert)
	if err != nil {
		return Identity{}, fmt.Errorf("renew certificate: %w", err)
	}
	fail := func(err error) (Identity, error) {
		return Identity{}, fmt.Errorf("renew certificate of %s: %w", id, err)
	}
	if now.After(cert.NotAfter.Add(RenewGrace)) {
		return fail(fmt.Errorf("it expired at %s, more than %s ago: join again", stamp(cert.NotAfter), RenewGrace))
	}
	// Verified at the last moment of its life once that is over: what is in
	// question then is only the signature.
	_, err = cert.Verify(x509.VerifyOptions{
		Roots: ca.Pool(), CurrentTime: earliest(now, cert.NotAfter),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return fail(err)
	}
	req, err := ParseCSR(csr)
	if err != nil {
		return fail(err)
	}
	if req.Identity != id {
		return fail(fmt.Errorf("the request asks for %s", req.Identity))
	}
	if req.KeyHash != PublicKeyHash(cert) {
		return fail(fmt.Errorf("the request has another key"))
	}
	return id, nil
}
