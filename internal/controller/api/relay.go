package api

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/internal/controller/session"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// relay is a stream to a node's agent; see session.Relay.
type relay interface {
	Send(*orchv1.Frame) error
	Recv() (*orchv1.Frame, error)
	Close()
}

// opener asks a node's agent for a relay. The error wraps session.ErrAway where
// the node has no session.
type opener func(ctx context.Context, node string, what *orchv1.OpenRelay) (relay, error)

func opensOn(nodes *session.Server) opener {
	return func(ctx context.Context, node string, what *orchv1.OpenRelay) (relay, error) {
		r, err := nodes.Open(ctx, node, what)
		if err != nil {
			return nil, err
		}
		return r, nil
	}
}

// duplex is a user's stream of frames.
type duplex interface {
	Send(*orchv1.Frame) error
	Recv() (*orchv1.Frame, error)
	Context() context.Context
}

// upstream passes on what a user may send, and ends the relay when the user goes.
func upstream(st duplex, r relay) {
	for {
		f, err := st.Recv()
		if errors.Is(err, io.EOF) {
			if r.Send(&orchv1.Frame{Frame: &orchv1.Frame_StdinClosed{StdinClosed: true}}) != nil {
				r.Close()
			}
			return
		}
		if err != nil {
			r.Close()
			return
		}
		switch f.GetFrame().(type) {
		case *orchv1.Frame_Stdin, *orchv1.Frame_StdinClosed, *orchv1.Frame_Resize:
			if r.Send(f) != nil {
				return // downstream learns why
			}
		}
	}
}

// downstream passes on what an agent may send, until it says how it ended.
func downstream(st duplex, r relay, node, what string) error {
	for {
		f, err := r.Recv()
		if err != nil {
			if st.Context().Err() != nil {
				return statusOf(st.Context().Err())
			}
			return status.Error(codes.Unavailable, fmt.Sprintf("node %s went away in the middle of the %s", node, what))
		}
		switch f.GetFrame().(type) {
		case *orchv1.Frame_Stdout, *orchv1.Frame_Stderr, *orchv1.Frame_DataEnd:
			if err := st.Send(f); err != nil {
				return err
			}
		case *orchv1.Frame_End:
			return st.Send(f)
		}
	}
}
