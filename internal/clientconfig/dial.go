package clientconfig

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"github.com/orchctl/orch/internal/pki"
)

const (
	// receiveMax is the largest answer that is taken, in bytes: a list of some
	// hundred thousand replicas.
	receiveMax = 256 << 20
	// connectTimeout is how long one controller may take to answer before the
	// next is tried.
	connectTimeout = 3 * time.Second
	// retryMax bounds the wait between two tries, so that a controller that
	// comes back is found within a second.
	retryMax = time.Second
	// aliveEvery and aliveTimeout find a controller that lost its power while a
	// stream is open and nothing is said.
	aliveEvery, aliveTimeout = 10 * time.Second, 5 * time.Second

	unixScheme = "unix://"
)

// Dial connects to the first of the context's controllers that answers, and to
// another when that one goes. It waits, as long as ctx lasts, until one has
// answered or none of them did; then the error says why. More options are added to ours.
func (c Context) Dial(ctx context.Context, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	if len(c.Controllers) == 0 {
		return nil, fmt.Errorf("dial %s: the context names no controllers", c.Name)
	}
	bundle := pki.Bundle{CA: []byte(c.CA), Cert: []byte(c.Certificate), Key: []byte(c.Key)}
	cert, err := bundle.Certificate()
	if err != nil {
		return nil, fmt.Errorf("dial %s: certificate of the context: %w", c.Name, err)
	}
	if now := time.Now(); now.After(cert.Leaf.NotAfter) {
		return nil, fmt.Errorf("dial %s: the context's certificate expired at %s; an admin can make another", c.Name, cert.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	pool, err := bundle.Pool()
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", c.Name, err)
	}
	source := &pki.Source{}
	source.Set(cert)

	addresses := manual.NewBuilderWithScheme("orch")
	var state resolver.State
	for _, a := range c.Controllers {
		if err := checkAddress(a); err != nil {
			return nil, fmt.Errorf("dial %s: %w", c.Name, err)
		}
		state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: a}}})
	}
	addresses.InitialState(state)
	failure := &lastFailure{}
	conn, err := grpc.NewClient("orch:///"+c.Name, append([]grpc.DialOption{
		grpc.WithResolvers(addresses),
		grpc.WithContextDialer(failure.dial),
		grpc.WithTransportCredentials(failure.watch(credentials.NewTLS(pki.ClientTLS(source, pool, "", nil)))),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(receiveMax)),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: connectTimeout,
			Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: retryMax}}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: aliveEvery, Timeout: aliveTimeout}),
	}, more...)...)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", c.Name, err)
	}
	if err := awaitReady(ctx, conn); err != nil {
		conn.Close()
		if why := failure.last(); why != nil {
			err = why
		}
		return nil, fmt.Errorf("reach a controller of %s at %s: %w", c.Name, strings.Join(c.Controllers, ", "), err)
	}
	return conn, nil
}

// awaitReady returns when a controller has answered, or when all were tried.
func awaitReady(ctx context.Context, conn *grpc.ClientConn) error {
	conn.Connect()
	for {
		switch s := conn.GetState(); s {
		case connectivity.Ready:
			return nil
		case connectivity.TransientFailure, connectivity.Shutdown:
			return fmt.Errorf("none answers")
		default:
			if !conn.WaitForStateChange(ctx, s) {
				return ctx.Err()
			}
		}
	}
}

func checkAddress(a string) error {
	if path, ok := strings.CutPrefix(a, unixScheme); ok {
		if !strings.HasPrefix(path, "/") {
			return fmt.Errorf("controller %q: want unix:///absolute/path", a)
		}
		return nil
	}
	if _, port, err := net.SplitHostPort(a); err != nil || port == "" {
		return fmt.Errorf("controller %q: want host:port or unix:///path", a)
	}
	return nil
}

func dial(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	if path, ok := strings.CutPrefix(address, unixScheme); ok {
		return d.DialContext(ctx, "unix", path)
	}
	return d.DialContext(ctx, "tcp", address)
}
