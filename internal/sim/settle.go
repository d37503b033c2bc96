package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
)

// lookEvery is how often the world is looked at while it settles.
const lookEvery = 500 * time.Millisecond

// settle ends the faults and holds the E invariants: all is as wanted within
// ConvergeWithin, then nothing moves any more (I10), and a new leader that comes
// upon it moves nothing either (I5).
func (w *world) settle() {
	w.heal()
	from := w.clock
	calm := 0
	for calm < 3 {
		w.runFor(lookEvery)
		if w.broken != nil {
			return
		}
		w.uncordon()
		w.bury()
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
		w.takeover()
	}
}

// living are the nodes that came back, with their agents.
func (w *world) living() []*host {
	return slices.DeleteFunc(slices.Clone(w.hosts), func(h *host) bool { return h == w.lost || h == w.mute })
}

// unheard tells whether a placement is on a node whose agent will never say that
// it has stopped.
func (w *world) unheard(p placement) bool { return w.mute != nil && p.node == w.mute.name }

// waitsForMute tells whether a service cannot be gone, for the same reason; nor
// can an exclusive one be settled while it waits for what has no lease there.
func (w *world) waitsForMute(key api.Key) bool {
	return slices.ContainsFunc(w.ledger.pic.of(key), func(k api.ReplicaKey) bool {
		return w.unheard(w.ledger.pic.placements[k]) && (w.ledger.deleting(key) || w.ledger.exclusive(key) && !w.ledger.templates[k].Leased())
	})
}

// standsIn tells whether a spare's incumbent is on that node: as long as its host
// answers and its ports do not it stays suspect, and the spare a spare.
func (w *world) standsIn(spare api.ReplicaKey) bool {
	return slices.ContainsFunc(w.ledger.pic.of(spare.ServiceKey()), func(o api.ReplicaKey) bool {
		p := w.ledger.pic.placements[o]
		return o.Slot == spare.Slot && !p.spare && w.unheard(p)
	})
}

// stoodInFor tells whether something else is in the slot of what is on that node.
func (w *world) stoodInFor(k api.ReplicaKey) bool {
	return slices.ContainsFunc(w.ledger.pic.of(k.ServiceKey()), func(o api.ReplicaKey) bool {
		p := w.ledger.pic.placements[o]
		return o.Slot == k.Slot && !p.stopping && !w.unheard(p)
	})
}

func (g *ledger) deleting(key api.Key) bool {
	s := g.pic.services[key]
	return s != nil && !s.Metadata.DeletedAt.IsZero()
}

// uncordon has an operator open every node that is still cordoned.
func (w *world) uncordon() {
	for _, h := range w.living() {
		if n := w.ledger.pic.nodes[h.name]; n != nil && n.Spec.Unschedulable {
			w.order(w.users[0], h, "uncordon")
		}
	}
}

// bury has an operator remove the node that never comes back where an exclusive
// service waits for what may run there without a lease: no clock tells when that
// ends, only somebody who looks.
func (w *world) bury() {
	l := w.leader()
	if w.lost == nil || l == nil || w.ledger.pic.nodes[w.lost.name] == nil || l.core.Verdict(w.lost.name) != api.VerdictDead {
		return
	}
	for _, k := range w.ledger.pic.sortedPlacements() {
		if w.ledger.pic.placements[k].node == w.lost.name && !w.ledger.templates[k].Leased() {
			w.order(w.users[0], w.lost, "remove")
			return
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
		slots := map[int]bool{}
		ks := w.ledger.pic.of(key)
		for _, k := range ks {
			if p := w.ledger.pic.placements[k]; p.revision == s.Status.Revision && !p.stopping {
				slots[k.Slot] = true
			}
		}
		of[key] = !slices.ContainsFunc(ks, func(k api.ReplicaKey) bool { return w.unheard(w.ledger.pic.placements[k]) }) && fine(newest.template) && len(slots) == s.Spec.Want() && len(ks) == s.Spec.Want()
		all = all && of[key]
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
	if invariant, what := w.unsettled(); invariant != "" {
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
	for _, k := range w.ledger.pic.sortedPlacements() {
		switch p := w.ledger.pic.placements[k]; {
		case w.ledger.pic.services[k.ServiceKey()] == nil:
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
	if what := w.leftovers(); what != "" {
		return "I7", what
	}
	if what := w.endpointsUnsettled(); what != "" {
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
	case u.last != nil && u.colleagues > 0 && s.Metadata.ResourceVersion > u.last.Metadata.ResourceVersion:
		return "" // superseded
	case u.last != nil && versionOf(s) != versionOf(u.last):
		return fmt.Sprintf("service %s is %+v, acknowledged was %+v", u.key, versionOf(s), versionOf(u.last))
	}
	return ""
}

func (w *world) serviceUnsettled(l *lead, key api.Key) string {
	pic := w.ledger.pic
	s := pic.services[key]
	if w.waitsForMute(key) {
		return ""
	}
	if !s.Metadata.DeletedAt.IsZero() {
		return fmt.Sprintf("service %s is still being deleted", key)
	}
	seen, _ := l.view[core.ViewKey{Kind: api.KindService, Namespace: key.Namespace, Name: key.Name}].(*api.Service)
	if seen == nil {
		return fmt.Sprintf("service %s is not published", key)
	}
	newest := pic.revisions[revisionKey{key, s.Status.Revision}]
	if newest == nil {
		return fmt.Sprintf("service %s has no revision %d", key, s.Status.Revision)
	}
	bySlot := map[int][]api.ReplicaKey{}
	for _, k := range pic.of(key) {
		if w.unheard(pic.placements[k]) && (pic.placements[k].stopping || w.stoodInFor(k)) {
			continue
		}
		bySlot[k.Slot] = append(bySlot[k.Slot], k)
		if k.Slot >= s.Spec.Want() {
			return fmt.Sprintf("%s is placed, %d replicas are wanted", k, s.Spec.Want())
		}
	}
	for slot := range s.Spec.Want() {
		if len(bySlot[slot]) == 0 && !w.fullFor(newest) {
			return fmt.Sprintf("slot %d of %s is empty, though a node has room: %v", slot, key, seen.Status.Reasons)
		}
	}
	if seen.Status.Ready < s.Spec.Want() && len(seen.Status.Reasons) == 0 {
		return fmt.Sprintf("%d of %d replicas of %s are ready and it does not say why", seen.Status.Ready, s.Spec.Want(), key)
	}
	if !fine(newest.template) {
		return "" // it said why not
	}
	full := w.fullFor(newest) && slices.ContainsFunc(seen.Status.Reasons, func(r string) bool { return strings.Contains(r, "pending: ") })
	// What has ended counts as missing, and may hold up a rollout for good.
	ended := slices.ContainsFunc(pic.of(key), func(k api.ReplicaKey) bool { return w.endedForGood(l, k) })
	if full || ended {
		for _, k := range pic.of(key) {
			if p := pic.placements[k]; w.unheard(p) {
				continue
			}
			if t := w.templateOf(k); fine(t) && !w.endedForGood(l, k) && len(bySlot[k.Slot]) == 1 && w.notRunning(k, t) != "" {
				return w.notRunning(k, t)
			}
		}
		return ""
	}
	for slot := range s.Spec.Want() {
		ks := bySlot[slot]
		if len(ks) != 1 {
			return fmt.Sprintf("slot %d of %s has %d placements: %v; %v", slot, key, len(ks), ks, seen.Status.Reasons)
		}
		if p := pic.placements[ks[0]]; p.revision != s.Status.Revision && !w.standsIn(ks[0]) { // a contested slot is not rolled
			return fmt.Sprintf("%s has revision %d, wanted is %d; %v", ks[0], p.revision, s.Status.Revision, seen.Status.Reasons)
		}
		if p := pic.placements[ks[0]]; w.unheard(p) {
			if slices.ContainsFunc(seen.Status.Reasons, func(r string) bool {
				return strings.Contains(r, "budget") || strings.Contains(r, "spare waits") || strings.Contains(r, "spares wait")
			}) {
				continue
			}
			return fmt.Sprintf("%s was not relieved, though the agent of %s does not come back; %v", ks[0], p.node, seen.Status.Reasons)
		}
		if what := w.notRunning(ks[0], w.templateOf(ks[0])); what != "" {
			return what + fmt.Sprintf("; the service says %v", seen.Status.Reasons)
		}
	}
	if seen.Status.Ready != s.Spec.Want() && !slices.ContainsFunc(pic.of(key), func(k api.ReplicaKey) bool { return w.unheard(pic.placements[k]) }) {
		return fmt.Sprintf("service %s says %d ready, all %d are; %v", key, seen.Status.Ready, s.Spec.Want(), seen.Status.Reasons)
	}
	return ""
}

// endedForGood tells whether a replica came to its end and its policy wants no
// restart, and the leader says so.
func (w *world) endedForGood(l *lead, k api.ReplicaKey) bool {
	t := w.templateOf(k)
	if t == nil || t.RestartPolicy.Condition != api.RestartNever || w.notRunning(k, t) == "" {
		return false
	}
	r, _ := l.view[core.ViewKey{Kind: api.KindReplica, Namespace: k.Namespace, Name: fmt.Sprintf("%s@%d", k.Name(), k.Epoch)}].(*api.Replica)
	return r != nil && (r.Status.Phase == api.PhaseFailed || slices.ContainsFunc(r.Status.Containers, func(c api.ContainerStatus) bool { return c.State == api.ContainerExited }))
}

// fullFor tells whether no node has room for one more replica, by counting.
func (w *world) fullFor(r *revision) bool {
	pic := w.ledger.pic
	for _, h := range w.living() {
		fits := true
		for label, want := range r.template.NodeSelector {
			fits = fits && h.labels[label] == want
		}
		sum := maps.Clone(r.requests)
		for k, p := range pic.placements {
			o := pic.revisions[revisionKey{k.ServiceKey(), p.revision}]
			if p.node != h.name || o == nil {
				continue
			}
			for name, q := range o.requests {
				sum[name] += q
			}
			fits = fits && !slices.ContainsFunc(o.ports, func(p api.HostPort) bool { return slices.Contains(r.ports, p) })
		}
		for name, q := range sum {
			fits = fits && q <= h.capacity[name]
		}
		if fits {
			return false
		}
	}
	return true
}

// notRunning says what of a replica does not run, or runs twice.
func (w *world) notRunning(k api.ReplicaKey, t *api.Template) string {
	p := w.ledger.pic.placements[k]
	for _, spec := range t.Containers {
		var running []string
		for _, h := range w.hosts {
			if h == w.mute && h.name != p.node {
				continue // nobody there to stop it
			}
			for _, c := range h.runtime.sorted() {
				if c.Running && c.Replica.ServiceKey() == k.ServiceKey() && c.Replica.Slot == k.Slot && c.Name == spec.Name {
					running = append(running, h.name+" "+c.ID)
					if h.name != p.node || c.Replica != k {
						return fmt.Sprintf("%s runs on %s, slot %d is %s on %s", c.ID, h.name, k.Slot, k, p.node)
					}
					if !c.ready(w.clock) && spec.ReadinessProbe != nil {
						return fmt.Sprintf("%s on %s is not ready", c.ID, h.name)
					}
				}
			}
		}
		if len(running) != 1 {
			return fmt.Sprintf("%s %s on %s runs %d times %v", k, spec.Name, p.node, len(running), running)
		}
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
			if w.unheard(w.ledger.pic.placements[k]) {
				continue // it may run there, and stop, without anybody hearing of it
			}
			if t := w.templateOf(k); t != nil && fine(t) && !got[k] && w.notRunning(k, t) == "" {
				return fmt.Sprintf("%s sends no traffic to %s, which is ready", h.name, k)
			}
		}
	}
	return ""
}
