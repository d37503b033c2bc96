package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
)

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
	if what := w.rolloutUnsettled(l, key); what != "" {
		return what
	}
	if s.Spec.Mode == api.ModeGlobal {
		return w.globalUnsettled(key, s, seen)
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
		if newest.lacks() && imageless(newest.template) {
			break // one waits for an image that is nowhere, and the others for what that means
		}
		if newest.lacks() && w.ledger.seated(pic, key) && slices.ContainsFunc(pic.of(key), func(k api.ReplicaKey) bool { return w.unheard(pic.placements[k]) }) &&
			slices.ContainsFunc(seen.Status.Reasons, func(r string) bool { return strings.Contains(r, "begins with one replica") }) {
			break // who is to tell is never heard, and belongs to its node: the others wait for it, and it is said
		}
		if s.Spec.Rollout.Strategy == api.StrategyRecreate && s.Status.Rollout.PausedBy != "" {
			break // nothing begins, and what was before may not stand in for it
		}
		if s.Spec.Rollout.Strategy == api.StrategyRecreate && slices.ContainsFunc(pic.of(key), func(k api.ReplicaKey) bool { return w.unheard(pic.placements[k]) }) {
			break // all that was there has to be gone before, and nobody ever says so
		}
		if waits, what := w.waitsForVolume(key, slot, newest, seen.Status.Reasons); len(bySlot[slot]) == 0 && waits {
			if what != "" {
				return what
			}
			continue
		}
		if w.ledger.seated(pic, key) && slices.ContainsFunc(pic.of(key), func(k api.ReplicaKey) bool { return k.Slot == slot && w.unheard(pic.placements[k]) }) {
			continue // what was there has to be gone before
		}
		if len(bySlot[slot]) == 0 && !w.fullFor(newest) && !w.fullForStable(s) {
			return fmt.Sprintf("slot %d of %s is empty, though a node has room: %v", slot, key, seen.Status.Reasons)
		}
	}
	if seen.Status.Ready < s.Spec.Want() && len(seen.Status.Reasons) == 0 {
		return fmt.Sprintf("%d of %d replicas of %s are ready and it does not say why", seen.Status.Ready, s.Spec.Want(), key)
	}
	if !fine(newest.template) || s.Status.Rollout.State != api.RolloutComplete {
		return w.heldUnsettled(bySlot) // it said why not
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
	all := !slices.ContainsFunc(slices.Collect(maps.Keys(pic.volumes)), func(v api.VolumeKey) bool { // else some wait for their node
		return v.Namespace == key.Namespace && v.Service == key.Name && len(bySlot[v.Slot]) == 0 && v.Slot < s.Spec.Want()
	})
	for slot := range s.Spec.Want() {
		ks := bySlot[slot]
		if waits, _ := w.waitsForVolume(key, slot, newest, seen.Status.Reasons); waits && len(ks) == 0 {
			all = false
			continue
		}
		if len(ks) != 1 {
			return fmt.Sprintf("slot %d of %s has %d placements: %v; %v", slot, key, len(ks), ks, seen.Status.Reasons)
		}
		if p := pic.placements[ks[0]]; !pic.isNewest(ks[0], p) && !w.standsIn(ks[0]) { // a contested slot is not rolled
			if w.heldUp(l, key) || w.ledger.seated(pic, key) && (!all || !w.host(p.node).takes(newest.template) || w.boundAway(key, slot, newest.template)) { // bound to where it may not be, or below the floor as another is
				all = all && fine(w.templateOf(ks[0]))
				continue
			}
			return fmt.Sprintf("%s has revision %d, wanted is %d; %v", ks[0], p.revision, s.Status.Revision, seen.Status.Reasons)
		}
		if p := pic.placements[ks[0]]; w.unheard(p) {
			if w.ledger.seated(pic, key) {
				continue // its data is there, and nowhere else
			}
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
	if all && seen.Status.Ready != s.Spec.Want() && !slices.ContainsFunc(pic.of(key), func(k api.ReplicaKey) bool { return w.unheard(pic.placements[k]) }) {
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
func (w *world) fullFor(r *revision) bool { return w.fullOn(r, nil) }

// addressesFree of the node's subnet.
func (w *world) addressesFree(h *host) int {
	n := w.ledger.pic.nodes[h.name]
	if n == nil || n.Status.Subnet == "" {
		return 0
	}
	free := 1<<(32-w.ledger.cluster.NodeBits) - notReplicas
	for k, p := range w.ledger.pic.placements {
		if r := w.ledger.pic.revisions[revisionKey{k.ServiceKey(), p.revision}]; p.node == h.name && r != nil {
			free -= r.addresses
		}
	}
	return free
}

// fullOn counts nodes of a kind only.
func (w *world) fullOn(r *revision, of func(*host) bool) bool {
	pic := w.ledger.pic
	for _, h := range w.living() {
		fits := h.takes(r.template)
		addresses := w.addressesFree(h)
		fits = fits && (r.addresses == 0 || addresses > 0)
		if of != nil {
			fits = fits && of(h)
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
	for _, spec := range t.LongRunning() {
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
