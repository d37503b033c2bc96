package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/session"
	"github.com/orchctl/orch/internal/controller/view"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

const (
	// usageTimeout is how long one node may take to tell what it uses: it measures for
	// a second where nobody has asked before.
	usageTimeout = 3 * time.Second
	// usagesAtOnce is how many nodes are asked at once: a thousand answer within some
	// seconds, and each costs a stream while it measures.
	usagesAtOnce = 256
)

// Usage implements orch.v1.Orch: one message of each node, also of those that cannot be
// asked, as they come.
func (s *Server) Usage(r *orchv1.UsageRequest, st orchv1.Orch_UsageServer) error {
	snap, err := s.snapshot()
	if err != nil {
		return err
	}
	nodes, err := nodesNamed(snap, r.GetNodes())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(st.Context())
	defer cancel()
	results := make(chan *orchv1.NodeUsage)
	go func() {
		defer close(results)
		each(nodes, usagesAtOnce, func(node string) {
			if ctx.Err() == nil {
				results <- s.usageOf(ctx, node, r.GetNamespace())
			}
		})
	}()
	for x := range results {
		if err == nil {
			if err = st.Send(x); err != nil {
				cancel() // and read on, until all have ended
			}
		}
	}
	return cmp.Or(err, statusOf(st.Context().Err()))
}

// each calls f for every item, up to n at once, and returns when the last call has.
func each(items []string, n int, f func(string)) {
	free := make(chan struct{}, n)
	for _, x := range items {
		free <- struct{}{}
		go func() {
			defer func() { <-free }()
			f(x)
		}()
	}
	for range n {
		free <- struct{}{}
	}
}

// nodesNamed gives the nodes that are asked for; none named means all.
func nodesNamed(snap *view.Snapshot, named []string) ([]string, error) {
	var all []string
	snap.All(api.KindNode, "", func(e core.Entry) bool {
		all = append(all, e.Key.Name)
		return true
	})
	if len(named) == 0 {
		if len(all) == 0 {
			return nil, status.Error(codes.FailedPrecondition, "there are no nodes yet")
		}
		return all, nil
	}
	var out []string
	for _, name := range named {
		if !slices.Contains(all, name) {
			return nil, notFound("node %.80s: not found", name)
		}
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out, nil
}

// usageOf asks one node.
func (s *Server) usageOf(ctx context.Context, node, namespace string) *orchv1.NodeUsage {
	limited, cancel := context.WithTimeout(ctx, usageTimeout)
	defer cancel() // ends the relay
	u, err := s.askUsage(limited, node, namespace)
	switch {
	case err == nil:
		u.Node, u.Error = node, "" // an agent speaks for itself alone
		return u
	case limited.Err() != nil && ctx.Err() == nil:
		err = fmt.Errorf("no answer within %s: its agent may be stuck, its log tells more", usageTimeout)
	case errors.Is(err, session.ErrAway):
		err = fmt.Errorf("not reachable: %s", awayWhy(s.cfg.View.Snapshot(), node, err))
	}
	return &orchv1.NodeUsage{Node: node, Error: err.Error()}
}

// usageFramesMax bounds what an agent may tell.
const usageFramesMax = 16

func (s *Server) askUsage(ctx context.Context, node, namespace string) (*orchv1.NodeUsage, error) {
	r, err := s.open(ctx, node, &orchv1.OpenRelay{Request: &orchv1.OpenRelay_Usage{Usage: &orchv1.UsageOpen{Namespace: namespace}}})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	for range usageFramesMax {
		f, err := r.Recv()
		switch {
		case err != nil:
			return nil, errors.New("not reachable any more: its session ended while it was asked")
		case f.GetUsage() != nil:
			return f.GetUsage(), nil
		case f.GetEnd() != nil:
			return nil, errors.New(cmp.Or(f.GetEnd().GetError(), "its agent has no answer"))
		}
	}
	return nil, errors.New("its agent does not come to an answer")
}
