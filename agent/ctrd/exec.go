package ctrd

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// drainTimeout bounds the wait for output after a command's end.
const drainTimeout = 2 * time.Second

// Exec runs a command in a container that runs, or starts the one that waits there for an
// attach, and returns its exit code. When ctx ends, the command is killed. A command that
// cannot be run is an error with the runtime's words; ErrNotFound and ErrNotRunning are
// the container's, ErrAway is containerd's: the command was not run, or its end is not
// known.
func (r *Runtime) Exec(ctx context.Context, id string, e ExecSpec) (code int, err error) {
	ctx = r.in(ctx)
	started := false
	fail := func(err error) (int, error) {
		late := timedOut(ctx, err) || ctx.Err() != nil
		if away := late && !started || errdefs.IsUnavailable(err); away {
			return -1, fmt.Errorf("exec in %s: %w: %w", id, ErrAway, err)
		}
		if timedOut(ctx, err) {
			err = context.DeadlineExceeded
		}
		return -1, fmt.Errorf("exec in %s: %w", id, err)
	}
	if len(e.Args) == 0 && !e.Attach {
		return fail(errors.New("no command"))
	}
	c, err := r.client.LoadContainer(ctx, id)
	if errdefs.IsNotFound(err) {
		return fail(ErrNotFound)
	}
	if err != nil {
		return fail(err)
	}
	t, err := c.Task(ctx, nil)
	if errdefs.IsNotFound(err) {
		return fail(ErrNotRunning)
	}
	if err != nil {
		return fail(err)
	}
	if st, err := t.Status(ctx); err != nil {
		return fail(err)
	} else if st.Status == client.Unknown { // its shim did not answer in time
		return -1, fmt.Errorf("exec in %s: %w: its process cannot be asked", id, ErrAway)
	} else if st.Status != client.Running {
		return fail(ErrNotRunning)
	}
	spec, err := c.Spec(ctx)
	if err != nil {
		return fail(err)
	}
	p, err := r.beside(id, t.Pid(), spec.Process, e)
	if err != nil {
		return fail(err)
	}

	// The end of the input must be passed on by a call, for the shim holds the
	// pipe's other end open.
	stdin := &eofReader{r: e.Stdin, ended: make(chan struct{})}
	if e.Stdin == nil {
		stdin.r = bytes.NewReader(nil)
	}
	stdout, stderr := orDiscard(e.Stdout), orDiscard(e.Stderr)
	opts := []cio.Opt{cio.WithStreams(stdin, stdout, stderr), cio.WithFIFODir(filepath.Join(r.cfg.StateDir, "exec"))}
	if e.TTY {
		opts = append(opts, cio.WithTerminal)
	}
	if err := os.MkdirAll(r.cfg.StateDir, 0o755); err != nil {
		return fail(err)
	}
	proc, err := t.Exec(ctx, "exec-"+rand.Text(), p, cio.NewCreator(opts...))
	if err != nil {
		return fail(err)
	}
	defer func() {
		clean, cancel := r.cleanup(ctx)
		defer cancel()
		// WithProcessKill: ctx may have ended before the command.
		if _, e := proc.Delete(clean, client.WithProcessKill); e != nil && !errdefs.IsNotFound(e) && err == nil {
			err = fmt.Errorf("exec in %s: clear away: %w", id, e)
		}
	}()
	exited, err := proc.Wait(ctx)
	if err != nil {
		return fail(err)
	}
	if err := proc.Start(ctx); err != nil {
		if timedOut(ctx, err) || errdefs.IsUnavailable(err) {
			return fail(err)
		}
		return fail(errors.New(plainWords(err.Error())))
	}
	started = true
	if code, err = r.attend(ctx, id, proc, exited, stdin.ended, e.Resize); err != nil {
		return fail(err)
	}
	return code, nil
}

// beside gives the process of a command that runs beside a container's own: as that is,
// but for what was asked for.
func (r *Runtime) beside(id string, pid uint32, own *specs.Process, e ExecSpec) (*specs.Process, error) {
	p := *own
	p.Args, p.Terminal = e.Args, e.TTY
	p.Env = slices.Clone(own.Env)
	if e.TTY {
		p.Env = append(p.Env, "TERM=xterm")
	}
	for _, v := range e.Env {
		p.Env = append(p.Env, v.Name+"="+v.Value)
	}
	if e.WorkDir != "" {
		p.Cwd = e.WorkDir
	}
	switch {
	case e.Attach && !holdsCommand(own.Args):
		return nil, ErrNoAttach
	case e.Attach:
		p.Args = []string{insideShim, shimAttach, insideSocket}
	case holdsSecrets(own.Args):
		if err := lookInside(pid, e.Args[0], p.Cwd, slices.Concat(p.Env, r.secretEnvOf(id))); err != nil {
			return nil, err
		}
		p.Args = withSecrets(e.Args)
	}
	return &p, nil
}

// attend serves a command that was started until it ends, and gives its exit code.
func (r *Runtime) attend(ctx context.Context, id string, proc client.Process, exited <-chan client.ExitStatus, inputEnded <-chan struct{}, resize <-chan Size) (int, error) {
	for {
		select {
		case <-inputEnded:
			inputEnded = nil
			if err := proc.CloseIO(ctx, client.WithStdinCloser); err != nil && !errdefs.IsNotFound(err) {
				r.log.Debug("cannot close the input of a command", "id", id, "err", err)
			}
		case size, ok := <-resize:
			if !ok {
				resize = nil
				continue
			}
			if err := proc.Resize(ctx, uint32(size.Width), uint32(size.Height)); err != nil {
				r.log.Debug("cannot resize the terminal of a command", "id", id, "err", err)
			}
		case st := <-exited:
			if ctx.Err() != nil {
				return -1, ctx.Err()
			}
			if st.Error() != nil {
				return -1, st.Error()
			}
			drain(ctx, proc.IO())
			return int(st.ExitCode()), nil
		case <-ctx.Done():
			clean, cancel := r.cleanup(ctx)
			defer cancel()
			if err := proc.Kill(clean, unix.SIGKILL); err != nil && !errdefs.IsNotFound(err) {
				r.log.Warn("cannot kill a command whose caller is gone", "id", id, "err", err)
			}
			return -1, ctx.Err()
		}
	}
}

// drain waits for the last output, but not for processes that the command left
// behind with its output open.
func drain(ctx context.Context, streams cio.IO) {
	done := make(chan struct{})
	go func() { streams.Wait(); close(done) }()
	limit := time.NewTimer(drainTimeout)
	defer limit.Stop()
	select {
	case <-done:
		return
	case <-ctx.Done():
	case <-limit.C:
	}
	streams.Cancel()
	<-done
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// eofReader tells when its reader has ended.
type eofReader struct {
	r     io.Reader
	once  sync.Once
	ended chan struct{}
}

func (e *eofReader) Read(b []byte) (int, error) {
	n, err := e.r.Read(b)
	if err != nil {
		// n bytes may come with it; they are copied before the close is
		// carried out, as the copying goroutine reads once more first.
		if n > 0 {
			return n, nil
		}
		e.once.Do(func() { close(e.ended) })
	}
	return n, err
}
