package core

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/reconciler"
)

// A replica that ends again and again while others of its revision are ready on other
// nodes may have a bad node, whatever that says of itself: it is relieved, as if its
// node ailed. It may as well be the replica: so that is tried a few times, one of a
// service at a time, and then it stays where it is. Nothing of it is durable: a new
// leader counts anew.

// tries are where a slot's replica of one revision was, and ended again and again.
type tries struct {
	revision int64
	nodes    []string
	again    time.Time // not before: no other node would take it; zero: at any time
}

// endsIn counts how often a replica's containers have ended, but for those that are
// not started again: an init container that has done its work.
func endsIn(s api.ReplicaStatus) int {
	n := 0
	for _, ct := range s.Containers {
		if ct.State != api.ContainerExited {
			n += ct.Restarts
		}
	}
	return n
}

// noteEnds counts the ends of a replica's containers in a row, before its new status
// takes the place of the old one. What was before this leader heard of it does not
// count, nor what it did unseen, or before it was ready for long, nor the end of a lease.
func (c *Core) noteEnds(f *filling, s api.ReplicaStatus, unseen bool) {
	all := endsIn(s)
	switch {
	case unseen || leaseEnded(s):
		f.endsForgiven = all
	case c.ranWell(f):
		f.endsForgiven, f.carried = endsIn(f.status), 0
		delete(c.services[f.key.ServiceKey()].progress.ended, f.key.Slot)
	}
	f.inRow = max(0, all-f.endsForgiven)
	if f.job { // it is tried elsewhere when it has ended
		return
	}
	if f.inRow >= c.budgets.FailingEnds {
		c.reliefs.failing[f.key] = true
	} else {
		delete(c.reliefs.failing, f.key)
	}
}

// ranWell tells whether a replica has been ready for as long as makes a run good.
func (c *Core) ranWell(f *filling) bool {
	policy := c.services[f.key.ServiceKey()].revisions[f.revision].Template.RestartPolicy
	return !f.readySince.IsZero() && c.now.Sub(f.readySince) >= policy.ResetAfter.Or(api.DefaultResetAfter)
}

// relieveFailing begins to try elsewhere what fails where it is, and gives the room
// that is left. It costs the replicas that fail, and once those of their services.
func (c *Core) relieveFailing(room int) int {
	if room <= 0 || len(c.reliefs.failing) == 0 {
		return room
	}
	wells := map[revisionOf][]*filling{}
	for _, key := range slices.SortedFunc(maps.Keys(c.reliefs.failing), compareReplicas) {
		f := c.fillings[key]
		if c.ranWell(f) {
			delete(c.reliefs.failing, key)
			continue
		}
		s := c.services[key.ServiceKey()]
		if room <= 0 || !s.mayRelieve(tried) || !c.mayTry(s, f) {
			continue
		}
		of := revisionOf{s.key, s.runs(f)}
		if _, looked := wells[of]; !looked {
			wells[of] = c.wells(s, of.revision)
		}
		i := slices.IndexFunc(wells[of], func(x *filling) bool { return x.node != f.node })
		if i < 0 {
			continue // nothing says that the node is at fault
		}
		well := wells[of][i]
		t := s.triesOf(f)
		if t.again.After(c.now) {
			c.reliefs.at = earliest(c.reliefs.at, t.again)
			continue
		}
		t.nodes, t.again = append(t.nodes, f.node), time.Time{}
		why := fmt.Sprintf("it ended %d times in a row on %s, and %s of the same revision is ready on %s", f.inRow, f.node, well.key.Name(), well.node)
		c.beginRelief(s, f, tried, why)
		room--
	}
	return room
}

// mayTry tells whether a replica that fails may be tried elsewhere: its node is well,
// else that is what it is relieved for, nothing else goes on in its slot, no rollout is
// to replace it, and it was not tried often enough.
func (c *Core) mayTry(s *service, f *filling) bool {
	n := c.nodes[f.node]
	if s.exclusive() || !c.relievable(s, f) || f.spare || len(s.inSlot(f.key.Slot)) > 1 || !f.reported || c.verdictOf(f) != api.VerdictHealthy {
		return false
	}
	if _, why := c.reliefOf(n); why != "" {
		return false
	}
	if s.runs(f) != s.obj.Status.Revision && s.obj.Status.Rollout.State != api.RolloutPaused {
		return false
	}
	return len(s.triesOf(f).nodes) < c.budgets.FailingMoves
}

// revisionOf is a revision of a service.
type revisionOf struct {
	api.Key
	revision int64
}

// wells gives replicas of a revision that are ready, on two nodes at most: so of all
// that fail each finds one on another node than its own, if there is any.
func (c *Core) wells(s *service, revision int64) []*filling {
	var out []*filling
	for _, x := range s.fillings {
		if s.runs(x) != revision || x.stopping || x.void || !x.status.Ready || c.verdictOf(x) != api.VerdictHealthy || c.reliefs.failing[x.key] {
			continue
		}
		if len(out) == 0 || out[0].node != x.node {
			if out = append(out, x); len(out) == 2 {
				break
			}
		}
	}
	return out
}

// triesOf gives the tries of the filling's slot and revision.
func (s *service) triesOf(f *filling) *tries {
	t := s.tries[f.key.Slot]
	if t == nil || t.revision != s.runs(f) {
		if s.tries == nil {
			s.tries = map[int]*tries{}
		}
		t = &tries{revision: s.runs(f)}
		s.tries[f.key.Slot] = t
	}
	return t
}

// forgetTries is for slots that are not wanted any more.
func (s *service) forgetTries() {
	maps.DeleteFunc(s.tries, func(slot int, _ *tries) bool { return s.seated() || !s.wants(slot) })
}

// stillTried tells whether the relief of a replica that fails goes on: not if it runs
// well after all, no other node takes it, or it may have nothing beside it any more.
func (c *Core) stillTried(s *service, f *filling) bool {
	return !s.exclusive() && c.reliefs.failing[f.key] && !c.ranWell(f) && c.verdictOf(f) == api.VerdictHealthy && !s.triesOf(f).again.After(c.now)
}

// giveUpTry lets a try go that finds no place; it may be made again later.
func (c *Core) giveUpTry(s *service, r *relief) {
	t := s.triesOf(r.incumbent)
	if len(t.nodes) > 0 {
		t.nodes = t.nodes[:len(t.nodes)-1]
	}
	t.again = c.now.Add(c.budgets.ReliefPatience)
	delete(s.refused, r.incumbent.key.Slot)
	c.wakes[s.key] = c.now
}

// avoiding keeps what relieves a replica that fails away from where it failed before.
func (s *service) avoiding(a reconciler.Action) reconciler.Action {
	r := s.reliefs[a.Key.Slot]
	if r == nil || r.kind != tried || !a.Spare {
		return a
	}
	a.Avoid = slices.Concat(a.Avoid, s.triesOf(r.incumbent).nodes)
	slices.Sort(a.Avoid)
	a.Avoid = slices.Compact(a.Avoid)
	return a
}

// failingWords says of a replica that ends again and again what orch does about it; ""
// of any other.
func (c *Core) failingWords(s *service, f *filling) string {
	if !c.reliefs.failing[f.key] || f.stopping {
		return ""
	}
	if r := s.reliefs[f.key.Slot]; r != nil && r.kind == tried && r.incumbent == f {
		return f.relieve + ": it is tried on another node"
	}
	t := s.tries[f.key.Slot]
	if t == nil || t.revision != s.runs(f) || len(t.nodes) == 0 {
		return ""
	}
	return fmt.Sprintf("it ended %d times in a row on %s, and as often on %s, where it was before", f.inRow, f.node, strings.Join(t.nodes, " and "))
}

// noteTry tells, once it has a node, that a replica is tried there.
func (c *Core) noteTry(s *service, r *relief, node string) {
	if f := r.incumbent; r.kind == tried {
		c.event(f.key.Namespace, api.KindReplica, f.key.Name(), api.EventWarning, "TriedElsewhere",
			fmt.Sprintf("on %s: %s (%d of %d tries)", node, f.relieve, len(s.triesOf(f).nodes), c.budgets.FailingMoves))
	}
}
