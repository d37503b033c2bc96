//go:build linux

package main

import "testing"

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{
		"/run":           "/run",
		`/a\040b`:        "/a b",
		`/tab\011nl\012`: "/tab\tnl\n",
		`/back\134slash`: `/back\slash`,
		`/short\04`:      `/short\04`,
		`/no\999`:        `/no\999`,
	} {
		if got := unescape(in); got != want {
			t.Errorf("unescape(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestHidden(t *testing.T) {
	for dir, want := range map[string]bool{
		"/run": true, "/run/netns": true, "/tmp/x/y": true, "/var/lib/orch": true, "/dev/shm": true,
		"/": false, "/runner": false, "/var": false, "/var/library": false, "/srv/tmp": false, "/dev": false,
	} {
		if got := hidden(dir); got != want {
			t.Errorf("hidden(%q) = %v, want %v", dir, got, want)
		}
	}
}

// TestRefusesOutsideANamespace keeps the furnishing, which takes mounts away,
// from ever touching the machine itself.
func TestRefusesOutsideANamespace(t *testing.T) {
	if _, err := boot("/nonexistent"); err == nil || err.Error() != "boot: not PID 1 of a PID namespace" {
		t.Errorf("boot outside: %v", err)
	}
}
