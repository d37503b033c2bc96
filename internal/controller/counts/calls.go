package counts

import (
	"context"
	"errors"
	"io"
	"path"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
)

// unknownMethod stands for all that this controller does not serve: their names are a
// stranger's to choose, and each would be a series.
const unknownMethod = "unknown"

var methods = func() map[string]bool {
	out := map[string]bool{}
	for _, d := range services {
		for _, m := range d.Methods {
			out["/"+d.ServiceName+"/"+m.MethodName] = true
		}
		for _, m := range d.Streams {
			out["/"+d.ServiceName+"/"+m.StreamName] = true
		}
	}
	return out
}()

func methodOf(full string) string {
	if methods[full] {
		return path.Base(full)
	}
	return unknownMethod
}

func codeOf(err error) string {
	if errors.Is(err, io.EOF) {
		err = nil // the other side has ended the stream in order
	}
	if errors.Is(err, context.Canceled) {
		return codes.Canceled.String()
	}
	return status.Code(err).String()
}

// Gate counts what a gate refuses before anything of a call is read.
func (s *Set) Gate(admit tap.ServerInHandle) tap.ServerInHandle {
	if s == nil {
		return admit
	}
	return func(ctx context.Context, info *tap.Info) (context.Context, error) {
		ctx, err := admit(ctx, info)
		if err != nil {
			s.requests.WithLabelValues(methodOf(info.FullMethodName), codeOf(err)).Inc()
		}
		return ctx, err
	}
}

// Unary counts calls; it is a grpc.UnaryServerInterceptor.
func (s *Set) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if s == nil {
		return handle(ctx, req)
	}
	began := time.Now()
	answer, err := handle(ctx, req)
	method := methodOf(info.FullMethod)
	s.calls.WithLabelValues(method).Observe(time.Since(began).Seconds())
	s.requests.WithLabelValues(method, codeOf(err)).Inc()
	return answer, err
}

// Stream counts streams; it is a grpc.StreamServerInterceptor.
func (s *Set) Stream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	if s == nil {
		return handle(server, stream)
	}
	method := methodOf(info.FullMethod)
	open := s.streams.WithLabelValues(method)
	open.Inc()
	defer open.Dec()
	err := handle(server, stream)
	s.requests.WithLabelValues(method, codeOf(err)).Inc()
	return err
}
