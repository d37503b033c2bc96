package clientconfig

import (
	"context"
	"net"
	"sync"

	"google.golang.org/grpc/credentials"
)

// lastFailure remembers why the last try failed: gRPC tells it only with the
// first call.
type lastFailure struct {
	mu  sync.Mutex
	err error
}

func (f *lastFailure) set(err error) {
	if err != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.err = err
	}
}

func (f *lastFailure) last() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

func (f *lastFailure) dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := dial(ctx, address)
	f.set(err)
	return conn, err
}

func (f *lastFailure) watch(c credentials.TransportCredentials) credentials.TransportCredentials {
	return watched{c, f}
}

// watched credentials tell how handshakes fail.
type watched struct {
	credentials.TransportCredentials
	failure *lastFailure
}

func (w watched) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := w.TransportCredentials.ClientHandshake(ctx, authority, raw)
	w.failure.set(err)
	return conn, info, err
}

func (w watched) Clone() credentials.TransportCredentials {
	return watched{w.TransportCredentials.Clone(), w.failure}
}
