package api

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/counts"
	"github.com/orchctl/orch/internal/controller/identity"
	"github.com/orchctl/orch/internal/controller/images"
	"github.com/orchctl/orch/internal/controller/session"
	"github.com/orchctl/orch/internal/controller/view"
	"github.com/orchctl/orch/internal/pki"
	"github.com/orchctl/orch/internal/secrets"
	"github.com/orchctl/orch/internal/tracing"
	"github.com/orchctl/orch/internal/version"
	"github.com/orchctl/orch/scheduler"

	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// MessageMax is the largest message that the controller takes, in bytes: the
// documents of one apply share one transaction, which is below it.
const MessageMax = 5 << 20

// deletable are the kinds of what a user may delete.
var deletable = []string{api.KindService, api.KindJob, api.KindConfig, api.KindSecret, api.KindVolume}

// nameMax is longer than any namespace/name, in bytes: names that are missing are
// stored with a request's id.
const nameMax = 160

// requestIDMax bounds the id of a request, in bytes: it is stored with the
// change, beside what the transaction was measured for.
const requestIDMax = 128

func checkRequestID(id string) error {
	if len(id) > requestIDMax {
		return invalid("request id of %d bytes, at most %d are allowed", len(id), requestIDMax)
	}
	return nil
}

// Leader carries out changes; see controller.Controller.
type Leader interface {
	Ask(ctx context.Context, event func(ticket uint64) core.Event) (controller.Answer, error)
	Status() controller.Status
}

// Access is who may come in; see identity.Authority.
type Access interface {
	CreateToken(ctx context.Context, role pki.JoinRole, expires time.Time, maxUses int) (string, error)
	Tokens() ([]pki.TokenRecord, error)
	RevokeToken(ctx context.Context, id string) (known bool, err error)
	Forget(ctx context.Context, node string) (known bool, err error)

	CreateUser(ctx context.Context, u identity.NewUser) (certPEM []byte, err error)
	Users() ([]identity.User, error)
	RemoveUser(ctx context.Context, name, by string) (known bool, err error)

	Authorities() ([]identity.AuthorityInfo, error)
	RotateAuthority(ctx context.Context) (identity.AuthorityInfo, error)
	RetireAuthority(ctx context.Context, hash string, force bool) error
	RotateGossipKey(ctx context.Context) (key string, err error)
	Bundle() []byte
}

// Config is what a Server needs; all of it is required, but for Tracer and Counts.
type Config struct {
	Leader Leader
	View   *view.View
	Access Access
	Nodes  *session.Server
	Images *images.Sender
	// Secrets encrypts what is applied of them.
	Secrets *secrets.Keyring
	// Registry is asked what images mean; nil: nodes alone are.
	Registry Registry
	// Backup writes a snapshot of the store; see etcd.Store.
	Backup func(context.Context, io.Writer) (int64, error)
	// Tracer may be nil: nothing is traced.
	Tracer *tracing.Tracer
	// Counts may be nil: nothing is counted.
	Counts *counts.Set
	Log    *slog.Logger
}

// Server serves orch.v1.Orch. Make it with New.
type Server struct {
	orchv1.UnimplementedOrchServer
	cfg  Config
	open opener
	// rotating is held by a rotation, and shared by applies of Secrets: what was sealed
	// by a key must be in the store before the key is looked for there.
	rotating sync.RWMutex
	rotated  string // key that all was sealed anew by, as far as it could be
	// silent are registries that could not be asked; see registry.go.
	silent silent
}

// New makes a server.
func New(cfg Config) *Server { return &Server{cfg: cfg, open: opensOn(cfg.Nodes)} }

// callerName is who a change is put down to.
func callerName(ctx context.Context) string {
	c, err := identity.CallerOf(ctx)
	if err != nil {
		return "unknown"
	}
	return string(c.Kind) + " " + c.Name
}

// ask hands a change to the leader.
func ask[T any](ctx context.Context, s *Server, event func(ticket uint64) core.Event) (T, int64, error) {
	var zero T
	a, err := s.cfg.Leader.Ask(ctx, event)
	if err != nil {
		return zero, 0, statusOf(err)
	}
	if a.Value == nil {
		return zero, a.Revision, nil
	}
	v, ok := a.Value.(T)
	if !ok {
		return zero, 0, status.Error(codes.Internal, fmt.Sprintf("the leader answered with %T", a.Value))
	}
	return v, a.Revision, nil
}

// keyOf fills in the default namespace.
func keyOf(namespace, name string) api.Key {
	return api.Key{Namespace: cmp.Or(namespace, api.DefaultNamespace), Name: name}
}

// Delete implements orch.v1.Orch.
func (s *Server) Delete(ctx context.Context, r *orchv1.DeleteRequest) (*orchv1.DeleteResponse, error) {
	if err := checkRequestID(r.GetRequestId()); err != nil {
		return nil, err
	}
	if len(r.GetRefs()) == 0 {
		return nil, invalid("delete: nothing is named")
	}
	if n := len(r.GetRefs()); n > objectsMax {
		return nil, invalid("delete: %d objects, at most %d at once", n, objectsMax)
	}
	var of []api.Ref
	for _, ref := range r.GetRefs() {
		if !slices.Contains(deletable, ref.GetKind()) {
			return nil, invalid("delete %.80q %.80q: want one of the kinds %s", ref.GetKind(), ref.GetName(), strings.Join(deletable, ", "))
		}
		x := api.Ref{Kind: ref.GetKind(), Key: keyOf(ref.GetNamespace(), ref.GetName())}
		if len(x.Key.String()) > nameMax {
			return nil, invalid("delete %.80q: no %s has so long a name", x.Key.String(), strings.ToLower(x.Kind))
		}
		of = append(of, x)
	}
	by := callerName(ctx)
	result, _, err := ask[core.DeleteResult](ctx, s, func(ticket uint64) core.Event {
		return core.Delete{Ticket: ticket, Refs: of, IgnoreMissing: r.GetIgnoreMissing(), DryRun: r.GetDryRun(), RequestID: r.GetRequestId(), By: by}
	})
	if err != nil {
		return nil, err
	}
	return &orchv1.DeleteResponse{Deleted: refs(result.Deleted), Missing: refs(result.Missing)}, nil
}

func refs(of []api.Ref) []*orchv1.Ref {
	var out []*orchv1.Ref
	for _, r := range of {
		out = append(out, &orchv1.Ref{Kind: cmp.Or(r.Kind, api.KindService), Namespace: r.Namespace, Name: r.Name})
	}
	return out
}

// Explain implements orch.v1.Orch.
func (s *Server) Explain(ctx context.Context, r *orchv1.ExplainRequest) (*orchv1.ExplainResponse, error) {
	key := keyOf(r.GetNamespace(), r.GetService())
	var replica *api.ReplicaKey
	if name := r.GetReplica(); name != "" {
		x, ok := namedReplica(key, name)
		if !ok {
			return nil, invalid("explain %.80q: want a replica of service %s, such as %s-0", name, key.Name, key.Name)
		}
		replica = &x
	}
	nodes, _, err := ask[[]scheduler.NodeExplanation](ctx, s, func(ticket uint64) core.Event {
		return core.Explain{Ticket: ticket, Key: key, Replica: replica}
	})
	if err != nil {
		return nil, err
	}
	out := &orchv1.ExplainResponse{}
	for _, n := range nodes {
		fit := &orchv1.NodeFit{Node: n.Node, Fit: n.Fit, Score: n.Score, Why: n.Why, Filter: n.Filter, Remedy: n.Remedy}
		if !n.Fit {
			fit.Why = n.Reason
		}
		out.Nodes = append(out.Nodes, fit)
	}
	return out, nil
}

// namedReplica reads "web-0", "web-0@17".
func namedReplica(service api.Key, name string) (api.ReplicaKey, bool) {
	slot, epoch, placed := strings.Cut(name, "@")
	number, ok := strings.CutPrefix(slot, service.Name+"-")
	k := api.ReplicaKey{Namespace: service.Namespace, Service: service.Name}
	var errs [2]error
	k.Slot, errs[0] = strconv.Atoi(number)
	if placed {
		k.Epoch, errs[1] = strconv.ParseUint(epoch, 10, 64)
	}
	return k, ok && k.Slot >= 0 && errs[0] == nil && errs[1] == nil
}

// NodeWord implements orch.v1.Orch.
func (s *Server) NodeWord(ctx context.Context, r *orchv1.NodeWordRequest) (*orchv1.NodeWordResponse, error) {
	caller, err := identity.CallerOf(ctx)
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	w := r.GetWord()
	if (w == "dead" || w == "remove" || w == "remove-orphans" || w == "thaw") && !caller.Role.Allows(pki.Admin) {
		return nil, status.Error(codes.PermissionDenied, fmt.Sprintf("%s may not say %q: it needs the role %s", caller.Identity, w, pki.Admin))
	}
	by := "user " + caller.Name
	if w == "dead" || w == "thaw" {
		by = caller.Name // what rests on it says "operator alice"
	}
	if w == "thaw" {
		if r.GetNode() != "" || r.GetForce() {
			return nil, invalid("thaw is said of the whole fleet: name no node")
		}
		_, _, err = ask[any](ctx, s, func(ticket uint64) core.Event { return core.Thaw{Ticket: ticket, By: by} })
		return &orchv1.NodeWordResponse{}, err
	}
	deadline, err := deadlineOf(r)
	if err != nil {
		return nil, err
	}
	_, _, err = ask[any](ctx, s, func(ticket uint64) core.Event {
		return core.NodeWord{Ticket: ticket, Node: r.GetNode(), Word: w, Force: r.GetForce() && w != "remove", Deadline: deadline, By: by}
	})
	if w != "remove" {
		return &orchv1.NodeWordResponse{}, err
	}
	if err != nil && status.Code(err) != codes.NotFound {
		return nil, err
	}
	// The name is freed after the node is gone; if that was cut short, or the node
	// never opened a session, saying it again frees it.
	known, ferr := s.cfg.Access.Forget(ctx, r.GetNode())
	if ferr != nil {
		return nil, statusOf(ferr)
	}
	if !known {
		return &orchv1.NodeWordResponse{}, err
	}
	// Between the two it may have dialled again, and is a node once more.
	_, _, err = ask[any](ctx, s, func(ticket uint64) core.Event {
		return core.NodeWord{Ticket: ticket, Node: r.GetNode(), Word: w, Force: true, By: by}
	})
	if status.Code(err) == codes.NotFound {
		err = nil
	}
	return &orchv1.NodeWordResponse{}, err
}

// deadlineMax is the longest deadline of a drain: a longer one is a slip, and
// means the same as none.
const deadlineMax = 30 * 24 * time.Hour

// deadlineOf gives the deadline of a drain, 0 for none.
func deadlineOf(r *orchv1.NodeWordRequest) (time.Duration, error) {
	if r.GetDeadline() == nil {
		return 0, nil
	}
	d := r.GetDeadline().AsDuration()
	switch {
	case r.GetWord() != "drain":
		return 0, invalid("only a drain has a deadline, not the word %.80q", r.GetWord())
	case r.GetDeadline().CheckValid() != nil || d < 0 || d > deadlineMax:
		return 0, invalid("drain node %s: deadline %s: want 0 to %s; 0 means none", r.GetNode(), d, deadlineMax)
	}
	return d, nil
}

// Rebalance implements orch.v1.Orch.
func (s *Server) Rebalance(ctx context.Context, r *orchv1.RebalanceRequest) (*orchv1.RebalanceResponse, error) {
	by := callerName(ctx)
	result, _, err := ask[core.RebalanceResult](ctx, s, func(ticket uint64) core.Event {
		return core.Rebalance{Ticket: ticket, DryRun: r.GetDryRun(), By: by}
	})
	if err != nil {
		return nil, err
	}
	out := &orchv1.RebalanceResponse{Before: result.Before, After: result.After}
	for _, m := range result.Moves {
		out.Moves = append(out.Moves, &orchv1.Move{Namespace: m.Replica.Namespace, Replica: m.Replica.Name(), From: m.From, To: m.To, Why: m.Why})
	}
	return out, nil
}

// Version implements orch.v1.Orch.
func (s *Server) Version(context.Context, *orchv1.VersionRequest) (*orchv1.VersionResponse, error) {
	st := s.cfg.Leader.Status()
	out := &orchv1.VersionResponse{Version: version.String(), Incarnation: st.Incarnation, Term: st.Term}
	if st.Leading {
		out.Leader = st.Controller
	}
	if snap := s.cfg.View.Snapshot(); snap != nil {
		out.Nodes = int32(snap.Count(api.KindNode))
	}
	return out, nil
}
