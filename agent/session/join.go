package session

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
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
	// renewAgain is the wait after a renewal that failed, while there are days left.
	renewAgain = 10 * time.Minute
	// renewSoon is the first wait, which doubles until renewLate, where no session can be
	// had before it succeeds, or will not be soon: the certificate has ended, or its CA goes.
	renewSoon, renewLate = 5 * time.Second, time.Minute
	// clockLook is how often it is looked whether the certificate is due: a timer does not
	// follow a clock that is set, nor count while the machine is suspended.
	clockLook = time.Minute
	// rotationSpread is the time over which the nodes of a fleet renew after the cluster got
	// a new CA, so that the leader is not asked by all of them at once.
	rotationSpread = 5 * time.Second
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
	now    func() time.Time // the clock; tests set it

	mu      sync.Mutex
	trusted []byte        // CAs in PEM as the leader told them last; nil: those on disk
	since   time.Time     // when it told them
	told    chan struct{} // holds one word: trusted has changed
}

// OpenIdentity reads the node's certificate from dir. joined is false where
// there is none yet. One for another name is an error: a node does not change
// its name.
func OpenIdentity(dir, name string, logger *slog.Logger, more ...grpc.DialOption) (id *Identity, joined bool, err error) {
	id = &Identity{files: pki.Files{Dir: dir}, name: name, logger: logger, more: more, told: make(chan struct{}, 1), now: time.Now}
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
	return credentials.NewTLS(pki.Direct(pki.ClientTLS(&id.source, id.pool.Load(), "", nil))), nil
}

func (id *Identity) csr() ([]byte, error) {
	key, err := id.files.EnsureKey(crand.Reader)
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
	case codes.Unauthenticated, codes.PermissionDenied, codes.AlreadyExists, codes.InvalidArgument, codes.FailedPrecondition:
		return errors.New(status.Convert(err).Message())
	case codes.Unimplemented:
		return errors.New("that address is no orch controller's: check --join")
	}
	// TLS errors arrive as Unavailable, with their words.
	if errors.Is(err, pki.ErrPin) || strings.Contains(err.Error(), pki.ErrPin.Error()) {
		return fmt.Errorf("the controller does not belong to the token's cluster: check --join, and ask for a fresh token with \"orchctl token create --role node\" (%w)", err)
	}
	return nil
}

// Trust takes the cluster's CAs, in PEM, the one that signs first, from a leader whose
// certificate was verified. Run takes them over, and renews the certificate if it is of
// another CA. It does not wait.
func (id *Identity) Trust(caPEM []byte) {
	id.mu.Lock()
	same := bytes.Equal(id.trusted, caPEM)
	if !same {
		id.trusted, id.since = caPEM, id.now()
	}
	id.mu.Unlock()
	if same {
		return
	}
	select {
	case id.told <- struct{}{}:
	default:
	}
}

// Run renews the certificate in time, until ctx ends. It returns nil.
func (id *Identity) Run(ctx context.Context, controllers []string) error {
	var again time.Time // not before: the last try failed
	soon := renewSoon
	for {
		kept := id.takeOver()
		if kept != nil {
			id.logger.Warn("cannot keep the cluster's CAs", "err", kept, "retry_in", clockLook)
		}
		leaf, now := id.source.Get().Leaf, id.now()
		due, moves := id.due(leaf)
		if due.Before(again) {
			due = again
		}
		if !now.Before(due) {
			err := id.Renew(ctx, controllers)
			if err == nil {
				soon = renewSoon
				again = now.Add(soon) // whatever it was given, it does not ask without a pause
				continue
			}
			wait := renewAgain
			if moves || id.Expired() {
				wait = soon
				soon = min(2*soon, renewLate)
			}
			again = now.Add(wait/2 + rand.N(wait)) // a fleet must not come back as one
			id.logger.Warn("cannot renew the node's certificate yet", "ends", leaf.NotAfter, "next_try", again, "err", explain(err))
			continue
		}
		if look := now.Add(clockLook); kept != nil && look.Before(due) {
			due = look
		}
		told, err := id.wait(ctx, due)
		if err != nil {
			return nil
		}
		if told {
			again = time.Time{}
		}
	}
}

// wait returns when the clock says due, or something was told before. It looks at the clock
// now and then: timers stand still while the machine is suspended, and know of no clock that
// was set.
func (id *Identity) wait(ctx context.Context, due time.Time) (told bool, err error) {
	for {
		timer := time.NewTimer(min(due.Sub(id.now()), clockLook))
		select {
		case <-ctx.Done():
			timer.Stop()
			return false, ctx.Err()
		case <-timer.C:
			if !id.now().Before(due) {
				return false, nil
			}
		case <-id.told:
			timer.Stop()
			return true, nil
		}
	}
}

// due is when the certificate is to be renewed; moves tells that it is because another CA
// signs now.
func (id *Identity) due(leaf *x509.Certificate) (due time.Time, moves bool) {
	due = pki.RenewAt(leaf)
	id.mu.Lock()
	trusted, since := id.trusted, id.since
	id.mu.Unlock()
	cas, err := pki.CAs(trusted)
	if err != nil || leaf.CheckSignatureFrom(cas[0]) == nil {
		return due, false
	}
	h := fnv.New64a()
	h.Write([]byte(id.name))
	if soon := since.Add(time.Duration(h.Sum64() % uint64(rotationSpread))); soon.Before(due) {
		due = soon
	}
	return due, true
}

// takeOver makes what the leader told what is trusted, on disk too.
func (id *Identity) takeOver() error {
	id.mu.Lock()
	trusted := id.trusted
	id.mu.Unlock()
	if trusted == nil {
		return nil
	}
	have, err := id.files.Load()
	if err != nil || bytes.Equal(have.CA, trusted) {
		return err
	}
	leaf := id.source.Get().Leaf
	if _, err := pki.IssuerHash(trusted, leaf); err == nil {
		if err := id.files.SaveCert(trusted, have.Cert); err != nil {
			return err
		}
		id.logger.Info("the cluster's CAs have changed")
		return id.load()
	}
	// The CA of our certificate is trusted no more. A controller is believed by either
	// until the certificate is renewed, which brings the new ones to the disk.
	pool, err := pki.Pool(slices.Concat(trusted, have.CA))
	if err != nil {
		return err
	}
	id.pool.Store(pool)
	return nil
}

// Expired tells whether no connection can be made with the certificate.
func (id *Identity) Expired() bool { return id.now().After(id.source.Get().Leaf.NotAfter) }

// Renew asks the controllers in turn for a certificate with the key of the one
// that it has. One that is not accepted any more is not presented: the request alone, which
// the key signed, speaks.
func (id *Identity) Renew(ctx context.Context, controllers []string) error {
	csr, err := id.csr()
	if err != nil {
		return fmt.Errorf("renew certificate: %w", err)
	}
	sources := []pki.CertSource{&id.source, nil}
	if id.Expired() {
		sources = sources[1:]
	}
	for _, addr := range controllers {
		for _, src := range sources {
			var res *orchv1.JoinResponse
			res, err = id.call(ctx, addr, pki.Direct(pki.ClientTLS(src, id.pool.Load(), "", nil)), func(ctx context.Context, c orchv1.AgentsClient) (*orchv1.JoinResponse, error) {
				return c.Renew(ctx, &orchv1.RenewRequest{Csr: csr})
			})
			if err == nil {
				if err = id.keep(res); err == nil {
					id.logger.Info("certificate renewed", "ends", id.source.Get().Leaf.NotAfter)
					return nil
				}
			}
			if status.Code(err) != codes.Unavailable {
				break // an answer: asked without the certificate it would be the same
			}
		}
	}
	return fmt.Errorf("renew certificate: %w", err)
}
