package main

import (
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// TestGRPC asks with the reference's client.
func TestGRPC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := newWeb()
	go func() { _ = w.serveGRPC(l) }()
	defer l.Close()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	health := grpc_health_v1.NewHealthClient(conn)
	for _, c := range []struct {
		service string
		failing bool
		code    codes.Code
		want    grpc_health_v1.HealthCheckResponse_ServingStatus
	}{
		{"", false, codes.OK, grpc_health_v1.HealthCheckResponse_SERVING},
		{"web", false, codes.OK, grpc_health_v1.HealthCheckResponse_SERVING},
		{"other", false, codes.NotFound, 0},
		{"", true, codes.OK, grpc_health_v1.HealthCheckResponse_NOT_SERVING},
	} {
		w.failing.Store(c.failing)
		r, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: c.service})
		if status.Code(err) != c.code || r.GetStatus() != c.want {
			t.Errorf("service %q, failing %v: %v, %v; want %v, %v", c.service, c.failing, r, err, c.want, c.code)
		}
	}
	if _, err := health.List(t.Context(), &grpc_health_v1.HealthListRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("another method: %v", err)
	}
}
