package api

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// backupChunk is the size of one message of a backup, in bytes: gRPC takes 4 MiB at most.
const backupChunk = 256 << 10

// Backup implements orch.v1.Orch.
func (s *Server) Backup(_ *orchv1.BackupRequest, st orchv1.Orch_BackupServer) error {
	n, err := s.cfg.Backup(st.Context(), chunks{st})
	if st.Context().Err() != nil {
		return status.FromContextError(st.Context().Err()).Err()
	}
	if err != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	s.cfg.Log.Info("backed up", "bytes", n, "by", callerName(st.Context()))
	return nil
}

// chunks writes a stream of messages.
type chunks struct{ stream orchv1.Orch_BackupServer }

// Write implements io.Writer.
func (c chunks) Write(b []byte) (int, error) {
	sent := 0
	for sent < len(b) {
		part := b[sent:min(len(b), sent+backupChunk)]
		if err := c.stream.Send(&orchv1.BackupChunk{Data: part}); err != nil {
			return sent, err
		}
		sent += len(part)
	}
	return sent, nil
}
