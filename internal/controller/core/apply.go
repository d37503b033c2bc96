package core

import (
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/store"
)

// apply takes all services or none: everything is checked before anything is
// changed, and all writes go into one transaction.
func (c *Core) apply(ev Apply) {
	results := make([]Applied, len(ev.Services))
	changed := make([]*service, len(ev.Services))
	var ops []store.Op
	seen := map[api.Key]bool{}
	for i, want := range ev.Services {
		s, outcome, err := c.prepare(want, ev)
		if key := want.Metadata.Key(); err == nil && seen[key] {
			err = fmt.Errorf("service %s stands twice in one apply: %w", key, ErrInvalid)
		}
		seen[want.Metadata.Key()] = true
		if err != nil {
			c.out = append(c.out, Reply{Ticket: ev.Ticket, Err: err})
			return
		}
		results[i].Outcome = outcome
		changed[i] = s
		if outcome != "unchanged" {
			ops = append(ops, s.ops(c)...)
		}
	}
	if limit := c.cfg.Limits.MaxOps - countersRoom - 2*len(ev.Services); len(ops) > limit {
		c.out = append(c.out, Reply{Ticket: ev.Ticket, Err: fmt.Errorf("apply %d services at once: %w: one transaction holds %d writes; apply them in parts", len(ev.Services), ErrInvalid, limit)})
		return
	}
	if ev.DryRun {
		for i, s := range changed {
			results[i].Service = c.publicService(s)
			results[i].Plan = dryRun(c.viewOf(s), c)
		}
		c.out = append(c.out, Reply{Ticket: ev.Ticket, Value: ApplyResult{results}})
		return
	}
	if len(ops) > 0 {
		c.write(ops...)
	}
	for i, s := range changed {
		if results[i].Outcome != "unchanged" {
			c.services[s.key] = s
			c.event(s.key.Namespace, api.KindService, s.key.Name, api.EventNormal, map[string]string{"created": "Created", "configured": "Configured"}[results[i].Outcome],
				fmt.Sprintf("revision %d, %d replicas, by %s", s.obj.Status.Revision, s.obj.Spec.Want(), orElse(ev.By, "unknown")))
			c.pruneRevisions(s)
			c.markDirty(s)
			for _, f := range s.fillings {
				c.view.touchFilling(f) // replicas show their service's labels
			}
		}
		results[i].Service = c.publicService(s)
	}
	c.emit(Reply{Ticket: ev.Ticket, Value: ApplyResult{results}})
}

// prepare makes what a service would be after the apply, in a copy.
func (c *Core) prepare(want *api.Service, ev Apply) (*service, string, error) {
	key := want.Metadata.Key()
	have := c.services[key]
	if err := precondition(have, want); err != nil {
		return nil, "", err
	}
	next := newService(key)
	outcome := "created"
	if have == nil {
		if !ev.DryRun {
			c.counters.event++ // the UID's number is spent like an event's
			next.obj.Metadata.UID = fmt.Sprintf("%.8s-%d", c.cfg.Incarnation, c.counters.event)
		}
		next.obj.Metadata.CreatedAt = c.now
	} else {
		if have.deleting() {
			return nil, "", fmt.Errorf("service %s is being deleted: %w: apply again when it is gone", key, ErrBusy)
		}
		if ev.RequestID != "" && have.requestID == ev.RequestID {
			return have, "unchanged", nil // a retry of what was done
		}
		*next = *have
		next.revisions = maps.Clone(have.revisions)
		outcome = "configured"
	}
	m := next.obj.Metadata
	m.Name, m.Namespace, m.Labels, m.Annotations = key.Name, key.Namespace, want.Metadata.Labels, want.Metadata.Annotations
	rev := next.newest()
	newTemplate := rev == nil || !reflect.DeepEqual(rev.Template, want.Spec.Template)
	if have != nil && !newTemplate && reflect.DeepEqual(have.obj.Spec, want.Spec) && reflect.DeepEqual(have.obj.Metadata, m) {
		return have, "unchanged", nil
	}
	if have == nil || !reflect.DeepEqual(have.obj.Spec, want.Spec) {
		m.Generation++
	}
	m.ResourceVersion++
	next.obj = api.Service{TypeMeta: api.TypeMeta{APIVersion: api.Version, Kind: api.KindService}, Metadata: m, Spec: want.Spec, Status: next.obj.Status}
	next.requestID = ev.RequestID
	if newTemplate {
		next.obj.Status = api.ServiceStatus{Revision: next.obj.Status.Revision + 1}
		next.addRevision(&api.Revision{Service: key, UID: m.UID, Number: next.obj.Status.Revision, Template: want.Spec.Template, CreatedAt: c.now})
		next.fresh = true
	}
	return next, outcome, nil
}

// precondition checks what a manifest says about the object that it means.
func precondition(have *service, want *api.Service) error {
	m, key := want.Metadata, want.Metadata.Key()
	switch {
	case have == nil && (m.ResourceVersion != 0 || m.UID != ""):
		return fmt.Errorf("service %s: %w: the manifest carries metadata.resourceVersion or metadata.uid, but no such service exists; leave them out to create it", key, ErrChanged)
	case have != nil && m.UID != "" && m.UID != have.obj.Metadata.UID:
		return fmt.Errorf("service %s: %w: metadata.uid is %s, the service's is %s: it was deleted and made anew", key, ErrChanged, m.UID, have.obj.Metadata.UID)
	case have != nil && m.ResourceVersion != 0 && m.ResourceVersion != have.obj.Metadata.ResourceVersion:
		return fmt.Errorf("service %s: %w: metadata.resourceVersion is %d, the service's is %d; get it again and repeat your change", key, ErrChanged, m.ResourceVersion, have.obj.Metadata.ResourceVersion)
	}
	return nil
}

// ops writes the service, and its newest revision if it is new.
func (s *service) ops(c *Core) []store.Op {
	ops := []store.Op{store.Put(serviceKey(s.key), object(api.KindService, &s.obj, s.requestID))}
	if s.fresh {
		s.fresh = false
		ops = append(ops, store.Put(revisionKey(s.key, s.obj.Status.Revision), object("Revision", &s.newest().Revision, "")))
	}
	return ops
}

func (c *Core) scale(ev Scale) {
	s := c.services[ev.Key]
	var err error
	switch {
	case s == nil:
		err = fmt.Errorf("service %s: %w", ev.Key, ErrNotFound)
	case s.deleting():
		err = fmt.Errorf("service %s is being deleted: %w", ev.Key, ErrBusy)
	case ev.Replicas < 0:
		err = fmt.Errorf("scale service %s to %d: %w: want 0 or more", ev.Key, ev.Replicas, ErrInvalid)
	case ev.Current >= 0 && s.obj.Spec.Want() != ev.Current && s.requestID != ev.RequestID:
		err = fmt.Errorf("service %s: %w: it has %d replicas, not %d", ev.Key, ErrChanged, s.obj.Spec.Want(), ev.Current)
	}
	if err != nil {
		c.out = append(c.out, Reply{Ticket: ev.Ticket, Err: err})
		return
	}
	want := s.obj
	want.Metadata.ResourceVersion, want.Metadata.UID = 0, ""
	want.Spec.Replicas = &ev.Replicas
	c.apply(Apply{Ticket: ev.Ticket, Services: []*api.Service{&want}, RequestID: ev.RequestID, By: ev.By})
}

func (c *Core) deleteServices(ev Delete) {
	var result DeleteResult
	for _, key := range ev.Keys {
		if c.services[key] == nil {
			result.Missing = append(result.Missing, key)
		} else if !slices.Contains(result.Deleted, key) {
			result.Deleted = append(result.Deleted, key)
		}
	}
	if len(result.Missing) > 0 && !ev.IgnoreMissing {
		c.out = append(c.out, Reply{Ticket: ev.Ticket, Err: fmt.Errorf("service %s: %w; nothing was deleted", result.Missing[0], ErrNotFound)})
		return
	}
	var ops []store.Op
	for _, key := range result.Deleted {
		s := c.services[key]
		if s.deleting() {
			continue
		}
		s.obj.Metadata.DeletedAt = c.now
		s.obj.Metadata.ResourceVersion++
		ops = append(ops, store.Put(serviceKey(key), object(api.KindService, &s.obj, s.requestID)))
		c.markDirty(s)
	}
	if len(ops) > 0 {
		c.write(ops...)
	}
	c.emit(Reply{Ticket: ev.Ticket, Value: result})
}

func (c *Core) explain(ev Explain) {
	s := c.services[ev.Key]
	if s == nil {
		c.out = append(c.out, Reply{Ticket: ev.Ticket, Err: fmt.Errorf("service %s: %w", ev.Key, ErrNotFound)})
		return
	}
	c.out = append(c.out, Reply{Ticket: ev.Ticket, Value: c.explainNodes(s)})
}
