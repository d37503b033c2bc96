package sim

import (
	"fmt"
	"maps"
	"slices"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
)

// wants tells whether what is in a slot is in one that the service is to have: by its
// number, or in a global service by its node.
func (g *ledger) wants(pic picture, k api.ReplicaKey, p placement) bool {
	s := pic.services[k.ServiceKey()]
	switch {
	case s == nil || !s.Metadata.DeletedAt.IsZero():
		return false
	case s.Spec.Mode != api.ModeGlobal:
		return k.Slot < s.Spec.Want()
	}
	n, newest := pic.nodes[p.node], pic.revisions[revisionKey{s.Metadata.Key(), s.Status.Revision}]
	return n != nil && newest != nil && n.Spec.Drain == nil && n.Status.Verdict != api.VerdictDead && g.w.host(p.node).takes(newest.template)
}

// takes tells whether a template may run here, by labels.
func (h *host) takes(t *api.Template) bool {
	for label, want := range t.NodeSelector {
		if h.labels[label] != want {
			return false
		}
	}
	return true
}

// slots is how many a service has: in a global one those nodes that have one.
func (g *ledger) slots(pic picture, key api.Key) int {
	if j := pic.jobs[key]; j != nil {
		return j.Spec.Want()
	}
	s := pic.services[key]
	if s.Spec.Mode != api.ModeGlobal {
		return s.Spec.Want()
	}
	nodes := map[string]bool{}
	for k, p := range pic.placements {
		if k.ServiceKey() == key && g.wants(pic, k, p) {
			nodes[p.node] = true
		}
	}
	return len(nodes)
}

// seats likewise, as a leader must see it at an event: where something of it lives, or
// could. A node that became healthy later is no seat of what was decided before.
func (g *ledger) seats(l *lead, pic picture, key api.Key, event uint64) int {
	s := pic.services[key]
	if s.Spec.Mode != api.ModeGlobal {
		return s.Spec.Want()
	}
	newest, n := pic.revisions[revisionKey{key, s.Status.Revision}], 0
	for _, h := range g.w.hosts {
		x := pic.nodes[h.name]
		lives := slices.ContainsFunc(pic.of(key), func(k api.ReplicaKey) bool {
			p := pic.placements[k]
			return p.node == h.name && !p.stopping && g.wants(pic, k, p)
		})
		if lives || x != nil && newest != nil && !x.Spec.Unschedulable && h.takes(newest.template) && l.know.verdict[h.name] == api.VerdictHealthy && l.know.verdictAt(h.name, event) == api.VerdictHealthy && l.know.unfit[h.name] == 0 {
			n++
		}
	}
	return n
}

// seat is what two fillings share that one of them can stand for the other: a slot,
// or in a global service a node.
func seat(s *api.Service, k api.ReplicaKey, p placement) string {
	if s.Spec.Mode == api.ModeGlobal {
		return p.node
	}
	return fmt.Sprint(k.Slot)
}

// oncePerNode: what is placed for a global service is the only one there, and no spare.
func (g *ledger) oncePerNode(after picture, k api.ReplicaKey, p placement) {
	s, old := after.services[k.ServiceKey()], g.pic.services[k.ServiceKey()]
	if s == nil || s.Spec.Mode != api.ModeGlobal || old != nil && old.Spec.Mode != api.ModeGlobal {
		return
	}
	g.global[k] = true
	if p.spare {
		g.w.violate("global", "%s on %s is a spare of a global service", k, p.node)
	}
	for _, o := range after.of(k.ServiceKey()) {
		x := after.placements[o]
		if o != k && x.node == p.node && x.boot == p.boot && !x.stopping {
			g.w.violate("global", "%s is placed on %s beside %s of the same global service", k, p.node, o)
		}
		if o != k && o.Slot == k.Slot && x.node != p.node && g.global[o] && !x.stopping {
			g.w.violate("global", "slot %d of %s is filled on %s, and on %s", k.Slot, k.ServiceKey(), p.node, x.node)
		}
	}
}

// aloneHere: nor does another of it run there whose record is left. What was given up
// as its node was dead is stopped when that is back.
func (g *ledger) aloneHere(h *host, c *container) {
	if !g.global[c.Replica] {
		return
	}
	for _, o := range h.runtime.sorted() {
		if _, placed := g.pic.placements[o.Replica]; placed && o.Running && o.Replica != c.Replica && o.Replica.ServiceKey() == c.Replica.ServiceKey() && g.global[o.Replica] {
			g.w.violate("global", "%s starts %s while %s of the same global service runs there", h.name, c.ID, o.ID)
		}
	}
}

// globalUnsettled: I1. Every node that can take one has one replica of a global
// service, ready and of the revision that is wanted, or the service says why not.
func (w *world) globalUnsettled(key api.Key, s, seen *api.Service) string {
	pic := w.ledger.pic
	newest := pic.revisions[revisionKey{key, s.Status.Revision}]
	byNode := map[string][]api.ReplicaKey{}
	for _, k := range pic.of(key) {
		p := pic.placements[k]
		if w.unheard(p) {
			continue
		}
		byNode[p.node] = append(byNode[p.node], k)
	}
	ready := 0
	for _, h := range w.hosts {
		ks := byNode[h.name]
		if h == w.lost || h == w.mute {
			if h == w.lost && len(ks) > 0 {
				return fmt.Sprintf("%s of global service %s is on %s, which is dead", ks[0], key, h.name)
			}
			continue
		}
		if !h.takes(newest.template) {
			if len(ks) > 0 && w.rolls(s) {
				return fmt.Sprintf("%s of global service %s is on %s, which it does not want", ks[0], key, h.name)
			}
			continue
		}
		switch {
		case len(ks) > 1:
			return fmt.Sprintf("%s has %d of global service %s: %v", h.name, len(ks), key, ks)
		case len(ks) == 0 && newest.lacks() && imageless(newest.template): // as one of them says
			continue
		case len(ks) == 0 && !w.fullOn(newest, func(x *host) bool { return x == h }) && w.rolls(s):
			return fmt.Sprintf("%s has none of global service %s; %v", h.name, key, seen.Status.Reasons)
		case len(ks) == 0:
			continue
		}
		k, t := ks[0], w.templateOf(ks[0])
		if p := pic.placements[k]; !pic.isNewest(k, p) && s.Status.Rollout.State == api.RolloutComplete && fine(newest.template) {
			return fmt.Sprintf("%s has revision %d, wanted is %d; %v", k, p.revision, s.Status.Revision, seen.Status.Reasons)
		}
		if what := w.notRunning(k, t); what == "" {
			ready++
		} else if fine(t) && !w.endedForGood(w.leader(), k) {
			return what + fmt.Sprintf("; the service says %v", seen.Status.Reasons)
		}
	}
	if w.lost == nil && w.mute == nil && fine(newest.template) && s.Status.Rollout.State == api.RolloutComplete && seen.Status.Ready != ready {
		return fmt.Sprintf("global service %s says %d ready, %d are; %v", key, seen.Status.Ready, ready, seen.Status.Reasons)
	}
	return ""
}

// rolls tells whether nothing holds the newest revision back.
func (w *world) rolls(s *api.Service) bool {
	return s.Status.Rollout.State == api.RolloutComplete
}

// rolloutUnsettled: every rollout comes to an end, or waits for somebody; and all say
// the same of it.
func (w *world) rolloutUnsettled(l *lead, key api.Key) string {
	pic := w.ledger.pic
	s := pic.services[key]
	newest := pic.revisions[revisionKey{key, s.Status.Revision}]
	r := s.Status.Rollout
	seen, _ := l.view[core.ViewKey{Kind: api.KindService, Namespace: key.Namespace, Name: key.Name}].(*api.Service)
	switch r.State {
	case api.RolloutComplete, api.RolloutFailed:
		untried := r.State == api.RolloutComplete && (w.ledger.slots(pic, key) == 0 || isSeated(newest.template) && len(pic.reached(key, s.Status.Revision)) == 0) // then nothing shows that it works
		if newest.obj.Rollout.State != r.State && !untried {
			return fmt.Sprintf("the rollout of %s is %s, and its revision %d says %q", key, r.State, s.Status.Revision, newest.obj.Rollout.State)
		}
		if r.State == api.RolloutFailed && r.Why == "" {
			return fmt.Sprintf("the rollout of %s failed, and nobody says why", key)
		}
	case api.RolloutPaused:
		if r.PausedBy == "" && !w.waitsForWord(s) {
			return fmt.Sprintf("the rollout of %s is still paused: %+v", key, r)
		}
	default:
		if w.ledger.seated(pic, key) && slices.ContainsFunc(slices.Collect(maps.Keys(pic.volumes)), func(v api.VolumeKey) bool {
			return v.Service == key.Name && v.Slot < s.Spec.Want() && w.lost != nil && pic.volumes[v].Node == w.lost.name
		}) {
			return "" // it waits for a node that never comes back, or for somebody's word
		}
		// What is on a node of which nothing is heard sets the deadline back.
		if !slices.ContainsFunc(pic.of(key), func(k api.ReplicaKey) bool { return w.unheard(pic.placements[k]) }) {
			return fmt.Sprintf("the rollout of %s is %q: %s", key, r.State, seen.Status.Rollout.Why)
		}
	}
	if n := len(pic.reached(key, s.Status.Revision)); n > w.ledger.mayReach(pic, key) && r.PausedBy == "" && r.State == api.RolloutPaused {
		return fmt.Sprintf("revision %d of %s is in %d slots, at most %d it may be in", s.Status.Revision, key, n, w.ledger.mayReach(pic, key))
	}
	for _, n := range slices.Sorted(maps.Keys(w.numbersOf(key))) {
		if old := pic.revisions[revisionKey{key, n}]; n != s.Status.Revision && !isFinal(old.obj.Rollout.State) && old.obj.Rollout.State != api.RolloutFailed {
			return fmt.Sprintf("revision %d of %s is not the newest and says %q", n, key, old.obj.Rollout.State)
		}
	}
	return ""
}

// waitsForWord tells whether the step that is under way lasts until somebody says so.
func (w *world) waitsForWord(s *api.Service) bool {
	step := s.Status.Rollout.Step
	return step > 0 && step <= len(s.Spec.Rollout.Canary) && s.Spec.Rollout.Canary[step-1].Pause == nil
}

func (w *world) numbersOf(key api.Key) map[int64]bool {
	out := map[int64]bool{}
	for k := range w.ledger.pic.revisions {
		if k.service == key {
			out[k.number] = true
		}
	}
	return out
}

// heldUnsettled: what a rollout has not come to serves on, as far as it can.
func (w *world) heldUnsettled(bySlot map[int][]api.ReplicaKey) string {
	pic := w.ledger.pic
	for _, slot := range slices.Sorted(maps.Keys(bySlot)) {
		ks := bySlot[slot]
		if len(ks) != 1 || w.unheard(pic.placements[ks[0]]) {
			continue
		}
		if t := w.templateOf(ks[0]); fine(t) && !w.endedForGood(w.leader(), ks[0]) && w.notRunning(ks[0], t) != "" {
			return w.notRunning(ks[0], t) + "; its rollout is held"
		}
	}
	return ""
}

// fullForStable tells whether no node has room for one more of the revision that fills
// what a rollout has not come to.
func (w *world) fullForStable(s *api.Service) bool {
	stable := w.ledger.pic.revisions[revisionKey{s.Metadata.Key(), s.Status.Rollout.From}]
	return s.Status.Rollout.State != api.RolloutComplete && stable != nil && w.fullFor(stable)
}
