package rig

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/follow"
)

// Revisions gives a service's revisions, oldest first.
func (f *Fleet) Revisions(ctx context.Context, service string) ([]api.Revision, error) {
	out, err := listAbout[api.Revision](ctx, f, api.KindRevision, api.KindService, service)
	slices.SortFunc(out, func(a, b api.Revision) int { return cmp.Compare(a.Number, b.Number) })
	return out, err
}

// Outcomes gives those of a job, by index.
func (f *Fleet) Outcomes(ctx context.Context, job string) ([]api.Outcome, error) {
	out, err := listAbout[api.Outcome](ctx, f, api.KindOutcome, api.KindJob, job)
	slices.SortFunc(out, func(a, b api.Outcome) int { return cmp.Compare(a.Index, b.Index) })
	return out, err
}

// Revision gives one revision of a service.
func (f *Fleet) Revision(ctx context.Context, service string, number int64) (api.Revision, error) {
	all, err := f.Revisions(ctx, service)
	for _, r := range all {
		if r.Number == number {
			return r, nil
		}
	}
	if err == nil {
		err = fmt.Errorf("service %s has no revision %d", service, number)
	}
	return api.Revision{}, err
}

// WaitRollout waits until a service's newest revision is that of number, or, where
// number is 0, whichever it is, and its rollout has come to a state.
func (f *Fleet) WaitRollout(ctx context.Context, service string, number int64, state api.RolloutState, within time.Duration) error {
	return Until(ctx, within, fmt.Sprintf("%s's rollout of revision %d to be %s", service, number, state), func() error {
		s, err := f.Service(ctx, service)
		if err != nil {
			return err
		}
		if st := s.Status; st.Rollout.State != state || number != 0 && st.Revision != number {
			return fmt.Errorf("revision %d is %s, %d of %d replicas have it and are ready: %s", st.Revision, st.Rollout.State, st.UpdatedReady, st.Replicas, st.Rollout.Why)
		}
		return nil
	})
}

// Watch calls seen with what the leader holds, now and after each change, until it
// is stopped. What stop returns says whether anything was missed.
func (f *Fleet) Watch(ctx context.Context, seen func(*follow.View)) (stop func() error, err error) {
	w, err := f.Follow(ctx)
	if err != nil {
		return nil, err
	}
	seen(&w.View)
	each := func(_ time.Time, v *follow.View) { seen(v) }
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		defer w.Close()
		for ctx.Err() == nil {
			if err := w.Take(ctx, time.Minute, each); err != nil && ctx.Err() == nil {
				ended <- err
				return
			}
		}
		for w.Waiting() > 0 {
			if err := w.Take(context.WithoutCancel(ctx), pollEvery, each); err != nil {
				ended <- err
				return
			}
		}
		ended <- nil
	}()
	return func() error { cancel(); return <-ended }, nil
}

// Lowest watches how many replicas of a service are ready, and gives the fewest that
// were at any time until it is stopped.
func (f *Fleet) Lowest(ctx context.Context, service string) (stop func() (int, error), err error) {
	lowest := -1
	key := api.Key{Namespace: api.DefaultNamespace, Name: service}
	end, err := f.Watch(ctx, func(v *follow.View) {
		if s, ok := v.Services[key]; ok && (lowest < 0 || s.Status.Ready < lowest) {
			lowest = s.Status.Ready
		}
	})
	if err != nil {
		return nil, err
	}
	return func() (int, error) {
		err := end()
		if err == nil && lowest < 0 {
			err = fmt.Errorf("service %s was never seen", service)
		}
		return lowest, err
	}, nil
}

// Most watches how many replicas of a service or job are placed and have not ended, and
// gives the most that were at any time until it is stopped.
func (f *Fleet) Most(ctx context.Context, service string) (stop func() (int, error), err error) {
	most := 0
	end, err := f.Watch(ctx, func(v *follow.View) {
		n := 0
		for _, all := range v.Of(service) {
			for _, r := range all {
				if r.Status.Phase != api.PhasePending && r.Status.Phase.Before(api.PhaseStopping) {
					n++
				}
			}
		}
		most = max(most, n)
	})
	if err != nil {
		return nil, err
	}
	return func() (int, error) { err := end(); return most, err }, nil
}

// ImportImage brings an image archive to one node, behind orch's back: as somebody
// does who loads an image by hand there.
func (f *Fleet) ImportImage(ctx context.Context, node, path string) error {
	c, err := f.containerd(node)
	if err != nil {
		return err
	}
	defer c.Close()
	archive, err := os.Open(path)
	if err != nil {
		return err
	}
	defer archive.Close()
	images, err := c.Import(namespaces.WithNamespace(ctx, namespace), io.Reader(archive), containerd.WithAllPlatforms(true))
	if err == nil && len(images) == 0 {
		err = fmt.Errorf("it holds no image")
	}
	if err != nil {
		return fmt.Errorf("import %s to %s: %w", path, node, err)
	}
	return nil
}
