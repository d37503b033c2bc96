package ctrd

import (
	"context"
	"fmt"
	"net"

	"github.com/containerd/containerd/v2/client"
)

// Probe asks a containerd for its version, as Version gives it, and touches nothing:
// an agent may run meanwhile.
func Probe(ctx context.Context, address string) (string, error) {
	// The client would try until ctx ends, and then say only that.
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", address)
	if err != nil {
		return "", fmt.Errorf("%w; is containerd running?", err)
	}
	conn.Close()
	c, err := client.New(address)
	if err != nil {
		return "", fmt.Errorf("dial containerd at %s: %w", address, err)
	}
	defer c.Close()
	v, err := c.Version(ctx)
	if err != nil {
		return "", fmt.Errorf("ask containerd at %s for its version: %s", address, plainly(err))
	}
	return "containerd " + v.Version, nil
}
