package agent

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"
)

// A port that another program has is told of, so that it is tried again.
func TestGossipOnATakenPort(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := netip.MustParseAddrPort(taken.Addr().String()).Port()
	g := &gossiper{cfg: Config{Name: "n1", Address: netip.MustParseAddr("127.0.0.1"), GossipPort: int(port), Logger: slog.New(slog.DiscardHandler)}}
	g.keys, g.peers = [][]byte{make([]byte, 32)}, []string{"127.0.0.1:1"}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- g.member(ctx, g.keys) }()
	select {
	case err := <-done:
		if err == nil || ctx.Err() != nil {
			t.Errorf("got %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it neither listens nor says so")
		cancel()
		<-done
	}
}
