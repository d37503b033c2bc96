package load

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
)

// Headers by which the server in images/web says who it is, and as what address
// the client came.
const (
	HeaderReplica = "X-Replica"
	HeaderClient  = "X-Client"
)

// bodyMax is what a body may have: the server's are some hundred bytes.
const bodyMax = 1 << 20

func runHTTP(ctx context.Context, j Job) Report {
	transport := &http.Transport{
		DialContext:         (&net.Dialer{}).DialContext,
		MaxIdleConnsPerHost: j.Workers,
		DisableKeepAlives:   j.Fresh,
		DisableCompression:  true,
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	return repeat(ctx, j, func(ctx context.Context, n int) (answer, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, j.Targets[n%len(j.Targets)], nil)
		if err != nil {
			return answer{}, err
		}
		resp, err := client.Do(req)
		if err != nil {
			return answer{}, err
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, bodyMax)); err != nil {
			return answer{}, fmt.Errorf("read body: %w", err)
		}
		if resp.StatusCode != http.StatusOK {
			return answer{}, statusError(resp.StatusCode)
		}
		return answer{by: resp.Header.Get(HeaderReplica), seen: resp.Header.Get(HeaderClient)}, nil
	})
}
