//go:build linux

package main

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// notes are what the watchdog has to say in the container's log. It never waits
// for a disk, so the pump writes them.
type notes struct {
	fd int // an eventfd that tells of new ones; below 0 for none

	mu    sync.Mutex
	lines []string
}

var noNotes = &notes{fd: -1}

func newNotes() (*notes, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return &notes{fd: fd}, os.NewSyscallError("eventfd", err)
}

func (n *notes) add(line string) {
	n.mu.Lock()
	n.lines = append(n.lines, line)
	n.mu.Unlock()
	wake(n.fd)
}

// record moves what was added into the log, in stream "orch".
func (n *notes) record(l *logFile, t time.Time) {
	var count [8]byte
	unix.Read(n.fd, count[:]) // before the lines are taken: a later one wakes again
	n.mu.Lock()
	lines := n.lines
	n.lines = nil
	n.mu.Unlock()
	for _, line := range lines {
		l.record(t, "orch", 'F', []byte(line))
	}
}
