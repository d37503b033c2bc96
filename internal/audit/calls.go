package audit

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/orchctl/orch/internal/controller/identity"
)

// Tap puts refusals of the gate into the log: they never get as far as an interceptor.
func (l *Log) Tap(gate tap.ServerInHandle) tap.ServerInHandle {
	return func(ctx context.Context, info *tap.Info) (context.Context, error) {
		began := l.cfg.Now()
		admitted, err := gate(ctx, info)
		if err != nil {
			c := l.begin(ctx, info.FullMethodName, began)
			l.finish(c, err)
		}
		return admitted, err
	}
}

// Unary is a grpc.UnaryServerInterceptor.
func (l *Log) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	c := l.begin(ctx, info.FullMethod, l.cfg.Now())
	c.asked(req)
	if err := l.announce(c); err != nil {
		return nil, err
	}
	answer, err := handle(context.WithValue(ctx, callKey{}, c), req)
	if err == nil {
		c.told(answer)
	}
	l.finish(c, err)
	return answer, err
}

// Stream is a grpc.StreamServerInterceptor.
func (l *Log) Stream(srv any, st grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	c := l.begin(st.Context(), info.FullMethod, l.cfg.Now())
	if c.method.kind != change {
		err := handle(srv, st) // a node's session is not slowed down by looking at it
		l.finish(c, err)
		return err
	}
	err := handle(srv, &stream{ServerStream: st, log: l, call: c, ctx: context.WithValue(st.Context(), callKey{}, c)})
	l.finish(c, err)
	return err
}

// stream looks at the first message of a call, and at what it is told.
type stream struct {
	grpc.ServerStream
	log  *Log
	call *call
	ctx  context.Context

	first sync.Once
}

func (s *stream) Context() context.Context { return s.ctx }

func (s *stream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	var err error
	s.first.Do(func() {
		s.call.asked(m)
		err = s.log.announce(s.call)
	})
	return err
}

func (s *stream) SendMsg(m any) error {
	err := s.ServerStream.SendMsg(m)
	if err == nil {
		s.call.told(m)
	}
	return err
}

type callKey struct{}

// Note adds to the detail of the call's line what only its handler knows. Outside
// of a call it does nothing.
func Note(ctx context.Context, format string, args ...any) {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.notes = append(c.notes, fmt.Sprintf(format, args...))
	}
}

// call is one call on its way to a line.
type call struct {
	method method
	line   Line
	dry    bool // it asks what would be, and changes nothing

	mu    sync.Mutex // messages of a stream come and go at once
	notes []string
	heard *answers
}

func (l *Log) begin(ctx context.Context, name string, now time.Time) *call {
	c := &call{method: methodOf(name), line: Line{Time: now, Method: strings.TrimPrefix(name, "/")}}
	if id, err := identity.CallerOf(ctx); err == nil {
		c.line.Who = Who{Kind: string(id.Kind), Name: id.Name, Role: string(id.Role)}
	}
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		c.line.From = p.Addr.String()
		if p.Addr.Network() == "unix" {
			c.line.From = "socket"
		}
	}
	return c
}

func (c *call) asked(m any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.method.asked != nil {
		r := c.method.asked(m)
		c.line.Objects, c.line.Detail, c.line.RequestID, c.dry = r.objects, r.detail, r.id, r.dry
	}
}

func (c *call) told(m any) {
	if c.method.told == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.heard == nil {
		c.heard = &answers{}
	}
	c.method.told(m, c.heard)
}

// announce writes a line of what begins, where that is wanted: of calls that may go
// on for hours, and of all changes where the log must not miss one.
func (l *Log) announce(c *call) error {
	if l.out == nil || c.method.kind != change || c.dry || !(c.method.long || l.cfg.Required) {
		return nil
	}
	c.line.Call = rand.Text()[:8]
	x := c.line
	x.Outcome, x.Objects = Begun, capped(x.Objects)
	if err := l.Write(x); err != nil && l.cfg.Required {
		return status.Error(codes.Unavailable, fmt.Sprintf("%v: nothing is changed while what is changed cannot be written down (--audit-required): make room there", err))
	}
	return nil
}

// finish writes the line of what is over, if it has one.
func (l *Log) finish(c *call, err error) {
	if l.out == nil {
		return
	}
	st := statusOf(err)
	forbidden := st.Code() == codes.PermissionDenied || st.Code() == codes.Unauthenticated
	if !forbidden && (c.method.kind != change || c.dry) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.line
	x.Outcome, x.TookMS = outcomeOf(st.Code()), l.cfg.Now().Sub(x.Time).Milliseconds()
	if st.Code() != codes.OK {
		x.Code, x.Message = st.Code().String(), st.Message()
	}
	details := append([]string{x.Detail}, c.notes...)
	if c.heard != nil {
		x.Objects = append(x.Objects, c.heard.objects...)
		details = append(details, c.heard.words())
	}
	x.Detail = joined(details)
	x.Objects = capped(x.Objects)
	x.Retry = l.requests.again(x.Who, x.RequestID)
	if x.Who.Kind != "user" || forbidden { // a viewer, or who was one, must not push the rest out either
		ok, leftOut := l.noise.admit(sourceOf(x), l.cfg.Now())
		if !ok {
			return
		}
		x.LeftOut = leftOut
	}
	_ = l.Write(x) // it was told already; what was done is done
}

// sourceOf is whose noise a line is: a user's, a node's, or a host's.
func sourceOf(x Line) string {
	if x.Who.Kind != "" {
		return x.Who.Kind + " " + x.Who.Name
	}
	host, _, err := net.SplitHostPort(x.From)
	if err != nil {
		return x.From
	}
	return host
}

// statusOf gives an error the code that the caller is told.
func statusOf(err error) *status.Status {
	if st, ok := status.FromError(err); ok {
		return st
	}
	return status.FromContextError(err)
}

func joined(parts []string) string {
	kept := parts[:0:0]
	for _, p := range parts {
		if p != "" {
			kept = append(kept, p)
		}
	}
	return strings.Join(kept, "; ")
}

func capped(objects []string) []string {
	if n := len(objects); n > objectsMax {
		return append(objects[:objectsMax:objectsMax], fmt.Sprintf("and %d more", n-objectsMax))
	}
	return objects
}
