// Command probe is what the tests' containers run: each argument is a step.
package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What a step took stays taken.
var (
	held  [][]byte
	burnt int
)

func main() {
	for _, step := range os.Args[1:] {
		verb, arg, _ := strings.Cut(step, "=")
		switch verb {
		case "out":
			fmt.Println(arg)
		case "err":
			fmt.Fprintln(os.Stderr, arg)
		case "env":
			fmt.Println(os.Getenv(arg))
		case "cat":
			b, err := os.ReadFile(arg)
			fmt.Print(string(b))
			if err != nil {
				fmt.Println(err)
			}
		case "cwd":
			d, _ := os.Getwd()
			fmt.Println(d)
		case "host":
			h, _ := os.Hostname()
			fmt.Println(h)
		case "touch":
			if err := os.WriteFile(arg, []byte("x"), 0o644); err != nil {
				fmt.Println(err)
			}
		case "exit":
			n, _ := strconv.Atoi(arg)
			os.Exit(n)
		case "signal":
			n, _ := strconv.Atoi(arg)
			signal.Reset()
			syscall.Kill(os.Getpid(), syscall.Signal(n))
			select {}
		case "wait": // until SIGTERM, then exit with arg
			c := make(chan os.Signal, 1)
			signal.Notify(c, syscall.SIGTERM, syscall.SIGQUIT)
			fmt.Println("waiting")
			s := <-c
			fmt.Println("got", s)
			n, _ := strconv.Atoi(arg)
			os.Exit(n)
		case "deaf":
			signal.Ignore(syscall.SIGTERM)
			fmt.Println("waiting")
			for {
				time.Sleep(time.Hour)
			}
		case "stubborn": // tells of each signal and stays
			c := make(chan os.Signal, 8)
			signal.Notify(c, syscall.SIGTERM, syscall.SIGQUIT)
			fmt.Println("waiting")
			for s := range c {
				fmt.Println("got", s)
			}
		case "close": // its outputs
			syscall.Close(1)
			syscall.Close(2)
		case "fork": // arg children that ignore SIGTERM and SIGQUIT, in sessions of their own
			n, _ := strconv.Atoi(arg)
			signal.Ignore(syscall.SIGTERM, syscall.SIGQUIT)
			for range n {
				if _, err := syscall.ForkExec("/probe", []string{"/probe", "sleep"}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Setsid: true}}); err != nil {
					fmt.Println(err)
					os.Exit(96)
				}
			}
		case "sleep":
			for {
				time.Sleep(time.Hour)
			}
		case "eat": // MiB of memory
			n, _ := strconv.Atoi(arg)
			var hold [][]byte
			for range n {
				b := make([]byte, 1<<20)
				for i := 0; i < len(b); i += 4096 {
					b[i] = 1
				}
				hold = append(hold, b)
			}
			fmt.Println("ate", len(hold))
			held = append(held, hold...)
		case "burn": // cpu time, for as long as arg says
			d, _ := time.ParseDuration(arg)
			for end := time.Now().Add(d); time.Now().Before(end); {
				for i := range 1 << 16 {
					burnt += i
				}
			}
			fmt.Println("burnt")
		case "tty":
			ws, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
			if err != nil {
				fmt.Println("no tty:", err)
				break
			}
			for range 200 { // a resize may come later than the start
				if ws.Row != 0 {
					break
				}
				time.Sleep(10 * time.Millisecond)
				ws, _ = unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
			}
			fmt.Printf("tty %dx%d\n", ws.Col, ws.Row)
		case "echo": // standard input to its end
			n := 0
			for s := bufio.NewScanner(os.Stdin); s.Scan(); n++ {
				fmt.Println("<" + s.Text() + ">")
			}
			fmt.Fprintln(os.Stderr, n, "lines")
		case "long":
			n, _ := strconv.Atoi(arg)
			io.WriteString(os.Stdout, strings.Repeat("x", n)+"\n")
		case "caps":
			b, _ := os.ReadFile("/proc/self/status")
			for _, l := range strings.Split(string(b), "\n") {
				if strings.HasPrefix(l, "CapEff") || strings.HasPrefix(l, "NoNewPrivs") || strings.HasPrefix(l, "Seccomp:") {
					fmt.Println(l)
				}
			}
		case "id":
			groups, _ := os.Getgroups()
			fmt.Println("uid", os.Getuid(), "gid", os.Getgid(), "groups", groups)
		case "limit": // of setrlimit, by number
			n, _ := strconv.Atoi(arg)
			var l syscall.Rlimit
			if err := syscall.Getrlimit(n, &l); err != nil {
				fmt.Println(err)
			}
			fmt.Println("limit", n, l.Cur, l.Max)
		case "size": // of a file system, in bytes
			var st syscall.Statfs_t
			if err := syscall.Statfs(arg, &st); err != nil {
				fmt.Println(err)
			}
			fmt.Println("size", st.Blocks*uint64(st.Bsize))
		case "mounted": // how, at a path
			b, _ := os.ReadFile("/proc/self/mountinfo")
			for _, l := range strings.Split(string(b), "\n") {
				if f := strings.Fields(l); len(f) > 5 && f[4] == arg {
					fmt.Println(arg, f[5])
				}
			}
		case "stat": // mode and owner
			var st syscall.Stat_t
			if err := syscall.Stat(arg, &st); err != nil {
				fmt.Println(err)
				break
			}
			fmt.Printf("%s %o %d:%d\n", arg, st.Mode&0o7777, st.Uid, st.Gid)
		case "pid":
			fmt.Println("pid", os.Getpid(), "parent", os.Getppid())
		case "ready":
			fmt.Println("ready")
		case "sleeps": // for a while, then goes on
			d, _ := time.ParseDuration(arg)
			time.Sleep(d)
		case "controls": // whether its terminal is the controlling one
			f, err := os.Open("/dev/tty")
			if err != nil {
				fmt.Println(err)
				break
			}
			f.Close()
			fmt.Println("controlling terminal")
		case "hup": // waits for SIGHUP, then leaves a file
			c := make(chan os.Signal, 1)
			signal.Notify(c, syscall.SIGHUP)
			fmt.Println("waiting")
			<-c
			if err := os.WriteFile(arg, []byte("hung up\n"), 0o644); err != nil {
				os.Exit(95)
			}
		case "drain": // the input to its end
			if n, err := io.Copy(io.Discard, os.Stdin); n > 0 || err != nil {
				os.Exit(94)
			}
		case "orphan": // leaves a grandchild to whoever takes it in
			pid, err := syscall.ForkExec("/probe", []string{"/probe", "leave"}, &syscall.ProcAttr{})
			if err == nil {
				_, err = syscall.Wait4(pid, nil, 0, nil)
			}
			if err != nil {
				fmt.Println(err)
			}
		case "leave":
			if _, err := syscall.ForkExec("/probe", []string{"/probe", "sleeps=20ms"}, &syscall.ProcAttr{}); err != nil {
				fmt.Println(err)
			}
		case "alone": // until no process is left but itself and the first one
			left := 0
			for range 500 {
				left = 0
				dir, _ := os.ReadDir("/proc")
				for _, e := range dir {
					n, err := strconv.Atoi(e.Name())
					cmd, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
					if err == nil && n > 1 && n != os.Getpid() && !strings.Contains(string(cmd), "attach\x00") {
						left++
					}
				}
				if left == 0 {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			fmt.Println("others:", left)
		case "device":
			f, err := os.Open(arg)
			if err != nil {
				fmt.Println(err)
				break
			}
			f.Close()
			fmt.Println("opened", arg)
		case "serve": // its host name to every connection, for ever
			l, err := net.Listen("tcp", ":"+arg)
			if err != nil {
				fmt.Println(err)
				os.Exit(98)
			}
			fmt.Println("serving")
			for {
				c, err := l.Accept()
				if err != nil {
					os.Exit(97)
				}
				h, _ := os.Hostname()
				fmt.Fprint(c, h)
				c.Close()
			}
		case "tick":
			d, _ := time.ParseDuration(arg)
			for i := 0; ; i++ {
				fmt.Println("tick", i)
				time.Sleep(d)
			}
		default:
			fmt.Println("unknown step", step)
			os.Exit(99)
		}
	}
}
