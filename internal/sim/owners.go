package sim

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
)

// owner has one object that is no service, a Config, a Secret or a job, and asks for
// things as a user does.
type owner struct {
	*user
	kind string
	// config and job are as last acknowledged; nil: deleted, or never applied.
	config *core.ConfigChange
	job    *api.Job
}

// newOwners makes them: what they ask for is drawn apart from what users ask.
func newOwners(w *world) []*owner {
	var out []*owner
	for _, ref := range []api.Ref{{Kind: api.KindConfig, Key: named("app")}, {Kind: api.KindSecret, Key: named("db")}, {Kind: api.KindConfig, Key: named("env")},
		{Kind: api.KindJob, Key: named("batch")}, {Kind: api.KindJob, Key: named("migrate")}} {
		out = append(out, &owner{user: &user{w: w, key: ref.Key}, kind: ref.Kind})
	}
	return out
}

func named(name string) api.Key { return api.Key{Namespace: api.DefaultNamespace, Name: name} }

// nextOwned has an owner ask for something now and then.
func (w *world) nextOwned() {
	gap := between(w.r.owners, 200*time.Millisecond, 5*time.Second)
	if w.clock < int64(2*time.Second) {
		gap /= 10
	}
	w.after(gap, func() {
		if w.calm {
			return
		}
		o, n := pick(w.r.owners, w.owners), w.r.owners.IntN(100)
		w.requests++
		switch {
		case slices.Contains(w.cfg.SkipRequests, w.requests):
		case n < 12:
			w.removeVolume()
		case o.pending != nil:
		case o.kind == api.KindJob:
			w.say("request %d", w.requests)
			o.askJob()
		default:
			w.say("request %d", w.requests)
			o.askConfig()
		}
		w.nextOwned()
	})
}

// ownerOf gives who has an object.
func (w *world) ownerOf(kind, name string) *owner {
	for _, o := range w.owners {
		if o.kind == kind && o.key.Name == name {
			return o
		}
	}
	return nil
}

// configKeys are those that a Config may have: names of variables, all of them.
var configKeys = []string{"A", "B", "C"}

// secretMark is in every value of a Secret, and so in nothing that is on a disk.
const secretMark = "SECRET"

// change makes up what a Config is to be: now and then what it was before, or with a
// key less.
func (o *owner) change() core.ConfigChange {
	r := o.w.r.owners
	values, keys := map[string]string{}, map[string]int{}
	n := r.IntN(4)
	for _, k := range configKeys {
		if k != configKeys[0] && chance(r, 0.2) {
			continue
		}
		v := fmt.Sprintf("%s-%d", o.key.Name, n)
		if o.kind == api.KindSecret {
			v = secretMark + v
		}
		values[k], keys[k] = v, len(v)
	}
	js, err := json.Marshal(struct {
		Data map[string]string `json:"data"`
	}{values})
	if err != nil {
		panic(fmt.Sprintf("encode values: %v", err)) // they are text
	}
	c := core.ConfigChange{Kind: o.kind, Metadata: api.Metadata{Name: o.key.Name, Namespace: o.key.Namespace}, Keys: keys, Payload: js, Digest: "plain:" + string(js)}
	if o.kind == api.KindSecret { // sealing the same twice gives another payload
		c.SealedBy, c.Digest = "key1", "key1:"+string(js)
		c.Payload = []byte(fmt.Sprintf("sealed %d %s", r.Uint64(), js))
	}
	return c
}

func (o *owner) ref() api.ConfigRef { return api.RefTo(o.kind, o.key.Name) }

func (o *owner) askConfig() {
	r := o.w.r.owners
	n, c := r.IntN(100), o.change()
	dry := false
	switch {
	case o.config == nil || n < 55:
	case n < 65:
		c = *o.config
	case n < 73:
		c = *o.config
		c.Metadata.Labels = map[string]string{"round": fmt.Sprint(r.IntN(3))}
	case n < 80:
		dry = true
	default:
		o.send(&request{words: "delete " + o.ref().String(), taken: o.configDeleted, make: func(t uint64) core.Event {
			return core.Delete{Ticket: t, Refs: []api.Ref{{Kind: o.kind, Key: o.key}}, IgnoreMissing: true, RequestID: o.pending.id, By: "owner"}
		}})
		return
	}
	words := fmt.Sprintf("apply %s with %v", o.ref(), slices.Sorted(maps.Keys(c.Keys)))
	if dry {
		words = "try " + words
	}
	o.send(&request{words: words, taken: func(e core.Reply) bool { return o.configApplied(c, dry, e) }, make: func(t uint64) core.Event {
		ev := core.Apply{Ticket: t, Configs: []core.ConfigChange{c}, DryRun: dry, RequestID: o.pending.id, By: "owner"}
		if dry {
			ev.RequestID = ""
		}
		return ev
	}})
}

// configApplied is refused only for a key that somebody needs.
func (o *owner) configApplied(c core.ConfigChange, dry bool, e core.Reply) (again bool) {
	w := o.w
	switch {
	case errors.Is(e.Err, core.ErrBusy):
		return true
	case errors.Is(e.Err, core.ErrInvalid):
		w.res.ConfigsRefused++
		w.say("an owner is refused: %v", e.Err)
		if !w.ledger.needsMore(o.ref(), c.Keys, o.pending.asked) {
			w.violate("pins", "%s is refused, though nobody needs another key: %v", o.pending.words, e.Err)
		}
	case e.Err != nil:
		w.violate("sim", "an owner is refused: %s: %v", o.pending.words, e.Err)
	case !dry:
		o.config = &c
	}
	return false
}

// configDeleted is refused only while somebody uses it.
func (o *owner) configDeleted(e core.Reply) (again bool) {
	w := o.w
	switch {
	case errors.Is(e.Err, core.ErrBusy) && strings.Contains(e.Err.Error(), "used by"):
		w.res.ConfigsRefused++
		w.say("an owner is refused: %v", e.Err)
		if !w.ledger.usedSince(o.ref(), o.pending.asked) {
			w.violate("pins", "%s is refused, though nobody uses it: %v", o.pending.words, e.Err)
		}
	case errors.Is(e.Err, core.ErrBusy):
		return true
	case e.Err != nil:
		w.violate("sim", "an owner is refused: %s: %v", o.pending.words, e.Err)
	default:
		o.config = nil
	}
	return false
}

// takesValues gives a template, now and then, values of Configs and Secrets: mostly of
// such as are there.
func (w *world) takesValues(t *api.Template) {
	r := w.r.owners
	c := &t.Containers[0]
	for _, o := range w.owners {
		if o.kind == api.KindJob || !chance(r, map[bool]float64{true: 0.4, false: 0.2}[o.kind == api.KindSecret]) {
			continue
		}
		key := pick(r, configKeys)
		if blind := chance(r, 0.05); !blind && (o.config == nil || o.config.Keys[key] == 0) {
			continue
		}
		secret := o.kind == api.KindSecret
		config, of := o.key.Name, ""
		if secret {
			config, of = of, config
		}
		switch r.IntN(4) {
		case 0:
			c.EnvFrom = append(c.EnvFrom, api.EnvFrom{Config: config, Secret: of})
		case 1:
			from := &api.EnvSource{Config: &api.KeyRef{Name: config, Key: key}}
			if secret {
				from = &api.EnvSource{Secret: &api.KeyRef{Name: of, Key: key}}
			}
			c.Env = append(c.Env, api.EnvVar{Name: strings.ToUpper(o.key.Name), ValueFrom: from})
		case 2:
			c.Mounts = append(c.Mounts, api.Mount{Path: "/etc/" + o.key.Name, Config: config, Secret: of, Key: key})
		case 3:
			c.Mounts = append(c.Mounts, api.Mount{Path: "/etc/" + o.key.Name, Config: config, Secret: of})
		}
	}
}

// sortedOf gives a map's keys in an order that is always the same.
func sortedOf[K comparable, V any](m map[K]V, less func(a, b K) int) []K {
	return slices.SortedFunc(maps.Keys(m), less)
}

func compareVersions(a, b versionKey) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Ref, b.Ref), cmp.Compare(a.Version, b.Version))
}
