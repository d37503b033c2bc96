// Package hub is a registry of images for tests and benchmarks: it asks for a login,
// has a certificate of an authority of its own, moves tags, and does on demand what
// registries do on bad days.
//
//	test ──Push──► Hub ◄──TLS, login── nodes, controller
//	     ──Slow, Corrupt, Refuse──┘
//
// The registry behind it is go-containerregistry's, in memory. It owns nothing outside
// the process. Invariant: without a fault that was asked for it serves what was pushed.
package hub

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Hub is a registry. Make it with New; then Serve as often as is wanted: it keeps what
// was pushed. Safe for concurrent use.
type Hub struct {
	store http.Handler

	mu       sync.Mutex
	user     string
	password string
	fault    Fault
	asked    map[string]int // what was given out
}

// Fault is what goes wrong; the zero value is nothing.
type Fault struct {
	// BytesPerSecond that each blob is sent with; 0: as fast as it goes.
	BytesPerSecond int
	// Corrupt changes a byte of every layer.
	Corrupt bool
	// Status answers all with this code, such as 429 or 503; 0: none.
	Status int
}

// New makes a registry without images that lets everybody in.
func New() *Hub {
	return &Hub{store: registry.New(registry.Logger(log.New(io.Discard, "", 0))), asked: map[string]int{}}
}

// Login has everybody asked for a user name and a password from now on; empty: nobody.
func (h *Hub) Login(user, password string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.user, h.password = user, password
}

// Break sets what goes wrong from now on.
func (h *Hub) Break(f Fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fault = f
}

// Asked gives how many manifests and blobs were given out.
func (h *Hub) Asked() (manifests, blobs int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked["manifests"], h.asked["blobs"]
}

// Push puts an image under a path with a tag, such as "team/web:1", in the place of
// what has that tag.
func (h *Hub) Push(ctx context.Context, path string, image v1.Image) error {
	ref, err := name.NewTag("hub.invalid/"+path, name.StrictValidation)
	if err != nil {
		return err
	}
	if err := remote.Write(ref, image, remote.WithContext(ctx), remote.WithTransport(direct{h.store})); err != nil {
		return fmt.Errorf("push %s: %w", path, err)
	}
	return nil
}

// direct is a transport that asks a handler, without a network and without faults.
type direct struct{ handler http.Handler }

// RoundTrip implements http.RoundTripper.
func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	if r.Body == nil {
		r.Body = http.NoBody
	}
	d.handler.ServeHTTP(w, r)
	resp := w.Result()
	resp.Request = r
	return resp, nil
}

// Serve answers at l, with TLS if cert is not nil, until stop is called, which returns
// when nothing is under way any more.
func (h *Hub) Serve(l net.Listener, cert *tls.Certificate) (stop func()) {
	if cert != nil {
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{*cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}})
	}
	s := &http.Server{Handler: http.HandlerFunc(h.serve), ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			panic(fmt.Sprintf("registry of a test: %v", err)) // its tests would fail with riddles
		}
	}()
	return func() { _ = s.Close(); <-ended }
}

func (h *Hub) serve(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	user, password, fault := h.user, h.password, h.fault
	h.mu.Unlock()
	if fault.Status != 0 {
		http.Error(w, "out of order, as the test wants it", fault.Status)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "this registry is only read", http.StatusMethodNotAllowed)
		return
	}
	if user != "" && !same(r, user, password) {
		w.Header().Set("WWW-Authenticate", `Basic realm="hub"`)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
		return
	}
	out := &answer{ResponseWriter: w, request: r}
	switch {
	case strings.Contains(r.URL.Path, "/blobs/"):
		out.fault, out.begin = fault, func() { h.count("blobs") }
	case strings.Contains(r.URL.Path, "/manifests/"):
		out.begin = func() { h.count("manifests") }
	}
	h.store.ServeHTTP(out, r)
}

func (h *Hub) count(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked[what]++
}

func same(r *http.Request, user, password string) bool {
	u, p, ok := r.BasicAuth()
	return ok && subtle.ConstantTimeCompare([]byte(u), []byte(user)) == 1 && subtle.ConstantTimeCompare([]byte(p), []byte(password)) == 1
}

// answer sends a body as the fault wants it.
type answer struct {
	http.ResponseWriter
	fault   Fault
	request *http.Request
	begin   func() // called before a body that is no error; nil: nobody wants to know
	status  int
	bent    bool
}

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	a.status = status
	if a.begin != nil && status < http.StatusBadRequest && a.request.Method == http.MethodGet {
		a.begin()
	}
	a.ResponseWriter.WriteHeader(status)
}

// sliceEvery is how often a slow body is sent on.
const sliceEvery = 50 * time.Millisecond

// gzipMagic begins a layer; an image's config, which is a blob too, begins with a brace.
const gzipMagic = 0x1f

// Write implements http.ResponseWriter.
func (a *answer) Write(b []byte) (int, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	if a.fault.Corrupt && !a.bent && len(b) > 0 && b[0] == gzipMagic {
		a.bent = true
		bad := append([]byte(nil), b...)
		bad[len(bad)-1] ^= 0xff
		b = bad
	}
	if a.fault.BytesPerSecond <= 0 {
		return a.ResponseWriter.Write(b)
	}
	slice := max(1, int(int64(a.fault.BytesPerSecond)*int64(sliceEvery)/int64(time.Second)))
	sent := 0
	for len(b) > 0 {
		n, err := a.ResponseWriter.Write(b[:min(slice, len(b))])
		sent += n
		if err != nil {
			return sent, err
		}
		if f, ok := a.ResponseWriter.(http.Flusher); ok {
			f.Flush()
		}
		b = b[n:]
		select {
		case <-time.After(sliceEvery):
		case <-a.request.Context().Done():
			return sent, a.request.Context().Err()
		}
	}
	return sent, nil
}
