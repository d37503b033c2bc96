package api

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/orchctl/orch/internal/pki"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// CreateToken implements orch.v1.Orch.
func (s *Server) CreateToken(ctx context.Context, r *orchv1.CreateTokenRequest) (*orchv1.CreateTokenResponse, error) {
	var expires time.Time
	if r.GetExpires() != nil {
		expires = r.GetExpires().AsTime()
	}
	text, err := s.cfg.Access.CreateToken(ctx, pki.JoinRole(r.GetRole()), expires, int(r.GetMaxUses()))
	if err != nil {
		return nil, statusOf(err)
	}
	s.cfg.Log.Info("join token made", "role", r.GetRole(), "by", callerName(ctx))
	return &orchv1.CreateTokenResponse{Token: text}, nil
}

// ListTokens implements orch.v1.Orch.
func (s *Server) ListTokens(context.Context, *orchv1.ListTokensRequest) (*orchv1.ListTokensResponse, error) {
	list, err := s.cfg.Access.Tokens()
	if err != nil {
		return nil, statusOf(err)
	}
	out := &orchv1.ListTokensResponse{}
	for _, t := range list {
		out.Tokens = append(out.Tokens, &orchv1.Token{Id: t.ID, Role: string(t.Role), Created: timestamppb.New(t.Created),
			Expires: timestamppb.New(t.Expires), Uses: int64(t.Uses), MaxUses: int64(t.MaxUses)})
	}
	return out, nil
}

// RevokeToken implements orch.v1.Orch.
func (s *Server) RevokeToken(ctx context.Context, r *orchv1.RevokeTokenRequest) (*orchv1.RevokeTokenResponse, error) {
	known, err := s.cfg.Access.RevokeToken(ctx, r.GetId())
	if err != nil {
		return nil, statusOf(err)
	}
	if !known {
		return nil, notFound("token %s: not found", r.GetId())
	}
	s.cfg.Log.Info("join token revoked", "id", r.GetId(), "by", callerName(ctx))
	return &orchv1.RevokeTokenResponse{}, nil
}
