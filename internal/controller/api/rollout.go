package api

import (
	"context"
	"slices"
	"strings"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/tracing"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// rolloutWords are what can be said of a rollout.
var rolloutWords = []string{"pause", "resume", "undo", "restart"}

// Rollout implements orch.v1.Orch. A restart asks anew what its images mean; an undo
// has the digests of the revision that it goes back to.
func (s *Server) Rollout(ctx context.Context, r *orchv1.RolloutRequest) (*orchv1.ApplyResponse, error) {
	word, key := r.GetWord(), keyOf(r.GetNamespace(), r.GetName())
	switch {
	case !slices.Contains(rolloutWords, word):
		return nil, invalid("unknown word %.80q: want one of %s", word, strings.Join(rolloutWords, ", "))
	case r.GetName() == "":
		return nil, invalid("%s: no service is named", word)
	case len(key.String()) > nameMax:
		return nil, invalid("%s service %.80q: no service has so long a name", word, key.String())
	case r.GetRevision() < 0:
		return nil, invalid("%s service %s: revision %d: they count from 1", word, key, r.GetRevision())
	case r.GetRevision() != 0 && word != "undo":
		return nil, invalid("%s service %s: only an undo goes to a revision", word, key)
	}
	if err := checkRequestID(r.GetRequestId()); err != nil {
		return nil, err
	}
	var found digests
	if word == "restart" {
		if snap := s.cfg.View.Snapshot(); snap != nil {
			if x, ok := snap.Get(core.ViewKey{Kind: api.KindService, Namespace: key.Namespace, Name: key.Name}); ok {
				if err := mayRestart(ctx, x.(*api.Service)); err != nil {
					return nil, err
				}
				found = s.digestsOf(ctx, []templated{{x.(*api.Service).Spec.Template, api.Ref{Kind: api.KindService, Key: key}}}, nil)
				if found.refused != nil {
					return nil, found.refused
				}
			}
		}
	}
	by := callerName(ctx)
	result, rev, err := ask[core.ApplyResult](ctx, s, func(ticket uint64) core.Event {
		return core.Rollout{Ticket: ticket, Key: key, Word: word, Revision: r.GetRevision(), RequestID: r.GetRequestId(), By: by, Images: found.known, Trace: tracing.Carried(ctx)}
	})
	if err != nil {
		return nil, err
	}
	return applied(found.warn(result), rev)
}
