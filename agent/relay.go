package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/orchctl/orch/agent/ctrd"
	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/agent/session"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// resizesMax is how many sizes of a terminal may wait; older ones are of no use.
const resizesMax = 4

// Relay implements session.Handler: it serves logs, exec, images, what their names mean,
// port-forwards, checks of the network and what is used.
func (d *driver) Relay(ctx context.Context, open *orchv1.OpenRelay, r session.Relay) {
	var end *orchv1.End
	switch req := open.GetRequest().(type) {
	case *orchv1.OpenRelay_Logs:
		end = d.relayLogs(ctx, req.Logs, r)
	case *orchv1.OpenRelay_Exec:
		end = d.relayExec(ctx, req.Exec, r)
	case *orchv1.OpenRelay_Image:
		end = d.relayImage(ctx, r)
	case *orchv1.OpenRelay_PortForward:
		end = d.relayForward(ctx, req.PortForward, r)
	case *orchv1.OpenRelay_NetCheck:
		end = d.relayNetCheck(ctx, req.NetCheck, r)
	case *orchv1.OpenRelay_Resolve:
		end = d.relayResolve(ctx, req.Resolve, r)
	case *orchv1.OpenRelay_Images:
		end = d.relayImages(ctx, r)
	case *orchv1.OpenRelay_ImageRemove:
		end = d.relayImageRemove(ctx, req.ImageRemove, r)
	case *orchv1.OpenRelay_ImagePull:
		end = d.relayImagePull(ctx, req.ImagePull, r)
	case *orchv1.OpenRelay_Usage:
		end = d.relayUsage(ctx, req.Usage, r)
	default:
		end = &orchv1.End{ExitCode: -1, Error: "this node's agent does not know what was asked: it may be older than the controller"}
	}
	if err := r.Send(&orchv1.Frame{Frame: &orchv1.Frame_End{End: end}}); err != nil && ctx.Err() == nil {
		d.cfg.Logger.Debug("a relay's end was not heard", "relay", open.GetId(), "err", err)
	}
}

func failed(err error) *orchv1.End { return &orchv1.End{ExitCode: -1, Error: err.Error()} }

// ask runs f beside the plan, which only that goroutine may read.
func (d *driver) ask(ctx context.Context, f func(*plan.Core)) error {
	done := make(chan struct{})
	select {
	case d.inbox <- func() { f(d.core); close(done) }:
	case <-ctx.Done():
		return ctx.Err()
	case <-d.stopped:
		return errors.New("the agent ends")
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-d.stopped:
		return errors.New("the agent ends")
	}
}

// An agent that has just started, or has come to another cluster, does not know yet what runs
// on its node. Who asks then waits, observedMax at most: containerd may be down.
const (
	observedMax   = 5 * time.Second
	observedEvery = 20 * time.Millisecond
)

// observed waits until the plan knows what runs here.
func (d *driver) observed(ctx context.Context) error {
	tick := time.NewTicker(observedEvery)
	defer tick.Stop()
	over := time.NewTimer(observedMax)
	defer over.Stop()
	for {
		var known bool
		if err := d.ask(ctx, func(c *plan.Core) { known = c.Observed() }); err != nil || known {
			return err
		}
		select {
		case <-tick.C:
		case <-over.C:
			return fmt.Errorf("containerd has not told the agent for %s what runs here: say it again later, or look at containerd on this node", observedMax)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// tally counts what the plan holds.
func (d *driver) tally(ctx context.Context) (t plan.Tally, err error) {
	var now plan.Tally
	if err := d.ask(ctx, func(c *plan.Core) { now = c.Tally() }); err != nil {
		return plan.Tally{}, err // the plan may still be about to answer
	}
	return now, nil
}

// container finds what a user means: with an empty name, the replica's first.
func (d *driver) container(ctx context.Context, key api.ReplicaKey, name string) (plan.Found, error) {
	var found plan.Found
	var err error
	if e := d.ask(ctx, func(c *plan.Core) { found, err = c.Find(key, name) }); e != nil {
		return plan.Found{}, e // the plan may still be about to answer
	}
	return found, err
}

// attachable is container, but an empty name means the one that waits for an attach.
func (d *driver) attachable(ctx context.Context, key api.ReplicaKey, name string) (plan.Found, error) {
	if name == "" {
		if err := d.ask(ctx, func(c *plan.Core) { name = c.Stdin(key) }); err != nil {
			return plan.Found{}, err
		}
	}
	return d.container(ctx, key, name)
}

func (d *driver) relayExec(ctx context.Context, req *orchv1.ExecOpen, r session.Relay) *orchv1.End {
	find := d.container
	if req.GetAttach() {
		find = d.attachable
	}
	if err := d.observed(ctx); err != nil {
		return failed(err)
	}
	found, err := find(ctx, wire.KeyFromPB(req.GetReplica()), req.GetContainer())
	if err != nil {
		return failed(err)
	}
	if req.GetAttach() && !found.Stdin {
		return failed(fmt.Errorf("container %s takes no attach: its manifest does not say stdin", found.Name))
	}
	if !found.Running {
		return failed(fmt.Errorf("container %s does not run: %s", found.Name, found.Why))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resizes := make(chan ctrd.Size, resizesMax)
	if req.GetWidth() > 0 {
		resizes <- ctrd.Size{Width: uint16(req.GetWidth()), Height: uint16(req.GetHeight())}
	}
	in, feed := io.Pipe()
	defer in.Close()
	go func() {
		defer cancel()
		feedExec(r, feed, resizes)
	}()
	out := &frameWriter{r: r}
	spec := ctrd.ExecSpec{Args: req.GetCommand(), Attach: req.GetAttach(), TTY: req.GetTty(), Resize: resizes,
		Stdout: out.stream(func(b []byte) *orchv1.Frame { return &orchv1.Frame{Frame: &orchv1.Frame_Stdout{Stdout: b}} }),
		Stderr: out.stream(func(b []byte) *orchv1.Frame { return &orchv1.Frame{Frame: &orchv1.Frame_Stderr{Stderr: b}} })}
	if req.GetStdin() {
		spec.Stdin = in
	}
	code, err := d.cfg.Runtime.Exec(ctx, found.ContainerID, spec)
	if err != nil {
		return failed(err)
	}
	return &orchv1.End{ExitCode: int32(code)}
}

// feedExec hands what the user types to the command, until the stream ends.
func feedExec(r session.Relay, feed *io.PipeWriter, resizes chan ctrd.Size) {
	for {
		f, err := r.Recv()
		if err != nil {
			_ = feed.CloseWithError(io.EOF) // a pipe's close never fails
			return
		}
		switch x := f.GetFrame().(type) {
		case *orchv1.Frame_Stdin:
			_, _ = feed.Write(x.Stdin) // fails when the command ended: nobody reads on
		case *orchv1.Frame_StdinClosed:
			_ = feed.Close()
		case *orchv1.Frame_Resize:
			size := ctrd.Size{Width: uint16(x.Resize.GetWidth()), Height: uint16(x.Resize.GetHeight())}
			select {
			case resizes <- size:
			default:
			}
		}
	}
}

// frameWriter sends what several goroutines write.
type frameWriter struct {
	mu sync.Mutex
	r  session.Relay
}

type streamWriter struct {
	w    *frameWriter
	wrap func([]byte) *orchv1.Frame
}

func (w *frameWriter) stream(wrap func([]byte) *orchv1.Frame) io.Writer { return streamWriter{w, wrap} }

func (w *frameWriter) send(f *orchv1.Frame) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.r.Send(f)
}

func (s streamWriter) Write(p []byte) (int, error) {
	if err := s.w.send(s.wrap(slices.Clone(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (d *driver) relayImage(ctx context.Context, r session.Relay) *orchv1.End {
	archive, feed := io.Pipe()
	defer archive.Close()
	go feedImage(r, feed)
	refs, err := d.cfg.Runtime.ImportImage(ctx, archive)
	if err != nil {
		return failed(err)
	}
	d.fromSession(plan.ImagesChanged{})
	d.cfg.Logger.Info("image brought", "refs", refs)
	return &orchv1.End{Refs: refs}
}

func feedImage(r session.Relay, feed *io.PipeWriter) {
	for {
		f, err := r.Recv()
		switch {
		case err != nil:
			_ = feed.CloseWithError(fmt.Errorf("the archive broke off: %w", io.ErrUnexpectedEOF))
			return
		case f.GetDataEnd():
			_ = feed.Close()
			return
		}
		if _, err := feed.Write(f.GetData()); err != nil {
			return // the import ended and says why
		}
	}
}
