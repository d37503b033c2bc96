package api

import (
	"context"
	"slices"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/audit"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/tracing"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// Apply implements orch.v1.Orch. Values of Secrets are encrypted here: the leader is
// told of ciphertext only.
func (s *Server) Apply(ctx context.Context, r *orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) {
	if err := checkRequestID(r.GetRequestId()); err != nil {
		return nil, err
	}
	objects, err := s.validated(ctx, r)
	if err != nil {
		return nil, err
	}
	ev := core.Apply{DryRun: r.GetDryRun(), MustNotExist: r.GetMustNotExist(), RequestID: r.GetRequestId(), By: callerName(ctx), Trace: tracing.Carried(ctx),
		Services: ofType[*api.Service](objects), Jobs: ofType[*api.Job](objects)}
	configs := ofType[*api.Config](objects)
	var found digests
	if !ev.DryRun {
		ctx, span := s.cfg.Tracer.Begin(ctx, "resolve images")
		found = s.digestsOf(ctx, s.renewed(objects), configs)
		span.SetInt("orch.images.pinned", int64(len(found.known)))
		span.SetInt("orch.images.unknown", int64(len(found.unknown)))
		span.End()
		if found.refused != nil {
			return nil, found.refused
		}
		ev.Images = found.known
	}
	if slices.ContainsFunc(objects, isSecret) {
		done, err := s.useNewestKey(ctx)
		if err != nil {
			return nil, err
		}
		defer done()
	}
	if ev.Configs, err = s.changes(configs); err != nil {
		return nil, err
	}
	var differences map[api.Ref][]string
	if ev.DryRun {
		differences = s.differences(ctx, configs)
	}
	for _, c := range configs {
		c.Data, c.BinaryData = nil, nil // nobody needs them in the clear any more
	}
	result, rev, err := ask[core.ApplyResult](ctx, s, func(ticket uint64) core.Event {
		ev.Ticket = ticket
		return ev
	})
	if err != nil {
		return nil, err
	}
	if !ev.DryRun {
		s.cfg.Counts.Applied(result)
	}
	result = inOrder(found.warn(result), objects)
	for i := range result.Applied {
		a := &result.Applied[i]
		if more := differences[refOf(*a)]; len(more) > 0 && a.Outcome != "unchanged" {
			a.Plan = slices.Concat(more, a.Plan)
		}
	}
	return applied(result, rev)
}

// validated reads what is to be applied, and refuses what may not be.
func (s *Server) validated(ctx context.Context, r *orchv1.ApplyRequest) (objects []api.Object, err error) {
	ctx, span := s.cfg.Tracer.Begin(ctx, "validate")
	defer func() {
		span.SetInt("orch.objects", int64(len(r.GetObjects())))
		span.Fail(err)
		span.End()
	}()
	if objects, err = decodeAll(r.GetObjects()); err != nil {
		return nil, err
	}
	if err := mayApply(ctx, objects); err != nil {
		return nil, err
	}
	return objects, s.mayChange(ctx, objects)
}

// ofType gives those of one type, in their order.
func ofType[T api.Object](objects []api.Object) (out []T) {
	for _, o := range objects {
		if x, ok := o.(T); ok {
			out = append(out, x)
		}
	}
	return out
}

func isSecret(o api.Object) bool { return o.ObjectKind() == api.KindSecret }

// Scale implements orch.v1.Orch.
func (s *Server) Scale(ctx context.Context, r *orchv1.ScaleRequest) (*orchv1.ApplyResponse, error) {
	if r.GetReplicas() < 0 || r.GetReplicas() > api.MaxReplicas {
		return nil, invalid("scale service %s to %d: want 0 to %d replicas", r.GetName(), r.GetReplicas(), api.MaxReplicas)
	}
	if err := checkRequestID(r.GetRequestId()); err != nil {
		return nil, err
	}
	if snap := s.cfg.View.Snapshot(); snap != nil {
		if x, ok := snap.Get(core.ViewKey{Kind: api.KindService, Namespace: keyOf(r.GetNamespace(), r.GetName()).Namespace, Name: r.GetName()}); ok {
			audit.Note(ctx, "from %d", x.(*api.Service).Spec.Want())
		}
	}
	by := callerName(ctx)
	result, rev, err := ask[core.ApplyResult](ctx, s, func(ticket uint64) core.Event {
		return core.Scale{Ticket: ticket, Key: keyOf(r.GetNamespace(), r.GetName()), Replicas: int(r.GetReplicas()),
			Current: int(r.GetCurrentReplicas()), RequestID: r.GetRequestId(), By: by, Trace: tracing.Carried(ctx)}
	})
	if err != nil {
		return nil, err
	}
	s.cfg.Counts.Applied(result)
	return applied(result, rev)
}

// refOf names what an apply was about.
func refOf(a core.Applied) api.Ref {
	switch {
	case a.Job != nil:
		return api.Ref{Kind: api.KindJob, Key: a.Job.Metadata.Key()}
	case a.Config != nil:
		return api.Ref{Kind: a.Config.ObjectKind(), Key: a.Config.Metadata.Key()}
	case a.Service != nil:
		return api.Ref{Kind: api.KindService, Key: a.Service.Metadata.Key()}
	}
	return api.Ref{}
}

// inOrder gives a copy of the result in the order of what was asked for; what else there
// is follows in its own.
func inOrder(result core.ApplyResult, asked []api.Object) core.ApplyResult {
	place := make(map[api.Ref]int, len(asked))
	for i, o := range asked {
		place[refTo(o)] = i - len(asked)
	}
	out := core.ApplyResult{Applied: slices.Clone(result.Applied)}
	slices.SortStableFunc(out.Applied, func(a, b core.Applied) int { return place[refOf(a)] - place[refOf(b)] })
	return out
}

func applied(result core.ApplyResult, rev int64) (*orchv1.ApplyResponse, error) {
	out := &orchv1.ApplyResponse{StoreRevision: rev}
	for _, a := range result.Applied {
		var x any = a.Service
		ref := refOf(a)
		switch ref.Kind {
		case api.KindJob:
			x = a.Job
		case api.KindConfig, api.KindSecret:
			x = a.Config
		}
		o, err := object(ref.Kind, x)
		if err != nil {
			return nil, err
		}
		out.Applied = append(out.Applied, &orchv1.Applied{Object: o, Outcome: a.Outcome, Plan: a.Plan})
	}
	return out, nil
}
