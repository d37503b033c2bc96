package api

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

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
	ask := first.GetExec()
	if ask == nil {
		return invalid("the first frame of an exec is its request")
	}
	if len(ask.GetCommand()) == 0 {
		return invalid("exec: no command is given")
	}
	snap, err := s.snapshot()
	if err != nil {
		return err
	}
	x, err := resolve(snap, ask.GetNamespace(), ask.GetReplica())
	if err != nil {
		return err
	}
	if x.Spec.Node == "" || x.Status.Phase.Ended() {
		return status.Error(codes.FailedPrecondition, fmt.Sprintf("replica %s does not run: %s %s", x.Metadata.Name, x.Status.Phase, x.Status.Message))
	}
	if err := s.mayExec(st.Context(), x, ask.GetContainer()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(st.Context())
	defer cancel() // ends the relay
	key := keyOfReplica(x)
	r, err := s.open(ctx, x.Spec.Node, &orchv1.OpenRelay{Request: &orchv1.OpenRelay_Exec{Exec: &orchv1.ExecOpen{
		Replica: wire.KeyToPB(key), Container: ask.GetContainer(), Command: ask.GetCommand(), Tty: ask.GetTty(), Stdin: ask.GetStdin(),
		Width: ask.GetWidth(), Height: ask.GetHeight()}}})
	if err != nil {
		return statusOf(err)
	}
	defer r.Close()
	s.cfg.Log.Info("exec", "replica", key.String(), "by", callerName(ctx))
	// It may stay in a Recv until this has returned and the stream's context ends.
	go upstream(st, r)
	return downstream(st, r, x.Spec.Node, "exec")
}
