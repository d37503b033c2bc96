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

	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/internal/lab/initspec"
)

// runInit is PID 1 of a lab's host. It furnishes its mount namespace, then
// starts and signals programs when told, and reaps whatever is orphaned. It
// restarts nothing: a lab breaks things, and what is broken must stay so until
// somebody mends it. When it dies the kernel kills every process of its PID
// namespace, which is what makes `kill -9` of it an exact loss of power.
func runInit(args []string) int {
	ready := os.NewFile(initspec.ReadyFD, "ready")
	if len(args) != 1 || ready == nil {
		complain("usage: shim init SPEC (started by the lab)")
		return 2
	}
	h, err := boot(args[0])
	if err != nil {
		complain(err.Error())
		ready.WriteString(err.Error())
		return 1
	}
	ready.WriteString(initspec.Ready)
	ready.Close()
	h.run()
	return 0
}

// host is PID 1's state. One goroutine (run) owns it.
type host struct {
	programs map[string]*program
	names    []string // in the spec's order
	requests chan request
	children chan os.Signal
}

type program struct {
	initspec.Program
	state initspec.State
}

type request struct {
	words []string
	reply chan string
}

func boot(path string) (*host, error) {
	if os.Getpid() != 1 {
		return nil, errors.New("boot: not PID 1 of a PID namespace")
	}
	unix.CloseOnExec(initspec.ReadyFD)
	spec, err := initspec.Read(path)
	if err != nil {
		return nil, err
	}
	for _, dir := range spec.Cgroups {
		if err := os.WriteFile(dir+"/cgroup.procs", []byte("0"), 0); err != nil {
			return nil, fmt.Errorf("join cgroup: %w", err)
		}
	}
	if err := furnish(spec); err != nil {
		return nil, err
	}
	if err := unix.Sethostname([]byte(spec.Hostname)); err != nil {
		return nil, fmt.Errorf("set hostname %s: %w", spec.Hostname, err)
	}
	h := &host{
		programs: map[string]*program{},
		requests: make(chan request),
		children: make(chan os.Signal, 1),
	}
	for _, p := range spec.Programs {
		h.programs[p.Name] = &program{Program: p, state: initspec.State{Name: p.Name}}
		h.names = append(h.names, p.Name)
	}
	signal.Notify(h.children, unix.SIGCHLD)
	listener, err := listen(spec.Socket)
	if err != nil {
		return nil, err
	}
	go h.accept(listener)
	return h, nil
}

// run never returns: PID 1 ends by being killed.
func (h *host) run() {
	for {
		select {
		case r := <-h.requests:
			r.reply <- h.obey(r.words)
		case <-h.children:
			h.reap()
		}
	}
}

func (h *host) obey(words []string) string {
	if len(words) == 0 {
		return "error: no command\n"
	}
	h.reap() // so that an answer never calls a dead program running
	var err error
	switch {
	case words[0] == initspec.Status:
		var out strings.Builder
		out.WriteString("ok\n")
		for _, name := range h.names {
			out.WriteString(h.programs[name].state.String() + "\n")
		}
		return out.String()
	case words[0] == initspec.Start && len(words) == 2:
		err = h.start(words[1])
	case words[0] == initspec.Signal && len(words) == 3:
		err = h.signal(words[1], words[2])
	default:
		err = errors.New("unknown command " + strconv.Quote(strings.Join(words, " ")))
	}
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	return "ok\n"
}

func (h *host) find(name string) (*program, error) {
	if p := h.programs[name]; p != nil {
		return p, nil
	}
	return nil, errors.New("no program " + strconv.Quote(name) + " here; there are: " + strings.Join(h.names, ", "))
}

// start starts a program in its own session, so that nothing sent to PID 1's
// terminal or group reaches it.
func (h *host) start(name string) error {
	p, err := h.find(name)
	if err != nil {
		return err
	}
	if p.state.Running() {
		return fmt.Errorf("start %s: already running", name)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	defer null.Close()
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	defer log.Close()
	pid, err := syscall.ForkExec(p.Args[0], p.Args, &syscall.ProcAttr{
		Dir:   "/",
		Env:   p.Env,
		Files: []uintptr{null.Fd(), log.Fd(), log.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start %s: exec %s: %w", name, p.Args[0], err)
	}
	p.state.Pid, p.state.Ended = pid, ""
	if p.OOMScore != 0 {
		// Only a preference: a host that forbids it still runs the program.
		os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte(strconv.Itoa(p.OOMScore)), 0)
	}
	return nil
}

func (h *host) signal(name, number string) error {
	p, err := h.find(name)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(number)
	if err != nil {
		return fmt.Errorf("signal %s: %w", name, err)
	}
	if !p.state.Running() {
		return fmt.Errorf("signal %s: not running", name)
	}
	if err := unix.Kill(p.state.Pid, unix.Signal(n)); err != nil {
		return fmt.Errorf("signal %s: %w", name, err)
	}
	return nil
}

// reap collects every dead child, ours and orphans alike.
func (h *host) reap() {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		for _, p := range h.programs {
			if p.state.Pid == pid {
				p.state.Pid, p.state.Ended = 0, ending(status)
			}
		}
	}
}

func ending(status unix.WaitStatus) string {
	if status.Signaled() {
		return "signal " + strconv.Itoa(int(status.Signal()))
	}
	return "exit " + strconv.Itoa(status.ExitStatus())
}
