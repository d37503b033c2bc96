package session

import (
	"context"
	"time"

	"google.golang.org/grpc"

	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

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
	if stream.CloseSend() != nil {
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
}

func (r *relayed) Send(f *orchv1.Frame) error { return r.stream.Send(f) }

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
		select {
		case r.frames <- f:
		case <-r.stream.Context().Done():
			r.err = r.stream.Context().Err()
			return
		}
	}
}
