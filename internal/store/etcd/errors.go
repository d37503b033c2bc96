package etcd

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/internal/store"
)

// code is the gRPC code of an error of etcd's client, which has types of its own.
func code(err error) codes.Code {
	var e rpctypes.EtcdError
	switch {
	case errors.As(err, &e):
		return e.Code()
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	}
	return status.Code(err)
}

// txnError says what a failed transaction means. Only errors that etcd raises
// before it proposes the write count as refused; everything else is unknown.
func txnError(err error) error {
	switch {
	case errors.Is(err, rpctypes.ErrNoSpace):
		// Raised before the proposal, or after the write that crossed the quota
		// was applied all the same. The two look alike.
		return fmt.Errorf("%w, %w: %w", store.ErrNoSpace, store.ErrUnknown, err)
	case errors.Is(err, rpctypes.ErrTooManyOps), errors.Is(err, rpctypes.ErrRequestTooLarge):
		return fmt.Errorf("%w: %w", store.ErrTooLarge, err)
	case errors.Is(err, rpctypes.ErrTooManyRequests):
		return err
	}
	switch code(err) {
	case codes.InvalidArgument:
		return fmt.Errorf("%w: %w", store.ErrInvalid, err)
	case codes.PermissionDenied, codes.Unauthenticated:
		return err
	}
	return fmt.Errorf("%w: %w", store.ErrUnknown, err)
}

func readError(err error) error {
	if errors.Is(err, rpctypes.ErrCompacted) {
		return fmt.Errorf("%w: %w", store.ErrCompacted, err)
	}
	return err
}

// retryable tells whether a read may succeed when asked again.
func retryable(err error) bool {
	switch code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted:
		return true
	}
	return false
}
