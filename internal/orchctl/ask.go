package orchctl

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

const (
	// readPatience is how long a read is repeated while there is no leader: an
	// election takes about a second. A change is repeated for all of
	// --request-timeout.
	readPatience = 5 * time.Second
	// streamPatience is how long a watch may be without a controller.
	streamPatience = 30 * time.Second
	// backOffMin and backOffMax bound the wait between two tries.
	backOffMin, backOffMax = 100 * time.Millisecond, time.Second

	viewer, operator, admin = "viewer", "operator or admin", "admin"
)

// connect dials the cluster. A change waits for a controller that restarts; a
// read fails at once.
func (t *tool) connect(ctx context.Context, doing string, change bool) (orchv1.OrchClient, error) {
	c, err := t.useCluster()
	if err != nil {
		return nil, err
	}
	t.warnOfExpiry(c)
	patience := time.Duration(0)
	if change {
		patience = t.timeout
	}
	var conn grpc.ClientConnInterface
	err = t.repeat(ctx, patience, func(ctx context.Context) (err error) {
		var closeConn func() error
		conn, closeConn, err = c.Dial(ctx)
		if err == nil {
			t.close = append(t.close, closeConn)
		}
		return err
	})
	if err != nil {
		return nil, &callError{doing: doing, cluster: c, err: err}
	}
	return orchv1.NewOrchClient(conn), nil
}

// limited bounds one request by --request-timeout.
func (t *tool) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	if t.timeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, t.timeout)
}

// repeat calls f until it answers anything but "no controller now", the time is
// over, or ctx ends. Patience 0 means once.
func (t *tool) repeat(ctx context.Context, patience time.Duration, f func(context.Context) error) error {
	ctx, cancel := t.limited(ctx)
	defer cancel()
	began, wait, told := t.Now(), backOffMin, false
	for {
		err := f(ctx)
		if err == nil || !transient(err) || patience <= 0 || t.Now().Sub(began)+wait > patience {
			return err
		}
		if !told && t.Now().Sub(began) > time.Second {
			t.warnf("no leader answers; trying again (%s)", cleanText(messageOf(err)))
			told = true
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return err
		case <-time.After(wait):
		}
		wait = min(2*wait, backOffMax)
	}
}

// read asks for something and changes nothing.
func read[T any](ctx context.Context, t *tool, doing, need string, f func(context.Context) (T, error)) (T, error) {
	return ask(ctx, t, doing, need, readPatience, f)
}

// change asks for a change; f must send the same request id each time.
func change[T any](ctx context.Context, t *tool, doing, need string, f func(context.Context) (T, error)) (T, error) {
	patience := t.timeout
	if patience <= 0 {
		patience = streamPatience
	}
	return ask(ctx, t, doing, need, patience, f)
}

func ask[T any](ctx context.Context, t *tool, doing, need string, patience time.Duration, f func(context.Context) (T, error)) (T, error) {
	var answer T
	err := t.repeat(ctx, patience, func(ctx context.Context) (err error) {
		answer, err = f(ctx)
		return err
	})
	return answer, t.failed(err, doing, need)
}

// failed says what was being done; nil stays nil.
func (t *tool) failed(err error, doing, need string) error {
	if err == nil {
		return nil
	}
	return &callError{doing: doing, need: need, cluster: t.cluster, err: err}
}

// transient tells whether a later try may succeed: no leader, or no connection.
func transient(err error) bool {
	if status.Code(err) == codes.Unavailable {
		return true
	}
	var op *net.OpError
	return errors.As(err, &op) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

func messageOf(err error) string {
	if s, ok := status.FromError(err); ok {
		return s.Message()
	}
	return err.Error()
}
