package probes

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
)

// health answers by the service that is asked for.
type health struct {
	grpc_health_v1.UnimplementedHealthServer
	mu    *sync.Mutex
	peers map[string]int
}

func (h health) Check(ctx context.Context, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	p, _ := peer.FromContext(ctx)
	h.mu.Lock()
	h.peers[p.Addr.String()]++
	h.mu.Unlock()
	switch r.Service {
	case "":
		return &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}, nil
	case "down":
		return &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_NOT_SERVING}, nil
	case "young":
		return &grpc_health_v1.HealthCheckResponse{}, nil
	case "hangs":
		<-ctx.Done()
		return nil, ctx.Err()
	case "broken":
		return nil, status.Error(codes.Internal, "database is gone"+strings.Repeat(".", 300))
	case "busy":
		return nil, status.Error(codes.Unavailable, "not yet")
	}
	return nil, status.Error(codes.NotFound, "unknown service")
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serve runs a gRPC server until the test ends.
func serve(t *testing.T, register func(*grpc.Server)) string {
	t.Helper()
	l, s, done := listen(t), grpc.NewServer(), make(chan error, 1)
	register(s)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func TestGRPC(t *testing.T) {
	h := health{mu: &sync.Mutex{}, peers: map[string]int{}}
	addr := serve(t, func(s *grpc.Server) { grpc_health_v1.RegisterHealthServer(s, h) })
	for service, want := range map[string]string{
		"": "", "down": `, service "down": SERVING wanted, got NOT_SERVING`, "young": `SERVING wanted, got UNKNOWN`, "other": `SERVING wanted, got SERVICE_UNKNOWN`,
		"hangs": "no answer within 200ms", "broken": `, service "broken": Internal: database is gone...`, "busy": "Unavailable: not yet",
	} {
		target := at(t, addr, api.Probe{GRPC: &api.GRPCProbe{Service: service}})
		if service == "hangs" {
			target.Timeout = 200 * time.Millisecond
		}
		ok, asked, message := Try(t.Context(), target)
		if ok != (want == "") || !asked || !strings.Contains(message, want) || ok != (message == "") || len(message) > 300 {
			t.Errorf("%q: %v, %v, %q, want %q", service, ok, asked, message, want)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for p, n := range h.peers {
		if n > 1 {
			t.Errorf("connection %s was used again", p)
		}
	}
	if len(h.peers) != 7 {
		t.Errorf("%d calls, want 7", len(h.peers))
	}
}

func TestGRPCWithoutHealth(t *testing.T) {
	plain := serve(t, func(*grpc.Server) {})
	closed := listen(t)
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	// It answers as a server of something else does, and goes.
	other, done := listen(t), make(chan error, 1)
	go func() {
		for {
			c, err := other.Accept()
			if err != nil {
				done <- err
				return
			}
			if _, err := c.Write([]byte("220 mail.example ESMTP\r\n")); err != nil {
				t.Error(err)
			}
			c.Close()
		}
	}()
	for addr, want := range map[string]string{
		plain: "it has no service grpc.health.v1.Health", closed.Addr().String(): "connection refused",
		other.Addr().String(): "the connection broke: does it speak gRPC, without TLS?",
	} {
		ok, asked, message := Try(t.Context(), at(t, addr, api.Probe{GRPC: &api.GRPCProbe{}}))
		if ok || !asked || !strings.HasSuffix(message, want) {
			t.Errorf("%v, %v, %q, want %q", ok, asked, message, want)
		}
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}
