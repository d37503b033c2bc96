package ctrd

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestPlainly(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial unix /run/c.sock: connect: connection refused"`), "dial unix /run/c.sock: connect: connection refused"},
		{fmt.Errorf("version: %w", status.Error(codes.DeadlineExceeded, "context deadline exceeded")), "version: rpc error: code = DeadlineExceeded desc = context deadline exceeded"},
		{status.Error(codes.Internal, "disk is full"), "disk is full"},
		{context.DeadlineExceeded, "context deadline exceeded"},
		{errors.New("closed"), "closed"},
	} {
		if got := plainly(c.err); got != c.want {
			t.Errorf("plainly(%v) = %q, want %q", c.err, got, c.want)
		}
	}
}
