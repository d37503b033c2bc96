package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func get(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	r := httptest.NewRequest("GET", path, nil)
	r.Header.Set("X-Test", "yes")
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	body, err := io.ReadAll(rec.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return rec.Code, string(body)
}

func TestWeb(t *testing.T) {
	t.Setenv("VERSION", "1.2")
	t.Setenv("ORCH_REPLICA", "web-0")
	t.Setenv("ORCH_EPOCH", "7")
	w := newWeb()
	h := w.handler()
	for _, step := range []struct {
		path, body string
		code       int
	}{
		{"/", "version: 1.2\nreplica: web-0\nepoch: 7\n", 200},
		{"/healthz", "ok", 200},
		{"/fail", "failing", 200},
		{"/healthz", "failing", 503},
		{"/recover", "healthy", 200},
		{"/healthz", "ok", 200},
		{"/headers", "X-Test: yes", 200},
		{"/whoami", `"Replica":"web-0"`, 200},
		{"/whoami", `"Client":"192.0.2.1:1234","Well":"20`, 200},
		{"/nothing", "404", 404},
	} {
		code, body := get(t, h, step.path)
		if code != step.code || !strings.Contains(body, step.body) {
			t.Errorf("GET %s: %d %q, want %d and %q", step.path, code, body, step.code, step.body)
		}
	}
}

// TestLoadIsAskedFor: without the flag nobody can have requests sent.
func TestLoadIsAskedFor(t *testing.T) {
	for _, on := range []bool{false, true} {
		w := newWeb()
		w.load, w.quiet = on, true
		rec := httptest.NewRecorder()
		w.handler().ServeHTTP(rec, httptest.NewRequest("POST", "/run", strings.NewReader("{}")))
		if want := map[bool]int{false: 404, true: 400}[on]; rec.Code != want {
			t.Errorf("with -load=%v: %d, want %d", on, rec.Code, want)
		}
	}
}

func TestCrash(t *testing.T) {
	w := newWeb()
	var code int
	w.exit = func(c int) { code = c }
	get(t, w.handler(), "/crash")
	if code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}
}

// TestDrain ends the server while a request is under way: its client must get
// the whole answer, and the server must then end without an error.
func TestDrain(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	w := newWeb()
	go func() { ended <- run(ctx, l, w) }()

	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// The crash handler is the one that calls back: it holds its request
	// until the drain has begun.
	entered, release := make(chan struct{}), make(chan struct{})
	w.exit = func(int) { close(entered); <-release }
	fmt.Fprint(conn, "GET /crash HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	<-entered
	cancel()
	for !w.failing.Load() {
		select {
		case err := <-ended:
			t.Fatalf("ended with a request under way: %v", err)
		default:
		}
	}
	close(release)
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200") {
		t.Errorf("answer %q, %v", answer, err)
	}
	if err := <-ended; err != nil {
		t.Errorf("ended: %v", err)
	}
}

// A client that had connected when the server was told to end, and says only then
// what it wants, is answered.
func TestDrainAnswersWhoHadConnected(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	w := newWeb()
	go func() { ended <- run(ctx, l, w) }()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	deadline := time.Now().Add(5 * time.Second)
	for w.unread.count() == 0 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	cancel()
	select {
	case err := <-ended:
		t.Fatalf("ended while a client was about to ask: %v", err)
	case <-time.After(50 * time.Millisecond): // several looks
	}
	fmt.Fprint(conn, "GET /whoami HTTP/1.1\r\nHost: x\r\n\r\n")
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200") {
		t.Errorf("answer %q, %v", answer, err)
	}
	if err := <-ended; err != nil {
		t.Errorf("ended: %v", err)
	}
}
