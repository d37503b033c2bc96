package sim

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
)

// rolled is what the ledger keeps of one service's rollouts, independently of what
// their leaders say of them.
type rolled struct {
	stable int64 // the last revision that was rolled out well; 0: none
	of     *api.Revision
	// own is the resourceVersion of the last change that orch made by itself.
	own int64

	// As last decided, whether it was written or not:
	born   map[int64]int64 // when each revision was made
	paused []span          // when it was paused
	// parked is how many slots had the newest revision when it was paused by hand, or
	// failed.
	parked int
}

func (g *ledger) rollsOf(uid string) *rolled {
	if g.rolls[uid] == nil {
		g.rolls[uid] = &rolled{born: map[int64]int64{}}
	}
	return g.rolls[uid]
}

// span is a while, by the clock; to is 0 while it lasts.
type span struct{ from, to int64 }

// isFinal tells a state that no revision leaves.
func isFinal(s api.RolloutState) bool {
	return s == api.RolloutComplete || s == api.RolloutRolledBack || s == api.RolloutSuperseded
}

// rollback tells a revision that nobody asked for.
func (r *revision) rollback() bool { return r.obj.By == byOrch }

// follows tells a revision that is there because a Config or Secret changed.
func (r *revision) follows() bool {
	return strings.HasPrefix(r.obj.Cause, "config ") || strings.HasPrefix(r.obj.Cause, "secret ")
}

// byOrch is who makes a revision that nobody asked for.
const byOrch = "orch"

// ofRevision is what a replica is of.
type ofRevision struct {
	uid    string
	number int64
}

// failures counts the ends of one container that nobody wanted.
type failures struct {
	replica   api.ReplicaKey
	container string
}

// failed: a container has come to an end by itself, or could not be started.
func (g *ledger) failed(k api.ReplicaKey, container string) { g.ends[failures{k, container}]++ }

// rolledOut is the durable side: which revision was rolled out well.
func (g *ledger) rolledOut(c change, changes []change) {
	old, now := g.pic.revisions[revisionKey{c.key, c.number}], c.revision
	if now == nil {
		return
	}
	if old != nil && old.obj.UID == now.obj.UID {
		if !reflect.DeepEqual(old.template, now.template) || !grown(old.obj.Images, now.obj.Images) || !maps.Equal(old.obj.Configs, now.obj.Configs) {
			g.w.violate("I2", "revision %d of %s became another", c.number, c.key)
		}
		if len(now.obj.Images) > len(old.obj.Images) {
			g.w.res.Pinned++
		}
		if s := old.obj.Rollout.State; s != now.obj.Rollout.State && isFinal(s) {
			g.w.violate("rollout", "revision %d of %s was %s and is %s now", c.number, c.key, s, now.obj.Rollout.State)
		}
	}
	if (now.rollback() || now.follows()) && (old == nil || old.obj.UID != now.obj.UID) {
		for _, x := range changes {
			if x.kind == kindService && x.key == c.key && x.service != nil {
				g.rollsOf(now.obj.UID).own = x.service.Metadata.ResourceVersion
			}
		}
	}
	if r := g.rollsOf(now.obj.UID); now.obj.Rollout.State == api.RolloutComplete && c.number > r.stable {
		r.stable, r.of = c.number, &now.obj
	}
}

// rolls holds what a leader decides of rollouts against what it knew.
func (g *ledger) rollsRightly(l *lead, after picture, changes []change) {
	for _, c := range changes {
		switch {
		case c.kind == kindRevision && c.revision != nil:
			old := g.pic.revisions[revisionKey{c.key, c.number}]
			was := api.RolloutState("")
			if old != nil && old.obj.UID == c.revision.obj.UID {
				was = old.obj.Rollout.State
			} else {
				g.rollsOf(c.revision.obj.UID).born[c.number] = max(l.openAt, 1)
				g.made(l, after, changes, c)
			}
			if state := c.revision.obj.Rollout.State; state != was {
				switch state {
				case api.RolloutComplete:
					g.completesRightly(l, after, c.key, c.number)
				case api.RolloutFailed:
					g.w.res.RolloutsFailed++
					g.failsRightly(l, after, c.key, c.number)
				}
			}
		case c.kind == kindService && c.service != nil:
			g.parks(l, after, c.key, c.service)
			if r := after.revisions[revisionKey{c.key, c.service.Status.Revision}]; r != nil && !sameTemplate(&c.service.Spec.Template, r.template) {
				g.w.violate("rollout", "service %s does not have the template of its revision %d", c.key, c.service.Status.Revision)
			}
		}
	}
}

// made: a revision is there because somebody asked, or because the one before failed;
// then it is the last that was rolled out well.
func (g *ledger) made(l *lead, after picture, changes []change, c change) {
	s := after.services[c.key]
	if !c.revision.rollback() {
		if !slices.ContainsFunc(changes, func(x change) bool { return x.kind == kindRequest }) {
			g.w.violate("rollout", "revision %d of %s was made, by %q, though nobody asked for it", c.number, c.key, c.revision.obj.By)
		}
		return
	}
	g.w.res.RolledBack++
	g.w.say("%s rolls %s back: revision %d, %s", l.ctl.name, c.key, c.number, c.revision.obj.Cause)
	if c.revision.obj.SameAs == 0 {
		g.w.violate("rollout", "revision %d of %s is a rollback, and does not say to what", c.number, c.key)
	}
	r := g.rollsOf(c.revision.obj.UID)
	back := func(x *api.Revision) bool {
		return x != nil && sameTemplate(&x.Template, c.revision.template) && maps.Equal(x.Images, c.revision.obj.Images) && maps.Equal(x.Configs, c.revision.obj.Configs)
	}
	if !back(r.of) && !slices.ContainsFunc(changes, func(x change) bool { // it was complete just now
		return x.kind == kindRevision && x.revision != nil && x.key == c.key && x.revision.obj.Rollout.State == api.RolloutComplete && back(&x.revision.obj)
	}) {
		g.w.violate("rollout", "%s is rolled back to revision %d, which is not what was rolled out well last (revision %d)", c.key, c.number, r.stable)
		return
	}
	gone := after.revisions[revisionKey{c.key, c.number - 1}]
	switch {
	case gone == nil || s == nil:
		g.w.violate("rollout", "%s is rolled back by revision %d, and there is none before it", c.key, c.number)
	case gone.rollback():
		g.w.violate("rollout", "%s is rolled back by revision %d, and the one before was a rollback, too", c.key, c.number)
	case s.Spec.Rollout.AutoRollback != nil && !*s.Spec.Rollout.AutoRollback && sameRollback(g.pic.services[c.key], s):
		g.w.violate("rollout", "%s is rolled back by revision %d, though it says autoRollback: false", c.key, c.number)
	default:
		g.failsRightly(l, after, c.key, c.number-1)
	}
}

func sameRollback(a, b *api.Service) bool {
	return a != nil && reflect.DeepEqual(a.Spec.Rollout.AutoRollback, b.Spec.Rollout.AutoRollback)
}

// sameTemplate: both were read from JSON.
func sameTemplate(a, b *api.Template) bool { return reflect.DeepEqual(a, b) }

// parks keeps how far a rollout had come when it was told to go no further.
func (g *ledger) parks(l *lead, after picture, key api.Key, s *api.Service) {
	r, old := g.rollsOf(s.Metadata.UID), g.pic.services[key]
	var was api.RolloutStatus
	if old != nil && old.Metadata.UID == s.Metadata.UID && old.Status.Revision == s.Status.Revision {
		was = old.Status.Rollout
	}
	now := s.Status.Rollout
	if now.PausedBy != "" && was.PausedBy == "" || now.State == api.RolloutFailed && was.State != api.RolloutFailed {
		r.parked = len(after.reached(key, s.Status.Revision))
	}
	last := len(r.paused) - 1
	switch open := last >= 0 && r.paused[last].to == 0; {
	case now.State == api.RolloutPaused && !open:
		r.paused = append(r.paused, span{from: g.w.clock}) // at the latest
	case now.State != api.RolloutPaused && open:
		r.paused[last].to = max(l.openAt, r.paused[last].from) // at the earliest
	}
}

// runs tells whether a revision is another one, or is repeated by it: what runs with
// it counts as running with that.
func (p picture) runs(key api.Key, own, as int64) bool {
	if own == as {
		return true
	}
	a, b := p.revisions[revisionKey{key, own}], p.revisions[revisionKey{key, as}]
	return a != nil && b != nil && b.obj.SameAs != 0 && a.root() == b.root()
}

func (r *revision) root() int64 { return rootOf(&r.obj) }

// rootOf is the first revision that a revision repeats: itself, mostly.
func rootOf(r *api.Revision) int64 {
	if r.SameAs != 0 {
		return r.SameAs
	}
	return r.Number
}

// isNewest tells whether a placement has the newest revision of its service.
func (p picture) isNewest(k api.ReplicaKey, x placement) bool {
	s := p.services[k.ServiceKey()]
	return s != nil && p.runs(k.ServiceKey(), x.revision, s.Status.Revision)
}

// reached are the slots in which a revision is.
func (p picture) reached(key api.Key, revision int64) map[int]bool {
	out := map[int]bool{}
	for k, x := range p.placements {
		if k.ServiceKey() == key && p.runs(key, x.revision, revision) && !x.stopping {
			out[k.Slot] = true
		}
	}
	return out
}

// unbounded is what mayReach gives where nothing holds a rollout.
const unbounded = 1 << 30

// mayReach is how many slots the newest revision may be in by what is stored.
func (g *ledger) mayReach(p picture, key api.Key) int {
	s := p.services[key]
	if s == nil {
		return unbounded
	}
	status, r := s.Status.Rollout, g.rollsOf(s.Metadata.UID)
	newest := p.revisions[revisionKey{key, s.Status.Revision}]
	switch {
	case r.of != nil && newest != nil && (newest.root() == rootOf(r.of) || newest.template.Exclusive != r.of.Template.Exclusive || isSeated(&r.of.Template) && !isSeated(newest.template)):
		return unbounded // it is the stable one, or that could not fill a slot that has no fence, or is freed from its node
	case s.Spec.Rollout.Strategy == api.StrategyRecreate: // the rest of what was there is gone
		return unbounded
	case status.State == api.RolloutComplete, r.stable == 0: // nothing else could be in its place
		return unbounded
	case status.PausedBy != "" || status.State == api.RolloutFailed:
		return r.parked
	case status.Step > 0 && status.Step <= len(s.Spec.Rollout.Canary):
		return s.Spec.Rollout.Canary[status.Step-1].Replicas.Of(g.slots(p, key), true)
	}
	return unbounded
}

// held: the newest revision comes to no more slots than it may, and with recreate to
// none while others run.
func (g *ledger) held(l *lead, after picture, k api.ReplicaKey, p placement) {
	key := k.ServiceKey()
	s, old := after.services[key], g.pic.services[key]
	if s == nil || old == nil || !after.isNewest(k, p) || old.Status.Revision != s.Status.Revision {
		return
	}
	now, before := after.reached(key, s.Status.Revision), g.pic.reached(key, s.Status.Revision)
	if most := max(g.mayReach(g.pic, key), g.mayReach(after, key)); len(now) > most && len(now) > len(before) {
		g.w.violate("rollout", "%s is placed with revision %d, which is in %d slots then; it is held at %d (%s, step %d, paused by %q)",
			k, p.revision, len(now), most, s.Status.Rollout.State, s.Status.Rollout.Step, s.Status.Rollout.PausedBy)
	}
	if s.Spec.Rollout.Strategy != api.StrategyRecreate || old.Spec.Rollout.Strategy != api.StrategyRecreate || s.Spec.Exclusive {
		return
	}
	for _, h := range g.w.hosts {
		if l.know.verdict[h.name] != api.VerdictHealthy || !l.know.wellSince(h.name, l.openSince) || (s.Spec.Mode == api.ModeGlobal || g.seated(after, key)) && (g.closed(l, after, h.name) || !h.takes(&s.Spec.Template)) {
			continue // what belongs there stays until it is let in again
		}
		for _, c := range h.runtime.sorted() {
			if o, placed := g.pic.placements[c.Replica]; placed && c.Running && c.Replica.ServiceKey() == key && !g.pic.isNewest(c.Replica, o) && o.node == h.name && o.boot == h.bootID() && l.know.whole[h.name] {
				g.w.violate("rollout", "%s is placed with revision %d while %s of revision %d runs on %s, though the service is to be recreated", k, p.revision, c.ID, o.revision, h.name)
				return
			}
		}
	}
}

// completesRightly: a revision was rolled out well only when it serves in every slot.
func (g *ledger) completesRightly(l *lead, after picture, key api.Key, number int64) {
	s := after.services[key]
	if s == nil || !s.Metadata.DeletedAt.IsZero() {
		return
	}
	g.w.res.RolloutsComplete++
	counts := map[int]bool{}
	for _, pic := range []picture{g.pic, after} {
		for _, k := range pic.of(key) {
			p := pic.placements[k]
			if pic.runs(key, p.revision, number) && slices.ContainsFunc(l.eventsOf([]api.ReplicaKey{k}), func(e uint64) bool { return l.know.counts(l, after, k, p, e) }) {
				counts[k.Slot] = true
			}
		}
	}
	want := s.Spec.Want()
	if old := g.pic.services[key]; old != nil {
		want = min(want, old.Spec.Want())
	}
	if s.Spec.Mode == api.ModeGlobal {
		for _, k := range g.pic.of(key) {
			if p, still := after.placements[k]; still && !p.stopping && g.wants(after, k, p) && !counts[k.Slot] && !g.closed(l, after, p.node) {
				g.w.violate("rollout", "revision %d of %s is said to be rolled out, and %s on %s does not count", number, key, k, p.node)
			}
		}
		return
	}
	for slot := range want {
		if !counts[slot] && !g.waitsAtHome(l, after, key, slot, number) {
			g.w.violate("rollout", "revision %d of %s is said to be rolled out, and nothing of it counts in slot %d", number, key, slot)
		}
	}
}

// endsOf is how often containers of a replica ended by themselves.
func (g *ledger) endsOf(k api.ReplicaKey) (sum int) {
	for f, n := range g.ends {
		if f.replica == k {
			sum += n
		}
	}
	return sum
}

// endsInSlot likewise, with what ended before it in its slot, of the same revision.
func (g *ledger) endsInSlot(k api.ReplicaKey) int {
	seen, sum := map[api.ReplicaKey]bool{}, 0
	for f := range g.ends {
		if o := f.replica; !seen[o] && o.ServiceKey() == k.ServiceKey() && o.Slot == k.Slot && g.revisions[o] == g.revisions[k] {
			seen[o] = true
			sum += g.endsOf(o)
		}
	}
	return sum
}

// closed tells whether a node takes nothing now: what a global service has there stays,
// and is rolled out later.
func (g *ledger) closed(l *lead, after picture, node string) bool {
	return l.know.unfit[node] != 0 || slices.ContainsFunc([]picture{g.pic, after}, func(p picture) bool { return p.nodes[node] == nil || p.nodes[node].Spec.Unschedulable })
}

// wellFor is how long a replica has to be ready to run well beyond doubt: longer than
// any minReady.
const wellFor = 5 * time.Second

// deadlineShare is what clocks may be wrong by.
const deadlineShare = 97

// failsRightly: a revision fails because its containers do, or because nothing
// happened for its deadline while everything was heard; never because of a node.
func (g *ledger) failsRightly(l *lead, after picture, key api.Key, number int64) {
	s, rev := after.services[key], after.revisions[revisionKey{key, number}]
	if s == nil || rev == nil {
		return
	}
	r := g.rollsOf(s.Metadata.UID)
	deadline := s.Spec.Rollout.ProgressDeadline.Or(api.DefaultProgressDeadline)
	if old := g.pic.services[key]; old != nil {
		deadline = min(deadline, old.Spec.Rollout.ProgressDeadline.Or(api.DefaultProgressDeadline))
	}
	from := max(r.born[number], l.beganAt, l.know.stalledAt)
	lasted := l.know.heardFor(l, key, from, r.paused)
	if lasted >= deadline*deadlineShare/100 {
		return
	}
	all := g.pic.of(key)
	well := slices.ContainsFunc(all, func(k api.ReplicaKey) bool {
		p := g.pic.placements[k]
		if n := l.know.status[k]; n == nil || g.w.clock-since(n.flips, l.events) < int64(wellFor) {
			return false
		}
		return !p.stopping && after.runs(key, p.revision, number) && g.endsOf(k) == 0 && !slices.ContainsFunc(l.eventsOf(all), func(e uint64) bool { return !l.know.counts(l, after, k, p, e) })
	})
	worst := 0
	for f := range g.ends {
		if f.replica.ServiceKey() == key && g.revisions[f.replica].uid == s.Metadata.UID && after.runs(key, g.revisions[f.replica].number, number) {
			worst = max(worst, g.endsInSlot(f.replica))
		}
	}
	missing := imageless(rev.template) && g.w.clock-r.born[number] >= int64(g.w.budgets.RolloutImage*deadlineShare/100)
	switch {
	case worst > 0 && rev.template.RestartPolicy.Condition == api.RestartNever && !well: // it will never be
	case worst < g.w.budgets.RolloutEnds && !missing:
		g.w.violate("rollout", "revision %d of %s is given up after %s, its deadline is %s, though none of its containers ended more than %d times by itself", number, key, lasted, deadline, worst)
	case well:
		g.w.violate("rollout", "revision %d of %s is given up after %s, its deadline is %s, though one of it runs well", number, key, lasted, deadline)
	}
}

// onTrial tells whether nothing of the newest revision serves, and there is another
// that was rolled out well.
func (g *ledger) onTrial(l *lead, after picture, key api.Key) bool {
	s := after.services[key]
	r, newest := g.rollsOf(s.Metadata.UID), after.revisions[revisionKey{key, s.Status.Revision}]
	if r.of == nil || newest == nil || rootOf(r.of) == newest.root() || s.Status.Rollout.State == api.RolloutComplete {
		return false
	}
	all := g.pic.of(key)
	return slices.ContainsFunc(l.eventsOf(all), func(e uint64) bool {
		return !slices.ContainsFunc(all, func(k api.ReplicaKey) bool {
			p := g.pic.placements[k]
			if v, t := l.know.verdictAt(p.node, e), g.templates[k]; t != nil && t.Leased() && v != api.VerdictHealthy && v != api.VerdictBack {
				return false // its lease may have ended, by its leader's clock
			}
			return after.isNewest(k, p) && l.know.available(after, k, p, e)
		})
	})
}
