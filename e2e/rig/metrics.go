package rig

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

const (
	controllerMetrics = "127.0.0.1:7073"
	agentMetrics      = "127.0.0.1:7074"
	// askMax is how long a scrape or a check may take.
	askMax = 20 * time.Second
)

// Daemon asks one daemon's HTTP from the host on which it listens, at its loopback, over
// one connection. Make it with Daemon.
type Daemon struct {
	client *http.Client
	base   string
}

// Daemon gives a node's agent, or for "" the controller.
func (f *Fleet) Daemon(node string) *Daemon {
	address := agentMetrics
	if node == "" {
		address = controllerMetrics
	}
	return &Daemon{base: "http://" + address, client: &http.Client{Timeout: askMax, Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return f.Lab.DialFrom(ctx, node, network, addr)
		}}}}
}

// Get asks for a path.
func (d *Daemon) Get(ctx context.Context, path string) (code int, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.base+path, nil)
	if err != nil {
		return 0, "", err
	}
	res, err := d.client.Do(req)
	if err != nil {
		return 0, "", fmt.Errorf("ask %s for %s: %w", d.base, path, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

// Close ends its connection.
func (d *Daemon) Close() { d.client.CloseIdleConnections() }
