//go:build linux

package main

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// callMax is how long a container that was just started may take until its hold listens.
	callMax   = 10 * time.Second
	callEvery = 20 * time.Millisecond
	// defaultTerm is the kind of terminal where nobody says.
	defaultTerm = "xterm"
)

// attachMain is `shim attach SOCKET`, run beside a hold in its container: it gives that
// its own standard streams and ends with the code of the command that was started with
// them. It reads and writes none itself, but for words about a refusal.
func attachMain(args []string) int {
	if len(args) != 1 {
		complain("usage: shim attach SOCKET")
		return 2
	}
	said, err := attach(args[0])
	if err != nil {
		complain("attach: " + err.Error())
		return codeOurs
	}
	if why, refused := strings.CutPrefix(said, sayRefused); refused {
		complain("attach: " + why)
		return codeOurs
	}
	code, err := strconv.Atoi(strings.TrimPrefix(said, sayEnded))
	if err != nil {
		complain(fmt.Sprintf("attach: the container ended before its command did, or said %q", said))
		return codeOurs
	}
	return code
}

// attach gives hold the streams and waits for what it says. The connection is left open:
// it ends with this process, whose code is settled then. Hold waits for that, as its own end
// ends whoever is left in the container, and with SIGKILL's code.
func attach(socket string) (string, error) {
	conn, err := call(socket)
	if err != nil {
		return "", err
	}
	hello := sayStreams
	if _, err := unix.IoctlGetTermios(0, unix.TCGETS); err == nil {
		kind := os.Getenv("TERM")
		if kind == "" {
			kind = defaultTerm
		}
		hello = sayTerminal + kind
		// The terminal is ours until we let go of it, and can be the command's only then. The
		// kernel hangs up on whoever does.
		signal.Ignore(unix.SIGHUP)
		unix.IoctlSetInt(0, unix.TIOCNOTTY, 0)
	}
	if err := unix.Sendmsg(conn, []byte(hello), unix.UnixRights(0, 1, 2), nil, unix.MSG_NOSIGNAL); err != nil {
		return "", err
	}
	b := make([]byte, packetMax)
	for {
		n, _, err := unix.Recvfrom(conn, b, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return "", err
		}
		return string(b[:n]), nil
	}
}

// call connects to a hold, which may not listen yet.
func call(socket string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	for end := time.Now().Add(callMax); ; time.Sleep(callEvery) {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: socket})
		if err == nil {
			return fd, nil
		}
		if (err != unix.ENOENT && err != unix.ECONNREFUSED && err != unix.EINTR) || time.Now().After(end) {
			unix.Close(fd)
			return -1, fmt.Errorf("call %s: %w", socket, err)
		}
	}
}
