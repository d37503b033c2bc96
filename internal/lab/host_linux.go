package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/internal/lab/initspec"
)

const (
	// bootTimeout is how long PID 1 may take to furnish its namespaces, and
	// commandTimeout how long to answer; both are milliseconds of work.
	bootTimeout    = 10 * time.Second
	commandTimeout = 5 * time.Second
	// goneTimeout is how long the kernel may take to clear a PID namespace.
	goneTimeout = 10 * time.Second
	// readyTimeout is how long a daemon may take until it answers.
	readyTimeout = 20 * time.Second
)

// names is what a host knows of names: from a lab there is no way to the machine's own
// servers, and asking them would only cost time until it is given up.
var names = map[string]string{
	"/etc/resolv.conf":   "# A lab has no server of names: who asks is told so at once.\nnameserver 127.0.0.1\n",
	"/etc/nsswitch.conf": "# A lab has no server of names: there are those of /etc/hosts.\nhosts: files\n",
}

// powerOn starts a host's PID 1 in new namespaces and returns once it takes
// commands. With an outer namespace's name the host shares that network, else
// it gets one of its own. PID 1 survives this program.
func powerOn(ctx context.Context, c *Config, h host, shareNetns string, programs []initspec.Program) (process, error) {
	cgroups, err := makeCgroups(h)
	if err != nil {
		return process{}, err
	}
	spec := &initspec.Spec{
		Hostname: h.name,
		Socket:   h.socket(),
		Cgroups:  cgroups,
		VarLib:   filepath.Join(h.dir, "var-lib"),
		Keep:     outermost(c.Dir, c.BinDir, c.CNIBin, filepath.Dir(c.Containerd)),
		Files:    map[string]string{},
		Programs: programs,
	}
	if c.Daemons == Empty {
		spec.Own, spec.OwnDir = ownFolders, filepath.Join(h.dir, "own")
	}
	if err := os.MkdirAll(spec.VarLib, 0o755); err != nil {
		return process{}, err
	}
	for at, text := range names {
		spec.Files[at] = filepath.Join(h.dir, filepath.Base(at))
		if err := os.WriteFile(spec.Files[at], []byte(text), 0o644); err != nil {
			return process{}, err
		}
	}
	if err := spec.Write(h.spec()); err != nil {
		return process{}, err
	}
	log, err := os.OpenFile(h.initLog(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return process{}, err
	}
	defer log.Close()
	ready, write, err := os.Pipe()
	if err != nil {
		return process{}, err
	}
	defer ready.Close()

	cmd := exec.Command(filepath.Join(c.BinDir, "shim"), "init", h.spec())
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + hostPath}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{write}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
	}
	if shareNetns == "" {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWNET
		err = cmd.Start()
	} else {
		err = inNetns(shareNetns, cmd.Start)
	}
	write.Close()
	if err != nil {
		return process{}, fmt.Errorf("power on %s: %w", h.name, err)
	}
	// Reaped here for as long as this program lives, by the machine's PID 1
	// afterwards. The goroutine ends with the host, which outlives any Run.
	go cmd.Wait()

	p, err := identify(cmd.Process.Pid)
	if err == nil {
		err = awaitReady(ctx, ready, h)
	}
	if err != nil {
		cmd.Process.Kill()
		return process{}, fmt.Errorf("power on %s: %w", h.name, err)
	}
	return p, nil
}

// hostPath is PATH on a lab's hosts: containerd finds its shim and runc there.
const hostPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func awaitReady(ctx context.Context, ready *os.File, h host) error {
	deadline := time.Now().Add(bootTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := ready.SetReadDeadline(deadline); err != nil {
		return err
	}
	answer, err := io.ReadAll(ready)
	switch {
	case err != nil:
		return fmt.Errorf("wait for its PID 1: %w", err)
	case string(answer) == initspec.Ready:
		return nil
	case len(answer) == 0:
		return fmt.Errorf("its PID 1 ended at once; see %s", h.initLog())
	}
	return errors.New(string(answer))
}

// outermost drops folders that lie within others, and duplicates.
func outermost(dirs ...string) []string {
	var out []string
	for i, d := range dirs {
		covered := false
		for j, other := range dirs {
			inside := strings.HasPrefix(d, strings.TrimSuffix(other, "/")+"/") && d != other
			covered = covered || inside || (d == other && j < i)
		}
		if !covered {
			out = append(out, d)
		}
	}
	return out
}

// command sends a line to a host's PID 1 and returns the lines of its answer.
func (h host) command(ctx context.Context, words ...string) ([]string, error) {
	what := strings.Join(words, " ") + " on " + h.name
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", h.socket())
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", what, ErrOff)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, strings.Join(words, " ")+"\n"); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	var lines []string
	in := bufio.NewScanner(conn)
	for in.Scan() {
		lines = append(lines, in.Text())
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("%s: no answer: the host went down", what)
	}
	if lines[0] != "ok" {
		return nil, fmt.Errorf("%s: %s", what, strings.TrimPrefix(lines[0], "error: "))
	}
	return lines[1:], nil
}

func (h host) start(ctx context.Context, program string) error {
	_, err := h.command(ctx, initspec.Start, program)
	return err
}

func (h host) signal(ctx context.Context, program string, sig syscall.Signal) error {
	_, err := h.command(ctx, initspec.Signal, program, strconv.Itoa(int(sig)))
	return err
}

func (h host) programs(ctx context.Context) ([]initspec.State, error) {
	lines, err := h.command(ctx, initspec.Status)
	if err != nil {
		return nil, err
	}
	var states []initspec.State
	for _, line := range lines {
		s, err := initspec.ParseState(line)
		if err != nil {
			return nil, err
		}
		states = append(states, s)
	}
	return states, nil
}

func (h host) program(ctx context.Context, name string) (initspec.State, error) {
	states, err := h.programs(ctx)
	if err != nil {
		return initspec.State{}, err
	}
	for _, s := range states {
		if s.Name == name {
			return s, nil
		}
	}
	return initspec.State{}, fmt.Errorf("%s has no program %q", h.name, name)
}

// awaitEnd waits until a program does not run.
func (h host) awaitEnd(ctx context.Context, name string) error {
	return poll(ctx, goneTimeout, fmt.Sprintf("wait for the end of %s on %s", name, h.name), func() (bool, error) {
		s, err := h.program(ctx, name)
		return err == nil && !s.Running(), err
	})
}

// awaitSocket waits until a program answers on a unix socket, and fails at
// once when the program ends before it does.
func (h host) awaitSocket(ctx context.Context, program, socket string) error {
	return poll(ctx, readyTimeout, fmt.Sprintf("wait for %s on %s", program, h.name), func() (bool, error) {
		if conn, err := net.DialTimeout("unix", socket, commandTimeout); err == nil {
			return true, conn.Close()
		}
		s, err := h.program(ctx, program)
		if err == nil && !s.Running() {
			err = fmt.Errorf("%s on %s ended (%s)%s", program, h.name, s.Ended, tail(h.log(program)))
		}
		return false, err
	})
}

// tail returns the end of a log for an error's text.
func tail(path string) string {
	const lines = 5 // enough for a reason; the file has the rest
	data, err := os.ReadFile(path)
	text := strings.TrimSpace(string(data))
	if err != nil || text == "" {
		return "; its log " + path + " is empty"
	}
	all := strings.Split(text, "\n")
	return "; the end of " + path + ":\n  " + strings.Join(all[max(0, len(all)-lines):], "\n  ")
}

// identify looks up a living process.
func identify(pid int) (process, error) {
	_, start, err := procStat(pid)
	return process{Pid: pid, Start: start}, err
}

// alive says whether exactly this process lives. A zombie does not: by then
// the kernel has cleared its whole PID namespace.
func (p process) alive() bool {
	if p.Pid == 0 {
		return false
	}
	mode, start, err := procStat(p.Pid)
	return err == nil && start == p.Start && mode != 'Z' && mode != 'X'
}

// kill ends exactly this process and waits until it is gone. For a PID 1 that
// means: until every process of its host is gone.
func (p process) kill(ctx context.Context) error {
	if !p.alive() {
		return nil
	}
	fd, err := unix.PidfdOpen(p.Pid, 0)
	if err == unix.ESRCH {
		return nil
	}
	if err != nil {
		return fmt.Errorf("kill process %d: %w", p.Pid, err)
	}
	defer unix.Close(fd)
	if !p.alive() { // the number went to another process before we held it
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("kill process %d: %w", p.Pid, err)
	}
	return nil
}

func (p process) awaitGone(ctx context.Context) error {
	return poll(ctx, goneTimeout, fmt.Sprintf("wait for the end of process %d", p.Pid), func() (bool, error) {
		return !p.alive(), nil
	})
}

// procStat reads a process's state letter and start time (proc(5), fields 3
// and 22). The name in field 2 may hold anything, so count from its end.
func procStat(pid int) (byte, uint64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	text := string(data)
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(f) < 20 {
		return 0, 0, fmt.Errorf("read /proc/%d/stat: %q", pid, text)
	}
	start, err := strconv.ParseUint(f[19], 10, 64)
	return f[0][0], start, err
}
