package netdev

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/orchctl/orch/api"
)

func localnet(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(routeLocalnet)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// Loopback addresses are let out only as long as the guard stands that keeps
// neighbours from them.
func TestLoopbackIsKeptIn(t *testing.T) {
	ctx, cfg := context.Background(), config(t)
	if got := localnet(t); got != "0" {
		t.Fatalf("route_localnet is %s before", got)
	}
	n := open(t, cfg)
	if _, err := n.Setup(ctx, key(0, 1), nil); err != nil {
		t.Fatal(err)
	}
	if got := localnet(t); got != "1" {
		t.Errorf("route_localnet is %s with a replica", got)
	}
	n = open(t, cfg) // another life of the agent
	if err := n.Prune(ctx, func(api.ReplicaKey) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if got := localnet(t); got != "0" {
		t.Errorf("route_localnet is %s with no guard any more", got)
	}
	// What somebody else has set stays.
	if err := os.WriteFile(routeLocalnet, []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	defer os.WriteFile(routeLocalnet, []byte("0"), 0)
	if _, err := n.Setup(ctx, key(0, 2), nil); err != nil {
		t.Fatal(err)
	}
	if err := n.Teardown(ctx, key(0, 2)); err != nil {
		t.Fatal(err)
	}
	if got := localnet(t); got != "1" {
		t.Errorf("another's route_localnet became %s", got)
	}
}
