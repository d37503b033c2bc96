package session

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"

	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// relayLook is how often a stream whose frames nobody takes is looked at. Its end
// lies behind them: without a look, a command that reads no input would outlive
// its user.
const relayLook = time.Second

// relay opens the stream that was asked for and has it served.
func (o *oneSession) relay(open *orchv1.OpenRelay) {
	ctx, cancel := context.WithCancel(o.ctx)
	defer cancel()
	stream, err := o.client.Relay(ctx)
	if err == nil {
		err = stream.Send(&orchv1.Frame{Frame: &orchv1.Frame_OpenId{OpenId: open.GetId()}})
	}
	if err != nil {
		o.s.cfg.Logger.Warn("cannot open a relay", "relay", open.GetId(), "err", err)
		return
	}
	r := &relayed{stream: stream, frames: make(chan *orchv1.Frame), over: make(chan struct{})}
	o.work.Go(func() {
		defer cancel() // whoever asked is gone
		r.pump()
	})
	o.s.cfg.Handler.Relay(ctx, open, r)
	if r.closeSend() != nil {
		return
	}
	// The last frames are on their way until the other side ends the stream.
	farewell := time.NewTimer(farewellMax)
	defer farewell.Stop()
	for {
		select {
		case <-r.frames:
		case <-r.over:
			return
		case <-farewell.C:
			return
		}
	}
}

// relayed is a stream with one reader, which notices its end even while nobody
// asks for frames.
type relayed struct {
	stream grpc.BidiStreamingClient[orchv1.Frame, orchv1.Frame]
	frames chan *orchv1.Frame
	over   chan struct{}
	err    error // set before over is closed

	sending sync.Mutex
	closed  bool // nothing more is sent
}

func (r *relayed) Send(f *orchv1.Frame) error {
	r.sending.Lock()
	defer r.sending.Unlock()
	return r.stream.Send(f)
}

func (r *relayed) closeSend() error {
	r.sending.Lock()
	defer r.sending.Unlock()
	r.closed = true
	return r.stream.CloseSend()
}

// look sends a frame without content, which means nothing to anybody, and gives
// an error where the stream has ended.
func (r *relayed) look() error {
	r.sending.Lock()
	defer r.sending.Unlock()
	if r.closed {
		return nil
	}
	return r.stream.Send(&orchv1.Frame{})
}

func (r *relayed) Recv() (*orchv1.Frame, error) {
	select {
	case f := <-r.frames:
		return f, nil
	case <-r.over:
		return nil, r.err
	}
}

func (r *relayed) pump() {
	defer close(r.over)
	for {
		f, err := r.stream.Recv()
		if err != nil {
			r.err = err
			return
		}
		if r.err = r.hand(f); r.err != nil {
			return
		}
	}
}

// hand waits until the frame is taken, or the stream has ended.
func (r *relayed) hand(f *orchv1.Frame) error {
	tick := time.NewTicker(relayLook)
	defer tick.Stop()
	for {
		select {
		case r.frames <- f:
			return nil
		case <-r.stream.Context().Done():
			return r.stream.Context().Err()
		case <-tick.C:
			if err := r.look(); err != nil {
				return err
			}
		}
	}
}
