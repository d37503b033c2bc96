package api

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/session"
	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// Exec implements orch.v1.Orch: frames go to and fro between the user and the
// agent until the agent says how it ended.
func (s *Server) Exec(st orchv1.Orch_ExecServer) error {
	first, err := st.Recv()
	if err != nil {
		return statusOf(err)
	}
	r := first.GetExec()
	if r == nil {
		return invalid("the first frame of an exec is its request")
	}
	if len(r.GetCommand()) == 0 {
		return invalid("exec: no command is given")
	}
	snap, err := s.snapshot()
	if err != nil {
		return err
	}
	x, err := resolve(snap, r.GetNamespace(), r.GetReplica())
	if err != nil {
		return err
	}
	if x.Spec.Node == "" || x.Status.Phase.Ended() {
		return status.Error(codes.FailedPrecondition, fmt.Sprintf("replica %s does not run: %s %s", x.Metadata.Name, x.Status.Phase, x.Status.Message))
	}
	ctx, cancel := context.WithCancel(st.Context())
	defer cancel() // ends the relay
	key := api.ReplicaKey{Namespace: x.Metadata.Namespace, Service: x.Spec.Service, Slot: x.Spec.Slot, Epoch: x.Spec.Epoch}
	relay, err := s.cfg.Nodes.Open(ctx, x.Spec.Node, &orchv1.OpenRelay{Request: &orchv1.OpenRelay_Exec{Exec: &orchv1.ExecOpen{
		Replica: wire.KeyToPB(key), Container: r.GetContainer(), Command: r.GetCommand(), Tty: r.GetTty(), Stdin: r.GetStdin(),
		Width: r.GetWidth(), Height: r.GetHeight()}}})
	if err != nil {
		return statusOf(err)
	}
	defer relay.Close()
	s.cfg.Log.Info("exec", "replica", key.String(), "by", callerName(ctx))
	// It may stay in a Recv until this has returned and the stream's context ends.
	go upstream(st, relay)
	return downstream(st, relay, x.Spec.Node)
}

// upstream passes on what a user may send, and ends the relay when the user goes.
func upstream(st orchv1.Orch_ExecServer, relay *session.Relay) {
	for {
		f, err := st.Recv()
		if errors.Is(err, io.EOF) {
			f, err = &orchv1.Frame{Frame: &orchv1.Frame_StdinClosed{StdinClosed: true}}, nil
			if relay.Send(f) != nil {
				relay.Close()
			}
			return
		}
		if err != nil {
			relay.Close()
			return
		}
		switch f.GetFrame().(type) {
		case *orchv1.Frame_Stdin, *orchv1.Frame_StdinClosed, *orchv1.Frame_Resize:
			if relay.Send(f) != nil {
				return // downstream learns why
			}
		}
	}
}

func downstream(st orchv1.Orch_ExecServer, relay *session.Relay, node string) error {
	for {
		f, err := relay.Recv()
		if err != nil {
			if st.Context().Err() != nil {
				return statusOf(st.Context().Err())
			}
			return status.Error(codes.Unavailable, fmt.Sprintf("node %s went away in the middle of the exec", node))
		}
		switch f.GetFrame().(type) {
		case *orchv1.Frame_Stdout, *orchv1.Frame_Stderr:
			if err := st.Send(f); err != nil {
				return err
			}
		case *orchv1.Frame_End:
			return st.Send(f)
		}
	}
}
