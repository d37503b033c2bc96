package core

import (
	"maps"
	"slices"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// An exclusive slot never has two running containers (I6). This is why.
//
// Words: a filling is a placement of a slot; its lease lasts L from when its agent
// sent the renewal; its fence is the moment from which on it surely runs no more,
// though nothing is heard from its node. Clocks of two machines run at the same
// rate to within 1 % (api.LeaseDrift); nothing is assumed of what they show. A
// leader's clock goes on while the leader does not run, or it is told (Stalled).
//
//  1. A container of a leased filling starts only under a lease, and its end is
//     enforced on its node, by a watchdog outside of the agent, no later than L
//     less drift after the renewal was sent, by the node's own clock. (agent)
//  2. A lease is granted here only, for a renewal that has arrived, so after that
//     was sent; the fence is counted from the grant: grant + L + drift. A filling
//     to which this leader never granted one, and which it placed itself, never
//     ran: its fence is zero.
//  3. Nothing is granted to a filling that is stopping or void, and no filling
//     ever stops being so within a term, but that a void one may come to be
//     stopping (5). So once a filling is stopping its fence stands still.
//  4. A slot of an exclusive service is filled only when every other filling in
//     it is stopping and its fence has passed, or its record is gone (see taken).
//     The record goes only for one of these reasons: the node's agent said in a
//     session of this leader that nothing of it is left; the machine was booted
//     since; its fence has passed. Neither silence, nor "dead" by whoever's word,
//     nor "remove", nor scaling, nor deleting the service makes it go sooner: it
//     stays as lapsed (see lapse), in the store too, and a deleted service stays
//     as long. So whoever deletes a service and makes it anew, or scales it down
//     and up, finds the fences where they were.
//  5. A node that was dead and comes back in the same life is told to stop what
//     has lapsed there, like anything that is to go, and says when it is gone.
//  6. A takeover. A leader grants only within QuorumFresh of the sending of a
//     commit that succeeded. That commit was written under the leader's own key,
//     so before the next leader took it, so before the next term began here. The
//     last lease of any leader before was therefore granted before c.began +
//     QuorumFresh, for a filling in the store (3: which was not stopping there,
//     or whose stop was not committed). So each filling that was loaded counts as
//     granted then, stopping or not. What is not in the store has no fence to
//     keep, by 4, which held for the leader before.
//  7. A name is not a machine. A node that an operator removed may run on, and
//     another machine may join under its name. So the fillings of a removed node
//     are cut off from the name, and only their fence lets them go; a leader that
//     finds a record of another boot than the node's cannot tell this from a
//     reboot, and waits, too.
//  8. Exclusive or not is part of a revision. A service counts as exclusive while
//     its newest revision is or any filling of it is of one that is, so that an
//     exclusive filling stands alone in its slot whatever comes before or after
//     it. What runs without a lease has no fence that anybody could know: in an
//     exclusive service it is waited for until its agent says that it is gone,
//     its machine was booted since, or an operator removes the node.

// QuorumFresh is how old a leader's last proof that its term lasts may be for it
// to grant leases: a commit takes milliseconds, and a takeover waits this long in
// addition to the leases.
const QuorumFresh = time.Second

// never is the fence of what runs without a lease.
var never = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// exclusive tells whether the service's slots may never have two running
// containers; see 8 above.
func (s *service) exclusive() bool {
	newest := s.newest()
	return s.exclusives > 0 || newest != nil && newest.Template.Exclusive
}

// fence is from when on the filling surely runs no more if nothing is heard of
// it: zero if it never ran or its machine was booted since.
func (c *Core) fence(f *filling) time.Time {
	if f.over {
		return time.Time{}
	}
	if f.lease == 0 {
		return never
	}
	at := f.granted
	if before := c.began.Add(QuorumFresh + api.LeaseDrift(QuorumFresh)); f.inherited && at.Before(before) {
		at = before
	}
	if at.IsZero() {
		return at
	}
	return at.Add(f.lease + api.LeaseDrift(f.lease))
}

// servesUntil is when a leased filling may at the soonest have been told to stop
// for want of a lease, if nothing is heard from its node; zero: nobody can tell.
func (c *Core) servesUntil(f *filling) time.Time {
	at := c.fence(f)
	if f.lease == 0 || at.IsZero() {
		return time.Time{}
	}
	grace := c.services[f.key.ServiceKey()].revisions[f.revision].Template.TerminationGracePeriod.Or(api.DefaultGrace)
	return at.Add(-2*api.LeaseDrift(f.lease) - api.LeaseKill - grace)
}

// spent tells whether a filling that is not heard of serves no more, though its
// host answers: its lease is at its end.
func (c *Core) spent(f *filling) bool {
	v, at := c.verdictOf(f), c.servesUntil(f)
	return (v == api.VerdictAgentLost || v == api.VerdictSuspect) && !at.IsZero() && !at.After(c.now)
}

// spentNext is when the next filling of the service is spent, if it is not heard
// of until then; zero: none will be.
func (c *Core) spentNext(s *service) time.Time {
	var next time.Time
	for _, f := range s.fillings {
		switch v := c.verdictOf(f); {
		case f.lease == 0 || f.stopping || v != api.VerdictAgentLost && v != api.VerdictSuspect || c.spent(f):
		default:
			next = earliest(next, c.servesUntil(f))
		}
	}
	return next
}

// fenced tells whether a filling that is given up has to be waited for.
func (c *Core) fenced(s *service, f *filling) bool {
	return s.exclusive() && c.fence(f).After(c.now)
}

// taken tells whether something that is in the slot may still run, or is to.
func (c *Core) taken(s *service, slot int) bool {
	return slices.ContainsFunc(s.inSlot(slot), func(f *filling) bool { return !f.stopping || c.fence(f).After(c.now) })
}

// freeAt is when the last of the slot's fences passes.
func (c *Core) freeAt(s *service, slot int) time.Time {
	var at time.Time
	for _, f := range s.inSlot(slot) {
		at = later(at, c.fence(f))
	}
	return at
}

// lapse keeps a filling whose node's life is over for as long as it may run. No
// plan sees it any more, but that its slot is fenced.
func (c *Core) lapse(s *service, f *filling, why string) {
	f.void, f.lapsed = true, true
	if !f.stopping {
		c.stop(f, why)
	}
	c.unsettle(s.key)
	c.touch(f)
}

// lapseDead has a plan of an exclusive service see only what lives, and lets go
// what surely runs no more. It gives the first fence that has still to pass.
func (c *Core) lapseDead(s *service) time.Time {
	var wake time.Time
	for _, f := range slices.Clone(s.fillings) {
		switch {
		case f.lapsed && !c.fenced(s, f):
			c.drop(s, f)
		case f.lapsed:
			wake = earliest(wake, c.fence(f))
		case c.verdictOf(f) == api.VerdictDead && c.fenced(s, f):
			c.lose(s, f, f.node+" is dead")
			wake = earliest(wake, c.fence(f))
		}
	}
	return wake
}

// resume has a node that is back in the same life stop what lapsed there; see 5.
func (c *Core) resume(f *filling) {
	f.void, f.lapsed = false, false
	if !f.stopping {
		c.stop(f, "its node was taken for dead")
	}
	c.touch(f)
}

// renewalsHeld is how many renewals of a node are held: an agent sends them every
// 200 ms at most, and one that asks for everything serves for those before it.
const renewalsHeld = 8

// renew holds a renewal until a quorum has confirmed this leader. One does not
// replace the one before: agents ask at once for what is new to them, and for that
// only.
func (c *Core) renew(ev Renew) {
	if c.current(ev.Node, ev.Session) == nil {
		return
	}
	held := append(c.renewals[ev.Node], ev)
	c.renewals[ev.Node] = held[max(0, len(held)-renewalsHeld):]
	c.grant()
}

// doubtQuorum: the leader did not run, and its clock may have stood still, too.
// What was asked of a quorum before says nothing of now, even if it answers now.
func (c *Core) doubtQuorum() {
	c.quorumAt = time.Time{}
	if c.inflight {
		c.batches[0].sentAt = time.Time{}
	}
}

// grant answers renewals if the leader may; else the next commit will let it, and
// flush sees to it that there is one.
func (c *Core) grant() {
	if len(c.renewals) == 0 || c.quorumAt.IsZero() || c.now.Sub(c.quorumAt) >= QuorumFresh {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(c.renewals)) {
		for _, ev := range c.renewals[name] {
			c.answerRenewal(ev)
		}
	}
	clear(c.renewals)
}

func (c *Core) answerRenewal(ev Renew) {
	n := c.current(ev.Node, ev.Session)
	if n == nil {
		return
	}
	g := wire.Grant{ID: ev.Renewal.ID}
	for _, k := range ev.Renewal.Keys {
		// Of what is not committed no agent knows, so none asks for it.
		if f := n.fillings[k]; f != nil && f.lease > 0 && !f.stopping && !f.void {
			f.granted = c.now
			g.Leases = append(g.Leases, wire.Lease{Key: k, For: f.lease})
		}
	}
	c.release(SendGrant{Node: n.name, Session: n.session, Grant: g})
}

// earliest gives the earlier of two times, of which zero is none.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
