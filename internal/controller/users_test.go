package controller_test

import (
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/orchctl/orch/internal/pki"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// watched opens a watch of nodes and waits until it shows all there is.
func (r *rig) watched(conn *grpc.ClientConn) orchv1.Orch_WatchClient {
	r.t.Helper()
	w, err := orchv1.NewOrchClient(conn).Watch(r.ctx, &orchv1.WatchRequest{List: &orchv1.ListRequest{Kind: "Node"}})
	if err != nil {
		r.t.Fatal(err)
	}
	if ev, err := w.Recv(); err != nil || ev.GetType() != orchv1.WatchEvent_SYNCED {
		r.t.Fatalf("watch: %v, %v", ev, err)
	}
	return w
}

// What a user has open ends with the user, and with the certificate; so does every call
// over a connection that was made before.
func TestUsersAreJudgedAtEveryCall(t *testing.T) {
	r := newRig(t)
	conn := r.dial(r.credentials(r.authority.CA(), user(pki.Viewer), time.Hour))
	w := r.watched(conn)
	if _, err := r.admin.RemoveUser(r.ctx, &orchv1.RemoveUserRequest{Name: "viewer"}); err != nil {
		t.Fatal(err)
	}
	_, err := w.Recv()
	want(t, err, codes.Unauthenticated, "no such user any more", "orchctl user create viewer --role viewer")
	_, err = orchv1.NewOrchClient(conn).Version(r.ctx, &orchv1.VersionRequest{})
	want(t, err, codes.Unauthenticated, "no such user any more")
	_, err = r.admin.RemoveUser(r.ctx, &orchv1.RemoveUserRequest{Name: "viewer"})
	want(t, err, codes.NotFound)
	_, err = r.admin.RemoveUser(r.ctx, &orchv1.RemoveUserRequest{Name: "admin"})
	want(t, err, codes.FailedPrecondition, "last admin")

	conn = r.dial(r.credentials(r.authority.CA(), user(pki.Operator), 2*time.Second))
	w = r.watched(conn)
	_, err = w.Recv()
	want(t, err, codes.Unauthenticated, "expired")
	_, err = orchv1.NewOrchClient(conn).Version(r.ctx, &orchv1.VersionRequest{})
	want(t, err, codes.Unauthenticated, "expired", "--replace")

	list, err := r.admin.ListUsers(r.ctx, &orchv1.ListUsersRequest{})
	if err != nil || len(list.GetUsers()) != 2 {
		t.Errorf("users %v, %v", list, err)
	}
}

// A CA that is retired is trusted no more on connections that are open.
func TestRetiredOnAnOpenConnection(t *testing.T) {
	r := newRig(t)
	operator := orchv1.NewOrchClient(r.dial(r.credentials(r.authority.CA(), user(pki.Operator), time.Hour)))
	if _, err := operator.Version(r.ctx, &orchv1.VersionRequest{}); err != nil {
		t.Fatal(err)
	}
	old := r.authority.CA().Hash()
	if _, err := r.admin.RotateAuthority(r.ctx, &orchv1.RotateAuthorityRequest{}); err != nil {
		t.Fatal(err)
	}
	list, err := r.admin.ListAuthorities(r.ctx, &orchv1.ListAuthoritiesRequest{})
	if err != nil || len(list.GetAuthorities()) != 2 || list.GetAuthorities()[1].GetHash() != old || len(list.GetAuthorities()[1].GetUsers()) != 2 {
		t.Errorf("CAs %v, %v", list, err)
	}
	_, err = r.admin.RetireAuthority(r.ctx, &orchv1.RetireAuthorityRequest{Hash: old[:6]})
	want(t, err, codes.FailedPrecondition, "users admin, operator")
	if _, err := r.admin.RetireAuthority(r.ctx, &orchv1.RetireAuthorityRequest{Hash: old[:6], Force: true}); err != nil {
		t.Fatal(err)
	}
	_, err = operator.Version(r.ctx, &orchv1.VersionRequest{})
	want(t, err, codes.Unauthenticated, "retired")
}
