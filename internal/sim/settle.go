package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
)

// lookEvery is how often the world is looked at while it settles.
const lookEvery = 500 * time.Millisecond

// settle ends the faults and holds the E invariants: all is as wanted within
// ConvergeWithin, then nothing moves any more (I10), and a new leader that comes
// upon it moves nothing either (I5).
func (w *world) settle() {
	w.heal()
	w.drainsEnd()
	from := w.clock
	calm := 0
	for calm < 3 {
		w.runFor(lookEvery)
		if w.broken != nil {
			return
		}
		w.uncordon()
		w.bury()
		w.beginAnew()
		invariant, what := w.unsettled()
		if calm++; invariant != "" {
			calm = 0
		}
		if w.clock-from > int64(ConvergeWithin) {
			if invariant != "" {
				w.violate(invariant, "%s after everything healed: %s", ConvergeWithin, what)
			} else {
				w.violate("I1", "%s after everything healed the world does not stay as wanted", ConvergeWithin)
			}
			return
		}
	}
	w.res.Settled = time.Duration(w.clock - from)
	w.say("all is as wanted")
	w.quiet("I10", "though nothing changed", false)
	if w.broken == nil {
		w.evenOut()
	}
	if w.broken == nil {
		w.takeover()
	}
}

// uncordon has an operator open every node that is still cordoned.
func (w *world) uncordon() {
	for _, h := range w.living() {
		if n := w.ledger.pic.nodes[h.name]; n != nil && n.Spec.Unschedulable {
			w.order(w.users[0], h, "uncordon")
		}
	}
}

// fingerprint is what may not change in a quiet world: placements and runs of
// the services that have all they want. Others may go on trying.
func (w *world) fingerprint(of map[api.Key]bool) string {
	var b strings.Builder
	for _, k := range w.ledger.pic.sortedPlacements() {
		if of[k.ServiceKey()] {
			fmt.Fprintf(&b, "%s %+v\n", k, w.ledger.pic.placements[k])
		}
	}
	for _, h := range w.hosts {
		for _, c := range h.runtime.sorted() {
			if of[c.Replica.ServiceKey()] && !w.hurried(c.Replica) {
				fmt.Fprintf(&b, "%s %s %s\n", h.name, c.ID, c.StartedAt.Format(time.StampMicro))
			}
		}
	}
	return b.String()
}

// takeoverMax is how long nobody may lead when a leader is killed, and agents
// may look for the next one.
const takeoverMax = 4 * time.Second

// hurried tells whether a replica's lease may end while nobody leads.
func (w *world) hurried(k api.ReplicaKey) bool {
	t := w.templateOf(k)
	return t != nil && t.Leased() && t.Lease()-t.TerminationGracePeriod.Or(api.DefaultGrace)-api.LeaseKill-2*api.LeaseDrift(t.Lease()) < takeoverMax*4/3
}

func (w *world) longestLease() time.Duration {
	var d time.Duration
	for _, s := range w.ledger.pic.services {
		d = max(d, s.Spec.Lease())
	}
	return d
}

// complete are the services that have all they want.
func (w *world) complete() (of map[api.Key]bool, all bool) {
	of, all = map[api.Key]bool{}, true
	for key, s := range w.ledger.pic.services {
		newest := w.ledger.pic.revisions[revisionKey{key, s.Status.Revision}]
		ks, want := w.ledger.pic.of(key), w.ledger.slots(w.ledger.pic, key)
		of[key] = !slices.ContainsFunc(ks, func(k api.ReplicaKey) bool { return w.unheard(w.ledger.pic.placements[k]) }) && fine(newest.template) &&
			s.Status.Rollout.State == api.RolloutComplete && len(w.ledger.pic.reached(key, s.Status.Revision)) == want && len(ks) == want
		all = all && of[key]
	}
	for _, j := range w.ledger.pic.jobs {
		all = all && j.Status.Ended()
	}
	return of, all
}

func (w *world) templateOf(k api.ReplicaKey) *api.Template {
	if p, ok := w.ledger.pic.placements[k]; ok {
		if r := w.ledger.pic.revisions[revisionKey{k.ServiceKey(), p.revision}]; r != nil {
			return r.template
		}
	}
	return nil
}

// quiet lets time pass in which nothing may happen to services that are
// complete, and nothing at all if all of them are.
func (w *world) quiet(invariant, why string, takeover bool) {
	of, all := w.complete()
	before, commits := w.fingerprint(of), w.res.Writes
	w.runFor(max(QuietFor, w.longestLease()*5/4)) // no lease may end
	if w.broken != nil {
		return
	}
	if after := w.fingerprint(of); after != before {
		w.violate(invariant, "something moved %s:\n%s\nwas\n%s", why, after, before)
	}
	if all && !takeover && w.res.Writes != commits {
		w.violate(invariant, "%d transactions were written %s", w.res.Writes-commits, why)
	}
}

// takeover kills the leader in the settled world.
func (w *world) takeover() {
	l := w.leader()
	l.ctl.kill()
	w.after(100*time.Millisecond, l.ctl.start)
	w.quiet("I5", "when a new leader came", true)
	w.quiet("I5", "after a new leader came", true)
	if w.broken != nil {
		return
	}
	if w.mute != nil {
		return // what is there is unknown again, and its grace begins anew
	}
	invariant, what := w.unsettled()
	for from := w.clock; invariant != "" && w.broken == nil && w.clock-from < int64(QuietFor); { // what fails is tried elsewhere anew
		w.runFor(lookEvery)
		invariant, what = w.unsettled()
	}
	if invariant != "" && w.broken == nil {
		w.violate(invariant, "after a new leader came: %s", what)
	}
}

func (w *world) leader() *lead {
	for _, c := range w.controllers {
		if c.lead != nil && c.lead.core != nil && c.lead.lease.Term == w.ledger.term {
			return c.lead
		}
	}
	return nil
}

// unsettled names an E invariant that does not hold yet, and what is amiss.
func (w *world) unsettled() (invariant, what string) {
	l := w.leader()
	switch {
	case w.clock < w.lingering:
		return "sim", "a commit from before is still on its way"
	case l == nil:
		return "I1", "nobody leads"
	}
	if w.lost != nil && w.ledger.pic.nodes[w.lost.name] != nil && l.core.Verdict(w.lost.name) != api.VerdictDead {
		return "I1", w.lost.name + ", which never comes back, is not held for dead yet"
	}
	if l.core.Frozen() {
		return "I1", "verdicts are frozen"
	}
	if w.lost != nil {
		if _, damped := l.core.Trouble(w.lost.name); damped {
			return "I1", w.lost.name + " is still damped"
		}
	}
	for _, h := range w.living() {
		if v := l.core.Verdict(h.name); v != api.VerdictHealthy {
			return "I1", fmt.Sprintf("%s is held for %s", h.name, v)
		}
		if impaired, damped := l.core.Trouble(h.name); impaired || damped {
			return "I1", fmt.Sprintf("%s is held for impaired (%t) or damped (%t)", h.name, impaired, damped)
		}
		if n := w.ledger.pic.nodes[h.name]; n == nil || n.Spec.Unschedulable {
			return "I1", h.name + " is not stored yet, or cordoned"
		}
	}
	for _, u := range w.users {
		if w.ledger.deleting(u.key) && w.waitsForMute(u.key) {
			continue
		}
		if u.pending != nil {
			return "I2", "a user waits for an answer to " + u.pending.words
		}
		if what := u.missed(); what != "" {
			return "I2", what
		}
	}
	if what := w.ownersUnsettled(); what != "" {
		return "I2", what
	}
	if what := w.volumesUnsettled(); what != "" {
		return "I7", what
	}
	for _, k := range w.ledger.pic.sortedPlacements() {
		switch p := w.ledger.pic.placements[k]; {
		case w.ledger.pic.services[k.ServiceKey()] == nil && w.ledger.pic.jobs[k.ServiceKey()] == nil:
			return "I7", fmt.Sprintf("%s is placed for a service that is gone", k)
		case w.lost != nil && p.node == w.lost.name:
			return "I1", fmt.Sprintf("%s is placed on %s, which is dead", k, p.node)
		case p.stopping && w.unheard(p):
		case p.stopping:
			return "I7", fmt.Sprintf("%s is still stopping on %s", k, p.node)
		case p.spare && fine(w.templateOf(k)) && !w.standsIn(k) && !w.unheard(p): // where neither ever serves, neither has to go
			return "I1", fmt.Sprintf("%s on %s is still a spare", k, p.node)
		}
	}
	for _, key := range w.ledger.pic.sortedServices() {
		if what := w.serviceUnsettled(l, key); what != "" {
			return "I1", what
		}
	}
	for _, key := range sortedOf(w.ledger.pic.jobs, compareServices) {
		if what := w.jobUnsettled(l, key); what != "" {
			return "jobs", what
		}
	}
	if what := w.leftovers(); what != "" {
		return "I7", what
	}
	if what := w.endpointsUnsettled(); what != "" {
		return "I8", what
	}
	if what := w.networkUnsettled(); what != "" {
		return "I8", what
	}
	return "", ""
}

// missed says what of the last acknowledged request of a user is not there.
func (u *user) missed() string {
	s := u.w.ledger.pic.services[u.key]
	switch {
	case u.last == nil && s != nil && s.Metadata.DeletedAt.IsZero():
		return fmt.Sprintf("service %s is there, though its delete was acknowledged", u.key)
	case u.last != nil && s == nil:
		return fmt.Sprintf("service %s is not there, though its apply was acknowledged", u.key)
	case u.last != nil && s.Metadata.UID == u.last.Metadata.UID && u.w.ledger.rollsOf(s.Metadata.UID).own > u.last.Metadata.ResourceVersion:
		return "" // it was rolled back since, or takes other values
	case u.last != nil && u.colleagues > 0 && s.Metadata.ResourceVersion > u.last.Metadata.ResourceVersion:
		return "" // superseded
	case u.last != nil && versionOf(s) != versionOf(u.last):
		return fmt.Sprintf("service %s is %+v, acknowledged was %+v", u.key, versionOf(s), versionOf(u.last))
	}
	return ""
}

// leftovers: I7. What nobody wants is gone.
func (w *world) leftovers() string {
	for _, h := range w.living() {
		for _, c := range h.runtime.sorted() {
			if p, ok := w.ledger.pic.placements[c.Replica]; !ok || p.node != h.name {
				return fmt.Sprintf("%s still has container %s, which nobody wants", h.name, c.ID)
			}
		}
		for _, k := range slices.SortedFunc(maps.Keys(h.runtime.networks), compareReplicas) {
			if p, ok := w.ledger.pic.placements[k]; !ok || p.node != h.name {
				return fmt.Sprintf("%s still has the network of %s, which nobody wants", h.name, k)
			}
		}
	}
	return ""
}

// endpointsUnsettled: every agent sends traffic to what is ready, all of it and
// nothing else. What goes up and down by itself is left out.
func (w *world) endpointsUnsettled() string {
	for _, h := range w.living() {
		if h.agent.plan == nil || h.agent.session == nil {
			return h.name + " has no session"
		}
		got := map[api.ReplicaKey]bool{}
		for _, e := range h.agent.plan.Endpoints() {
			got[e.Replica] = true
			// Of an agent that the new leader never heard the others keep what they know.
			if e.Degraded && !w.unheard(w.ledger.pic.placements[e.Replica]) {
				return fmt.Sprintf("%s sends traffic to %s as degraded", h.name, e.Replica)
			}
			if _, ok := w.ledger.pic.placements[e.Replica]; !ok {
				return fmt.Sprintf("%s sends traffic to %s, which is not placed any more", h.name, e.Replica)
			}
		}
		for _, k := range w.ledger.pic.sortedPlacements() {
			if w.unheard(w.ledger.pic.placements[k]) || w.ledger.isJob(k) {
				continue // it may run there, and stop, without anybody hearing of it
			}
			if t := w.templateOf(k); t != nil && fine(t) && !got[k] && w.notRunning(k, t) == "" {
				return fmt.Sprintf("%s sends no traffic to %s, which is ready", h.name, k)
			}
		}
	}
	return ""
}
