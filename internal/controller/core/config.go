package core

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/store"
	"github.com/orchctl/orch/internal/wire"
)

// A Config or Secret has versions, which never change. A revision of a service pins
// those that it takes, as it pins what its images mean, and a version is kept for as
// long as it is the newest or a kept revision pins it: so whatever is gone back to
// finds what it ran with. The values of a Secret are sealed before they come here.

// configID names a Config or Secret.
type configID struct {
	namespace string
	ref       api.ConfigRef
}

func idOfConfig(kind string, key api.Key) configID {
	return configID{key.Namespace, api.RefTo(kind, key.Name)}
}

// String gives "config default/app".
func (id configID) String() string {
	return api.Ref{Kind: id.ref.Kind(), Key: api.Key{Namespace: id.namespace, Name: id.ref.Name()}}.String()
}

func (id configID) version(n int64) wire.ConfigKey {
	return wire.ConfigKey{Namespace: id.namespace, Ref: id.ref, Version: n}
}

func compareConfigs(a, b configID) int {
	return strings.Compare(a.namespace+"/"+string(a.ref), b.namespace+"/"+string(b.ref))
}

// config is one Config or Secret with what is kept of it.
type config struct {
	id configID
	configRecord
	versions map[int64]*configVersion
}

// configRecord is the object as the store has it. Version is the newest; 0: the object
// was deleted, and what is kept are versions that revisions pin.
type configRecord struct {
	Metadata api.Metadata   `json:"metadata"`
	Type     api.SecretType `json:"type,omitempty"`
	Version  int64          `json:"version"`
}

// configVersion is one version. Its payload lies beside its record, for as JSON it would
// take a third more of the transaction.
type configVersion struct {
	Number    int64          `json:"number"`
	CreatedAt time.Time      `json:"createdAt"`
	By        string         `json:"by,omitempty"`
	Keys      map[string]int `json:"keys,omitempty"`
	SealedBy  string         `json:"sealedBy,omitempty"`
	Digest    string         `json:"digest"`

	payload []byte
	users   map[revisionOf]bool // kept revisions that pin it
	values  *api.Config         // as read from the payload; nil: not yet, or it is sealed
}

func (x *config) there() bool { return x != nil && x.Version != 0 }

func (x *config) newest() *configVersion { return x.versions[x.Version] }

// copy gives a config to change without touching the one that holds.
func (x *config) copy() *config {
	next := *x
	next.versions = maps.Clone(x.versions)
	return &next
}

func (x *config) ops(newVersion bool) []store.Op {
	ops := []store.Op{store.Put(configKey(x.id), object(x.id.ref.Kind(), x.configRecord))}
	if newVersion {
		ops = append(ops, x.versionOps(x.newest())...)
	}
	return ops
}

func (x *config) versionOps(v *configVersion) []store.Op {
	return []store.Op{store.Put(configVersionKey(x.id, v.Number), object("ConfigVersion", v)), store.Put(configPayloadKey(x.id, v.Number), v.payload)}
}

// configOf gives the config, making room for one that was not read yet.
func (c *Core) configOf(id configID) *config {
	x := c.configs[id]
	if x == nil {
		x = &config{id: id, versions: map[int64]*configVersion{}}
		c.configs[id] = x
	}
	return x
}

func (x *config) versionOf(n int64) *configVersion {
	v := x.versions[n]
	if v == nil {
		v = &configVersion{Number: n, users: map[revisionOf]bool{}}
		x.versions[n] = v
	}
	return v
}

func configIDFrom(parts []string) configID {
	return configID{parts[0], api.ConfigRef(parts[1] + "/" + parts[2])}
}

// loadConfigVersion reads a version, or the payload that lies beside it.
func (c *Core) loadConfigVersion(kind string, parts []string, value []byte) error {
	n, err := strconv.ParseInt(parts[3], 10, 64)
	if err != nil {
		return err
	}
	v := c.configOf(configIDFrom(parts)).versionOf(n)
	if kind == "configpayloads" {
		v.payload = value
		return nil
	}
	return openEnvelope(value, v)
}

// checkConfigs refuses half of what is to be there.
func (c *Core) checkConfigs() error {
	for _, id := range slices.SortedFunc(maps.Keys(c.configs), compareConfigs) {
		x := c.configs[id]
		if x.there() && x.newest() == nil {
			return fmt.Errorf("the store does not hold the newest version of %s, %d", id, x.Version)
		}
		for n, v := range x.versions {
			if v.payload == nil || v.CreatedAt.IsZero() {
				return fmt.Errorf("the store holds only half of %s version %d", id, n)
			}
		}
	}
	return nil
}

// beginConfigs drops what nobody uses: a leader may have ended between the end of its
// last user and that. It has all of them shown.
func (c *Core) beginConfigs() {
	for _, id := range slices.SortedFunc(maps.Keys(c.configs), compareConfigs) {
		c.view.configs[id] = true
		c.pruneConfig(id)
	}
}

// prepareConfig makes what a Config or Secret would be after the apply, in a copy.
// newVersion tells whether its values change.
func (c *Core) prepareConfig(want ConfigChange, ev Apply) (next *config, outcome string, newVersion bool, err error) {
	id := idOfConfig(want.Kind, want.Metadata.Key())
	have := c.configs[id]
	var meta *api.Metadata
	if have.there() {
		meta = &have.Metadata
	}
	if err := precondition(id.ref.Kind(), meta, want.Metadata); err != nil {
		return nil, "", false, err
	}
	if next, outcome = (&config{id: id, versions: map[int64]*configVersion{}}), "configured"; have != nil {
		next = have.copy()
	}
	if meta == nil {
		outcome = "created"
		next.Metadata = api.Metadata{CreatedAt: c.now, UID: c.newUID(ev.DryRun)}
	}
	m := next.Metadata
	m.Name, m.Namespace, m.Labels, m.Annotations = want.Metadata.Name, want.Metadata.Namespace, want.Metadata.Labels, want.Metadata.Annotations
	newVersion = meta == nil || next.newest().Digest != want.Digest
	retyped := meta != nil && have.Type != want.Type
	if users := c.usersOf(have, nil); retyped && len(users) > 0 {
		return nil, "", false, say(ErrInvalid, "%s is %s and is used by %s, so that its type cannot change: give the other one another name", id, typeWords(have.Type), strings.Join(users, ", "))
	}
	if !newVersion && !retyped && sameJSON(m, *meta) {
		return have, "unchanged", false, nil
	}
	m.ResourceVersion++
	if newVersion {
		m.Generation++
		next.Version = last(next.versions) + 1
		next.versions[next.Version] = &configVersion{Number: next.Version, CreatedAt: c.now, By: ev.By, Keys: want.Keys, SealedBy: want.SealedBy,
			Digest: want.Digest, payload: want.Payload, users: map[revisionOf]bool{}}
	}
	next.Metadata, next.Type = m, want.Type
	return next, outcome, newVersion, nil
}

func typeWords(t api.SecretType) string {
	if t == api.SecretOpaque {
		return "of no type"
	}
	return "of type " + string(t)
}

// last is the highest number of any version that is kept.
func last(of map[int64]*configVersion) int64 {
	n := int64(0)
	for x := range of {
		n = max(n, x)
	}
	return n
}

// newUID gives a number that nothing else of this incarnation has.
func (c *Core) newUID(dryRun bool) string {
	if dryRun {
		return ""
	}
	c.counters.event++ // the UID's number is spent like an event's
	return fmt.Sprintf("%.8s-%d", c.cfg.Incarnation, c.counters.event)
}

// pruneConfig drops the versions that nobody uses and that are not the newest.
func (c *Core) pruneConfig(id configID) {
	x := c.configs[id]
	if x == nil {
		return
	}
	for _, n := range slices.Sorted(maps.Keys(x.versions)) {
		if n != x.Version && len(x.versions[n].users) == 0 {
			delete(x.versions, n)
			delete(c.listed, id.version(n))
			c.write(store.Delete(configVersionKey(id, n)), store.Delete(configPayloadKey(id, n)))
			c.view.configs[id] = true
		}
	}
	if len(x.versions) == 0 {
		delete(c.configs, id)
	}
}

// acceptConfig puts a changed Config or Secret in the place of the one before.
func (c *Core) acceptConfig(x *config, outcome, by string, newVersion bool) {
	c.configs[x.id] = x
	c.view.configs[x.id] = true
	words := fmt.Sprintf("version %d, by %s", x.Version, orElse(by, "unknown"))
	if !newVersion {
		words = fmt.Sprintf("its labels or annotations, by %s", orElse(by, "unknown"))
	}
	c.configEvent(x.id, map[string]string{"created": "Created", "configured": "Changed"}[outcome], words)
	if newVersion {
		c.sendLogins(x.id)
	}
}

func (c *Core) configEvent(id configID, reason, message string) {
	c.event(id.namespace, id.ref.Kind(), id.ref.Name(), api.EventNormal, reason, message)
}

// configsFor are the versions that assignments take values of, sorted, each once. What
// is to stop takes none any more.
func (c *Core) configsFor(of []wire.Assignment) []wire.ConfigVersion {
	var out []wire.ConfigVersion
	seen := map[wire.ConfigKey]bool{}
	for _, a := range of {
		if a.Stopping {
			continue
		}
		for _, of := range []map[api.ConfigRef]int64{a.Configs, a.Logins} {
			for ref, n := range of {
				id := configID{a.Key.Namespace, ref}
				if k := id.version(n); !seen[k] {
					seen[k] = true
					out = append(out, wire.ConfigVersion{ConfigKey: k, Payload: c.configs[id].versions[n].payload})
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b wire.ConfigVersion) int {
		if x := compareConfigs(configID{a.Namespace, a.Ref}, configID{b.Namespace, b.Ref}); x != 0 {
			return x
		}
		return int(a.Version - b.Version)
	})
	return out
}

func configViewKey(id configID) ViewKey {
	return ViewKey{id.ref.Kind(), id.namespace, id.ref.Name()}
}

// publishConfigs shows what changed of Configs and Secrets, and of who uses them.
func (c *Core) publishConfigs() {
	for _, id := range slices.SortedFunc(maps.Keys(c.view.configs), compareConfigs) {
		if x := c.configs[id]; x.there() {
			c.view.put(configViewKey(id), x.public(c.pullers[id]))
		} else {
			c.view.gone(configViewKey(id))
		}
	}
	clear(c.view.configs)
}

// public is the object as it is shown: a Secret has no values here. Those that pull with
// it use the newest version.
func (x *config) public(pullers map[revisionOf]bool) *api.Config {
	v := x.newest()
	out := &api.Config{TypeMeta: api.TypeMeta{APIVersion: api.Version, Kind: x.id.ref.Kind()}, Metadata: x.Metadata, Type: x.Type,
		Status: api.ConfigStatus{Version: x.Version, Keys: v.Keys, ChangedAt: v.CreatedAt, ChangedBy: v.By}}
	if x.id.ref.Kind() == api.KindConfig {
		if v.values == nil {
			v.values = &api.Config{}
			_ = json.Unmarshal(v.payload, v.values) // of a payload that is none nothing is shown
		}
		out.Data, out.BinaryData = v.values.Data, v.values.BinaryData
	}
	for _, n := range slices.Sorted(maps.Keys(x.versions)) {
		v := x.versions[n]
		shown, users := api.ConfigVersion{Number: n, CreatedAt: v.CreatedAt, By: v.By}, v.users
		if n == x.Version && len(pullers) > 0 {
			users = maps.Clone(users)
			maps.Copy(users, pullers)
		}
		for _, u := range slices.SortedFunc(maps.Keys(users), compareRevisions) {
			shown.Users = append(shown.Users, fmt.Sprintf("%s@%d", u.Name, u.revision))
		}
		out.Status.Versions = append(out.Status.Versions, shown)
	}
	return out
}

func compareRevisions(a, b revisionOf) int {
	if x := compareKeys(a.Key, b.Key); x != 0 {
		return x
	}
	return int(a.revision - b.revision)
}
