package core

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/store"
	"github.com/orchctl/orch/reconciler"
	"github.com/orchctl/orch/scheduler"
)

// planDirty plans every dirty service, then places what they want in one batch,
// most important first, so that the scheduler sees all of it.
func (c *Core) planDirty() {
	c.relieve()
	plans := c.planAll(slices.SortedFunc(maps.Keys(c.dirty), compareKeys))
	if c.spending.freed { // those that waited for it have their turn now
		again := slices.SortedFunc(maps.Keys(c.spending.short), compareKeys)
		plans = append(plans, c.planAll(slices.DeleteFunc(again, func(k api.Key) bool {
			return slices.ContainsFunc(plans, func(p planned) bool { return p.s.key == k })
		}))...)
	}
	c.spending.freed = false
	if len(plans) == 0 {
		return
	}
	c.byImportance(plans)
	var groups []scheduler.Group
	wanted := map[api.ReplicaKey]reconciler.Action{}
	budget := admission{c: c, used: c.spending.used, plans: plans}
	for _, p := range plans {
		creates := budget.admit(p)
		for i := range creates {
			// Only a placement spends its epoch; see place.
			creates[i].Key.Epoch = c.counters.epoch + uint64(len(wanted)) + 1
			wanted[creates[i].Key] = creates[i]
		}
		groups = append(groups, p.s.groups(creates, false)...)
	}
	c.place(groups, wanted)
	for _, p := range plans {
		c.beginNext(p.s)
		c.account(p.s)
		c.noteWaiting(p.s)
	}
	c.showDrains()
}

// planAll plans services and carries out what needs no node.
func (c *Core) planAll(keys []api.Key) []planned {
	var plans []planned
	for _, key := range keys {
		s := c.services[key]
		delete(c.dirty, key)
		if s == nil {
			continue
		}
		c.view.touch(s)
		wake := earliest(c.lapseDead(s), c.spentNext(s))
		if c.removeIfDone(s) {
			continue
		}
		plans = append(plans, planned{s: s, creates: c.planService(s, wake)})
		c.account(s)
	}
	return plans
}

// planService carries out what needs no node and gives what does. It is planned
// again by wake, if that is not zero.
func (c *Core) planService(s *service, wake time.Time) []reconciler.Action {
	if s.job != nil {
		return c.planJob(s, wake)
	}
	c.pinLate(s)
	c.settleReliefs(s)
	plan := c.planRollout(s)
	s.waiting, s.budgeted, s.held = plan.Waiting, nil, map[string]int{}
	if s.beginsAlone() && s.want() > 1 {
		s.waiting = append([]string{s.pinWords()}, s.waiting...)
	}
	s.refusedBefore, s.refused = s.refused, map[int]refusal{}
	delete(c.blocked, s.key)
	delete(c.spending.short, s.key)

	for _, r := range c.pendingBound(s) {
		c.refuse(s, r, reconciler.Action{Revision: s.obj.Status.Revision})
	}
	unheard, held := c.unheard(s), false
	var leaves []string              // nodes on which something is to go that cannot be told yet
	for _, a := range plan.Actions { // before an adoption makes spares replicas
		switch {
		case a.Op != reconciler.Remove:
		case c.tooEarly(s, a, unheard):
			leaves = append(leaves, c.fillings[a.Key].node)
		default:
			c.noteRemoval(s, c.fillings[a.Key], a)
		}
	}
	var creates []reconciler.Action
	begun := map[int]bool{} // slots that the newest revision comes to by this plan
	for _, a := range plan.Actions {
		switch {
		case a.Op == reconciler.Create && s.waitsForPin(a.Key.Slot, a.Revision, begun):
			c.blocked[s.key] = true // the one that is there may have found it on a node that was not well
			if s.seated() && len(begun) > 0 && !a.Spare && !unheard && len(c.unknown) == 0 && !(s.exclusive() && c.taken(s, a.Key.Slot)) {
				s.nextToBegin = append(s.nextToBegin, s.avoiding(a))
			}
		case c.tooEarly(s, a, unheard):
			held = true
		case a.Op == reconciler.Create && s.global() && slices.Contains(leaves, a.On):
			held = true // two of it would be there
		case a.Op == reconciler.Create && !a.Spare && a.On == "" && len(c.unknown) > 0:
			// The first agents to return would get everything.
			held, c.blocked[s.key] = true, true
		case a.Op == reconciler.Create && a.Relief && c.frozen.on:
			c.blocked[s.key] = true
			s.waiting = append(s.waiting, "nothing is relieved while verdicts are frozen")
		case a.Op == reconciler.Create && s.exclusive() && c.taken(s, a.Key.Slot):
			// Whoever planned it: what may run there comes first (I6).
			wake = earliest(wake, c.freeAt(s, a.Key.Slot))
		case a.Op == reconciler.Create:
			creates = append(creates, s.avoiding(a))
			if a.Revision == s.obj.Status.Revision {
				begun[a.Key.Slot] = true
			}
		default:
			f := c.fillings[a.Key]
			if f != nil && a.Op == reconciler.Remove && s.wants(f.key.Slot) && !s.deleting() && s.runs(f) == s.obj.Status.Revision {
				a.Why = cmp.Or(s.strays(f), a.Why)
			}
			c.carryOut(s, f, a)
		}
	}
	if len(c.unknown) > 0 && s.obj.Status.Rollout.State != api.RolloutComplete {
		c.blocked[s.key] = true // nothing is concluded of its rollout until then
	}
	if held {
		s.waiting = append(s.waiting, "some nodes have not reported to this leader yet")
	}
	if wake = earliest(earliest(wake, plan.Wake), c.rolloutWake(s)); wake.IsZero() || !wake.Before(never) {
		delete(c.wakes, s.key)
	} else {
		c.wakes[s.key] = wake
	}
	return creates
}

// groups gives what is to be created as the scheduler wants it: identical
// replicas together, by revision. Anywhere: also where it rather is not to be.
func (s *service) groups(creates []reconciler.Action, anywhere bool) []scheduler.Group {
	byRevision := map[int64]*scheduler.Group{}
	for _, a := range creates {
		g := byRevision[a.Revision]
		if g == nil {
			g = &scheduler.Group{Service: s.key, Shape: s.revisions[a.Revision].shape}
			byRevision[a.Revision] = g
		}
		avoid := a.Avoid
		if len(a.Rather) > 0 && !anywhere {
			avoid = slices.Concat(a.Avoid, a.Rather)
		}
		g.Slots = append(g.Slots, scheduler.Slot{Key: a.Key, Avoid: avoid, On: a.On})
	}
	var groups []scheduler.Group
	for _, n := range slices.Sorted(maps.Keys(byRevision)) {
		groups = append(groups, *byRevision[n])
	}
	return groups
}

// carryOut does what a plan says to an existing filling.
func (c *Core) carryOut(s *service, f *filling, a reconciler.Action) {
	if f == nil {
		return
	}
	name := f.key.Name()
	if a.Op != reconciler.Void {
		c.view.touchFilling(f)
	}
	switch a.Op {
	case reconciler.Remove:
		c.stop(f, a.Why)
		if _, why := c.ailsFrom(c.nodes[f.node]); why == "" {
			f.relieve = "" // its node is well and ends it soon
		}
		c.withdraw(f)
		c.unsettle(s.key)
		if a.Relief { // the next one of the service may begin
			c.markDirty(s)
		}
		c.handOver(f)
		c.event(f.key.Namespace, api.KindReplica, name, api.EventNormal, "Stopping", fmt.Sprintf("on %s: %s", f.node, a.Why))
	case reconciler.Void:
		c.lose(s, f, a.Why)
	case reconciler.Adopt:
		f.spare, f.why = false, a.Why
		c.write(store.Put(placementKey(f.key), f.record()))
		c.sendToNode(f.node, c.assignmentOf(f))
		c.event(f.key.Namespace, api.KindReplica, name, api.EventNormal, "Adopted", fmt.Sprintf("the spare on %s is the replica now: %s", f.node, a.Why))
		c.markDirty(s)
	}
}

// stop has a filling go; its agent is told by another, see handOver.
func (c *Core) stop(f *filling, why string) {
	c.carry(c.services[f.key.ServiceKey()], f)
	f.stopping, f.why = true, why
	c.services[f.key.ServiceKey()].seats.settled = false
	c.write(store.Put(placementKey(f.key), f.record()))
}

// noteRemoval counts what is removed because of a node's verdict.
func (c *Core) noteRemoval(s *service, f *filling, a reconciler.Action) {
	if f == nil || s.deleting() || !s.wants(f.key.Slot) {
		return
	}
	beside := func(spare bool) bool {
		return slices.ContainsFunc(s.inSlot(f.key.Slot), func(x *filling) bool { return x != f && x.spare == spare && !x.void })
	}
	r := s.reliefs[f.key.Slot]
	switch {
	case r != nil && r.kind != ailing:
	case a.Relief:
		c.did(f.node, func(d *api.Done) { d.Relieved++ })
	case f.spare && beside(false):
		c.did(c.standsFor(s, f.key.Slot), func(d *api.Done) { d.SparesRemoved++ })
	case !f.spare && beside(true):
		c.did(f.node, func(d *api.Done) { d.IncumbentsRemoved++ })
	}
}

// noteWaiting tells of each node's latest verdict how many spares wait because of it.
func (c *Core) noteWaiting(s *service) {
	for slot, r := range s.refused {
		if x := s.reliefs[slot]; r.spare && (x == nil || x.kind == ailing) {
			s.held[c.standsFor(s, slot)]++
		}
	}
	for _, node := range slices.Sorted(maps.Keys(s.held)) {
		if more := s.held[node] - s.heldBefore[node]; more != 0 {
			c.did(node, func(d *api.Done) { d.SparesWaiting = max(0, d.SparesWaiting+more) })
		}
	}
	for _, node := range slices.Sorted(maps.Keys(s.heldBefore)) {
		if _, still := s.held[node]; !still {
			c.did(node, func(d *api.Done) { d.SparesWaiting = max(0, d.SparesWaiting-s.heldBefore[node]) })
		}
	}
	s.heldBefore = s.held
}

// place finds nodes and commits the placements.
func (c *Core) place(groups []scheduler.Group, wanted map[api.ReplicaKey]reconciler.Action) {
	if len(groups) == 0 {
		return
	}
	placements, refusals := scheduler.Place(c.fleet, groups)
	more, refusals := c.placeAnywhere(refusals, wanted)
	for i, p := range append(placements, more...) {
		c.counters.epoch = max(c.counters.epoch, p.Key.Epoch)
		a := wanted[p.Key]
		s := c.services[p.Key.ServiceKey()]
		n := c.nodes[p.Node]
		f := &filling{key: p.Key, node: p.Node, bootID: n.obj.Status.BootID, revision: a.Revision, serviceUID: s.obj.Metadata.UID,
			spare: a.Spare, why: a.Why, chosen: chosenWords(p, a.On != "", i >= len(placements)), placedAt: c.now}
		if s.runs(f) == s.obj.Status.Revision {
			f.carried = s.progress.ended[f.key.Slot]
		}
		f.trace = c.traceOf(s, f)
		s.insert(f)
		c.index(f, s.revisions[f.revision])
		c.write(append(c.bind(s, f), store.Put(placementKey(f.key), f.record()))...)
		c.sendToNode(f.node, c.assignmentOf(f))
		c.event(f.key.Namespace, api.KindReplica, f.key.Name(), api.EventNormal, placedReason(s, f, a), fmt.Sprintf("on %s: %s; %s", p.Node, a.Why, f.chosen))
		r := s.reliefs[f.key.Slot]
		if a.Relief && r != nil {
			r.since = c.now // however long it waited for room
			c.noteTry(s, r, p.Node)
		}
		if f.spare && (r == nil || r.kind == ailing) {
			c.did(c.standsFor(s, f.key.Slot), func(d *api.Done) { d.SparesPlaced++ })
		}
		if s.job != nil {
			c.begunJob(s)
		}
		c.view.touch(s)
	}
	for _, r := range refusals {
		s := c.services[r.Key.ServiceKey()]
		r.Reason = c.refusedAt(s, r)
		c.refuse(s, r, wanted[r.Key])
		c.view.touch(s)
	}
}

// placedReason tells apart why a replica is placed.
func placedReason(s *service, f *filling, a reconciler.Action) string {
	r := s.reliefs[f.key.Slot]
	switch {
	case a.Relief && r != nil && r.kind == moved:
		return "Moving"
	case a.Relief:
		return "Relieving"
	case f.spare:
		return "SparePlaced"
	}
	return "Placed"
}

// placeAnywhere tries again what was refused and has nodes that it rather is not to use:
// no other is fit.
func (c *Core) placeAnywhere(refused []scheduler.Refusal, wanted map[api.ReplicaKey]reconciler.Action) ([]scheduler.Placement, []scheduler.Refusal) {
	var left []scheduler.Refusal
	var groups []scheduler.Group
	for _, r := range refused {
		a := wanted[r.Key]
		if len(a.Rather) == 0 {
			left = append(left, r)
			continue
		}
		groups = append(groups, c.services[r.Key.ServiceKey()].groups([]reconciler.Action{a}, true)...)
	}
	if len(groups) == 0 {
		return nil, left
	}
	placed, still := scheduler.Place(c.fleet, groups)
	return placed, append(left, still...)
}

// refuse remembers why a slot has no node; a refusal that only lasts is told once.
func (c *Core) refuse(s *service, r scheduler.Refusal, a reconciler.Action) {
	now := refusal{revision: a.Revision, spare: a.Spare, reason: r.Reason, since: c.now}
	before, again := s.refusedBefore[r.Key.Slot]
	if again {
		now.since = before.since
	}
	if now.revision == s.obj.Status.Revision && (!again || before.revision != now.revision) && s.beginsAlone() {
		c.markDirty(s) // another slot may go first; see beginsIn
	}
	s.refused[r.Key.Slot] = now
	c.blocked[s.key] = true
	c.reliefs.due = c.reliefs.due || a.Relief // it no longer holds the budget
	if x := s.reliefs[r.Key.Slot]; a.Relief && x != nil && x.kind == moved {
		c.giveUpMove(s, x)
		return
	}
	if x := s.reliefs[r.Key.Slot]; a.Relief && x != nil && x.kind == tried {
		c.giveUpTry(s, x)
		return
	}
	if s.refusedBefore[r.Key.Slot].reason != r.Reason {
		c.event(r.Key.Namespace, api.KindReplica, r.Key.Name(), api.EventWarning, "Pending", r.Reason)
	}
}

// viewOf gives the reconciler what it needs of a service.
func (c *Core) viewOf(s *service) reconciler.View {
	c.seat(s)
	n := s.want()
	v := reconciler.View{Service: s.key, Deleting: s.deleting(), Replicas: n, Revision: s.obj.Status.Revision,
		MaxSurge: s.obj.Spec.Surge(n), MaxUnavailable: s.obj.Spec.Unavailable(n), Exclusive: s.exclusive(),
		Global: s.global(), Bound: s.withVolumes(), Seats: s.seats.of}
	c.bound(s, &v)
	for _, f := range s.fillings {
		x := reconciler.Filling{Key: f.key, Revision: s.runs(f), Node: f.node, Verdict: c.verdictOf(f),
			Phase: f.status.Phase, Ready: f.status.Ready && !c.spent(f), ReadySince: f.readySince, Stopping: f.stopping, Spare: f.spare, Relieve: f.relieve,
			Final: s.revisions[f.revision].final(f.status)}
		if s.strays(f) != "" {
			x.Revision = 0 // it is rolled as what is of an old one
		}
		if n := c.nodes[f.node]; n != nil {
			x.Damped = n.damped()
			if x.Relieve == "" && s.reliefs[f.key.Slot] != nil {
				// What is beside it in the slot and ails as long relieves nothing.
				if from, why := c.reliefOf(n); why != "" && !from.After(c.now) {
					x.Relieve = why
				}
			}
			if _, ails := c.ailsFrom(n); ails == "" && !f.reported {
				x.Relieve = "" // what its node is drained of is heard first; it is about to speak
			}
			x.Overdue = c.overdue(n)
		}
		if v.Exclusive {
			x.Leased, x.FencedAt = f.lease > 0, c.fence(f)
		}
		switch {
		case f.lapsed && f.lease > 0:
			if v.Fenced == nil {
				v.Fenced = map[int]time.Time{}
			}
			v.Fenced[f.key.Slot] = later(v.Fenced[f.key.Slot], x.FencedAt)
			continue
		case f.lapsed: // it has no fence: it is waited for as if its node were suspect
			x.Verdict = api.VerdictSuspect
		}
		if x.Verdict == api.VerdictBack && !f.reported { // what it last said does not count; it is about to speak
			x.Phase, x.Ready = api.PhaseAssigned, false
		}
		v.Fillings = append(v.Fillings, x)
	}
	return v
}

// verdictOf is the verdict of the filling's node, in the life for which it was placed.
func (c *Core) verdictOf(f *filling) api.Verdict {
	n := c.nodes[f.node]
	if f.void || n == nil {
		return api.VerdictDead
	}
	return n.verdict
}

// unheard tells whether a node that holds replicas of the service has not
// reported in this term: what runs there is unknown, and unknown is not absent. A
// lost agent is not waited for beyond its grace: it may never come back.
func (c *Core) unheard(s *service) bool {
	return slices.ContainsFunc(s.fillings, func(f *filling) bool {
		switch c.verdictOf(f) {
		case api.VerdictUnknown:
			return true
		case api.VerdictHealthy:
			return !c.nodes[f.node].reported
		case api.VerdictAgentLost:
			return !c.nodes[f.node].reported && !c.nodes[f.node].lostForLong
		}
		return false
	})
}

// tooEarly tells whether an action has to wait for an agent's word: of any of the
// service's nodes, where it is unheard, or of the node that it is about. That is for
// what a global service is to lose for its number alone: another node has taken the
// slot, perhaps only because this one has not said yet what serves here.
func (c *Core) tooEarly(s *service, a reconciler.Action, unheard bool) bool {
	if f := c.fillings[a.Key]; f != nil && a.Op == reconciler.Remove && s.global() {
		unheard = unheard || c.verdictOf(f) == api.VerdictBack && !f.reported
	}
	return unheard && !c.harmless(s, a)
}

// harmless actions rest on what is durable alone.
func (c *Core) harmless(s *service, a reconciler.Action) bool {
	switch a.Op {
	case reconciler.Create:
		return !slices.ContainsFunc(s.fillings, func(f *filling) bool { return f.key.Slot == a.Key.Slot && !f.stopping }) || a.Spare
	case reconciler.Remove:
		if s.deleting() || !s.wants(a.Key.Slot) {
			return true
		}
		// What relieves it is heard and serves; what it itself does was last heard of
		// before its agent was lost, or will be soon.
		f := c.fillings[a.Key]
		_, why := c.ailsFrom(c.nodes[f.node])
		return a.Relief && (f.reported || why != "")
	}
	return true
}

// dryRun says in words what a first pass over the service would do. Placing is
// tried on the real fleet and taken back.
func (c *Core) dryRun(s *service) []string {
	var out []string
	var actions, creates []reconciler.Action
	if s.fresh {
		s.newest().assumed = true // all of what comes is to be told, not how it begins
	}
	if s.job != nil {
		actions = reconciler.PlanJob(c.jobView(s), c.now).Actions
	} else {
		actions = reconciler.Plan(c.viewOf(s), c.now).Actions
	}
	for _, a := range actions {
		out = append(out, a.String())
		if a.Op == reconciler.Create {
			a.Key.Epoch = c.counters.epoch + uint64(len(out))
			creates = append(creates, a)
		}
	}
	placed, refused := scheduler.Place(c.fleet, s.groups(creates, true))
	for _, p := range placed {
		c.fleet.Unbind(p.Key)
	}
	for _, r := range append(refused, c.pendingBound(s)...) {
		out = append(out, pendingLine(r.Key.Name(), "would be pending", r.Reason))
	}
	return out
}
