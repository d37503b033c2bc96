//go:build linux

package main

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// protect keeps the kernel from killing this process for memory, and its memory
// from being given up: a watchdog whose code must first be read from a disk that
// hangs is none. What is not permitted is left out; the watchdog works without,
// and nobody would read its complaints.
func protect() {
	os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0)
	// What is in use stays, what comes into use later stays from then on...
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return
	}
	// ...and the program itself is fetched now. All shims share it.
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 6 || f[5] != self || f[1][0] != 'r' || f[1][1] == 'w' {
			continue
		}
		from, to, _ := strings.Cut(f[0], "-")
		begin, err1 := strconv.ParseUint(from, 16, 64)
		end, err2 := strconv.ParseUint(to, 16, 64)
		if err1 == nil && err2 == nil {
			unix.Syscall(unix.SYS_MLOCK, uintptr(begin), uintptr(end-begin), 0)
		}
	}
}
