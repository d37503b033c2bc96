package sim

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"strings"

	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/api"
)

// Tags move on in the registry, and a node that has an image by a tag keeps to it. Who
// applies something is told what its tags mean, or nobody could tell: then what the first
// replica finds has to hold for all.

// means gives the digest that a reference has in the registry now.
func (w *world) means(ref string) string {
	return fmt.Sprintf("sha256:%x", sha256.Sum256(fmt.Appendf(nil, "%s %d", ref, w.moved[ref])))
}

// tell gives what is told of a template's references when it is applied: all, or nothing.
// Now and then one of them has moved on meanwhile.
func (w *world) tell(t *api.Template) map[string]string {
	out := map[string]string{}
	for _, c := range t.AllContainers() {
		if chance(w.r.images, 0.2) {
			w.moved[c.Image]++
		}
		if !behaviorOf(c.Image).missing {
			out[c.Image] = w.means(c.Image)
		}
	}
	if chance(w.r.images, 0.4) {
		return nil
	}
	return out
}

// lacks tells whether something of a revision has no digest.
func (r *revision) lacks() bool {
	for _, c := range r.template.AllContainers() {
		if r.obj.Images[c.Image] == "" {
			return true
		}
	}
	return false
}

// grown tells whether a revision has the digests that it had, and perhaps more.
func grown(old, now map[string]string) bool {
	for ref, digest := range old {
		if now[ref] != digest {
			return false
		}
	}
	return true
}

// tagged holds a new placement against what is known of its revision's images: while
// something is lacking there is one slot that has it. What begins with init containers may
// have told all that it ever will.
func (g *ledger) tagged(k api.ReplicaKey, p placement) {
	r := g.pic.revisions[revisionKey{k.ServiceKey(), p.revision}]
	if r == nil {
		return
	}
	g.pinnedAt[k] = maps.Clone(r.obj.Images)
	newest := g.pic.services[k.ServiceKey()]
	if !r.lacks() || len(r.template.InitContainers) > 0 || newest != nil && newest.Status.Revision != p.revision {
		return
	}
	for _, other := range g.pic.of(k.ServiceKey()) {
		x := g.pic.placements[other]
		n := g.pic.nodes[x.node]
		o := g.pic.revisions[revisionKey{k.ServiceKey(), x.revision}]
		if other.Slot == k.Slot || x.stopping || n == nil || n.Status.BootID != x.boot || n.Status.Verdict == api.VerdictDead || o == nil || o.root() != r.root() {
			continue
		}
		g.w.violate("tags", "%s is placed beside %s, and nobody knows yet what %v of revision %d mean", k, other, r.template.AllContainers()[0].Image, p.revision)
	}
}

// imageOf holds what a container is started from against the digest that its revision had
// when its replica was placed.
func (r *runtime) imageOf(e plan.StartContainer) {
	ref, _, _ := strings.Cut(e.Container.Image, "@")
	if want := r.h.w.ledger.pinnedAt[e.Replica][ref]; want != "" && want != e.ImageID {
		r.h.w.violate("tags", "%s starts %s %s from %s, and its revision has %s for %s", r.h.name, e.Replica, e.Container.Name, e.ImageID, want, ref)
	}
}
