package api

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

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
	orchv1.Orch_NetCheck_FullMethodName: role(pki.Viewer),
	orchv1.Orch_Usage_FullMethodName:    role(pki.Viewer),

	orchv1.Orch_Apply_FullMethodName:       role(pki.Operator),
	orchv1.Orch_Scale_FullMethodName:       role(pki.Operator),
	orchv1.Orch_Delete_FullMethodName:      role(pki.Operator),
	orchv1.Orch_Exec_FullMethodName:        role(pki.Operator),
	orchv1.Orch_LoadImage_FullMethodName:   role(pki.Operator),
	orchv1.Orch_PortForward_FullMethodName: role(pki.Operator), // it reaches what is not published
	orchv1.Orch_Rebalance_FullMethodName:   role(pki.Operator),
	orchv1.Orch_Rollout_FullMethodName:     role(pki.Operator),
	orchv1.Orch_NodeWord_FullMethodName:    role(pki.Operator), // the words "dead", "remove" and "thaw" need more; see NodeWord

	orchv1.Orch_CreateToken_FullMethodName: role(pki.Admin),
	orchv1.Orch_ListTokens_FullMethodName:  role(pki.Admin),
	orchv1.Orch_RevokeToken_FullMethodName: role(pki.Admin),

	orchv1.Orch_RotateSecretKey_FullMethodName: role(pki.Admin),

	orchv1.Agents_Join_FullMethodName:    {anyone: true}, // the token is the proof
	orchv1.Agents_Renew_FullMethodName:   {anyone: true}, // the key is the proof
	orchv1.Agents_Session_FullMethodName: {node: true},
	orchv1.Agents_Relay_FullMethodName:   {node: true},
}

// Gate decides on every call before anything of its body is read, so that a
// stranger cannot make the controller hold much.
type Gate struct{ strangers atomic.Int64 }

// Admit is a tap.ServerInHandle.
func (g *Gate) Admit(ctx context.Context, info *tap.Info) (context.Context, error) {
	caller, err := identity.CallerOf(ctx)
	if err != nil && !errors.Is(err, pki.ErrNoCertificate) {
		return ctx, status.Error(codes.Unauthenticated, err.Error())
	}
	if err := check(info.FullMethodName, caller.Identity); err != nil {
		return ctx, err
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
