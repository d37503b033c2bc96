package api

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/view"
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
	switch {
	case ask.GetAttach() && len(ask.GetCommand()) > 0:
		return invalid("attach: the container has its command already: give none")
	case !ask.GetAttach() && len(ask.GetCommand()) == 0:
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
	container := ask.GetContainer()
	if ask.GetAttach() {
		if container, err = attachable(snap, x, container); err != nil {
			return err
		}
	}
	if err := s.mayExec(st.Context(), x, container); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(st.Context())
	defer cancel() // ends the relay
	key := keyOfReplica(x)
	r, err := s.open(ctx, x.Spec.Node, &orchv1.OpenRelay{Request: &orchv1.OpenRelay_Exec{Exec: &orchv1.ExecOpen{
		Replica: wire.KeyToPB(key), Container: container, Command: ask.GetCommand(), Tty: ask.GetTty(), Stdin: ask.GetStdin(), Attach: ask.GetAttach(),
		Width: ask.GetWidth(), Height: ask.GetHeight()}}})
	if err != nil {
		return statusOf(err)
	}
	defer r.Close()
	what := "exec"
	if ask.GetAttach() {
		what = "attach"
	}
	s.cfg.Log.Info(what, "replica", key.String(), "by", callerName(ctx))
	// It may stay in a Recv until this has returned and the stream's context ends.
	go upstream(st, r)
	return downstream(st, r, x.Spec.Node, what)
}

// attachable gives the container of the replica that waits for somebody's input: the one
// that is named, or the only one there is.
func attachable(snap *view.Snapshot, x *api.Replica, named string) (string, error) {
	key := keyOf(x.Metadata.Namespace, x.Spec.Service)
	o, ok := declared(snap, key)
	if !ok {
		return "", notFound("attach to replica %s: there is no service or job %s any more", x.Metadata.Name, key)
	}
	for _, c := range templateOf(o).Containers {
		if c.Stdin && (named == "" || named == c.Name) {
			return c.Name, nil
		}
	}
	if named != "" {
		return "", status.Error(codes.FailedPrecondition, fmt.Sprintf("attach to replica %s: container %s does not take input: its manifest does not say stdin: true", x.Metadata.Name, named))
	}
	return "", status.Error(codes.FailedPrecondition, fmt.Sprintf("attach to replica %s: no container takes input: none says stdin: true in its manifest; to run a command in one, use exec", x.Metadata.Name))
}
