//go:build linux

package main

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func pair(t *testing.T) (int, int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	return fds[0], fds[1]
}

// TestHoldHears: whoever calls without streams is no guest, and keeps nobody out.
func TestHoldHears(t *testing.T) {
	for _, c := range []struct {
		name string
		say  string
		fds  []int
		term string
		ok   bool
	}{
		{"streams", sayStreams, []int{0, 1, 2}, "", true},
		{"a terminal", sayTerminal + "xterm-256color", []int{0, 1, 2}, "xterm-256color", true},
		{"two streams", sayStreams, []int{0, 1}, "", false},
		{"other words", "hello", []int{0, 1, 2}, "", false},
	} {
		here, there := pair(t)
		if err := unix.Sendmsg(there, []byte(c.say), unix.UnixRights(c.fds...), nil, 0); err != nil {
			t.Fatal(err)
		}
		g, err := hear(here)
		if (err == nil) != c.ok || g.term != c.term || c.ok && len(g.streams) != 3 {
			t.Errorf("%s: %+v, %v", c.name, g, err)
		}
		g.close()
	}
	here, there := pair(t)
	unix.Shutdown(there, unix.SHUT_RDWR)
	if g, err := hear(here); err == nil {
		t.Errorf("from one that hung up: %+v", g)
	}
}

// TestHoldEndsLast: with it ends the container, and an attach that has not taken the
// code yet would end with another.
func TestHoldEndsLast(t *testing.T) {
	here, there := pair(t)
	h := &holder{conn: here, pid: 9, gone: make(chan struct{}, 1)}
	code := make(chan int, 1)
	go func() { code <- h.bye(7) }()
	b := make([]byte, packetMax)
	n, err := unix.Read(there, b)
	if string(b[:max(n, 0)]) != sayEnded+"7" || err != nil {
		t.Errorf("it said %q, %v", b[:max(n, 0)], err)
	}
	select {
	case <-code:
		t.Fatal("it ended before its attach did")
	case <-time.After(farewell / 10):
	}
	h.gone <- struct{}{}
	if got := <-code; got != 7 {
		t.Errorf("code %d", got)
	}
	// One that does not end holds it up for a while only; nobody, not at all.
	began := time.Now()
	if got := h.bye(8); got != 8 || time.Since(began) < farewell {
		t.Errorf("code %d after %s", got, time.Since(began))
	}
	h.conn = -1
	if got := h.bye(9); got != 9 {
		t.Errorf("code %d", got)
	}
}
