package session

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/internal/pki"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

const (
	// joinMax is how long one controller may take to sign a certificate.
	joinMax = 10 * time.Second
	// joinAgain is the wait between two rounds of tries to join.
	joinAgain = time.Second
	// renewAgain is the wait after a renewal that failed: there are days left.
	renewAgain = 10 * time.Minute
)

// Identity is the node's certificate, from the first join to every renewal. It
// is safe for concurrent use.
type Identity struct {
	files  pki.Files
	name   string
	logger *slog.Logger
	source pki.Source
	pool   atomic.Pointer[x509.CertPool]
	more   []grpc.DialOption
}

// OpenIdentity reads the node's certificate from dir. joined is false where
// there is none yet. One for another name is an error: a node does not change
// its name.
func OpenIdentity(dir, name string, logger *slog.Logger, more ...grpc.DialOption) (id *Identity, joined bool, err error) {
	id = &Identity{files: pki.Files{Dir: dir}, name: name, logger: logger, more: more}
	err = id.load()
	if errors.Is(err, os.ErrNotExist) {
		return id, false, nil
	}
	return id, err == nil, err
}

func (id *Identity) load() error {
	b, err := id.files.Load()
	if err != nil {
		return err
	}
	pool, err := b.Pool()
	if err != nil {
		return err
	}
	cert, err := b.Certificate()
	if err != nil {
		return err
	}
	who, err := pki.IdentityOf(cert.Leaf)
	if err != nil {
		return fmt.Errorf("certificate in %s: %w", id.files.Dir, err)
	}
	if who.Kind != pki.Node || who.Name != id.name {
		return fmt.Errorf("certificate in %s is that of %s, not of node %s: keep the name, or start with an empty data folder", id.files.Dir, who, id.name)
	}
	id.pool.Store(pool)
	id.source.Set(cert)
	return nil
}

// Credentials of a new connection.
func (id *Identity) Credentials() (credentials.TransportCredentials, error) {
	return credentials.NewTLS(pki.ClientTLS(&id.source, id.pool.Load(), "", nil)), nil
}

func (id *Identity) csr() ([]byte, error) {
	key, err := id.files.EnsureKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return pki.CSR(key, pki.Identity{Kind: pki.Node, Name: id.name})
}

// Join exchanges the token for a certificate, trying the controllers until one
// answers. What a retry cannot mend ends it: a token that is refused, a
// controller that is not the cluster's.
func (id *Identity) Join(ctx context.Context, controllers []string, text string) error {
	token, err := pki.ParseToken(text)
	if err != nil {
		return fmt.Errorf("join: %w; \"orchctl token create --role node\" prints one", err)
	}
	csr, err := id.csr()
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	for round := 0; ; round++ {
		for _, addr := range controllers {
			err = id.joinAt(ctx, addr, token, text, csr)
			if err == nil {
				return nil
			}
			if final := refusal(err); final != nil {
				return fmt.Errorf("join through %s: %w", addr, final)
			}
			if ctx.Err() != nil {
				return fmt.Errorf("join through %s: %w", addr, ctx.Err())
			}
			if round%30 == 0 {
				id.logger.Warn("cannot join yet; trying again", "controller", addr, "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("join: %w", ctx.Err())
		case <-time.After(joinAgain):
		}
	}
}

func (id *Identity) joinAt(ctx context.Context, addr string, token pki.Token, text string, csr []byte) error {
	res, err := id.call(ctx, addr, pki.PinnedJoinTLS(token.CAHash, nil), func(ctx context.Context, c orchv1.AgentsClient) (*orchv1.JoinResponse, error) {
		return c.Join(ctx, &orchv1.JoinRequest{Token: text, Name: id.name, Csr: csr})
	})
	if err != nil {
		return err
	}
	if err := pki.CheckPin(res.GetCa(), token.CAHash); err != nil {
		return err
	}
	return id.keep(res)
}

func (id *Identity) keep(res *orchv1.JoinResponse) error {
	if err := id.files.SaveCert(res.GetCa(), res.GetCertificate()); err != nil {
		return err
	}
	return id.load()
}

func (id *Identity) call(ctx context.Context, addr string, cfg *tls.Config, f func(context.Context, orchv1.AgentsClient) (*orchv1.JoinResponse, error)) (*orchv1.JoinResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, joinMax)
	defer cancel()
	conn, err := dial(addr, credentials.NewTLS(cfg), id.more...)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return f(ctx, orchv1.NewAgentsClient(conn))
}

// refusal gives the error with its remedy if no retry can help, else nil.
func refusal(err error) error {
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied:
		return fmt.Errorf("%s; ask for a fresh token with \"orchctl token create --role node\"", status.Convert(err).Message())
	case codes.AlreadyExists, codes.InvalidArgument, codes.FailedPrecondition:
		return errors.New(status.Convert(err).Message())
	case codes.Unimplemented:
		return errors.New("that address is no orch controller's: check --join")
	}
	// TLS errors arrive as Unavailable, with their words.
	if errors.Is(err, pki.ErrPin) || strings.Contains(err.Error(), pki.ErrPin.Error()) {
		return fmt.Errorf("the controller does not belong to the token's cluster: check --join and the token (%w)", err)
	}
	return nil
}

// Run renews the certificate in time, until ctx ends. It returns nil.
func (id *Identity) Run(ctx context.Context, controllers []string) error {
	for {
		wait := renewAgain
		if at := pki.RenewAt(id.source.Get().Leaf); time.Now().Before(at) {
			wait = time.Until(at)
		} else if err := id.Renew(ctx, controllers); err != nil {
			id.logger.Warn("cannot renew the node's certificate yet", "ends", id.source.Get().Leaf.NotAfter, "err", err)
		} else {
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// Expired tells whether no connection can be made with the certificate.
func (id *Identity) Expired() bool { return time.Now().After(id.source.Get().Leaf.NotAfter) }

// Renew asks the controllers in turn for a certificate with the key of the one
// that it has. One that has expired is not presented: the request alone speaks.
func (id *Identity) Renew(ctx context.Context, controllers []string) error {
	csr, err := id.csr()
	if err != nil {
		return fmt.Errorf("renew certificate: %w", err)
	}
	var src pki.CertSource = &id.source
	if id.Expired() {
		src = nil
	}
	for _, addr := range controllers {
		var res *orchv1.JoinResponse
		res, err = id.call(ctx, addr, pki.ClientTLS(src, id.pool.Load(), "", nil), func(ctx context.Context, c orchv1.AgentsClient) (*orchv1.JoinResponse, error) {
			return c.Renew(ctx, &orchv1.RenewRequest{Csr: csr})
		})
		if err == nil {
			if err = id.keep(res); err == nil {
				id.logger.Info("certificate renewed", "ends", id.source.Get().Leaf.NotAfter)
				return nil
			}
		}
	}
	return fmt.Errorf("renew certificate: %w", err)
}
