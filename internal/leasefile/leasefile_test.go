//go:build linux

package leasefile

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/internal/boottime"
)

func sample() File {
	return File{ID: "default.db-0.3.main", Log: "/var/log/with \"odd\"\nname.log", Signal: 15,
		Cgroups: []string{"/sys/fs/cgroup/unified/orch/default.db-0.3.main", "/sys/fs/cgroup/freezer/orch/default.db-0.3.main"},
		Term:    90 * time.Second, Kill: 100 * time.Second}
}

func TestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	want := sample()
	for range 2 { // the second replaces the first
		want.Kill += time.Second
		if err := Write(dir, want); err != nil {
			t.Fatal(err)
		}
		got, err := Read(dir)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("read %+v, %v; want %+v", got, err, want)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestWriteRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*File){
		"no id":              func(f *File) { f.ID = "" },
		"id is a path":       func(f *File) { f.ID = "a/b" },
		"no log":             func(f *File) { f.Log = "" },
		"relative log":       func(f *File) { f.Log = "x.log" },
		"no signal":          func(f *File) { f.Signal = 0 },
		"no cgroup":          func(f *File) { f.Cgroups = nil },
		"the root's cgroup":  func(f *File) { f.Cgroups = []string{"/sys/fs/cgroup"} },
		"another's cgroup":   func(f *File) { f.Cgroups[1] = "/sys/fs/cgroup/freezer/orch/other" },
		"relative cgroup":    func(f *File) { f.Cgroups[0] = f.ID },
		"no term":            func(f *File) { f.Term = 0 },
		"killed before term": func(f *File) { f.Kill = f.Term - 1 },
	} {
		f := sample()
		spoil(&f)
		if err := Write(t.TempDir(), f); err == nil {
			t.Errorf("%s: written", name)
		}
	}
}

func TestTornIsNotRead(t *testing.T) {
	dir := t.TempDir()
	if _, err := Read(dir); err == nil {
		t.Error("no file: read")
	}
	if err := Write(dir, sample()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, Name)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if f, err := parse(whole[:n]); err == nil {
			t.Errorf("the first %d of %d bytes are read: %+v", n, len(whole), f)
		}
		if f, err := parse(whole[n+1:]); err == nil {
			t.Errorf("the last %d of %d bytes are read: %+v", len(whole)-n-1, len(whole), f)
		}
	}
	newer := strings.Replace(string(whole), "term ", "colour blue\nterm ", 1)
	if f, err := parse([]byte(newer)); err != nil || !reflect.DeepEqual(f, sample()) {
		t.Errorf("with a key of later: %+v, %v", f, err)
	}
	if _, err := parse([]byte(strings.Replace(string(whole), "kill ", "kill x", 1))); err == nil {
		t.Error("kill is no number: read")
	}
}

func TestGuard(t *testing.T) {
	dir := t.TempDir()
	if on, err := Guarded(dir); on || err != nil {
		t.Errorf("before: %v, %v", on, err)
	}
	if err := Guard(dir); err != nil {
		t.Fatal(err)
	}
	if on, err := Guarded(dir); !on || err != nil {
		t.Errorf("guarded: %v, %v", on, err)
	}
	if _, err := Guarded(filepath.Join(dir, "none")); err == nil {
		t.Error("no folder: no error")
	}
}

func TestClaim(t *testing.T) {
	dir := t.TempDir()
	if by := ToldBy(dir); by != "" {
		t.Errorf("told by %q before", by)
	}
	for _, who := range []string{Watchdog, Agent} {
		if by, err := Claim(dir, who); by != Watchdog || err != nil {
			t.Errorf("Claim(%s) gives %q, %v", who, by, err)
		}
	}
	if by := ToldBy(dir); by != Watchdog {
		t.Errorf("told by %q", by)
	}
	if _, err := Claim(filepath.Join(dir, "none"), Agent); err == nil {
		t.Error("no folder: claimed")
	}
}

func TestBoot(t *testing.T) {
	var mono unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono); err != nil {
		t.Fatal(err)
	}
	if b := boottime.Now(); b < time.Duration(mono.Nano()) {
		t.Errorf("%s since boot, %s without suspension", b, time.Duration(mono.Nano()))
	}
}
