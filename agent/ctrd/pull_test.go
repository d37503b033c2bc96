package ctrd

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"

	"github.com/orchctl/orch/internal/registry"
)

// hub is a registry in the test. fault, where it is set, stands before it.
type hub struct {
	*httptest.Server
	host  string
	inner http.Handler
	fault atomic.Pointer[func(w http.ResponseWriter, r *http.Request, next http.Handler)]
	blobs atomic.Int64 // requests for layers and configs
}

func newHub(t *testing.T, tls bool) *hub {
	t.Helper()
	quiet := log.New(io.Discard, "", 0)
	h := &hub{inner: ranged(ggcr.New(ggcr.Logger(quiet)))}
	h.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			h.blobs.Add(1)
		}
		if f := h.fault.Load(); f != nil {
			(*f)(w, r, h.inner)
			return
		}
		h.inner.ServeHTTP(w, r)
	}))
	h.Config.ErrorLog = quiet
	if tls {
		h.StartTLS()
	} else {
		h.Start()
	}
	t.Cleanup(func() { h.CloseClientConnections(); h.Close() })
	h.host = h.Listener.Addr().String()
	return h
}

// ranged lets clients go on within a blob, as real registries do.
func ranged(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") || r.Header.Get("Range") == "" {
			next.ServeHTTP(w, r)
			return
		}
		whole := r.Clone(r.Context())
		whole.Header.Del("Range")
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, whole)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(rec.Body.Bytes()))
	})
}

func (h *hub) set(f func(w http.ResponseWriter, r *http.Request, next http.Handler)) {
	h.fault.Store(&f)
}

// push gives the image to the registry, past what stands before it.
func (h *hub) push(t *testing.T, repo string, img any) {
	t.Helper()
	back := httptest.NewServer(h.inner)
	defer back.Close()
	tag, err := name.NewTag(back.Listener.Addr().String() + "/" + repo)
	if err == nil {
		switch x := img.(type) {
		case v1.Image:
			err = remote.Write(tag, x)
		case v1.ImageIndex:
			err = remote.WriteIndex(tag, x)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// bulk is an image of so many bytes that no other has.
func bulk(t *testing.T, size int64, layers int, arch string) v1.Image {
	t.Helper()
	img, err := random.Image(size/int64(layers), int64(layers))
	if err != nil {
		t.Fatal(err)
	}
	cf, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture = "linux", arch
	if img, err = mutate.ConfigFile(img, cf); err != nil {
		t.Fatal(err)
	}
	return img
}

// asking gives a Runtime on the tests' containerd that speaks to registries so.
func asking(t *testing.T, cfg registry.Config, maxPulls int) *Runtime {
	t.Helper()
	c := testConfig()
	c.Registries, c.MaxPulls = registry.New(cfg), maxPulls
	r, err := Dial(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func TestPrivateRegistry(t *testing.T) {
	h := newHub(t, true)
	h.set(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if u, p, _ := r.BasicAuth(); u != "ann" || p != "sesame" {
			w.Header().Set("WWW-Authenticate", `Basic realm="hub"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, h.host), 0o755); err != nil {
		t.Fatal(err)
	}
	r := asking(t, registry.Config{HostsDir: dir}, 0)
	h.push(t, "team/web:1", bulk(t, 1<<20, 2, "amd64"))
	ref := h.host + "/team/web:1"
	try := func(pass string) error {
		w := ImageWant{Ref: ref}
		if pass != "" {
			w.Logins = []registry.Login{{Server: h.host, Username: "ann", Password: pass}}
		}
		_, err := r.EnsureImage(t.Context(), w, nil)
		return err
	}
	says := func(err error, sentinel, kind error, words string) {
		t.Helper()
		if !errors.Is(err, sentinel) || !errors.Is(err, kind) || !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "sesam") {
			t.Errorf("got %v, want %v, %v, %q", err, sentinel, kind, words)
		}
	}
	says(try("sesame"), ErrRegistryUnreachable, registry.ErrUnreachable, "put that one's certificate into "+dir+"/"+h.host+"/ca.crt")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Certificate().Raw})
	if err := os.WriteFile(filepath.Join(dir, h.host, "ca.crt"), ca, 0o644); err != nil {
		t.Fatal(err)
	}
	says(try(""), ErrImageMissing, registry.ErrDenied, "wants a login for "+h.host+"/team/web:1")
	says(try("sesam"), ErrImageMissing, registry.ErrDenied, "refuses the login of ann") // a beginning of the right one
	if err := try("sesame"); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Resolve(t.Context(), ImageWant{Ref: ref, Registry: true}); !errors.Is(err, registry.ErrDenied) {
		t.Errorf("the registry's word without a login: %s, %v", got, err)
	}
	if got, err := r.Resolve(t.Context(), ImageWant{Ref: ref}); err != nil {
		t.Errorf("the node's word: %s, %v", got, err)
	}
}

// TestOtherPlatform: what cannot run here is refused before its layers are fetched.
func TestOtherPlatform(t *testing.T) {
	h := newHub(t, false)
	arm := bulk(t, 4<<20, 2, "s390x")
	h.push(t, "single:1", arm)
	h.push(t, "index:1", mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: arm, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}}}))
	for _, repo := range []string{"single:1", "index:1"} {
		h.blobs.Store(0)
		_, err := env.r.EnsureImage(t.Context(), ImageWant{Ref: h.host + "/" + repo}, nil)
		want := "image " + h.host + "/" + repo + " is for linux/s390x, this node is linux/"
		if !errors.Is(err, ErrImageError) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "say nodeSelector orch/arch: s390x") {
			t.Errorf("%s: %v", repo, err)
		}
		if n := h.blobs.Load(); n > 1 { // the config says for what a single one is
			t.Errorf("%s: %d blobs were fetched", repo, n)
		}
	}
}

// TestHugeConfig: what is read into memory as a whole has a bound, whatever a registry says.
func TestHugeConfig(t *testing.T) {
	h := newHub(t, false)
	img := mutate.Annotations(bulk(t, 1<<10, 1, "amd64"), map[string]string{"a": "b"}).(v1.Image)
	raw, err := img.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	m, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	m.Config.Size = 8 << 30
	if raw, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	d := digest.FromBytes(raw)
	h.set(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if !strings.Contains(r.URL.Path, "/manifests/") {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", string(m.MediaType))
		w.Header().Set("Docker-Content-Digest", d.String())
		w.Header().Set("Content-Length", fmt.Sprint(len(raw)))
		if r.Method == http.MethodGet {
			w.Write(raw)
		}
	})
	_, err = env.r.EnsureImage(t.Context(), ImageWant{Ref: h.host + "/huge:1"}, nil)
	if !errors.Is(err, ErrImageError) || !strings.Contains(err.Error(), "config of 8589934592 bytes") {
		t.Errorf("got %v", err)
	}
	if n := h.blobs.Load(); n > 0 {
		t.Errorf("%d blobs were asked for", n)
	}
}

// TestPullsEndInOneStep: who comes as a pull ends joins it, or begins another; none is
// listed that nobody carries out.
func TestPullsEndInOneStep(t *testing.T) {
	r := &Runtime{}
	const full = "docker.io/library/web:1"
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			for range 100 {
				p, first := r.pullOf(full)
				if first {
					r.pullOver(p, nil, io.EOF)
				}
				if <-p.over; p.err != io.EOF {
					t.Error(p.err)
				}
			}
		})
	}
	all.Wait()
	if got := r.Pulling(); len(got) != 0 {
		t.Errorf("left are %v", got)
	}
}

// TestWrongBytes: a registry that serves other bytes than the digest says, or too few, is
// told, and what it gave does not stand in the way of a later try.
func TestWrongBytes(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func([]byte) []byte
		words string
	}{
		{"other bytes", func(b []byte) []byte { b = bytes.Clone(b); b[len(b)/2] ^= 1; return b }, "gives other bytes than their digest says"},
		{"too few", func(b []byte) []byte { return b[:len(b)/2] }, "ended in the middle of a layer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHub(t, false)
			h.push(t, "web:1", bulk(t, 1<<20, 1, "amd64"))
			h.set(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				rec := httptest.NewRecorder()
				next.ServeHTTP(rec, r)
				b := rec.Body.Bytes()
				if strings.Contains(r.URL.Path, "/blobs/") && r.Method == http.MethodGet && len(b) > 100<<10 {
					b = c.spoil(b)
				}
				for k, v := range rec.Header() {
					if k != "Content-Length" {
						w.Header()[k] = v
					}
				}
				w.Header().Set("Content-Length", fmt.Sprint(len(b)))
				if r.Method == http.MethodHead {
					w.Header().Set("Content-Length", rec.Header().Get("Content-Length"))
				}
				w.WriteHeader(rec.Code)
				w.Write(b)
			})
			ref := h.host + "/web:1"
			_, err := env.r.EnsureImage(t.Context(), ImageWant{Ref: ref}, nil)
			if !errors.Is(err, ErrImageError) || !strings.Contains(err.Error(), c.words) {
				t.Errorf("got %v, want %q", err, c.words)
			}
			if left, err := env.r.client.ContentStore().ListStatuses(env.r.in(t.Context())); c.name == "other bytes" && (err != nil || len(left) > 0) {
				t.Errorf("left: %+v, %v", left, err)
			}
			h.fault.Store(nil)
			if _, err := env.r.EnsureImage(t.Context(), ImageWant{Ref: ref}, nil); err != nil {
				t.Errorf("once it is mended: %v", err)
			}
		})
	}
}

// breakOff has it end each layer in the middle.
func (h *hub) breakOff() {
	h.set(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if !strings.Contains(r.URL.Path, "/blobs/") || r.Method != http.MethodGet {
			next.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, r)
		if rec.Body.Len() < 1<<20 {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(rec.Body.Len()))
		w.Write(rec.Body.Bytes()[:rec.Body.Len()/2])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
}

// TestPullGoesOn: a connection that breaks off costs no byte that came before, and a
// registry that was down is asked again.
func TestPullGoesOn(t *testing.T) {
	h := newHub(t, false)
	img := bulk(t, 8<<20, 1, "amd64")
	h.push(t, "web:1", img)
	ref := h.host + "/web:1"
	h.breakOff()
	_, err := env.r.EnsureImage(t.Context(), ImageWant{Ref: ref}, nil)
	if err == nil {
		t.Fatal("a layer that breaks off again and again was taken")
	}
	offset := int64(0)
	eventually(t, func() error {
		list, err := env.r.client.ContentStore().ListStatuses(env.r.in(t.Context()))
		for _, s := range list {
			offset = max(offset, s.Offset)
		}
		if offset < 1<<20 {
			return fmt.Errorf("nothing is kept: %+v, %v", list, err)
		}
		return nil
	})
	collect(t) // containerd's own collector, which takes up what nobody holds, runs when it likes
	h.set(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	if _, err := env.r.EnsureImage(t.Context(), ImageWant{Ref: ref}, nil); !errors.Is(err, ErrRegistryUnreachable) {
		t.Errorf("a registry that is not well: %v", err)
	}
	collect(t)
	var first atomic.Pointer[string]
	h.set(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if g := r.Header.Get("Range"); g != "" && r.Method == http.MethodGet {
			first.CompareAndSwap(nil, &g)
		}
		next.ServeHTTP(w, r)
	})
	if _, err := env.r.EnsureImage(t.Context(), ImageWant{Ref: ref}, nil); err != nil {
		t.Fatal(err)
	}
	if g := first.Load(); g == nil || *g != fmt.Sprintf("bytes=%d-", offset) {
		t.Errorf("it went on with the range %v, had %d bytes", g, offset)
	}

	// Down at first.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	if _, err := env.r.EnsureImage(t.Context(), ImageWant{Ref: addr + "/late:1"}, nil); !errors.Is(err, registry.ErrUnreachable) || !strings.Contains(err.Error(), "nothing listens at its address") {
		t.Errorf("down: %v", err)
	}
}

// TestProgress tells the bytes of one image, although two are pulled, and who waits for
// whom.
func TestProgress(t *testing.T) {
	r := asking(t, registry.Config{}, 1)
	h := newHub(t, false)
	for _, n := range []string{"a", "b"} {
		h.push(t, n+":1", bulk(t, 12<<20, 3, "amd64"))
	}
	half, gate := make(chan struct{}, 16), make(chan struct{})
	var once sync.Once
	open := func() { once.Do(func() { close(gate) }) }
	defer open()
	h.set(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, req)
		b := rec.Body.Bytes()
		if !strings.HasPrefix(req.URL.Path, "/v2/a/blobs/") || req.Method != http.MethodGet || len(b) < 512<<10 {
			next.ServeHTTP(w, req)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		w.Write(b[:len(b)/2])
		w.(http.Flusher).Flush()
		half <- struct{}{}
		<-gate
		w.Write(b[len(b)/2:])
	})
	type told struct{ a, b []Progress }
	var mu sync.Mutex
	var got told
	var wg sync.WaitGroup
	errs := make(chan error, 2)
	pull := func(n string, into *[]Progress) {
		wg.Go(func() {
			_, err := r.EnsureImage(t.Context(), ImageWant{Ref: h.host + "/" + n + ":1"}, func(p Progress) {
				mu.Lock()
				defer mu.Unlock()
				*into = append(*into, p)
			})
			errs <- err
		})
	}
	pull("a", &got.a)
	for range 3 {
		<-half
	}
	pull("b", &got.b)
	last := func(list *[]Progress) Progress {
		mu.Lock()
		defer mu.Unlock()
		if len(*list) == 0 {
			return Progress{}
		}
		return (*list)[len(*list)-1]
	}
	eventually(t, func() error {
		a, b := last(&got.a), last(&got.b)
		if a.Total < 12<<20 || a.Done < 3<<20 || a.Done > 7<<20 || a.Message != fmt.Sprintf("pulling %s/a:1: %s of 12 MiB", h.host, mib(a.Done)) {
			return fmt.Errorf("of a is told %+v", a)
		}
		if !b.Waits || b.Message != "waiting for 1 other pull before "+h.host+"/b:1" {
			return fmt.Errorf("of b is told %+v", b)
		}
		return nil
	})
	if p := r.Pulling(); len(p) != 2 {
		t.Errorf("pulling %v", p)
	}
	open()
	wg.Wait()
	if err := errors.Join(<-errs, <-errs); err != nil {
		t.Fatal(err)
	}
	if p := r.Pulling(); len(p) != 0 {
		t.Errorf("still pulling %v", p)
	}
}

func TestTurns(t *testing.T) {
	turns, ctx := newTurns(2), t.Context()
	take := func(ctx context.Context) (chan int, chan error) {
		waits, done := make(chan int, 100), make(chan error, 1)
		go func() { done <- turns.take(ctx, nil, func(n int) { waits <- n }) }()
		return waits, done
	}
	for range 2 {
		_, done := take(ctx)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	left, leave := context.WithCancel(ctx)
	w3, third := take(left)
	if n := <-w3; n != 1 {
		t.Errorf("the third waits for %d", n)
	}
	w4, fourth := take(ctx)
	if n := <-w4; n != 2 {
		t.Errorf("the fourth waits for %d", n)
	}
	leave()
	if err := <-third; !errors.Is(err, context.Canceled) {
		t.Errorf("the third: %v", err)
	}
	turns.give()
	if err := <-fourth; err != nil {
		t.Fatal(err)
	}
	turns.give()
	turns.give()
	if turns.room != 2 || len(turns.line) != 0 {
		t.Errorf("at the end %+v", turns)
	}
}

// TestNever asks no registry.
func TestNever(t *testing.T) {
	h := newHub(t, false)
	h.push(t, "web:1", bulk(t, 1<<20, 1, "amd64"))
	asked := false
	h.set(func(w http.ResponseWriter, r *http.Request, next http.Handler) { asked = true; next.ServeHTTP(w, r) })
	_, err := env.r.EnsureImage(t.Context(), ImageWant{Ref: h.host + "/web:1", Never: true}, nil)
	if !errors.Is(err, ErrImageMissing) || !strings.Contains(err.Error(), "pullPolicy is never: load it") || asked {
		t.Errorf("%v, asked %t", err, asked)
	}
}

// TestSweepPulls: what a crash has left goes when no pull can be that old.
func TestSweepPulls(t *testing.T) {
	ctx := env.r.in(t.Context())
	if err := env.r.SweepPulls(t.Context(), time.Now().Add(deadAfter+time.Minute)); err != nil { // other tests' failed pulls
		t.Fatal(err)
	}
	w, err := env.r.client.ContentStore().Writer(ctx, content.WithRef("layer-of-nobody"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	w.Close()
	_, _, err = env.r.client.WithLease(ctx)
	if err != nil {
		t.Fatal(err)
	}
	counts := func() string {
		s, err1 := env.r.client.ContentStore().ListStatuses(ctx)
		l, err2 := env.r.client.LeasesService().List(ctx)
		return fmt.Sprint(len(s), len(l), err1, err2)
	}
	p, _ := env.r.pullOf("docker.io/library/web:1")
	if err := env.r.SweepPulls(t.Context(), time.Now().Add(deadAfter+time.Minute)); err != nil || counts() != "1 1 <nil> <nil>" {
		t.Errorf("the clock was put forward in a pull: %s, %v", counts(), err)
	}
	env.r.pullOver(p, nil, nil)
	for _, step := range []struct {
		in   time.Duration
		want string
	}{{time.Minute, "1 1 <nil> <nil>"}, {deadAfter + time.Minute, "0 0 <nil> <nil>"}} {
		if err := env.r.SweepPulls(t.Context(), time.Now().Add(step.in)); err != nil {
			t.Error(err)
		}
		if got := counts(); got != step.want {
			t.Errorf("after %s: %s, want %s", step.in, got, step.want)
		}
	}
}
