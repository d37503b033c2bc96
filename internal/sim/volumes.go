package sim

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
)

// volumeAt is a volume on one node.
type volumeAt struct {
	api.VolumeKey
	node string
}

func volumesOf(k api.ReplicaKey, names []string) []api.VolumeKey {
	var out []api.VolumeKey
	for _, name := range names {
		out = append(out, api.VolumeKey{Namespace: k.Namespace, Service: k.Service, Slot: k.Slot, Volume: name})
	}
	return out
}

func compareVolumes(a, b api.VolumeKey) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Volume, b.Volume))
}

// isSeated tells whether a template pins its slots to nodes.
func isSeated(t *api.Template) bool { return t != nil && len(t.Volumes()) > 0 }

// seated tells whether slots of a service are bound to nodes: while its newest revision
// has volumes, or anything that is placed for it.
func (g *ledger) seated(pic picture, key api.Key) bool {
	if s := pic.services[key]; s != nil {
		if r := pic.revisions[revisionKey{key, s.Status.Revision}]; r != nil && isSeated(r.template) {
			return true
		}
	}
	return slices.ContainsFunc(pic.of(key), func(k api.ReplicaKey) bool { return isSeated(g.templates[k]) })
}

// boundTo gives the node that a slot's volumes are on, of those that a template mounts;
// "": on none.
func (p picture) boundTo(key api.Key, slot int, t *api.Template) string {
	for _, v := range volumesOf(api.ReplicaKey{Namespace: key.Namespace, Service: key.Name, Slot: slot}, t.Volumes()) {
		if x := p.volumes[v]; x != nil {
			return x.Node
		}
	}
	return ""
}

// mayVolume gives a template, now and then, a volume or two.
func (u *user) mayVolume(s *api.Service) {
	r := u.w.r.owners
	n := r.IntN(100)
	if s.Spec.Mode == api.ModeGlobal || n >= u.volumes {
		return
	}
	c := &s.Spec.Containers[0]
	c.Mounts = append(c.Mounts, api.Mount{Path: "/data", Volume: "data"})
	if r.IntN(4) == 0 {
		c.Mounts = append(c.Mounts, api.Mount{Path: "/more", Volume: "more"})
	}
	if len(s.Spec.Containers) > 1 && r.IntN(2) == 0 {
		side := &s.Spec.Containers[1]
		side.Mounts = append(side.Mounts, api.Mount{Path: "/data", Volume: "data", ReadOnly: true})
	}
}

// placedByVolume: what mounts volumes is placed where they are, and they are recorded
// with it.
func (g *ledger) placedByVolume(after picture, k api.ReplicaKey, p placement) {
	r := after.revisions[revisionKey{k.ServiceKey(), p.revision}]
	if r == nil || after.jobs[k.ServiceKey()] != nil {
		return
	}
	for _, v := range volumesOf(k, r.template.Volumes()) {
		switch x := after.volumes[v]; {
		case x == nil:
			g.w.violate("volumes", "%s is placed on %s, and nobody writes down that its volume %s is there", k, p.node, v)
		case x.Node != p.node:
			g.w.violate("volumes", "%s is placed on %s, its volume %s is on %s", k, p.node, v, x.Node)
		case after.removals[volumeAt{v, p.node}] != nil:
			g.w.violate("volumes", "%s is placed on %s while what was there of its volume %s is being removed", k, p.node, v)
		}
	}
	if p.spare && isSeated(r.template) {
		g.w.violate("volumes", "%s is placed on %s as a spare, though it has volumes", k, p.node)
	}
}

// volumeWritten: a volume never moves, and goes only when nobody uses it on a node that
// lives.
func (g *ledger) volumeWritten(l *lead, after picture, c change) {
	old, now := g.pic.volumes[c.volume], after.volumes[c.volume]
	switch {
	case old == nil:
	case now != nil:
		if old.Node != now.Node && old.UID == now.UID {
			g.w.violate("volumes", "%s was on %s and is said to be on %s", c.volume, old.Node, now.Node)
		}
	default:
		g.w.res.VolumesRemoved++
		n := after.nodes[old.Node]
		if after.removals[volumeAt{c.volume, old.Node}] == nil && n != nil && g.pic.nodes[old.Node] != nil {
			g.w.violate("volumes", "the record of %s on %s goes, and its node is not told so", c.volume, old.Node)
		}
		if n == nil || l.know.dead[old.Node] {
			return
		}
		for _, k := range after.of(api.Key{Namespace: c.volume.Namespace, Name: c.volume.Service}) {
			if p := after.placements[k]; k.Slot == c.volume.Slot && p.node == old.Node && p.boot == n.Status.BootID && slices.Contains(g.templateVolumes(k), c.volume.Volume) {
				g.w.violate("volumes", "%s is to be removed from %s, where %s may have it mounted", c.volume, old.Node, k)
			}
		}
	}
}

// removalWritten: it ends when nothing is left, or with its node.
func (g *ledger) removalWritten(after picture, c change) {
	if c.where == nil && after.nodes[c.node] != nil && g.pic.nodes[c.node] != nil && g.w.host(c.node).disk.volumes[c.volume] {
		g.w.violate("volumes", "%s is said to be gone from %s, where it still is", c.volume, c.node)
	}
}

// volumeRecord is a volume, or its removal, as it is stored.
type volumeRecord struct {
	UID  string `json:"uid"`
	Node string `json:"node"`
}

// wanted tells whether a removal is under way.
func wanted(r *volumeRecord) *bool {
	if r == nil {
		return nil
	}
	yes := true
	return &yes
}

func (g *ledger) templateVolumes(k api.ReplicaKey) []string {
	if t := g.templates[k]; t != nil {
		return t.Volumes()
	}
	return nil
}

// mounts holds a container's start against where its volumes are, and who else has them.
func (r *runtime) mounts(c *container) {
	w := r.h.w
	var names []string
	for _, m := range c.spec.Mounts {
		if m.Volume != "" {
			names = append(names, m.Volume)
		}
	}
	p, placed := w.ledger.pic.placements[c.Replica]
	for _, v := range volumesOf(c.Replica, names) {
		x := w.ledger.pic.volumes[v]
		if placed && !p.stopping && p.node == r.h.name && p.boot == r.h.bootID() && w.ledger.pic.services[c.Replica.ServiceKey()] != nil && (x == nil || x.Node != r.h.name) {
			w.violate("volumes", "%s starts %s with volume %s, which is not there: %+v", r.h.name, c.ID, v, x)
		}
		if !r.h.disk.volumes[v] {
			w.res.Volumes++
			r.h.disk.volumes[v] = true
		}
		for _, o := range r.sorted() {
			if o.Running && o != c && o.Replica != c.Replica && o.Replica.ServiceKey() == c.Replica.ServiceKey() && o.Replica.Slot == c.Replica.Slot && o.has(v.Volume) {
				w.violate("volumes", "%s starts %s with volume %s while %s has it", r.h.name, c.ID, v, o.ID)
			}
		}
	}
}

// has tells whether a container mounts a volume of its slot.
func (c *container) has(volume string) bool {
	return slices.ContainsFunc(c.spec.Mounts, func(m api.Mount) bool { return m.Volume == volume })
}

// removeVolume deletes a folder; who wanted it gone is in the ledger.
func (r *runtime) removeVolume(e plan.RemoveVolume) plan.Event {
	w := r.h.w
	at := volumeAt{e.Volume, r.h.name}
	if !w.ledger.removed[at] && r.h.disk.volumes[e.Volume] {
		w.violate("volumes", "%s removes volume %s, and nobody wanted that", r.h.name, e.Volume)
	}
	for _, o := range r.sorted() {
		if o.Running && o.Replica.Namespace == e.Volume.Namespace && o.Replica.Service == e.Volume.Service && o.Replica.Slot == e.Volume.Slot && o.has(e.Volume.Volume) {
			w.violate("volumes", "%s removes volume %s while %s has it", r.h.name, e.Volume, o.ID)
		}
	}
	w.say("%s removes volume %s", r.h.name, e.Volume)
	delete(r.h.disk.volumes, e.Volume)
	return plan.Done{ID: e.ID}
}

// removeVolume has somebody remove one of those that there are.
func (w *world) removeVolume() {
	all := sortedOf(w.ledger.pic.volumes, compareVolumes)
	if len(all) == 0 {
		return
	}
	w.orderRemoval(pick(w.r.owners, all))
}

// orderRemoval is such a word. It is refused while somebody uses it.
func (w *world) orderRemoval(v api.VolumeKey) {
	w.res.Requests++
	id := fmt.Sprintf("r%d", w.res.Requests)
	r := &request{u: w.owners[0].user, id: id, once: true, words: "remove volume " + v.String(), asked: w.clock, make: func(t uint64) core.Event {
		return core.Delete{Ticket: t, Refs: []api.Ref{{Kind: api.KindVolume, Key: api.Key{Namespace: v.Namespace, Name: v.Name()}}}, IgnoreMissing: true, RequestID: id, By: "operator"}
	}}
	r.taken = func(e core.Reply) bool {
		switch {
		case errors.Is(e.Err, core.ErrInvalid) || errors.Is(e.Err, core.ErrBusy):
			w.say("an operator is refused: %v", e.Err)
		case e.Err != nil:
			w.violate("sim", "an operator is refused: %s: %v", r.words, e.Err)
		}
		return false
	}
	r.try()
}

// beginAnew has an operator remove what is on a node that never comes back, in every
// second run: in the others its slots wait, and say so.
func (w *world) beginAnew() {
	l := w.leader()
	if w.lost == nil || !w.anew || l == nil || l.core.Verdict(w.lost.name) != api.VerdictDead && w.ledger.pic.nodes[w.lost.name] != nil {
		return
	}
	for _, v := range sortedOf(w.ledger.pic.volumes, compareVolumes) {
		if x := w.ledger.pic.volumes[v]; x.Node == w.lost.name {
			w.orderRemoval(v)
		}
	}
}

// waitsForVolume tells whether a slot cannot be filled because its volumes are on a node
// that cannot take it. Its service says so.
func (w *world) waitsForVolume(key api.Key, slot int, r *revision, reasons []string) (waits bool, what string) {
	pic := w.ledger.pic
	node := pic.boundTo(key, slot, r.template)
	if node == "" {
		return false, ""
	}
	h := w.host(node)
	away := h == w.lost || h == w.mute || pic.nodes[node] == nil
	there := func(x *host) bool { return x == h }
	if s := pic.services[key]; s != nil && s.Status.Rollout.State != api.RolloutComplete { // it may be the turn of the one that is stable
		stable := pic.revisions[revisionKey{key, s.Status.Rollout.From}]
		away = away || stable != nil && w.fullOn(stable, there)
	}
	if !away && !w.fullOn(r, there) {
		return false, ""
	}
	said := slices.ContainsFunc(reasons, func(r string) bool {
		return strings.Contains(r, node) || strings.Contains(r, "begins with one replica") && !strings.Contains(r, "its first replica has not found it") // which is another slot's, and placed
	})
	if !said {
		return true, fmt.Sprintf("slot %d of %s has its volume on %s, and its service does not say so: %v", slot, key, node, reasons)
	}
	return true, ""
}

// waitsAtHome tells whether a slot is bound to a node that takes nothing now: a rollout
// does not wait for it, as little as for one of a global service.
func (g *ledger) waitsAtHome(l *lead, after picture, key api.Key, slot int, revision int64) bool {
	r := after.revisions[revisionKey{key, revision}]
	if r == nil || !isSeated(r.template) {
		return false
	}
	for _, pic := range []picture{g.pic, after} {
		if node := pic.boundTo(key, slot, r.template); node != "" && (g.closed(l, after, node) || !l.know.wellSince(node, l.openSince) || !g.w.host(node).takes(r.template)) {
			return true
		}
	}
	return false
}

// volumesUnsettled: what is to be removed is gone where its node lives.
func (w *world) volumesUnsettled() string {
	for at := range w.ledger.pic.removals {
		if h := w.host(at.node); h != w.lost && h != w.mute {
			return fmt.Sprintf("volume %s on %s is still being removed", at.VolumeKey, at.node)
		}
	}
	return ""
}

// toldToRemove: only what is committed.
func (g *ledger) toldToRemove(e core.SendAssignments) {
	for _, v := range e.Set.RemoveVolumes {
		if g.pic.removals[volumeAt{v, e.Node}] == nil {
			g.w.violate("I2", "%s is told to remove volume %s, and that is not committed", e.Node, v)
		}
	}
}

// boundAway tells whether a slot's volumes are on a node that does not take the template:
// another revision, which asked for less, made them there.
func (w *world) boundAway(key api.Key, slot int, t *api.Template) bool {
	node := w.ledger.pic.boundTo(key, slot, t)
	return node != "" && !w.host(node).takes(t)
}
