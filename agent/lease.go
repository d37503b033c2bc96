package agent

import (
	"context"
	"errors"
	"time"

	"github.com/orchctl/orch/agent/ctrd"
	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/internal/wire"
)

const (
	// renewalsMax bounds the renewals that wait for an answer; the plan keeps no
	// more of them either.
	renewalsMax = 256
	// suspendMin is what counts as a suspension: nothing shorter is one, and at
	// the first step the machine may have been busy between the readings.
	suspendMin = 50 * time.Millisecond
)

// leases is the driver's part in them; all of it is the loop's own.
type leases struct {
	// sent are the renewals without an answer, oldest first, with the time since
	// boot at which each was sent.
	sent []sentRenewal
	// writing are containers whose watchdog is being told, with the lease that is
	// to be told next, if any: an older one never comes after a newer.
	writing map[string]*plan.Lease
	// begin is the first step by both clocks, suspended how much longer than the
	// plan's that of boot time has been since.
	begin     time.Time
	beginBoot time.Duration
	suspended time.Duration
}

type sentRenewal struct {
	id uint64
	at time.Duration
}

// renew sends a renewal. The time is taken before: a lease counts from there.
func (d *driver) renew(r wire.Renewal) {
	l := &d.leases
	l.sent = append(l.sent, sentRenewal{r.ID, d.cfg.BootTime()})
	if len(l.sent) > renewalsMax {
		l.sent = l.sent[1:]
	}
	d.session.SendRenewal(d.gen, r)
}

// granted takes an answer.
func (d *driver) granted(ctx context.Context, g wire.Grant) {
	for i, s := range d.leases.sent {
		if s.id == g.ID {
			d.leases.sent = append(d.leases.sent[:i:i], d.leases.sent[i+1:]...)
			d.step(ctx, plan.Granted{SentAt: s.at, Grant: g})
			return
		}
	}
}

// setLease tells a watchdog, one lease after the other.
func (d *driver) setLease(ctx context.Context, id string, lease plan.Lease) {
	writing := d.leases.writing
	if _, busy := writing[id]; busy {
		writing[id] = &lease
		return
	}
	writing[id] = nil
	d.work.Go(func() {
		err := d.cfg.Runtime.SetLease(ctx, id, ctrd.Lease{Term: lease.Term, Kill: lease.Kill})
		d.tell(ctx, func() {
			next := writing[id]
			delete(writing, id)
			d.leaseSet(ctx, id, lease, err)
			if next != nil {
				d.setLease(ctx, id, *next)
			}
		})
	})
}

// leaseSet: a watchdog that was not told ends its container when the lease that
// it knows does, unless the next renewal reaches it. One that is dead cannot.
func (d *driver) leaseSet(ctx context.Context, id string, lease plan.Lease, err error) {
	switch {
	case err == nil:
		d.step(ctx, plan.LeaseSet{ContainerID: id, Lease: lease})
	case errors.Is(err, ctrd.ErrNotFound): // it ended meanwhile
	case errors.Is(err, ctrd.ErrUnguarded):
		d.cfg.Logger.Warn("a leased container has no watchdog any more: it is replaced", "container", id)
		d.step(ctx, plan.Unguarded{ContainerID: id})
	default:
		d.cfg.Logger.Warn("cannot prolong a container's lease", "container", id, "err", err)
	}
}

// guarded tells whether a leased container that runs has a living watchdog. A
// lease of no length shortens none.
func (d *driver) guarded(ctx context.Context, o ctrd.Observed) bool {
	return !o.Leased || !o.Running || !errors.Is(d.cfg.Runtime.SetLease(ctx, o.ID, ctrd.Lease{}), ctrd.ErrUnguarded)
}

// slept gives how long the machine was suspended since the last step: leases ran
// on, and the clock of the plan's steps did not. boot is read before now: what a
// busy machine puts between the two readings hides some of a suspension until
// the next step, and makes none up.
func (l *leases) slept(boot time.Duration, now time.Time) time.Duration {
	if l.begin.IsZero() {
		l.begin, l.beginBoot = now, boot
		return 0
	}
	slept := boot - l.beginBoot - now.Sub(l.begin) - l.suspended
	if slept < suspendMin {
		return 0
	}
	l.suspended += slept
	return slept
}
