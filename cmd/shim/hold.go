//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What attach and hold say to each other, one packet each. attach begins, with its
// standard streams; hold answers refused, or at the command's end ended.
const (
	sayStreams  = "streams"
	sayTerminal = "terminal " // and its kind
	sayRefused  = "refused "  // and why
	sayEnded    = "ended "    // and the exit code
	packetMax   = 4096

	// farewell is how long hold waits for attach to have taken the code: when hold ends, the
	// kernel kills whatever else is in the container.
	farewell = 2 * time.Second
	// helloMax is how long one that connects may take to say what it wants.
	helloMax = 2 * time.Second
)

// holdMain is `shim hold SOCKET LIMIT -- COMMAND...`, a container's first process: it
// starts the command when somebody attaches, with their streams as its own, so that
// nothing of what they type or see passes through here. LIMIT is how long nobody may.
//
// As first process it passes signals on to the command, takes in what is orphaned, and
// ends with the command's code. What the command writes goes to who attached and not into
// the log, which gets a line that says so.
func holdMain(args []string) int {
	var limit time.Duration
	err := errors.New("usage: shim hold SOCKET LIMIT -- COMMAND")
	if len(args) > 3 && args[2] == "--" {
		limit, err = time.ParseDuration(args[1])
	}
	if err != nil {
		complain(err.Error())
		return 2
	}
	// Before the first look at anything: the kernel drops a signal to a first process that
	// has no handler for it.
	h := &holder{command: args[3:], signals: make(chan os.Signal, 64), children: make(chan os.Signal, 1), guests: make(chan guest),
		gone: make(chan struct{}, 1), conn: -1}
	signal.Notify(h.signals)
	signal.Notify(h.children, unix.SIGCHLD) // apart: the last one must not be lost among others
	listener, err := listenForAttach(args[0])
	if err != nil {
		complain(err.Error())
		return codeOurs
	}
	go h.accept(listener)
	return h.run(limit)
}

// holder is one container's hold. One goroutine (run) owns it.
type holder struct {
	command  []string
	signals  chan os.Signal
	children chan os.Signal
	guests   chan guest
	gone     chan struct{} // the guest that was let in went away

	pid  int // of the command; 0 before it was started
	conn int // to who is attached; -1 for nobody
}

// guest is somebody who wants to attach.
type guest struct {
	conn    int
	term    string // the kind of terminal; empty without one
	streams []int
}

func (h *holder) run(limit time.Duration) int {
	nobody := time.NewTimer(limit)
	defer nobody.Stop()
	for {
		select {
		case <-nobody.C:
			if h.pid == 0 {
				complain("nobody attached within " + limit.String() + ": the command was not started")
				return codeOurs
			}
		case g := <-h.guests:
			if h.pid != 0 {
				h.refuse(g)
				continue
			}
			if code, ok := h.admit(g); !ok {
				return h.bye(code)
			}
		case <-h.gone:
			unix.Close(h.conn)
			h.conn = -1
			complain("who was attached is gone")
			unix.Kill(-h.pid, unix.SIGHUP) // pipes containerd closes; a terminal it keeps
			unix.Kill(-h.pid, unix.SIGCONT)
		case <-h.children:
			if code, ended := h.reap(); ended {
				return h.bye(code)
			}
		case sig := <-h.signals:
			switch n, _ := sig.(syscall.Signal); {
			case passedOver[n]:
			case h.pid != 0:
				unix.Kill(-h.pid, n)
			case !harmless[n]:
				return 128 + int(n)
			}
		}
	}
}

// passedOver are signals that are ours: of children, of the Go runtime, of a log that is gone.
var passedOver = map[syscall.Signal]bool{unix.SIGCHLD: true, unix.SIGURG: true, unix.SIGPIPE: true}

// harmless are the signals that end no process by themselves.
var harmless = map[syscall.Signal]bool{unix.SIGCONT: true, unix.SIGWINCH: true, unix.SIGTSTP: true, unix.SIGTTIN: true, unix.SIGTTOU: true}

func (h *holder) refuse(g guest) {
	why := "somebody is attached already"
	if h.conn < 0 {
		why = "its command has been attached to, and is not a second time"
	}
	unix.Sendto(g.conn, []byte(sayRefused+why), unix.MSG_NOSIGNAL, nil)
	g.close()
	unix.Close(g.conn)
}

// admit starts the command with a guest's streams. If that fails, the code is given.
func (h *holder) admit(g guest) (code int, ok bool) {
	defer g.close()
	h.conn = g.conn
	go func(conn int) { // they say nothing more: what comes is their end
		for b := make([]byte, 1); ; {
			if n, _, err := unix.Recvfrom(conn, b, 0); err != unix.EINTR && n <= 0 {
				h.gone <- struct{}{}
				return
			}
		}
	}(g.conn)
	env := os.Environ()
	how := "somebody attached: what the command writes goes to them, not into this log"
	attr := &syscall.SysProcAttr{Setsid: true}
	if g.term != "" {
		attr.Setctty = true // Ctty is 0, its standard input
		how = "somebody attached with a terminal: what the command writes goes there, not into this log"
		if valueOf(env, "TERM") == "" {
			env = mergeEnv(env, []string{"TERM=" + g.term})
		}
	}
	path, err := lookPath(h.command[0], valueOf(env, "PATH"))
	if err == nil {
		files := []uintptr{uintptr(g.streams[0]), uintptr(g.streams[1]), uintptr(g.streams[2])}
		h.pid, err = syscall.ForkExec(path, h.command, &syscall.ProcAttr{Env: env, Files: files, Sys: attr})
	}
	if err != nil {
		h.pid = 0
		words, code := cannotRun(h.command[0], err)
		unix.Write(g.streams[2], []byte(words))
		os.Stderr.WriteString(words)
		return code, false
	}
	complain(how)
	return 0, true
}

// reap collects every dead child, and tells of the command's end.
func (h *holder) reap() (code int, ended bool) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return code, ended
		}
		if pid == h.pid {
			ended, code = true, status.ExitStatus()
			if status.Signaled() {
				code = 128 + int(status.Signal())
			}
		}
	}
}

// bye tells who is attached the code and lets them end first.
func (h *holder) bye(code int) int {
	if h.conn >= 0 && unix.Sendto(h.conn, []byte(sayEnded+strconv.Itoa(code)), unix.MSG_NOSIGNAL, nil) == nil {
		select {
		case <-h.gone:
		case <-time.After(farewell):
		}
	}
	return code
}

// listenForAttach opens the socket on which attach calls.
func listenForAttach(path string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	}
	if err == nil {
		err = unix.Listen(fd, 16)
	}
	if err != nil {
		return -1, fmt.Errorf("listen on %s for an attach: %w", path, err)
	}
	return fd, nil
}

// accept takes in who calls, one after the other.
func (h *holder) accept(listener int) {
	for {
		conn, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		switch err {
		case nil:
		case unix.EINTR, unix.ECONNABORTED:
			continue
		default: // out of descriptors or memory: others must end first
			complain("accept: " + err.Error())
			time.Sleep(10 * time.Millisecond)
			continue
		}
		g, err := hear(conn)
		if err != nil {
			complain("attach: " + err.Error())
			unix.Close(conn)
			continue
		}
		h.guests <- g
	}
}

// hear takes a guest's streams.
func hear(conn int) (guest, error) {
	limit := unix.NsecToTimeval(int64(helloMax))
	if err := unix.SetsockoptTimeval(conn, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return guest{}, err
	}
	b, rights := make([]byte, packetMax), make([]byte, unix.CmsgSpace(3*4))
	n, m, _, _, err := unix.Recvmsg(conn, b, rights, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return guest{}, err
	}
	g := guest{conn: conn}
	messages, err := unix.ParseSocketControlMessage(rights[:m])
	if err != nil {
		return guest{}, err
	}
	for _, msg := range messages {
		fds, err := unix.ParseUnixRights(&msg)
		if err != nil {
			return guest{}, err
		}
		g.streams = append(g.streams, fds...)
	}
	said := string(b[:n])
	term, terminal := strings.CutPrefix(said, sayTerminal)
	if len(g.streams) != 3 || (!terminal && said != sayStreams) {
		g.close()
		return guest{}, errors.New("who called did not bring standard streams")
	}
	if terminal {
		g.term = term
	}
	var none unix.Timeval
	return g, unix.SetsockoptTimeval(conn, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &none)
}

// close lets go of the streams: the command has copies.
func (g guest) close() {
	for _, fd := range g.streams {
		unix.Close(fd)
	}
}
