package sim

import (
	"strconv"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/store"
)

// readOwned decodes what is stored of Configs, jobs and volumes.
func (g *ledger) readOwned(what string, parts []string, op store.Op) (c change) {
	gone := op.Kind == store.OpDelete
	c.key = api.Key{Namespace: parts[0], Name: parts[1]} // of what has one
	switch what {
	case "configs":
		c.kind, c.node = kindConfig, parts[1]+"/"+parts[2]
		if !gone {
			c.config = &configRecord{}
			if g.open(op.Value, c.config); c.config.Version == 0 { // only its versions are left
				c.config = nil
			}
		}
	case "configversions", "configpayloads":
		n, _ := strconv.ParseInt(parts[3], 10, 64)
		c.kind, c.version = kindVersion, versionKey{Namespace: parts[0], Ref: api.ConfigRef(parts[1] + "/" + parts[2]), Version: n}
		switch {
		case what == "configpayloads":
			if c.kind = kindPayload; !gone {
				c.values = &configVersion{payload: op.Value}
			}
		case !gone:
			var v struct{ Keys map[string]int }
			g.open(op.Value, &v)
			c.values = &configVersion{keys: v.Keys}
		}
	case "jobs":
		if c.kind = kindJob; !gone {
			c.job = &api.Job{}
			g.open(op.Value, c.job)
		}
	case "outcomes":
		c.kind = kindOutcome
		c.index, _ = strconv.Atoi(parts[2])
		if !gone {
			c.outcome = &api.Outcome{}
			g.open(op.Value, c.outcome)
		}
	case "volumes", "volumeremovals":
		if c.kind = kindVolume; what == "volumeremovals" {
			c.kind, c.node, parts = kindRemoval, parts[0], parts[1:]
		}
		slot, _ := strconv.Atoi(parts[2])
		c.volume = api.VolumeKey{Namespace: parts[0], Service: parts[1], Slot: slot, Volume: parts[3]}
		if !gone {
			c.where = &volumeRecord{}
			g.open(op.Value, c.where)
		}
	}
	return c
}

// takeOwned takes up a change of Configs, jobs and volumes.
func (p picture) takeOwned(c change) {
	switch c.kind {
	case kindConfig:
		putOrDelete(p.configs, refKey{c.key.Namespace, api.ConfigRef(c.node)}, c.config)
	case kindVersion:
		if c.values == nil {
			delete(p.versions, c.version)
			return
		}
		v := p.versions[c.version]
		v.keys = c.values.keys
		p.versions[c.version] = v
	case kindPayload:
		if c.values != nil {
			v := p.versions[c.version]
			v.payload = c.values.payload
			p.versions[c.version] = v
		}
	case kindJob:
		putOrDelete(p.jobs, c.key, c.job)
	case kindOutcome:
		putOrDelete(p.outcomes, c.outcomeKey(), c.outcome)
	case kindVolume:
		putOrDelete(p.volumes, c.volume, c.where)
	case kindRemoval:
		putOrDelete(p.removals, volumeAt{c.volume, c.node}, c.where)
	}
}

func putOrDelete[K comparable, V any](m map[K]*V, k K, v *V) {
	if v == nil {
		delete(m, k)
		return
	}
	m[k] = v
}
