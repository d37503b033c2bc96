package core

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/store"
)

// removal is what the delete of a Config, Secret or volume comes to: what it writes, and
// what is done when all that is named may go.
type removal struct {
	ops []store.Op
	do  func()
}

// besides tells whether objects of a kind lie beside services and jobs.
func besides(kind string) bool {
	return kind == api.KindConfig || kind == api.KindSecret || kind == api.KindVolume
}

// removalOf is nil for what is not there, and an error for what is used.
func (c *Core) removalOf(ref api.Ref, ev Delete) (*removal, error) {
	if ref.Kind == api.KindVolume {
		return c.volumeRemoval(ref, ev)
	}
	return c.configRemoval(idOfConfig(ref.Kind, ref.Key), ev)
}

// configRemoval has the object go; versions that kept revisions pin stay for them.
func (c *Core) configRemoval(id configID, ev Delete) (*removal, error) {
	x := c.configs[id]
	if !x.there() {
		return nil, nil
	}
	going := map[api.Key]bool{}
	for _, ref := range ev.Refs {
		if !besides(ref.Kind) {
			going[ref.Key] = true
		}
	}
	if users := c.usersOf(x, going); len(users) > 0 {
		return nil, say(ErrBusy, "%s is used by %s: change or delete what uses it first", id, strings.Join(users, ", "))
	}
	return &removal{ops: []store.Op{store.Delete(configKey(id))}, do: func() {
		next := x.copy()
		next.configRecord = configRecord{}
		c.configs[id] = next
		c.view.configs[id] = true
		c.configEvent(id, "Deleted", "by "+orElse(ev.By, "unknown"))
		c.pruneConfig(id)
	}}, nil
}

// usersMax is as much as a person reads.
const usersMax = 10

// usersOf says in words who needs a Config or Secret: newest revisions, and what runs.
// What is being deleted, or goes together with it, does not: it has its version.
func (c *Core) usersOf(x *config, going map[api.Key]bool) []string {
	if x == nil {
		return nil
	}
	of := map[revisionOf]bool{}
	maps.Copy(of, c.pullers[x.id])
	for _, v := range x.versions {
		maps.Copy(of, v.users)
	}
	var out []string
	for _, u := range slices.SortedFunc(maps.Keys(of), compareRevisions) {
		s := c.services[u.Key]
		if s.deleting() || going[u.Key] {
			continue
		}
		if words := s.takesOf(u.revision, x.id.ref); words != "" {
			if len(out) == usersMax {
				return append(out, "and others")
			}
			out = append(out, words)
		}
	}
	return out
}

// takesOf words how a revision that is in force takes values of a Config or Secret; "" if
// it is not in force.
func (s *service) takesOf(number int64, ref api.ConfigRef) string {
	name := strings.ToLower(s.kind()) + " " + s.key.Name
	if s.job != nil && s.job.ended() {
		return ""
	}
	if number != s.obj.Status.Revision {
		i := slices.IndexFunc(s.fillings, func(f *filling) bool { return f.revision == number && !f.void })
		newest := slices.ContainsFunc(s.newest().Template.ConfigUses(), func(u api.ConfigUse) bool { return u.Ref == ref })
		if i < 0 || newest { // the newest one's place is what there is to change
			return ""
		}
		return fmt.Sprintf("%s (%s still runs revision %d)", name, s.fillings[i].key.Name(), number)
	}
	var places []string
	for _, u := range s.newest().Template.ConfigUses() {
		if u.Ref == ref {
			places = append(places, u.Where)
		}
	}
	return fmt.Sprintf("%s (%s)", name, strings.Join(places, "; "))
}

// listSealed answers with what another key than the one named has sealed.
func (c *Core) listSealed(ev ListSealed) {
	c.confirm()
	out := []Sealed{}
	for _, id := range slices.SortedFunc(maps.Keys(c.configs), compareConfigs) {
		x := c.configs[id]
		if of := idOfConfig(api.KindSecret, ev.Of); ev.Of != (api.Key{}) && id != of {
			continue
		}
		for _, n := range slices.Sorted(maps.Keys(x.versions)) {
			v := x.versions[n]
			if v.SealedBy == "" || v.SealedBy == ev.Except || ev.Max > 0 && len(out) >= ev.Max {
				continue
			}
			c.listed[id.version(n)] = v
			out = append(out, Sealed{Version: id.version(n), Payload: v.payload, SealedBy: v.SealedBy, Digest: v.Digest})
		}
	}
	c.answer(ev.Ticket, out, nil)
}

// reseal puts back what was listed. Only what was listed by this leader and is still the
// same may be put: a number that was given anew since names other values.
func (c *Core) reseal(ev Reseal) {
	c.confirm()
	for _, y := range ev.Secrets {
		x := c.configs[configID{y.Version.Namespace, y.Version.Ref}]
		if x == nil || x.versions[y.Version.Version] == nil || x.versions[y.Version.Version] != c.listed[y.Version] {
			continue
		}
		next := *x.versions[y.Version.Version]
		next.payload, next.SealedBy, next.Digest = y.Payload, y.SealedBy, y.Digest
		x.versions[y.Version.Version] = &next
		delete(c.listed, y.Version)
		c.write(x.versionOps(&next)...)
	}
	c.answer(ev.Ticket, nil, nil)
}

// delete takes all of what is named or nothing. Services and jobs go when nothing of
// them runs any more, the others at once.
func (c *Core) delete(ev Delete) {
	if !ev.DryRun {
		c.confirm()
	}
	if c.repeated(ev.Ticket, ev.RequestID) {
		return
	}
	record := &request{ID: ev.RequestID, IsDelete: true}
	var ops []store.Op
	var removals []removal
	var used error
	for _, ref := range ev.Refs {
		key := ref.Key
		if besides(ref.Kind) {
			x, err := c.removalOf(ref, ev)
			switch {
			case err != nil:
				used = err
			case x == nil:
				record.Missing = append(record.Missing, ref)
			case !slices.Contains(record.Deleted, ref):
				record.Deleted = append(record.Deleted, ref)
				removals, ops = append(removals, *x), append(ops, x.ops...)
			}
			continue
		}
		s := c.services[key]
		switch {
		case s == nil || s.kind() != cmp.Or(ref.Kind, api.KindService):
			record.Missing = append(record.Missing, ref)
		case slices.Contains(record.Deleted, ref):
		default:
			record.Deleted = append(record.Deleted, ref)
			if !s.deleting() {
				ops = append(ops, s.deletedAt(c.now).record())
			}
		}
	}
	err := c.fits(fmt.Sprintf("delete %d objects at once", len(ev.Refs)), ops)
	if used != nil {
		err = used
	}
	if len(record.Missing) > 0 && !ev.IgnoreMissing {
		err = fmt.Errorf("%s: %w; nothing was deleted", record.Missing[0], ErrNotFound)
	}
	if err != nil {
		c.answer(ev.Ticket, nil, err)
		return
	}
	if ev.DryRun {
		c.answer(ev.Ticket, DeleteResult{Deleted: record.Deleted, Missing: record.Missing}, nil)
		return
	}
	if len(ops) > 0 { // first: nodes are told of what goes behind it
		c.write(append(ops, c.remember(record)...)...)
	}
	for _, x := range removals {
		x.do()
	}
	for _, ref := range record.Deleted {
		if besides(ref.Kind) {
			continue
		}
		key := ref.Key
		if s := c.services[key]; !s.deleting() {
			*s = *s.deletedAt(c.now)
			c.event(key.Namespace, s.kind(), key.Name, api.EventNormal, "Deleting", "by "+orElse(ev.By, "unknown"))
			c.markDirty(s)
		}
	}
	c.answer(ev.Ticket, DeleteResult{Deleted: record.Deleted, Missing: record.Missing}, nil)
}

// deletedAt gives a copy that is being deleted.
func (s *service) deletedAt(now time.Time) *service {
	next := *s
	if s.job != nil {
		j := *s.job
		j.obj.Metadata.DeletedAt = now
		j.obj.Metadata.ResourceVersion++
		next.job = &j
		next.jobChanged()
		return &next
	}
	next.obj.Metadata.DeletedAt = now
	next.obj.Metadata.ResourceVersion++
	return &next
}
