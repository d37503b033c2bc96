package core

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/store"
	"github.com/orchctl/orch/reconciler"
)

// What a revision's references mean is asked when it is made. Where nobody could tell, one
// replica begins alone: what its node finds holds for all others, which wait until then.
// So a tag never means two things within a revision.

// lacks gives the references of the revision that have no digest and may get one.
func (s *service) lacks(r *revision) []string {
	if r.assumed {
		return nil
	}
	var out []string
	for _, ct := range r.Template.AllContainers() {
		_, settled := s.settled[r.root()][ct.Image]
		if ref := ct.Image; r.Images[ref] == "" && !settled && !strings.Contains(ref, "@") && !slices.Contains(out, ref) {
			out = append(out, ref)
		}
	}
	return out
}

// open gives the references of the revision that a digest would be taken of: those that
// it lacks, and those that nobody waits for any more as nobody told anything of them.
func (s *service) open(r *revision) []string {
	out := s.lacks(r)
	for _, ct := range r.Template.AllContainers() {
		final, settled := s.settled[r.root()][ct.Image]
		if ref := ct.Image; settled && !final && r.Images[ref] == "" && !slices.Contains(out, ref) {
			out = append(out, ref)
		}
	}
	return out
}

// beginsAlone tells whether the newest revision may have one replica for now.
func (s *service) beginsAlone() bool {
	if s.job != nil && s.job.ended() {
		return false
	}
	return len(s.lacks(s.newest())) > 0
}

// waitsForPin tells whether a replica of the newest revision is to wait for what another
// finds. What stands in for that one does not.
func (s *service) waitsForPin(slot int, revision int64, begun map[int]bool) bool {
	if revision != s.obj.Status.Revision || !s.beginsAlone() {
		return false
	}
	for x := range begun {
		if x != slot {
			return true
		}
	}
	return slices.ContainsFunc(s.fillings, func(f *filling) bool {
		return f.key.Slot != slot && !f.stopping && !f.void && s.runs(f) == revision
	})
}

// beginNext has another slot begin alone where the one that was to found no room: each slot
// of such a service belongs to a node of its own, and what one lacks the next may have.
func (c *Core) beginNext(s *service) {
	next := s.nextToBegin
	s.nextToBegin = nil
	for _, a := range next {
		if s.waitsForPin(a.Key.Slot, a.Revision, nil) {
			return
		}
		a.Key.Epoch = c.counters.epoch + 1
		c.place(s.groups([]reconciler.Action{a}, false), map[api.ReplicaKey]reconciler.Action{a.Key: a})
	}
}

// beginsIn gives how many slots a revision that begins alone may come to: one, and those
// that it came to before and that have no node for it. They are to hold up no other.
func (s *service) beginsIn() int {
	n := 1
	for slot, r := range s.refused {
		if r.revision == s.obj.Status.Revision && !slices.ContainsFunc(s.inSlot(slot), func(f *filling) bool { return !f.stopping && !f.void }) {
			n++
		}
	}
	return n
}

// strays tells whether a filling has another image than its revision, in words; empty: it
// has not. It began before that was known, as what stood in for the first one.
func (s *service) strays(f *filling) string {
	r := s.revisions[f.revision]
	if s.job != nil || !f.reported || len(f.found) == 0 {
		return ""
	}
	for _, ref := range slices.Sorted(maps.Keys(f.found)) {
		if have, want := f.found[ref], r.Images[ref]; isDigest(have) && isDigest(want) && have != want {
			return fmt.Sprintf("it has image %s as %s, and revision %d has %s, which another replica found", ref, have, f.revision, want)
		}
	}
	return ""
}

// pinWords say what is waited for.
func (s *service) pinWords() string {
	who := "its first replica"
	for _, f := range s.fillings {
		if !f.stopping && !f.void && s.runs(f) == s.obj.Status.Revision {
			who = fmt.Sprintf("%s on %s", f.key.Name(), f.node)
			break
		}
	}
	return fmt.Sprintf("revision %d begins with one replica: nobody could tell what image %s means, and %s has not found it yet",
		s.obj.Status.Revision, strings.Join(s.lacks(s.newest()), ", "), who)
}

// pinLate pins revisions to what the nodes of their replicas found. It costs the
// service's fillings while something is lacking, else nothing.
func (c *Core) pinLate(s *service) {
	if s.deleting() {
		return
	}
	for _, f := range s.fillings {
		r := s.revisions[f.revision]
		open := s.open(r)
		if len(open) == 0 || f.void || f.stopping || !f.reported || !c.isWell(f.node) {
			continue
		}
		found := f.foundBy(r)
		for _, ref := range open {
			switch digest := found[ref]; {
			case isDigest(digest):
				c.pinImage(s, f, ref, digest)
			case digest != "": // nothing that could be pinned
				s.settle(r.root(), ref, true)
			case !f.status.Phase.Before(api.PhaseRunning):
				// All has begun, and an init container left nothing that tells: nobody waits for
				// that. Who still tells it is believed.
				s.settle(r.root(), ref, false)
			}
		}
	}
}

// isWell tells whether what the node says holds for others.
func (c *Core) isWell(node string) bool {
	n := c.nodes[node]
	return n != nil && n.verdict == api.VerdictHealthy && n.impaired == ""
}

// foundBy gives what references of its revision mean on the filling's node; agents of
// before tell it with the containers only.
func (f *filling) foundBy(r *revision) map[string]string {
	out := map[string]string{}
	for _, ct := range f.status.Containers {
		for _, spec := range r.Template.AllContainers() {
			if spec.Name == ct.Name && ct.ImageID != "" {
				out[spec.Image] = ct.ImageID
			}
		}
	}
	maps.Copy(out, f.found)
	return out
}

// settle has nobody wait any longer for what a reference means; final: nor take a digest
// of it. It holds for what repeats the revision, too.
func (s *service) settle(root int64, ref string, final bool) {
	if s.settled == nil {
		s.settled = map[int64]map[string]bool{}
	}
	if s.settled[root] == nil {
		s.settled[root] = map[string]bool{}
	}
	s.settled[root][ref] = final || s.settled[root][ref]
}

// pinImage gives a filling's revision, and those that it repeats or that repeat it, a
// digest. Their replicas are told: after a restart of their nodes they find the same.
func (c *Core) pinImage(s *service, f *filling, ref, digest string) {
	root, changed := s.revisions[f.revision].root(), map[int64]bool{}
	for _, n := range slices.Sorted(maps.Keys(s.revisions)) {
		r := s.revisions[n]
		if r.root() != root || r.Images[ref] != "" {
			continue
		}
		next := *r
		next.Images = maps.Clone(r.Images) // what was published or sent is never changed
		if next.Images == nil {
			next.Images = map[string]string{}
		}
		next.Images[ref] = digest
		s.revisions[n], changed[n] = &next, true
		c.write(store.Put(revisionKey(s.key, n), object(api.KindRevision, &next.Revision)))
		c.view.touchRevision(s.key, n)
	}
	for _, x := range s.fillings {
		if changed[x.revision] && !x.void && (!x.stopping || x.handing) {
			c.sendToNode(x.node, c.assignmentOf(x))
		}
	}
	c.view.touch(s)
	c.event(s.key.Namespace, s.kind(), s.key.Name, api.EventNormal, "ImagePinned",
		fmt.Sprintf("revision %d: image %s is %s, as %s on %s found it", f.revision, ref, digest, f.key.Name(), f.node))
}

// isDigest knows the one form that is pinned to: what an agent says is stored.
func isDigest(s string) bool {
	hex, ok := strings.CutPrefix(s, "sha256:")
	return ok && len(hex) == 64 && strings.Trim(hex, "0123456789abcdef") == ""
}
