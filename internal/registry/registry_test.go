package registry

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

const (
	goodUser = "ann"
	goodPass = "correct horse/battery?staple"
)

// site is a registry in the test: wants says what a request has to bring.
type site struct {
	*httptest.Server
	host    string
	handler http.Handler
	seen    []string // Authorization of each request
}

func newSite(t *testing.T, tls bool, around func(http.Handler) http.Handler) *site {
	t.Helper()
	s := &site{handler: ggcr.New(ggcr.Logger(silent()))}
	h := s.handler
	if around != nil {
		h = around(h)
	}
	noted := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.seen = append(s.seen, r.Header.Get("Authorization"))
		h.ServeHTTP(w, r)
	})
	if tls {
		s.Server = httptest.NewUnstartedServer(noted)
		s.Server.Config.ErrorLog = silent()
		s.Server.StartTLS()
	} else {
		s.Server = httptest.NewServer(noted)
	}
	t.Cleanup(s.Close)
	u, _ := url.Parse(s.URL)
	s.host = u.Host
	return s
}

// push puts an image straight into the registry, past what stands before it.
func (s *site) push(t *testing.T, ref string, img v1.Image, platforms ...v1.Platform) string {
	t.Helper()
	back := httptest.NewServer(s.handler)
	defer back.Close()
	u, _ := url.Parse(back.URL)
	tag, err := name.NewTag(u.Host + "/" + ref)
	if err != nil {
		t.Fatal(err)
	}
	if len(platforms) == 0 {
		if err := remote.Write(tag, img); err != nil {
			t.Fatal(err)
		}
		d, _ := img.Digest()
		return d.String()
	}
	var idx v1.ImageIndex = empty.Index
	for _, p := range platforms {
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &p}})
	}
	if err := remote.WriteIndex(tag, idx); err != nil {
		t.Fatal(err)
	}
	d, _ := idx.Digest()
	return d.String()
}

func image(t *testing.T, os, arch string) v1.Image {
	t.Helper()
	img, err := random.Image(1<<10, 1)
	if err != nil {
		t.Fatal(err)
	}
	cf, _ := img.ConfigFile()
	cf.OS, cf.Architecture = os, arch
	if img, err = mutate.ConfigFile(img, cf); err != nil {
		t.Fatal(err)
	}
	return img
}

// basic wants the good login on every request.
func basic(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != goodUser || p != goodPass {
			w.Header().Set("WWW-Authenticate", `Basic realm="reg"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// bearer wants a token, which its own /token gives for the good login.
func bearer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			u, p, _ := r.BasicAuth()
			if r.Method == http.MethodPost {
				u, p = r.FormValue("username"), r.FormValue("password")
			}
			if u != "" && (u != goodUser || p != goodPass) {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			token := "anonymous"
			if u == goodUser {
				token = "good"
			}
			json.NewEncoder(w).Encode(map[string]string{"token": token, "access_token": token})
			return
		}
		if r.Header.Get("Authorization") != "Bearer good" {
			scheme := "http"
			if r.TLS != nil {
				scheme = "https"
			}
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s://%s/token",service="reg",scope="repository:web:pull"`, scheme, r.Host))
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func always(status int, header ...string) func(http.Handler) http.Handler {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if len(header) == 2 {
				w.Header().Set(header[0], header[1])
			}
			w.WriteHeader(status)
		})
	}
}

// client trusts a site that speaks TLS if trust is set.
func client(t *testing.T, s *site, trust bool) *Client {
	t.Helper()
	dir := t.TempDir()
	if trust {
		ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
		write(t, filepath.Join(dir, s.host, "ca.crt"), string(ca))
	} else if s.TLS != nil {
		if err := os.MkdirAll(filepath.Join(dir, s.host), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c := New(Config{HostsDir: dir})
	c.dockerDir = ""
	return c
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func ctx(t *testing.T) context.Context {
	t.Helper()
	c, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return c
}

func TestResolve(t *testing.T) {
	right, wrong := goodPass, "no such secret word"
	for _, tc := range []struct {
		name   string
		tls    bool
		trust  bool
		around func(http.Handler) http.Handler
		pass   string // login of the registry; empty: none
		other  bool   // that login is for another registry
		ref    string // default web:1
		kind   error
		words  []string
	}{
		{name: "open"},
		{name: "TLS with a private authority", tls: true, trust: true},
		{name: "TLS, authority unknown", tls: true, kind: ErrUnreachable, words: []string{"authority that is not known", "ca.crt"}},
		{name: "missing", ref: "web:9", kind: ErrMissing, words: []string{"does not have", "web:9"}},
		{name: "basic", tls: true, trust: true, around: basic, pass: right},
		{name: "basic, no login", around: basic, kind: ErrDenied, words: []string{"wants a login", "orchctl create secret registry", "pullSecrets"}},
		{name: "basic, wrong password", around: basic, pass: wrong, kind: ErrDenied, words: []string{"refuses the login of ann"}},
		{name: "basic, a login of another registry", around: basic, pass: right, other: true, kind: ErrDenied, words: []string{"wants a login"}},
		{name: "token", tls: true, trust: true, around: bearer, pass: right},
		{name: "token, no login", around: bearer, kind: ErrDenied, words: []string{"wants a login"}},
		{name: "token, wrong password", around: bearer, pass: wrong, kind: ErrDenied, words: []string{"refuses the login of ann"}},
		{name: "may not", around: always(http.StatusForbidden), kind: ErrDenied, words: []string{"wants a login"}},
		{name: "too many", around: always(http.StatusTooManyRequests, "Retry-After", "90"), kind: ErrUnreachable, words: []string{"1m30s"}},
		{name: "broken", around: always(http.StatusBadGateway), kind: ErrUnreachable, words: []string{"fault of its own", "502"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newSite(t, tc.tls, tc.around)
			want := s.push(t, "web:1", image(t, "linux", "amd64"))
			ref := s.host + "/" + orDefault(tc.ref, "web:1")
			var logins []Login
			if tc.pass != "" {
				server := s.host
				if tc.other {
					server = "127.0.0.2:1"
				}
				logins = []Login{{Server: "https://" + server + "/v1/", Username: goodUser, Password: tc.pass}}
			}
			got, err := client(t, s, tc.trust).Resolve(ctx(t), ref, logins)
			if tc.kind == nil {
				if err != nil || got.Digest != want || strings.Join(got.Platforms, " ") != "linux/amd64" {
					t.Fatalf("got %+v, %v; want %s for linux/amd64", got, err, want)
				}
				return
			}
			if !errors.Is(err, tc.kind) {
				t.Fatalf("got %v; want %v", err, tc.kind)
			}
			for _, w := range append(tc.words, s.host) {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not say %q", err, w)
				}
			}
			noSecret(t, err.Error(), tc.pass)
			if tc.other {
				for _, h := range s.seen {
					if h != "" {
						t.Errorf("a login of another registry was sent: %q", h)
					}
				}
			}
		})
	}
}

// TestSeveralLogins: one that is refused is in nobody's way who has a better one.
func TestSeveralLogins(t *testing.T) {
	for name, around := range map[string]func(http.Handler) http.Handler{"basic": basic, "token": bearer} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, false, around)
			want := s.push(t, "web:1", image(t, "linux", "amd64"))
			old := Login{Server: s.host, Username: "old", Password: "no such secret word"}
			got, err := client(t, s, false).Resolve(ctx(t), s.host+"/web:1", []Login{old, {Server: "other.example", Username: "x", Password: "y"}, old, {Server: s.host, Username: goodUser, Password: goodPass}})
			if err != nil || got.Digest != want || len(got.Platforms) != 1 {
				t.Errorf("got %+v, %v; want %s", got, err, want)
			}
			_, err = client(t, s, false).Resolve(ctx(t), s.host+"/web:1", []Login{old, {Server: s.host, Username: "older", Password: "nor this"}})
			if !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "refuses the login of old ") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestARegistrysWords are told without what a terminal obeys, and not without end.
func TestARegistrysWords(t *testing.T) {
	s := newSite(t, false, func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			fmt.Fprintf(c, "HTTP/1.1 500 \x1b[2J%s\r\nContent-Length: 0\r\n\r\n", strings.Repeat("x", 3000))
		})
	})
	_, err := client(t, s, false).Resolve(ctx(t), s.host+"/web:1", nil)
	if !errors.Is(err, ErrUnreachable) || len(err.Error()) > 2<<10 || strings.Contains(err.Error(), "\x1b") || !strings.Contains(err.Error(), "fault of its own (500") {
		t.Errorf("got %d bytes: %.200q", len(err.Error()), err)
	}
}

func noSecret(t *testing.T, text string, secrets ...string) {
	t.Helper()
	for _, s := range secrets {
		for _, form := range []string{s, url.QueryEscape(s), url.PathEscape(s)} {
			if s != "" && strings.Contains(text, form) {
				t.Errorf("%q holds %q", text, form)
			}
		}
	}
}

func TestPlatformsOfAnIndex(t *testing.T) {
	s := newSite(t, false, nil)
	want := s.push(t, "web:1", image(t, "linux", "arm64"), v1.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"},
		v1.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}, v1.Platform{OS: "unknown", Architecture: "unknown"})
	got, err := client(t, s, false).Resolve(ctx(t), s.host+"/web:1", nil)
	if err != nil || got.Digest != want || strings.Join(got.Platforms, " ") != "linux/arm/v7 linux/arm64" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func silent() *log.Logger { return log.New(io.Discard, "", 0) }
