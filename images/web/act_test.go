package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestAct(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("A=1\x00B=2\x00"), 0o644); err != nil {
		t.Fatal(err)
	}
	w := newWeb()
	server := httptest.NewServer(w.handler())
	defer server.Close()
	sick := newWeb()
	sick.neverReady = true
	unwell := httptest.NewServer(sick.handler())
	defer unwell.Close()
	for _, c := range []struct {
		args  []string
		code  int
		out   string
		fails bool
	}{
		{nil, -1, "", false},
		{[]string{"-exit", "0"}, 0, "code 0", false},
		{[]string{"-exit", "4", "-wait", "1ms"}, 4, "code 4", false},
		{[]string{"-cat", file}, 0, "A=1\nB=2\n", false},
		{[]string{"-cat", file + "?"}, 0, "", true},
		{[]string{"-try-write", filepath.Join(dir, "new")}, 0, "", false},
		{[]string{"-try-write", filepath.Join(dir, "no", "new")}, 0, "", true},
		{[]string{"-check", server.URL + "/healthz"}, 0, "", false},
		{[]string{"-check", unwell.URL + "/healthz"}, 0, "", true},
		{[]string{"-note", "nothing"}, 1, "", true},
	} {
		var a act
		set := flag.NewFlagSet("web", flag.ContinueOnError)
		a.flags(set)
		if err := set.Parse(c.args); err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		code, err := a.instead(t.Context(), &out)
		if code != c.code || !strings.Contains(out.String(), c.out) || (err != nil) != c.fails {
			t.Errorf("%v: code %d, %q, %v; want %d, %q, failed %v", c.args, code, out.String(), err, c.code, c.out, c.fails)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestNotes: what several runs write comes in their order, with what ended them.
func TestNotes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	for _, name := range []string{"one", "two"} {
		a := act{note: file + "=" + name, noteEnd: file + "=" + name + " ends", exit: -1}
		if code, err := a.instead(t.Context(), io.Discard); code >= 0 || err != nil {
			t.Fatal(code, err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("quit"))
		if err := a.ended(ctx); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if want := "one\none ends: quit\ntwo\ntwo ends: quit\n"; err != nil || string(b) != want {
		t.Errorf("%q, %v; want %q", b, err, want)
	}
}

func TestFaults(t *testing.T) {
	var f faults
	set := flag.NewFlagSet("web", flag.ContinueOnError)
	f.flags(set)
	if err := set.Parse([]string{"-slow-start", "1s", "-crash-after", "0s"}); err != nil || f.crashAfter != 0 || f.slowStart != time.Second {
		t.Errorf("%+v, %v", f, err)
	}
	w := newWeb()
	w.wellFrom = time.Now().Add(time.Hour)
	if code, body := get(t, w.handler(), "/healthz"); code != 503 || !strings.Contains(body, "starting") {
		t.Errorf("while it starts: %d %q", code, body)
	}
	w.wellFrom = time.Now().Add(-time.Second)
	if code, _ := get(t, w.handler(), "/healthz"); code != 200 {
		t.Errorf("after its start: %d", code)
	}
	var out strings.Builder
	code := 0
	crash(&out, func(c int) { code = c })
	if code != crashCode || !strings.Contains(out.String(), "cannot open database") {
		t.Errorf("crash: code %d, %q", code, out.String())
	}
}
