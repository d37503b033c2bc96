package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRun(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "web")
	if err := os.WriteFile(bin, []byte("program"), 0o755); err != nil {
		t.Fatal(err)
	}
	groups := filepath.Join(dir, "group")
	if err := os.WriteFile(groups, []byte("app:x:1000:"), 0o644); err != nil {
		t.Fatal(err)
	}
	var archives [2][]byte
	for i := range archives {
		out := filepath.Join(dir, "new", "web.tar")
		if err := run(options{ref: "orch.local/web:1.0", bin: bin, out: out, arch: "arm64", user: "1000:app", env: list{"VERSION=1.0"}, files: list{"/etc/group=" + groups},
			stopSignal: "SIGQUIT", health: "/bin/web  -check", interval: 2 * time.Second, retries: 4}); err != nil {
			t.Fatal(err)
		}
		var err error
		if archives[i], err = os.ReadFile(out); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("two runs differ")
	}
	for _, want := range []string{"/bin/web", "arm64", "VERSION=1.0", "orch.local/web:1.0", `"User":"1000:app"`, `"StopSignal":"SIGQUIT"`,
		`"Healthcheck":{"Test":["CMD","/bin/web","-check"],"Interval":2000000000,"Retries":4}`} {
		if !bytes.Contains(archives[0], []byte(want)) {
			t.Errorf("no %q in the archive", want)
		}
	}
}

func TestRunLeavesNoHalf(t *testing.T) {
	dir := t.TempDir()
	bin, out := filepath.Join(dir, "web"), filepath.Join(dir, "web.tar")
	if err := os.WriteFile(bin, []byte("program"), 0o755); err != nil {
		t.Fatal(err)
	}
	for want, o := range map[string]options{
		"no tag":          {ref: "no tag"},
		"want /path/in":   {ref: "orch.local/web:1.0", files: list{"/etc/group"}},
		"without -health": {ref: "orch.local/web:1.0", retries: 1},
		"no such file":    {ref: "orch.local/web:1.0", files: list{"/etc/group=" + dir + "/absent"}},
		"clean absolute":  {ref: "orch.local/web:1.0", files: list{"etc/group=" + bin}},
	} {
		o.bin, o.out, o.arch = bin, out, "amd64"
		if err := run(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if left, err := filepath.Glob(out + "*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
