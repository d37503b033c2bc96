package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestRun(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "web")
	if err := os.WriteFile(bin, []byte("program"), 0o755); err != nil {
		t.Fatal(err)
	}
	var archives [2][]byte
	for i := range archives {
		out := filepath.Join(dir, "new", "web.tar")
		if err := run("orch.local/web:1.0", bin, out, "arm64", "1000", []string{"VERSION=1.0"}); err != nil {
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
	for _, want := range []string{"/bin/web", "arm64", "VERSION=1.0", "orch.local/web:1.0"} {
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
	if err := run("no tag", bin, out, "amd64", "", nil); err == nil {
		t.Fatal("a bad name was accepted")
	}
	if left, err := filepath.Glob(out + "*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
