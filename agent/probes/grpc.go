package probes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// healthAnswerMax bounds the answer to a health check, in bytes: it is one number.
const healthAnswerMax = 4 << 10

// tryGRPC asks as grpc.health.v1 has it, over a connection of its own: a probe is
// to find out whether a new one works.
func tryGRPC(ctx context.Context, t Target) error {
	var dialed dialError
	conn, err := grpc.NewClient("passthrough:///"+t.address(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(dialed.dial),
		grpc.WithUserAgent("orch-probe"), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(healthAnswerMax)))
	if err != nil {
		return err
	}
	defer conn.Close()
	service := t.Probe.GRPC.Service
	var header, trailer metadata.MD
	res, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service}, grpc.Header(&header), grpc.Trailer(&trailer))
	if err == nil {
		if res.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			return fmt.Errorf("gRPC on port %d%s: SERVING wanted, got %s", t.Port, of(service), res.GetStatus())
		}
		return nil
	}
	if err := dialed.get(); err != nil {
		return err
	}
	s := status.Convert(err)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case s.Code() == codes.DeadlineExceeded: // the server keeps the time, too, and may be first to notice
		return context.DeadlineExceeded
	case len(header)+len(trailer) == 0: // not the server's words, but of ports that differ from try to try
		return fmt.Errorf("gRPC on port %d: the connection broke: does it speak gRPC, without TLS?", t.Port)
	}
	switch s.Code() {
	case codes.Unimplemented:
		return fmt.Errorf("gRPC on port %d: it has no service grpc.health.v1.Health", t.Port)
	case codes.NotFound:
		return fmt.Errorf("gRPC on port %d%s: SERVING wanted, got SERVICE_UNKNOWN", t.Port, of(service))
	}
	return fmt.Errorf("gRPC on port %d%s: %s: %s", t.Port, of(service), s.Code(), short(s.Message()))
}

// of names the service that was asked for.
func of(service string) string {
	if service == "" {
		return ""
	}
	return fmt.Sprintf(", service %q", service)
}

// short bounds what a server says.
func short(s string) string {
	if len(s) > messageMax {
		s = s[:messageMax] + "..."
	}
	return strings.ToValidUTF8(s, "?")
}

// dialError keeps why the one connection could not be made, which gRPC would tell
// in words only.
type dialError struct {
	mu  sync.Mutex
	err error
}

func (d *dialError) dial(ctx context.Context, address string) (net.Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil && !errors.Is(err, context.Canceled) {
		d.mu.Lock()
		d.err = err
		d.mu.Unlock()
	}
	return conn, err
}

func (d *dialError) get() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}
