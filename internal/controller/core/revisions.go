package core

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/store"
)

// A revision is never changed but for how it went. Who goes back to an old one makes a
// new one that repeats it (SameAs): numbers only rise, and the history tells what
// happened. What still runs with the one repeated is taken to run with the new one.

// copy gives a service to change without touching the one that holds.
func (s *service) copy() *service {
	next := *s
	next.revisions = maps.Clone(s.revisions)
	return &next
}

// revise makes r the newest revision of a copy, with its number and rollout. The
// rollout of the one before ends with a state and why, if it has not ended.
func (s *service) revise(r api.Revision, ended api.RolloutState, why string, now time.Time) {
	from, was := s.stable(), s.obj.Status.Rollout
	if old := s.newest(); old != nil && !(done(was.State) && done(old.Rollout.State)) {
		x := *old // the copy's own: the one that holds shows the other still
		x.Rollout = was
		x.Rollout.State, x.Rollout.Why, x.Rollout.EndedAt, x.Rollout.PausedBy = ended, why, now, ""
		s.revisions[old.Number] = &x
		s.ended = old.Number
	}
	rollout := api.RolloutStatus{State: api.RolloutProgressing, From: from, StartedAt: now, PausedBy: was.PausedBy}
	if was.PausedBy != "" {
		rollout.State = api.RolloutPaused
	}
	if len(s.obj.Spec.Rollout.Canary) > 0 && !s.wasWell(r.SameAs) && from != 0 { // what was well once is not tried in steps
		rollout.Step = 1
	}
	r.Service, r.UID, r.Number, r.CreatedAt, r.Rollout = s.key, s.obj.Metadata.UID, s.obj.Status.Revision+1, now, rollout
	s.obj.Status = api.ServiceStatus{Revision: r.Number, VIP: s.obj.Status.VIP, Rollout: rollout}
	s.progress = progress{}
	s.addRevision(&r)
	s.fresh = true
}

// done tells whether a rollout has ended in that state, whatever comes after it.
func done(x api.RolloutState) bool { return x == api.RolloutComplete || x == api.RolloutFailed }

// stable is the last revision that was rolled out well; 0: none was.
func (s *service) stable() int64 {
	last := int64(0)
	for n, r := range s.revisions {
		if r.Rollout.State == api.RolloutComplete {
			last = max(last, n)
		}
	}
	return last
}

// wasWell tells whether a revision, or one that repeats it, was rolled out well; 0 is none.
func (s *service) wasWell(root int64) bool {
	for _, r := range s.revisions {
		if root != 0 && r.root() == root && r.Rollout.State == api.RolloutComplete {
			return true
		}
	}
	return false
}

// root is the first revision that a revision repeats: itself, mostly.
func (r *revision) root() int64 {
	if r.SameAs != 0 {
		return r.SameAs
	}
	return r.Number
}

// runs is the revision that a filling counts as: the newest, if that repeats its own.
func (s *service) runs(f *filling) int64 {
	if newest := s.newest(); f.revision != s.obj.Status.Revision && newest.SameAs != 0 && s.revisions[f.revision].root() == newest.root() {
		return newest.Number
	}
	return f.revision
}

// imagesOf leaves of digests those of the template's references that need one; else
// are those that hold for what is not among them.
func imagesOf(t *api.Template, digests, otherwise map[string]string) map[string]string {
	var out map[string]string
	for _, ct := range t.AllContainers() {
		d := orElse(digests[ct.Image], otherwise[ct.Image])
		if d == "" {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[ct.Image] = d
	}
	return out
}

// undoTo finds the revision that "undo" goes back to; 0 asks for the last before the
// newest that was rolled out well and is not just what the newest is.
func (s *service) undoTo(number int64) (*revision, error) {
	newest := s.newest()
	if number == 0 {
		for _, n := range slices.Backward(slices.Sorted(maps.Keys(s.revisions))) {
			if r := s.revisions[n]; n < newest.Number && r.Rollout.State == api.RolloutComplete && !same(r, newest) {
				return r, nil
			}
		}
		return nil, say(ErrBusy, "service %s: nothing to undo to: no earlier revision was rolled out well", s.key)
	}
	r := s.revisions[number]
	if r == nil {
		return nil, say(ErrNotFound, "service %s: there is no revision %d any more or yet: it has %s", s.key, number, numberList(slices.Sorted(maps.Keys(s.revisions))))
	}
	return r, nil
}

// same tells whether two revisions run the same.
func same(a, b *revision) bool {
	return a.root() == b.root() || sameJSON(a.Template, b.Template) && maps.Equal(a.Images, b.Images) && maps.Equal(a.Configs, b.Configs)
}

func numberList(of []int64) string {
	out := ""
	for i, n := range of {
		if i > 0 {
			out += ", "
		}
		out += fmt.Sprint(n)
	}
	return out
}

// pruneRevisions keeps the newest RevisionHistory revisions, the last that was rolled
// out well, and all that a filling still runs.
func (c *Core) pruneRevisions(s *service) {
	if len(s.revisions) <= c.cfg.RevisionHistory {
		return
	}
	used := map[int64]bool{s.obj.Status.Revision: true, s.stable(): true}
	for _, f := range s.fillings {
		used[f.revision] = true
	}
	numbers := slices.Sorted(maps.Keys(s.revisions))
	for _, n := range numbers[:len(numbers)-c.cfg.RevisionHistory] {
		if !used[n] {
			c.write(store.Delete(revisionKey(s.key, n)))
			c.forgetUser(s.key, s.revisions[n])
			delete(s.revisions, n)
			c.view.touchRevision(s.key, n)
		}
	}
}

func revisionViewKey(key api.Key, n int64) ViewKey {
	return ViewKey{api.KindRevision, key.Namespace, fmt.Sprintf("%s@%d", key.Name, n)}
}

// publishRevisions shows what changed of revisions; of the newest how its rollout is.
func (c *Core) publishRevisions() {
	for _, key := range slices.SortedFunc(maps.Keys(c.view.revisions), compareKeys) {
		s := c.services[key]
		for _, n := range slices.Sorted(maps.Keys(c.view.revisions[key])) {
			if s == nil || s.revisions[n] == nil {
				c.view.gone(revisionViewKey(key, n))
				continue
			}
			out := s.revisions[n].Revision
			if n == s.obj.Status.Revision {
				out.Rollout = s.obj.Status.Rollout
			}
			c.view.put(revisionViewKey(key, n), &out)
		}
	}
	clear(c.view.revisions)
}

// saying is an error of a kind in words of its own.
type saying struct {
	kind  error
	words string
}

func say(kind error, format string, args ...any) error {
	return saying{kind, fmt.Sprintf(format, args...)}
}

func (e saying) Error() string { return e.words }
func (e saying) Unwrap() error { return e.kind }
