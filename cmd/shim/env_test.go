//go:build linux

package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestMergeEnv(t *testing.T) {
	got := mergeEnv([]string{"A=1", "B=2", "A=3", "odd"}, []string{"B=over", "C=", "D=a=b\nc"})
	if want := []string{"A=3", "B=over", "C=", "D=a=b\nc"}; !slices.Equal(got, want) {
		t.Errorf("merged %q, want %q", got, want)
	}
	if got := mergeEnv([]string{"A=1"}, []string{""}); !slices.Equal(got, []string{"A=1"}) { // an empty file
		t.Errorf("merged with nothing: %q", got)
	}
}

func TestLookPath(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"a/tool": 0o644, "b/tool": 0o755, "b/data": 0o600, "here": 0o700} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	for _, c := range []struct {
		name, path string
		want, err  string
		code       int
	}{
		{"tool", dir + "/a:" + dir + "/b", dir + "/b/tool", "", 0},
		{"tool", "none:b", "./b/tool", "", 0},
		{"here", "/none:", "./here", "", 0},
		{"b/tool", "", "b/tool", "", 0},
		{"tool", dir + "/a", "", "exec: \"tool\": executable file not found in $PATH\n", 127},
		{"", dir, "", "exec: \"\": executable file not found in $PATH\n", 127},
		{"b", dir, "", "exec: \"b\": executable file not found in $PATH\n", 127},
		{"./b/data", "", "", "exec: \"./b/data\": permission denied\n", 126},
		{"/no/such", "", "", "exec: \"/no/such\": stat /no/such: no such file or directory\n", 127},
		{"./b", "", "", "exec: \"./b\": permission denied\n", 126},
	} {
		got, err := lookPath(c.name, c.path)
		words, code := "", 0
		if err != nil {
			words, code = cannotRun(c.name, err)
		} else if got != c.want {
			t.Errorf("lookPath(%q, %q) = %q, want %q", c.name, c.path, got, c.want)
		}
		if words != c.err || code != c.code {
			t.Errorf("lookPath(%q, %q): %q, code %d; want %q, %d", c.name, c.path, words, code, c.err, c.code)
		}
	}
}
