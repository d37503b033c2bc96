// Package version knows which orch this binary is.
//
// It owns the stamp that the linker sets (`-X .../internal/version.stamped=v`).
// Invariant: String is never empty, and never guesses: without a stamp it says
// what the Go tool recorded of the source, or "dev".
//
//	-ldflags -X ──► stamped ──┐
//	debug.ReadBuildInfo ──────┴──► String() ──► --version, Hello, Version RPC
package version

import (
	"runtime/debug"
	"sync"
)

// stamped is set by the linker; see Makefile.
var stamped string

// revisionDigits of a commit are enough for people.
const revisionDigits = 12

// String is this binary's version, such as "v0.1.0-3-g1a2b3c4" or "dev".
var String = sync.OnceValue(func() string {
	info, _ := debug.ReadBuildInfo()
	return from(stamped, info)
})

func from(stamp string, info *debug.BuildInfo) string {
	if stamp != "" {
		return stamp
	}
	if info == nil {
		return "dev"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	var revision, dirty string
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value[:min(len(s.Value), revisionDigits)]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "-dirty"
		}
	}
	if revision == "" {
		return "dev"
	}
	return "dev-" + revision + dirty
}
