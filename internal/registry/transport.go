package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// The limits of speaking to a registry.
const (
	dialTimeout   = 5 * time.Second  // an address that does not answer is a fault, not slowness
	headerTimeout = 30 * time.Second // some registries think long before the first byte
	stallAfter    = 30 * time.Second // without one byte; a slow registry goes on
)

var (
	errStalled = errors.New("no byte came")
	errPlain   = errors.New("it would go over plain HTTP")
)

// throttled is a registry's word to come later.
type throttled struct{ after time.Duration }

func (t *throttled) Error() string { return "too many requests" }

// seen is who answered last, and how, while one thing was asked: an error of the library
// names the first host that failed, which may be a mirror.
type seen struct {
	mu     sync.Mutex
	host   string
	status int // of HTTP; 0: there was no answer
}

type seenKey struct{}

func withSeen(ctx context.Context) (context.Context, *seen) {
	s := &seen{}
	return context.WithValue(ctx, seenKey{}, s), s
}

func (s *seen) note(host string, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.host, s.status = host, status
}

// deniedBy is empty if the last answer was none that wants a login.
func (s *seen) deniedBy() (host string, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status != http.StatusUnauthorized && s.status != http.StatusForbidden {
		return "", 0
	}
	return s.host, s.status
}

// transport keeps what the library would not: no plain HTTP but where it is allowed, not
// even for a token server or a redirect; no hammering after a 429; no waiting for bytes
// that do not come.
type transport struct {
	next  *http.Transport
	plain func(host string) bool
	stall time.Duration
}

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	note := func(status int) {
		if s, ok := req.Context().Value(seenKey{}).(*seen); ok {
			s.note(req.URL.Host, status)
		}
	}
	if req.URL.Scheme == "http" && !t.plain(req.URL.Host) {
		note(0)
		return nil, fmt.Errorf("ask %s: %w", req.URL.Host, errPlain)
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	resp, err := t.next.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel(nil)
		note(0)
		return nil, err
	}
	note(resp.StatusCode)
	if resp.StatusCode == http.StatusTooManyRequests {
		resp.Body.Close()
		cancel(nil)
		return nil, &throttled{after: retryAfter(resp.Header.Get("Retry-After"), time.Now())}
	}
	resp.Body = &body{ReadCloser: resp.Body, cancel: cancel, stall: t.stall}
	return resp, nil
}

// retryAfter reads seconds or a date; 0 where nothing is said.
func retryAfter(s string, now time.Time) time.Duration {
	if n, err := strconv.Atoi(s); err == nil && n > 0 {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(s); err == nil && at.After(now) {
		return at.Sub(now).Round(time.Second)
	}
	return 0
}

// body ends a read that waits too long. Only the waiting counts, not what the reader does
// between two reads.
type body struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
	stall  time.Duration
}

func (b *body) Read(p []byte) (int, error) {
	fired := make(chan struct{})
	timer := time.AfterFunc(b.stall, func() { close(fired); b.cancel(errStalled) })
	n, err := b.ReadCloser.Read(p)
	if !timer.Stop() && err != nil {
		select {
		case <-fired:
			return n, fmt.Errorf("%w for %s", errStalled, b.stall)
		default:
		}
	}
	return n, err
}

func (b *body) Close() error {
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

// tune gives a transport our limits.
func tune(t *http.Transport) {
	t.DialContext = (&net.Dialer{Timeout: dialTimeout}).DialContext
	t.TLSHandshakeTimeout = dialTimeout
	t.ResponseHeaderTimeout = headerTimeout
	t.ForceAttemptHTTP2 = true
}
