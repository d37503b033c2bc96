package plan

import (
	"fmt"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

const (
	// A lease is renewed renewShare times in the part of it in which its replica
	// may run, so that three renewals may be lost before one ends.
	renewShare = 4
	// renewMin: renewals more often only fill the session; renewMax: a leader
	// that comes back is found by the session, not by a renewal, but one that
	// refused is asked again soon.
	renewMin = 200 * time.Millisecond
	renewMax = 3 * time.Second
	// renewalsMax bounds the renewals that are remembered without an answer:
	// at renewMin these are 50 s of them.
	renewalsMax = 256

	sigKill, sigTerm = 9, 15
)

// lease is until when something may run. The zero value: none is known, which
// for a container that was found running means that only its watchdog knows.
type lease struct {
	Lease
	until time.Time // Term by the core's clock
	from  time.Time // its renewal was sent
}

func (l lease) known() bool { return !l.until.IsZero() }

// holds tells whether it is known and not over.
func (l lease) holds(now time.Time) bool { return now.Before(l.until) }

// renewal is one that was sent: answers count for the replicas that it was about
// and from the time at which it was sent.
type renewal struct {
	id       uint64
	at       time.Time
	replicas []*replica
}

func (r *replica) leased() bool { return r.template.Leased() }

// renewable tells whether the replica is to have a lease.
func (r *replica) renewable() bool {
	return r.leased() && !r.going && !r.gone && !r.held && r.phase != api.PhaseFailed
}

// renewEvery gives how often.
func (r *replica) renewEvery() time.Duration {
	d := r.template.Lease()
	return min(max((d-r.grace()-api.LeaseKill-api.LeaseDrift(d))/renewShare, renewMin), renewMax)
}

// renew asks for leases: for every leased replica when it is time, and at once
// for those that this session was not asked about yet. Without a session there
// is nobody to ask.
func (c *Core) renew() {
	if !c.connected {
		return
	}
	all := !c.renewAt.IsZero() && !c.now.Before(c.renewAt)
	need, every := false, time.Duration(0)
	for _, r := range c.replicas { // the order does not matter: a minimum and an or
		if r.renewable() {
			need = need || all || !r.asked
			if e := r.renewEvery(); every == 0 || e < every {
				every = e
			}
		}
	}
	if every == 0 {
		c.renewAt = time.Time{}
		return
	}
	if all || c.renewAt.IsZero() {
		c.renewAt = c.now.Add(every)
	}
	c.renewAt = earliest(c.renewAt, c.now.Add(every))
	if !need {
		return
	}
	n := renewal{id: c.id(), at: c.now}
	var keys []api.ReplicaKey
	for _, k := range c.sortedKeys() {
		if r := c.replicas[k]; r.renewable() && (all || !r.asked) {
			r.asked = true
			n.replicas, keys = append(n.replicas, r), append(keys, k)
		}
	}
	if c.renewals = append(c.renewals, n); len(c.renewals) > renewalsMax {
		c.renewals = c.renewals[1:]
	}
	c.emit(Renew{Renewal: wire.Renewal{ID: n.id, Keys: keys}})
}

// newSession forgets what the one before was asked: nobody answers it any more.
func (c *Core) newSession() {
	c.renewals, c.renewAt = nil, time.Time{}
	for _, r := range c.replicas {
		r.asked = false
	}
}

// granted takes an answer. It counts only for replicas that it was asked for and
// that are still wanted, and never shortens a lease.
func (c *Core) granted(ev Granted) {
	for i, n := range c.renewals {
		if n.id != ev.Grant.ID {
			continue
		}
		c.renewals = append(c.renewals[:i:i], c.renewals[i+1:]...)
		given := make(map[api.ReplicaKey]time.Duration, len(ev.Grant.Leases))
		for _, l := range ev.Grant.Leases {
			given[l.Key] = l.For
		}
		for _, r := range n.replicas {
			if c.replicas[r.key] == r && r.renewable() {
				c.grant(r, n, ev.SentAt, given[r.key])
			}
		}
		return
	}
}

// grant gives one replica its lease; none, where the leader refused.
func (c *Core) grant(r *replica, n renewal, sentAt, last time.Duration) {
	if last <= 0 {
		r.refusedAt = c.now
		return
	}
	l := lease{}
	l.Kill = sentAt + last - api.LeaseDrift(last) - api.LeaseKill
	l.Term = l.Kill - r.grace()
	l.from, l.until = n.at, n.at.Add(l.Term-sentAt)
	if l.Term <= r.lease.Term || !l.holds(c.now) {
		return // older than what it has, or it came too late to be of use
	}
	r.lease, r.refusedAt = l, time.Time{}
	c.mark(r)
}

// slept moves what was measured by a clock that stands while the machine is
// suspended: leases run on meanwhile.
func (c *Core) slept(d time.Duration) {
	if d <= 0 {
		return
	}
	for i := range c.renewals {
		c.renewals[i].at = c.renewals[i].at.Add(-d)
	}
	for _, k := range c.sortedKeys() {
		r := c.replicas[k]
		if r.lease.known() {
			held := r.lease.holds(c.now)
			r.lease.until = r.lease.until.Add(-d)
			if held && !r.lease.holds(c.now) && !r.going {
				r.lost = fmt.Sprintf("its lease ended while this machine was suspended for %s", d.Round(time.Millisecond))
			}
			c.mark(r)
		}
		for _, x := range r.runs {
			for _, l := range []*lease{&x.lease, &x.has} {
				if l.known() {
					l.until = l.until.Add(-d)
				}
			}
		}
	}
}

// judgeLease finds out whether the replica's lease holds.
func (c *Core) judgeLease(r *replica) {
	switch {
	case !r.leased() || !r.lease.known():
	case r.lease.holds(c.now):
		r.lost = ""
		r.wakeBy(r.lease.until)
	case r.lost == "":
		r.lost = c.whyLost(r)
	}
}

// whyLost says until when there was a lease and what ended it, as known now.
func (c *Core) whyLost(r *replica) string {
	why := "the leader has answered no renewal since " + clock(r.lease.from)
	switch {
	case !c.connected && !c.partedAt.IsZero():
		why = "there is no session with the leader since " + clock(c.partedAt)
	case !c.connected:
		why = "there is no session with the leader"
	case !r.refusedAt.IsZero():
		why = "the leader refused to renew it at " + clock(r.refusedAt)
	}
	return fmt.Sprintf("its lease ended at %s: %s", clock(r.lease.until), why)
}

// clock gives a time of day for messages.
func clock(t time.Time) string { return t.UTC().Format("15:04:05.000 UTC") }

// mayStart tells whether the replica's lease, if it needs one, allows a start.
func (c *Core) mayStart(r *replica) bool { return !r.leased() || r.lease.holds(c.now) }

// leaseOf gives what a start carries.
func (r *replica) leaseOf() *Lease {
	if !r.leased() {
		return nil
	}
	l := r.lease.Lease
	return &l
}

// holdLease keeps a running container within its replica's lease: the watchdog
// hears of a later end; one that is over stops it. There is no way back from
// that: the watchdog has told it to end, so a lease that comes before the stop
// could be carried out is for the next run.
func (c *Core) holdLease(x *run) {
	switch r := x.r; {
	case x.unguarded: // with the usual back-off: its next watchdog may not live longer
		c.stopRun(x, unguardedWhy, unguardedWhy)
	case r.lost != "" || x.lapsed != "":
		if x.lapsed == "" {
			x.lapsed = r.lost
		}
		c.stopRun(x, api.ReasonLeaseLost, x.lapsed)
	case r.lease.Term > x.lease.Term:
		x.lease = r.lease
		c.emit(SetLease{ContainerID: x.id, Lease: r.lease.Lease})
	}
}

// leaseSet: a watchdog has what it was told, or an earlier one of what it was
// told since.
func (c *Core) leaseSet(ev LeaseSet) {
	x := c.byID[ev.ContainerID]
	if x == nil || ev.Lease.Term > x.lease.Term || ev.Lease.Term <= x.has.Term {
		return
	}
	x.has = x.lease
	x.has.Lease, x.has.until = ev.Lease, x.lease.until.Add(ev.Lease.Term-x.lease.Term)
}

// unguardedWhy is why a container is stopped whose watchdog has died.
const unguardedWhy = "its watchdog is dead: without an agent it would outlive its lease"

// unguarded: the runtime says that nothing ends the container when its lease does.
func (c *Core) unguarded(ev Unguarded) {
	if x := c.byID[ev.ContainerID]; x != nil {
		x.unguarded = true
		if x.state == leaving { // nothing would end the hook and the container with the lease
			x.op, x.left = 0, true
			c.setState(x, running)
		}
		c.mark(x.r)
	}
}

// endedByLease tells whether a run ended because its lease was over: by this
// agent's hand, or by the watchdog's while nobody looked. What counts is the lease
// that the watchdog has: one that could not be written ended nothing later.
func (c *Core) endedByLease(x *run, exit api.Exit) bool {
	killed := exit.Signal == sigTerm || exit.Signal == sigKill
	switch l := x.has; {
	case !x.r.leased() || x.r.going || x.unguarded:
		return false
	case exit.Reason == api.ReasonLeaseLost || x.lapsed != "":
		return true
	case exit.OOM || l.holds(c.now):
		return false
	case killed: // of a run from before this agent only the watchdog knows; that it was killed tells
		return true
	}
	return x.has.known() && (exit.FinishedAt.IsZero() || !exit.FinishedAt.Before(x.has.until))
}

// leaseLost words the end of such a run.
func (x *run) leaseLost(exit api.Exit) api.Exit {
	why := x.lapsed
	if why == "" {
		why = x.r.lost
	}
	switch {
	case why != "":
	case !x.has.known():
		why = "its lease ended while no agent was there to renew it"
	default:
		why = "its lease ended at " + clock(x.has.until)
		if x.has.Term < x.lease.Term {
			why += ": the longer one could not be told to its watchdog"
		}
	}
	exit.Reason, exit.Message = api.ReasonLeaseLost, join(why, exit.Message)
	return exit
}

// startRefused: the runtime says that the lease which a start carried is over.
// Its clock is the one that counts.
func (c *Core) startRefused(x *run, message string) {
	if r := x.r; r.lease.Term <= x.lease.Term && r.lease.holds(c.now) {
		r.lease.until, r.lost = c.now, message
	}
}

// waitsForLease tells whether all that its first start lacks is a lease.
func (x *run) waitsForLease() bool {
	r := x.r
	return x.state == absent && r.leased() && !r.lease.known() && x.imageID != "" && r.net.state == netUp
}
