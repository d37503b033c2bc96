package identity

import (
	"context"
	"crypto/x509"
	"fmt"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/orchctl/orch/internal/pki"
)

// Caller is who is at the other end of a call.
type Caller struct {
	pki.Identity
	Certificate *x509.Certificate
}

// CallerOf reads the caller from the verified certificate of its connection.
// Without one the error wraps pki.ErrNoCertificate.
func CallerOf(ctx context.Context) (Caller, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Caller{}, fmt.Errorf("identify caller: %w", pki.ErrNoCertificate)
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return Caller{}, fmt.Errorf("identify caller: the connection is not TLS: %w", pki.ErrNoCertificate)
	}
	id, err := pki.IdentityFromState(info.State)
	if err != nil {
		return Caller{}, fmt.Errorf("identify caller: %w", err)
	}
	return Caller{Identity: id, Certificate: info.State.VerifiedChains[0][0]}, nil
}
