//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func pipe(t *testing.T) (r, w int) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	return p[0], p[1]
}

// records reads a log file as "STREAM F|P TEXT" lines, having checked the times.
func records(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		stamp, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if _, err := time.Parse(time.RFC3339Nano, stamp); err != nil {
			t.Fatalf("record %q: %v", line, err)
		}
		out = append(out, rest)
	}
	return out
}

func TestPump(t *testing.T) {
	or, ow := pipe(t)
	er, ew := pipe(t)
	l := &logFile{path: filepath.Join(t.TempDir(), "sub", "main.log"), max: 1 << 20, files: 3, fd: -1}
	done := make(chan struct{})
	go func() { defer close(done); pump(l, or, er, noNotes, time.Now) }()
	long := strings.Repeat("x", maxPart)
	put := func(fd int, text string) {
		f := os.NewFile(uintptr(fd), "pipe")
		if _, err := f.WriteString(text); err != nil {
			t.Error(err)
		}
		f.Close()
	}
	put(ow, "one\n\n  two \n"+long+"yz\n"+long+"\nend without newline")
	put(ew, "oops\n")
	<-done
	var out, errs []string
	for _, r := range records(t, l.path) {
		if strings.HasPrefix(r, "stderr") {
			errs = append(errs, r)
		} else {
			out = append(out, r)
		}
	}
	want := []string{"stdout F one", "stdout F ", "stdout F   two ", "stdout P " + long, "stdout F yz", "stdout P " + long, "stdout F ", "stdout F end without newline"}
	if strings.Join(out, "\n") != strings.Join(want, "\n") {
		t.Errorf("stdout is\n%.300q\nwant\n%.300q", out, want)
	}
	if len(errs) != 1 || errs[0] != "stderr F oops" {
		t.Errorf("stderr is %q", errs)
	}
}

// TestRotate has two writers on one path, as a run that ends and the next have.
func TestRotate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "main.log")
	const n, max = 400, 4000
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Go(func() {
			l := &logFile{path: path, max: max, files: 3, fd: -1}
			for i := range n {
				l.record(time.Now(), "stdout", 'F', fmt.Appendf(nil, "%d-%d", w, i))
				l.flush()
			}
			if l.lost != 0 {
				t.Errorf("lost %d: %v", l.lost, l.why)
			}
		})
	}
	wg.Wait()
	left, err := filepath.Glob(path + "*")
	if err != nil || len(left) != 3 {
		t.Fatalf("files %v, %v", left, err)
	}
	last := [2]int{-1, -1}
	seen := 0
	for _, f := range []string{path + ".2", path + ".1", path} {
		st, err := os.Stat(f)
		if err != nil || st.Size() > max+200 {
			t.Errorf("%s: %v, %v", f, st, err)
		}
		for _, r := range records(t, f) {
			var w, i int
			if _, err := fmt.Sscanf(r, "stdout F %d-%d", &w, &i); err != nil {
				t.Fatalf("torn record %q", r)
			}
			if last[w] >= 0 && i != last[w]+1 {
				t.Errorf("writer %d: %d after %d in %s", w, i, last[w], f)
			}
			last[w] = i
			seen++
		}
	}
	if seen == 0 || max/50*2 > seen {
		t.Errorf("only %d records are left", seen)
	}
}

func TestLostLinesAreTold(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "main.log")
	if err := os.Mkdir(path, 0o755); err != nil { // cannot be opened for writing
		t.Fatal(err)
	}
	l := &logFile{path: path, max: 1 << 20, files: 3, fd: -1}
	for range 3 {
		l.record(time.Now(), "stdout", 'F', []byte("gone"))
		l.flush()
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	l.record(time.Now(), "stdout", 'F', []byte("kept"))
	l.flush()
	got := records(t, path)
	if len(got) != 2 || got[0] != "orch F 3 lines lost: is a directory" || got[1] != "stdout F kept" {
		t.Errorf("%q", got)
	}
}
