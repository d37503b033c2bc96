package registry

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func good(server string) []Login {
	return []Login{{Server: server, Username: goodUser, Password: goodPass}}
}

// TestMirror: a mirror is asked first, gets no login of the registry that it mirrors, and
// what it does not have comes from there.
func TestMirror(t *testing.T) {
	origin, mirror := newSite(t, false, basic), newSite(t, false, nil)
	both := image(t, "linux", "amd64")
	want := mirror.push(t, "web:1", both)
	origin.push(t, "web:1", both)
	only := origin.push(t, "own:1", image(t, "linux", "amd64"))
	c := client(t, origin, false)
	write(t, filepath.Join(c.cfg.HostsDir, origin.host, "hosts.toml"), fmt.Sprintf("server = \"http://%s\"\n[host.\"http://%s\"]\ncapabilities = [\"pull\", \"resolve\"]\n", origin.host, mirror.host))
	got, err := c.Resolve(ctx(t), origin.host+"/web:1", good(origin.host))
	if err != nil || got.Digest != want || len(origin.seen) > 0 {
		t.Errorf("%+v, %v; the origin was asked %d times", got, err, len(origin.seen))
	}
	got, err = c.Resolve(ctx(t), origin.host+"/own:1", good(origin.host))
	if err != nil || got.Digest != only {
		t.Errorf("what only the origin has: %+v, %v", got, err)
	}
	for _, h := range mirror.seen {
		if h != "" {
			t.Errorf("the mirror was sent %q", h)
		}
	}
	// The origin's word counts, whatever the mirror said first.
	if _, err := c.Resolve(ctx(t), origin.host+"/own:1", nil); !errors.Is(err, ErrDenied) {
		t.Errorf("without a login: %v", err)
	}
	if _, err := c.Resolve(ctx(t), origin.host+"/none:1", good(origin.host)); !errors.Is(err, ErrMissing) {
		t.Errorf("nobody has it: %v", err)
	}
}

func TestHostsFileThatCannotBeRead(t *testing.T) {
	s := newSite(t, false, nil)
	s.push(t, "web:1", image(t, "linux", "amd64"))
	c := client(t, s, false)
	path := filepath.Join(c.cfg.HostsDir, s.host, "hosts.toml")
	write(t, path, "server = \n")
	if _, err := c.Resolve(ctx(t), s.host+"/web:1", nil); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
}

// TestPlainHTTP: it is for hosts named by the operator, and for none that another host
// names: a token server, a redirect.
func TestPlainHTTP(t *testing.T) {
	c := New(Config{Insecure: []string{"10.0.0.5:5000", "hub"}})
	for host, want := range map[string]bool{"10.0.0.5:5000": true, "10.0.0.5:5001": false, "10.0.0.5": false, "hub": true, "hub:5000": true, "hub.example": false} {
		if got := c.named(host); got != want {
			t.Errorf("%s by name: %t", host, got)
		}
	}
	for host, want := range map[string]bool{"127.0.0.1:5000": true, "localhost": true, "[::1]:5000": true, "localhost.example": false, "128.0.0.1": false} {
		if got := loopback(host); got != want {
			t.Errorf("%s on this machine: %t", host, got)
		}
	}
	for name, around := range map[string]func(http.Handler) http.Handler{
		"token server": always(http.StatusUnauthorized, "WWW-Authenticate", `Bearer realm="http://token.example/token",service="reg"`),
		"redirect":     always(http.StatusTemporaryRedirect, "Location", "http://elsewhere.example/v2/web/manifests/1?X-Signature=c0ffee"),
	} {
		s := newSite(t, true, around)
		_, err := client(t, s, true).Resolve(ctx(t), s.host+"/web:1", good(s.host))
		if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "plain HTTP") {
			t.Errorf("%s: %v", name, err)
		} else {
			noSecret(t, err.Error(), goodPass, "c0ffee")
		}
	}
	// A registry that speaks plain HTTP where TLS is expected, and the other way round.
	plain := newSite(t, false, nil)
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, plain.host), 0o755); err != nil { // has settings: so TLS
		t.Fatal(err)
	}
	if _, err := New(Config{HostsDir: dir}).Resolve(ctx(t), plain.host+"/web:1", nil); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "allow it with --insecure-registry "+plain.host) {
		t.Errorf("plain: %v", err)
	}
	tls := newSite(t, true, nil)
	if _, err := New(Config{}).Resolve(ctx(t), tls.host+"/web:1", nil); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "speaks TLS") {
		t.Errorf("TLS: %v", err)
	}
}

// TestStall: a layer of which no byte comes ends its try; a slow one goes on.
func TestStall(t *testing.T) {
	gate := make(chan struct{})
	defer close(gate)
	slow := true
	s := newSite(t, false, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.Contains(r.URL.Path, "/blobs/") {
				next.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Content-Length", "100")
			for n := range 10 {
				if n == 5 && !slow {
					select {
					case <-gate:
					case <-r.Context().Done():
					}
				}
				fmt.Fprint(w, "0123456789")
				w.(http.Flusher).Flush()
				time.Sleep(30 * time.Millisecond)
			}
		})
	})
	s.push(t, "web:1", image(t, "linux", "amd64"))
	c := client(t, s, false)
	c.stall = 200 * time.Millisecond
	read := func() (int, error) {
		f, err := c.Resolver(nil).Fetcher(ctx(t), s.host+"/web:1")
		if err != nil {
			t.Fatal(err)
		}
		rc, err := f.Fetch(ctx(t), ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: "sha256:" + ocispecZeros, Size: 100})
		if err != nil {
			t.Fatal(err)
		}
		defer rc.Close()
		b, err := io.ReadAll(rc)
		return len(b), err
	}
	if n, err := read(); n != 100 || err != nil { // longer in all than it may stall
		t.Errorf("slow: %d bytes, %v", n, err)
	}
	slow = false
	if n, err := read(); n != 50 || !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "no byte came for 200ms") {
		t.Errorf("stalled: %d bytes, %v", n, err)
	}
}

const ocispecZeros = "0000000000000000000000000000000000000000000000000000000000000000"
