package core

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/orchctl/orch/api"
)

// pins gives the versions of Configs and Secrets that a template takes: the newest, as
// an apply leaves them that changes some. Who uses it is told where one is missing.
func (c *Core) pins(who api.Ref, t *api.Template, changed map[configID]*config) (map[api.ConfigRef]int64, error) {
	var pins map[api.ConfigRef]int64
	for _, u := range t.ConfigUses() {
		id := configID{who.Namespace, u.Ref}
		x := changed[id]
		if x == nil {
			x = c.configs[id]
		}
		if !x.there() {
			return nil, say(ErrInvalid, "%s (%s) takes %s, which is not there: apply it first, or together with it", who, u.Where, id)
		}
		if u.Pull {
			if x.Type != api.SecretRegistry {
				return nil, say(ErrInvalid, "%s (%s) names %s, which is %s: a login has type: %s (see manifests/examples/registry.yaml)", who, u.Where, id, typeWords(x.Type), api.SecretRegistry)
			}
			continue // whatever is newest counts
		}
		if why := x.newest().unfit(u, id); why != "" {
			return nil, say(ErrInvalid, "%s (%s) %s", who, u.Where, why)
		}
		if pins == nil {
			pins = map[api.ConfigRef]int64{}
		}
		pins[u.Ref] = x.Version
	}
	return pins, nil
}

// unfit says why a version does not have what a place of a template takes of it; ""
// where it does.
func (v *configVersion) unfit(u api.ConfigUse, id configID) string {
	keys := slices.Sorted(maps.Keys(v.Keys))
	if _, ok := v.Keys[u.Key]; u.Key != "" && !ok {
		has := "it has none"
		if len(keys) > 0 {
			has = "it has " + strings.Join(keys, ", ")
		}
		return fmt.Sprintf("takes key %s of %s, and its version %d does not have that: %s", u.Key, id, v.Number, has)
	}
	for _, key := range keys {
		if u.Variables && !api.IsVariable(u.Prefix+key) {
			return fmt.Sprintf("takes all of %s as variables, and %q of its version %d is no variable's name", id, u.Prefix+key, v.Number)
		}
	}
	return ""
}

// noteUser has the versions that a revision pins know of it, or forget it, and what it
// pulls with.
func (c *Core) noteUser(key api.Key, r *revision, uses bool) error {
	c.notePuller(key, r, uses)
	for ref, n := range r.Configs {
		id := configID{key.Namespace, ref}
		x := c.configs[id]
		if x == nil || x.versions[n] == nil {
			return fmt.Errorf("revision %s@%d takes %s version %d, which the store does not hold", key, r.Number, id, n)
		}
		c.view.configs[id] = true
		if uses {
			x.versions[n].users[revisionOf{key, r.Number}] = true
		} else {
			delete(x.versions[n].users, revisionOf{key, r.Number})
		}
	}
	return nil
}

// forgetUser is for a revision that is kept no longer: what it alone pinned goes after it.
func (c *Core) forgetUser(key api.Key, r *revision) {
	_ = c.noteUser(key, r, false) // what it pins is there for as long as it is
	for _, ref := range slices.Sorted(maps.Keys(r.Configs)) {
		c.pruneConfig(configID{key.Namespace, ref})
	}
}

// followers are the services whose newest revision takes values of one of the Configs
// and Secrets that have a new version, and that are not to be left out, sorted. A job
// keeps what it began with.
func (c *Core) followers(newer map[configID]bool, but map[api.Key]bool) []*service {
	of := map[api.Key]bool{}
	for id := range newer {
		if x := c.configs[id]; x != nil {
			for _, v := range x.versions {
				for u := range v.users {
					if s := c.services[u.Key]; s != nil && s.job == nil && u.revision == s.obj.Status.Revision && !s.deleting() && !but[u.Key] {
						of[u.Key] = true
					}
				}
			}
		}
	}
	var out []*service
	for _, key := range sortedKeys(of) {
		out = append(out, c.services[key])
	}
	return out
}

// newerOf words which of the Configs and Secrets that a template takes have a new
// version; "": none.
func newerOf(namespace string, t *api.Template, d *draft) string {
	var words []string
	for _, ref := range t.ConfigRefs() {
		if id := (configID{namespace, ref}); d.newer[id] {
			words = append(words, fmt.Sprintf("%s version %d", ref, d.configs[id].Version))
		}
	}
	return strings.Join(words, ", ")
}

// newerPins are the pins of a revision with the versions of d where those are new. The
// others stay: a version that was gone back behind comes back when somebody asks for it,
// and what was deleted is in nobody's way.
func (c *Core) newerPins(s *service, d *draft) (map[api.ConfigRef]int64, error) {
	newest := s.newest()
	pins := maps.Clone(newest.Configs)
	for _, u := range newest.Template.ConfigUses() {
		id := configID{s.key.Namespace, u.Ref}
		if !d.newer[id] || u.Pull {
			continue
		}
		next := d.configs[id]
		if why := next.newest().unfit(u, id); why != "" {
			return nil, say(ErrInvalid, "%s (%s) %s", api.Ref{Key: s.key}, u.Where, why)
		}
		pins[u.Ref] = next.Version
	}
	return pins, nil
}

// follow gives a copy of a service with a new revision that takes the new versions.
func (c *Core) follow(s *service, d *draft, ev Apply) (*service, error) {
	newest := s.newest()
	pins, err := c.newerPins(s, d)
	if err != nil {
		return nil, err
	}
	next := s.copy()
	next.obj.Metadata.ResourceVersion++
	next.revise(api.Revision{Template: newest.Template, Images: newest.Images, Configs: pins, By: ev.By, Cause: newerOf(s.key.Namespace, &newest.Template, d)},
		api.RolloutSuperseded, supersededBy(s.obj.Status.Revision+1), c.now)
	return next, nil
}
