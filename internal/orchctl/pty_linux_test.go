package orchctl

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// pty opens a terminal: what is written to its master is typed.
func pty(t *testing.T) (master, terminal *os.File) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	must(err)
	t.Cleanup(func() { master.Close() })
	must(unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	must(err)
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	must(err)
	t.Cleanup(func() { terminal.Close() })
	return master, terminal
}

func resize(t *testing.T, f *os.File, w, h uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(f.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: h, Col: w}); err != nil {
		t.Fatal(err)
	}
}

// TestExecOnATerminal: keys go raw, the size follows, and the terminal is as
// before in the end.
func TestExecOnATerminal(t *testing.T) {
	master, terminal := pty(t)
	resize(t, master, 80, 24)
	before, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	f := newFake()
	began, resized, typed := newGate(), newGate(), newGate()
	var first *orchv1.ExecRequest
	f.onExec = func(s orchv1.Orch_ExecServer) error {
		input := ""
		for {
			m, err := s.Recv()
			if err != nil {
				return err
			}
			switch x := m.GetFrame().(type) {
			case *orchv1.Frame_Exec:
				first = x.Exec
				began.open()
			case *orchv1.Frame_Resize:
				if x.Resize.Width == 100 && x.Resize.Height == 40 {
					resized.open()
				}
			case *orchv1.Frame_Stdin:
				if input += string(x.Stdin); input == "a\x03" { // an interrupt is a key like others
					typed.open()
					return s.Send(end(3, ""))
				}
			}
		}
	}
	dial, stop := f.serve()
	defer stop()
	r := newRig(t, f, dial)
	r.env.In = terminal
	done := make(chan result, 1)
	go func() { done <- r.run("exec", "-it", "web-0", "--", "sh") }()
	began.await(t, "the exec")
	if !first.Tty || !first.Stdin || first.Width != 80 || first.Height != 24 {
		t.Errorf("asked for %v", first)
	}
	awaitRaw(t, terminal)
	resize(t, master, 100, 40)
	// The terminal is not this process's own, so the kernel's signal goes to nobody.
	if err := syscall.Kill(os.Getpid(), syscall.SIGWINCH); err != nil {
		t.Fatal(err)
	}
	resized.await(t, "the resize")
	if _, err := master.Write([]byte("a\x03")); err != nil {
		t.Fatal(err)
	}
	typed.await(t, "the typing")
	if got := <-done; got.code != 3 || strings.Contains(got.err, "orchctl") {
		t.Error(got)
	}
	after, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil || *after != *before {
		t.Errorf("the terminal is %+v, was %+v: %v", after, before, err)
	}
}

// awaitRaw returns when the terminal is in raw mode: orchctl listens for its
// size from then on.
func awaitRaw(t *testing.T, terminal *os.File) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		mode, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
		if err == nil && mode.Lflag&unix.ICANON == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the terminal is not raw: %v", err)
		}
		runtime.Gosched()
	}
}
