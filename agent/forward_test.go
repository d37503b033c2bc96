package agent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/agent/runtimetest"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// frames is a relay whose other end is a test.
type frames struct {
	in, out chan *orchv1.Frame
	gone    chan struct{}
}

func newFrames() *frames {
	return &frames{in: make(chan *orchv1.Frame, 64), out: make(chan *orchv1.Frame, 64), gone: make(chan struct{})}
}

func (f *frames) Send(m *orchv1.Frame) error {
	select {
	case f.out <- proto.Clone(m).(*orchv1.Frame):
		return nil
	case <-f.gone:
		return io.EOF
	}
}

func (f *frames) Recv() (*orchv1.Frame, error) {
	select {
	case m := <-f.in:
		return m, nil
	case <-f.gone:
		return nil, io.EOF
	}
}

func (f *frames) say(text string) {
	f.in <- &orchv1.Frame{Frame: &orchv1.Frame_Stdin{Stdin: []byte(text)}}
}

func (f *frames) sayAll() {
	f.in <- &orchv1.Frame{Frame: &orchv1.Frame_StdinClosed{StdinClosed: true}}
}

// hear reads until the replica has said all.
func (f *frames) hear(t *testing.T) string {
	t.Helper()
	text := ""
	for {
		select {
		case m := <-f.out:
			if m.GetDataEnd() {
				return text
			}
			text += string(m.GetStdout())
		case <-time.After(10 * time.Second):
			t.Fatalf("after %q nothing comes", text)
		}
	}
}

// forwardRig is a driver with one replica at 127.0.0.1, on which serve listens.
func forwardRig(t *testing.T, serve func(*net.TCPConn)) (d *driver, port uint32) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serve(conn.(*net.TCPConn))
		}
	}()
	core := plan.New(plan.Config{})
	now := time.Now()
	core.Step(plan.Started{}, now)
	core.Step(plan.Observed{ID: 1}, now)
	core.Step(plan.Connected{}, now)
	wanted := core.Step(plan.Assigned{Incarnation: "A", Set: wire.AssignmentSet{Complete: true, Sequence: 1, Put: []wire.Assignment{web(web0), web(homeless)}}}, now)
	for ; len(wanted) > 0; wanted = wanted[1:] {
		switch e := wanted[0].(type) {
		case plan.PruneNetworks:
			wanted = append(wanted, core.Step(plan.Done{ID: e.ID}, now)...)
		case plan.SetupNetwork:
			if e.Replica == web0 {
				wanted = append(wanted, core.Step(plan.Done{ID: e.ID, Network: plan.Network{NetNS: "/run/x", IP: "127.0.0.1"}}, now)...)
			}
		}
	}
	d = newDriver(Config{Network: newNetwork(), Traffic: runtimetest.NewTraffic(), Runtime: newRuntime(), Data: t.TempDir(), Logger: slog.New(slog.DiscardHandler)}, core, newConfigs())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { // the part of run that answers questions
		defer close(done)
		for {
			select {
			case f := <-d.inbox:
				f.(func())()
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return d, uint32(l.Addr().(*net.TCPAddr).Port)
}

// homeless is a replica that has no network yet.
var homeless = api.ReplicaKey{Namespace: "default", Service: "web", Slot: 1, Epoch: 2}

func (d *driver) forwardTo(ctx context.Context, k api.ReplicaKey, port uint32, f *frames) <-chan *orchv1.End {
	end := make(chan *orchv1.End, 1)
	go func() { end <- d.relayForward(ctx, &orchv1.PortForwardOpen{Replica: wire.KeyToPB(k), Port: port}, f) }()
	return end
}

func await(t *testing.T, end <-chan *orchv1.End) *orchv1.End {
	t.Helper()
	select {
	case e := <-end:
		return e
	case <-time.After(10 * time.Second):
		t.Fatal("the forward does not end")
		return nil
	}
}

// The user says all and closes its side; the replica still answers.
func TestForwardHalfCloses(t *testing.T) {
	d, port := forwardRig(t, func(c *net.TCPConn) {
		all, err := io.ReadAll(c)
		if err == nil {
			_, err = c.Write([]byte("heard " + string(all)))
		}
		if err != nil && !errors.Is(err, net.ErrClosed) {
			t.Errorf("serve: %v", err)
		}
		c.Close()
	})
	f := newFrames()
	end := d.forwardTo(t.Context(), web0, port, f)
	f.say("hello ")
	f.say(strings.Repeat("x", 100_000))
	f.sayAll()
	if got := f.hear(t); got != "heard hello "+strings.Repeat("x", 100_000) {
		t.Errorf("the replica said %d bytes: %.40q", len(got), got)
	}
	if e := await(t, end); e.GetError() != "" {
		t.Errorf("ended with %v", e)
	}
}

// The replica says all first; what the user still says arrives, and its end ends it.
func TestForwardHalfClosedByTheReplica(t *testing.T) {
	heard := make(chan string, 1)
	d, port := forwardRig(t, func(c *net.TCPConn) {
		_, _ = c.Write([]byte("bye"))
		_ = c.CloseWrite()
		all, _ := io.ReadAll(c)
		heard <- string(all)
		c.Close()
	})
	f := newFrames()
	end := d.forwardTo(t.Context(), web0, port, f)
	if got := f.hear(t); got != "bye" {
		t.Errorf("heard %q", got)
	}
	f.say("one more thing")
	f.sayAll()
	if got := <-heard; got != "one more thing" {
		t.Errorf("the replica heard %q", got)
	}
	if e := await(t, end); e.GetError() != "" {
		t.Errorf("ended with %v", e)
	}
}

func TestForwardEndsWithTheUser(t *testing.T) {
	closed := make(chan struct{})
	d, port := forwardRig(t, func(c *net.TCPConn) {
		_, _ = io.Copy(io.Discard, c)
		close(closed)
	})
	f := newFrames()
	end := d.forwardTo(t.Context(), web0, port, f)
	f.say("hello")
	close(f.gone)
	await(t, end)
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Error("the replica's connection stays open")
	}
}

func TestForwardSaysWhyNot(t *testing.T) {
	d, port := forwardRig(t, func(c *net.TCPConn) {
		_ = c.SetLinger(0)
		_, _ = c.Read(make([]byte, 1))
		c.Close() // a reset
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := uint32(netip.MustParseAddrPort(l.Addr().String()).Port())
	l.Close()
	nobody := web0
	nobody.Epoch = 9
	for name, x := range map[string]struct {
		key  api.ReplicaKey
		port uint32
		want string
	}{
		"no port":     {web0, 0, "0 is no port"},
		"high port":   {web0, 70000, "70000 is no port"},
		"no replica":  {nobody, port, "replica default/web-0@9 is not on this node"},
		"no address":  {homeless, port, "replica default/web-1@2 has no address yet"},
		"refused":     {web0, closed, "nothing listens at 127.0.0.1:"},
		"reset by it": {web0, port, "the replica reset it"},
	} {
		f := newFrames()
		f.say("hello")
		if e := await(t, d.forwardTo(t.Context(), x.key, x.port, f)); !strings.Contains(e.GetError(), x.want) || e.GetExitCode() == 0 {
			t.Errorf("%s: ended with %v, want %q", name, e, x.want)
		}
		close(f.gone)
	}
}
