package api

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/orchctl/orch/internal/controller/identity"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

func authority(x identity.AuthorityInfo) *orchv1.Authority {
	return &orchv1.Authority{Hash: x.Hash, Created: timestamppb.New(x.Created), Expires: timestamppb.New(x.Expires), Signing: x.Signing, Nodes: x.Nodes, Users: x.Users}
}

// ListAuthorities implements orch.v1.Orch.
func (s *Server) ListAuthorities(context.Context, *orchv1.ListAuthoritiesRequest) (*orchv1.ListAuthoritiesResponse, error) {
	list, err := s.cfg.Access.Authorities()
	if err != nil {
		return nil, statusOf(err)
	}
	out := &orchv1.ListAuthoritiesResponse{}
	for _, x := range list {
		out.Authorities = append(out.Authorities, authority(x))
	}
	return out, nil
}

// RotateAuthority implements orch.v1.Orch.
func (s *Server) RotateAuthority(ctx context.Context, _ *orchv1.RotateAuthorityRequest) (*orchv1.RotateAuthorityResponse, error) {
	x, err := s.cfg.Access.RotateAuthority(ctx)
	if err != nil {
		return nil, statusOf(err)
	}
	s.cfg.Log.Info("CA rotated", "ca", x.Hash, "by", callerName(ctx))
	return &orchv1.RotateAuthorityResponse{Authority: authority(x)}, nil
}

// RetireAuthority implements orch.v1.Orch.
func (s *Server) RetireAuthority(ctx context.Context, r *orchv1.RetireAuthorityRequest) (*orchv1.RetireAuthorityResponse, error) {
	if err := s.cfg.Access.RetireAuthority(ctx, r.GetHash(), r.GetForce()); err != nil {
		return nil, statusOf(err)
	}
	s.cfg.Log.Info("CA retired", "ca", r.GetHash(), "force", r.GetForce(), "by", callerName(ctx))
	return &orchv1.RetireAuthorityResponse{}, nil
}

// RotateGossipKey implements orch.v1.Orch.
func (s *Server) RotateGossipKey(ctx context.Context, _ *orchv1.RotateGossipKeyRequest) (*orchv1.RotateGossipKeyResponse, error) {
	key, err := s.cfg.Access.RotateGossipKey(ctx)
	if err != nil {
		return nil, statusOf(err)
	}
	s.cfg.Log.Info("gossip's key rotated", "key", key, "by", callerName(ctx))
	return &orchv1.RotateGossipKeyResponse{Key: key}, nil
}
