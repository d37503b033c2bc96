package api

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/orchctl/orch/internal/controller/identity"
	"github.com/orchctl/orch/internal/pki"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

const (
	// strangersMax is how many calls without a certificate may be under way: each
	// can make the controller hold one message of MessageMax.
	strangersMax = 32
	// strangerTimeout ends a call without a certificate that dawdles.
	strangerTimeout = 10 * time.Second
)

// rule says who may make a call.
type rule struct {
	anyone bool // a certificate is not needed
	node   bool
	role   pki.Role // of users
}

func role(r pki.Role) rule { return rule{role: r} }

// rules has every method; what is not here is refused.
var rules = map[string]rule{
	orchv1.Orch_Get_FullMethodName:     role(pki.Viewer),
	orchv1.Orch_List_FullMethodName:    role(pki.Viewer),
	orchv1.Orch_Watch_FullMethodName:   role(pki.Viewer),
	orchv1.Orch_Explain_FullMethodName: role(pki.Viewer),
	orchv1.Orch_Logs_FullMethodName:    role(pki.Viewer),
	orchv1.Orch_Version_FullMethodName: role(pki.Viewer),
	// It reads only; the packets that it makes nodes send are few and their own.
	orchv1.Orch_NetCheck_FullMethodName:   role(pki.Viewer),
	orchv1.Orch_Usage_FullMethodName:      role(pki.Viewer),
	orchv1.Orch_ListImages_FullMethodName: role(pki.Viewer),

	orchv1.Orch_Apply_FullMethodName:       role(pki.Operator),
	orchv1.Orch_Scale_FullMethodName:       role(pki.Operator),
	orchv1.Orch_Delete_FullMethodName:      role(pki.Operator),
	orchv1.Orch_Exec_FullMethodName:        role(pki.Operator),
	orchv1.Orch_LoadImage_FullMethodName:   role(pki.Operator),
	orchv1.Orch_RemoveImage_FullMethodName: role(pki.Operator),
	orchv1.Orch_PullImage_FullMethodName:   role(pki.Operator),
	orchv1.Orch_PortForward_FullMethodName: role(pki.Operator), // it reaches what is not published
	orchv1.Orch_Rebalance_FullMethodName:   role(pki.Operator),
	orchv1.Orch_Rollout_FullMethodName:     role(pki.Operator),
	orchv1.Orch_NodeWord_FullMethodName:    role(pki.Operator), // the words "dead", "remove" and "thaw" need more; see NodeWord

	orchv1.Orch_CreateToken_FullMethodName: role(pki.Admin),
	orchv1.Orch_ListTokens_FullMethodName:  role(pki.Admin),
	orchv1.Orch_RevokeToken_FullMethodName: role(pki.Admin),

	orchv1.Orch_CreateUser_FullMethodName:      role(pki.Admin),
	orchv1.Orch_ListUsers_FullMethodName:       role(pki.Admin),
	orchv1.Orch_RemoveUser_FullMethodName:      role(pki.Admin),
	orchv1.Orch_ListAuthorities_FullMethodName: role(pki.Admin),
	orchv1.Orch_RotateAuthority_FullMethodName: role(pki.Admin),
	orchv1.Orch_RetireAuthority_FullMethodName: role(pki.Admin),
	orchv1.Orch_RotateGossipKey_FullMethodName: role(pki.Admin),
	orchv1.Orch_RotateSecretKey_FullMethodName: role(pki.Admin),
	orchv1.Orch_Backup_FullMethodName:          role(pki.Admin), // it holds everything

	orchv1.Agents_Join_FullMethodName:    {anyone: true}, // the token is the proof
	orchv1.Agents_Renew_FullMethodName:   {anyone: true}, // the key is the proof
	orchv1.Agents_Session_FullMethodName: {node: true},
	orchv1.Agents_Relay_FullMethodName:   {node: true},
}

// Users judges users; see identity.Authority.
type Users interface {
	Admit(id pki.Identity, cert *x509.Certificate) error
	Hold(id pki.Identity, cert *x509.Certificate, end func(error)) (release func())
}

// Gate decides on every call before anything of its body is read, so that a
// stranger cannot make the controller hold much. A user's call ends with the user, and
// with the certificate. A node's does not: its name is bound to its key, which it proved
// when it connected, and a session that lives is not cut because a certificate ended
// that the node may renew.
type Gate struct {
	Users     Users
	strangers atomic.Int64
}

// Admit is a tap.ServerInHandle.
func (g *Gate) Admit(ctx context.Context, info *tap.Info) (context.Context, error) {
	caller, err := identity.CallerOf(ctx)
	if err != nil && !errors.Is(err, pki.ErrNoCertificate) {
		return ctx, status.Error(codes.Unauthenticated, err.Error())
	}
	if err := check(info.FullMethodName, caller.Identity); err != nil {
		return ctx, err
	}
	if caller.Kind == pki.User {
		return g.hold(ctx, caller)
	}
	if caller.Kind != "" {
		return ctx, nil
	}
	if g.strangers.Add(1) > strangersMax {
		g.strangers.Add(-1)
		return ctx, status.Error(codes.ResourceExhausted, "too many calls without a certificate at once; try again in a second")
	}
	ctx, cancel := context.WithTimeout(ctx, strangerTimeout)
	context.AfterFunc(ctx, func() {
		cancel()
		g.strangers.Add(-1)
	})
	return ctx, nil
}

// hold lets a user's call in for as long as the user may come in.
func (g *Gate) hold(ctx context.Context, c identity.Caller) (context.Context, error) {
	over := status.Error(codes.Unauthenticated, fmt.Sprintf("%s: the certificate has expired while the call was under way: get a new one from an admin", c.Identity))
	held, done := context.WithDeadlineCause(ctx, c.Certificate.NotAfter, over)
	held, end := context.WithCancelCause(held)
	release := g.Users.Hold(c.Identity, c.Certificate, func(err error) { end(userError(err)) })
	context.AfterFunc(held, func() {
		release()
		done()
	})
	if err := g.Users.Admit(c.Identity, c.Certificate); err != nil { // after Hold: nobody slips through in between
		end(err)
		return ctx, userError(err)
	}
	return held, nil
}

// userError gives the code by which orchctl knows that the certificate is to blame.
func userError(err error) error {
	if errors.Is(err, identity.ErrRefused) {
		return status.Error(codes.Unauthenticated, err.Error())
	}
	return statusOf(err)
}

// Stream is a grpc.StreamServerInterceptor: a stream that the gate ended says why.
func (g *Gate) Stream(srv any, st grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	err := handle(srv, st)
	if why, ok := status.FromError(context.Cause(st.Context())); ok && why.Code() == codes.Unauthenticated {
		return why.Err()
	}
	return err
}

// check applies the method's rule; the zero identity is somebody without a
// certificate.
func check(method string, who pki.Identity) error {
	r, known := rules[method]
	switch {
	case !known:
		return status.Error(codes.Unimplemented, fmt.Sprintf("unknown method %s", method))
	case r.anyone:
		return nil
	case who.Kind == "":
		return status.Error(codes.Unauthenticated, "a client certificate of this cluster is needed; is the context file the right one?")
	case r.node && who.Kind == pki.Node, !r.node && who.Kind == pki.User && who.Role.Allows(r.role):
		return nil
	case r.node:
		return status.Error(codes.PermissionDenied, fmt.Sprintf("%s may not do this: it is for nodes", who))
	}
	return status.Error(codes.PermissionDenied, fmt.Sprintf("%s may not do this: it needs a user with the role %s", who, r.role))
}
