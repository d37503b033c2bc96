package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
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
		{"/nothing", "404", 404},
	} {
		code, body := get(t, h, step.path)
		if code != step.code || !strings.Contains(body, step.body) {
			t.Errorf("GET %s: %d %q, want %d and %q", step.path, code, body, step.code, step.body)
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
