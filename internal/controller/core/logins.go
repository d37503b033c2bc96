package core

import (
	"maps"
	"slices"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// Logins to registries are Secrets of type registry that templates name. No revision pins
// them: a password that was changed holds for all that will be pulled from then on, by old
// revisions too, and restarts nothing. So assignments carry the newest versions, and are
// sent again when one changes.

// notePuller has a Secret know of a revision that pulls with it, or forget it. The Secret
// need not be there: of an old revision it may be gone.
func (c *Core) notePuller(key api.Key, r *revision, uses bool) {
	for _, ref := range r.Template.PullRefs() {
		id, of := configID{key.Namespace, ref}, revisionOf{key, r.Number}
		c.view.configs[id] = true
		switch {
		case !uses:
			if delete(c.pullers[id], of); len(c.pullers[id]) == 0 {
				delete(c.pullers, id)
			}
		case c.pullers[id] == nil:
			c.pullers[id] = map[revisionOf]bool{of: true}
		default:
			c.pullers[id][of] = true
		}
	}
}

// loginsOf gives the newest versions of what a template pulls with, of those that are
// there.
func (c *Core) loginsOf(namespace string, t *api.Template) map[api.ConfigRef]int64 {
	var out map[api.ConfigRef]int64
	for _, ref := range t.PullRefs() {
		x := c.configs[configID{namespace, ref}]
		if !x.there() || x.Type != api.SecretRegistry {
			continue
		}
		if out == nil {
			out = map[api.ConfigRef]int64{}
		}
		out[ref] = x.Version
	}
	return out
}

// sendLogins tells the nodes of all replicas that pull with a Secret of its new version.
// It costs the fillings of the services that do.
func (c *Core) sendLogins(id configID) {
	sets := map[string]*wire.AssignmentSet{}
	services := map[api.Key]bool{}
	for of := range c.pullers[id] {
		services[of.Key] = true
	}
	for _, key := range sortedKeys(services) {
		for _, f := range c.services[key].fillings {
			if f.void || f.stopping && !f.handing || !c.pullers[id][revisionOf{key, f.revision}] {
				continue
			}
			if sets[f.node] == nil {
				sets[f.node] = &wire.AssignmentSet{}
			}
			sets[f.node].Put = append(sets[f.node].Put, c.assignment(f))
		}
	}
	for _, node := range slices.Sorted(maps.Keys(sets)) {
		c.sendToNode(node, *sets[node])
	}
}
