package api

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/identity"
	"github.com/orchctl/orch/internal/controller/session"
)

// errorDomain marks the reasons in error details as orch's.
const errorDomain = "orch"

// reasons tell apart what shares a code: ErrorInfo.reason in the details.
var reasons = []struct {
	err    error
	code   codes.Code
	reason string
}{
	{core.ErrNotFound, codes.NotFound, "NOT_FOUND"},
	{core.ErrChanged, codes.FailedPrecondition, "CHANGED"},
	{core.ErrBusy, codes.FailedPrecondition, "BUSY"},
	{core.ErrInvalid, codes.InvalidArgument, "INVALID"},
	{identity.ErrNotLeading, codes.Unavailable, "NO_LEADER"},
	{identity.ErrExists, codes.AlreadyExists, "EXISTS"},
	{identity.ErrUnknown, codes.NotFound, "NOT_FOUND"},
	{identity.ErrInvalid, codes.InvalidArgument, "INVALID"},
	{identity.ErrRefused, codes.FailedPrecondition, "REFUSED"},
	{session.ErrAway, codes.Unavailable, "NODE_AWAY"},
	{context.Canceled, codes.Canceled, "CANCELED"},
	{context.DeadlineExceeded, codes.DeadlineExceeded, "TIMEOUT"},
}

// statusOf gives an error its code. What has one keeps it.
func statusOf(err error) error {
	if err == nil {
		return nil
	}
	if st, ok := status.FromError(err); ok {
		return st.Err()
	}
	var wrong api.Violations
	if errors.As(err, &wrong) { // what the leader finds wrong with fields
		return violations(wrong)
	}
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			st := status.New(r.code, err.Error())
			if with, derr := st.WithDetails(&errdetails.ErrorInfo{Reason: r.reason, Domain: errorDomain}); derr == nil {
				st = with
			}
			return st.Err()
		}
	}
	return status.Error(codes.Internal, err.Error())
}

func invalid(format string, args ...any) error {
	return status.Error(codes.InvalidArgument, fmt.Sprintf(format, args...))
}

func notFound(format string, args ...any) error {
	return status.Error(codes.NotFound, fmt.Sprintf(format, args...))
}

// violations is InvalidArgument with every field that is wrong.
func violations(list api.Violations) error {
	st := status.New(codes.InvalidArgument, list.Error())
	bad := &errdetails.BadRequest{}
	for _, v := range list {
		bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: v.Path, Description: v.Message})
	}
	if with, err := st.WithDetails(bad); err == nil {
		st = with
	}
	return st.Err()
}
