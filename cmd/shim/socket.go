//go:build linux

package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// commandMax is the longest command in bytes; names are short words.
	commandMax = 256
	// commandTimeout is how long a client may take to send its line, so that
	// one which never does costs a descriptor only for a moment.
	commandTimeout = 2 * time.Second
)

// listen opens the control socket. Plain system calls: package net alone would
// take a third of the shim's allowance.
func listen(path string) (int, error) {
	if err := unix.Unlink(path); err != nil && err != unix.ENOENT {
		return -1, fmt.Errorf("listen on %s: %w", path, err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return -1, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := unix.Chmod(path, 0o600); err != nil {
		return -1, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := unix.Listen(fd, 16); err != nil {
		return -1, fmt.Errorf("listen on %s: %w", path, err)
	}
	return fd, nil
}

// accept serves the control socket until PID 1 dies.
func (h *host) accept(listener int) {
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		switch err {
		case nil:
			go h.serve(fd)
		case unix.EINTR, unix.ECONNABORTED:
		default: // out of descriptors or memory: others must end first
			complain("accept: " + err.Error())
			time.Sleep(10 * time.Millisecond)
		}
	}
}

func (h *host) serve(fd int) {
	conn := os.NewFile(uintptr(fd), "control")
	defer conn.Close()
	limit := unix.NsecToTimeval(int64(commandTimeout))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return
	}
	line := make([]byte, 0, commandMax)
	for !strings.HasSuffix(string(line), "\n") {
		n, err := conn.Read(line[len(line):cap(line)])
		if err != nil || n == 0 {
			return
		}
		line = line[:len(line)+n]
		if len(line) == cap(line) {
			break
		}
	}
	r := request{words: strings.Fields(string(line)), reply: make(chan string, 1)}
	h.requests <- r
	conn.WriteString(<-r.reply)
}
