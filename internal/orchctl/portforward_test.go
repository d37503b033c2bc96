package orchctl

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// forwardTest is orchctl with real sockets, hence outside of a bubble.
type forwardTest struct {
	*rig
	lines *bufio.Reader // its standard output
	errs  syncBuffer
	stop  func()
	ended chan int
}

func forward(t *testing.T, f *fake, args ...string) *forwardTest {
	t.Helper()
	dial, stop := f.serve()
	t.Cleanup(stop)
	x := &forwardTest{rig: newRig(t, f, dial), ended: make(chan int, 1)}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	x.stop, x.lines = cancel, bufio.NewReader(r)
	t.Cleanup(func() { cancel(); r.Close() })
	env := x.env
	env.Out, env.Err = w, &x.errs
	go func() {
		defer w.Close()
		x.ended <- Run(ctx, env, append([]string{"port-forward"}, args...))
	}()
	return x
}

// listens gives the address of the next "Forwarding from" line.
func (x *forwardTest) listens(to string) string {
	x.t.Helper()
	line, err := x.lines.ReadString('\n')
	at, ok := strings.CutPrefix(strings.TrimSpace(line), "Forwarding from ")
	at, rest, _ := strings.Cut(at, " -> ")
	if !ok || rest != to {
		x.t.Fatalf("got %q, %v; want a line about %s; %s", line, err, to, x.errs.String())
	}
	return at
}

func (x *forwardTest) end() int {
	x.t.Helper()
	select {
	case code := <-x.ended:
		return code
	case <-time.After(20 * time.Second):
		x.t.Fatal("it did not end")
		return -1
	}
}

// tells waits for words on standard error, which come behind a connection's end.
func (x *forwardTest) tells(words string) {
	x.t.Helper()
	for until := time.Now().Add(20 * time.Second); !strings.Contains(x.errs.String(), words); runtime.Gosched() {
		if time.Now().After(until) {
			x.t.Fatalf("it does not tell %q: %s", words, x.errs.String())
		}
	}
}

// resets wants a connection to be reset, which may be sooner than it is seen open.
func resets(t *testing.T, at string) {
	t.Helper()
	conn, err := net.Dial("tcp", at)
	if err == nil {
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second)) // else the read never ends, which is seen too
		_, err = io.ReadAll(conn)
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection ended with %v", err)
	}
}

func dialTo(t *testing.T, at string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

// answers says its request, then everything it hears in capitals, then bye.
func answers(s orchv1.Orch_PortForwardServer) error {
	first, err := s.Recv()
	if err != nil {
		return err
	}
	q := first.GetPortForward()
	if err := s.Send(stdout(fmt.Sprintf("%s/%s%s:%s\n", q.Namespace, q.Service, q.Replica, q.Port))); err != nil {
		return err
	}
	for {
		f, err := s.Recv()
		if err != nil {
			return err
		}
		if f.GetStdinClosed() {
			return frames(s, stdout("bye"), &orchv1.Frame{Frame: &orchv1.Frame_DataEnd{DataEnd: true}}, end(0, ""))
		}
		if err := s.Send(stdout(string(bytes.ToUpper(f.GetStdin())))); err != nil {
			return err
		}
	}
}

// TestPortForward: several pairs, several connections at once, both directions and
// their ends; an interrupt is a good end, also in the middle of a connection.
func TestPortForward(t *testing.T) {
	f := newFake(service("web", 1, all(1)), replica("web", 0, 17, "n1", running(true)))
	f.onForward = answers
	x := forward(t, f, "service/web", ":80", ":http")
	first, second := x.listens("80"), x.listens("http")
	big := strings.Repeat("much ", 100_000)
	for _, c := range []struct{ at, head string }{{first, "default/web:80\n"}, {second, "default/web:http\n"}, {first, "default/web:80\n"}} {
		conn := dialTo(t, c.at)
		go func() {
			_, _ = io.WriteString(conn, big) // the reader sees what is missing
			_ = conn.CloseWrite()
		}()
		got, err := io.ReadAll(conn)
		if want := c.head + strings.ToUpper(big) + "bye"; err != nil || string(got) != want {
			t.Fatalf("%d bytes, %v; want %d", len(got), err, len(want))
		}
	}
	idle := dialTo(t, first)
	if line, err := bufio.NewReader(idle).ReadString('\n'); err != nil || line != "default/web:80\n" {
		t.Fatal(line, err)
	}
	x.stop()
	if code := x.end(); code != 0 || x.errs.String() != "" {
		t.Errorf("exit %d, %s", code, x.errs.String())
	}
	if _, err := idle.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("what was cut short looks complete: %v", err)
	}
	if _, err := net.Dial("tcp", first); err == nil {
		t.Error("it listens still")
	}
}

// TestPortForwardFails: one connection's failure is told and is no end; what must
// fail always is.
func TestPortForwardFails(t *testing.T) {
	f := newFake(replica("web", 0, 17, "n1", running(true)))
	f.onForward = func(s orchv1.Orch_PortForwardServer) error {
		return frames(s, stdout("half of an ans"), end(-1, "connection refused\x1b[2J"))
	}
	x := forward(t, f, "web-0", ":80")
	at := x.listens("80")
	resets(t, at)
	x.tells("connection refused")
	f.mu.Lock()
	f.fail["PortForward"] = []error{status.Error(codes.FailedPrecondition, "replica web-0 does not run"), status.Error(codes.InvalidArgument, "port 80 of replica web-0 is UDP: only TCP can be forwarded")}
	f.mu.Unlock()
	for _, why := range []string{"does not run", "is UDP"} {
		resets(t, at)
		x.tells(why)
	}
	want := fmt.Sprintf("orchctl: %s -> 80: connection refused [2J\norchctl: %s -> 80: replica web-0 does not run\norchctl: port-forward to replica/web-0: port 80 of replica web-0 is UDP: only TCP can be forwarded\n", at, at)
	if code := x.end(); code != exitUsage || x.errs.String() != want {
		t.Errorf("exit %d\n%s\nwant\n%s", code, x.errs.String(), want)
	}
}

// TestPortForwardBegins: what cannot begin says why at once.
func TestPortForwardBegins(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	for _, c := range []struct{ line, want string }{
		{"web-0 " + port + ":80", "port " + port + " of 127.0.0.1 is in use here: choose another"},
		{"web-0 :80 --address 192.0.2.1", "192.0.2.1 is no address of this machine"},
		{"service/api :80", "service api is not there"},
	} {
		x := forward(t, newFake(replica("web", 0, 17, "n1", running(true))), strings.Fields(c.line)...)
		if code := x.end(); code != 1 || !strings.Contains(x.errs.String(), c.want) {
			t.Errorf("%s: exit %d, %s; want %s", c.line, code, x.errs.String(), c.want)
		}
	}
}

// TestPortForwardRefuses: what a service does not have is told before anybody listens.
func TestPortForwardRefuses(t *testing.T) {
	s := service("dns", 1, all(1))
	s.Spec.Containers[0].Ports = []api.Port{{Name: "names", Port: 53, Protocol: api.UDP}, {Name: "admin", Port: 8080}, {Port: 53}}
	for remote, want := range map[string]string{
		"admin": "", "53": "", "9": "",
		"names": "port names of service/dns is UDP: only TCP can be forwarded",
		"amdin": `service/dns has no port "amdin": want a number, or admin`,
	} {
		if err := declared(s, remote); err == nil && want != "" || err != nil && err.Error() != want {
			t.Errorf("%s: %v", remote, err)
		}
	}
	if err := declared(service("web", 1, func(s *api.Service) { s.Spec.Containers[0].Ports = nil }), "http"); err == nil {
		t.Error("a name is taken where there are no ports")
	}
}
