package orchctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// stdinChunk is the most that one frame of standard input carries.
const stdinChunk = 32 << 10

type executing struct {
	stdin, tty bool
	container  string
}

func (t *tool) execCmd() *cobra.Command {
	var x executing
	cmd := &cobra.Command{
		Use:   "exec REPLICA [-it] -- COMMAND [ARG...]",
		Short: "Run a command in a replica",
		Long: `Run a command in a container of a replica. orchctl ends with the command's exit
code; 1 where it could not be run, with the reason on standard error.`,
		DisableFlagsInUseLine: true, // what follows -- is the command's
		Example: `  orchctl exec web-0 -- ls /
  orchctl exec -it web-0 -- sh
  tar c site | orchctl exec -i web-0 -- tar x -C /srv`,
		ValidArgsFunction: beginning(t.completeFirst(api.KindReplica)),
		Args: func(cmd *cobra.Command, words []string) error {
			switch dash := cmd.ArgsLenAtDash(); {
			case len(words) < 2 || dash == 0 || dash > 1:
				return usagef("want a replica, --, and a command\nusage: %s", cmd.UseLine())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return t.exec(cmd.Context(), x, args[0], args[1:]) },
	}
	f := cmd.Flags()
	f.SetInterspersed(true)
	f.BoolVarP(&x.stdin, "stdin", "i", false, "pass standard input")
	f.BoolVarP(&x.tty, "tty", "t", false, "give the command a terminal, as big as this one")
	f.StringVarP(&x.container, "container", "c", "", "container to run it in (default: the first)")
	return cmd
}

func (t *tool) exec(ctx context.Context, x executing, arg string, command []string) error {
	kind, name, ok := cutKind(arg)
	if ok && kind != api.KindReplica {
		return usagef("a command runs in one replica: `orchctl get replicas` shows them")
	}
	if !ok {
		name = arg
	}
	to := t.target(api.KindReplica, name)
	open := &orchv1.ExecRequest{Namespace: to.namespace, Replica: to.name, Container: x.container, Command: command}
	screen, err := t.terminal(x)
	if err != nil {
		return err
	}
	doing := "exec in " + to.name
	client, err := t.connect(ctx, doing, false)
	if err != nil {
		return err
	}
	return t.session(ctx, client, open, x, screen, doing)
}

// terminal gives the one that -t asks for; nil where it does not.
func (t *tool) terminal(x executing) (*os.File, error) {
	if !x.tty {
		return nil, nil
	}
	screen, _ := t.In.(*os.File)
	if screen == nil || !term.IsTerminal(int(screen.Fd())) {
		return nil, usagef("-t needs a terminal, and standard input is none: leave out -t")
	}
	return screen, nil
}

// session opens an exec and carries it to its end, which is orchctl's own, too.
func (t *tool) session(ctx context.Context, client orchv1.OrchClient, open *orchv1.ExecRequest, x executing, screen *os.File, doing string) error {
	open.Tty, open.Stdin = x.tty, x.stdin
	if screen != nil {
		if w, h, err := term.GetSize(int(screen.Fd())); err == nil {
			open.Width, open.Height = uint32(w), uint32(h)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Exec(ctx)
	if err == nil {
		err = stream.Send(&orchv1.Frame{Frame: &orchv1.Frame_Exec{Exec: open}})
	}
	if err != nil && !errors.Is(err, io.EOF) { // io.EOF: the reason comes with Recv
		return t.failed(err, doing, operator)
	}
	s := &execSession{t: t, stream: stream, attach: open.GetAttach()}
	if screen != nil {
		stop := s.resizes(ctx, screen)
		defer stop()
		restore, err := raw(screen)
		if err != nil {
			return fmt.Errorf("%s: put the terminal into raw mode: %w", doing, err)
		}
		defer restore()
	}
	if x.stdin {
		// A read from a terminal cannot be ended: this goroutine may outlive
		// the stream, and ends with the process.
		go s.passStdin(t.In)
	}
	end, err := s.receive()
	if err != nil {
		return t.failed(err, doing, operator)
	}
	switch {
	case end.GetError() != "":
		t.warnf("%s: %s", doing, cleanText(end.GetError()))
		return exitStatus(max(exitFailed, int(end.GetExitCode())))
	case end.GetExitCode() != 0:
		return exitStatus(end.GetExitCode())
	}
	return nil
}

// raw puts a terminal into raw mode: keys go to the command as they are.
func raw(f *os.File) (restore func(), err error) {
	old, err := term.MakeRaw(int(f.Fd()))
	if err != nil {
		return nil, err
	}
	return func() { _ = term.Restore(int(f.Fd()), old) }, nil // a terminal that is gone needs no mode
}

// execSession is one open exec. Frames are sent by several goroutines, one at a time.
type execSession struct {
	t      *tool
	stream orchv1.Orch_ExecClient
	mu     sync.Mutex
	attach bool // nothing has come yet of what is attached to
}

func (s *execSession) send(f *orchv1.Frame) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stream.Send(f)
}

func (s *execSession) passStdin(in io.Reader) {
	for {
		buf := make([]byte, stdinChunk)
		n, err := in.Read(buf)
		if n > 0 && s.send(&orchv1.Frame{Frame: &orchv1.Frame_Stdin{Stdin: buf[:n]}}) != nil {
			return
		}
		if err != nil {
			_ = s.send(&orchv1.Frame{Frame: &orchv1.Frame_StdinClosed{StdinClosed: true}}) // an ended stream needs it no more
			return
		}
	}
}

// resizes passes the terminal's size on whenever it changes, until stop.
func (s *execSession) resizes(ctx context.Context, screen *os.File) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	changed, unsubscribe := windowChanges()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-changed:
				w, h, err := term.GetSize(int(screen.Fd()))
				if err != nil || s.send(&orchv1.Frame{Frame: &orchv1.Frame_Resize{Resize: &orchv1.Resize{Width: uint32(w), Height: uint32(h)}}}) != nil {
					return
				}
			}
		}
	}()
	return func() {
		unsubscribe()
		cancel()
		<-done
	}
}

// attachRefused begins what the shim says of an attach that is refused.
const attachRefused = "shim: attach: "

// plain gives what came without the name of who refuses an attach, which the user of
// orchctl does not know. On a terminal it comes as any output.
func (s *execSession) plain(text []byte) []byte {
	if s.attach && len(text) > 0 {
		s.attach = false
		return bytes.TrimPrefix(text, []byte(attachRefused))
	}
	return text
}

// receive prints what the command prints until it has ended.
func (s *execSession) receive() (*orchv1.End, error) {
	for {
		f, err := s.stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil, errors.New("the stream ended before the command did: it may still run")
		}
		if err != nil {
			return nil, err
		}
		switch x := f.GetFrame().(type) {
		case *orchv1.Frame_Stdout:
			_, err = s.t.Out.Write(s.plain(x.Stdout))
		case *orchv1.Frame_Stderr:
			_, err = s.t.Err.Write(s.plain(x.Stderr))
		case *orchv1.Frame_End:
			return x.End, nil
		}
		if err != nil {
			return nil, err
		}
	}
}
