//go:build linux

package leasefile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Name is the lease's file in the container's folder.
const Name = "lease"

const (
	next  = "lease.next" // becomes Name by rename
	first = "orch lease" // the file's first line
	last  = "end"        // and its last: without it the file is torn
	// sizeMax holds two paths and a few cgroups many times over.
	sizeMax = 64 << 10
)

// File is a container's lease and what its watchdog needs to enforce it. All but
// Term and Kill stay as they were at the start.
type File struct {
	ID string // the container's
	// Log is the file that gets its output.
	Log string
	// Signal asks its first process to end: the image's stop signal.
	Signal int
	// Cgroups are its cgroup's folders, one per hierarchy to look into. Each ends
	// in the container's id, so that no mistake kills another's processes.
	Cgroups []string
	// Term is when it is sent Signal, Kill when nothing of it may live any more,
	// in time since boot (boottime.Now).
	Term, Kill time.Duration
}

func (f File) check() error {
	switch {
	case f.ID == "" || strings.ContainsAny(f.ID, "/ \n"):
		return fmt.Errorf("container id %q", f.ID)
	case !filepath.IsAbs(f.Log):
		return fmt.Errorf("log file %q is not absolute", f.Log)
	case f.Signal < 1 || f.Signal > 64:
		return fmt.Errorf("signal %d", f.Signal)
	case len(f.Cgroups) == 0:
		return errors.New("no cgroup")
	case f.Term <= 0 || f.Kill < f.Term:
		return fmt.Errorf("term %d, kill %d", f.Term, f.Kill)
	}
	for _, dir := range f.Cgroups {
		if !filepath.IsAbs(dir) || filepath.Base(dir) != f.ID {
			return fmt.Errorf("cgroup %q is not that of container %s", dir, f.ID)
		}
	}
	return nil
}

// Write replaces the lease in a container's folder, so that a reader sees the
// old one or the new. Writers of one folder must take turns.
func Write(dir string, f File) error {
	if err := f.check(); err != nil {
		return fmt.Errorf("write lease of %s: %w", f.ID, err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nid %s\nlog %q\nsignal %d\n", first, f.ID, f.Log, f.Signal)
	for _, dir := range f.Cgroups {
		fmt.Fprintf(&b, "cgroup %q\n", dir)
	}
	fmt.Fprintf(&b, "term %d\nkill %d\n%s\n", f.Term, f.Kill, last)
	if err := os.WriteFile(filepath.Join(dir, next), []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("write lease of %s: %w", f.ID, err)
	}
	if err := os.Rename(filepath.Join(dir, next), filepath.Join(dir, Name)); err != nil {
		return fmt.Errorf("write lease of %s: %w", f.ID, err)
	}
	return nil
}

// Read reads the lease in a container's folder.
func Read(dir string) (File, error) {
	path := filepath.Join(dir, Name)
	b, err := os.ReadFile(path)
	if err != nil {
		return File{}, fmt.Errorf("read lease: %w", err)
	}
	f, err := parse(b)
	if err != nil {
		return File{}, fmt.Errorf("read lease %s: %w", path, err)
	}
	return f, nil
}

// parse passes over keys that it does not know: a watchdog may be older than
// the agent that writes.
func parse(b []byte) (File, error) {
	if len(b) > sizeMax {
		return File{}, fmt.Errorf("%d bytes", len(b))
	}
	text := string(b)
	if !strings.HasPrefix(text, first+"\n") || !strings.HasSuffix(text, "\n"+last+"\n") {
		return File{}, errors.New("torn, or none of ours")
	}
	var f File
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		var err error
		switch key {
		case "id":
			f.ID = value
		case "log":
			f.Log, err = strconv.Unquote(value)
		case "signal":
			f.Signal, err = strconv.Atoi(value)
		case "cgroup":
			var dir string
			dir, err = strconv.Unquote(value)
			f.Cgroups = append(f.Cgroups, dir)
		case "term":
			f.Term, err = nanoseconds(value)
		case "kill":
			f.Kill, err = nanoseconds(value)
		}
		if err != nil {
			return File{}, fmt.Errorf("%s %q: %w", key, value, err)
		}
	}
	return f, f.check()
}

func nanoseconds(s string) (time.Duration, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	return time.Duration(n), err
}
