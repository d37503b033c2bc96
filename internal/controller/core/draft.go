package core

import (
	"fmt"
	"slices"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/store"
)

// draft is what an apply makes of what it names, in copies, and what follows from it.
type draft struct {
	objects []drafted            // as they are answered
	configs map[configID]*config // as they are after it
	newer   map[configID]bool    // those with a new version
	follow  []*service           // not named, and take values of those
	lackVIP []*service
	seen    map[api.Ref]bool
	record  *request
}

// drafted is one object that is applied; one of config and service is set.
type drafted struct {
	config  *config
	service *service
	outcome string
}

// prepareAll prepares what is named: Configs first, for the others take what they are
// after it.
func (c *Core) prepareAll(d *draft, ev Apply) error {
	if ev.MustNotExist {
		if err := c.noneExists(ev); err != nil {
			return err
		}
	}
	for _, want := range ev.Configs {
		if err := d.once(want.Kind, want.Metadata.Key()); err != nil {
			return err
		}
		x, outcome, newVersion, err := c.prepareConfig(want, ev)
		if err != nil {
			return err
		}
		d.add(api.Ref{Kind: want.Kind, Key: want.Metadata.Key()}, drafted{config: x, outcome: outcome})
		d.configs[x.id] = x
		if newVersion {
			d.newer[x.id] = true
		}
	}
	named := map[api.Key]bool{}
	for _, want := range ev.Services {
		key := want.Metadata.Key()
		if err := d.once(api.KindService, key); err != nil {
			return err
		}
		named[key] = true
		s, outcome, err := c.prepare(want, d, ev)
		if err != nil {
			return err
		}
		d.add(api.Ref{Key: key}, drafted{service: s, outcome: outcome})
		if outcome != "unchanged" && s.lacksVIP() {
			d.lackVIP = append(d.lackVIP, s)
		}
	}
	for _, want := range ev.Jobs {
		key := want.Metadata.Key()
		if err := d.once(api.KindJob, key); err != nil {
			return err
		}
		if named[key] {
			return say(ErrInvalid, "job %s: a service of this apply has that name, and jobs and services of a namespace share their names", key)
		}
		s, outcome, err := c.prepareJob(want, d, ev)
		if err != nil {
			return err
		}
		d.add(api.Ref{Kind: api.KindJob, Key: key}, drafted{service: s, outcome: outcome})
	}
	for _, s := range c.followers(d.newer, named) {
		next, err := c.follow(s, d, ev)
		if err != nil {
			return err
		}
		d.follow = append(d.follow, next)
	}
	return nil
}

// once refuses what an apply names twice.
func (d *draft) once(kind string, key api.Key) error {
	ref := api.Ref{Kind: kind, Key: key}
	if d.seen[ref] {
		return fmt.Errorf("%s stands twice in one apply: %w", ref, ErrInvalid)
	}
	d.seen[ref] = true
	return nil
}

func (d *draft) add(ref api.Ref, x drafted) {
	d.objects = append(d.objects, x)
	d.record.Applied = append(d.record.Applied, requestedOne{Kind: ref.Kind, Key: ref.Key, Outcome: x.outcome})
}

// services are all that may change by the apply.
func (d *draft) services() []*service {
	out := slices.Clone(d.follow)
	for _, x := range d.objects {
		if x.service != nil {
			out = append(out, x.service)
		}
	}
	return out
}

func (d *draft) ops() []store.Op {
	var ops []store.Op
	for _, x := range d.objects {
		switch {
		case x.outcome == "unchanged":
		case x.config != nil:
			ops = append(ops, x.config.ops(d.newer[x.config.id])...)
		default:
			ops = append(ops, x.service.ops()...)
		}
	}
	for _, s := range d.follow {
		ops = append(ops, s.ops()...)
	}
	return ops
}

// words say what the apply is, where it is refused for its size.
func (d *draft) words() string {
	words := fmt.Sprintf("apply %d objects at once", len(d.objects))
	if n := len(d.follow); n > 0 {
		words += fmt.Sprintf(", with new revisions of %s what changes", count(n, "service that uses", "services that use"))
	}
	return words
}

// acceptAll puts all that changed in the place of what was before.
func (c *Core) acceptAll(d *draft, by, trace string) {
	for _, x := range d.objects {
		if x.config != nil && x.outcome != "unchanged" {
			c.acceptConfig(x.config, x.outcome, by, d.newer[x.config.id])
		}
	}
	for _, x := range d.objects {
		if x.service != nil && x.outcome != "unchanged" {
			c.accept(x.service, x.outcome, by, trace)
		}
	}
	for _, s := range d.follow {
		c.accept(s, "configured", by, trace)
	}
	for _, x := range d.objects {
		if x.config != nil && d.newer[x.config.id] {
			c.pruneConfig(x.config.id) // the version before, if nobody uses it
		}
	}
}

// resultOf answers an apply.
func (c *Core) resultOf(d *draft, dryRun bool) ApplyResult {
	out := ApplyResult{Applied: make([]Applied, len(d.objects))}
	for i, x := range d.objects {
		a := &out.Applied[i]
		a.Outcome = x.outcome
		switch {
		case x.config != nil:
			a.Config = x.config.public(c.pullers[x.config.id])
		default:
			c.answerWith(a, x.service)
		}
		switch {
		case !dryRun:
		case x.service != nil:
			a.Plan = c.dryRun(x.service)
		case d.newer[x.config.id]:
			for _, s := range d.follow {
				if newest := s.newest(); newest.Configs[x.config.id.ref] == x.config.Version && s.key.Namespace == x.config.id.namespace {
					a.Plan = append(a.Plan, fmt.Sprintf("service %s gets revision %d: %s", s.key, newest.Number, newest.Cause))
				}
			}
		}
	}
	return out
}

// answerWith sets what is answered of a service or job.
func (c *Core) answerWith(a *Applied, s *service) {
	if s.job != nil {
		a.Job = c.publicJob(s)
	} else {
		a.Service = c.publicService(s)
	}
}

// noneExists refuses an apply that is to make everything anew, where something is there.
func (c *Core) noneExists(ev Apply) error {
	there := func(ref api.Ref) error {
		return say(ErrChanged, "%s exists already: change it with an apply, or delete it first", ref)
	}
	for _, x := range ev.Configs {
		if id := idOfConfig(x.Kind, x.Metadata.Key()); c.configs[id].there() {
			return there(api.Ref{Kind: x.Kind, Key: x.Metadata.Key()})
		}
	}
	for _, x := range ev.Services {
		if c.services[x.Metadata.Key()] != nil {
			return there(api.Ref{Kind: api.KindService, Key: x.Metadata.Key()})
		}
	}
	for _, x := range ev.Jobs {
		if c.services[x.Metadata.Key()] != nil {
			return there(api.Ref{Kind: api.KindJob, Key: x.Metadata.Key()})
		}
	}
	return nil
}
