package sim

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/wire"
)

// refKey names a Config or Secret of the fleet.
type refKey struct {
	namespace string
	ref       api.ConfigRef
}

func (k refKey) String() string { return k.ref.String() }

// versionKey names one version of it.
type versionKey = wire.ConfigKey

// configRecord is a Config or Secret as it is stored; Version is the newest.
type configRecord struct {
	Metadata api.Metadata `json:"metadata"`
	Version  int64        `json:"version"`
}

// configVersion is one version as it is stored.
type configVersion struct {
	keys    map[string]int
	payload []byte
}

// values is what the ledger keeps of Configs and Secrets, independently of the core.
type values struct {
	// pinned is what every revision that was ever committed takes: its payloads.
	pinned map[ofRevision]map[api.ConfigRef][]byte
	// highest version that each ever had; log is when each had which keys.
	log map[refKey][]configState
	// usedAt is when each was last used, neededAt when a key of it last was.
	usedAt   map[refKey]int64
	neededAt map[need]int64
}

// configState is what keys a Config had from some time on; nil: it was not there.
type configState struct {
	at   int64
	keys map[string]int
}

// need is a key that somebody takes.
type need struct {
	refKey
	key string
}

func newValues() values {
	return values{map[ofRevision]map[api.ConfigRef][]byte{}, map[refKey][]configState{}, map[refKey]int64{}, map[need]int64{}}
}

// newestOf gives the newest version of a Config; 0: there is none.
func (p picture) newestOf(k refKey) (n int64) {
	for v := range p.versions {
		if v.Namespace == k.namespace && v.Ref == k.ref {
			n = max(n, v.Version)
		}
	}
	return n
}

// wanted are the revisions that new fillings may be of: the newest of each service, and
// that of each job which has not ended.
func (p picture) wanted() map[revisionKey]*revision {
	out := map[revisionKey]*revision{}
	for key, s := range p.services {
		if r := p.revisions[revisionKey{key, s.Status.Revision}]; r != nil && s.Metadata.DeletedAt.IsZero() {
			out[revisionKey{key, s.Status.Revision}] = r
		}
	}
	for key, j := range p.jobs {
		if r := p.revisions[revisionKey{key, 1}]; r != nil && j.Metadata.DeletedAt.IsZero() && !j.Status.Ended() {
			out[revisionKey{key, 1}] = r
		}
	}
	return out
}

// note keeps what is used and needed now.
func (g *ledger) note(p picture) {
	now := max(g.w.clock, 1)
	for k, r := range p.wanted() {
		for _, u := range r.template.ConfigUses() {
			of := refKey{k.service.Namespace, u.Ref}
			g.usedAt[of] = now
			if u.Key != "" {
				g.neededAt[need{of, u.Key}] = now
			}
		}
	}
	for k, x := range p.placements {
		if r := p.revisions[revisionKey{k.ServiceKey(), x.revision}]; r != nil {
			for _, ref := range r.template.ConfigRefs() {
				g.usedAt[refKey{k.Namespace, ref}] = now
			}
		}
	}
}

// valued holds what was just written against what there was: pins have their versions,
// versions that nobody takes go, and who takes a Config takes its changes.
func (g *ledger) valued(before picture, changes []change) {
	if !slices.ContainsFunc(changes, func(c change) bool {
		return c.kind == kindConfig || c.kind == kindVersion || c.kind == kindRevision || c.kind == kindService || c.kind == kindJob
	}) {
		return
	}
	g.note(before)
	g.note(g.pic)
	for _, c := range changes {
		switch {
		case c.kind == kindConfig:
			g.configWritten(before, c)
		case c.kind == kindVersion && c.values != nil:
			g.versionWritten(before, c)
		case c.kind == kindRevision && c.revision != nil:
			if old := before.revisions[revisionKey{c.key, c.number}]; old == nil || old.obj.UID != c.revision.obj.UID {
				g.pins(before, c)
			}
		}
	}
	g.pinsHold()
}

// configWritten: what is used does not go.
func (g *ledger) configWritten(before picture, c change) {
	k := refKey{c.key.Namespace, api.ConfigRef(c.node)}
	now := g.pic.configs[k]
	state := configState{at: max(g.w.clock, 1)}
	if now != nil {
		state.keys = g.pic.versions[versionKey{Namespace: k.namespace, Ref: k.ref, Version: now.Version}].keys
	}
	g.log[k] = append(g.log[k], state)
	if now != nil || before.configs[k] == nil {
		return
	}
	for r := range g.pic.wanted() {
		if before.revisions[r] != nil && slices.Contains(g.pic.revisions[r].template.ConfigRefs(), k.ref) && r.service.Namespace == k.namespace {
			g.w.violate("pins", "%s is gone, though revision %d of %s, which is wanted, takes it", k, r.number, r.service)
		}
	}
}

// versionWritten: a version never changes, rises by one, and comes with a new revision of
// every service that takes it.
func (g *ledger) versionWritten(before picture, c change) {
	k := refKey{c.version.Namespace, c.version.Ref}
	if old, known := before.versions[c.version]; known {
		if !bytes.Equal(old.payload, g.pic.versions[c.version].payload) {
			g.w.violate("pins", "version %d of %s became another", c.version.Version, k)
		}
		return
	}
	g.w.res.ConfigVersions++
	if n := before.newestOf(k); c.version.Version <= n {
		g.w.violate("pins", "%s gets version %d after %d", k, c.version.Version, n)
	}
	for _, key := range g.pic.sortedServices() {
		s, was := g.pic.services[key], before.services[key]
		newest := g.pic.revisions[revisionKey{key, s.Status.Revision}]
		if was == nil || was.Metadata.UID != s.Metadata.UID || newest == nil || !s.Metadata.DeletedAt.IsZero() || key.Namespace != k.namespace || !slices.Contains(newest.template.ConfigRefs(), k.ref) {
			continue
		}
		switch pin := newest.obj.Configs[k.ref]; {
		case was.Status.Revision == s.Status.Revision:
			g.w.violate("pins", "%s has version %d, and service %s, which takes it, has no new revision", k, c.version.Version, key)
		case pin != c.version.Version && newest.obj.SameAs == 0 && newest.obj.Configs[k.ref] < before.newestOf(k):
			g.w.violate("pins", "%s has version %d, and revision %d of %s takes version %d", k, c.version.Version, s.Status.Revision, key, pin)
		default:
			g.w.res.ConfigRevisions++
		}
	}
}

// pins: a revision takes one version of each Config that its template names, that of
// the revision which it repeats where it repeats one.
func (g *ledger) pins(before picture, c change) {
	r := c.revision
	refs := r.template.ConfigRefs()
	of := ofRevision{r.obj.UID, c.number}
	g.pinned[of] = map[api.ConfigRef][]byte{}
	for _, ref := range refs {
		v, kept := g.pic.versions[versionKey{Namespace: c.key.Namespace, Ref: ref, Version: r.obj.Configs[ref]}]
		if !kept {
			g.w.violate("pins", "revision %d of %s takes version %d of %s, which is not stored", c.number, c.key, r.obj.Configs[ref], ref)
			continue
		}
		g.pinned[of][ref] = v.payload
		for _, u := range r.template.ConfigUses() {
			if u.Ref == ref && u.Key != "" && v.keys[u.Key] == 0 {
				g.w.violate("pins", "revision %d of %s takes version %d of %s, which has no key %s", c.number, c.key, r.obj.Configs[ref], ref, u.Key)
			}
		}
	}
	if len(r.obj.Configs) != len(refs) {
		g.w.violate("pins", "revision %d of %s takes versions of %v, its template names %v", c.number, c.key, r.obj.Configs, refs)
	}
	if root := r.root(); root != c.number {
		for _, p := range []picture{g.pic, before} {
			if o := p.revisions[revisionKey{c.key, root}]; o != nil && o.obj.UID == r.obj.UID && !maps.Equal(o.obj.Configs, r.obj.Configs) {
				g.w.violate("pins", "revision %d of %s repeats revision %d, and takes %v, not %v", c.number, c.key, root, r.obj.Configs, o.obj.Configs)
			}
		}
	}
}

// pinsHold: every revision that is kept has its versions, and every version has a user,
// or is the newest of a Config that is there.
func (g *ledger) pinsHold() {
	used := map[versionKey]bool{}
	for k, r := range g.pic.revisions {
		for ref, n := range r.obj.Configs {
			v := versionKey{Namespace: k.service.Namespace, Ref: ref, Version: n}
			used[v] = true
			if _, kept := g.pic.versions[v]; !kept {
				g.w.violate("pins", "revision %d of %s is kept, and version %d of %s, which it takes, is not", k.number, k.service, n, ref)
			}
		}
	}
	for _, v := range sortedOf(g.pic.versions, compareVersions) {
		k := refKey{v.Namespace, v.Ref}
		if x := g.pic.configs[k]; !used[v] && (x == nil || v.Version != x.Version) {
			g.w.violate("pins", "version %d of %s is kept, and nobody takes it", v.Version, k)
		}
	}
}

// configMissed says what of an owner's last word is not stored.
func (o *owner) configMissed() string {
	k := refKey{o.key.Namespace, o.ref()}
	x := o.w.ledger.pic.configs[k]
	switch {
	case o.config == nil && x != nil:
		return fmt.Sprintf("%s is there, though its delete was acknowledged", k)
	case o.config != nil && x == nil:
		return fmt.Sprintf("%s is not there, though its apply was acknowledged", k)
	case o.config != nil && o.kind == api.KindConfig && !bytes.Equal(o.config.Payload, o.w.ledger.pic.versions[versionKey{Namespace: k.namespace, Ref: k.ref, Version: x.Version}].payload):
		return fmt.Sprintf("%s has other values than were acknowledged", k)
	}
	return ""
}

// needsMore tells whether somebody needed, some time since, a key that is not among
// these.
func (g *ledger) needsMore(ref api.ConfigRef, keys map[string]int, since int64) bool {
	g.note(g.pic)
	for n, at := range g.neededAt {
		if n.ref == ref && keys[n.key] == 0 && at >= since {
			return true
		}
	}
	return false
}

// usedSince tells whether somebody used it some time since.
func (g *ledger) usedSince(ref api.ConfigRef, since int64) bool {
	g.note(g.pic)
	return g.usedAt[refKey{api.DefaultNamespace, ref}] >= since
}

// lackedSince tells whether something that a template takes was not there some time
// since.
func (g *ledger) lackedSince(t *api.Template, since int64) bool {
	for _, u := range t.ConfigUses() {
		log := g.log[refKey{api.DefaultNamespace, u.Ref}]
		if len(log) == 0 || log[0].at >= since {
			return true
		}
		for i, s := range log {
			if until := g.w.clock; i+1 == len(log) || log[i+1].at >= since {
				if _, there := s.keys[u.Key]; s.at <= until && (s.keys == nil || u.Key != "" && !there) {
					return true
				}
			}
		}
	}
	return false
}

// isLacking tells an apply that was refused for what its template takes.
func (g *ledger) isLacking(t *api.Template, err error) bool {
	return slices.ContainsFunc(t.ConfigRefs(), func(ref api.ConfigRef) bool {
		return strings.Contains(err.Error(), api.Ref{Kind: ref.Kind(), Key: named(ref.Name())}.String())
	})
}

// sentWith: a set carries all that its assignments take, as it is stored, and names the
// versions of their revisions.
func (g *ledger) sentWith(e core.SendAssignments) {
	carried := map[versionKey][]byte{}
	for _, v := range e.Set.Configs {
		carried[v.ConfigKey] = v.Payload
	}
	for _, a := range e.Set.Put {
		if a.Stopping {
			continue
		}
		pinned := g.pinned[g.revisions[a.Key]]
		if len(a.Configs) != len(pinned) {
			g.w.violate("pins", "%s is told to run %s with %v, its revision takes values of %d objects", e.Node, a.Key, a.Configs, len(pinned))
		}
		for ref, n := range a.Configs {
			if payload, ok := carried[versionKey{Namespace: a.Key.Namespace, Ref: ref, Version: n}]; !ok {
				g.w.violate("pins", "%s is told to run %s with version %d of %s, and is not told its values", e.Node, a.Key, n, ref)
			} else if !bytes.Equal(payload, pinned[ref]) {
				g.w.violate("pins", "%s is told to run %s with version %d of %s, which is not what its revision takes", e.Node, a.Key, n, ref)
			}
		}
	}
}

// takeConfigs keeps the values that a set carries, beside the planner.
func (a *agent) takeConfigs(set *wire.AssignmentSet) {
	for _, v := range set.Configs {
		a.configs[v.ConfigKey] = v.Payload
	}
	set.Configs = nil
}

// keepConfigs drops what no assignment takes, and gives what goes to the disk with them:
// Configs, never Secrets.
func (a *agent) keepConfigs(saved plan.Saved) map[versionKey][]byte {
	pinned := map[versionKey]bool{}
	for _, x := range saved.Assignments {
		for ref, n := range x.Configs {
			pinned[versionKey{Namespace: x.Key.Namespace, Ref: ref, Version: n}] = true
		}
	}
	maps.DeleteFunc(a.configs, func(k versionKey, _ []byte) bool { return !pinned[k] })
	disk := maps.Clone(a.configs)
	maps.DeleteFunc(disk, func(k versionKey, _ []byte) bool { return k.Ref.Kind() == api.KindSecret })
	return disk
}

// valuesOf holds a container's start against what its revision takes. It says what is
// not on the node, if anything.
func (r *runtime) valuesOf(e plan.StartContainer) (missing string) {
	w := r.h.w
	pinned := w.ledger.pinned[w.ledger.revisions[e.Replica]]
	takes := &api.Template{Containers: []api.Container{e.Container}}
	for _, ref := range takes.ConfigRefs() {
		n, ok := e.Configs[ref]
		if !ok {
			w.violate("pins", "%s starts %s %s without a version of %s", r.h.name, e.Replica, e.Container.Name, ref)
			return ""
		}
		have, ok := r.h.agent.configs[versionKey{Namespace: e.Replica.Namespace, Ref: ref, Version: n}]
		switch {
		case !ok:
			return fmt.Sprintf("%s version %d is not on this node yet", ref, n)
		case !bytes.Equal(have, pinned[ref]):
			w.violate("pins", "%s starts %s %s with another version of %s than its revision takes", r.h.name, e.Replica, e.Container.Name, ref)
		}
	}
	return ""
}
