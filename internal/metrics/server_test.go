package metrics

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// log keeps what is logged.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func get(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func good(name, detail string) Check {
	return Check{name, func(context.Context) (string, error) { return detail, nil }}
}

func bad(name, why string) Check {
	return Check{name, func(context.Context) (string, error) { return "", errors.New(why) }}
}

func TestPaths(t *testing.T) {
	book := NewBook("agent", "v1")
	book.Read(func(put Put) {
		put("orch_good", 2, "n1")
		put("orch_good", 2) // a label is missing
		put("orch_unknown", 1)
	}, Metric{Name: "orch_good", Kind: Gauge, Help: "Good.", Labels: []string{"node"}})
	var l log
	s := Server{Gatherer: book.Gatherer(), Live: []Check{good("loop", "it\nturns")}, Ready: []Check{good("loop", "it turns"), bad("store", "it is away;\nstart it")}, Logger: slog.New(slog.NewTextHandler(&l, nil))}
	for _, c := range []struct {
		path string
		code int
		want string
	}{
		{"/healthz", 200, "ok\n"},
		{"/healthz?verbose", 200, "ok   loop: it turns\n"},
		{"/readyz", 503, "FAIL store: it is away; start it\n"},
		{"/readyz?verbose", 503, "ok   loop: it turns\nFAIL store: it is away; start it\n"},
		{"/", 404, "404 page not found\n"},
	} {
		if code, body := get(t, s.Handler(), c.path); code != c.code || body != c.want {
			t.Errorf("%s: %d %q, want %d %q", c.path, code, body, c.code, c.want)
		}
	}
	// A mistake of one metric costs no other.
	code, body := get(t, s.Handler(), "/metrics")
	for _, want := range []string{`orch_good{node="n1"} 2`, `orch_build_info{go="go`, "go_goroutines", "process_open_fds"} {
		if code != 200 || !strings.Contains(body, want) {
			t.Errorf("/metrics: %d, no %s", code, want)
		}
	}
	if !strings.Contains(l.String(), "orch_unknown is not described") {
		t.Errorf("the mistake is not in the log: %s", l.String())
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/metrics", strings.NewReader("x")))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
}

// Who asks all the time makes no more checks than one who asks now and then, and gets
// an answer.
func TestChecksAreShared(t *testing.T) {
	var tries atomic.Int64
	p := newPanel([]Check{{"store", func(context.Context) (string, error) { tries.Add(1); return "", nil }}})
	for range 100 {
		if code, _ := get(t, p, "/readyz"); code != 200 {
			t.Fatalf("answer %d", code)
		}
	}
	if n := tries.Load(); n < 1 || n > 20 {
		t.Errorf("%d checks for 100 questions", n)
	}
}

// A check that hangs is told as such, beside what the others say.
func TestACheckThatHangs(t *testing.T) {
	stuck := make(chan struct{})
	defer close(stuck)
	p := newPanel([]Check{good("loop", "fine"), {"store", func(context.Context) (string, error) { <-stuck; return "", nil }}})
	code, body := get(t, p, "/readyz?verbose")
	if want := "ok   loop: fine\nFAIL store: no answer within 2s\n"; code != 503 || body != want {
		t.Errorf("%d %q, want %q", code, body, want)
	}
}

// A port that is taken is told and tried again; it ends with ctx, as a server does.
func TestRun(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var words log
	server := func(address string) *Server {
		return &Server{Address: address, Gatherer: NewBook("agent", "v1").Gatherer(), Live: []Check{good("loop", "")}, Logger: slog.New(slog.NewTextHandler(&words, nil))}
	}
	run := func(address string, until func() bool) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- server(address).Run(ctx) }()
		for deadline := time.Now().Add(10 * time.Second); !until() && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		}
		if !until() {
			t.Errorf("%s: %s", address, words.String())
		}
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("it does not end")
		}
	}
	taken := l.Addr().String()
	run(taken, func() bool { return strings.Contains(words.String(), "cannot serve metrics") })
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	run(taken, func() bool {
		res, err := http.Get("http://" + taken + "/healthz")
		if err != nil {
			return false
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		return string(body) == "ok\n"
	})
	if strings.Contains(words.String(), "no authentication") {
		t.Errorf("loopback is said to be open: %s", words.String())
	}
	if err := server(Off).Run(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestLoopback(t *testing.T) {
	for address, want := range map[string]bool{"127.0.0.1:1": true, "[::1]:1": true, "[::ffff:127.0.0.1]:1": true, "0.0.0.0:1": false, "[::]:1": false, "10.0.0.1:1": false} {
		a, err := net.ResolveTCPAddr("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if got := loopback(a); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
}

func TestCheckAddress(t *testing.T) {
	for _, address := range []string{"off", "127.0.0.1:7073", ":7073", "[::1]:7073", "localhost:7073"} {
		if err := CheckAddress("--metrics-addr", address); err != nil {
			t.Error(err)
		}
	}
	for _, address := range []string{"", "7073", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000", "a b:1", "http://x:1"} {
		if err := CheckAddress("--metrics-addr", address); err == nil || !strings.Contains(err.Error(), "--metrics-addr") {
			t.Errorf("%q: %v", address, err)
		}
	}
}
