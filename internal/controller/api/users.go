package api

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/orchctl/orch/internal/controller/identity"
	"github.com/orchctl/orch/internal/pki"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// CreateUser implements orch.v1.Orch.
func (s *Server) CreateUser(ctx context.Context, r *orchv1.CreateUserRequest) (*orchv1.CreateUserResponse, error) {
	u := identity.NewUser{Name: r.GetName(), Role: pki.Role(r.GetRole()), CSR: r.GetCsr(), Replace: r.GetReplace(), By: callerName(ctx)}
	if r.GetExpires() != nil {
		u.Expires = r.GetExpires().AsTime()
	}
	cert, err := s.cfg.Access.CreateUser(ctx, u)
	if err != nil {
		return nil, statusOf(err)
	}
	ca, err := issuerOf(cert, s.cfg.Access.Bundle())
	if err != nil {
		return nil, status.Error(codes.Internal, fmt.Sprintf("create user %s: %v", u.Name, err))
	}
	s.cfg.Log.Info("user made", "user", u.Name, "role", u.Role, "replace", u.Replace, "by", u.By)
	return &orchv1.CreateUserResponse{Certificate: cert, Ca: ca}, nil
}

// issuerOf gives the one CA that a user's file is to trust. Nobody tells the file when
// another one is retired.
func issuerOf(cert, bundle []byte) ([]byte, error) {
	leaf, err := pki.ParseCert(cert)
	if err != nil {
		return nil, err
	}
	ca, err := pki.Issuer(bundle, leaf)
	if err != nil {
		return nil, err
	}
	return pki.EncodeCert(ca), nil
}

// ListUsers implements orch.v1.Orch.
func (s *Server) ListUsers(context.Context, *orchv1.ListUsersRequest) (*orchv1.ListUsersResponse, error) {
	list, err := s.cfg.Access.Users()
	if err != nil {
		return nil, statusOf(err)
	}
	out := &orchv1.ListUsersResponse{}
	for _, u := range list {
		out.Users = append(out.Users, &orchv1.User{Name: u.Name, Role: string(u.Role), Created: stampOf(u.Created), Expires: stampOf(u.Expires), By: u.By})
	}
	return out, nil
}

// stampOf gives nil for no time.
func stampOf(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// RemoveUser implements orch.v1.Orch.
func (s *Server) RemoveUser(ctx context.Context, r *orchv1.RemoveUserRequest) (*orchv1.RemoveUserResponse, error) {
	caller, err := identity.CallerOf(ctx)
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	known, err := s.cfg.Access.RemoveUser(ctx, r.GetName(), caller.Name)
	if err != nil {
		return nil, statusOf(err)
	}
	if !known {
		return nil, notFound("user %.80q: not found", r.GetName())
	}
	s.cfg.Log.Info("user removed", "user", r.GetName(), "by", callerName(ctx))
	return &orchv1.RemoveUserResponse{}, nil
}
