package ctrd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"

	"github.com/orchctl/orch/internal/registry"
)

// deadAfter is when what a pull has left is nobody's any more: no pull takes longer.
const deadAfter = 2 * pullMax

// labelPull names, on a lease of containerd's, the image whose parts it holds.
const labelPull = "orch/pull"

// holdParts keeps what a pull fetches under the returned context from containerd's garbage
// collector, also after the pull failed: the next one goes on from there. Left to itself the
// library lets go when a pull ends, and the parts stay until the collector happens to run.
// An image has one hold for all its tries. It ends by letGo, else by SweepPulls, at last by
// itself.
func (r *Runtime) holdParts(ctx context.Context, full string) (context.Context, error) {
	all := r.client.LeasesService()
	held, err := all.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("hold the parts of the image: %w", err)
	}
	for _, l := range held {
		if l.Labels[labelPull] == full {
			return leases.WithLease(ctx, l.ID), nil
		}
	}
	l, err := all.Create(ctx, leases.WithRandomID(), leases.WithExpiration(2*deadAfter), leases.WithLabel(labelPull, full))
	if err != nil {
		return nil, fmt.Errorf("hold the parts of the image: %w", err)
	}
	return leases.WithLease(ctx, l.ID), nil
}

// letGo ends the holds on parts of images that are said. It fails nothing: SweepPulls does
// so, too.
func (r *Runtime) letGo(ctx context.Context, of func(full string) bool, how ...leases.DeleteOpt) {
	ctx, cancel := r.cleanup(ctx)
	defer cancel()
	all := r.client.LeasesService()
	held, err := all.List(ctx)
	for _, l := range held {
		if full := l.Labels[labelPull]; full != "" && of(full) {
			err = errors.Join(err, gone(all.Delete(ctx, l, how...)))
		}
	}
	if err != nil {
		r.log.Warn("cannot let go of parts of images: containerd's disk is freed later", "err", err)
	}
}

// letGoIdle ends the holds of pulls that are not under way, and returns when what they held
// is gone from the disk: room is worth more than the time to fetch it again.
func (r *Runtime) letGoIdle(ctx context.Context) {
	now := r.Pulling()
	r.letGo(ctx, func(full string) bool { return !slices.Contains(now, full) }, leases.SynchronousDelete)
}

// gone is the error of a removal, where what is missing is fine.
func gone(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// useless says that what a failed pull has fetched is not to be gone on from: wrong bytes
// would be met again by each further try, and a disk that is full stays so.
func useless(err error) bool {
	var said *registry.Error
	return wrongBytes(err) || noSpace(err) || errors.As(err, &said) && said.Status == http.StatusRequestedRangeNotSatisfiable
}

// abortParts drops what a pull has fetched.
func (r *Runtime) abortParts(ctx context.Context, p *pulling) {
	ctx, cancel := r.cleanup(ctx)
	defer cancel()
	p.mu.Lock()
	keys := slices.Sorted(maps.Keys(p.parts))
	p.mu.Unlock()
	for _, key := range keys {
		if err := gone(r.client.ContentStore().Abort(ctx, key)); err != nil {
			r.log.Warn("cannot drop a part of an image whose pull failed", "image", p.full, "part", key, "err", err)
		}
	}
}

// SweepPulls drops what crashes, and tries that were not repeated, have left of pulls: parts
// that were never finished, and holds on what they had fetched. What is under way is not
// touched, for none of it is that old; while a pull is, nothing is, for the clock may have
// been put forward since it began.
func (r *Runtime) SweepPulls(ctx context.Context, now time.Time) error {
	if len(r.Pulling()) > 0 {
		return nil
	}
	ctx = r.in(ctx)
	var errs []error
	statuses, err := r.client.ContentStore().ListStatuses(ctx)
	errs = append(errs, err)
	for _, s := range statuses {
		if now.Sub(s.UpdatedAt) > deadAfter {
			errs = append(errs, gone(r.client.ContentStore().Abort(ctx, s.Ref)))
		}
	}
	held, err := r.client.LeasesService().List(ctx)
	errs = append(errs, err)
	for _, l := range held {
		if now.Sub(l.CreatedAt) > deadAfter {
			errs = append(errs, gone(r.client.LeasesService().Delete(ctx, l)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clear away what pulls have left: %w", err)
	}
	return nil
}
